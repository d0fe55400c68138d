"""Finding the pairs of texts that are alike, without comparing all with all and without missing one.

Texts are sets of features. If two sets share enough, they share one of the rarest features of each: only so many may
be left out. So texts meet in a rare feature or never; of those that met, a bitmap of each set bounds what they can
share; what is left is counted. Everything is an array over many texts at once, and a block of bounded size at a time.

Letters in the names of arrays: N texts, F features, P pairs of texts, S slots of features, W words of a bitmap.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from drllama.filters.features import blocks
from drllama.filters.limits import SLACK, Limits, Sharing, Side
from drllama.filters.rarity import MakeBags, Ranked, Rarity, count, rank, rank_all
from drllama.filters.threads import in_order

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_NO_END = (1 << 64) - 1
_MASS_BITS = 16
PAIRS_AT_ONCE = 1_000_000
"""Pairs that are looked at in one go, about 100 bytes each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """Pairs of texts that are alike."""

    first_P: "NDArray[np.int64]"
    second_P: "NDArray[np.int64]"
    jaccard_P: "NDArray[np.float64]"
    cosine_P: "NDArray[np.float64]"
    """Of the sets as vectors of inverse document frequencies."""

    def where(self, wanted_P: "NDArray[np.bool_]") -> "Pairs":
        """Return some of the pairs."""
        return Pairs(
            first_P=self.first_P[wanted_P],
            second_P=self.second_P[wanted_P],
            jaccard_P=self.jaccard_P[wanted_P],
            cosine_P=self.cosine_P[wanted_P],
        )

    def by_later(self) -> "Pairs":
        """Return the same pairs with the smaller number first, ordered by the larger, then the smaller."""
        import numpy as np

        first_P, second_P = np.minimum(self.first_P, self.second_P), np.maximum(self.first_P, self.second_P)
        order_P = np.lexsort((first_P, second_P))
        return Pairs(
            first_P=first_P[order_P],
            second_P=second_P[order_P],
            jaccard_P=self.jaccard_P[order_P],
            cosine_P=self.cosine_P[order_P],
        )

    def __iter__(self) -> Iterator[tuple[int, int, float, float]]:
        """Yield first, second, Jaccard similarity and cosine of each pair."""
        columns = (self.first_P, self.second_P, self.jaccard_P, self.cosine_P)
        yield from zip(*(column.tolist() for column in columns), strict=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prefixes:
    """The rarest features of each text, by which it is looked up, and what it has beside them."""

    features_F: "NDArray[np.uint32]"
    rows_F: "NDArray[np.int64]"
    left_N: "NDArray[np.int64]"
    """How many features a text has behind its prefix."""
    left_mass_N: "NDArray[np.float64]"
    ends_N: "NDArray[np.uint64]"
    """The rank of the first feature behind the prefix."""

    def without_features(self) -> "Prefixes":
        """Return what is behind the prefixes alone, which takes little memory."""
        return replace(self, features_F=self.features_F[:0], rows_F=self.rows_F[:0])

    def sorted(self) -> "Prefixes":
        """Return the same, by feature."""
        import numpy as np

        order_F = np.argsort(self.features_F, kind="stable")
        return replace(self, features_F=self.features_F[order_F], rows_F=self.rows_F[order_F])


@dataclass(frozen=True, slots=True, kw_only=True)
class Met:
    """Pairs of texts whose prefixes meet, each once, with what the prefixes share."""

    first_P: "NDArray[np.int64]"
    second_P: "NDArray[np.int64]"
    shared_P: "NDArray[np.int64]"
    mass_P: "NDArray[np.float64]"
    """At most so much."""

    @classmethod
    def of(cls, first_M: "NDArray[np.int64]", second_M: "NDArray[np.int64]", masses_M: "NDArray[np.float64]") -> "Met":
        """Return the pairs of all meetings, one for each feature that two texts share."""
        import numpy as np

        if not len(first_M):
            return cls(first_P=first_M, second_P=second_M, shared_P=first_M, mass_P=masses_M)
        # Sorting plain numbers is several times quicker than sorting places, so the mass rides along, rounded up.
        bits = int(second_M.max()).bit_length() + _MASS_BITS
        assert int(first_M.max()).bit_length() + bits < 64, "too many texts for one number to name a pair"
        unit = masses_M.max() / ((1 << _MASS_BITS) - 2)
        keys_M = (first_M << bits) | (second_M << _MASS_BITS) | np.ceil(masses_M / unit).astype(np.int64)
        keys_M.sort()
        pairs_M = keys_M >> _MASS_BITS
        begins_P = np.flatnonzero(np.concatenate(([True], pairs_M[1:] != pairs_M[:-1])))
        pairs_P = pairs_M[begins_P]
        keys_M &= (1 << _MASS_BITS) - 1
        return cls(
            first_P=pairs_P >> (bits - _MASS_BITS),
            second_P=pairs_P & ((1 << (bits - _MASS_BITS)) - 1),
            shared_P=np.diff(np.append(begins_P, len(keys_M))),
            mass_P=np.add.reduceat(keys_M, begins_P) * unit,
        )

    def named(self, names: "NDArray[np.int64]") -> "Met":
        """Return the same pairs, with the texts at these places."""
        return replace(self, first_P=names[self.first_P], second_P=names[self.second_P])

    def where(self, possible_P: "NDArray[np.bool_]") -> "Met":
        """Return some of the pairs."""
        return Met(
            first_P=self.first_P[possible_P],
            second_P=self.second_P[possible_P],
            shared_P=self.shared_P[possible_P],
            mass_P=self.mass_P[possible_P],
        )

    def at_most(self, ranked: Ranked, prefixes: Prefixes, others: Ranked, other_prefixes: Prefixes) -> Sharing:
        """Return an upper bound of what each pair shares.

        Shared features that come before the ends of both prefixes have met; all others lie behind the prefix that ends
        first.
        """
        import numpy as np

        shorter_P = prefixes.ends_N[self.first_P] <= other_prefixes.ends_N[self.second_P]
        left_P = np.where(shorter_P, prefixes.left_N[self.first_P], other_prefixes.left_N[self.second_P])
        masses = prefixes.left_mass_N[self.first_P], other_prefixes.left_mass_N[self.second_P]
        return Sharing(
            shared_P=self.shared_P + left_P,
            mass_P=(self.mass_P + np.where(shorter_P, *masses)) * (1 + SLACK),
            sizes_P=(ranked.sizes_N[self.first_P], others.sizes_N[self.second_P]),
            masses_P=(ranked.masses_N[self.first_P], others.masses_N[self.second_P]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """Texts that others are compared with."""

    make_bags: MakeBags
    rarity: Rarity
    limits: Limits
    ranked: Ranked
    prefixes: Prefixes
    """The features ascending."""
    lighter: Prefixes
    """The same, if the texts of the index are the lighter ones."""

    def find(self, normalised: Sequence[str]) -> Iterator[Pairs]:
        """Yield all pairs of a given text, first, and one of the index, second, that are alike."""

        def work(block: tuple[int, int]) -> list[Pairs]:
            start, stop = block
            ranked = rank(self.make_bags(normalised[start:stop]), self.rarity)
            return [replace(pairs, first_P=pairs.first_P + start) for pairs in self._find(ranked)]

        for found in in_order(work, blocks(normalised)):
            yield from found

    def _find(self, ranked: Ranked) -> Iterator[Pairs]:

        mine = prefixed(ranked, self.limits, self.rarity, "lighter")
        yield from self._meet(ranked, mine, self.prefixes, lighter=True)
        mine = prefixed(ranked, self.limits, self.rarity, "any")
        yield from self._meet(ranked, mine, self.lighter, lighter=False)

    def _meet(self, ranked: Ranked, mine: Prefixes, theirs: Prefixes, *, lighter: bool) -> Iterator[Pairs]:
        """Yield the pairs that are alike where the text that isn't of the index is the lighter one, or isn't."""
        import numpy as np

        weights, other_weights = self.limits.weights(ranked), self.limits.weights(self.ranked)
        known_F = np.flatnonzero(self.rarity.counts(mine.features_F))
        features_F, rows_F = mine.features_F[known_F], mine.rows_F[known_F]
        begin_F = np.searchsorted(theirs.features_F, features_F, side="left")
        met_F = np.searchsorted(theirs.features_F, features_F, side="right") - begin_F
        mass_F = self.rarity.masses(features_F)
        # A text's pairs must come in one go: what its prefix shares is summed.
        borders = np.flatnonzero(np.diff(rows_F, prepend=-1, append=-1))
        met_by_text = np.diff(np.concatenate(([0], np.cumsum(met_F)))[borders])
        for start, stop in portions(met_by_text):
            span = slice(borders[start], borders[stop])
            numbers, places = expanded(np.arange(borders[start], borders[stop]), begin_F[span], met_F[span])
            first, second = rows_F[numbers], theirs.rows_F[places]
            right = np.flatnonzero((weights[first] <= other_weights[second]) == lighter)
            met = Met.of(first[right], second[right], mass_F[numbers[right]])
            met = met.where(self.limits.alike(met.at_most(ranked, mine, self.ranked, theirs)))
            yield compare(ranked, self.ranked, met.first_P, met.second_P, limits=self.limits, rarity=self.rarity)


def index(normalised: Sequence[str], make_bags: MakeBags, limits: Limits) -> Index:
    """Return an index of these texts; how rare a feature is, is counted in them, so that the others don't matter."""
    rarity = count(normalised, make_bags, num_buckets=limits.num_buckets)
    ranked = rank_all(normalised, make_bags, rarity)
    return Index(
        make_bags=make_bags,
        rarity=rarity,
        limits=limits,
        ranked=ranked,
        prefixes=prefixed(ranked, limits, rarity, "any").sorted(),
        lighter=prefixed(ranked, limits, rarity, "lighter").sorted(),
    )


def compare(
    ranked: Ranked,
    others: Ranked,
    first_P: "NDArray[np.int64]",
    second_P: "NDArray[np.int64]",
    *,
    limits: Limits,
    rarity: Rarity,
) -> Pairs:
    """Return those of the pairs that are alike, with how much; first of ``ranked``, second of ``others``."""
    possible_P = limits.alike(_at_most(ranked, others, first_P, second_P))
    first_P, second_P = first_P[possible_P], second_P[possible_P]
    possible_P = limits.alike(_mass_at_most(ranked, others, first_P, second_P, rarity))
    first_P, second_P = first_P[possible_P], second_P[possible_P]
    sizes_P = ranked.sizes_N[first_P] + others.sizes_N[second_P]
    found = []
    for start, stop in portions(sizes_P):
        firsts, seconds = first_P[start:stop], second_P[start:stop]
        sharing = _sharing(ranked, others, firsts, seconds, rarity)
        alike_P = limits.alike(sharing)
        found.append(
            Pairs(
                first_P=firsts[alike_P],
                second_P=seconds[alike_P],
                jaccard_P=sharing.jaccard_P[alike_P],
                cosine_P=sharing.cosine_P[alike_P],
            )
        )
    return joined(found)


def joined(parts: Sequence[Pairs]) -> Pairs:
    """Return all pairs of the parts."""
    import numpy as np

    nothing, none = np.zeros(0, dtype=np.int64), np.zeros(0)
    return Pairs(
        first_P=np.concatenate([nothing, *(part.first_P for part in parts)]),
        second_P=np.concatenate([nothing, *(part.second_P for part in parts)]),
        jaccard_P=np.concatenate([none, *(part.jaccard_P for part in parts)]),
        cosine_P=np.concatenate([none, *(part.cosine_P for part in parts)]),
    )


def _at_most(ranked: Ranked, others: Ranked, first_P: "NDArray[np.int64]", second_P: "NDArray[np.int64]") -> Sharing:
    """Return an upper bound of how many features each pair shares: a bit that only one has is a feature of its own."""
    import numpy as np

    one_PW, other_PW = ranked.bitmaps_NW[first_P], others.bitmaps_NW[second_P]
    lacking_P = np.bitwise_count(one_PW & ~other_PW).sum(axis=1, dtype=np.int64)
    extra_P = np.bitwise_count(other_PW & ~one_PW).sum(axis=1, dtype=np.int64)
    sizes_P = (ranked.sizes_N[first_P], others.sizes_N[second_P])
    masses_P = (ranked.masses_N[first_P], others.masses_N[second_P])
    shared_P = np.minimum(sizes_P[0] - lacking_P, sizes_P[1] - extra_P)
    return Sharing(shared_P=shared_P, mass_P=np.minimum(*masses_P), sizes_P=sizes_P, masses_P=masses_P)


def _mass_at_most(
    ranked: Ranked, others: Ranked, first_P: "NDArray[np.int64]", second_P: "NDArray[np.int64]", rarity: Rarity
) -> Sharing:
    """Return an upper bound of what the shared features weigh: in each bucket, no more than the lighter side has."""
    import numpy as np

    shared_P = np.minimum(ranked.buckets_NB[first_P], others.buckets_NB[second_P]).sum(axis=1, dtype=np.int64)
    sizes_P = (ranked.sizes_N[first_P], others.sizes_N[second_P])
    masses_P = (ranked.masses_N[first_P], others.masses_N[second_P])
    return Sharing(
        shared_P=np.minimum(*sizes_P), mass_P=shared_P * rarity.mass_step, sizes_P=sizes_P, masses_P=masses_P
    )


def _sharing(
    ranked: Ranked, others: Ranked, first_P: "NDArray[np.int64]", second_P: "NDArray[np.int64]", rarity: Rarity
) -> Sharing:
    import numpy as np

    numbers_P = np.arange(len(first_P))
    keys = []
    for side, rows_P in ((ranked, first_P), (others, second_P)):
        pairs, places = expanded(numbers_P, side.borders_N[rows_P], side.sizes_N[rows_P])
        keys.append((pairs.astype(np.uint64) << np.uint64(32)) | side.features_F[places])
    both = np.sort(np.concatenate(keys))
    both = both[:-1][both[1:] == both[:-1]]
    pairs = (both >> np.uint64(32)).astype(np.int64)
    masses = rarity.masses((both & np.uint64(0xFFFFFFFF)).astype(np.uint32))
    mass_P: NDArray[np.float64] = np.bincount(pairs, weights=masses, minlength=len(first_P)).astype(np.float64)
    return Sharing(
        shared_P=np.bincount(pairs, minlength=len(first_P)),
        mass_P=mass_P,
        sizes_P=(ranked.sizes_N[first_P], others.sizes_N[second_P]),
        masses_P=(ranked.masses_N[first_P], others.masses_N[second_P]),
    )


def prefixed(ranked: Ranked, limits: Limits, rarity: Rarity, side: Side) -> Prefixes:
    """Return what each text must be looked up by."""
    import numpy as np

    counts, features, inside = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.uint32)], [np.zeros(0)]
    for part in ranked.parts():
        counts_N = limits.prefixes(part, rarity, side)
        _, places_F = expanded(counts_N, part.borders_N[:-1], counts_N)
        features_F = part.features_F[places_F]
        running_F = np.concatenate(([0.0], np.cumsum(rarity.masses(features_F))))
        borders_N = np.concatenate(([0], np.cumsum(counts_N)))
        counts.append(counts_N)
        features.append(features_F)
        inside.append(running_F[borders_N[1:]] - running_F[borders_N[:-1]])
    counts_N, inside_N = np.concatenate(counts), np.concatenate(inside)
    begins_N, ends_N = ranked.borders_N[:-1], ranked.borders_N[1:]
    last_N = np.full(len(counts_N), _NO_END, dtype=np.uint64)
    more_N = np.flatnonzero(begins_N + counts_N < ends_N)
    last_N[more_N] = rarity.keys(ranked.features_F[(begins_N + counts_N)[more_N]])
    return Prefixes(
        features_F=np.concatenate(features),
        rows_F=np.repeat(np.arange(len(counts_N)), counts_N),
        left_N=ranked.sizes_N - counts_N,
        left_mass_N=np.maximum(ranked.masses_N - inside_N, 0),
        ends_N=last_N,
    )


def expanded(
    names: "NDArray[np.int64]", begins: "NDArray[np.int64]", counts: "NDArray[np.int64]"
) -> "tuple[NDArray[np.int64], NDArray[np.int64]]":
    """Return the places begin, begin + 1, ... of each span, one after the other, and the span's name at each."""
    import numpy as np

    ends = np.cumsum(counts)
    places = np.arange(ends[-1] if len(ends) else 0) + np.repeat(begins - ends + counts, counts)
    return np.repeat(names, counts), places


def portions(costs: "NDArray[np.int64]") -> Iterator[tuple[int, int]]:
    """Yield borders of portions that cost about ``PAIRS_AT_ONCE`` at most, or one item's own cost."""
    import numpy as np

    running, start = np.cumsum(costs), 0
    while start < len(costs):
        spent = running[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(running, spent + PAIRS_AT_ONCE, side="right")))
        yield start, stop
        start = stop
