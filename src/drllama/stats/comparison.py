"""Two systems on the same questions: the paired difference, and whether chance explains it."""

from drllama.recipe import Evaluate
from drllama.stats.intervals import bootstrap
from drllama.stats.significance import mcnemar
from drllama.types import Comparison, Evaluation, Outcome


def compare_accuracy(baseline: Evaluation, other: Evaluation, *, settings: Evaluate, seed: int) -> Comparison:
    """Return the difference in accuracy, with a bootstrap interval over questions and the exact McNemar test.

    Raises:
        ValueError: the two didn't answer the same questions in the same order.
    """
    import numpy as np

    pairs = list(zip(baseline.predictions, other.predictions, strict=True))
    if any(one.source_id != two.source_id or one.example_id != two.example_id for one, two in pairs):
        raise ValueError(f"{baseline.system} and {other.system} answered different questions: they can't be paired")
    gains = [(two.outcome is Outcome.CORRECT) - (one.outcome is Outcome.CORRECT) for one, two in pairs]
    (difference,) = bootstrap(
        np.array(gains, dtype=np.float64)[:, None],
        lambda sums_BF: sums_BF / len(gains),
        samples=settings.bootstrap_samples,
        level=settings.level,
        seed=seed,
    )
    gained, lost = gains.count(1), gains.count(-1)
    return Comparison(
        baseline=baseline.system,
        other=other.system,
        metric="accuracy",
        difference=difference,
        gained=gained,
        lost=lost,
        p_value=mcnemar(gained, lost),
    )
