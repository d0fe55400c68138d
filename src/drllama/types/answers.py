"""Answers, and what counting them gives."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from drllama.types.questions import Label, SplitName


class Outcome(StrEnum):
    """What became of one question; the four counts add up to the number asked."""

    CORRECT = "correct"
    WRONG = "wrong"
    UNPARSED = "unparsed"
    """An answer came but names no label."""
    FAILED = "failed"
    """No answer came: the question doesn't fit the student, or its scores aren't numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """One answer to one question."""

    example_id: str
    source_id: str
    gold: Label
    choice: Label | None
    """None when the outcome is ``unparsed`` or ``failed``."""
    outcome: Outcome
    scores_nats: Mapping[Label, float] | None
    """Log-probability of each label's verbalizer at the answer position; None when the answer is a bare label."""
    num_tokens: int
    """Length of the student's input; 0 when nothing was read."""
    truncated_tokens: int
    """Tokens of the context that were cut off so that the input fits."""
    note: str = ""
    """Why the outcome is ``unparsed`` or ``failed``."""


class Reader(StrEnum):
    """How a label is found in what a student wrote."""

    FIRST_WORD = "first word"
    """The paper's earlier notebook: "yes" or "no" somewhere in the first word, else "maybe"."""
    HUNDRED_WORDS = "100 words"
    """The paper's last notebook: the first of 100 words that holds "yes" or "no", else "maybe"."""
    STRICT = "strict"
    """The label that is the answer, and none where it isn't clear."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Writing:
    """What a student wrote as its answer to one question."""

    example_id: str
    source_id: str
    text: str | None
    """At most its first line and 100 words; None: it wrote nothing."""
    num_tokens: int
    """Length of the student's input; 0 when nothing was read."""
    truncated_tokens: int
    """Tokens of the context that were cut off so that the input fits."""
    note: str = ""
    """Why it wrote nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A number with its interval."""

    value: float
    low: float
    high: float
    n: int
    """Observations behind it."""
    level: float
    """Coverage of the interval, 0.95 for 95 %."""
    method: str
    """How the interval was made: ``wilson``; ``bootstrap`` over items; ``hierarchical bootstrap`` over items and seeds;
    of a difference by errors of ``items``, or of ``items and seeds``."""

    def __str__(self) -> str:
        """Return value, interval, number of observations and method."""
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}] (n={self.n}, {self.method} {self.level:.0%})"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassScores:
    """How one label was found."""

    label: Label
    support: int
    """Gold examples with this label."""
    precision: Estimate
    recall: Estimate
    f1: Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class ReliabilityBin:
    """Predictions whose confidence lies in (low, high], and how many of them were right."""

    low: float
    high: float
    n: int
    mean_confidence: float
    """0 when the bin is empty."""
    accuracy: float
    """0 when the bin is empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """One system's answers to one split, counted."""

    system: str
    """``majority``, ``prior``, ``untrained`` or ``fine-tuned``."""
    split: SplitName
    labels: tuple[Label, ...]
    predictions: tuple[Prediction, ...]
    counts: Mapping[Outcome, int]
    """All four outcomes; they add up to the number of predictions."""
    metrics: Mapping[str, Estimate]
    """``accuracy`` and ``macro_f1`` always; ``nll`` (nats), ``brier`` and ``ece`` where every answered
    question has scores."""
    per_class: tuple[ClassScores, ...]
    confusion: tuple[tuple[int, ...], ...]
    """Rows: gold labels; columns: chosen labels, then "no answer"."""
    reliability: tuple[ReliabilityBin, ...]
    """Empty where there are no scores."""
