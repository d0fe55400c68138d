"""Two experiments whose truth is known, with a real student: rows that add nothing, and rows that add what is missing.

The student is a tiny model of random weights, trained whole. A question ends in one of eight words, and the word tells
the answer; the words before it are noise, so that no row is like a test row.
"""

import json
import random

import pytest

from bench import Bench
from drllama.types import Finding
from tiny_student import save_tiny

pytestmark = pytest.mark.slow

ANSWER_OF = dict.fromkeys(("rose", "grew", "won", "up"), "yes") | dict.fromkeys(("fell", "sank", "lost", "down"), "no")
KNOWN = ("rose", "fell")
"""The words that people's training questions end in; dev, test and the teacher's new questions have all eight."""
RECIPE = """
name: honesty
seeds: 4
task: {labels: [yes, no]}
data: {jsonl: {path: QUESTIONS}}
student: {model: STUDENT, max_tokens: 64, device: cpu}
teacher: {replay: {endpoint: recorded, model: large, recording: RECORDING}}
augment: {rewrite: {per_item: 1, retell_context: false}, new: {per_item: 2}, arms: [none, rewrite, new, duplicate-real]}
filters: {form: null, duplicates: null}
finetune: {method: full, learning_rate: 2.0e-3, micro_batch_size: 8, epochs: 3, updates: 60, choose_epoch_by: last}
evaluate: {bootstrap_samples: 200}
"""


def asked(rng, words):
    noise = ["".join(rng.choice("bdgklmnprstvz") + rng.choice("aeiou") for _ in range(2)) for _ in range(3)]
    return f"{' '.join(noise)} {rng.choice(words)}"


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """The teacher's rewrites are the questions themselves; its new questions have the words that are missing."""
    folder, rng = tmp_path_factory.mktemp("honesty"), random.Random(1)
    student = save_tiny("llama", folder / "student")
    rows, replies = [], []
    for split, number, words in (("train", 32, KNOWN), ("dev", 32, tuple(ANSWER_OF)), ("test", 144, tuple(ANSWER_OF))):
        for at in range(number):
            question = asked(rng, words)
            rows.append({"id": f"{split}{at}", "question": question, "split": split, "group": f"{split}{at}"})
            rows[-1]["label"] = ANSWER_OF[question.split()[-1]]
            replies.append({"id": f"{split}{at}", "answer": "yes"})
            if split == "train":
                written = [asked(rng, tuple(ANSWER_OF)) for _ in range(2)]
                new = [{"question": one, "label": ANSWER_OF[one.split()[-1]], "long_answer": "So."} for one in written]
                replies[-1] |= {"rewrite": {"question": question, "long_answer": "So."}, "new": new}
    for name, lines in (("questions", rows), ("recording", replies)):
        text = "".join(json.dumps(one) + "\n" for one in lines)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    recipe = RECIPE.replace("QUESTIONS", str(folder / "questions.jsonl")).replace("STUDENT", str(student))
    recipe = recipe.replace("RECORDING", str(folder / "recording.jsonl"))
    (folder / "recipe.yaml").write_text(recipe, encoding="utf-8")
    return Bench(folder)


def found_of(run, system):
    return next(one.finding for one in run.conclusion.arms if one.arm == system)


def test_copies_of_real_rows_end_in_no_evidence(bench):
    run = bench.run("augment.arms=[none, rewrite, duplicate-real]")
    assert {arm.id: arm.num_extra for arm in run.arms} == {"none": 0, "rewrite": 32, "duplicate-real": 32}
    assert run.conclusion.finding is Finding.NO_EVIDENCE
    assert "No evidence either way" in (bench.store.root / run.id / "report.md").read_text(encoding="utf-8")


def test_rows_that_add_what_is_missing_help_and_copies_beside_them_do_not(bench):
    run = bench.run()
    assert found_of(run, "fine-tuned + new questions") is Finding.HELPS
    assert found_of(run, "fine-tuned + rewrites") is Finding.NO_EVIDENCE
    assert run.conclusion.finding is Finding.HELPS
    assert "Generated data helps" in (bench.store.root / run.id / "report.md").read_text(encoding="utf-8")
