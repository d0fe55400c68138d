"""What becomes of candidates: kept, or dropped with who dropped them, why, and the evidence."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, TypeAlias

from drllama.types.questions import Label, SplitName
from drllama.types.reviewing import Decision
from drllama.types.teaching import Candidate


class FilterName(StrEnum):
    """The filters, each named like its section of a recipe."""

    FORM = "form"
    DUPLICATES = "duplicates"
    LEAKS = "leaks"
    LABEL = "label"
    JUDGE = "judge"
    BALANCE = "balance"


How: TypeAlias = Literal["document", "exact", "near", "edited", "n-gram", "semantic"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbour:
    """A row that is too like the candidate."""

    source_id: str
    split: SplitName
    """``train`` for real training rows and for other candidates."""
    question: str
    similarity: float
    """0 to 1; of ``how``."""
    how: How
    """``exact``: the same but for letter case and white space; ``document``: made from one document; ``near``: Jaccard
    of character n-grams; ``edited``: a few words differ, Jaccard of words; ``n-gram``: the share
    of its runs of words that stand there too; ``semantic``: cosine
    of encoded questions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Votes:
    """Blind answers to one candidate's question, from its context."""

    counts: Mapping[Label, int]
    """By label; 0 where nobody chose it."""
    num_unparsed: int
    num_failed: int

    def agreement(self, label: Label) -> float:
        """Return the share of all answers, silent ones too, that chose this label; 0 without answers."""
        return self.counts.get(label, 0) / self.num_asked if self.num_asked else 0.0

    @property
    def num_asked(self) -> int:
        """Return how many answers were asked for."""
        return sum(self.counts.values()) + self.num_unparsed + self.num_failed


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A number that lies beyond a limit."""

    value: float
    limit: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Quoted:
    """The words that gave it away."""

    text: str
    measured: Measured | None = None
    """What was measured of them; None: nothing, that they stand there is enough."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What a grounded judge says of a candidate, from the source's context."""

    supported: bool
    """The context supports the candidate's answer."""
    label: Label
    """The answer that the judge would give."""
    reason: str
    """Why, in the judge's words."""


Evidence: TypeAlias = Neighbour | Votes | Judgement | Measured | Quoted | Decision


@dataclass(frozen=True, slots=True, kw_only=True)
class Objection:
    """Why one filter would not keep a candidate."""

    reason: str
    """A few words without the candidate's own, so that equal reasons can be counted."""
    evidence: Evidence


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """A candidate that isn't kept; the first filter that objects drops it."""

    candidate: Candidate
    by: str
    """The filter's name."""
    reason: str
    evidence: Evidence


@dataclass(frozen=True, slots=True, kw_only=True)
class Filtered:
    """What became of all candidates: kept and dropped add up to those that were given."""

    kept: tuple[Candidate, ...]
    dropped: tuple[Dropped, ...]
    votes: Mapping[str, Votes]
    """By candidate id, of all that were voted on, dropped ones too."""
    judgements: Mapping[str, Judgement] = field(default_factory=dict)
    """By candidate id, of all that were judged readably."""
    unjudged: tuple[str, ...] = ()
    """Ids of candidates whose judge gave no readable verdict: neither a pass nor a fail of the judge."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfiltered:
    """What is kept where one filter stops nothing: what it stopped goes on to the filters behind it."""

    kept: tuple[Candidate, ...]
    votes: Mapping[str, Votes] = field(default_factory=dict)
    """By candidate id, of all that were voted on."""
    num_unanswered: int = 0
    """Rows that it stopped and a filter behind it stops for want of the teacher's reply."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookalike:
    """A row to train on that is like a dev or test row."""

    source_id: str
    question: str
    real: bool
    """Whether a person wrote it."""
    neighbour: Neighbour
    fatal: bool
    """Whether training on it would make the score worthless; a real row may look like another by nature."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeakCount:
    """How many rows to train on are like a row of one split, in one way."""

    how: How
    split: SplitName
    num_real: int
    num_synthetic: int
    num_fatal: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LeakAudit:
    """All rows that are trained on, held against all of dev and test."""

    num_real: int
    """Rows to train on that a person wrote, or a rule made from one."""
    num_synthetic: int
    num_dev: int
    num_test: int
    counts: tuple[LeakCount, ...]
    """One entry for each way and split, 0 where there is none."""
    nearest: tuple[Lookalike, ...]
    """The fatal ones first, then the most alike; not more than the audit was asked for."""
    num_clean: int
    """With those in ``counts`` it adds up to all rows."""

    @property
    def num_fatal(self) -> int:
        """Return how many rows must not be trained on."""
        return sum(count.num_fatal for count in self.counts)
