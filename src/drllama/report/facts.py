"""The few numbers that a busy reader takes away, in words."""

from collections.abc import Sequence
from dataclasses import dataclass

from drllama.report.contents import ArmLine, ReportContents, Role
from drllama.report.sensitivity import Sensitivity, SensitivityLine, SensitivityMark
from drllama.report.wording import cost_told, duration, money, points_text
from drllama.types import ArmCost, ArmSummary, CurvePoint, Estimate, OverSeeds, Spent


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One number."""

    title: str
    value: str
    note: str


def facts(contents: ReportContents) -> tuple[Fact, ...]:
    """Return the effect, the accuracy, what could have been seen, money, rows and work, as far as there are any."""
    found = [_effect(contents), _accuracy(contents), _power(contents), _cost(contents), _rows(contents)]
    return (*(one for one in found if one), _work(contents))


def focal_line(contents: ReportContents) -> ArmLine | None:
    """Return the arm that the page looks into."""
    return next((arm for arm in contents.arms if contents.flips and arm.name == contents.flips.arm), None)


def dose_sensitivities(arms: Sequence[ArmLine], curves: Sequence[Sequence[CurvePoint]]) -> tuple[Sensitivity, ...]:
    """Return accuracy over the share of the teacher's rows, a line for each method; empty where doses are all alike."""
    if not curves:
        return ()
    summaries = {arm.name: arm.summary for arm in arms if arm.summary}
    lines = tuple(
        SensitivityLine(
            name=points[-1].arm.removeprefix("fine-tuned ").removeprefix("+ ").partition(",")[0],
            marks=tuple(
                SensitivityMark(value=point.share, result=_over_seeds(point.value, summaries[point.arm]))
                for point in points
            ),
        )
        for points in curves
    )
    return (Sensitivity(setting="share of the teacher's rows", metric="accuracy", lines=lines, is_joined=True),)


def bill_total(bill: Sequence[Spent]) -> float | None:
    """Return what all replies cost in US dollars; None: some price is unknown."""
    return None if any(one.num_unpriced for one in bill) else sum(one.usd for one in bill)


def _over_seeds(estimate: Estimate, summary: ArmSummary) -> OverSeeds:
    return OverSeeds(
        value=estimate.value,
        low=estimate.low,
        high=estimate.high,
        each=summary.by_seed["accuracy"],
        level=estimate.level,
    )


def _effect(contents: ReportContents) -> Fact | None:
    line = focal_line(contents)
    if line is None:
        return None
    effect, *others = line.effects
    told, _, interval = points_text(effect.accuracy.estimate).partition(" ")
    controls = [f"{points_text(one.accuracy.estimate)} against '{one.baseline}'" for one in others]
    return Fact(
        title="Effect of the generated rows",
        value=f"{told} points",
        note="; ".join([f"{interval} accuracy, '{effect.arm}' against '{effect.baseline}'", *controls]),
    )


def _accuracy(contents: ReportContents) -> Fact:
    chosen = next(arm for arm in contents.arms if arm.is_chosen)
    over_seeds = chosen.summary is not None and len(chosen.summary.seeds) > 1
    found = chosen.summary.metrics["accuracy"] if chosen.summary else contents.student.system.metrics["accuracy"]
    mean = f"mean of {len(chosen.summary.seeds)} seeds, " if over_seeds and chosen.summary else ""
    beside = "" if contents.majority is None else f"; majority answer {100 * contents.majority:.1f} %"
    return Fact(
        title="Accuracy",
        value=f"{100 * found.value:.1f} %",
        note=f"[{100 * found.low:.1f}, {100 * found.high:.1f}] '{chosen.name}', {mean}{found.n} questions{beside}",
    )


def _power(contents: ReportContents) -> Fact | None:
    if contents.conclusion is None or contents.worth is None:
        return None
    after, before = max(one.detectable for one in contents.conclusion.arms), contents.worth.power.detectable
    forecast = "none would" if before is None else f"{100 * before:.1f}"
    return Fact(
        title="Smallest effect that would show",
        value=f"{100 * after:.1f} points",
        note=f"four times in five; expected before the run: {forecast}",
    )


def _cost(contents: ReportContents) -> Fact | None:
    if contents.teacher is None:
        return None
    usd, bill = bill_total(contents.teacher.bill), contents.teacher.bill
    tokens = sum(one.tokens_in + one.tokens_out for one in bill)
    costs = contents.worth.costs if contents.worth else ()
    told = [cost_told(one) for one in costs if _is_focal(contents, one)]
    return Fact(
        title="The teacher cost",
        value="unknown" if usd is None else money(usd),
        note="; ".join([f"{sum(one.num_replies for one in bill):,} replies, {tokens:,} tokens", *told]),
    )


def _is_focal(contents: ReportContents, cost: ArmCost) -> bool:
    return contents.flips is not None and contents.flips.arm == cost.arm


def _rows(contents: ReportContents) -> Fact | None:
    if contents.teacher is None:
        return None
    first, last = (sum(step.counts.values()) for step in (contents.teacher.funnel[0], contents.teacher.funnel[-1]))
    stopped = contents.teacher.drops[0] if contents.teacher.drops else None
    most = f"most stopped by {stopped.by} ({stopped.reason}), {sum(stopped.counts.values()):,}" if stopped else ""
    return Fact(title="Rows kept", value=f"{last:,} of {first:,}", note=most or "none was stopped")


def _work(contents: ReportContents) -> Fact:
    seconds = sum(cell.train_seconds + cell.score_seconds for cell in contents.cells)
    where = "; ".join(dict.fromkeys(one.device for one in contents.machines))
    generated = sum(arm.role is Role.GENERATED for arm in contents.arms)
    arms = f"{len(contents.arms)} arms, {generated} with the teacher's rows; " if len(contents.arms) > 1 else ""
    number = len(contents.cells)
    return Fact(
        title="Students trained",
        value=f"{number}" + (f" of {number + contents.num_unfinished}" if contents.num_unfinished else ""),
        note=f"{arms}{duration(seconds)} on {where}",
    )
