"""Choosing the training questions that the teacher works on: where the student is wrong, or unsure."""

import math
from collections.abc import Mapping, Sequence

from drllama.ids import content_id
from drllama.recipe import Select
from drllama.types import Example, Outcome, Prediction


def folds_of(train: Sequence[Example], *, number: int) -> list[list[int]]:
    """Return the places of the examples in so many parts of like size; no document stands in two.

    The parts follow from the documents' names alone: the largest documents first, each into the smallest part.

    Raises:
        ValueError: there are fewer documents than parts.
    """
    documents: dict[str, list[int]] = {}
    for place, example in enumerate(train):
        documents.setdefault(example.group, []).append(place)
    if len(documents) < number:
        raise ValueError(f"{len(documents)} documents can't be cut into {number} parts")
    parts: list[list[int]] = [[] for _ in range(number)]
    for group in sorted(documents, key=lambda group: (-len(documents[group]), content_id("fold", group))):
        min(parts, key=len).extend(documents[group])
    return [sorted(part) for part in parts]


def chosen_examples(
    train: Sequence[Example], predictions: Sequence[Prediction], settings: Select
) -> tuple[Example, ...]:
    """Return the training examples that the teacher is to work on, in their order.

    ``predictions`` are the student's own, one for each example in the examples' order, by a student that wasn't
    trained on it. A question without an answer counts as wrong, and as the least sure of all.
    """
    assert len(train) == len(predictions), f"{len(predictions)} predictions for {len(train)} training examples"
    match settings.by:
        case "all":
            places = list(range(len(train)))
        case "errors":
            places = [at for at, one in enumerate(predictions) if one.outcome is not Outcome.CORRECT]
        case "uncertain":
            least_sure_first = sorted(range(len(train)), key=lambda at: (-_entropy(predictions[at]), train[at].id, at))
            places = sorted(least_sure_first[: math.ceil(settings.share * len(train))])
    return tuple(train[at] for at in places)


def _entropy(prediction: Prediction) -> float:
    """Return the entropy in nats of the answer's probabilities over the labels; infinite without an answer."""
    if prediction.scores_nats is None:
        return math.inf
    return entropy(prediction.scores_nats)


def entropy(scores_nats: Mapping[str, float]) -> float:
    """Return the entropy in nats of log-probabilities, made to add up to 1 over the labels.

    >>> round(entropy({"yes": -1.0, "no": -1.0}), 4)
    0.6931
    """
    top = max(scores_nats.values())
    odds = [math.exp(nats - top) for nats in scores_nats.values()]
    shares = [odd / sum(odds) for odd in odds]
    return -sum(share * math.log(share) for share in shares if share > 0)
