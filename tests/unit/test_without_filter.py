"""What a filter is worth: an arm of its own in which it stops nothing, told beside the verdict and apart from it."""

import asyncio
import json
import re
from dataclasses import replace

import pytest
from candidates import candidate
from made_up_run import make_experiment
from test_filter_stages import LABEL, ROWS, Scripted, bench_of, failure, sift, text_of

from bench import RecordedBench
from drllama import plugins, teachers
from drllama.cli.tables import run_summary
from drllama.errors import RecipeError
from drllama.filters.review import review
from drllama.recipe import resolve
from drllama.replies import RequestStore
from drllama.report import report_contents, report_html, report_json, report_markdown
from drllama.report.schema import SCHEMAS
from drllama.stages.bill import FOR_ARMS_WITHOUT_FILTER
from drllama.stages.filter import unfiltered_by
from drllama.stages.weigh import weigh
from drllama.types import ArmName, Factor, SwitchedOff

SHORT = candidate(method="new", call="f" * 64, label="yes", question="Why so?")
YES = json.dumps({"label": "yes"})


def unfiltered(name, teacher, settings, rows):
    reviewed = review(rows, ())
    return asyncio.run(unfiltered_by(name, sift(teacher, settings, rows), bench_of(teacher, settings), reviewed))


def test_rows_that_a_filter_stopped_go_on_to_those_behind_it(tmp_path):
    teacher, rows = Scripted(lambda request: YES), [*ROWS, SHORT]
    with RequestStore(tmp_path / "replies.sqlite") as replies:
        kept = teachers.Stored(teachers.Kept(teacher, replies), replies)
        sifted = sift(kept, LABEL, rows)
        sent = len(teacher.asked)
        without_label = unfiltered("label", kept, LABEL, rows)
        assert len(teacher.asked) == sent  # Whom it stopped was asked about before.
        without_form = unfiltered("form", kept, LABEL, rows)
        assert len(teacher.asked) == sent + 1
    assert without_label.kept == tuple(ROWS)
    assert without_label.votes == sifted.votes
    assert without_form.kept == (*sifted.kept, SHORT)
    assert set(without_form.votes) == {*sifted.votes, SHORT.id}


def test_what_a_filter_finds_out_is_there_for_those_behind_it_though_it_stops_nothing():
    rows = [replace(row, example=replace(row.example, label="no")) for row in ROWS]
    teacher = Scripted(lambda request: json.dumps({"label": "no" if "fever" in text_of(request) else "yes"}))
    found = unfiltered("label", teacher, {**LABEL, "balance": {"at_most": 1}}, rows)
    assert ["fever" in one.example.question for one in found.kept] == [True]


def test_rows_that_nobody_could_judge_for_want_of_a_reply_are_counted():
    teacher = Scripted(lambda request: failure() if "Why so?" in text_of(request) else YES)
    found = unfiltered("form", teacher, LABEL, [*ROWS, SHORT])
    assert (found.num_unanswered, SHORT in found.kept) == (1, False)
    verdict = json.dumps({"reason": "-", "supported": "yes", "label": "yes"})
    judge = Scripted(lambda request: failure() if "Why so?" in text_of(request) else verdict)
    found = unfiltered("form", judge, {"duplicates": None, "judge": {}}, [*ROWS, SHORT])
    assert (found.num_unanswered, SHORT in found.kept) == (1, False)


def test_a_filter_that_stopped_nothing_isn_t_tried_again():
    teacher = Scripted(lambda request: YES)
    found = unfiltered("form", teacher, LABEL, ROWS)
    assert len(teacher.asked) == len(ROWS)
    assert found.kept == sift(teacher, LABEL, ROWS).kept


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"without_filter": ["leaks"]}, "without_filter has leaks, which can't be turned off"),
        ({"without_filter": ["label"]}, "augment.without_filter has label, but filters hasn't; set it, or take it out"),
        ({"without_filter": ["form", "form"]}, "without_filter must differ from each other"),
        ({"without_filter": ["form"], "arms": ["none", "synthetic-only"]}, "needs rewrite, new or combined among arms"),
        ({"without_filter": ["form"], "doses": [0.5]}, "and 1.0 among doses"),
        ({"without_filter": ["spelling"]}, "augment.without_filter.0"),
    ],
)
def test_filters_that_can_t_be_switched_off_are_refused(settings, told):
    with pytest.raises(RecipeError, match=re.escape(told)):
        resolve({"name": "x", "data": "pubmedqa-demo", "augment": settings})


THREE = (
    "filters.form.min_question_characters=34",  # the four rewrites are shorter
    "filters.balance.at_most=6",
    "augment.without_filter=[balance, form, duplicates]",
)


@pytest.fixture
def bench(tmp_path, monkeypatch):
    bench = RecordedBench(tmp_path)
    monkeypatch.setattr(plugins, "make_student", bench.script.make_student)
    return bench


def test_one_recipe_gives_an_arm_for_each_filter_and_says_what_it_took(bench):
    run = bench.run("augment.arms=[none, new, combined]", *THREE)
    off = {arm.id: arm.switched_off for arm in run.arms if arm.switched_off}
    assert [(arm.id, arm.num_extra) for arm in run.arms] == [
        ("none", 0),
        ("new", 6),
        ("combined", 6),
        ("combined-without-balance", 8),
        ("combined-without-form", 6),
        ("combined-without-duplicates", 6),
    ]
    assert {one.arm for one in off.values()} == {"combined"}
    assert (off["combined-without-balance"].num_let_in, off["combined-without-balance"].num_left_out) == (2, 0)
    exchanged = off["combined-without-form"].num_let_in
    assert exchanged == off["combined-without-form"].num_left_out > 0
    assert off["combined-without-duplicates"].is_same
    # New and combined have the same rows here, and so has combined without the check for duplicates.
    assert bench.script.trainings == 4
    told = [one.sentence for one in run.worth.attributions if one.factor is Factor.FILTER]
    assert told[0].startswith("balancing took 2 of 8 rows (25 %) and changed accuracy by +0.0 points [")
    assert told[1].startswith(f"the form check took {exchanged} of 6 rows (")
    assert f"let in {exchanged} others and changed" in told[1]
    assert told[2] == "the check for duplicates took none of 6 rows, so it changed nothing"
    assert all(one in run_summary(run, bench.store.root) for one in told)
    folder = bench.store.root / run.id
    assert all(f"- {one}" in (folder / "report.md").read_text(encoding="utf-8") for one in told)
    assert all(f"<li>{one}</li>" in (folder / "report.html").read_text(encoding="utf-8") for one in told)
    assert bench.store.run(run.id) == run


def test_the_ledger_says_which_arms_train_on_a_row_that_a_filter_stopped(bench):
    run = bench.run("augment.arms=[none, combined]", *THREE)
    dropped = [row for row in bench.store.ledger(run) if row.dropped]
    form, balance = ([row for row in dropped if row.dropped.by == name] for name in ("form", "balance"))
    assert (len(form), len(balance)) == (4, 2)
    assert all("combined-without-balance" in row.arms and "combined" not in row.arms for row in balance)
    freed = [row for row in form if row.arms]
    assert len(freed) == run.arm("combined-without-form").switched_off.num_let_in
    assert {row.arms for row in freed} == {("combined-without-form",)}


def test_the_other_arms_are_the_same_students_with_or_without_the_setting(bench):
    plain = bench.run("augment.arms=[none, combined]", *THREE[:2])
    run = bench.run("augment.arms=[none, combined]", *THREE)
    assert [(cell.arm, cell.fingerprint) for cell in plain.cells] == [
        (cell.arm, cell.fingerprint) for cell in run.cells[: len(plain.cells)]
    ]
    assert (run.effects[: len(plain.effects)], run.conclusion) == (plain.effects, plain.conclusion)


def test_where_combined_isn_t_listed_the_larger_of_the_others_is_taken(bench):
    run = bench.run("augment.arms=[none, rewrite, new]", "augment.without_filter=[form]")
    assert run.arms[-1].id == "new-without-form"


@pytest.fixture(scope="module")
def experiment():
    """An experiment of three seeds, and the same with an arm whose students answer as those on rewrites do."""
    run, asked = make_experiment()
    new = next(arm for arm in run.arms if arm.name is ArmName.NEW)
    off = SwitchedOff(filter="label", arm=new.id, num_let_in=94, num_left_out=0, num_unanswered=0)
    arm = replace(
        new, id="new-without-label", system=f"{new.system}, without the label check", num_extra=494, switched_off=off
    )
    more = [
        replace(cell, arm=arm.id, evaluation=replace(cell.evaluation, system=f"{arm.system}, seed {cell.seed}"))
        for cell in run.cells
        if cell.arm == "rewrite"
    ]
    arms, cells = (*run.arms, arm), (*run.cells, *more)
    extra = replace(run.taught.bill[0], prompt=f"answer.v1{FOR_ARMS_WITHOUT_FILTER}")
    bill = (*run.taught.bill, extra)
    found = weigh(arms, cells, run.task, resolve(run.recipe).recipe, bill=bill)
    whole = replace(
        run,
        arms=arms,
        cells=cells,
        taught=replace(run.taught, bill=bill),
        summaries=found.summaries,
        effects=found.effects,
        conclusion=found.conclusion,
        worth=found.worth,
    )
    return run, whole, asked


def test_an_arm_without_a_filter_leaves_verdict_intervals_and_costs_as_they_are(experiment):
    run, whole, _ = experiment
    assert whole.conclusion == run.conclusion
    assert whole.effects[: len(run.effects)] == run.effects
    assert [(one.arm, one.baseline, one.num_arms) for one in whole.effects[len(run.effects) :]] == [
        ("fine-tuned + new questions, without the label check", "fine-tuned", 1),
        ("fine-tuned + new questions, without the label check", "fine-tuned + new questions", 1),
    ]
    assert (whole.worth.costs, whole.worth.power, whole.worth.curves) == (
        run.worth.costs,
        run.worth.power,
        run.worth.curves,
    )
    assert whole.worth.attributions[:-1] == run.worth.attributions


def test_the_report_says_what_the_filter_took_and_changed_in_all_three_forms(experiment):
    _, whole, asked = experiment
    made = report_contents(whole, asked, worst=3, flipped=3)
    (found,) = [one for one in made.worth.attributions if one.factor is Factor.FILTER]
    change = r"\+\d+\.\d points \[[+-]\d+\.\d, \+\d+\.\d\]"
    told = rf"the label check took 94 of 494 rows \(19 %\) and changed accuracy by {change}, macro-F1 by {change}"
    assert re.fullmatch(told, found.sentence)
    assert found.difference.estimate.value == pytest.approx(-whole.effects[-1].accuracy.estimate.value)
    assert f"<li>{found.sentence}</li>" in report_html(made)
    assert f"- {found.sentence}" in report_markdown(made)
    stored = json.loads(report_json(made))
    (kept,) = [one for one in stored["worth"]["attributions"] if one["factor"] == "filter"]
    assert kept["rows"] == {"num_before": 494, "num_dropped": 94, "num_instead": 0, "num_unanswered": 0}
    assert stored["arms"][-1]["without_filter"] == "label"
    assert all("without the label check" not in answer.arm for item in made.flips.items for answer in item.answers)
    jsonschema = pytest.importorskip("jsonschema", reason="comes with make setup")
    validator = jsonschema.Draft202012Validator(json.loads(SCHEMAS["report.schema.json"]()))
    assert list(validator.iter_errors(stored)) == []
