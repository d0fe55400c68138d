"""What generated rows are worth: money for a point, dose by dose, and which ingredient brings it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from drllama.stats.effects import effects_against
from drllama.types import (
    ArmAnswers,
    ArmName,
    ArmSummary,
    Attribution,
    CurvePoint,
    Difference,
    Effect,
    Estimate,
    Factor,
    Label,
)

_METHODS = (
    (ArmName.REWRITE, ArmName.NONE),
    (ArmName.NEW, ArmName.NONE),
    (ArmName.COMBINED, ArmName.NONE),
    (ArmName.COMBINED, ArmName.NEW),
    (ArmName.COMBINED, ArmName.REWRITE),
)


def cost_per_point(difference: Difference, cost_usd: float) -> Estimate | None:
    """Return the US dollars that a point of the metric cost, with the interval of the difference turned over.

    None: the arm isn't shown to gain anything, so no sum of money is shown to buy a point.

    Raises:
        ValueError: the cost is negative.
    """
    if cost_usd < 0:
        raise ValueError(f"cost_per_point: {cost_usd} dollars")
    gain = difference.estimate
    if gain.low <= 0:
        return None
    value, low, high = (cost_usd / (100 * share) for share in (gain.value, gain.high, gain.low))
    return Estimate(value=value, low=low, high=high, n=gain.n, level=gain.level, method=gain.method)


def marginal_curve(
    doses: Mapping[str, float],
    answers: Sequence[ArmAnswers],
    summaries: Sequence[ArmSummary],
    labels: Sequence[Label],
    *,
    level: float,
    metric: str = "accuracy",
) -> tuple[CurvePoint, ...]:
    """Return what each dose comes to and what it adds to the one before, from the smallest to the largest.

    ``doses`` are arms with their shares of the generated rows; 0 is the arm without any. Steps describe: Holm doesn't
    count them, and no verdict follows from one.

    Raises:
        ValueError: an arm has no answers.
    """
    summarised = {one.arm: one for one in summaries}
    arms = sorted(doses, key=lambda arm: doses[arm])
    steps: list[Estimate | None] = [None]
    for before, arm in pairwise(arms):
        (effect,) = effects_against(before, [arm], answers, labels, level=level)
        steps.append(effect.differences[metric].estimate)
    return tuple(
        CurvePoint(arm=arm, share=doses[arm], value=summarised[arm].metrics[metric], step=step)
        for arm, step in zip(arms, steps, strict=True)
    )


def by_method(answers: Sequence[ArmAnswers], labels: Sequence[Label], *, level: float) -> tuple[Attribution, ...]:
    """Return what rewrites, new questions and both bring, and what each adds to the other, for the arms that are there.

    Raises:
        ValueError: arms differ in seeds or questions.
    """
    there = {one.arm for one in answers}
    pairs = [(str(arm), str(without)) for arm, without in _METHODS if {arm, without} <= there]
    return tuple(
        _attributed(
            effects_against(without, [arm], answers, labels, level=level)[0],
            factor=Factor.METHOD,
            name=arm,
            told=f"'{arm}' instead of '{without}'",
        )
        for arm, without in pairs
    )


def by_teacher(
    arms: Mapping[str, str], answers: Sequence[ArmAnswers], labels: Sequence[Label], *, level: float
) -> tuple[Attribution, ...]:
    """Return what each teacher's rows bring against those of the first.

    ``arms`` are teachers with the arms that were trained on their rows, alike in all else.

    Raises:
        ValueError: an arm has no answers, or arms differ in seeds or questions.
    """
    (first, without), *others = arms.items()
    return tuple(
        _attributed(
            effects_against(without, [arm], answers, labels, level=level)[0],
            factor=Factor.TEACHER,
            name=teacher,
            told=f"rows of {teacher} instead of {first}",
        )
        for teacher, arm in others
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterArms:
    """A filter, and two arms that differ in nothing but it."""

    name: str
    """As reports call it, such as ``label check``."""
    arm: str
    without: str
    num_before: int
    """Rows that came to the filter."""
    num_dropped: int


def by_filter(
    filters: Sequence[FilterArms], answers: Sequence[ArmAnswers], labels: Sequence[Label], *, level: float
) -> tuple[Attribution, ...]:
    """Return what each filter cost in rows and changed in accuracy.

    Raises:
        ValueError: a filter saw no row, an arm has no answers, or arms differ in seeds or questions.
    """
    found = []
    for one in filters:
        if not 0 <= one.num_dropped <= one.num_before or not one.num_before:
            raise ValueError(f"filter {one.name}: {one.num_dropped} dropped of {one.num_before} rows")
        share = one.num_dropped / one.num_before
        (effect,) = effects_against(one.without, [one.arm], answers, labels, level=level)
        told = f"{one.name} cost {share:.0%} of the rows and"
        found.append(_attributed(effect, factor=Factor.FILTER, name=one.name, told=told, share_dropped=share))
    return tuple(found)


def _attributed(
    effect: Effect, *, factor: Factor, name: str, told: str, share_dropped: float | None = None
) -> Attribution:
    gain = effect.accuracy.estimate
    interval = f"[{100 * gain.low:+.1f}, {100 * gain.high:+.1f}]"
    return Attribution(
        factor=factor,
        name=name,
        arm=effect.arm,
        without=effect.baseline,
        difference=effect.accuracy,
        share_dropped=share_dropped,
        sentence=f"{told} changed accuracy by {100 * gain.value:+.1f} points {interval}",
    )
