"""Where the marks of each picture stand, in SVG user units; ``pictures.jinja`` draws them.

Drawn by template rather than by a plotting library: text stays text in the reader's font, colours follow the page's
light or dark scheme, the same run gives the same bytes, and no glyph of any script has to be measured.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from unicodedata import east_asian_width

from drllama.report.contents import System
from drllama.types import FunnelStep, Label

_LONGEST_NAME = 28
# About the mean width of a letter of the page's font at its size: a wider text only comes nearer to the edge.
_LETTER_WIDTH = 7.6


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """A mark on an axis."""

    at: float
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class IntervalRow:
    """One system's accuracy."""

    y: float
    name: str
    full_name: str
    is_main: bool
    value: float
    low_x: float
    value_x: float
    high_x: float


@dataclass(frozen=True, slots=True, kw_only=True)
class IntervalsPicture:
    """The accuracies of all systems on one axis."""

    width: float
    height: float
    left: float
    bottom: float
    rows: tuple[IntervalRow, ...]
    ticks: tuple[Tick, ...]
    to_beat_x: float | None
    """The majority baseline's value; None where there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """How often one gold label met one choice."""

    x: float
    y: float
    count: int
    share: float
    """Of the gold label's questions; 0 when there are none."""
    right: bool
    gold: Label
    choice: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfusionPicture:
    """Gold labels against choices."""

    width: float
    height: float
    left: float
    top: float
    cell_width: float
    cell_height: float
    cells: tuple[Cell, ...]
    columns: tuple[Tick, ...]
    rows: tuple[Tick, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dot:
    """One bin of confidence that isn't empty."""

    x: float
    y: float
    radius: float
    """The area is proportional to the number of questions."""
    diagonal_y: float
    """Where the dot would stand if confidence were accuracy."""
    bar_x: float
    bar_y: float
    bar_height: float
    n: int
    confidence: float
    accuracy: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ReliabilityPicture:
    """Accuracy against confidence, with the number of questions in each bin below."""

    width: float
    height: float
    left: float
    top: float
    side: float
    bars_bottom: float
    bar_width: float
    dots: tuple[Dot, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FunnelPart:
    """The rows of one method in one step of the funnel."""

    x: float
    width: float
    method: str
    count: int
    opacity: float
    """Of its fill: methods differ in nothing else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FunnelBar:
    """One step of the funnel."""

    y: float
    name: str
    total: int
    end: float
    parts: tuple[FunnelPart, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FunnelPicture:
    """How many rows got how far, a bar a step."""

    width: float
    height: float
    left: float
    bar_height: float
    bars: tuple[FunnelBar, ...]
    key: tuple[FunnelPart, ...]
    """A mark for each method, to be drawn below."""


def funnel_picture(steps: Sequence[FunnelStep]) -> FunnelPicture:
    """Return the funnel as bars from a common left edge, each cut into the methods' parts."""
    left, right, top, row_height, width = 110.0, 70.0, 10.0, 30.0, 640.0
    most = max((sum(step.counts.values()) for step in steps), default=0) or 1
    methods = list(steps[0].counts) if steps else []
    opacity = {method: 0.85 - 0.45 * number / max(1, len(methods) - 1) for number, method in enumerate(methods)}
    bars = []
    for number, step in enumerate(steps):
        x, parts = left, []
        for method, count in step.counts.items():
            part = (width - left - right) * count / most
            parts.append(FunnelPart(x=x, width=part, method=method, count=count, opacity=opacity[method]))
            x += part
        total = sum(step.counts.values())
        y = top + row_height * number
        bars.append(FunnelBar(y=y, name=shorten(step.name, 14), total=total, end=x, parts=tuple(parts)))
    key = tuple(
        FunnelPart(x=left + 110 * number, width=12, method=method, count=0, opacity=opacity[method])
        for number, method in enumerate(methods)
    )
    height = top + row_height * len(steps) + 30
    return FunnelPicture(width=width, height=height, left=left, bar_height=20, bars=tuple(bars), key=key)


def intervals_picture(systems: Sequence[System], main: System) -> IntervalsPicture:
    """Return the accuracy of each system as a dot on its interval, the majority baseline as a line through all.

    ``main`` is the system that the report is about.
    """
    names = [shorten(system.name, _LONGEST_NAME) for system in systems]
    left = max(110.0, 20 + _LETTER_WIDTH * max(map(len, names)))
    right, top, row_height = 24.0, 14.0, 34.0
    width = left + 530
    span = width - left - right
    bottom = top + row_height * len(systems)
    rows = []
    to_beat_x = None
    for number, system in enumerate(systems):
        accuracy = system.metrics["accuracy"]
        if system.name == "majority":
            to_beat_x = left + span * accuracy.value
        rows.append(
            IntervalRow(
                y=top + row_height * (number + 0.5),
                name=names[number],
                full_name=system.name,
                is_main=system.name == main.name,
                value=accuracy.value,
                low_x=left + span * accuracy.low,
                value_x=left + span * accuracy.value,
                high_x=left + span * accuracy.high,
            )
        )
    ticks = tuple(Tick(at=left + span * fifth / 5, text=f"{fifth / 5:.1f}") for fifth in range(6))
    return IntervalsPicture(
        width=width,
        height=bottom + 42,
        left=left,
        bottom=bottom,
        rows=tuple(rows),
        ticks=ticks,
        to_beat_x=to_beat_x,
    )


def confusion_picture(system: System, labels: Sequence[Label]) -> ConfusionPicture:
    """Return the confusion matrix as cells shaded by their share of the row."""
    left, top, cell_width, cell_height = 116.0, 54.0, 80.0, 50.0
    choices = [*labels, "no answer"]
    cells = []
    for row, (gold, counts) in enumerate(zip(labels, system.confusion, strict=True)):
        for column, (choice, count) in enumerate(zip(choices, counts, strict=True)):
            cells.append(
                Cell(
                    x=left + column * cell_width,
                    y=top + row * cell_height,
                    count=count,
                    share=count / sum(counts) if sum(counts) else 0.0,
                    right=row == column,
                    gold=gold,
                    choice=choice,
                )
            )
    return ConfusionPicture(
        width=left + cell_width * len(choices) + 4,
        height=top + cell_height * len(labels) + 4,
        left=left,
        top=top,
        cell_width=cell_width,
        cell_height=cell_height,
        cells=tuple(cells),
        columns=tuple(
            Tick(at=left + cell_width * (column + 0.5), text=shorten(choice, 10))
            for column, choice in enumerate(choices)
        ),
        rows=tuple(Tick(at=top + cell_height * (row + 0.5), text=shorten(gold, 11)) for row, gold in enumerate(labels)),
    )


def reliability_picture(system: System) -> ReliabilityPicture:
    """Return accuracy against mean confidence for each bin that isn't empty, and the bins' sizes as bars."""
    left, top, side, gap, tallest = 52.0, 12.0, 290.0, 26.0, 48.0
    bars_bottom = top + side + gap + tallest
    bins = [bin for bin in system.reliability if bin.n]
    most = max((bin.n for bin in bins), default=1)
    dots = tuple(
        Dot(
            x=left + side * bin.mean_confidence,
            y=top + side * (1 - bin.accuracy),
            radius=2.5 + 8 * sqrt(bin.n / most),
            diagonal_y=top + side * (1 - bin.mean_confidence),
            bar_x=left + side * bin.low,
            bar_y=bars_bottom - tallest * bin.n / most,
            bar_height=tallest * bin.n / most,
            n=bin.n,
            confidence=bin.mean_confidence,
            accuracy=bin.accuracy,
        )
        for bin in bins
    )
    fifths = [fifth / 5 for fifth in range(6)]
    return ReliabilityPicture(
        width=left + side + 16,
        height=bars_bottom + 44,
        left=left,
        top=top,
        side=side,
        bars_bottom=bars_bottom,
        bar_width=side / max(1, len(system.reliability)),
        dots=dots,
        x_ticks=tuple(Tick(at=left + side * share, text=f"{share:.1f}") for share in fifths),
        y_ticks=tuple(Tick(at=top + side * (1 - share), text=f"{share:.1f}") for share in fifths),
    )


def shorten(text: str, cells: int) -> str:
    """Return the text, cut with an ellipsis where it is wider than so many columns; East Asian letters take two.

    >>> shorten("maybe", 5), shorten("undecidable", 5), shorten("不能确定的答案", 5)
    ('maybe', 'unde…', '不能…')
    """
    if sum(map(_columns, text)) <= cells:
        return text
    kept, used = "", 1
    for letter in text:
        used += _columns(letter)
        if used > cells:
            break
        kept += letter
    return f"{kept}…"


def _columns(letter: str) -> int:
    return 2 if east_asian_width(letter) in "WF" else 1
