"""What a source holds: counts, balance, lengths, and what stands in it twice."""

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement

from drllama.filters.duplicates import DuplicatePair, find_duplicates
from drllama.types import Example, Label, SplitName, Splits, Task

_SPLIT_NAMES: tuple[SplitName, ...] = ("train", "dev", "test")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """How long some texts are, in characters: words mean nothing in scripts that don't part them."""

    shortest: int
    median: float
    p95: int
    """95 of 100 texts are at most so long."""
    longest: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitDescription:
    """One split, counted."""

    split: SplitName
    num_examples: int
    num_groups: int
    """Documents that the examples were made from."""
    label_counts: Mapping[Label, int]
    """One entry for each label of the task, in its order; 0 where nobody chose it."""
    num_unlabelled: int
    """With ``label_counts`` it adds up to ``num_examples``."""
    question_lengths: Lengths | None
    """None when the split is empty."""
    context_lengths: Lengths | None
    """None when the split is empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DuplicateCount:
    """Pairs of duplicates with one example in each of two splits, or both in one."""

    first: SplitName
    second: SplitName
    """The same as ``first``: pairs within one split."""
    exact: int
    near: int
    near_same_document: int
    """Those of ``near`` that come from one document: by nature, when it has several questions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contradiction:
    """The same question with different gold labels; the first example of each label."""

    examples: tuple[Example, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceDescription:
    """A source, counted."""

    task: Task
    splits: tuple[SplitDescription, ...]
    """train, dev, test."""
    duplicates: tuple[DuplicateCount, ...]
    """All six pairs of splits, each split with itself included."""
    pairs: tuple[DuplicatePair, ...]
    """The duplicates behind the counts."""
    contradictions: tuple[Contradiction, ...]


def describe(splits: Splits, task: Task) -> SourceDescription:
    """Return what the splits hold; nothing is left out or changed."""
    everything = [example for name in _SPLIT_NAMES for example in splits.named(name)]
    pairs = find_duplicates(everything)
    return SourceDescription(
        task=task,
        splits=tuple(_describe_split(name, splits.named(name), task) for name in _SPLIT_NAMES),
        duplicates=tuple(
            _count(pairs, first, second) for first, second in combinations_with_replacement(_SPLIT_NAMES, 2)
        ),
        pairs=pairs,
        contradictions=_contradictions(everything),
    )


def _describe_split(name: SplitName, examples: Sequence[Example], task: Task) -> SplitDescription:
    found = Counter(example.label for example in examples)
    counts = {label: found[label] for label in task.labels}
    assert sum(counts.values()) + found[None] == len(examples), (
        f"{name}: labels outside the task: {sorted(map(str, found))}"
    )
    return SplitDescription(
        split=name,
        num_examples=len(examples),
        num_groups=len({example.group for example in examples}),
        label_counts=counts,
        num_unlabelled=found[None],
        question_lengths=_lengths([example.question for example in examples]),
        context_lengths=_lengths([example.context for example in examples]),
    )


def _lengths(texts: Sequence[str]) -> Lengths | None:
    if not texts:
        return None
    lengths = sorted(map(len, texts))
    return Lengths(
        shortest=lengths[0],
        median=statistics.median(lengths),
        p95=lengths[math.ceil(len(lengths) * 95 / 100) - 1],
        longest=lengths[-1],
    )


def _count(pairs: Sequence[DuplicatePair], first: SplitName, second: SplitName) -> DuplicateCount:
    here = [pair for pair in pairs if {pair.first.split, pair.second.split} == {first, second}]
    near = [pair for pair in here if pair.kind == "near"]
    return DuplicateCount(
        first=first,
        second=second,
        exact=len(here) - len(near),
        near=len(near),
        near_same_document=sum(pair.same_document for pair in near),
    )


def _contradictions(examples: Sequence[Example]) -> tuple[Contradiction, ...]:
    by_label: dict[str, dict[Label, Example]] = {}
    for example in examples:
        if example.label is not None:
            by_label.setdefault(example.id, {}).setdefault(example.label, example)
    return tuple(Contradiction(examples=tuple(found.values())) for found in by_label.values() if len(found) > 1)
