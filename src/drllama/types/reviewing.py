"""What people decide about a teacher's rows."""

from dataclasses import dataclass
from enum import StrEnum

from drllama.ids import content_id
from drllama.types.questions import Example, Label


class Verdict(StrEnum):
    """What a person says of a candidate."""

    ACCEPT = "accept"
    """Train on it, whatever the filters say; a leak stays out all the same."""
    REJECT = "reject"
    """Don't train on it."""
    EDIT = "edit"
    """Train on it with other texts, whatever the filters say of those, a leak excepted."""
    UNDO = "undo"
    """Nothing: the last decision doesn't count any more, and the filters decide."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """What a person may change in a row."""

    question: str
    context: str
    label: Label
    long_answer: str | None

    @property
    def id(self) -> str:
        """Return the hash of all four, to the letter."""
        # A marker before the long answer: none and an empty one are told apart.
        return content_id(self.question, self.context, self.label, "" if self.long_answer is None else "=", self.said)

    @property
    def said(self) -> str:
        """Return the long answer, empty where there is none."""
        return self.long_answer or ""


def texts_of(example: Example) -> Texts:
    """Return what a person may change in an example."""
    return Texts(
        question=example.question,
        context=example.context,
        label=str(example.label),
        long_answer=example.long_answer,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruling:
    """What one person says of one candidate."""

    candidate_id: str
    written: str
    """``Texts.id`` of what the teacher wrote: a decision is never applied to texts that nobody saw."""
    verdict: Verdict
    reason: str
    """In the person's words; may be empty."""
    edited: Texts | None
    """The texts to train on; only of an edit."""
    reviewer: str

    def __post_init__(self) -> None:
        assert (self.verdict == Verdict.EDIT) == (self.edited is not None), self

    def says_the_same(self, other: "Ruling") -> bool:
        """Return whether another ruling comes to the same, whoever says it."""
        return self.content == other.content

    @property
    def content(self) -> tuple[object, ...]:
        """Return all but who said it."""
        return self.candidate_id, self.written, self.verdict, self.reason, self.edited


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """A ruling that is kept; a later one about the same candidate replaces it."""

    number: int
    """Its place among all decisions of a results folder, from 1."""
    ruling: Ruling
    at: str
    """UTC, ISO 8601."""
