"""The ledger of a run: one row for each item that a teacher was asked for, and what became of it."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from drllama.types.filtering import Evidence, Judgement, Votes
from drllama.types.questions import Label
from drllama.types.reviewing import Decision, Texts

Method: TypeAlias = Literal["rewrite", "new"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """Which request an item came from, or should have."""

    method: Method
    parents: tuple[str, ...]
    """Ids of the training examples that it was to be made from."""
    call: str
    """Key of the request."""
    prompt: str
    """The template's version."""
    rollout: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Drop:
    """Who dropped a row, and why."""

    by: str
    """The filter's name."""
    reason: str
    evidence: Evidence


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateRow:
    """An item that could be read, and what became of it."""

    kind: Literal["candidate"] = "candidate"
    id: str
    asking: Asking
    place: int
    """Which of the reply's items it is, from 0."""
    question: str
    context: str
    options: tuple[str, ...]
    label: Label
    long_answer: str | None
    group: str
    """The document that its parent was made from."""
    dropped: Drop | None
    """None: it is kept."""
    votes: Votes | None
    """None: it wasn't voted on."""
    judgement: Judgement | None
    """None: it wasn't judged, or not readably."""
    arms: tuple[str, ...]
    """Ids of the arms that train on it, whatever their dose."""
    review: Decision | None = None
    """What a person decided, where this run respected it."""
    written: Texts | None = None
    """What the teacher wrote, where a person's edit stands in its place."""

    @property
    def teachers_texts(self) -> Texts:
        """Return what the teacher wrote, edited or not."""
        if self.written is not None:
            return self.written
        return Texts(question=self.question, context=self.context, label=self.label, long_answer=self.long_answer)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnparsedRow:
    """A reply, or an item of one, that couldn't be read."""

    kind: Literal["unparsed"] = "unparsed"
    id: str
    asking: Asking
    text: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedRow:
    """A request without a reply."""

    kind: Literal["failed"] = "failed"
    id: str
    asking: Asking
    failure: str
    """A value of ``FailureKind``."""
    message: str


LedgerRow: TypeAlias = CandidateRow | UnparsedRow | FailedRow
