"""Finished cells as small files that can be committed: what one machine worked out, another takes as done.

FOLDER/ARM-seedN-FINGERPRINT.json    a cell; each answer has a line, with the scores that its metrics need
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from drllama.errors import StoreError
from drllama.files import write_whole
from drllama.types import Cell, Evaluation, Example, Label, Outcome, Prediction

FORMAT = 1
_ID_DIGITS = 8


@dataclass(frozen=True, slots=True)
class CellFolder:
    """A folder of finished cells."""

    root: Path

    def has(self, fingerprint: str) -> bool:
        """Return whether a cell with this fingerprint is there."""
        return self._path(fingerprint) is not None

    def find(
        self, fingerprint: str, asked: Sequence[Example], count: Callable[[Sequence[Prediction]], Evaluation]
    ) -> Cell | None:
        """Return the cell with this fingerprint, its answers counted anew, or None if it isn't there.

        Raises:
            StoreError: its file can't be read as one.
        """
        path = self._path(fingerprint)
        if path is None:
            return None
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
            number, labels, answers = told.pop("format"), told.pop("labels"), told.pop("answers")
            if number != FORMAT:
                raise StoreError(
                    f"{path}: has format {number}, this drllama reads {FORMAT}; use the other, or delete it"
                )
            if told["fingerprint"] != fingerprint or len(answers) != len(asked):
                raise ValueError("another cell's")
            evaluation = count([_prediction(*pair, labels) for pair in zip(asked, answers, strict=True)])
            return replace(_CELL.validate_python({**told, "evaluation": evaluation}), brought=True)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, ValidationError) as error:
            raise StoreError(
                f"{path}: can't be read as a finished cell; delete it, and it is worked out anew"
            ) from error

    def keep(self, cell: Cell) -> None:
        """Write a cell, whole or not at all."""
        labels = cell.evaluation.labels
        told = _CELL.dump_python(cell, mode="json", exclude={"evaluation", "brought"})
        head = json.dumps({"format": FORMAT, **told, "labels": labels}, indent=1, ensure_ascii=False).removesuffix(
            "\n}"
        )
        lines = ",\n".join(f"  {_line(one, labels)}" for one in cell.evaluation.predictions)
        path = self.root / f"{cell.arm}-seed{cell.seed}-{cell.fingerprint[:12]}.json"
        write_whole(path, f'{head},\n "answers": [\n{lines}\n ]\n}}\n')

    def _path(self, fingerprint: str) -> Path | None:
        # By fingerprint alone: two arms with the same rows are one cell, whatever it was called where it ran.
        return next(iter(sorted(self.root.glob(f"*-{fingerprint[:12]}.json"))), None)


def _line(answer: Prediction, labels: Sequence[Label]) -> str:
    scores = None if answer.scores_nats is None else [answer.scores_nats[label] for label in labels]
    sizes = [answer.num_tokens, answer.truncated_tokens]
    told = [answer.example_id[:_ID_DIGITS], answer.choice, scores, *sizes, *([answer.note] if answer.note else [])]
    return json.dumps(told, ensure_ascii=False)


def _prediction(example: Example, line: Sequence[object], labels: Sequence[Label]) -> Prediction:
    read = _ANSWER.validate_python(dict(zip(_FIELDS, line, strict=False)))
    if read.id != example.id[:_ID_DIGITS]:
        raise ValueError(f"an answer to {read.id} stands where {example.id} belongs")
    if read.choice is None:
        outcome = Outcome.FAILED
    else:
        outcome = Outcome.CORRECT if read.choice == example.label else Outcome.WRONG
    return Prediction(
        example_id=example.id,
        source_id=example.origin.source_id,
        gold=str(example.label),
        choice=read.choice,
        outcome=outcome,
        scores_nats=None if read.scores is None else dict(zip(labels, read.scores, strict=True)),
        num_tokens=read.num_tokens,
        truncated_tokens=read.truncated_tokens,
        note=read.note,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    """An answer's line: these values in this order, the note only where there is one."""

    id: str
    choice: Label | None
    scores: tuple[float, ...] | None
    """In nats, in the order of the labels."""
    num_tokens: int
    truncated_tokens: int
    note: str = ""


_FIELDS = ("id", "choice", "scores", "num_tokens", "truncated_tokens", "note")
_ANSWER: TypeAdapter[_Answer] = TypeAdapter(_Answer)
_CELL: TypeAdapter[Cell] = TypeAdapter(Cell)
