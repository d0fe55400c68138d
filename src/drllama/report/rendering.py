"""Contents in, text out: JSON for programs, Markdown for a repository, one HTML page for a person."""

import json
from collections.abc import Sequence
from dataclasses import asdict

from drllama.report.contents import ReportContents, System
from drllama.report.effect_pictures import accuracies_picture, effects_picture, of_full_dose
from drllama.report.facts import dose_sensitivities, facts
from drllama.report.pictures import confusion_picture, funnel_picture, reliability_picture
from drllama.report.sensitivity import sensitivity_picture
from drllama.report.templates import html_of, markdown_of
from drllama.report.verdict import power_told, readings_told
from drllama.report.wording import visible
from drllama.types import Estimate, Finding, LeakAudit

FORMAT = 3
"""Raised whenever a reader of ``report.json`` would have to change."""

TONES = {Finding.HELPS: "good", Finding.HURTS: "bad", Finding.NO_EVIDENCE: "plain", None: "plain"}
_METRICS = (
    ("accuracy", "Accuracy", "↑"),
    ("macro_f1", "Macro-F1", "↑"),
    ("nll", "NLL, nats", "↓"),
    ("brier", "Brier", "↓"),
    ("ece", "ECE", "↓"),
)
"""Key, title, and which way is better."""


def report_json(contents: ReportContents) -> str:
    """Return the report for programs, as ``report.schema.json`` describes it; every number is unrounded."""
    return json_of({"format": FORMAT, **asdict(contents)})


def leaks_json(leaks: LeakAudit) -> str:
    """Return the audit of leaks for programs; every number is unrounded."""
    return json_of({"format": 1, **asdict(leaks)})


def json_of(told: object) -> str:
    """Return plain values as JSON that any file may hold."""
    return visible(json.dumps(told, ensure_ascii=False, allow_nan=False, indent=2)) + "\n"


def report_markdown(contents: ReportContents) -> str:
    """Return the report as GitHub-flavoured Markdown."""
    return markdown_of("report.md.jinja", **_shown(contents))


def report_html(contents: ReportContents) -> str:
    """Return the report as one HTML page that loads nothing and runs nothing."""
    shown, conclusion = of_full_dose(contents.arms), contents.conclusion
    # Until a seed is finished in all arms, students stand for themselves.
    students = {cell.system for cell in contents.cells} if any(arm.summary for arm in shown) else set()
    bare = [one for one in contents.systems if one.name not in {"majority", "prior", *students}]
    return html_of(
        "report.html.jinja",
        **_shown(contents),
        tone=TONES[contents.finding],
        effects_picture=effects_picture(
            shown, detectable=max(one.detectable for one in conclusion.arms) if conclusion else None
        ),
        accuracies_picture=accuracies_picture(shown, bare, majority=contents.majority),
        confusion_picture=confusion_picture(contents.student.system, contents.labels),
        reliability_picture=reliability_picture(contents.student.system),
        funnel_picture=funnel_picture(contents.teacher.funnel if contents.teacher else ()),
        dose_pictures=[
            sensitivity_picture(one)
            for one in dose_sensitivities(contents.arms, contents.worth.curves if contents.worth else ())
        ],
    )


def _shown(contents: ReportContents) -> dict[str, object]:
    summaries = [arm.summary for arm in contents.arms if arm.summary]
    shown = of_full_dose(contents.arms)
    main = [arm for arm in shown if arm.equality is shown[0].equality]
    return {
        "report": contents,
        "facts": facts(contents),
        "main_arms": main,
        "other_arms": [arm for arm in contents.arms if arm not in main],
        "seeds": summaries[0].seeds if summaries else (),
        "published_rows": list(dict.fromkeys(row for arm in shown for row in arm.published)),
        "level": summaries[0].metrics["accuracy"].level if summaries else None,
        "readings_told": readings_told(contents.readings, contents.choices, contents.split),
        "power_told": power_told(contents.worth.power, contents.conclusion) if contents.worth else "",
        "metrics": _METRICS,
        "intervals": _interval_methods(contents.systems, contents.student.system),
    }


def _interval_methods(systems: Sequence[System], student: System) -> str:
    """Return what the brackets mean, such as ``95% Wilson intervals for accuracy; 95% bootstrap intervals for ece``."""
    shown = [(title.split(",")[0], _first(systems, key)) for key, title, _ in _METRICS]
    for scores in student.per_class[:1]:
        shown += [("precision", scores.precision), ("recall", scores.recall), ("F1", scores.f1)]
    titles: dict[str, list[str]] = {}
    for title, estimate in shown:
        if estimate is not None:
            method = {"wilson": "Wilson"}.get(estimate.method, estimate.method)
            titles.setdefault(f"{estimate.level * 100:g}% {method} intervals", []).append(title)
    return "; ".join(f"{kind} for {', '.join(names)}" for kind, names in titles.items())


def _first(systems: Sequence[System], key: str) -> Estimate | None:
    return next((system.metrics[key] for system in systems if key in system.metrics), None)
