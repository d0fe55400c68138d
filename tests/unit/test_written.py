"""What students write, and how it is read."""

import pytest

from bench import RecordedBench
from drllama import plugins
from drllama.cli.tables import run_summary
from drllama.parsing import read_written, readers_of
from drllama.recipe import Evaluate
from drllama.report.written import written_lines
from drllama.stages.write import read_as
from drllama.stats import evaluate_predictions
from drllama.types import Example, Original, Outcome, Reader, Task, Unparsed, Writing
from scripted_student import HARD, POISON, write_questions


def task(*labels, **verbalizers):
    return Task(name="t", instruction="Answer.", labels=labels, verbalizers={one: one for one in labels} | verbalizers)


MEDICAL, LETTERS = task("yes", "no", "maybe"), task("A", "B", "C", "D")
# What the paper's two notebooks and our own reader make of the same words.
READINGS = [
    (" yes", "yes", "yes", "yes"),
    (" No.", "no", "no", "no"),
    (" maybe", "maybe", "maybe", "maybe"),
    (" Yes, it does", "yes", "yes", "yes"),
    (" The answer is yes.", "maybe", "yes", "yes"),
    (" It isn't known.", "maybe", "no", None),
    (" The diagnosis was late, yes", "maybe", "no", None),
    (" Cannot say", "no", "no", None),
    (" There is no evidence", "maybe", "no", None),
    (" It helps.", "maybe", "maybe", None),
    ("\n yes", "maybe", "maybe", "yes"),
    ("", "maybe", "maybe", None),
    (" yes yes yes", "yes", "yes", "yes"),
    (" yes. maybe. maybe.", "yes", "yes", None),
    (" so" * 100 + " yes", "maybe", "maybe", None),
    (" so" * 99 + " yes", "maybe", "yes", None),
]


@pytest.mark.parametrize(("text", "first_word", "hundred_words", "strict"), READINGS)
def test_three_readers_read_the_same_words(text, first_word, hundred_words, strict):
    assert read_written(text, MEDICAL, Reader.FIRST_WORD) == first_word
    assert read_written(text, MEDICAL, Reader.HUNDRED_WORDS) == hundred_words
    found = read_written(text, MEDICAL, Reader.STRICT)
    assert found == strict if strict else isinstance(found, Unparsed)


def test_the_papers_readers_are_for_yes_no_and_maybe_only():
    assert readers_of(task("no", "maybe", "yes")) == (Reader.FIRST_WORD, Reader.HUNDRED_WORDS, Reader.STRICT)
    assert readers_of(LETTERS) == (Reader.STRICT,)


@pytest.mark.parametrize(
    ("text", "label"),
    [(" it helps", "yes"), (" It helps. It helps", "yes"), (" no effect.", "no effect"), (" no", "no"), (" yes", None)],
)
def test_the_strict_reader_looks_for_the_words_that_stand_for_a_label(text, label):
    found = read_written(text, task("yes", "no", "no effect", yes="it helps"), Reader.STRICT)
    assert found == label if label else isinstance(found, Unparsed)


def test_what_was_asked_is_correct_wrong_unparsed_or_failed():
    texts = [(" yes", "yes"), (" no", "yes"), (" Who knows?", "maybe"), (None, "no")]
    asked = [
        Example(
            question=f"{number}?",
            context="",
            label=gold,
            split="test",
            group=str(number),
            origin=Original(source="s", source_id=str(number)),
        )
        for number, (_, gold) in enumerate(texts)
    ]
    written = [
        Writing(
            example_id=one.id,
            source_id=one.origin.source_id,
            text=text,
            num_tokens=9,
            truncated_tokens=0,
            note="" if text else "too long",
        )
        for one, (text, _) in zip(asked, texts, strict=True)
    ]
    counts = {}
    for reader in readers_of(MEDICAL):
        found = read_as(written, asked, reader, MEDICAL)
        counted = evaluate_predictions(
            found,
            system=reader,
            split="test",
            labels=MEDICAL.labels,
            settings=Evaluate(bootstrap_samples=100),
            seed=1,
        )
        counts[reader] = [counted.counts[outcome] for outcome in Outcome]
        assert [one.note for one in found][3:] == ["too long"]
    # Correct, wrong, unparsed, failed: the first word takes what can't be read for "maybe", the scan "knows" for "no".
    assert counts == {
        Reader.FIRST_WORD: [2, 1, 0, 1],
        Reader.HUNDRED_WORDS: [1, 2, 0, 1],
        Reader.STRICT: [1, 1, 1, 1],
    }


# In a run

IN_WORDS = "evaluate.generate=true"


@pytest.fixture
def bench(tmp_path, monkeypatch):
    bench = RecordedBench(tmp_path)
    hard = [{"id": f"hard{at}", "question": f"{HARD} {at}?", "label": "yes", "split": "test"} for at in range(3)]
    poison = {"id": "poison", "question": f"{POISON}?", "label": "no", "split": "test"}
    write_questions(tmp_path / "questions.jsonl", train=4, dev=3, extra=(*hard, poison))
    monkeypatch.setattr(plugins, "make_student", bench.script.make_student)
    return bench


def _made(folder):
    folder.mkdir()
    return RecordedBench(folder)


def num_written(bench):
    return sum(who.endswith("writing") for who, _ in bench.script.asked)


def test_a_run_counts_written_answers_as_each_reader_reads_them_beside_the_scores(bench):
    run = bench.run(IN_WORDS, "augment.arms=[none, combined]", "seeds=2")
    students = ["untrained", "fine-tuned, seed 1", "fine-tuned + both, seed 1"]
    assert [(one.student, one.reader) for one in run.written] == [(who, how) for who in students for how in Reader]
    # Of 16 questions, a trained student fails at one, and is wrong about three in words that only scanning misreads.
    found = {(one.student, one.how): (list(one.counts.values()), one.as_scored) for one in written_lines(run)}
    trained = {how: found["fine-tuned, seed 1", how] for how in ("scores", *Reader)}
    assert trained == {
        "scores": ([12, 3, 0, 1], None),
        "first word": ([12, 3, 0, 1], 12),
        "100 words": ([12, 3, 0, 1], 15),
        "strict": ([12, 0, 3, 1], 12),
    }
    assert [one.system for one in run.readings][-3:] == [f"{who}, in words" for who in students]
    assert [one.stage for one in run.steps][-3:] == ["write"] * 3


def test_what_is_written_once_is_only_read_again(bench):
    bench.run(IN_WORDS)
    assert num_written(bench) == 16 * 5
    bench.run(IN_WORDS, "evaluate.level=0.9")
    assert num_written(bench) == 16 * 5


def test_nobody_writes_unless_it_is_asked_for(bench):
    run = bench.run()
    assert (run.written, num_written(bench)) == ((), 0)
    assert "own words" not in (bench.store.root / run.id / "report.md").read_text()


def test_reports_and_the_terminal_show_what_readers_make_of_the_same_words(bench):
    run = bench.run(IN_WORDS)
    folder = bench.store.root / run.id
    told = ("| fine-tuned | strict |", "<td>strict</td>", '"how": "strict"')
    for name, row in zip(("report.md", "report.html", "report.json"), told, strict=True):
        assert row in (folder / name).read_text()
    assert "strict" in run_summary(run, bench.store.root)


def test_a_student_trained_elsewhere_writes_only_where_its_adapter_is(bench, tmp_path, monkeypatch):
    cells = tmp_path / "cells"
    bench.run(IN_WORDS, "augment.arms=[none]", cells=cells)
    other = _made(tmp_path / "elsewhere")
    monkeypatch.setattr(plugins, "make_student", other.script.make_student)
    (other.folder / "recipe.yaml").write_text((bench.folder / "recipe.yaml").read_text())
    run = other.run(IN_WORDS, "augment.arms=[none]", cells=cells)
    assert {one.student for one in run.written} == {"untrained"}
