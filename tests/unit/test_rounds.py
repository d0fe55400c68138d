"""The teacher works where the student is weak, and another round must make dev better."""

import json
import re
from collections import Counter

import pytest

from bench import Bench
from drllama import plugins
from drllama.errors import DataError, OverlapError
from faults.server import FaultServer
from scripted_student import HARD

RECIPE = """
name: weak
task: {labels: [yes, no, maybe]}
data: {jsonl: {path: QUESTIONS}}
teacher: {openai-compatible: {base_url: BASE_URL, model: large}}
augment:
  rewrite: {per_item: 1, retell_context: false}
  new: null
  max_attempts: 1
  select: {by: errors, folds: 2}
filters: {form: null, duplicates: null}
evaluate: {bootstrap_samples: 100}
"""


def make_bench(folder, server):
    """Twelve training questions, three of them hard; a teacher who rewrites them as often as he is asked."""
    rows = []
    for split, size in (("train", 12), ("dev", 3), ("test", 6)):
        for at in range(size):
            hard = f" {HARD}" if split == "train" and at % 4 == 0 else ""
            label = ("yes", "no", "maybe")[at % 3]
            question = f"Is{hard} remedy {at} of {split} any use?"
            rows.append({"id": f"{split}{at}", "question": question, "context": f"{split} {at}", "label": label})
            rows[-1]["split"] = split
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "questions.jsonl").write_text(text, encoding="utf-8")
    recipe = RECIPE.replace("QUESTIONS", str(folder / "questions.jsonl")).replace("BASE_URL", server.base_url)
    (folder / "recipe.yaml").write_text(recipe, encoding="utf-8")
    return Bench(folder)


@pytest.fixture
def bench(tmp_path, monkeypatch):
    drawn = Counter()

    def says(body):
        asked = re.search(r"remedy (\d+) of (train|dev)", body["messages"][1]["content"])
        if asked is None or asked[2] == "dev":
            return json.dumps({"label": "yes"})
        drawn[asked[1]] += 1
        return json.dumps({"question": f"Rewrite {drawn[asked[1]]} of {asked[1]}?", "long_answer": "So."})

    with FaultServer(says=says) as server:
        bench = make_bench(tmp_path, server)
        monkeypatch.setattr(plugins, "make_student", bench.script.make_student)
        yield bench


def test_only_what_the_student_gets_wrong_is_augmented(bench):
    run = bench.run()
    assert [(one.number, one.num_chosen, one.num_kept, one.dev) for one in run.taught.rounds] == [(1, 3, 3, None)]
    assert run.taught.candidates == {"rewrite": 3}
    rows = [json.loads(line) for line in (bench.store.root / run.id / "rows.jsonl").read_text().splitlines()]
    assert {row["question"] for row in rows} == {"Rewrite 1 of 0?", "Rewrite 1 of 4?", "Rewrite 1 of 8?"}


def test_no_student_is_asked_a_training_question_that_it_was_trained_on_and_none_of_dev_or_test_is_chosen(bench):
    bench.run()
    parts = [set(questions) for questions in bench.script.taught[:2]]
    asked = {question for _, question in bench.script.asked if "of train" in question}
    assert len(asked) == 12
    assert parts[0] | parts[1] == asked
    assert not parts[0] & parts[1]


def test_after_rounds_the_untrained_student_answers_without_an_adapter(bench):
    run = bench.run()
    asked = [question for who, question in bench.script.asked if who == "untrained"]
    assert sum("of test" in question for question in asked) == 6
    assert sum("of dev" in question for question in asked) == 3
    untrained = next(one for one in run.evaluations if one.system == "untrained")
    assert {prediction.choice for prediction in untrained.predictions} == {"yes"}


def test_a_finished_run_repeats_nothing(bench):
    first = bench.run()
    trainings = bench.script.trainings
    bench.script.asked.clear()
    assert bench.run() == first
    assert (bench.script.trainings, bench.script.asked) == (trainings, [])


def test_a_round_that_doesn_t_make_dev_better_is_the_last_and_its_rows_aren_t_used(bench):
    # Two parts and the whole for each round; then the arm without rows.
    bench.script.dev_nats = [1, 1, 0.5, 1, 1, 0.6]
    run = bench.run("augment.select.rounds=5")
    assert [(one.num_chosen, one.num_kept, one.dev) for one in run.taught.rounds] == [(3, 3, -0.5), (3, 6, -0.6)]
    assert run.taught.candidates == {"rewrite": 3}
    assert [arm.num_extra for arm in run.arms] == [0, 3]


def test_a_round_that_makes_dev_better_is_used_and_rows_go_with_their_documents(bench):
    bench.script.dev_nats = [1, 1, 0.5, 1, 1, 0.4]
    run = bench.run("augment.select.rounds=2")
    assert [(one.num_chosen, one.num_kept, one.dev) for one in run.taught.rounds] == [(3, 3, -0.5), (3, 6, -0.4)]
    assert run.taught.candidates == {"rewrite": 6}
    for questions in bench.script.taught[3:5]:
        told = {question for question in questions if question.startswith("Rewrite")}
        at = {question.split()[-1] for question in told}
        assert told
        assert all(any(f"remedy {number.rstrip('?')} of" in question for question in questions) for number in at)


def test_a_student_that_gets_everything_right_is_told(bench):
    text = (bench.folder / "questions.jsonl").read_text()
    (bench.folder / "questions.jsonl").write_text(text.replace(HARD, "hard"))
    with pytest.raises(DataError, match="gets every training question right out of fold"):
        bench.run()


def test_more_parts_than_documents_are_told(bench):
    with pytest.raises(DataError, match="12 documents can't be cut into 13 parts; set it lower"):
        bench.run("augment.select.folds=13")


def test_a_training_question_that_leaks_stops_the_run_before_any_student_is_trained(bench):
    text = (bench.folder / "questions.jsonl").read_text()
    dev = {
        "id": "dev3",
        "question": "Is remedy 3 of dev any use?",
        "context": "Forty patients had it. " * 3,
        "label": "yes",
    }
    dev |= {"split": "dev", "group": "dev3"}
    near = {**dev, "id": "x", "question": "Was remedy 3 cheap?", "split": "train", "group": "x"}
    (bench.folder / "questions.jsonl").write_text(text + json.dumps(near) + "\n" + json.dumps(dev) + "\n")
    with pytest.raises(OverlapError, match="1 of 13 rows to train on leak dev or test"):
        bench.run()
    assert bench.script.trainings == 0
    assert (bench.store.root / "weak-before-rounds" / "leaks.json").exists()


def test_the_least_sure_half_is_chosen(bench):
    run = bench.run("augment.select={by: uncertain, share: 0.5, folds: 2}")
    assert [one.num_chosen for one in run.taught.rounds] == [6]
