"""From predictions to an evaluation: counts, metrics with intervals, classes, confusion, calibration.

Letters in names of arrays: N items, K labels, R reliability bins, B resamplings, F columns, S statistics.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING

from drllama.ids import derive_seed
from drllama.recipe import Evaluate
from drllama.stats.intervals import bootstrap, unknown_share, wilson
from drllama.types import (
    ClassScores,
    Estimate,
    Evaluation,
    Label,
    Outcome,
    Prediction,
    ReliabilityBin,
    SplitName,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from drllama.stats.intervals import Floats

_ANSWERED = (Outcome.CORRECT, Outcome.WRONG)


def evaluate_predictions(
    predictions: Sequence[Prediction],
    *,
    system: str,
    split: SplitName,
    labels: Sequence[Label],
    settings: Evaluate,
    seed: int,
) -> Evaluation:
    """Return the counts, metrics and intervals of one system's answers to one split.

    Accuracy, precision and recall are proportions with Wilson intervals; the other metrics have percentile bootstrap
    intervals over questions. A question without an answer counts as not correct, and is left out of ``nll`` (nats),
    ``brier`` and ``ece``, whose ``n`` says how many were used.

    Raises:
        ValueError: there are no predictions, or one contradicts itself or the labels.
    """
    if not predictions:
        raise ValueError(f"evaluate {system}: no predictions; a metric of nothing is not 0")
    for prediction in predictions:
        _check(prediction, labels)
    counts = _counts(predictions)
    confusion = _confusion(predictions, labels)
    f1s, macro_f1 = _f1_scores(predictions, labels, settings=settings, seed=derive_seed(seed, "bootstrap", "f1"))
    accuracy = wilson(counts[Outcome.CORRECT], len(predictions), level=settings.level)
    calibration, reliability = _calibration(predictions, labels, settings=settings, seed=seed)
    return Evaluation(
        system=system,
        split=split,
        labels=tuple(labels),
        predictions=tuple(predictions),
        counts=counts,
        metrics={"accuracy": accuracy, "macro_f1": macro_f1, **calibration},
        per_class=_per_class(confusion, labels, f1s, level=settings.level),
        confusion=confusion,
        reliability=reliability,
    )


def _check(prediction: Prediction, labels: Sequence[Label]) -> None:
    """Refuse what would be counted twice, nowhere, or as a number that isn't one."""
    name = f"prediction {prediction.example_id}"
    if prediction.gold not in labels:
        raise ValueError(f"{name}: gold {prediction.gold!r} is not one of {', '.join(labels)}")
    match prediction.outcome:
        case Outcome.CORRECT:
            agrees = prediction.choice == prediction.gold
        case Outcome.WRONG:
            agrees = prediction.choice in labels and prediction.choice != prediction.gold
        case Outcome.UNPARSED | Outcome.FAILED:
            agrees = prediction.choice is None
    if not agrees:
        raise ValueError(
            f"{name}: outcome {prediction.outcome}, but choice {prediction.choice!r} and gold {prediction.gold!r}"
        )
    if prediction.outcome in _ANSWERED and prediction.scores_nats is not None:
        _check_scores(name, prediction.scores_nats, labels)


def _check_scores(name: str, scores_nats: Mapping[Label, float], labels: Sequence[Label]) -> None:
    for label in labels:
        if label not in scores_nats:
            raise ValueError(f"{name}: no score for label {label!r}")
        if not isfinite(scores_nats[label]):
            raise ValueError(f"{name}: the score of label {label!r} is {scores_nats[label]}; such an answer is failed")


def _counts(predictions: Sequence[Prediction]) -> dict[Outcome, int]:
    found = Counter(prediction.outcome for prediction in predictions)
    counts = {outcome: found[outcome] for outcome in Outcome}
    assert sum(counts.values()) == len(predictions), f"{counts} do not add up to {len(predictions)}"
    return counts


def _confusion(predictions: Sequence[Prediction], labels: Sequence[Label]) -> tuple[tuple[int, ...], ...]:
    pairs = Counter((prediction.gold, prediction.choice) for prediction in predictions)
    confusion = tuple(tuple(pairs[gold, choice] for choice in (*labels, None)) for gold in labels)
    assert sum(map(sum, confusion)) == len(predictions), f"{confusion} does not add up to {len(predictions)}"
    return confusion


def _f1_scores(
    predictions: Sequence[Prediction], labels: Sequence[Label], *, settings: Evaluate, seed: int
) -> tuple[tuple[Estimate, ...], Estimate]:
    """Return each label's F1, and their mean; a label that neither occurs nor is chosen has F1 0, like in sklearn."""
    import numpy as np

    place = {label: k for k, label in enumerate(labels)}
    num_labels = len(labels)
    gold_N = np.array([place[prediction.gold] for prediction in predictions])
    chosen_N = np.array([-1 if prediction.choice is None else place[prediction.choice] for prediction in predictions])
    gold_NK = gold_N[:, None] == np.arange(num_labels)
    chosen_NK = chosen_N[:, None] == np.arange(num_labels)

    def f1_and_mean(sums_BF: "Floats") -> "Floats":
        hits_BK, marked_BK = sums_BF[:, :num_labels], sums_BF[:, num_labels:]
        f1_BK = np.divide(2 * hits_BK, marked_BK, out=np.zeros_like(hits_BK), where=marked_BK > 0)
        return np.concatenate([f1_BK, f1_BK.mean(axis=1, keepdims=True)], axis=1)

    hits_NK = (gold_NK & chosen_NK).astype(np.float64)
    marked_NK = gold_NK.astype(np.float64) + chosen_NK
    *f1s, macro_f1 = bootstrap(
        np.concatenate([hits_NK, marked_NK], axis=1),
        f1_and_mean,
        samples=settings.bootstrap_samples,
        level=settings.level,
        seed=seed,
    )
    return tuple(f1s), macro_f1


def _per_class(
    confusion: Sequence[Sequence[int]], labels: Sequence[Label], f1s: Sequence[Estimate], *, level: float
) -> tuple[ClassScores, ...]:
    chosen = [sum(row[k] for row in confusion) for k in range(len(labels))]
    support = [sum(row) for row in confusion]
    return tuple(
        ClassScores(
            label=label,
            support=support[k],
            precision=wilson(confusion[k][k], chosen[k], level=level) if chosen[k] else unknown_share(level),
            recall=wilson(confusion[k][k], support[k], level=level) if support[k] else unknown_share(level),
            f1=f1s[k] if chosen[k] or support[k] else unknown_share(level),
        )
        for k, label in enumerate(labels)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answers:
    """The answered questions of a system that gives scores."""

    gold_N: "NDArray[np.intp]"
    probabilities_NK: "Floats"
    """Over the labels alone: they add up to 1."""
    confidence_N: "Floats"
    """The chosen label's probability."""
    correct_N: "NDArray[np.bool_]"
    nll_N: "Floats"
    """Minus the log of the gold label's probability."""


def _answers(predictions: Sequence[Prediction], labels: Sequence[Label]) -> _Answers | None:
    """Return the answered questions as arrays; None where there are none, or where one is a bare label."""
    import numpy as np

    place = {label: k for k, label in enumerate(labels)}
    rows, gold, chosen = [], [], []
    for prediction in predictions:
        if prediction.choice is None:
            continue
        if prediction.scores_nats is None:
            return None
        rows.append([prediction.scores_nats[label] for label in labels])
        gold.append(place[prediction.gold])
        chosen.append(place[prediction.choice])
    if not rows:
        return None
    scores_NK = np.array(rows, dtype=np.float64)
    below_top_NK = scores_NK - scores_NK.max(axis=1, keepdims=True)
    odds_NK = np.exp(below_top_NK)
    probabilities_NK = odds_NK / odds_NK.sum(axis=1, keepdims=True)
    everyone_N = np.arange(len(rows))
    gold_N, chosen_N = np.array(gold), np.array(chosen)
    return _Answers(
        gold_N=gold_N,
        probabilities_NK=probabilities_NK,
        confidence_N=probabilities_NK[everyone_N, chosen_N],
        correct_N=gold_N == chosen_N,
        # Not the log of the probability, which underflows to 0 for an answer that is far from the top.
        nll_N=np.log(odds_NK.sum(axis=1)) - below_top_NK[everyone_N, gold_N],
    )


def _calibration(
    predictions: Sequence[Prediction], labels: Sequence[Label], *, settings: Evaluate, seed: int
) -> tuple[dict[str, Estimate], tuple[ReliabilityBin, ...]]:
    """Return what the scores are worth; nothing where there are no scores."""
    answers = _answers(predictions, labels)
    if answers is None:
        return {}, ()
    metrics = _score_metrics(answers, settings=settings, seed=derive_seed(seed, "bootstrap", "scores"))
    return metrics, _reliability(answers, num_bins=settings.reliability_bins)


def _score_metrics(answers: _Answers, *, settings: Evaluate, seed: int) -> dict[str, Estimate]:
    import numpy as np

    num_items, num_labels = answers.probabilities_NK.shape
    wanted_NK = answers.gold_N[:, None] == np.arange(num_labels)
    brier_N = ((answers.probabilities_NK - wanted_NK) ** 2).sum(axis=1)
    bin_NR = _bin_of(answers.confidence_N, settings.reliability_bins)[:, None] == np.arange(settings.reliability_bins)
    gap_NR = bin_NR * (answers.correct_N - answers.confidence_N)[:, None]

    def means_and_ece(sums_BF: "Floats") -> "Floats":
        means_BF = sums_BF / num_items
        return np.concatenate([means_BF[:, :2], np.abs(means_BF[:, 2:]).sum(axis=1, keepdims=True)], axis=1)

    nll, brier, ece = bootstrap(
        np.concatenate([answers.nll_N[:, None], brier_N[:, None], gap_NR], axis=1),
        means_and_ece,
        samples=settings.bootstrap_samples,
        level=settings.level,
        seed=seed,
    )
    return {"nll": nll, "brier": brier, "ece": ece}


def _bin_of(confidence_N: "Floats", num_bins: int) -> "NDArray[np.intp]":
    """Return which of the equal bins (low, high] of (0, 1] each confidence lies in."""
    import numpy as np

    edges = np.arange(1, num_bins) / num_bins
    return np.searchsorted(edges, confidence_N, side="left")


def _reliability(answers: _Answers, *, num_bins: int) -> tuple[ReliabilityBin, ...]:
    bin_N = _bin_of(answers.confidence_N, num_bins)
    bins = []
    for number in range(num_bins):
        inside_N = bin_N == number
        n = int(inside_N.sum())
        bins.append(
            ReliabilityBin(
                low=number / num_bins,
                high=(number + 1) / num_bins,
                n=n,
                mean_confidence=float(answers.confidence_N[inside_N].mean()) if n else 0.0,
                accuracy=float(answers.correct_N[inside_N].mean()) if n else 0.0,
            )
        )
    assert sum(bin.n for bin in bins) == len(bin_N), "a confidence lies in no bin"
    return tuple(bins)
