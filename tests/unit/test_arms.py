"""A run with a teacher: the same student with and without the teacher's rows, and what may be said of it."""

import json
import re

import pytest
from scipy.stats import binomtest

from bench import ALL_ARMS, RecordedBench
from drllama import afterwards, plugins
from drllama.afterwards import WhichCell
from drllama.errors import DataError, RecipeError
from drllama.recipe import Finetune, resolve
from drllama.stages.arms import worth_on_dev
from drllama.stats.significance import mcnemar
from drllama.types import Epoch, Finetuned


@pytest.fixture
def bench(tmp_path, monkeypatch):
    bench = RecordedBench(tmp_path)
    monkeypatch.setattr(plugins, "make_student", bench.script.make_student)
    return bench


def test_a_run_trains_each_arm_on_the_real_rows_and_its_own_at_the_same_number_of_updates(bench):
    run = bench.run()
    assert [
        (arm.id, arm.num_extra, cell.finetuned.num_examples) for arm, cell in zip(run.arms, run.cells, strict=True)
    ] == [
        ("none", 0, 4),
        ("rewrite", 4, 8),
        ("new", 8, 12),
        ("combined", 12, 16),
    ]
    assert {cell.finetuned.num_steps for cell in run.cells} == {3}
    assert [one.system for one in run.evaluations][2:] == [
        "untrained",
        "fine-tuned",
        "fine-tuned + rewrites",
        "fine-tuned + new questions",
        "fine-tuned + both",
    ]
    effects = [(one.baseline, one.accuracy.estimate.value, one.vote.p_value) for one in run.effects]
    assert effects == [("fine-tuned", 0, 1)] * 3
    assert bench.store.run(run.id) == run


def test_the_audit_and_the_candidates_travel_with_the_run(bench):
    run = bench.run()
    assert run.taught.candidates == {"rewrite": 4, "new": 8}
    assert not run.taught.audit.may_write_new
    assert run.taught.audit.student.system == "untrained student"
    assert {one.split for one in (run.taught.audit.student, run.taught.audit.teacher)} == {"dev"}
    folder = bench.store.root / run.id
    assert len(bench.store.ledger(run)) == 12
    assert json.loads((folder / "report.json").read_text())["teacher"]["candidates"] == {"rewrite": 4, "new": 8}
    for name in ("report.html", "report.md"):
        report = (folder / name).read_text(encoding="utf-8").replace("&#39;", "'")
        assert "clearly better than the majority answer" in report
        assert "The teacher wrote new questions although" in report
        assert "best on dev" in report
        assert "at the same number of updates" in report


def test_a_finished_run_with_a_teacher_repeats_nothing(bench):
    first = bench.run()
    bench.script.asked.clear()
    assert bench.run() == first
    assert (bench.script.asked, bench.script.trainings) == ([], 4)


def test_other_replies_train_again_only_the_arms_that_hold_them(bench):
    first = bench.run()
    text = (bench.folder / "recorded.jsonl").read_text()
    (bench.folder / "recorded.jsonl").write_text(
        text.replace("Will the price of morphine fall soon?", "Will the price of morphine ever fall?")
    )
    (bench.folder / "runs" / "replies.sqlite").unlink()
    second = bench.run()
    assert second.id != first.id
    assert bench.script.trainings == 4 + 2


def test_without_a_section_augment_no_teacher_is_asked(bench):
    bench.write("evaluate: {bootstrap_samples: 100}\n")
    run = bench.run()
    assert (run.taught, [arm.name for arm in run.arms], run.effects) == (None, ["none"], ())
    assert not (bench.folder / "runs" / run.id / "rows.jsonl").exists()


def test_one_arm_alone_is_no_comparison(bench):
    run = bench.run("augment.arms=[combined]")
    assert ([arm.name for arm in run.arms], run.effects) == (["combined"], ())


def test_a_generated_row_that_is_a_test_question_never_reaches_training(bench):
    context = "In test, treatment 0 was given."
    leaky = {"question": "Does treatment 0 of test help?", "long_answer": "a", "context": context}
    bench.record([{"id": "train0", "rewrite": leaky}, {"id": "dev0", "answer": "yes"}])
    run = bench.run("augment.new=null", "augment.arms=[none, combined]", "filters.form=null", "filters.duplicates=null")
    assert [arm.num_extra for arm in run.arms] == [0, 0]
    (row,) = [row for row in bench.store.ledger(run) if row.kind == "candidate"]
    assert (row.dropped.by, row.dropped.evidence.source_id) == ("leaks", "test0")


def test_the_arm_of_a_finished_run_can_be_named(bench):
    run = bench.run()
    answer = afterwards.ask(run, "Does it help?", "", which=WhichCell(arm="new"), store=bench.store)
    assert answer.choice == "yes"
    alone = bench.run("augment.arms=[none]")
    with pytest.raises(DataError, match=re.escape("has no arm 'new'; choose one of none")):
        afterwards.ask(alone, "Does it help?", "", which=WhichCell(arm="new"), store=bench.store)


@pytest.mark.parametrize(
    ("augment", "told"),
    [
        ({"arms": ["none", "none"]}, "arms must differ from each other"),
        ({"arms": []}, "augment.arms"),
        ({"arms": ["non"]}, "augment.arms.0"),
        ({"rewrite": None, "arms": ["rewrite"]}, "arms has rewrite, which is null"),
        ({"rewrite": None, "new": None}, "rewrite and new are both null"),
    ],
)
def test_arms_that_make_no_sense_are_refused(augment, told):
    with pytest.raises(RecipeError, match=re.escape(told)):
        resolve({"name": "x", "data": "pubmedqa-demo", "augment": augment})


@pytest.mark.parametrize(("rule", "worth"), [("nll", -0.5), ("last", -0.5), ("accuracy", 0.7), ("macro_f1", 0.2)])
def test_dev_is_told_by_what_chooses_the_epoch(rule, worth):
    epochs = tuple(
        Epoch(number=number, train_loss_nats=1, dev_accuracy=a, dev_macro_f1=f, dev_nll_nats=n)
        for number, (n, a, f) in enumerate([(9, 0, 0), (0.5, 0.7, 0.2)], start=1)
    )
    tuned = Finetuned(
        epochs=epochs,
        chosen_epoch=2,
        num_steps=1,
        num_examples=1,
        left_out=(),
        truncated_examples=0,
        trainable_parameters=1,
    )
    assert worth_on_dev(tuned, Finetune(choose_epoch_by=rule)) == worth


def test_the_arm_is_chosen_by_its_mean_on_dev(bench):
    # Seed by seed, in each the four arms: the third is best in the mean, though never the best of a seed but once.
    bench.script.dev_nats = [0.5, 0.4, 0.3, 0.9, 0.1, 0.4, 0.15, 0.9]
    run = bench.run("seeds=2")
    assert run.chosen_arm == "new"
    assert (run.cell().seed, run.cell().on_dev) == (2, -0.15)
    (choice,) = [one for one in run.choices if one.what == "arm"]
    assert (choice.split, choice.by, choice.chosen) == ("dev", "nll", "new")
    assert choice.among == pytest.approx({"none": -0.3, "rewrite": -0.4, "new": -0.225, "combined": -0.9})


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (5, 0), (3, 3), (12, 5), (5, 12), (900, 1100), (3000, 2000)])
def test_mcnemar_agrees_with_scipy_s_binomial_test(gained, lost):
    wanted = binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    assert mcnemar(gained, lost) == pytest.approx(wanted, rel=1e-9)


def test_a_student_that_stacks_trains_all_arms_and_seeds_at_once(bench):
    bench.write(ALL_ARMS + "seeds: 2\n")
    bench.script.together = []
    run = bench.run()
    (stack,) = bench.script.together
    assert len(stack) == len(set(stack)) == len(run.cells) == 8
    bench.run()
    assert len(bench.script.together) == 1
