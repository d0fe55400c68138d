"""What generated rows are worth: money for a point, dose by dose, and which ingredient brings it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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
    RowsTaken,
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
    arms: Mapping[str, str], answers: Sequence[ArmAnswers], labels: Sequence[Label], *, where: str, level: float
) -> tuple[Attribution, ...]:
    """Return what each teacher's rows bring against those of the first.

    ``arms`` are teachers with the arms that were trained on their rows, alike in all else; ``where`` is what such an
    arm is called.

    Raises:
        ValueError: an arm has no answers, or arms differ in seeds or questions.
    """
    tallied = tally(answers, labels)
    (first, without), *others = arms.items()
    return tuple(
        _attributed(
            _Pair(arm=arm, without=without, told=f"'{where}' with rows of {teacher} instead of {first}"),
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
    told: str
    """As reports call it, such as ``the label check``."""
    arm: str
    without: str
    rows: RowsTaken


def by_filter(
    filters: Sequence[FilterArms], answers: Sequence[ArmAnswers], labels: Sequence[Label], *, level: float
) -> tuple[Attribution, ...]:
    """Return what each filter takes away and what that changes.

    ``answers`` are those of all arms that were trained alike; of the arms without a filter each is counted with the
    others alone, so that what one filter is worth doesn't hang on which else were switched off.

    Raises:
        ValueError: a filter saw no row, an arm has no answers, or arms differ in seeds or questions.
    """
    found = []
    for one in filters:
        if not 0 <= one.rows.num_dropped <= one.rows.num_before or not one.rows.num_before:
            raise ValueError(f"filter {one.name}: {one.rows.num_dropped} dropped of {one.rows.num_before} rows")
        others = {other.without for other in filters} - {one.without}
        tallied = tally([arm for arm in answers if arm.arm not in others], labels)
        told = _rows_told(one.rows, one.told)
        pair = _Pair(arm=one.arm, without=one.without, told=f"{told} and", rows=one.rows)
        made = _attributed(pair, tallied, factor=Factor.FILTER, name=one.name, level=level)
        changed = made.sentence if one.rows.num_dropped or one.rows.num_instead else f"{told}, so it changed nothing"
        found.append(replace(made, sentence=changed + _left_out_told(one.rows)))
    return tuple(found)


def _rows_told(rows: RowsTaken, filter: str) -> str:
    share = f" ({100 * rows.num_dropped / rows.num_before:.0f} %)" if rows.num_dropped else ""
    told = f"{filter} took {f'{rows.num_dropped:,}' if rows.num_dropped else 'none'} of {rows.num_before:,} rows{share}"
    return f"{told}, let in {rows.num_instead:,} others" if rows.num_instead else told


def _left_out_told(rows: RowsTaken) -> str:
    if not rows.num_unanswered:
        return ""
    return f"; {rows.num_unanswered:,} more that it stopped are in neither arm, for want of the teacher's reply"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pair:
    arm: str
    without: str
    told: str
    """The beginning of the sentence, up to the verb."""
    rows: RowsTaken | None = None


def _attributed(pair: _Pair, tallied: Tally, *, factor: Factor, name: str, level: float) -> Attribution:
    (difference,) = paired_differences(pair.without, [pair.arm], tallied, level=level)
    accuracy, macro_f1 = (_points(difference[metric].estimate) for metric in ("accuracy", "macro_f1"))
    return Attribution(
        factor=factor,
        name=name,
        arm=pair.arm,
        without=pair.without,
        difference=difference["accuracy"],
        share_dropped=pair.rows.num_dropped / pair.rows.num_before if pair.rows else None,
        sentence=f"{pair.told} changed accuracy by {accuracy}, macro-F1 by {macro_f1}",
        macro_f1=difference["macro_f1"],
        rows=pair.rows,
    )


def _points(gain: Estimate) -> str:
    return f"{100 * gain.value:+.1f} points [{100 * gain.low:+.1f}, {100 * gain.high:+.1f}]"
