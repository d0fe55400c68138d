"""What generated rows are worth: money for a point, dose by dose, and which ingredient brings it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from drllama.stats.effects import paired_differences
from drllama.stats.tally import Tally, tally
from drllama.types import (
    ArmAnswers,
    ArmName,
    ArmSummary,
    Attribution,
    CurvePoint,
    Difference,
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
    tallied = tally(answers, labels)
    summarised = {one.arm: one for one in summaries}
    arms = sorted(doses, key=lambda arm: doses[arm])
    steps: list[Estimate | None] = [None]
    for before, arm in pairwise(arms):
        (difference,) = paired_differences(before, [arm], tallied, level=level)
        steps.append(difference[metric].estimate)
    return tuple(
        CurvePoint(arm=arm, share=doses[arm], value=summarised[arm].metrics[metric], step=step)
        for arm, step in zip(arms, steps, strict=True)
    )


def by_method(
    arms: Mapping[ArmName, str], answers: Sequence[ArmAnswers], labels: Sequence[Label], *, level: float
) -> tuple[Attribution, ...]:
    """Return what rewrites, new questions and both bring, and what each adds to the other, for the arms that are there.

    ``arms`` are kinds of arms with what these are called among the answers.

    Raises:
        ValueError: an arm has no answers, or arms differ in seeds or questions.
    """
    tallied = tally(answers, labels)
    there = [(arm, without) for arm, without in _METHODS if {arm, without} <= set(arms)]
    return tuple(
        _attributed(
            _Pair(arm=arms[arm], without=arms[without], told=f"'{arms[arm]}' instead of '{arms[without]}'"),
            tallied,
            factor=Factor.METHOD,
            name=arm,
            level=level,
        )
        for arm, without in there
    )


def by_teacher(
    arms: Mapping[str, str], answers: Sequence[ArmAnswers], labels: Sequence[Label], *, level: float
) -> tuple[Attribution, ...]:
    """Return what each teacher's rows bring against those of the first.

    ``arms`` are teachers with the arms that were trained on their rows, alike in all else.

    Raises:
        ValueError: an arm has no answers, or arms differ in seeds or questions.
    """
    tallied = tally(answers, labels)
    (first, without), *others = arms.items()
    return tuple(
        _attributed(
            _Pair(arm=arm, without=without, told=f"rows of {teacher} instead of {first}"),
            tallied,
            factor=Factor.TEACHER,
            name=teacher,
            level=level,
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
    tallied = tally(answers, labels)
    found = []
    for one in filters:
        if not 0 <= one.num_dropped <= one.num_before or not one.num_before:
            raise ValueError(f"filter {one.name}: {one.num_dropped} dropped of {one.num_before} rows")
        share = one.num_dropped / one.num_before
        pair = _Pair(
            arm=one.arm, without=one.without, told=f"{one.name} cost {share:.0%} of the rows and", share_dropped=share
        )
        found.append(_attributed(pair, tallied, factor=Factor.FILTER, name=one.name, level=level))
    return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pair:
    arm: str
    without: str
    told: str
    """The beginning of the sentence, up to the verb."""
    share_dropped: float | None = None


def _attributed(pair: _Pair, tallied: Tally, *, factor: Factor, name: str, level: float) -> Attribution:
    (difference,) = paired_differences(pair.without, [pair.arm], tallied, level=level)
    gain = difference["accuracy"].estimate
    interval = f"[{100 * gain.low:+.1f}, {100 * gain.high:+.1f}]"
    return Attribution(
        factor=factor,
        name=name,
        arm=pair.arm,
        without=pair.without,
        difference=difference["accuracy"],
        share_dropped=pair.share_dropped,
        sentence=f"{pair.told} changed accuracy by {100 * gain.value:+.1f} points {interval}",
    )
