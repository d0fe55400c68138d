"""Where the marks of the two main pictures stand, in SVG user units: what arms come to, and what they change.

``effects.jinja`` draws them. A row's name stands above its marks: the axis then has the whole width of a narrow page.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import ceil, floor

from drllama.report.contents import ArmLine, Role, System
from drllama.report.pictures import Tick, shorten
from drllama.report.wording import percent_text, points_text
from drllama.types import Effect, Equality, Estimate, Finding

_WIDTH, _LEFT, _RIGHT, _TOP = 470.0, 14.0, 456.0, 8.0
_NAME_HEIGHT, _MARK_HEIGHT, _HEAD_HEIGHT, _GAP = 20.0, 18.0, 26.0, 8.0
_LONGEST_NAME = 40
_SHAPES = ("dot", "square", "triangle")
_STEPS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
_MOST_TICKS = 8
_HEADS = {Equality.UPDATES: "Trained for equally many updates", Equality.EPOCHS: "Trained for equally many epochs"}


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureMark:
    """A value with its interval, and one small dot a seed."""

    y: float
    x: float
    low_x: float
    high_x: float
    seeds_x: tuple[float, ...]
    """Empty where there is one seed: its value is the mark itself."""
    shape: str
    """``dot``, ``square`` or ``triangle``: which baseline it is about."""
    title: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Diamond:
    """Somebody else's result."""

    x: float
    y: float
    title: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureRow:
    """One arm or system."""

    y: float
    """Of its name."""
    name: str
    full_name: str
    told: str
    """Its first mark's value and interval in digits."""
    tone: str
    """``good``, ``bad`` or ``plain``."""
    marks: tuple[PictureMark, ...]
    diamonds: tuple[Diamond, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """A line above some rows that says what they have in common."""

    y: float
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyEntry:
    """What a shape means."""

    y: float
    shape: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EffectsPicture:
    """Rows of marks over one axis."""

    title: str
    width: float
    height: float
    left: float
    right: float
    top: float
    bottom: float
    rows: tuple[PictureRow, ...]
    heads: tuple[Head, ...]
    ticks: tuple[Tick, ...]
    line_x: float | None
    """A dashed line through all rows: no difference, or the majority baseline."""
    band: tuple[float, float] | None
    """Left edge and width of a shaded band: differences too small to be seen."""
    key: tuple[KeyEntry, ...]


def effects_picture(
    arms: Sequence[ArmLine], *, detectable: float | None = None, rival: str | None = None
) -> EffectsPicture | None:
    """Return what each arm changes against its baselines; None where no arm is held against another.

    ``detectable`` is the largest difference that the verdict could have missed; ``rival`` says who the baselines are,
    where their names would be too many.
    """
    shown = [arm for arm in arms if arm.effects]
    if not shown:
        return None
    baselines = list(dict.fromkeys(effect.baseline for arm in shown for effect in arm.effects))
    # A baseline is one of these for each kind of training: the first of an arm's effects has the first shape.
    values = [0.0]
    for arm in shown:
        for effect in arm.effects:
            found = effect.accuracy
            values += [found.estimate.low, found.estimate.high, *found.by_seed]
    scale = _Scale.over(values, text=lambda value: f"{100 * value:+.1f}".replace("+0.0", "0").removesuffix(".0"))
    rows, heads, bottom = _rows(shown, lambda arm, y: _effect_row(arm, y, scale), lambda arm: len(arm.effects))
    most = max(len(arm.effects) for arm in shown)
    told = []
    for place in range(most):
        rivals = [arm.effects[place].baseline.partition(",")[0] for arm in shown if place < len(arm.effects)]
        told.append(f"against {rival or ' or '.join(dict.fromkeys(rivals))}")
    band = None
    if detectable is not None:
        low, high = (max(_LEFT, min(_RIGHT, scale.x(value))) for value in (-detectable, detectable))
        band = (low, high - low)
    return EffectsPicture(
        title=f"Change in accuracy, in points, against {' and '.join(baselines)}",
        width=_WIDTH,
        height=bottom + 30 + 20 * most,
        left=_LEFT,
        right=_RIGHT,
        top=_TOP,
        bottom=bottom,
        rows=rows,
        heads=heads,
        ticks=scale.ticks,
        line_x=scale.x(0.0),
        band=band,
        key=_key(bottom, list(zip(_SHAPES, told, strict=False))),
    )


def accuracies_picture(arms: Sequence[ArmLine], systems: Sequence[System], *, majority: float | None) -> EffectsPicture:
    """Return the accuracy of each arm over its seeds, and of each system that isn't an arm's student.

    ``systems`` are told of by their own intervals.
    """
    rows_of = [*(_system_line(system) for system in systems), *(_arm_line(arm) for arm in arms if arm.summary)]
    values = [majority] if majority is not None else []
    for one in rows_of:
        values += [one.estimate.low, one.estimate.high, *one.by_seed, *(value for value, _ in one.published)]
    scale = _Scale.over(values, text=lambda value: f"{100 * value:g}")
    y, rows = _TOP, []
    for one in rows_of:
        rows.append(_accuracy_row(one, y, scale))
        y += _NAME_HEIGHT + _MARK_HEIGHT * (1 + bool(one.published)) + _GAP
    key = [("line", "always giving the most frequent training label")] if majority is not None else []
    if any(one.published for one in rows_of):
        key.append(("diamond", "published, see the notes"))
    return EffectsPicture(
        title="Accuracy, in percent",
        width=_WIDTH,
        height=y + 30 + 20 * len(key),
        left=_LEFT,
        right=_RIGHT,
        top=_TOP,
        bottom=y,
        rows=tuple(rows),
        heads=(),
        ticks=scale.ticks,
        line_x=None if majority is None else scale.x(majority),
        band=None,
        key=_key(y, key),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scale:
    low: float
    high: float
    ticks: tuple[Tick, ...]

    @classmethod
    def over(cls, values: Sequence[float], *, text: Callable[[float], str]) -> "_Scale":
        """Return an axis that all values fit on, its ends at ticks."""
        low, high = min(values), max(values)
        step = next((one for one in _STEPS if ceil(high / one) - floor(low / one) <= _MOST_TICKS), _STEPS[-1])
        first, last = floor(low / step + 1e-9), ceil(high / step - 1e-9)
        last = max(last, first + 1)
        scale = cls(low=first * step, high=last * step, ticks=())
        ticks = tuple(Tick(at=scale.x(at * step), text=text(round(at * step, 6))) for at in range(first, last + 1))
        return cls(low=scale.low, high=scale.high, ticks=ticks)

    def x(self, value: float) -> float:
        """Return where a value stands."""
        return _LEFT + (_RIGHT - _LEFT) * (value - self.low) / (self.high - self.low)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    """What a row of the accuracies shows."""

    name: str
    tone: str
    estimate: Estimate
    by_seed: tuple[float, ...]
    published: tuple[tuple[float, str], ...]


def _system_line(system: System) -> _Line:
    return _Line(name=system.name, tone="plain", estimate=system.metrics["accuracy"], by_seed=(), published=())


def _arm_line(arm: ArmLine) -> _Line:
    assert arm.summary is not None, arm.id
    told = [
        (
            row.accuracy,
            f"{row.student}, {row.setting.rpartition('.')[2]} {row.value:g}"
            if isinstance(row.value, float)
            else f"{row.student}, {row.setting.rpartition('.')[2]} {row.value}",
            row.teacher,
        )
        for row in arm.published
    ]
    return _Line(
        name=arm.name,
        tone="good" if arm.is_chosen else "plain",
        estimate=arm.summary.metrics["accuracy"],
        by_seed=arm.summary.by_seed["accuracy"],
        published=tuple((value, f"{who}{f', {teacher}' if teacher else ''}") for value, who, teacher in told),
    )


def _accuracy_row(line: _Line, y: float, scale: _Scale) -> PictureRow:
    told = percent_text(line.estimate)
    mark_y = y + _NAME_HEIGHT + _MARK_HEIGHT / 2
    return PictureRow(
        y=y + 13,
        name=shorten(line.name, _LONGEST_NAME),
        full_name=line.name,
        told=told,
        tone=line.tone,
        marks=(_mark(line.estimate, line.by_seed, mark_y, scale, "dot", f"{line.name}: {told}"),),
        diamonds=tuple(
            Diamond(x=scale.x(value), y=mark_y + _MARK_HEIGHT, title=f"{who}: {100 * value:.1f}")
            for value, who in line.published
        ),
    )


def _rows(
    arms: Sequence[ArmLine], row_of: Callable[[ArmLine, float], PictureRow], num_marks: Callable[[ArmLine], int]
) -> tuple[tuple[PictureRow, ...], tuple[Head, ...], float]:
    """Return the rows, grouped by what their trainings have in common, and where they end."""
    y, rows, heads = _TOP, [], []
    several = len({arm.equality for arm in arms}) > 1
    for equality, some in groupby(arms, key=lambda arm: arm.equality):
        if several:
            heads.append(Head(y=y + 16, text=_HEADS[equality]))
            y += _HEAD_HEIGHT
        for arm in some:
            rows.append(row_of(arm, y))
            y += _NAME_HEIGHT + _MARK_HEIGHT * num_marks(arm) + _GAP
    return tuple(rows), tuple(heads), y


def _effect_row(arm: ArmLine, y: float, scale: _Scale) -> PictureRow:
    tones = {Finding.HELPS: "good", Finding.HURTS: "bad"}
    return PictureRow(
        y=y + 13,
        name=shorten(arm.name, _LONGEST_NAME),
        full_name=arm.name,
        told=points_text(arm.effects[0].accuracy.estimate),
        tone=tones.get(arm.finding, "plain") if arm.finding else "plain",
        marks=tuple(
            _mark(
                effect.accuracy.estimate,
                effect.accuracy.by_seed,
                y + _NAME_HEIGHT + _MARK_HEIGHT * (place + 0.5),
                scale,
                _SHAPES[min(place, len(_SHAPES) - 1)],
                _effect_title(effect),
            )
            for place, effect in enumerate(arm.effects)
        ),
    )


def _effect_title(effect: Effect) -> str:
    return f"{effect.arm} against {effect.baseline}: {points_text(effect.accuracy.estimate)} points"


def _mark(estimate: Estimate, by_seed: Sequence[float], y: float, scale: _Scale, shape: str, title: str) -> PictureMark:
    return PictureMark(
        y=y,
        x=scale.x(estimate.value),
        low_x=scale.x(estimate.low),
        high_x=scale.x(estimate.high),
        seeds_x=tuple(map(scale.x, by_seed)) if len(by_seed) > 1 else (),
        shape=shape,
        title=title,
    )


def _key(bottom: float, entries: Sequence[tuple[str, str]]) -> tuple[KeyEntry, ...]:
    return tuple(
        KeyEntry(y=bottom + 40 + 20 * place, shape=shape, text=shorten(text, 60))
        for place, (shape, text) in enumerate(entries)
    )


def of_full_dose(arms: Sequence[ArmLine]) -> list[ArmLine]:
    """Return the arms of the main pictures: smaller doses have a picture of their own."""
    largest = max((arm.dose for arm in arms if arm.role is Role.GENERATED), default=1.0)
    whole = [arm for arm in arms if arm.role is not Role.GENERATED or arm.dose == largest]
    return [arm for arm in whole if arm.without_filter is None]
