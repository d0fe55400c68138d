"""Arms' answers as arrays, their metrics, and how much each item moves them.

Letters in names of arrays: N items, K labels, A arms, S seeds, M metrics, B resamplings, F columns that are summed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from drllama.types import ArmAnswers, Label, Prediction

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from drllama.stats.intervals import Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """What all arms of an experiment answered, with every seed, to the same items."""

    arms: tuple[str, ...]
    seeds: tuple[int, ...]
    labels: tuple[Label, ...]
    gold_N: "NDArray[np.intp]"
    chosen_ASN: "NDArray[np.intp]"
    """-1: no label."""

    @property
    def metrics(self) -> tuple[str, ...]:
        """Return the metrics' names; a label that is nobody's gold label has none of its own."""
        there = [self.labels[k] for k in sorted(set(self.gold_N.tolist()))]
        return ("accuracy", "macro_f1", *(f"f1:{label}" for label in there), *(f"recall:{label}" for label in there))


def tally(answers: Sequence[ArmAnswers], labels: Sequence[Label]) -> Tally:
    """Return all arms' answers as arrays.

    Raises:
        ValueError: there is nothing to count, two arms have one name, seeds differ between arms, or questions between
            any two answers.
    """
    import numpy as np

    if not answers or not answers[0].answers or not answers[0].answers[0]:
        raise ValueError("arms: no answers; a mean of nothing is not 0")
    if len({one.arm for one in answers}) < len(answers):
        raise ValueError(f"arms: two have one name in {', '.join(one.arm for one in answers)}")
    seeds, asked = answers[0].seeds, _questions(answers[0].answers[0])
    for one in answers:
        if one.seeds != seeds or len(one.answers) != len(seeds):
            raise ValueError(f"arm {one.arm} has seeds {one.seeds}, not {seeds}: they can't be paired")
        for seed, given in zip(seeds, one.answers, strict=True):
            if _questions(given) != asked:
                raise ValueError(f"arm {one.arm}, seed {seed} answered different questions: they can't be paired")
    place: dict[Label | None, int] = {None: -1, **{label: k for k, label in enumerate(labels)}}
    chosen = [[[place[prediction.choice] for prediction in given] for given in one.answers] for one in answers]
    return Tally(
        arms=tuple(one.arm for one in answers),
        seeds=seeds,
        labels=tuple(labels),
        gold_N=np.array([place[gold] for _, _, gold in asked]),
        chosen_ASN=np.array(chosen),
    )


def _questions(given: Sequence[Prediction]) -> list[tuple[str, str, Label]]:
    return [(one.example_id, one.source_id, one.gold) for one in given]


def columns(tallied: Tally) -> "Floats":
    """Return [N, F] what is summed over items: gold by label, then hits and choices by arm, seed and label."""
    import numpy as np

    num_items, num_labels = len(tallied.gold_N), len(tallied.labels)
    gold_NK = tallied.gold_N[:, None] == np.arange(num_labels)
    chosen_NASK = np.moveaxis(tallied.chosen_ASN, 2, 0)[..., None] == np.arange(num_labels)
    hits_NASK = chosen_NASK & gold_NK[:, None, None, :]
    found_NF = np.concatenate([hits_NASK, chosen_NASK], axis=3).reshape(num_items, -1)
    return np.concatenate([gold_NK, found_NF], axis=1).astype(np.float64)


def metrics_of_sums(sums_BF: "Floats", tallied: Tally) -> "Floats":
    """Return the metrics [B, A, S, M] of sums of the columns; nothing of nothing is 0, like in sklearn."""
    import numpy as np

    num_labels = len(tallied.labels)
    gold_BK = sums_BF[:, :num_labels]
    shape = (len(sums_BF), len(tallied.arms), len(tallied.seeds), 2 * num_labels)
    found_BASF = sums_BF[:, num_labels:].reshape(shape)
    hits_BASK, chosen_BASK = found_BASF[..., :num_labels], found_BASF[..., num_labels:]
    accuracy_BAS = hits_BASK.sum(axis=3) / len(tallied.gold_N)
    f1_BASK = _share(2 * hits_BASK, chosen_BASK + gold_BK[:, None, None, :])
    recall_BASK = _share(hits_BASK, np.broadcast_to(gold_BK[:, None, None, :], hits_BASK.shape))
    there = np.unique(tallied.gold_N)
    means = [accuracy_BAS[..., None], f1_BASK.mean(axis=3)[..., None]]
    return np.concatenate([*means, f1_BASK[..., there], recall_BASK[..., there]], axis=3)


def influences(tallied: Tally) -> "tuple[Floats, Floats]":
    """Return each item's influence on each metric [A, S, N, M], and the mean square of one more right answer's [A, M].

    A metric's influences add up to 0; their mean square over N is the metric's variance: an accuracy is a mean, and the
    other metrics are treated as the mean that they are closest to (the delta method, or infinitesimal jackknife).
    """
    import numpy as np

    num_items, num_labels = len(tallied.gold_N), len(tallied.labels)
    gold_NK = (tallied.gold_N[:, None] == np.arange(num_labels)).astype(np.float64)
    chosen_ASNK = (tallied.chosen_ASN[..., None] == np.arange(num_labels)).astype(np.float64)
    hits_ASNK = chosen_ASNK * gold_NK
    correct_ASN = hits_ASNK.sum(axis=3)
    accuracy_ASN = correct_ASN - correct_ASN.mean(axis=2, keepdims=True)
    marked_ASNK = chosen_ASNK + gold_NK
    marks_AS1K = marked_ASNK.sum(axis=2, keepdims=True)
    f1_AS1K = _share(2 * hits_ASNK.sum(axis=2, keepdims=True), marks_AS1K)
    per_mark_AS1K = _share(np.full_like(marks_AS1K, num_items), marks_AS1K)
    f1_ASNK = per_mark_AS1K * (2 * hits_ASNK - f1_AS1K * marked_ASNK)
    there = np.unique(tallied.gold_N)
    golds_K = gold_NK.sum(axis=0)[there]
    recall_AS1K = hits_ASNK[..., there].sum(axis=2, keepdims=True) / golds_K
    recall_ASNK = num_items / golds_K * (hits_ASNK[..., there] - recall_AS1K * gold_NK[:, there])
    every = [accuracy_ASN[..., None], f1_ASNK.mean(axis=3)[..., None], f1_ASNK[..., there], recall_ASNK]
    shares_K = gold_NK.mean(axis=0)
    f1_AK = shares_K * (2 * per_mark_AS1K[:, :, 0].mean(axis=1)) ** 2
    ones = np.ones((len(tallied.arms), 1))
    squares = [ones, f1_AK.sum(axis=1, keepdims=True) / num_labels**2, f1_AK[:, there], ones / shares_K[there]]
    return np.concatenate(every, axis=3), np.concatenate(squares, axis=1)


def _share(part: "Floats", whole: "Floats") -> "Floats":
    import numpy as np

    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
