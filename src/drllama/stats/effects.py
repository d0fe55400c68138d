"""What arms change against a baseline: paired by item and by seed, with both kinds of luck counted (decision 0020).

Letters in names of arrays: A arms, S seeds, N items, M metrics.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp
from typing import TYPE_CHECKING

from drllama.stats.significance import Errors, holm, mcnemar
from drllama.stats.tally import Tally, columns, influences, metrics_of_sums, tally
from drllama.types import ArmAnswers, Difference, Discordance, Effect, Estimate, Label, Prediction

if TYPE_CHECKING:
    from drllama.stats.intervals import Floats


def effects_against(
    baseline: str,
    arms: Sequence[str],
    answers: Sequence[ArmAnswers],
    labels: Sequence[Label],
    *,
    level: float,
) -> tuple[Effect, ...]:
    """Return what each of these arms changes against a baseline arm; Holm counts these arms.

    ``answers`` are those of all arms that were trained alike, asked about or not: together they tell how much the luck
    of training is worth.

    Raises:
        ValueError: an arm has no answers, or arms differ in seeds or questions.
    """
    tallied = tally(answers, labels)
    differences = paired_differences(baseline, arms, tallied, level=level)
    given = {one.arm: one for one in answers}
    discordances = _discordances([given[arm] for arm in arms], given[baseline], labels)
    return tuple(
        Effect(
            arm=arm,
            baseline=baseline,
            seeds=tallied.seeds,
            num_items=len(tallied.gold_N),
            num_arms=len(arms),
            differences=by_metric,
            discordance=tuple(by_seed),
            vote=vote,
        )
        for arm, by_metric, (*by_seed, vote) in zip(arms, differences, discordances, strict=True)
    )


def paired_differences(
    baseline: str, arms: Sequence[str], tallied: Tally, *, level: float
) -> tuple[Mapping[str, Difference], ...]:
    """Return the differences of each of these arms to the baseline by metric; Holm counts these arms.

    Raises:
        ValueError: an arm has no answers.
    """
    if unknown := {baseline, *arms} - set(tallied.arms):
        raise ValueError(f"effects: no answers of {', '.join(sorted(unknown))}")
    measured = _measured(tallied)
    found = [_found(measured, arm, baseline) for arm in arms]
    adjusted = {name: holm([one[name].p_value for one in found]) for name in tallied.metrics}
    return tuple(
        {name: one.told(adjusted[name][place], num_arms=len(arms), level=level) for name, one in found[place].items()}
        for place in range(len(arms))
    )


def majority_vote(answers: Sequence[Prediction], labels: Sequence[Label]) -> Label | None:
    """Return the label that most of the answers to one question chose; None where none chose any.

    Of equals the one with the larger mean probability over the labels, an answer without scores being sure; of these
    the first in the order of the labels.
    """
    votes = {label: sum(one.choice == label for one in answers) for label in labels}
    most = max(votes.values())
    if most == 0:
        return None
    tied = [label for label in labels if votes[label] == most]
    if len(tied) == 1:
        return tied[0]
    sure = [_probabilities(one, labels) for one in answers if one.choice is not None]
    return max(tied, key=lambda label: sum(one[label] for one in sure))


def _probabilities(answer: Prediction, labels: Sequence[Label]) -> Mapping[Label, float]:
    if answer.scores_nats is None:
        return {label: float(label == answer.choice) for label in labels}
    top = max(answer.scores_nats[label] for label in labels)
    odds = {label: exp(answer.scores_nats[label] - top) for label in labels}
    return {label: value / sum(odds.values()) for label, value in odds.items()}


def _discordances(
    arms: Sequence[ArmAnswers], baseline: ArmAnswers, labels: Sequence[Label]
) -> list[tuple[Discordance, ...]]:
    """Return each arm's discordance with the baseline for each seed, and last that of the votes."""
    voted = {
        one.arm: [majority_vote(same, labels) for same in zip(*one.answers, strict=True)] for one in (*arms, baseline)
    }
    gold = [one.gold for one in baseline.answers[0]]
    counted = []
    for arm in arms:
        choices = [
            ([one.choice for one in mine], [one.choice for one in theirs])
            for mine, theirs in zip(arm.answers, baseline.answers, strict=True)
        ]
        choices.append((voted[arm.arm], voted[baseline.arm]))
        counted.append([_discordant(mine, theirs, gold) for mine, theirs in choices])
    adjusted = [holm([mcnemar(*pair) for pair in column]) for column in zip(*counted, strict=True)]
    return [
        tuple(
            Discordance(gained=gained, lost=lost, p_value=mcnemar(gained, lost), p_adjusted=adjusted[column][place])
            for column, (gained, lost) in enumerate(pairs)
        )
        for place, pairs in enumerate(counted)
    ]


def _discordant(mine: Sequence[Label | None], theirs: Sequence[Label | None], gold: Sequence[Label]) -> tuple[int, int]:
    right = [(a == wanted, b == wanted) for a, b, wanted in zip(mine, theirs, gold, strict=True)]
    return right.count((True, False)), right.count((False, True))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Measured:
    tallied: Tally
    values_ASM: "Floats"
    influences_ASNM: "Floats"
    square_AM: "Floats"
    luck_M: "Floats | None"
    """Variance between seeds of one arm, beyond what a seed does to all arms alike; None: one seed."""


def _measured(tallied: Tally) -> _Measured:
    values_ASM = metrics_of_sums(columns(tallied).sum(axis=0, keepdims=True), tallied)[0]
    influences_ASNM, square_AM = influences(tallied)
    num_arms, num_seeds = len(tallied.arms), len(tallied.seeds)
    luck_M = None
    if num_arms > 1 and num_seeds > 1:
        rest_ASM = (
            values_ASM - values_ASM.mean(axis=1, keepdims=True) - values_ASM.mean(axis=0) + values_ASM.mean((0, 1))
        )
        luck_M = (rest_ASM**2).sum(axis=(0, 1)) / ((num_arms - 1) * (num_seeds - 1))
    return _Measured(
        tallied=tallied,
        values_ASM=values_ASM,
        influences_ASNM=influences_ASNM,
        square_AM=square_AM,
        luck_M=luck_M,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """A difference before it is held against its fellows."""

    by_seed: tuple[float, ...]
    errors: Errors
    p_value: float
    n: int

    def told(self, p_adjusted: float, *, num_arms: int, level: float) -> Difference:
        value = sum(self.by_seed) / len(self.by_seed)
        reach = self.errors.reach(1 - level)
        return Difference(
            estimate=Estimate(
                value=value,
                low=max(-1.0, value - reach),
                high=min(1.0, value + reach),
                n=self.n,
                level=level,
                method="items" if self.errors.seed is None else "items and seeds",
            ),
            by_seed=self.by_seed,
            item_error=self.errors.item,
            seed_error=self.errors.seed,
            seed_df=self.errors.seed_df,
            p_value=self.p_value,
            p_adjusted=p_adjusted,
            # Holm's first step is its hardest: whoever stands alone has to pass it.
            detectable=self.errors.detectable((1 - level) / num_arms),
        )


def _found(measured: _Measured, arm: str, baseline: str) -> dict[str, _Found]:
    """Return the differences by metric."""
    tallied = measured.tallied
    mine, theirs = tallied.arms.index(arm), tallied.arms.index(baseline)
    by_seed_SM = measured.values_ASM[mine] - measured.values_ASM[theirs]
    influence_SNM = measured.influences_ASNM[mine] - measured.influences_ASNM[theirs]
    square_M = (measured.square_AM[mine] + measured.square_AM[theirs]) / 2
    item_M = _item_variance(influence_SNM, square_M)
    seed_M = _seed_variance(by_seed_SM, measured.luck_M)
    df = (len(tallied.arms) - 1) * (len(tallied.seeds) - 1)
    found = {}
    for m, name in enumerate(tallied.metrics):
        errors = Errors(
            item=float(item_M[m]) ** 0.5, seed=None if seed_M is None else float(seed_M[m]) ** 0.5, seed_df=df
        )
        by_seed = tuple(by_seed_SM[:, m].tolist())
        difference = sum(by_seed) / len(by_seed)
        found[name] = _Found(by_seed=by_seed, errors=errors, p_value=errors.p_value(difference), n=len(tallied.gold_N))
    return found


def _item_variance(influence_SNM: "Floats", square_M: "Floats") -> "Floats":
    """Return [M] the variance of a mean over seeds that comes from the items.

    What an item does with one seed and not with another belongs to the seeds, whose spread already holds it, and is
    taken out. Half a gain and half a loss of an item picked by chance are added (as Agresti and Min 2005 do), so that
    no interval is a point.
    """
    import numpy as np

    num_seeds, num_items = influence_SNM.shape[:2]
    item_NM = influence_SNM.mean(axis=0)
    freedom = max(1, num_items - 1)
    floor_M = square_M / freedom / num_items
    lasting_M: Floats = (item_NM**2).sum(axis=0) / freedom / num_items
    if num_seeds > 1:
        passing_M = ((influence_SNM - item_NM) ** 2).sum(axis=(0, 1)) / freedom / (num_seeds - 1)
        lasting_M = np.maximum(0.0, lasting_M - passing_M / num_items / num_seeds)
    variance_M: Floats = lasting_M + floor_M
    return variance_M


def _seed_variance(by_seed_SM: "Floats", luck_M: "Floats | None") -> "Floats | None":
    """Return [M] the variance of a mean over seeds that comes from the seeds: the larger of two looks at it.

    All arms together show it best, but an arm whose training is wilder than the others' must not hide among them.
    """
    import numpy as np

    if luck_M is None:
        return None
    larger_M: Floats = np.maximum(by_seed_SM.var(axis=0, ddof=1), 2 * luck_M)
    return larger_M / len(by_seed_SM)
