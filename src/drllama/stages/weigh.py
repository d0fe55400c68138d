"""What arms come to over the seeds, what they change, and what may be said of the teacher's rows."""

from collections.abc import Sequence
from dataclasses import dataclass

from drllama.ids import derive_seed
from drllama.recipe import Recipe
from drllama.stages.arms import CONTROLS, JUDGED, baseline_of
from drllama.stages.worth import worth_of
from drllama.stats import conclude, effects_against, summarise_arms
from drllama.types import Arm, ArmAnswers, ArmName, ArmSummary, Cell, Conclusion, Effect, Spent, Task, Worth

_TO_BEAT = (ArmName.NONE, ArmName.DUPLICATE_REAL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Weighed:
    """What is found of all arms."""

    summaries: tuple[ArmSummary, ...]
    effects: tuple[Effect, ...]
    conclusion: Conclusion | None
    worth: Worth | None


def weigh(arms: Sequence[Arm], cells: Sequence[Cell], task: Task, recipe: Recipe, *, bill: Sequence[Spent]) -> Weighed:
    """Return what the arms come to, over the seeds that all of them have; ``bill`` is what the teacher took."""
    whole = {
        cell.seed for cell in cells if {arm.id for arm in arms} == {one.arm for one in cells if one.seed == cell.seed}
    }
    if not whole:
        return Weighed(summaries=(), effects=(), conclusion=None, worth=None)
    answers = [_answers(arm, [cell for cell in cells if cell.arm == arm.id and cell.seed in whole]) for arm in arms]
    seed = derive_seed(recipe.seed, "bootstrap", "seeds")
    effects: list[Effect] = []
    families = _families(arms)
    for family in families:
        effects += effects_against(
            family.baseline.system,
            [arm.system for arm in family.arms],
            [one for one in answers if one.arm in {arm.system for arm in family.alike}],
            task.labels,
            level=recipe.evaluate.level,
        )
    summaries = summarise_arms(answers, task.labels, settings=recipe.evaluate, seed=seed)
    conclusion = _concluded(families, effects, level=recipe.evaluate.level)
    return Weighed(
        summaries=summaries,
        effects=tuple(effects),
        conclusion=conclusion,
        worth=worth_of(arms, answers, summaries, effects, conclusion, bill=bill, task=task, recipe=recipe),
    )


def _answers(arm: Arm, cells: Sequence[Cell]) -> ArmAnswers:
    return ArmAnswers(
        arm=arm.system,
        seeds=tuple(cell.seed for cell in cells),
        answers=tuple(cell.evaluation.predictions for cell in cells),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Family:
    """Arms that are held against one baseline together, for Holm to count."""

    baseline: Arm
    arms: tuple[Arm, ...]
    alike: tuple[Arm, ...]
    """All that are trained alike: they tell how much the luck of training is worth."""
    concludes: bool
    """Whether the conclusion is about it: all rows of the teacher's, beside the real ones, against whom to beat."""


def _families(arms: Sequence[Arm]) -> list[_Family]:
    """Return what is held against what; what the conclusion is about is apart, so that it is few."""
    found = []
    for equality in dict.fromkeys(arm.equality for arm in arms):
        same = [arm for arm in arms if arm.equality is equality and arm.switched_off is None]
        written = [arm for arm in same if arm.name in JUDGED]
        whole = [arm for arm in written if arm.dose == max(one.dose for one in written)]
        rest = [arm for arm in same if arm not in whole and arm.name is not ArmName.NONE]
        for name, groups in ((ArmName.NONE, (whole, rest)), *((control, (whole,)) for control in CONTROLS)):
            baseline = baseline_of(equality, arms, name)
            for group in groups:
                if baseline and group:
                    found.append(
                        _Family(
                            baseline=baseline,
                            arms=tuple(group),
                            alike=tuple(dict.fromkeys((baseline, *same))),
                            concludes=group is whole and equality is arms[0].equality and name in _TO_BEAT,
                        )
                    )
    return [*found, *_unfiltered_families(arms)]


def _unfiltered_families(arms: Sequence[Arm]) -> list[_Family]:
    """Return what arms without a filter are held against; the other families are what they were without them."""
    changed = [arm for arm in arms if arm.switched_off and not arm.switched_off.is_same]
    found = []
    for first in changed[:1]:
        assert first.switched_off
        filtered = next(arm for arm in arms if arm.id == first.switched_off.arm)
        alike = [arm for arm in arms if arm.equality is first.equality and (arm.switched_off is None or arm in changed)]
        for baseline in (baseline_of(first.equality, arms), filtered):
            if baseline:
                family = tuple(dict.fromkeys((baseline, *alike)))
                found.append(_Family(baseline=baseline, arms=tuple(changed), alike=family, concludes=False))
    return found


def _concluded(families: Sequence[_Family], effects: Sequence[Effect], *, level: float) -> Conclusion | None:
    asked = [one for one in families if one.concludes]
    if not asked or asked[0].baseline.name is not ArmName.NONE:
        return None
    pairs = {(arm.system, family.baseline.system) for family in asked for arm in family.arms}
    return conclude(
        [one for one in effects if (one.arm, one.baseline) in pairs],
        baselines=[family.baseline.system for family in asked],
        level=level,
    )
