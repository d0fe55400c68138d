"""What answers without reading the question: a student that isn't better than these has learnt nothing."""

from collections import Counter
from collections.abc import Mapping, Sequence
from math import log

from drllama.types import Example, Label, Outcome, Prediction


def majority_predictions(
    train: Sequence[Example], asked: Sequence[Example], labels: Sequence[Label]
) -> tuple[Prediction, ...]:
    """Return the most frequent training label as the answer to every question; ties go by the order of the labels.

    Raises:
        ValueError: there are no training examples, or an example has no label of these.
    """
    choice = _most_frequent(_label_counts(train, labels))
    return tuple(_prediction(example, labels, choice=choice, scores_nats=None) for example in asked)


def prior_predictions(
    train: Sequence[Example], asked: Sequence[Example], labels: Sequence[Label]
) -> tuple[Prediction, ...]:
    """Return the majority's answers, with the log of the training labels' shares (plus one each) as scores in nats.

    Raises:
        ValueError: there are no training examples, or an example has no label of these.
    """
    counts = _label_counts(train, labels)
    choice = _most_frequent(counts)
    total = len(train) + len(labels)
    scores_nats = {label: log((count + 1) / total) for label, count in counts.items()}
    return tuple(_prediction(example, labels, choice=choice, scores_nats=scores_nats) for example in asked)


def _label_counts(train: Sequence[Example], labels: Sequence[Label]) -> dict[Label, int]:
    if not train:
        raise ValueError("baselines: no training examples, so no label is the most frequent")
    found = Counter(_gold(example, labels) for example in train)
    return {label: found[label] for label in labels}


def _most_frequent(counts: Mapping[Label, int]) -> Label:
    return max(counts, key=lambda label: counts[label])  # the first of equals: the order of the labels


def _gold(example: Example, labels: Sequence[Label]) -> Label:
    if example.label is None or example.label not in labels:
        raise ValueError(f"baselines: example {example.id} has label {example.label!r}, not one of {', '.join(labels)}")
    return example.label


def _prediction(
    example: Example, labels: Sequence[Label], *, choice: Label, scores_nats: Mapping[Label, float] | None
) -> Prediction:
    gold = _gold(example, labels)
    return Prediction(
        example_id=example.id,
        source_id=example.origin.source_id,
        gold=gold,
        choice=choice,
        outcome=Outcome.CORRECT if choice == gold else Outcome.WRONG,
        scores_nats=scores_nats,
        num_tokens=0,
        truncated_tokens=0,
    )
