"""How a result hangs on a setting: what is shown, and where its marks stand in SVG user units.

``sensitivity.jinja`` draws the picture. Contents come from a sweep, or from anything that has a setting and results.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import ceil, floor, log

from drllama.report.pictures import Tick, shorten
from drllama.types import OverSeeds, Published, Sweep, SweepPoint

_METRICS = ("accuracy", "macro-F1")
_MOST_LINES = 6
_ASIDE = 4.0
"""Distance between the marks of two lines at one value."""
_LOG_FROM = 8.0
"""A setting whose values span more than this factor stands on a logarithmic axis."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SensitivityMark:
    """One value of the setting and what came of it."""

    value: object
    result: OverSeeds
    is_stopped: bool = False
    """It was given up before its training ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SensitivityLine:
    """Marks that differ in the setting alone; they are joined."""

    name: str
    """What the other settings are; empty where there are no others."""
    marks: tuple[SensitivityMark, ...]
    is_published: bool = False
    """Somebody else's results."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensitivity:
    """One metric over the values of one setting."""

    setting: str
    metric: str
    """As it is to be read, such as ``macro-F1``."""
    lines: tuple[SensitivityLine, ...]
    is_joined: bool
    """False: the marks differ in more than the setting."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """One mark of the picture."""

    x: float
    y: float
    low_y: float | None
    high_y: float | None
    seeds_y: tuple[float, ...]
    """A small dot for each seed; empty for a single one."""
    is_stopped: bool
    title: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of the picture."""

    name: str
    name_y: float
    points: str
    """As ``polyline`` takes them; empty where the marks aren't joined."""
    dashes: str
    marks: tuple[Mark, ...]
    is_published: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SensitivityPicture:
    """A metric over a setting, with intervals over seeds."""

    width: float
    height: float
    left: float
    right: float
    top: float
    bottom: float
    x_title: str
    y_title: str
    lines: tuple[Line, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]


def sensitivities(sweep: Sweep, published: Published | None = None) -> tuple[Sensitivity, ...]:
    """Return accuracy and macro-F1 over each setting that a sweep varied and that has several values.

    Published results over the same setting, of students trained without generated rows, are lines of their own.
    """
    found = []
    for path in sweep.varied:
        if len({str(point.settings[path]) for point in sweep.points}) < 2:
            continue
        lines = _lines(sweep, path)
        is_joined = len(lines) <= _MOST_LINES and any(len(points) > 1 for points in lines.values())
        if not is_joined:
            lines = {"": list(sweep.points)}
        for metric in _METRICS:
            ours = _over(path, metric, lines, is_joined)
            theirs = _published_lines(published, path, metric) if published else ()
            found.append(replace(ours, lines=(*ours.lines, *theirs)))
    return tuple(found)


def _published_lines(published: Published, path: str, metric: str) -> tuple[SensitivityLine, ...]:
    rows = [row for row in published.rows if (row.setting, row.arm) == (path, "none")]
    return tuple(
        SensitivityLine(
            name=f"{student}, published",
            is_published=True,
            marks=tuple(
                SensitivityMark(value=row.value, result=_single(row.accuracy if metric == "accuracy" else row.macro_f1))
                for row in rows
                if row.student == student
            ),
        )
        for student in dict.fromkeys(row.student for row in rows)
    )


def _single(value: float) -> OverSeeds:
    return OverSeeds(value=value, low=None, high=None, each=(value,), level=0.95)


def _over(path: str, metric: str, lines: Mapping[str, Sequence[SweepPoint]], is_joined: bool) -> Sensitivity:
    shown = tuple(
        SensitivityLine(
            name=name,
            marks=tuple(
                SensitivityMark(
                    value=one.settings[path],
                    result=one.accuracy if metric == "accuracy" else one.macro_f1,
                    is_stopped=one.stopped_after is not None,
                )
                for one in points
            ),
        )
        for name, points in lines.items()
    )
    return Sensitivity(setting=path, metric=metric, lines=shown, is_joined=is_joined)


def _lines(sweep: Sweep, path: str) -> dict[str, list[SweepPoint]]:
    lines: dict[str, list[SweepPoint]] = {}
    for point in sweep.points:
        others = {name: value for name, value in point.settings.items() if name != path}
        lines.setdefault(settings_text(others), []).append(point)
    return lines


def settings_text(settings: Mapping[str, object]) -> str:
    """Return settings in a few words: the last part of each name and its value.

    >>> settings_text({"finetune.method.lora.alpha": 64, "finetune.epochs": 3})
    'alpha 64, epochs 3'
    """
    return ", ".join(f"{path.rpartition('.')[2]} {value_shown(value)}" for path, value in settings.items())


def value_shown(value: object) -> str:
    """Return a setting's value as people write it.

    >>> value_shown(0.001), value_shown(64.0), value_shown(["q_proj", "v_proj"]), value_shown(None)
    ('0.001', '64', 'q_proj+v_proj', 'null')
    """
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case float():
            return f"{value:g}"
        case list() | tuple():
            return "+".join(map(value_shown, value))
        case _:
            return str(value)


def sensitivity_picture(contents: Sensitivity) -> SensitivityPicture:
    """Return a metric over a setting: marks with whiskers, a small dot for each seed, joined lines where they fit."""
    left, top, width, height = 56.0, 14.0, 470.0, 300.0
    names = [shorten(line.name, 26) for line in contents.lines]
    right = width - 18 - 7.0 * max(map(len, names), default=0)
    bottom = height - 48
    x_of, x_ticks = _x_axis([mark.value for line in contents.lines for mark in line.marks], left + 18, right - 18)
    low, high, step = _y_range([mark.result for line in contents.lines for mark in line.marks])

    def y_of(value: float) -> float:
        return bottom - (bottom - top) * (value - low) / (high - low)

    lines = [
        _line(line, number, len(contents.lines), names[number], x_of, y_of, joined=contents.is_joined)
        for number, line in enumerate(contents.lines)
    ]
    num_steps = round((high - low) / step)
    y_ticks = tuple(Tick(at=y_of(low + step * at), text=f"{low + step * at:.2f}") for at in range(num_steps + 1))
    return SensitivityPicture(
        width=width,
        height=height,
        left=left,
        right=right,
        top=top,
        bottom=bottom,
        x_title=contents.setting,
        y_title=contents.metric,
        lines=_apart(lines, top=top, bottom=bottom),
        x_ticks=x_ticks,
        y_ticks=y_ticks,
    )


def _line(
    line: SensitivityLine,
    number: int,
    of: int,
    name: str,
    x_of: Mapping[str, float],
    y_of: Callable[[float], float],
    *,
    joined: bool,
) -> Line:
    # A little apart, or intervals of several lines would hide each other.
    aside = _ASIDE * (number - (of - 1) / 2)
    marks = tuple(
        _mark(mark, x_of[value_shown(mark.value)] + aside, y_of, line.name)
        for mark in sorted(line.marks, key=lambda mark: x_of[value_shown(mark.value)])
    )
    return Line(
        name=name,
        name_y=marks[-1].y,
        points=" ".join(f"{mark.x:.2f},{mark.y:.2f}" for mark in marks) if joined else "",
        dashes="" if number == 0 else f"{8 - number} {2 + number}",
        marks=marks,
        is_published=line.is_published,
    )


def _mark(mark: SensitivityMark, x: float, y_of: Callable[[float], float], name: str) -> Mark:
    result = mark.result
    title = f"{value_shown(mark.value)}{f', {name}' if name else ''}: {result.value:.3f}"
    return Mark(
        x=x,
        y=y_of(result.value),
        low_y=None if result.low is None else y_of(result.low),
        high_y=None if result.high is None else y_of(result.high),
        seeds_y=tuple(map(y_of, result.each)) if len(result.each) > 1 else (),
        is_stopped=mark.is_stopped,
        title=f"{title}, given up" if mark.is_stopped else title,
    )


def _x_axis(values: Sequence[object], left: float, right: float) -> tuple[dict[str, float], tuple[Tick, ...]]:
    """Return where each value stands, and the ticks; numbers by their size, other values one after another."""
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numbers) < len(values):
        shown = list(dict.fromkeys(map(value_shown, values)))
        places = {text: float(at) for at, text in enumerate(shown)}
    elif min(numbers) > 0 and max(numbers) / min(numbers) >= _LOG_FROM:
        places = {value_shown(value): log(value) for value in sorted(numbers)}
    else:
        places = {value_shown(value): float(value) for value in sorted(numbers)}
    low, high = min(places.values()), max(places.values())
    x_of = {text: left + (right - left) * (place - low) / (high - low) for text, place in places.items()}
    # A label for each value, unless it would stand on the one before.
    ticks: list[Tick] = []
    for text, at in x_of.items():
        if not ticks or at - ticks[-1].at >= 4.2 * (len(ticks[-1].text) + len(text)):
            ticks.append(Tick(at=at, text=shorten(text, 14)))
    return x_of, tuple(ticks)


def _y_range(results: Sequence[OverSeeds]) -> tuple[float, float, float]:
    """Return the axis' ends and the distance of its ticks, so that all intervals fit."""
    low = min(min(one.each) if one.low is None else one.low for one in results)
    high = max(max(one.each) if one.high is None else one.high for one in results)
    step = next((one for one in (0.02, 0.05, 0.1, 0.2) if (high - low) / one <= 6), 0.2)
    low, high = floor(low / step + 1e-9) * step, ceil(high / step - 1e-9) * step
    return (low, high, step) if high > low else (low - step, high + step, step)


def _apart(lines: Sequence[Line], *, top: float, bottom: float) -> tuple[Line, ...]:
    """Return the lines with their names moved so far apart that each can be read."""
    order = sorted(range(len(lines)), key=lambda at: lines[at].name_y)
    places = [lines[at].name_y for at in order]
    for before, after in pairwise(range(len(places))):
        places[after] = max(places[after], places[before] + 14)
    over = max(0.0, places[-1] - bottom) if places else 0.0
    by_line = {at: max(top, place - over) for at, place in zip(order, places, strict=True)}
    return tuple(replace(line, name_y=by_line[at]) for at, line in enumerate(lines))
