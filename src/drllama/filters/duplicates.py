"""Finding examples that ask the same thing twice, in the same characters or nearly so, in any script."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from drllama.filters.encoders import minilm, pairs_alike
from drllama.filters.features import normalise_all, part_bags, shingle_bags
from drllama.filters.limits import Limits, Near, Semantic
from drllama.filters.meetings import alike_within, first_met, meet
from drllama.filters.rarity import MakeBags, count, rank_all
from drllama.filters.similarity import Pairs
from drllama.recipe import Duplicates
from drllama.text import normalise
from drllama.types import Candidate, Example, Neighbour, Objection, Synthetic

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_How: TypeAlias = Literal["exact", "near", "semantic"]
_SAME: Mapping[_How, str] = {
    "exact": "the same question as",
    "near": "nearly the same question as",
    "semantic": "the same in meaning as",
}
MANY_PAIRS = 400_000_000
"""From so many meetings on, texts are first compared with the first ones they meet alone."""


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

    normalised = normalise_all(texts)
    limits = Near(jaccard=threshold)
    rarity = count(normalised, shingle_bags, num_buckets=limits.num_buckets)
    ranked = rank_all(normalised, shingle_bags, rarity)
    meetings = meet(ranked, limits, rarity, np.zeros(len(texts), dtype=bool))
    for first, second, jaccard, _ in alike_within(meetings, ranked, limits, rarity):
        yield first, second, jaccard


@dataclass(frozen=True, slots=True)
class DuplicatesFilter:
    """Drops candidates that ask what a real training row, or an earlier candidate that stays, asks already.

    Questions are compared, not contexts: several questions on one text are what a teacher is asked for. A rewrite means
    what its parent means, and what other rewrites of that parent mean; those are compared by their words alone.
    """

    settings: Duplicates
    train: Sequence[Example]
    """The real training rows."""
    name: str = "duplicates"

    def check(self, candidates: Sequence[Candidate]) -> Sequence[Objection | None]:
        """Return an objection for each candidate that is a copy, naming the row that stays.

        Raises:
            MissingExtra: the recipe names an encoder that isn't installed.
        """
        rows = _Rows(self.train, [candidate.example for candidate in candidates])
        self._exact(rows)
        if self.settings.near is not None:
            self._alike(rows, "near", shingle_bags, Near(jaccard=self.settings.near))
        match self.settings.semantic, self.settings.encoder:
            case None, _:
                pass
            case float(cosine), "tfidf":
                self._alike(rows, "semantic", part_bags, Semantic(cosine=cosine))
            case float(cosine), "minilm":
                self._encoded(rows, cosine)
            case _ as other:
                raise AssertionError(other)
        return [rows.objections.get(place) for place in range(len(self.train), len(rows.examples))]

    def _exact(self, rows: "_Rows") -> None:
        first: dict[tuple[str, ...], int] = {}
        for place, text in enumerate(rows.normalised):
            # What is asked of many documents is a form to be filled in: it is a copy on the same document only.
            key = (text, rows.examples[place].group) if text in rows.forms else (text,)
            earlier = first.setdefault(key, place)
            if earlier != place:
                rows.drop(place, earlier, "exact", 1.0)

    def _alike(self, rows: "_Rows", how: "_How", make_bags: MakeBags, limits: Limits) -> None:
        left = rows.left()
        texts = [rows.normalised[place] for place in left]
        rarity = count(texts, make_bags, num_buckets=limits.num_buckets)
        ranked = rank_all(texts, make_bags, rarity)
        while (meetings := meet(ranked, limits, rarity, rows.gone(left))).num_pairs > MANY_PAIRS:
            dropped = len(rows.objections)
            rows.drop_later(left, first_met(ranked, limits, rarity, rows.gone(left)).by_later(), how)
            if len(rows.objections) - dropped < len(left) // 100:
                break
        rows.drop_later(left, alike_within(meetings, ranked, limits, rarity), how)

    def _encoded(self, rows: "_Rows", cosine: float) -> None:
        left = rows.left()
        encoded = minilm().encode([rows.examples[place].question for place in left])
        for pairs in pairs_alike(encoded, encoded, cosine):
            later_P = pairs.first_P > pairs.second_P
            rows.drop_later(left, pairs.where(later_P).by_later(), "semantic")


class _Rows:
    """Real rows, then candidates in their order, and which of these are copies of an earlier one that stays."""

    def __init__(self, train: Sequence[Example], candidates: Sequence[Example]) -> None:
        self.examples = [*train, *candidates]
        self.normalised = normalise_all([example.question for example in self.examples])
        self.forms = forms(train)
        self.objections: dict[int, Objection] = {}
        self._num_real = len(train)
        self._meanings = [example.id for example in train]
        for place, example in enumerate(candidates):
            match example.origin:
                case Synthetic(method="rewrite", parents=(parent, *_)):
                    self._meanings.append(parent)
                case _:
                    self._meanings.append(str(place))

    def left(self) -> list[int]:
        """Return the rows that stay so far and don't ask what many documents are asked."""
        return [
            place
            for place, text in enumerate(self.normalised)
            if place not in self.objections and text not in self.forms
        ]

    def gone(self, left: Sequence[int]) -> "NDArray[np.bool_]":
        """Return which of these rows were dropped."""
        import numpy as np

        return np.array([place in self.objections for place in left], dtype=bool)

    def drop_later(self, left: Sequence[int], pairs: Pairs, how: "_How") -> None:
        """Drop the later of each pair, if the earlier stays; of several earlier ones the nearest is named."""
        later, found = -1, list[tuple[float, int]]()
        for first, second, jaccard, cosine in pairs:
            if left[second] != later:
                self._drop_found(later, found, how)
                later, found = left[second], []
            earlier = left[first]
            same_meaning = how == "semantic" and self._meanings[later] == self._meanings[earlier]
            if not (same_meaning or earlier in self.objections):
                found.append((jaccard if how == "near" else cosine, -earlier))
        self._drop_found(later, found, how)

    def _drop_found(self, place: int, found: Sequence[tuple[float, int]], how: "_How") -> None:
        if found:
            similarity, earlier = max(found)
            self.drop(place, -earlier, how, similarity)

    def drop(self, place: int, earlier: int, how: "_How", similarity: float) -> None:
        """Drop a candidate, because of an earlier row; a real row stays as it is."""
        if place >= self._num_real:
            example, whose = self.examples[earlier], "a training row" if earlier < self._num_real else "another"
            self.objections[place] = Objection(
                reason=f"{_SAME[how]} {whose}",
                evidence=Neighbour(
                    source_id=example.origin.source_id,
                    split="train",
                    question=example.question,
                    similarity=similarity,
                    how=how,
                ),
            )


def forms(examples: Sequence[Example]) -> frozenset[str]:
    """Return the normalised questions that are asked of more than one document, such as "Is this clause fair?"."""
    documents: dict[str, str] = {}
    return frozenset(
        text
        for example in examples
        if documents.setdefault(text := normalise(example.question), example.group) != example.group
    )
