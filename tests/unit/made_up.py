"""Made-up experiments: items of different difficulty, students with training noise, arms with a known effect."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from drllama.stats.effects import paired_differences
from drllama.stats.tally import Tally
from drllama.types import ArmAnswers, Discordance, Effect, Outcome, Prediction

LABELS = ("yes", "no", "maybe")
_SHARES = (0.55, 0.34, 0.11)


@dataclass(frozen=True, kw_only=True)
class World:
    """How answers come about: a student is right where its skill less the item's difficulty is above 0.

    With these numbers, two students of one arm disagree on whether they are right for a fifth of the items, and an
    arm's accuracy on 500 items has a standard deviation of 2.3 points between seeds. Unless told otherwise, numbers are
    standard deviations.
    """

    arms: tuple[str, ...]
    num_seeds: int = 3
    num_items: int = 500
    ease: float = 0.7
    difficulty: float = 1.6
    arm_item: float = 0.4
    """What an arm does to an item with every seed."""
    seed_item: float = 0.9
    """What a single training does to an item."""
    training: float = 0.1
    """What a single training does to all items."""
    seed: float = 0.05
    """What a seed does to all arms alike."""
    gains: tuple[float, ...] = ()
    """Of each arm, on all items."""
    wildness: tuple[float, ...] = ()
    """Of each arm's training."""


def answers_of(world: World, rng: np.random.Generator) -> Tally:
    """Return what all students answered."""
    num_arms, num_seeds, num_items = len(world.arms), world.num_seeds, world.num_items
    gains_A = np.array(world.gains or [0.0] * num_arms)
    wildness_A = np.array(world.wildness or [1.0] * num_arms)
    skill_ASN = (
        rng.normal(world.ease, world.difficulty, num_items)
        + rng.normal(0, world.arm_item, (num_arms, 1, num_items))
        + rng.normal(0, world.seed_item, (num_arms, num_seeds, num_items))
        + rng.normal(0, world.training, (num_arms, num_seeds, 1)) * wildness_A[:, None, None]
        + rng.normal(0, world.seed, (1, num_seeds, 1))
        + gains_A[:, None, None]
    )
    gold_N = rng.choice(len(LABELS), num_items, p=_SHARES)
    # A wrong answer is mostly the frequent label: students seldom say "maybe".
    other_ASN = np.where(gold_N == 0, rng.choice([1, 2], skill_ASN.shape, p=[0.9, 0.1]), 0)
    return Tally(
        arms=world.arms,
        seeds=tuple(range(1, num_seeds + 1)),
        labels=LABELS,
        gold_N=gold_N,
        chosen_ASN=np.where(skill_ASN > 0, gold_N, other_ASN),
    )


def as_answers(tallied: Tally) -> list[ArmAnswers]:
    """Return the same as predictions."""
    return [
        ArmAnswers(
            arm=arm,
            seeds=tallied.seeds,
            answers=tuple(
                tuple(prediction(n, tallied.gold_N[n], k) for n, k in enumerate(chosen_N)) for chosen_N in chosen_SN
            ),
        )
        for arm, chosen_SN in zip(tallied.arms, tallied.chosen_ASN, strict=True)
    ]


def prediction(number: int, gold: int, chosen: int, scores_nats=None) -> Prediction:
    choice = None if chosen < 0 else LABELS[chosen]
    outcome = Outcome.UNPARSED if choice is None else Outcome.CORRECT if chosen == gold else Outcome.WRONG
    return Prediction(
        example_id=f"e{number}",
        source_id=f"s{number}",
        gold=LABELS[gold],
        choice=choice,
        outcome=outcome,
        scores_nats=scores_nats,
        num_tokens=0,
        truncated_tokens=0,
    )


def effects_in(tallied: Tally, baselines: Sequence[str]) -> list[Effect]:
    """Return the effects of all other arms against these, without discordance: no rule asks for it."""
    arms = [arm for arm in tallied.arms if arm not in baselines]
    silent = Discordance(gained=0, lost=0, p_value=1.0, p_adjusted=1.0)
    return [
        Effect(
            arm=arm,
            baseline=baseline,
            seeds=tallied.seeds,
            num_items=len(tallied.gold_N),
            num_arms=len(arms),
            differences=differences,
            discordance=(silent,) * len(tallied.seeds),
            vote=silent,
        )
        for baseline in baselines
        for arm, differences in zip(arms, paired_differences(baseline, arms, tallied, level=0.95), strict=True)
    ]
