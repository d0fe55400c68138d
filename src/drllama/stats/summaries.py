"""What arms come to: means over seeds, with intervals that count both items and seeds.

Letters in names of arrays: B resamplings, A arms, S seeds, M metrics.
"""

from collections.abc import Sequence
from math import sqrt
from typing import TYPE_CHECKING

from drllama.ids import derive_seed
from drllama.recipe import Evaluate
from drllama.stats.intervals import resampled_sums
from drllama.stats.tally import columns, metrics_of_sums, tally
from drllama.types import ArmAnswers, ArmSummary, Estimate, Label

if TYPE_CHECKING:
    from drllama.stats.intervals import Floats


def summarise_arms(
    answers: Sequence[ArmAnswers], labels: Sequence[Label], *, settings: Evaluate, seed: int
) -> tuple[ArmSummary, ...]:
    """Return each arm's mean metrics over its seeds, with hierarchical bootstrap intervals.

    A resample draws items, the same for all arms and seeds, because all answered the same. The seeds are too few to be
    drawn from (three have ten different resamples, and a variance a third too small), so their part is drawn from
    Student's t with the standard error of the mean over seeds; it is the larger of the arm's own and that of all arms
    together, whose degrees of freedom it has. One seed: an interval over items alone, method ``bootstrap``.

    Raises:
        ValueError: there are no answers, or arms differ in seeds or questions.
    """
    import numpy as np

    tallied = tally(answers, labels)
    columns_NF = columns(tallied)
    values_ASM = metrics_of_sums(columns_NF.sum(axis=0, keepdims=True), tallied)[0]
    sums_BF = resampled_sums(columns_NF, samples=settings.bootstrap_samples, seed=seed)
    drawn_BAM = metrics_of_sums(sums_BF, tallied).mean(axis=2)
    num_seeds = len(tallied.seeds)
    if num_seeds > 1:
        rng = np.random.default_rng(derive_seed(seed, "seeds"))
        luck_B = rng.standard_t(len(tallied.arms) * (num_seeds - 1), size=len(drawn_BAM))
        drawn_BAM = drawn_BAM + luck_B[:, None, None] * _seed_errors(values_ASM)
    tail = (1 - settings.level) / 2
    values_AM = values_ASM.mean(axis=1)
    lows_AM, highs_AM = np.clip(np.quantile(drawn_BAM, [tail, 1 - tail], axis=0), 0, 1)
    return tuple(
        ArmSummary(
            arm=arm,
            seeds=tallied.seeds,
            metrics={
                name: Estimate(
                    value=float(values_AM[a, m]),
                    low=float(min(lows_AM[a, m], values_AM[a, m])),
                    high=float(max(highs_AM[a, m], values_AM[a, m])),
                    n=len(tallied.gold_N),
                    level=settings.level,
                    method="hierarchical bootstrap" if num_seeds > 1 else "bootstrap",
                )
                for m, name in enumerate(tallied.metrics)
            },
            by_seed={name: tuple(values_ASM[a, :, m].tolist()) for m, name in enumerate(tallied.metrics)},
        )
        for a, arm in enumerate(tallied.arms)
    )


def _seed_errors(values_ASM: "Floats") -> "Floats":
    """Return [A, M] the standard errors of the means over seeds."""
    import numpy as np

    own_AM = values_ASM.var(axis=1, ddof=1)
    errors_AM: Floats = np.sqrt(np.maximum(own_AM, own_AM.mean(axis=0))) / sqrt(values_ASM.shape[1])
    return errors_AM
