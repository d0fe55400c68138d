"""What is told of all the rows that a teacher was asked for: how many got how far, why not, and how varied they are."""

from collections.abc import Mapping
from dataclasses import dataclass

from drllama.types.questions import Label


@dataclass(frozen=True, slots=True, kw_only=True)
class FunnelStep:
    """How many rows got so far."""

    name: str
    """``asked``, ``parsed``, what passing each filter means, ``kept``."""
    counts: Mapping[str, int]
    """By method."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DropCount:
    """How many rows one filter dropped for one reason."""

    by: str
    """The filter's name; ``unparsed`` and ``failed`` for what never was a row."""
    reason: str
    counts: Mapping[str, int]
    """By method."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Diversity:
    """How varied some rows are; groups of different size are compared at the same number of rows."""

    rows: str
    """Whose: ``real``, ``written``, ``kept``."""
    num_rows: int
    num_compared: int
    """Rows behind the next three numbers, drawn by hash: these numbers depend on how many rows there are."""
    distinct_1: float
    """Different words as a share of all words of the questions."""
    distinct_2: float
    """The same of pairs of words."""
    self_similarity: float
    """Mean similarity of a question to the one most like it: Jaccard of character 5-grams."""
    label_shares: Mapping[Label, float]
    question_columns: tuple[float, float, float]
    """Quartiles of the questions' lengths; letters as wide as Chinese ones count two."""
