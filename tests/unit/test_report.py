"""The report of a small made-up run, in its three forms.

After a wanted change of the Markdown report, write its golden file anew and read the difference:
``python tests/unit/test_report.py && git diff tests/unit/golden``
"""

import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from drllama.recipe import Evaluate
from drllama.report import report_contents, report_html, report_json, report_markdown
from drllama.stats import evaluate_predictions, majority_predictions, prior_predictions
from drllama.types import (
    Arm,
    ArmName,
    Cell,
    Epoch,
    Equality,
    Example,
    Finetuned,
    LeakAudit,
    Original,
    Outcome,
    Prediction,
    Ran,
    Run,
    StepRecord,
    StudentCard,
    Task,
)

GOLDEN = Path(__file__).parent / "golden" / "report.md"
LABELS = ("yes", "no", "maybe")
HOSTILE = (
    '<script>alert("1")</script> {{ 7 * 7 }} {% raw %} | a pipe, a "quote", `code` **bold** ![](https://e.example/x.png)'
    "\n# not a heading\n<img src=x onerror=alert(1)> & 是否有效？ \x1b[31m"
)
ANSWERS = [
    ("yes", (0.80, 0.15, 0.05)),
    ("yes", (0.55, 0.40, 0.05)),
    ("yes", (0.30, 0.60, 0.10)),
    ("no", (0.10, 0.85, 0.05)),
    ("no", (0.72, 0.20, 0.08)),
    ("no", (0.46, 0.44, 0.10)),
    ("maybe", (0.90, 0.05, 0.05)),
    ("yes", None),
]


def make_example(number, gold, split="test", **fields):
    settled = {
        "question": f"Does treatment {number} help?",
        "context": f"Patients got treatment {number}.\nMost of them recovered.",
        "label": gold,
        "split": split,
        "group": f"{split}{number}",
        "origin": Original(source="made-up.jsonl", source_id=str(1000 + number)),
    }
    return Example(**settled | fields)


def make_prediction(example, shares, *, labels=LABELS, truncated_tokens=0):
    if shares is None:
        choice, outcome = None, Outcome.FAILED
    else:
        choice = labels[shares.index(max(shares))]
        outcome = Outcome.CORRECT if choice == example.label else Outcome.WRONG
    return Prediction(
        example_id=example.id,
        source_id=example.origin.source_id,
        gold=example.label,
        choice=choice,
        outcome=outcome,
        scores_nats=None if shares is None else dict(zip(labels, map(math.log, shares), strict=True)),
        num_tokens=0 if shares is None else 200 + 10 * int(example.origin.source_id) % 90,
        truncated_tokens=truncated_tokens,
        note="the question alone has 600 tokens, more than 512" if shares is None else "",
    )


WHEN = "2024-03-01T11:00:00Z"
TRAINING = StepRecord(stage="finetune", key="d" * 64, folder="finetune/dddddddd", seconds=842.0, finished_at=WHEN)


NO_LEAKS = LeakAudit(num_real=8, num_synthetic=0, num_dev=2, num_test=10, counts=(), nearest=(), num_clean=8)


def make_cell(evaluation, *, num_examples):
    return Cell(
        arm="none",
        seed=1,
        fingerprint="f" * 64,
        finetuned=Finetuned(
            epochs=(
                Epoch(number=1, train_loss_nats=0.91, dev_accuracy=0.6, dev_macro_f1=0.5, dev_nll_nats=0.95),
                Epoch(number=2, train_loss_nats=0.62, dev_accuracy=0.5, dev_macro_f1=0.4, dev_nll_nats=1.02),
            ),
            chosen_epoch=1,
            num_steps=2,
            num_examples=num_examples,
            left_out=("1003: 530 tokens without its context, more than 512",),
            truncated_examples=1,
            trainable_parameters=460_800,
        ),
        synthetic_weight=1.0,
        on_dev=-0.95,
        weights_on_dev={},
        evaluation=evaluation,
        adapter=TRAINING,
        scoring=TRAINING,
        ran=Ran(device="cpu", dtype="float32", processor="a processor", torch="2.12", commit="unknown"),
    )


def make_run(asked=None, answers=ANSWERS, *, labels=LABELS, recipe=None):
    """A small fixed run, and its questions by id."""
    asked = asked or [make_example(number, gold) for number, (gold, _) in enumerate(answers)]
    train = [make_example(number, label, "train") for number, label in enumerate([labels[0]] * 5 + [labels[1]] * 3)]
    finetuned = [
        make_prediction(example, shares, labels=labels, truncated_tokens=12 * (number % 3))
        for number, (example, (_, shares)) in enumerate(zip(asked, answers, strict=True))
    ]
    untrained = [make_prediction(example, (0.3, 0.5, 0.2)[: len(labels)], labels=labels) for example in asked]
    systems = {
        "majority": majority_predictions(train, asked, labels),
        "prior": prior_predictions(train, asked, labels),
        "untrained": untrained,
        "fine-tuned": finetuned,
    }
    evaluations = tuple(
        evaluate_predictions(
            predictions,
            system=system,
            split="test",
            labels=labels,
            settings=Evaluate(bootstrap_samples=200, reliability_bins=5),
            seed=1,
        )
        for system, predictions in systems.items()
    )
    run = Run(
        id="0123456789abcdef",
        finished_at="2024-03-01T12:00:00Z",
        command="drllama run recipe.yaml --set finetune.epochs=2",
        recipe=recipe
        or {
            "name": "small-run",
            "seed": 42,
            "task": None,
            "data": {"jsonl": {"path": "made-up.jsonl", "shares": {"dev": 0.1, "test": 0.3}}},
            "finetune": {"method": {"lora": {"rank": 4, "targets": ["q_proj", "v_proj"]}}, "epochs": 2},
        },
        task=Task(
            name="made-up questions",
            instruction="Answer yes, no or maybe.",
            labels=labels,
            verbalizers={label: label for label in labels},
        ),
        environment={"python": "3.11.0", "platform": "Linux x86_64"},
        student=StudentCard(
            model="smollm2-135m",
            weights_sha256="a" * 64,
            tokenizer_sha256="b" * 64,
            num_parameters=134_515_008,
            device="cpu",
            dtype="float32",
        ),
        split_sizes={"train": len(train), "dev": 2, "test": len(asked)},
        steps=(
            StepRecord(stage="prepare", key="c" * 64, folder="prepare/cccccccc", seconds=1.25, finished_at=WHEN),
            TRAINING,
            StepRecord(stage="evaluate", key="e" * 64, folder="evaluate/eeeeeeee", seconds=7384.0, finished_at=WHEN),
        ),
        taught=None,
        leaks=NO_LEAKS,
        baselines=evaluations[:-1],
        arms=(
            Arm(
                id="none",
                name=ArmName.NONE,
                dose=1.0,
                equality=Equality.UPDATES,
                system="fine-tuned",
                num_real=len(train),
                num_extra=0,
            ),
        ),
        cells=(make_cell(evaluations[-1], num_examples=len(train)),),
        num_unfinished=0,
        chosen_arm="none",
        choices=(),
        readings=(),
        comparisons=(),
    )
    return run, {example.id: example for example in asked}


def make_hostile_run():
    """Every text that a user could have written is hostile."""
    labels = ("yes|<b>", "不能确定", "*maybe*")
    asked = [
        make_example(
            number,
            labels[number % 2],
            question=f"{number} {HOSTILE}",
            context=HOSTILE,
            options=(HOSTILE, "b", "c"),
            origin=Original(source=HOSTILE, source_id=f"{1000 + number}"),
        )
        for number in range(3)
    ]
    answers = [(example.label, shares) for example, shares in zip(asked, [(0.2, 0.7, 0.1)] * 2 + [None], strict=True)]
    run, questions = make_run(asked, answers, labels=labels, recipe={"name": "x", "data": {"jsonl": {"path": HOSTILE}}})
    cell = replace(run.cells[0], finetuned=replace(run.cells[0].finetuned, left_out=(HOSTILE,)))
    student = replace(run.student, model=HOSTILE)
    # A lone surrogate is what Python makes of a file name's byte that isn't UTF-8.
    command, environment = f"{HOSTILE} \udcff", {HOSTILE: f"{HOSTILE} \udcff"}
    return replace(run, cells=(cell,), student=student, command=command, environment=environment), questions


def contents(run_and_questions=None, worst=10):
    run, questions = run_and_questions or make_run()
    return report_contents(run, questions, worst=worst)


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
        "After fine-tuning smollm2-135m on 8 questions, accuracy on 8 test questions is 0.375 [0.137, 0.694]; "
        "always answering 'yes' gives 0.500 [0.215, 0.785]; the untrained student 0.375 [0.137, 0.694]."
    )


@pytest.mark.parametrize(
    ("golds_and_choices", "sentence"),
    [
        ([("yes", "yes"), ("no", "no")] * 10, "The interval includes the majority baseline: this run does not show"),
        ([("yes", "yes"), ("no", "no"), ("no", "no")] * 20, "lies above the majority baseline"),
        ([("yes", "no"), ("yes", "maybe"), ("no", "no")] * 20, "lies below the majority baseline"),
    ],
)
def test_the_verdict_says_how_the_interval_lies_to_the_majority(golds_and_choices, sentence):
    if "includes" in sentence:
        golds_and_choices = [*golds_and_choices[:4], ("yes", "no"), ("yes", "yes")]
    made = contents(system_run(golds_and_choices))
    assert sentence in made.verdict
    assert sentence in report_markdown(made)
    assert sentence in Page(report_html(made)).text


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
    made = contents(worst=3)
    sureness = [mistake.probabilities[mistake.choice] for mistake in made.mistakes]
    assert sureness == pytest.approx([0.90, 0.72, 0.60])
    assert made.num_wrong == 4
    assert contents(worst=0).mistakes == ()
    assert len(contents(worst=100).mistakes) == 4
    assert all(mistake.choice != mistake.gold for mistake in contents(worst=100).mistakes)


def test_cut_contexts_are_counted():
    truncation = contents().truncation
    assert (truncation.num_truncated, truncation.num_questions) == (5, 8)
    assert (truncation.median_cut_tokens, truncation.max_cut_tokens) == (12, 24)


def test_questions_without_an_answer_are_told_with_the_reason():
    (silent,) = contents().silent
    assert (silent.outcome, silent.num_questions) == ("failed", 1)
    assert "more than 512" in report_markdown(contents())
    assert "1 question of 8 got no answer" in Page(report_html(contents())).text


def test_json_holds_every_number_unrounded():
    run, questions = make_run()
    stored = json.loads(report_json(contents((run, questions))))
    assert stored["format"] == 2
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
    for mistake in made.mistakes:
        assert mistake.question in text
        assert mistake.question in report_markdown(made)


@pytest.mark.parametrize("run", [make_run, make_hostile_run])
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


@pytest.mark.parametrize("run", [make_run, make_hostile_run])
def test_pictures_are_well_formed_xml(run):
    pictures = re.findall(r"<svg.*?</svg>", report_html(contents(run())), re.DOTALL)
    assert len(pictures) == 3
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
    assert stored["mistakes"][0]["context"].startswith("<script>")


def test_a_student_without_probabilities_is_reported_too():
    run, questions = make_run()
    bare = [replace(p, scores_nats=None) for p in run.evaluations[-1].predictions]
    evaluation = evaluate_predictions(
        bare, system="fine-tuned", split="test", labels=LABELS, settings=Evaluate(bootstrap_samples=100), seed=1
    )
    made = contents((replace(run, cells=(replace(run.cells[0], evaluation=evaluation),)), questions))
    assert "gave no probabilities" in Page(report_html(made)).text
    assert "gave no probabilities" in report_markdown(made)
    assert all(mistake.probabilities == {} for mistake in made.mistakes)


def test_a_run_without_baselines_claims_nothing_about_them():
    run, questions = make_run()
    made = contents((replace(run, baselines=()), questions))
    assert made.verdict == ""
    assert "always answering" not in report_markdown(made)
    assert "majority" not in Page(report_html(made)).text


def test_a_report_needs_one_split():
    run, questions = make_run()
    other = replace(run.evaluations[0], split="dev")
    with pytest.raises(ValueError, match="evaluations of dev, test"):
        contents((replace(run, baselines=(other, *run.baselines[1:])), questions))


if __name__ == "__main__":
    GOLDEN.write_text(report_markdown(contents()), encoding="utf-8")
