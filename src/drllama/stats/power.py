"""What an experiment can show at all: before it, from how answers vary; after it, how they did."""

from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist

from drllama.stats.significance import Errors
from drllama.types import Effect


@dataclass(frozen=True, slots=True, kw_only=True)
class Variation:
    """How the answers of two students differ that were trained alike."""

    discordant_share: float = 0.15
    """Share of questions that exactly one of the two answers rightly; 15 to 20 % on the same real rows."""
    lasting_share: float = 0.5
    """How much of it is the same questions with every seed."""
    training_sd: float = 0.01
    """Standard deviation of an arm's accuracy between seeds, beyond what its single answers' luck makes."""


def detectable_difference(
    n: int,
    *,
    num_seeds: int = 1,
    num_arms: int = 1,
    variation: Variation | None = None,
    power: float = 0.8,
    level: float = 0.95,
) -> float | None:
    """Return the smallest difference in accuracy to a baseline that is found with this power.

    None: the questions are too few, even for an arm that wins all those on which the two differ.

    ``num_arms`` are held against the baseline together, with Holm's correction. With several seeds the test is that of
    ``effects_against``. With one it is McNemar's, in the normal approximation of Connor (1987), which finds differences
    between two students but can't tell whether another seed would show them too.

    >>> round(detectable_difference(500), 3), round(detectable_difference(500, num_seeds=3, num_arms=3), 3)
    (0.048, 0.06)
    """
    if n < 1:
        raise ValueError("detectable_difference: no questions")
    variation = variation or Variation()
    power_quantile = NormalDist().inv_cdf(power)

    def is_found(difference: float) -> bool:
        reach = _errors(n, num_seeds, num_arms, variation, difference=0.0).reach((1 - level) / num_arms)
        return difference >= reach + power_quantile * _errors(n, num_seeds, num_arms, variation, difference).both

    low, high = 0.0, variation.discordant_share
    if not is_found(high):
        return None
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if is_found(middle) else (middle, high)
    return high


def variation_of(effect: Effect) -> Variation:
    """Return how the answers of an arm and its baseline varied: what a pilot teaches about the next experiment.

    With one seed only the share of discordant questions is known.
    """
    found = effect.accuracy
    share = sum(one.gained + one.lost for one in effect.discordance) / len(effect.seeds) / effect.num_items
    if found.seed_error is None or not share:
        return Variation(discordant_share=share)
    lasting = min(1.0, found.item_error**2 * effect.num_items / share)
    beyond = found.seed_error**2 * len(effect.seeds) - (1 - lasting) * share / effect.num_items
    return Variation(discordant_share=share, lasting_share=lasting, training_sd=sqrt(max(0.0, beyond) / 2))


def _errors(n: int, num_seeds: int, num_arms: int, variation: Variation, difference: float) -> Errors:
    variance = max(0.0, variation.discordant_share - difference**2)
    if num_seeds == 1:
        return Errors(item=sqrt(variance / n), seed=None, seed_df=0)
    between = 2 * variation.training_sd**2 + (1 - variation.lasting_share) * variance / n
    return Errors(
        item=sqrt(variation.lasting_share * variance / n),
        seed=sqrt(between / num_seeds),
        seed_df=num_arms * (num_seeds - 1),
    )
