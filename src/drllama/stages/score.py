"""Asking a student a split's questions."""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace

from drllama.errors import OverlapError
from drllama.protocols import Progress, Student
from drllama.types import Example, Prediction

_DIGITS = 5
"""Of scores in nats: so many are written into a cell's file, and a run made from files is the same as one made here."""


def score(
    student: Student, examples: Sequence[Example], *, activity: str, progress: Progress
) -> tuple[Prediction, ...]:
    """Return one prediction for each example, in the examples' order."""
    waiting: dict[str, list[int]] = {}
    for place, example in enumerate(examples):
        waiting.setdefault(example.id, []).append(place)
    answers: list[Prediction | None] = [None] * len(examples)
    progress.work(activity)
    for prediction in student.score(examples):
        answers[waiting[prediction.example_id].pop(0)] = _rounded(prediction)
        progress.work(activity, 1)
    answered = tuple(answer for answer in answers if answer is not None)
    assert len(answered) == len(examples), f"{len(answered)} predictions for {len(examples)} examples"
    return answered


def refuse_seen(seen: AbstractSet[str], examples: Sequence[Example], *, where: str) -> None:
    """Refuse to score a student on examples that it was trained on.

    Raises:
        OverlapError: at least one of the examples was seen in training.
    """
    known = [example for example in examples if example.id in seen]
    if known:
        raise OverlapError(
            f"{where}: {len(known)} of {len(examples)} questions were in this adapter's training or dev data, the "
            f"first is {known[0].origin.source_id}; score it on others, or train on a split that leaves these out"
        )


def _rounded(prediction: Prediction) -> Prediction:
    if prediction.scores_nats is None:
        return prediction
    scores = {label: round(nats, _DIGITS) for label, nats in prediction.scores_nats.items()}
    return replace(prediction, scores_nats=scores)
