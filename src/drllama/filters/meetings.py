"""Finding the pairs of texts within one collection that are alike.

Of each pair the lighter text is a guest of its very rarest features, and the heavier one looks for it there; guests
stand in the order of their weight, so that only those come up that are heavy enough to be alike.

Letters in the names of arrays: as in ``similarity``; M meetings of a text with all guests of one of its features. A
text's place is its place in the order of weights.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from drllama.filters.limits import Limits
from drllama.filters.rarity import Ranked, Rarity, distinct
from drllama.filters.similarity import Met, Pairs, Prefixes, compare, expanded, joined, portions, prefixed
from drllama.filters.threads import in_order

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_LOW = 0xFFFFFFFF


@dataclass(frozen=True, slots=True, kw_only=True)
class Meetings:
    """Who meets whom: texts with a rare feature in common, of which they may share enough."""

    texts_N: "NDArray[np.int64]"
    """The text at each place, the lightest first."""
    places_M: "NDArray[np.int64]"
    """Of the heavier text; ascending."""
    begins_M: "NDArray[np.int64]"
    """Where in ``guests`` those that it meets begin."""
    num_met_M: "NDArray[np.int64]"
    masses_M: "NDArray[np.float32]"
    """What the feature weighs."""
    guests: "NDArray[np.uint32]"
    """The places of the guests, one feature after the other."""
    prefixes: Prefixes
    guest_prefixes: Prefixes

    @property
    def num_pairs(self) -> int:
        """Return how many pairs of texts meet; two that meet in several features count as often."""
        return int(self.num_met_M.sum())


def meet(ranked: Ranked, limits: Limits, rarity: Rarity, gone_N: "NDArray[np.bool_]") -> Meetings:
    """Return all meetings of texts that could be alike, without those that are gone."""
    import numpy as np

    weights_N = limits.weights(ranked)
    texts_N = np.argsort(weights_N, kind="stable")
    place_N = np.empty(len(texts_N), dtype=np.uint64)
    place_N[texts_N] = np.arange(len(texts_N), dtype=np.uint64)
    lightest_N = np.searchsorted(weights_N[texts_N], limits.lightest(weights_N[texts_N])).astype(np.uint64)
    prefixes, keys_M = _keys(ranked, limits, rarity, gone_N, place_N, lighter=False)
    guest_prefixes, guest_keys = _keys(ranked, limits, rarity, gone_N, place_N, lighter=True)
    features_M, places_M = keys_M & ~np.uint64(_LOW), keys_M & np.uint64(_LOW)
    begins_M = np.searchsorted(guest_keys, features_M | lightest_N[places_M.astype(np.int64)])
    num_met_M = np.searchsorted(guest_keys, keys_M) - begins_M
    del keys_M
    some_M = np.flatnonzero(num_met_M > 0)
    some_M = some_M[np.argsort(places_M[some_M], kind="stable")]
    return Meetings(
        texts_N=texts_N,
        places_M=places_M[some_M].astype(np.int64),
        begins_M=begins_M[some_M],
        num_met_M=num_met_M[some_M],
        masses_M=rarity.masses((features_M[some_M] >> np.uint64(32)).astype(np.uint32)).astype(np.float32),
        guests=(guest_keys & np.uint64(_LOW)).astype(np.uint32),
        prefixes=prefixes,
        guest_prefixes=guest_prefixes,
    )


def _keys(
    ranked: Ranked,
    limits: Limits,
    rarity: Rarity,
    gone_N: "NDArray[np.bool_]",
    place_N: "NDArray[np.uint64]",
    *,
    lighter: bool,
) -> "tuple[Prefixes, NDArray[np.uint64]]":
    """Return the prefixes, and their features with the places of the texts, both in one number, ascending."""
    import numpy as np

    prefixes = prefixed(ranked, limits, rarity, "lighter" if lighter else "any")
    stay_F = ~gone_N[prefixes.rows_F]
    keys = prefixes.features_F[stay_F].astype(np.uint64) << np.uint64(32)
    keys |= place_N[prefixes.rows_F[stay_F]]
    keys.sort()
    return prefixes.without_features(), keys


def alike_within(meetings: Meetings, ranked: Ranked, limits: Limits, rarity: Rarity) -> Pairs:
    """Return the pairs that meet and are alike, ``first_P`` before ``second_P``, ordered by the later."""
    import numpy as np

    borders = np.flatnonzero(np.diff(meetings.places_M, prepend=-1, append=-1))
    total_M = np.concatenate(([0], np.cumsum(meetings.num_met_M)))

    def work(portion: tuple[int, int]) -> Pairs:
        span = slice(borders[portion[0]], borders[portion[1]])
        counts = meetings.num_met_M[span]
        heavier, where = expanded(meetings.places_M[span], meetings.begins_M[span], counts)
        masses = np.repeat(meetings.masses_M[span].astype(np.float64), counts)
        met = Met.of(heavier, meetings.guests[where].astype(np.int64), masses)
        met = met.named(meetings.texts_N)
        met = met.where(limits.alike(met.at_most(ranked, meetings.prefixes, ranked, meetings.guest_prefixes)))
        return compare(ranked, ranked, met.first_P, met.second_P, limits=limits, rarity=rarity)

    return joined(list(in_order(work, portions(np.diff(total_M[borders]))))).by_later()


def first_met(ranked: Ranked, limits: Limits, rarity: Rarity, gone_N: "NDArray[np.bool_]") -> Pairs:
    """Return the pairs of texts that are alike where the earlier one is the first wherever it goes.

    Such a text stays whatever becomes of the others. So where thousands of texts are alike they are told so by one
    look each, not by looking at every two of them.
    """
    import numpy as np

    num_texts = len(gone_N)
    _, keys = _keys(ranked, limits, rarity, gone_N, np.arange(num_texts, dtype=np.uint64), lighter=False)
    features_M, texts_M = keys >> np.uint64(32), (keys & np.uint64(_LOW)).astype(np.int64)
    leads_M = np.concatenate(([True], features_M[1:] != features_M[:-1]))[: len(keys)]
    heads_M = texts_M[np.maximum.accumulate(np.where(leads_M, np.arange(len(keys)), 0))]
    ever_later_N = np.zeros(num_texts, dtype=bool)
    ever_later_N[texts_M[~leads_M]] = True
    sure_M = ~leads_M & ~ever_later_N[heads_M]
    pairs = distinct((texts_M[sure_M].astype(np.uint64) << np.uint64(32)) | heads_M[sure_M].astype(np.uint64))
    later_P, first_P = (pairs >> np.uint64(32)).astype(np.int64), (pairs & np.uint64(_LOW)).astype(np.int64)
    costs_P = np.ones(len(pairs), dtype=np.int64)
    return joined(
        [
            compare(ranked, ranked, first_P[start:stop], later_P[start:stop], limits=limits, rarity=rarity)
            for start, stop in portions(costs_P)
        ]
    )
