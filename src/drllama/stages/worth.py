"""What generated rows are worth: each method in its doses, ingredient by ingredient, and for money."""

from collections.abc import Mapping, Sequence

from drllama.recipe import Recipe
from drllama.stages.arms import FILTERS_TOLD, baseline_of, methods_of
from drllama.stages.bill import FOR_ARMS_WITHOUT_FILTER
from drllama.stats import FilterArms, by_filter, by_method, cost_per_point, detectable_difference, marginal_curve
from drllama.types import (
    Arm,
    ArmAnswers,
    ArmCost,
    ArmName,
    ArmSummary,
    Conclusion,
    CurvePoint,
    Effect,
    Power,
    RowsTaken,
    Spent,
    Task,
    Worth,
)


def worth_of(
    arms: Sequence[Arm],
    answers: Sequence[ArmAnswers],
    summaries: Sequence[ArmSummary],
    effects: Sequence[Effect],
    conclusion: Conclusion | None,
    *,
    bill: Sequence[Spent],
    task: Task,
    recipe: Recipe,
) -> Worth:
    """Return what the rows bring in the arms that are trained as those are that the conclusion is about."""
    alike = [arm for arm in arms if arm.equality is arms[0].equality and arm.switched_off is None]
    largest = max((arm.dose for arm in alike if methods_of(arm.name)), default=1.0)
    whole = {arm.name: arm.system for arm in alike if arm.dose == largest or not methods_of(arm.name)}
    there = [one for one in answers if one.arm in {arm.system for arm in alike}]
    level = recipe.evaluate.level
    return Worth(
        curves=_curves(alike, there, summaries, task, level=level),
        attributions=(
            *by_method(whole, there, task.labels, level=level),
            *by_filter(_filters(arms), [*there, *_unfiltered(arms, answers)], task.labels, level=level),
        ),
        costs=_costs(whole, effects, conclusion, bill, recipe),
        power=_power(answers, conclusion, level=level),
    )


def _filters(arms: Sequence[Arm]) -> list[FilterArms]:
    """Return the filters that were switched off, each with its two arms; none where there are no rows to filter."""
    systems = {arm.id: arm.system for arm in arms}
    return [
        FilterArms(
            name=off.filter,
            told=FILTERS_TOLD[off.filter],
            arm=systems[off.arm],
            without=arm.system,
            rows=RowsTaken(
                num_before=arm.num_extra,
                num_dropped=off.num_let_in,
                num_instead=off.num_left_out,
                num_unanswered=off.num_unanswered,
            ),
        )
        for arm in arms
        if (off := arm.switched_off) and arm.num_extra
    ]


def _unfiltered(arms: Sequence[Arm], answers: Sequence[ArmAnswers]) -> list[ArmAnswers]:
    systems = {arm.system for arm in arms if arm.switched_off}
    return [one for one in answers if one.arm in systems]


def _curves(
    arms: Sequence[Arm],
    answers: Sequence[ArmAnswers],
    summaries: Sequence[ArmSummary],
    task: Task,
    *,
    level: float,
) -> tuple[tuple[CurvePoint, ...], ...]:
    none = baseline_of(arms[0].equality, arms)
    curves = []
    for name in dict.fromkeys(arm.name for arm in arms if methods_of(arm.name)):
        doses = {arm.system: arm.dose for arm in arms if arm.name is name}
        if len(doses) > 1:
            if none and name is not ArmName.SYNTHETIC_ONLY:
                doses[none.system] = 0.0
            curves.append(marginal_curve(doses, answers, summaries, task.labels, level=level))
    return tuple(curves)


def _costs(
    whole: Mapping[ArmName, str],
    effects: Sequence[Effect],
    conclusion: Conclusion | None,
    bill: Sequence[Spent],
    recipe: Recipe,
) -> tuple[ArmCost, ...]:
    """Return what the arms took that the conclusion is about; what only another method was asked for isn't theirs."""
    if conclusion is None:
        return ()
    asked = {"rewrite": recipe.augment and recipe.augment.rewrite, "new": recipe.augment and recipe.augment.new}
    prompts = {method: section.prompt for method, section in asked.items() if section}
    against_none = {one.arm: one.accuracy for one in effects if one.baseline == conclusion.baselines[0]}
    found = []
    for name, system in whole.items():
        if system not in {one.arm for one in conclusion.arms}:
            continue
        others = {prompt for method, prompt in prompts.items() if method not in methods_of(name)}
        spent = [one for one in bill if one.prompt not in others and not one.prompt.endswith(FOR_ARMS_WITHOUT_FILTER)]
        usd = None if any(one.num_unpriced for one in spent) else sum(one.usd for one in spent)
        gain = against_none[system]
        # One seed can't tell a gain from the luck of training.
        per_point = None if usd is None or gain.seed_error is None else cost_per_point(gain, usd)
        found.append(ArmCost(arm=system, usd=usd, per_point=per_point))
    return tuple(found)


def _power(answers: Sequence[ArmAnswers], conclusion: Conclusion | None, *, level: float) -> Power:
    num_questions, num_seeds = len(answers[0].answers[0]), len(answers[0].seeds)
    num_arms = len(conclusion.arms) if conclusion else 1
    return Power(
        num_questions=num_questions,
        num_seeds=num_seeds,
        num_arms=num_arms,
        detectable=detectable_difference(num_questions, num_seeds=num_seeds, num_arms=num_arms, level=level),
    )
