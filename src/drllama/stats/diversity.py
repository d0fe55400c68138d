"""How varied questions are: different words, pairs of words, and how like each other they are; in any script."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import quantiles

from drllama.ids import fingerprint
from drllama.text import num_columns, shingles, words
from drllama.types import Diversity, Example, Label

_MOST_COMPARED = 500


def diversity(groups: Mapping[str, Sequence[Example]], labels: Sequence[Label]) -> tuple[Diversity, ...]:
    """Return how varied each group that isn't empty is, at the size of the smallest, 500 rows at most."""
    there = {name: rows for name, rows in groups.items() if rows}
    size = min([_MOST_COMPARED, *map(len, there.values())])
    return tuple(_diversity(name, rows, labels, size) for name, rows in there.items())


def distinct(texts: Sequence[str], n: int) -> float:
    """Return the different n-grams of words as a share of all; letters where a script puts no spaces.

    >>> distinct(["Does it help?", "Does it harm?"], 1)
    0.6666666666666666
    """
    assert n in (1, 2), n
    said = [words(text) for text in texts]
    grams = [gram for one in said for gram in (one if n == 1 else pairwise(one))]
    return len(set(grams)) / len(grams) if grams else 0.0


def self_similarity(texts: Sequence[str]) -> float:
    """Return the mean similarity of a text to the one most like it: Jaccard of character 5-grams; 0 for one alone."""
    sets = [shingles(text) for text in texts]
    holders: defaultdict[str, list[int]] = defaultdict(list)
    for number, one in enumerate(sets):
        for shingle in one:
            holders[shingle].append(number)
    nearest = []
    for number, one in enumerate(sets):
        shared = Counter(other for shingle in one for other in holders[shingle])
        del shared[number]
        similar = (count / (len(one) + len(sets[other]) - count) for other, count in shared.items())
        nearest.append(max(similar, default=0.0))
    return sum(nearest) / len(nearest) if nearest else 0.0


def _diversity(name: str, rows: Sequence[Example], labels: Sequence[Label], size: int) -> Diversity:
    drawn = sorted(rows, key=lambda row: fingerprint([row.origin.source_id, row.question]))[:size]
    questions = [row.question for row in drawn]
    counts = Counter(row.label for row in rows)
    lengths = [float(num_columns(row.question)) for row in rows]
    low, middle, high = quantiles(lengths, n=4, method="inclusive") if len(lengths) > 1 else lengths * 3
    return Diversity(
        rows=name,
        num_rows=len(rows),
        num_compared=size,
        distinct_1=distinct(questions, 1),
        distinct_2=distinct(questions, 2),
        self_similarity=self_similarity(questions),
        label_shares={label: counts[label] / len(rows) for label in labels},
        question_columns=(low, middle, high),
    )
