"""Letting a student write its answers, and reading them in more than one way."""

from collections.abc import Sequence

from drllama.parsing import read_written
from drllama.protocols import WRITING_COST, Progress, Student
from drllama.stages.score import in_order
from drllama.types import Example, Outcome, Prediction, Reader, Task, Unparsed, Writing


def write(student: Student, examples: Sequence[Example], *, activity: str, progress: Progress) -> tuple[Writing, ...]:
    """Return what the student writes to each example, in the examples' order."""
    return in_order(student.write(examples), examples, activity=activity, units=WRITING_COST, progress=progress)


def read_as(
    writings: Sequence[Writing], examples: Sequence[Example], reader: Reader, task: Task
) -> tuple[Prediction, ...]:
    """Return one prediction for each example: what a reader finds in what the student wrote to it."""
    return tuple(
        _prediction(writing, example, reader, task) for writing, example in zip(writings, examples, strict=True)
    )


def _prediction(writing: Writing, example: Example, reader: Reader, task: Task) -> Prediction:
    assert writing.example_id == example.id, f"{writing.example_id} answers no {example.id}"
    choice, outcome, note = None, Outcome.FAILED, writing.note
    found = None if writing.text is None else read_written(writing.text, task, reader)
    if isinstance(found, Unparsed):
        outcome, note = Outcome.UNPARSED, found.reason
    elif found is not None:
        choice, outcome = found, Outcome.CORRECT if found == example.label else Outcome.WRONG
    return Prediction(
        example_id=writing.example_id,
        source_id=writing.source_id,
        gold=str(example.label),
        choice=choice,
        outcome=outcome,
        scores_nats=None,
        num_tokens=writing.num_tokens,
        truncated_tokens=writing.truncated_tokens,
        note=note,
    )
