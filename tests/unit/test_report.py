"""The report of a small made-up run, in its three forms.

After a wanted change of the Markdown report, write its golden file anew and read the difference:
``python tests/unit/test_report.py && git diff tests/unit/golden``
"""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from made_up_run import HOSTILE, LABELS, make_experiment, make_hostile_run, make_run
from pydantic import TypeAdapter

from drllama.errors import DataError
from drllama.recipe import Evaluate, Report
from drllama.report import (
    ReportContents,
    published_beside,
    read_published,
    report_contents,
    report_html,
    report_json,
    report_markdown,
    schema,
)
from drllama.report.published import beside_arm
from drllama.report.rendering import FORMAT
from drllama.report.schema import SCHEMAS
from drllama.report.wording import points_text
from drllama.stats import evaluate_predictions
from drllama.types import Equality, Finding, Reading

GOLDEN = Path(__file__).parent / "golden" / "report.md"
PUBLISHED = Path(__file__).parents[2] / "experiments" / "paper" / "published.json"


def contents(run_and_questions=None, worst=10, flipped=5):
    run, questions = run_and_questions or make_run()
    return report_contents(run, questions, worst=worst, flipped=flipped)


def system_run(golds_and_choices):
    """A run whose fine-tuned student gives these answers."""
    shares = {"yes": (0.8, 0.1, 0.1), "no": (0.1, 0.8, 0.1), "maybe": (0.1, 0.1, 0.8)}
    return make_run(answers=[(gold, shares[choice]) for gold, choice in golds_and_choices])


class Page(HTMLParser):
    """The tags of a page, its text outside of styles, and whether every tag is closed."""

    VOID = frozenset({"meta", "br", "line", "circle", "rect", "link", "img", "input", "hr"})

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.words, self.open = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def test_the_markdown_report_of_a_small_run_is_the_golden_one():
    assert report_markdown(contents()) == GOLDEN.read_text(encoding="utf-8")


def test_the_same_run_gives_the_same_bytes():
    assert report_html(contents()) == report_html(contents())
    assert report_json(contents()) == report_json(contents())


def test_the_summary_names_what_was_trained_and_what_it_must_beat():
    assert contents().summary == (
        "After fine-tuning smollm2-135m on 8 questions, accuracy on 8 test questions is 37.5 % [13.7, 69.4]; "
        "always answering 'yes' gives 50.0 % [21.5, 78.5]; the untrained student 37.5 % [13.7, 69.4]."
    )


@pytest.mark.parametrize(
    ("golds_and_choices", "sentence"),
    [
        (
            [("yes", "yes"), ("no", "no")] * 10,
            "the student's interval includes it.",
        ),
        ([("yes", "yes"), ("no", "no"), ("no", "no")] * 20, "the student's whole interval lies above it."),
        ([("yes", "no"), ("yes", "maybe"), ("no", "no")] * 20, "the student's whole interval lies below it."),
    ],
)
def test_the_verdict_says_how_the_interval_lies_to_the_majority(golds_and_choices, sentence):
    if "includes" in sentence:
        golds_and_choices = [*golds_and_choices[:4], ("yes", "no"), ("yes", "yes")]
    made = contents(system_run(golds_and_choices))
    assert sentence in made.verdict
    assert sentence in report_markdown(made)
    assert made.verdict in Page(report_html(made)).text


def test_a_student_that_always_says_the_same_is_told_on():
    assert "The fine-tuned student answered 'no' to every question." in contents(system_run([("yes", "no")] * 3)).notes
    assert not any("every question" in note for note in contents().notes)


def test_a_run_on_demonstration_data_is_marked():
    recipe = {"name": "demo", "data": {"pubmedqa-demo": {"limit": {"train": 3}}}}
    made = contents(make_run(recipe=recipe))
    assert any("must not be scored on the official test set" in note for note in made.notes)
    assert "must not be scored on the official test set" in report_html(made)
    assert not any("official" in note for note in contents().notes)


def test_the_surest_mistakes_come_first_and_no_more_than_asked():
    made = contents(worst=3).student
    sureness = [mistake.probabilities[mistake.choice] for mistake in made.mistakes]
    assert sureness == pytest.approx([0.90, 0.72, 0.60])
    assert made.num_wrong == 4
    assert contents(worst=0).student.mistakes == ()
    assert len(contents(worst=100).student.mistakes) == 4
    assert all(mistake.choice != mistake.gold for mistake in contents(worst=100).student.mistakes)


def test_cut_contexts_are_counted():
    truncation = contents().student.truncation
    assert (truncation.num_truncated, truncation.num_questions) == (5, 8)
    assert (truncation.median_cut_tokens, truncation.max_cut_tokens) == (12, 24)


def test_questions_without_an_answer_are_told_with_the_reason():
    (silent,) = contents().student.silent
    assert (silent.outcome, silent.num_questions) == ("failed", 1)
    assert "more than 512" in report_markdown(contents())
    assert "1 question of 8 got no answer" in Page(report_html(contents())).text


def test_json_holds_every_number_unrounded():
    run, questions = make_run()
    stored = json.loads(report_json(contents((run, questions))))
    assert stored["format"] == 3
    for evaluation, system in zip(run.evaluations, stored["systems"], strict=True):
        assert sum(system["counts"].values()) == system["num_questions"] == len(evaluation.predictions)
        assert {name: metric["value"] for name, metric in system["metrics"].items()} == {
            name: estimate.value for name, estimate in evaluation.metrics.items()
        }
    settings = {setting["path"]: setting["value"] for setting in stored["settings"]}
    assert settings["data.jsonl.shares.dev"] == "0.1"
    assert settings["finetune.method.lora.targets"] == '["q_proj","v_proj"]'
    assert settings["task"] == "null"


def test_html_shows_what_markdown_shows():
    made = contents()
    text = Page(report_html(made)).text
    assert made.summary in text
    for expected in ["smollm2-135m", "460,800", "14 min 02 s", "2 h 03 min", made.command, "a" * 64, "chosen"]:
        assert expected in text
        assert expected in report_markdown(made)
    for mistake in made.student.mistakes:
        assert mistake.question in text
        assert mistake.question in report_markdown(made)


@pytest.mark.parametrize("run", [make_run, make_hostile_run, make_experiment])
def test_html_loads_nothing_runs_nothing_and_is_well_formed(run):
    page = Page(report_html(contents(run())))
    assert {"script", "link", "img", "iframe", "object", "a", "image", "use"}.isdisjoint(page.tags)
    names = {name for name, _ in page.attributes}
    assert {"src", "href", "srcset", "xlink:href", "action"}.isdisjoint(names)
    assert not any(name.startswith("on") for name in names)
    assert not any("http" in (value or "") for name, value in page.attributes if name != "http-equiv")
    styles = re.search(r"<style>(.*?)</style>", report_html(contents(run())), re.DOTALL).group(1)
    assert not re.search(r"url\(|@import|http", styles)
    assert "None" not in page.text


@pytest.mark.parametrize("run", [make_run, make_hostile_run, make_experiment])
def test_pictures_are_well_formed_xml(run):
    pictures = re.findall(r"<svg.*?</svg>", report_html(contents(run())), re.DOTALL)
    assert len(pictures) >= 3
    for picture in pictures:
        ElementTree.fromstring(picture)


def test_hostile_text_is_shown_letter_by_letter_in_html():
    page = report_html(contents(make_hostile_run()))
    expected = " ".join(HOSTILE.replace("\x1b", "\ufffd").split())
    assert f"{expected} \ufffd" in Page(page).text
    assert f"0 {expected}" in Page(page).text
    page.encode("utf-8")


def test_hostile_text_stays_text_in_markdown():
    text = report_markdown(contents(make_hostile_run()))
    text.encode("utf-8")
    prose = [line for line in text.splitlines() if not line.startswith("    ")]
    assert not any("<script" in line or "<img" in line or "](" in line for line in prose)
    assert [line for line in prose if line.startswith("# ")] == ["# x"]
    assert "是否有效？" in text
    for block in re.split(r"\n(?!\|)", text):
        rows = [line for line in block.splitlines() if line.startswith("|")]
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) <= 1, rows


def test_json_of_hostile_text_can_be_written_and_read():
    stored = json.loads(report_json(contents(make_hostile_run())).encode("utf-8"))
    assert stored["student"]["mistakes"][0]["context"].startswith("<script>")


def test_a_student_without_probabilities_is_reported_too():
    run, questions = make_run()
    bare = [replace(p, scores_nats=None) for p in run.evaluations[-1].predictions]
    evaluation = evaluate_predictions(
        bare, system="fine-tuned", split="test", labels=LABELS, settings=Evaluate(bootstrap_samples=100), seed=1
    )
    made = contents((replace(run, cells=(replace(run.cells[0], evaluation=evaluation),)), questions))
    assert "gave no probabilities" in Page(report_html(made)).text
    assert "gave no probabilities" in report_markdown(made)
    assert all(mistake.probabilities == {} for mistake in made.student.mistakes)


def test_a_run_without_baselines_claims_nothing_about_them():
    run, questions = make_run()
    made = contents((replace(run, baselines=()), questions))
    assert made.verdict == made.summary
    assert "always answering" not in report_markdown(made)
    assert "majority" not in Page(report_html(made)).text


def test_a_report_needs_one_split():
    run, questions = make_run()
    other = replace(run.evaluations[0], split="dev")
    with pytest.raises(ValueError, match="evaluations of dev, test"):
        contents((replace(run, baselines=(other, *run.baselines[1:])), questions))


@pytest.fixture(scope="module")
def experiment():
    """Three seeds: new questions help, rewrites don't."""
    return make_experiment(num_items=300, doses=(0.5, 1.0), equal=(Equality.UPDATES, Equality.EPOCHS))


def test_the_verdict_stands_first_and_its_number_beside_it(experiment):
    run, _ = experiment
    made = contents(experiment)
    page, text = report_html(made), report_markdown(made)
    assert made.finding is Finding.HELPS
    assert made.verdict == run.conclusion.sentence
    assert page.index("Generated data helps") < page.index("<h2>")
    assert text.splitlines()[2] == f"**{made.verdict}**"
    effect = next(one for one in run.effects if one.arm == "fine-tuned + new questions")
    assert f"{100 * effect.accuracy.estimate.value:+.1f} points" in Page(page).text
    assert made.flips.arm == "fine-tuned + new questions"


def test_the_effect_at_the_head_is_told_against_the_control_too(experiment):
    made = contents(experiment)
    line = next(arm for arm in made.arms if arm.name == made.flips.arm)
    assert [one.baseline for one in line.effects] == ["fine-tuned", "fine-tuned + copies"]
    told = [f"{points_text(one.accuracy.estimate)} against '{one.baseline}'" for one in line.effects[1:]]
    for text in (Page(report_html(made)).text, report_markdown(made)):
        head, _, _ = text.partition("What the rows change")
        assert all(one in head for one in told)


def test_every_arm_is_told_with_its_interval_and_its_seeds_in_all_three_forms(experiment):
    made = contents(experiment)
    page, text = Page(report_html(made)).text, report_markdown(made)
    stored = {arm["name"]: arm for arm in json.loads(report_json(made))["arms"]}
    assert len(made.arms) == len(stored) == 12
    for arm in made.arms:
        found = arm.summary.metrics["accuracy"]
        told = f"{100 * found.value:.1f} [{100 * found.low:.1f}, {100 * found.high:.1f}]"
        assert told in page
        assert told in text
        for share in arm.summary.by_seed["accuracy"]:
            assert f" {100 * share:.1f} |" in text
        assert stored[arm.name]["summary"]["by_seed"]["accuracy"] == list(arm.summary.by_seed["accuracy"])
        for effect in arm.effects:
            assert f"{effect.baseline} | {effect.accuracy.estimate.value * 100:+.1f} [" in text


def test_the_effect_plot_has_a_mark_for_each_baseline_and_a_dot_for_each_seed():
    made = contents(make_experiment())
    (plot,) = [one for one in re.findall(r"<svg.*?</svg>", report_html(made), re.DOTALL) if "effects-title" in one]
    num_marks = sum(len(arm.effects) for arm in made.arms)
    assert num_marks == 5
    assert plot.count('class="whisker"') == num_marks
    assert plot.count('class="seed"') == num_marks * 3
    assert "<desc" in plot


def test_questions_that_change_sides_come_with_the_answers_of_all_arms(experiment):
    made = contents(experiment, flipped=4)
    flips = made.flips
    changes = [one.num_right - one.num_right_before for one in flips.items]
    assert [change > 0 for change in changes] == [True, False, True, False]
    assert changes[0] == 3
    for one in flips.items:
        by_arm = {answer.arm: answer.choices for answer in one.answers}
        assert by_arm[flips.arm].count(one.gold) == one.num_right
        assert by_arm[flips.baseline].count(one.gold) == one.num_right_before
        assert "fine-tuned + copies" in by_arm
        assert one.question in report_markdown(made)
    assert flips.num_gained > flips.num_lost > 2


def test_costs_are_told_with_a_price_of_a_point_and_stay_unknown_if_one_is():
    made = contents(make_experiment(num_items=300))
    assert "The teacher cost $0.38" in Page(report_html(made)).text
    cost = next(one for one in made.worth.costs if one.arm == made.flips.arm)
    assert cost.usd == pytest.approx(0.2)  # 50 audits and 450 new questions; rewrites aren't its
    assert cost.per_point.value == pytest.approx(cost.usd / (100 * gain_of(made)))
    run, questions = make_experiment()
    bill = (replace(run.taught.bill[0], num_unpriced=1), *run.taught.bill[1:])
    unknown = contents((replace(run, taught=replace(run.taught, bill=bill)), questions))
    assert "The teacher cost unknown" in Page(report_html(unknown)).text


def gain_of(made):
    line = next(arm for arm in made.arms if arm.name == made.flips.arm)
    return line.effects[0].accuracy.estimate.value


def test_where_students_ran_is_told(experiment):
    made = contents(experiment)
    assert [one.device for one in made.machines] == ["cpu", "cuda, a large one"]
    assert {(one.system[-1], one.machine, one.brought) for one in made.cells} == {
        ("1", 1, False),
        ("2", 1, False),
        ("3", 2, True),
    }
    (note,) = (note for note in made.notes if "weren't trained in this sitting" in note)
    assert note.startswith(f"{len(made.cells) // 3} of {len(made.cells)} students")
    assert f"{len(made.cells) // 3} on cuda, a large one" in note
    assert f"{len(made.cells) * 2 // 3} on cpu" in note


def test_a_second_reading_of_the_test_questions_is_told():
    run, questions = make_experiment()
    assert "once by each of 12 systems; 1 choice, all made on dev" in report_markdown(contents((run, questions)))
    again = Reading(system="untrained", step="0" * 64, at="2024-03-01T12:00:00Z", num_questions=120)
    twice = replace(run, readings=(*run.readings, again, again))
    assert "more than once by untrained" in report_markdown(contents((twice, questions)))


def test_a_run_without_a_finished_seed_shows_the_students_that_there_are():
    run, questions = make_experiment()
    left = {"summaries": (), "effects": (), "conclusion": None, "worth": None}
    begun = replace(run, cells=run.cells[:2], num_unfinished=10, chosen_arm=run.arms[0].id, **left)
    made = contents((begun, questions))
    assert made.finding is None
    for text in (Page(report_html(made)).text, report_markdown(made)):
        assert "10 students of 12 are still to be trained" in text
        assert "2 of 12" in text
        assert "fine-tuned + rewrites, seed 1" in text
    (plot,) = [one for one in re.findall(r"<svg.*?</svg>", report_html(made), re.DOTALL) if "accuracies-title" in one]
    assert "fine-tuned + rewrites, seed 1" in plot


def test_one_seed_finds_nothing_and_says_so():
    made = contents(make_experiment(num_seeds=1))
    assert made.finding is Finding.NO_EVIDENCE
    assert made.verdict in Page(report_html(made)).text
    assert any("one seed" in note for note in made.notes)


def test_published_results_are_drawn_and_told_with_their_source():
    run, questions = make_experiment()
    published = read_published(PUBLISHED)
    made = report_contents(run, questions, worst=0, flipped=0, published=published)
    by_arm = {arm.name: arm.published for arm in made.arms}
    assert {row.arm for row in by_arm["fine-tuned + rewrites"]} == {"rewrite"}
    assert by_arm["fine-tuned + copies"] == ()
    assert max(row.accuracy for row in published.rows) == 0.754
    assert report_html(made).count('class="published"') == sum(map(len, by_arm.values())) + 1  # and the key
    assert "arXiv 2305.07804" in Page(report_html(made)).text
    assert "arXiv 2305.07804" in report_markdown(made)
    assert any("had other questions" in note for note in made.notes)


def test_published_results_of_another_method_are_shown_where_there_are_none_of_this():
    published = read_published(PUBLISHED)
    methods = {
        kind: {row.method for row in beside_arm(published, "none", {"method": {kind: {"rank": 8}}})}
        for kind in ("lora", "alora")
    }
    assert methods == {"lora": {"lora"}, "alora": {"lora", "prefix"}}

    run, questions = make_experiment()
    for kind, told in (("lora", False), ("alora", True)):
        by_kind = replace(run, recipe={**run.recipe, "finetune": {"method": {kind: {"rank": 8}}, "epochs": 2}})
        made = report_contents(by_kind, questions, worst=0, flipped=0, published=published)
        assert ("They were trained by lora and prefix, this run's students by alora." in made.notes) == told


def test_published_results_of_one_student_can_be_asked_for():
    found = published_beside(Report(reference=PUBLISHED, reference_student="LLaMA-7B"))
    assert {row.student for row in found.rows} == {"LLaMA-7B"}
    assert published_beside(Report()) is None
    with pytest.raises(DataError, match=r"nothing of report\.reference_student 'llama'; there are BioGPT-Large, LLaMA"):
        published_beside(Report(reference=PUBLISHED, reference_student="llama"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "no file of published results"),
        ('{"format": 9, "unit": "percent"}', "format 9"),
        (
            '{"format": 1, "unit": "percent", "paper": "P", "split": "s", "seeds": 1, "note": "", '
            '"rows": [{"accuracy": 1, "macro_f1": 2}]}',
            "rows.0.student",
        ),
    ],
)
def test_a_file_that_holds_no_published_results_is_refused_in_one_line(tmp_path, text, said):
    path = tmp_path / "published.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=said) as refused:
        read_published(path)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)
    with pytest.raises(DataError, match=r"report\.reference"):
        read_published(tmp_path / "none.json")


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_schema_beside_the_code_is_that_of_its_types(name):
    kept = Path(schema.__file__).with_name(name).read_text(encoding="utf-8")
    assert kept == SCHEMAS[name](), "write it anew: python -m drllama.report.schema"


@pytest.mark.parametrize("run", [make_run, make_hostile_run, make_experiment])
def test_the_json_report_is_as_its_schema_says(run):
    jsonschema = pytest.importorskip("jsonschema", reason="comes with make setup")
    told = json.loads(report_json(contents(run())))
    validator = jsonschema.Draft202012Validator(json.loads(SCHEMAS["report.schema.json"]()))
    assert list(validator.iter_errors(told)) == []
    for spoilt in ({**told, "format": 2}, {**told, "extra": 1}, {**told, "verdict": None}):
        assert list(validator.iter_errors(spoilt)) != []


def test_the_json_report_holds_all_of_its_contents():
    made = contents(make_experiment())
    told = json.loads(report_json(made))
    assert told.pop("format") == FORMAT
    assert TypeAdapter(ReportContents).validate_python(told) == made


if __name__ == "__main__":
    GOLDEN.write_text(report_markdown(contents()), encoding="utf-8")
