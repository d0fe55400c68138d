"""The report of a sweep, as JSON, Markdown and one HTML page."""

from dataclasses import asdict

from drllama.report.rendering import json_of
from drllama.report.sensitivity import sensitivities, sensitivity_picture, value_shown
from drllama.report.templates import html_of, markdown_of
from drllama.types import Published, Sweep, SweepPoint

FORMAT = 1
"""Raised whenever a reader of ``sweep.json`` would have to change."""
_METRICS = {"accuracy": "accuracy", "macro_f1": "macro-F1", "nll": "NLL"}


def sweep_json(sweep: Sweep) -> str:
    """Return the sweep for programs; every number is unrounded."""
    return json_of({"format": FORMAT, **asdict(sweep)})


def sweep_markdown(sweep: Sweep) -> str:
    """Return the sweep as GitHub-flavoured Markdown."""
    return markdown_of("sweep.md.jinja", sweep=sweep, rows=_rows(sweep), told=sweep_told(sweep))


def sweep_html(sweep: Sweep, published: Published | None = None) -> str:
    """Return the sweep as one HTML page that loads nothing and runs nothing, published results beside ours."""
    return html_of(
        "sweep.html.jinja",
        sweep=sweep,
        rows=_rows(sweep),
        told=sweep_told(sweep),
        pictures=[sensitivity_picture(contents) for contents in sensitivities(sweep, published)],
        published=published,
    )


def point_note(sweep: Sweep, number: int) -> str:
    """Return what is to be said of a point beside its numbers."""
    if number == sweep.best:
        return "best"
    stopped = sweep.points[number].stopped_after
    return "" if stopped is None else f"given up after epoch {stopped}"


def _rows(sweep: Sweep) -> list[tuple[list[str], SweepPoint, str]]:
    return [
        ([value_shown(point.settings[path]) for path in sweep.varied], point, point_note(sweep, number))
        for number, point in enumerate(sweep.points)
    ]


def sweep_told(sweep: Sweep) -> str:
    """Return what was tried, how it was judged, and what the numbers aren't."""
    level = sweep.points[0].accuracy.level
    together = f"{sweep.num_train + sweep.num_dev} questions of train and dev"
    beside = "" if sweep.arm is None else f" with the rows of arm '{sweep.arm}'"
    judged = (
        f"trained on {sweep.num_train} questions{beside} and judged on the {sweep.num_dev} of dev"
        if sweep.folds is None
        else f"cross-validated over {together} in {sweep.folds} parts{beside}, documents whole"
    )
    seeds = f"{sweep.num_seeds} seeds each" if sweep.num_seeds > 1 else "one seed each"
    intervals = f" In brackets: {level:.0%} t intervals over seeds." if sweep.num_seeds > 1 else ""
    return (
        f"{len(sweep.points)} settings of {sweep.student.model}, {seeds}, {judged}; the best by "
        f"{_METRICS[sweep.chosen_by]}. The test split wasn't read. The best of many looks better than it is on the "
        f"questions that chose it: run it to see it on test.{intervals}"
    )
