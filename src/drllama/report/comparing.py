"""Several runs on one page: what it shows, and the page as JSON, Markdown and HTML."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from drllama.report.contents import ArmLine, ComparisonContents, Flips, Role, RunLine, SettingDifference
from drllama.report.effect_pictures import accuracies_picture, effects_picture
from drllama.report.gathering import cell_line, majority_of, settings_of
from drllama.report.lineup import flips_between, mean_on_dev
from drllama.report.rendering import json_of
from drllama.report.templates import html_of, markdown_of
from drllama.report.verdict import counted
from drllama.report.wording import p_text, points_text
from drllama.types import Arm, ArmSummary, Attribution, Cell, Effect, Example, Finding, Run

FORMAT = 1
"""Raised whenever a reader of ``comparison.json`` would have to change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """An arm of one of the runs."""

    name: str
    run: Run
    arm: Arm
    cells: tuple[Cell, ...]
    """Those of the seeds that all share, their answers in the order of the first run's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """What was found of several runs."""

    id: str
    made_at: str
    """UTC, ISO 8601."""
    labels: Mapping[str, str]
    """What each run is called here, by its id."""
    runs: tuple[Run, ...]
    contestants: tuple[Contestant, ...]
    summaries: tuple[ArmSummary, ...]
    effects: tuple[Effect, ...]
    attributions: tuple[Attribution, ...]
    notes: tuple[str, ...]
    command: str


def comparison_contents(found: Compared, asked: Mapping[str, Example], *, flipped: int) -> ComparisonContents:
    """Return what a comparison shows, with the text of so many flipped questions of each pair.

    ``asked`` holds the questions by example id, as far as they can still be read.
    """
    first = found.runs[0]
    machines = tuple(dict.fromkeys(cell.ran for one in found.contestants for cell in one.cells))
    different = [one for one in found.effects if _is_shown(one)]
    evaluation = found.contestants[0].cells[0].evaluation
    return ComparisonContents(
        id=found.id,
        made_at=found.made_at,
        verdict=_verdict(found.effects, different),
        is_different=bool(different),
        notes=found.notes,
        runs=tuple(_run_line(run, found.labels[run.id]) for run in found.runs),
        task=first.task.name,
        labels=evaluation.labels,
        split=evaluation.split,
        num_questions=len(evaluation.predictions),
        arms=tuple(_arm_line(one, found) for one in found.contestants),
        majority=majority_of(first),
        flips=tuple(_flips(effect, found.contestants, asked, most=flipped) for effect in found.effects),
        settings=setting_differences(found.runs),
        attributions=found.attributions,
        cells=tuple(
            cell_line(cell, machines, system=f"{one.name}, seed {cell.seed}")
            for one in found.contestants
            for cell in one.cells
        ),
        machines=machines,
        command=found.command,
    )


def comparison_json(contents: ComparisonContents) -> str:
    """Return the comparison for programs, as ``comparison.schema.json`` describes it; every number is unrounded."""
    return json_of({"format": FORMAT, **asdict(contents)})


def comparison_markdown(contents: ComparisonContents) -> str:
    """Return the comparison as GitHub-flavoured Markdown."""
    return markdown_of("comparison.md.jinja", report=contents, level=_level(contents))


def comparison_html(contents: ComparisonContents) -> str:
    """Return the comparison as one HTML page that loads nothing and runs nothing."""
    return html_of(
        "comparison.html.jinja",
        report=contents,
        level=_level(contents),
        effects_picture=effects_picture(contents.arms, rival=f"the same of '{contents.runs[0].label}'"),
        accuracies_picture=accuracies_picture(contents.arms, (), majority=contents.majority),
    )


def _level(contents: ComparisonContents) -> float | None:
    summary = contents.arms[0].summary
    return summary.metrics["accuracy"].level if summary else None


def _run_line(run: Run, label: str) -> RunLine:
    return RunLine(
        label=label,
        run_id=run.id,
        finished_at=run.finished_at,
        student=run.student.model,
        split_sizes=dict(run.split_sizes),
        teacher=run.taught.model if run.taught else None,
        command=run.command,
    )


def _arm_line(one: Contestant, found: Compared) -> ArmLine:
    effects = tuple(effect for effect in found.effects if effect.arm == one.name)
    finding = None
    if effects and _is_shown(effects[0]):
        finding = Finding.HELPS if effects[0].accuracy.estimate.value > 0 else Finding.HURTS
    return ArmLine(
        id=f"{one.run.id}:{one.arm.id}",
        name=one.name,
        role=Role.GENERATED if effects else Role.BASELINE,
        dose=one.arm.dose,
        equality=one.arm.equality,
        num_real=one.arm.num_real,
        num_extra=one.arm.num_extra,
        num_updates=one.cells[0].finetuned.num_steps,
        on_dev=mean_on_dev(one.cells),
        is_chosen=False,
        summary=next(summary for summary in found.summaries if summary.arm == one.name),
        effects=effects,
        finding=finding,
    )


def _is_shown(effect: Effect) -> bool:
    found = effect.accuracy
    return found.seed_error is not None and found.p_adjusted < 1 - found.estimate.level


def _flips(effect: Effect, contestants: Sequence[Contestant], asked: Mapping[str, Example], *, most: int) -> Flips:
    cells = {one.name: one.cells for one in contestants if one.name in (effect.arm, effect.baseline)}
    return flips_between(cells, arm=effect.arm, baseline=effect.baseline, asked=asked, most=most)


def _verdict(effects: Sequence[Effect], different: Sequence[Effect]) -> str:
    looked = f"{counted(len(effects[0].seeds), 'seed')}, {counted(effects[0].num_items, 'question')}"
    if different:
        told = "; ".join(
            f"'{one.arm}' {points_text(one.accuracy.estimate)} points against '{one.baseline}', "
            f"p = {p_text(one.accuracy.p_adjusted)} after Holm"
            for one in different
        )
        return f"A difference is shown: {told} (accuracy, {looked})."
    if len(effects[0].seeds) == 1:
        return f"No difference can be told: one seed can't tell it from the luck of training ({looked})."
    most = max(one.accuracy.detectable for one in effects)
    return f"No difference is shown: a true one above {100 * most:.1f} points of accuracy would have been ({looked})."


def setting_differences(runs: Sequence[Run]) -> tuple[SettingDifference, ...]:
    """Return the settings that runs don't share."""
    settings = [dict(settings_of(run)) for run in runs]
    paths = dict.fromkeys(path for one in settings for path in one)
    values = {path: tuple(one.get(path, "") for one in settings) for path in paths}
    return tuple(SettingDifference(path=path, values=told) for path, told in values.items() if len(set(told)) > 1)
