"""Results as aligned plain text: the same on a terminal, in a log and in an e-mail."""

import math
from collections.abc import Sequence
from pathlib import Path

from drllama.report import (
    ComparisonContents,
    over_seeds_text,
    p_text,
    percent_text,
    point_note,
    points_text,
    sweep_told,
    value_shown,
)
from drllama.report.written import WrittenLine, written_lines
from drllama.text import num_columns
from drllama.types import (
    Cell,
    Effect,
    Estimate,
    Evaluation,
    Factor,
    FunnelStep,
    Outcome,
    Prediction,
    Run,
    Sweep,
    Taught,
)

_METRICS = (
    ("accuracy", "accuracy"),
    ("macro_f1", "macro-F1"),
    ("nll", "NLL (nats)"),
    ("brier", "Brier"),
    ("ece", "ECE"),
)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows under a header, columns aligned on the left, wide characters counted as two."""
    cells = [list(header), *map(list, rows)]
    widths = [max(num_columns(row[column]) for row in cells) for column in range(len(header))]
    lines = [
        "  ".join(cell + " " * (width - num_columns(cell)) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def evaluation_table(evaluations: Sequence[Evaluation]) -> str:
    """Return the systems with their metrics and intervals, and a line for questions without an answer."""
    shown = [(key, name) for key, name in _METRICS if any(key in one.metrics for one in evaluations)]
    rows = [[one.system, *(_estimate(one.metrics.get(key)) for key, _ in shown)] for one in evaluations]
    return "\n".join([table(["system", *(name for _, name in shown)], rows), *silent_lines(evaluations)])


def silent_lines(evaluations: Sequence[Evaluation]) -> list[str]:
    """Return a line for each system that left questions without an answer."""
    silent = [(one, one.counts[Outcome.FAILED] + one.counts[Outcome.UNPARSED]) for one in evaluations]
    return [
        f"{one.system}: {number} of {len(one.predictions)} questions got no answer and count as wrong"
        for one, number in silent
        if number
    ]


def run_summary(run: Run, store: Path) -> str:
    """Return what a finished run found, the verdict first, with the paths of its report and its adapter."""
    cell = run.cell()
    sizes = ", ".join(f"{size} {name}" for name, size in run.split_sizes.items())
    taught = []
    if run.taught:
        taught = [
            f"teacher {run.taught.model}: {run.taught.audit.verdict}",
            *rounds_lines(run.taught),
            f"its rows: {funnel_line(run.taught.funnel)}",
        ]
    written = written_lines(run)
    left = [f"{run.num_unfinished} students are still to be trained; the same command goes on"]
    return "\n".join(
        [
            f"run {run.id}: {run.student.model} on {run.task.name} ({sizes})",
            *taught,
            "",
            *([run.conclusion.sentence, ""] if run.conclusion else []),
            arms_table(run) if run.summaries else evaluation_table(run.evaluations),
            *(silent_lines(run.evaluations) if run.summaries else []),
            *filter_lines(run),
            "",
            *([written_table(written), ""] if written else []),
            *(left if run.num_unfinished else []),
            f"student: {cell.evaluation.system}, best on dev, epoch {cell.finetuned.chosen_epoch} of "
            f"{len(cell.finetuned.epochs)}",
            f"report:  {store / run.id / 'report.html'}",
            f"adapter: {store / cell.adapter.folder / 'adapter'}" + _where_trained(cell, store),
        ]
    )


def filter_lines(run: Run) -> list[str]:
    """Return a line for each filter that was switched off in an arm of its own: what it is worth."""
    found = run.worth.attributions if run.worth else ()
    return [one.sentence for one in found if one.factor is Factor.FILTER]


def comparison_summary(found: ComparisonContents, folder: Path) -> str:
    """Return how runs differ, the verdict first, with the path of the page."""
    rows = []
    for arm in found.arms:
        shown = [percent_text(arm.summary.metrics[name]) if arm.summary else "" for name in ("accuracy", "macro_f1")]
        effects = [effect_cells(effect) for effect in arm.effects]
        rows += [[arm.name, *shown, *cells] for cells in effects or [["", "", ""]]]
    header = ["trained on", "accuracy, %", "macro-F1, %", "change in accuracy, points", "p", "against"]
    return "\n".join(
        [
            found.verdict,
            "",
            table(header, rows),
            *(one.sentence for one in found.attributions),
            *found.notes,
            "",
            f"report: {folder / 'comparison.html'}",
        ]
    )


def arms_table(run: Run) -> str:
    """Return what baselines and arms come to, and the arms' changes, a line for each that they are held against."""
    rows = [
        [one.system, *(percent_text(one.metrics[name]) for name in ("accuracy", "macro_f1")), "", "", ""]
        for one in run.baselines
        if one.system != "prior"  # Its answers are the majority's.
    ]
    for one in run.summaries:
        best = " (best on dev)" if len(run.arms) > 1 and run.arm().system == one.arm else ""
        shown = [one.arm + best, percent_text(one.metrics["accuracy"]), percent_text(one.metrics["macro_f1"])]
        effects = [effect for effect in run.effects if effect.arm == one.arm]
        rows += [[*shown, *effect_cells(effects[0])] if effects else [*shown, "", "", ""]]
        rows += [["", "", "", *effect_cells(effect)] for effect in effects[1:]]
    seeds = len(run.summaries[0].seeds)
    told = f"mean of {seeds} seeds" if seeds > 1 else "trained on"
    header = [told, "accuracy, %", "macro-F1, %", "change in accuracy, points", "p", "against"]
    return table(header if run.effects else header[:3], [row if run.effects else row[:3] for row in rows])


def effect_cells(effect: Effect) -> list[str]:
    """Return the change in accuracy, its p-value after Holm, and against whom."""
    return [points_text(effect.accuracy.estimate), p_text(effect.accuracy.p_adjusted), effect.baseline]


def sweep_summary(sweep: Sweep, folder: Path) -> str:
    """Return what a finished sweep found: a row for each point, and the command that runs the best."""
    rows = [
        [
            *(value_shown(point.settings[path]) for path in sweep.varied),
            *map(over_seeds_text, (point.accuracy, point.macro_f1, point.nll)),
            f"{point.seconds:.1f}",
            point_note(sweep, number),
        ]
        for number, point in enumerate(sweep.points)
    ]
    names = [path.rpartition(".")[2] for path in sweep.varied]
    return "\n".join(
        [
            sweep_told(sweep),
            "",
            table([*names, "accuracy", "macro-F1", "NLL (nats)", "seconds", ""], rows),
            "",
            f"report:       {folder / 'sweep.html'}",
            f"run the best: {sweep.run_best}",
        ]
    )


def written_table(lines: Sequence[WrittenLine]) -> str:
    """Return how written answers are read, beside the scores of the same students."""
    outcomes = [outcome.value for outcome in Outcome]
    rows = [
        [
            one.student,
            one.how,
            _estimate(one.accuracy),
            _estimate(one.macro_f1),
            *(str(one.counts[outcome]) for outcome in outcomes),
            "-" if one.as_scored is None else str(one.as_scored),
        ]
        for one in lines
    ]
    return table(["student", "read by", "accuracy", "macro-F1", *outcomes, "as scored"], rows)


def rounds_lines(taught: Taught) -> list[str]:
    """Return a line for each round of choosing what the teacher works on."""
    return [
        f"round {one.number}: {one.num_chosen} training questions chosen, {one.num_kept} rows kept so far"
        + ("" if one.dev is None else f", dev {one.dev:.4f}")
        for one in taught.rounds
    ]


def funnel_line(funnel: Sequence[FunnelStep]) -> str:
    """Return how many rows got how far, on one line.

    >>> funnel_line([FunnelStep(name="asked", counts={"new": 3}), FunnelStep(name="kept", counts={"new": 2})])
    'asked 3 -> kept 2'
    """
    return " -> ".join(f"{step.name} {sum(step.counts.values())}" for step in funnel)


def answer_lines(answer: Prediction) -> str:
    """Return one answer: the label, then each label's probability among the labels."""
    if answer.choice is None or answer.scores_nats is None:
        return f"no answer: {answer.note}"
    top = max(answer.scores_nats.values())
    odds = {label: math.exp(nats - top) for label, nats in answer.scores_nats.items()}
    shares = [f"  {label:<12} {share / sum(odds.values()):.3f}" for label, share in odds.items()]
    cut = [f"  ({answer.truncated_tokens} tokens of the context were cut off)"] if answer.truncated_tokens else []
    return "\n".join([answer.choice, *shares, *cut])


def _where_trained(cell: Cell, store: Path) -> str:
    if not cell.brought or (store / cell.adapter.folder).is_dir():
        return ""
    return f" (not on this machine: trained on {cell.ran.device}, {cell.adapter.finished_at[:10]})"


def _estimate(estimate: Estimate | None) -> str:
    if estimate is None:
        return "-"
    return f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"
