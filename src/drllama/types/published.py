"""Results that somebody else has published, to stand beside ours."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedRow:
    """One published result."""

    student: str
    method: str
    """As recipes call it, such as ``lora``."""
    setting: str
    """The setting that was varied, by its dotted path."""
    value: float | str
    arm: str
    """What it was trained on, as recipes call it."""
    teacher: str | None
    """None: it has no generated rows."""
    accuracy: float
    macro_f1: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """Published results and how they came about."""

    source: str
    """Who published them, and where."""
    split: str
    """Of the data, as recipes call it."""
    seeds: int
    """Behind each number."""
    note: str
    rows: tuple[PublishedRow, ...]
