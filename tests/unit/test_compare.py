"""Runs held against each other: what is paired, what is refused, and what the page says."""

import html
import json
import re
from dataclasses import replace

import pytest
from made_up_run import make_experiment
from test_report import Page

from bench import RecordedBench
from drllama import plugins
from drllama.cli import main
from drllama.comparing import Entry, compare
from drllama.errors import DataError
from drllama.report import comparison_html, comparison_json, comparison_markdown
from drllama.report.schema import SCHEMAS
from drllama.types import ArmName


def entries(*runs, arms=()):
    return [Entry(run=run, arm=arm) for run, arm in zip(runs, arms or [None] * len(runs), strict=True)]


def compared(*runs, arms=()):
    return compare(entries(*runs, arms=arms), command="drllama compare A B")


@pytest.fixture(scope="module")
def runs():
    """The same arms with another teacher: the second's new questions are much better."""
    weak, _ = make_experiment(num_items=200)
    strong, _ = make_experiment(num_items=200, gains={**GAINS, ArmName.NEW: 1.5})
    return named(weak, "weak"), named(strong, "strong")


GAINS = {ArmName.NONE: 0, ArmName.REWRITE: 0.1, ArmName.NEW: 0.0, ArmName.DUPLICATE_REAL: 0}


def named(run, name):
    """The run under another name, its students others than those of a run with another name."""
    own = {ArmName.NEW: name, ArmName.REWRITE: name}
    cells = [replace(one, fingerprint=f"{own.get(one.arm)} {one.arm} {one.seed}") for one in run.cells]
    return replace(run, id=f"{name}-12345678", recipe={**run.recipe, "name": name}, cells=tuple(cells))


def test_each_arm_that_differs_is_held_against_the_first_run_s(runs):
    found = compared(*runs)
    assert [arm.name for arm in found.arms] == [
        "weak: fine-tuned + rewrites",
        "strong: fine-tuned + rewrites",
        "weak: fine-tuned + new questions",
        "strong: fine-tuned + new questions",
    ]
    assert [[effect.baseline for effect in arm.effects] for arm in found.arms] == [
        [],
        ["weak: fine-tuned + rewrites"],
        [],
        ["weak: fine-tuned + new questions"],
    ]
    assert "'strong: fine-tuned + new questions' +" in found.verdict
    assert found.is_different
    assert any("Not compared: none, duplicate-real" in note for note in found.notes)


def test_a_run_against_itself_in_another_order_differs_in_nothing(runs):
    weak, _ = runs
    turned = named(weak, "turned")
    cells = [
        replace(one, evaluation=replace(one.evaluation, predictions=one.evaluation.predictions[::-1]))
        for one in turned.cells
    ]
    found = compared(weak, replace(turned, cells=tuple(cells)))
    assert [effect.accuracy.estimate.value for arm in found.arms for effect in arm.effects] == [0.0, 0.0]
    assert [(one.num_gained, one.num_lost) for one in found.flips] == [(0, 0)] * 2
    assert not found.is_different
    assert found.verdict.startswith("No difference is shown: a true one above ")


def test_arms_can_be_named_and_be_of_one_run(runs):
    weak, strong = runs
    across = compared(weak, strong, arms=("none", "new"))
    assert [arm.name for arm in across.arms] == ["weak: fine-tuned", "strong: fine-tuned + new questions"]
    within = compared(strong, strong, arms=("none", "new"))
    theirs = next(one for one in strong.effects if one.arm == "fine-tuned + new questions")
    assert within.arms[1].effects[0].accuracy.by_seed == theirs.accuracy.by_seed
    with pytest.raises(DataError, match=r"strong-12345678 has no arm 'old'; choose one of none, rewrite, new"):
        compared(weak, strong, arms=(None, "old"))
    with pytest.raises(DataError, match="'weak: fine-tuned' is named twice"):
        compared(weak, weak, arms=("none", "none"))


def other_questions(run):
    return with_predictions(run, lambda one: replace(one, example_id=f"other {one.example_id}"))


def other_gold(run):
    return with_predictions(run, lambda one: replace(one, gold="no") if one.source_id == "s3" else one)


def other_labels(run):
    return replace(run, task=replace(run.task, labels=("true", "false")))


def no_seed_in_common(run):
    return replace(run, cells=tuple(replace(one, seed=one.seed + 3) for one in run.cells))


def with_predictions(run, changed):
    cells = [
        replace(one, evaluation=replace(one.evaluation, predictions=tuple(map(changed, one.evaluation.predictions))))
        for one in run.cells
    ]
    return replace(run, cells=tuple(cells))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (other_questions, "were asked different questions: 200 and 200, 0 of them the same"),
        (other_gold, r"other gold labels for 1 of the same questions, such as question s3: (yes|maybe) and no"),
        (other_labels, "have other labels: yes, no, maybe and true, false"),
        (no_seed_in_common, "no seed in common"),
    ],
)
def test_runs_that_can_t_be_paired_are_refused_in_a_line_that_says_what_differs(runs, change, said):
    weak, strong = runs
    with pytest.raises(DataError, match=said) as refused:
        compared(weak, change(strong))
    assert "\n" not in str(refused.value)


def test_runs_with_the_same_students_and_single_runs_are_refused(runs):
    weak, _ = runs
    with pytest.raises(DataError, match="trained the same students, so nothing differs"):
        compared(weak, replace(weak, id="again"))
    with pytest.raises(DataError, match="needs two runs or more"):
        compared(weak)


def test_the_seeds_that_all_have_are_compared(runs):
    weak, strong = runs
    short = replace(strong, cells=tuple(one for one in strong.cells if one.seed < 3), num_unfinished=4)
    found = compared(weak, short)
    assert {arm.summary.seeds for arm in found.arms} == {(1, 2)}
    assert "Compared are the seeds that all have: 1, 2." in found.notes
    assert any("aren't finished" in note for note in found.notes)


def test_settings_that_differ_are_told_and_no_others(runs):
    weak, strong = runs
    stronger = replace(strong, recipe={**strong.recipe, "finetune": {**strong.recipe["finetune"], "epochs": 9}})
    found = compared(weak, stronger)
    assert {one.path: one.values for one in found.settings} == {
        "name": ("weak", "strong"),
        "finetune.epochs": (str(weak.recipe["finetune"]["epochs"]), "9"),
    }


def test_runs_that_differ_in_the_teacher_alone_say_what_each_teacher_s_rows_bring(runs):
    weak, strong = (taught_by(run, model) for run, model in zip(runs, ("weak-1", "strong-1"), strict=True))
    # A run of an earlier drllama lacks settings that came since.
    augment = {name: value for name, value in weak.recipe["augment"].items() if name != "without_filter"}
    found = compared(replace(weak, recipe={**weak.recipe, "augment": augment}), strong)
    assert [(one.name, one.factor) for one in found.attributions] == [("strong-1", "teacher")] * 2
    change = r"[+-]\d+\.\d points \[[+-]\d+\.\d, [+-]\d+\.\d\]"
    told = rf"with rows of strong-1 instead of weak-1 changed accuracy by {change}, macro-F1 by {change}"
    rewrites, new = (one.sentence for one in found.attributions)
    assert re.fullmatch(rf"'fine-tuned \+ rewrites' {told}", rewrites)
    assert re.fullmatch(rf"'fine-tuned \+ new questions' {told}", new)
    assert found.attributions[1].difference.estimate == found.arms[3].effects[0].accuracy.estimate
    page, text = comparison_html(found), comparison_markdown(found)
    assert all(f"<li>{one}</li>" in html.unescape(page) for one in (rewrites, new))
    assert all(f"- {one}" in html.unescape(text) for one in (rewrites, new))


def test_two_runs_of_one_recipe_with_two_teachers_are_told_apart_by_their_teachers(tmp_path, monkeypatch):
    bench = RecordedBench(tmp_path)
    monkeypatch.setattr(plugins, "make_student", bench.script.make_student)
    first = bench.run()
    recorded = tmp_path / "recorded.jsonl"
    recorded.write_text(recorded.read_text().replace("fall soon?", "ever fall?"))
    second = bench.run("name=other", "teacher.replay.model=small")
    found = compared(first, second)
    assert [one.sentence.partition(" changed")[0] for one in found.attributions] == [
        "'fine-tuned + new questions' with rows of small instead of large",
        "'fine-tuned + both' with rows of small instead of large",
    ]


def test_runs_that_differ_in_more_than_the_teacher_attribute_nothing_to_it(runs):
    weak, strong = (taught_by(run, model) for run, model in zip(runs, ("weak-1", "strong-1"), strict=True))
    other = replace(strong, recipe={**strong.recipe, "filters": {"form": None}})
    assert compared(weak, other).attributions == ()
    assert compared(*runs).attributions == ()  # One teacher, asked twice.
    assert compared(weak, strong, arms=("none", "new")).attributions == ()


def taught_by(run, model):
    teacher = {"replay": {"endpoint": "http://localhost", "model": model, "recording": None}}
    return replace(run, taught=replace(run.taught, model=model), recipe={**run.recipe, "teacher": teacher})


def test_questions_that_can_t_be_read_any_more_are_no_hindrance(runs):
    found = compared(*runs)  # made-up.jsonl isn't there
    assert any("texts can't be read any more: " in note and "made-up.jsonl" in note for note in found.notes)
    assert all(item.question == "" for flips in found.flips for item in flips.items)


def test_the_page_says_the_same_as_markdown_and_json_and_loads_nothing(runs):
    found = compared(*runs)
    page, text = Page(comparison_html(found)), comparison_markdown(found)
    assert {"script", "link", "img", "iframe"}.isdisjoint(page.tags)
    assert "http" not in re.search(r"<style>(.*?)</style>", comparison_html(found), re.DOTALL).group(1)
    assert "None" not in page.text
    for arm in found.arms:
        value = arm.summary.metrics["accuracy"].value
        assert f"{100 * value:.1f} [" in page.text
        assert f"{100 * value:.1f} [" in text
    told = json.loads(comparison_json(found))
    jsonschema = pytest.importorskip("jsonschema", reason="comes with make setup")
    validator = jsonschema.Draft202012Validator(json.loads(SCHEMAS["comparison.schema.json"]()))
    assert list(validator.iter_errors(told)) == []


def test_the_command_writes_the_page_with_the_texts_of_questions(tmp_path, monkeypatch, capsys):
    bench = RecordedBench(tmp_path)
    monkeypatch.setattr(plugins, "make_student", bench.script.make_student)
    first, second = bench.run(), bench.run("finetune.epochs=2", "name=shorter")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["drllama", "compare", first.id, second.id])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 0
    out = capsys.readouterr().out
    assert out.startswith("No difference can be told: one seed can't tell it from the luck of training (1 seed, 12 ")
    (page,) = re.findall("report: (.*)", out)
    told = json.loads((tmp_path / page).with_suffix(".json").read_text(encoding="utf-8"))
    assert told["format"] == 1
    assert [one["path"] for one in told["settings"]] == ["name", "finetune.epochs"]
    assert told["command"] == f"drllama compare {first.id} {second.id}"
    assert (tmp_path / page).read_text(encoding="utf-8").startswith("<!doctype html>")
