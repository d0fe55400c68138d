"""Asking a student a split's questions."""

from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import TypeVar

from drllama.errors import OverlapError
from drllama.protocols import Progress, Student
from drllama.types import Example, Prediction, Writing

Answer = TypeVar("Answer", Prediction, Writing)

_DIGITS = 5
"""Of scores in nats: so many are written into a cell's file, and a run made from files is the same as one made here."""


def score(
    student: Student, examples: Sequence[Example], *, activity: str, progress: Progress
) -> tuple[Prediction, ...]:
    """Return one prediction for each example, in the examples' order."""
    predictions = map(_rounded, student.score(examples))
    return in_order(predictions, examples, activity=activity, units=1, progress=progress)


def in_order(
    answers: Iterable[Answer], examples: Sequence[Example], *, activity: str, units: float, progress: Progress
) -> tuple[Answer, ...]:
    """Return the answers, one for each example, in the examples' order; each is so many units of work."""
    waiting: dict[str, list[int]] = {}
    for place, example in enumerate(examples):
        waiting.setdefault(example.id, []).append(place)
    placed: dict[int, Answer] = {}
    progress.work(activity)
    for answer in answers:
        placed[waiting[answer.example_id].pop(0)] = answer
        progress.work(activity, units)
    assert len(placed) == len(examples), f"{len(placed)} answers for {len(examples)} examples"
    return tuple(placed[place] for place in range(len(examples)))


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
