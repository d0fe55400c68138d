"""Finding examples that ask the same thing twice, in the same characters or nearly so, in any script."""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from drllama.text import shingles
from drllama.types import Example

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class DuplicatePair:
    """Two examples that are the same, or nearly the same."""

    first: Example
    """The one that came earlier."""
    second: Example
    similarity: float
    """Jaccard similarity of the two sets of character 5-grams; 1 for exact duplicates."""
    kind: Literal["exact", "near"]
    """``exact``: the same id, whatever letter case and white space."""

    @property
    def same_document(self) -> bool:
        """Return whether both come from one document; two questions on a long text are near by nature."""
        return self.first.group == self.second.group


def find_duplicates(examples: Sequence[Example], *, threshold: float = 0.8) -> tuple[DuplicatePair, ...]:
    """Return all exact and near duplicates among the examples, within splits and across them.

    Of several exact copies the first in each split stands for its split: later copies there pair with it, the
    representatives pair with each other, and near duplicates are looked for among the representatives alone. So n
    copies give about n pairs, not n².
    """
    assert 0 < threshold <= 1, threshold
    exact: list[DuplicatePair] = []
    distinct: dict[str, list[Example]] = {}
    for example in examples:
        copies = distinct.setdefault(example.id, [])
        within = [copy for copy in copies if copy.split == example.split]
        exact += [DuplicatePair(first=copy, second=example, similarity=1.0, kind="exact") for copy in within or copies]
        if not within:
            copies.append(example)
    families = list(distinct.values())
    near = [
        DuplicatePair(first=one, second=other, similarity=similarity, kind="near")
        for first, second, similarity in _near_pairs([_text(family[0]) for family in families], threshold)
        for one in families[first]
        for other in families[second]
    ]
    return (*exact, *near)


def _text(example: Example) -> str:
    return "\n".join((example.question, example.context, *example.options))


def _near_pairs(texts: Sequence[str], threshold: float) -> Iterator[tuple[int, int, float]]:
    """Yield (i, j, similarity), i < j, of all pairs of texts at or over the threshold; none is missed."""
    import numpy as np

    if not texts:
        return
    ranked, num_alone = _ranked_shingles(texts)
    # Two sets that share a threshold's part of the larger one share at least one of the rarest members of each: as
    # many as may be left out, and one more. So only texts that meet in a rare shingle are compared at all.
    met: defaultdict[int, list[int]] = defaultdict(list)
    for second, ranks in enumerate(ranked):
        size = len(ranks)
        rarest = ranks[: size - math.ceil(threshold * size - 1e-9) + 1]
        rarest_met = rarest[rarest >= num_alone].tolist()
        for first in sorted({candidate for rank in rarest_met for candidate in met[rank]}):
            smaller, larger = sorted((size, len(ranked[first])))
            if smaller < threshold * larger:
                continue
            shared = len(np.intersect1d(ranks, ranked[first], assume_unique=True))
            similarity = shared / (smaller + larger - shared)
            if similarity >= threshold:
                yield first, second, similarity
        for rank in rarest_met:
            met[rank].append(second)


def _ranked_shingles(texts: Sequence[str]) -> "tuple[list[NDArray[np.int64]], int]":
    """Return each text's set of shingles as ascending ranks, and how many ranks stand in one text alone.

    Rank 0 is the shingle that the fewest texts have.
    """
    import numpy as np

    numbers: dict[str, int] = {}
    sets = [np.array([numbers.setdefault(one, len(numbers)) for one in shingles(text)]) for text in texts]
    num_texts = np.bincount(np.concatenate(sets))
    ranks = np.empty(len(num_texts), dtype=np.int64)
    ranks[np.argsort(num_texts, kind="stable")] = np.arange(len(num_texts))
    return [np.sort(ranks[members]) for members in sets], int((num_texts == 1).sum())
