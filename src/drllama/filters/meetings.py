"""Finding the pairs of texts within one collection that are alike, and the copies among them.

Letters in the names of arrays: as in ``similarity``; M meetings, each of a text with a feature that others have too.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from drllama.filters.limits import Limits
from drllama.filters.rarity import Ranked, Rarity, distinct
from drllama.filters.similarity import Met, Pairs, Prefixes, compare, expanded, portions, prefixed
from drllama.filters.threads import in_order

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MANY_PAIRS = 100_000_000
"""From so many meetings on, texts are first compared with the first ones they meet alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Meetings:
    """Who meets whom: texts with a rare feature in common, the later one of each pair first."""

    texts_M: "NDArray[np.int64]"
    """Ascending."""
    begins_M: "NDArray[np.int64]"
    """Where in ``guests`` the feature's texts begin."""
    num_before_M: "NDArray[np.int64]"
    """How many of them come earlier than this one."""
    masses_M: "NDArray[np.float32]"
    """What the feature weighs."""
    guests: "NDArray[np.int64]"
    """The texts of each feature, one feature after the other, each ascending."""

    prefixes: Prefixes
    """What each text has behind its rare features."""

    @property
    def num_pairs(self) -> int:
        """Return how many pairs of texts meet; two that meet in several features count as often."""
        return int(self.num_before_M.sum())

    def by_text(self) -> "Meetings":
        """Return the same in the order of texts, without those where a text is the first."""
        import numpy as np

        some_M = np.flatnonzero(self.num_before_M)
        some_M = some_M[np.argsort(self.texts_M[some_M], kind="stable")]
        return replace(
            self,
            texts_M=self.texts_M[some_M],
            begins_M=self.begins_M[some_M],
            num_before_M=self.num_before_M[some_M],
            masses_M=self.masses_M[some_M],
        )


def pairs_within(ranked: Ranked, limits: Limits, rarity: Rarity) -> Iterator[Pairs]:
    """Yield all pairs that are alike, ``first_P`` earlier than ``second_P``; a text's pairs come in one go."""
    yield from pairs_of(meet(ranked, limits, rarity), ranked, limits, rarity)


def meet(ranked: Ranked, limits: Limits, rarity: Rarity) -> Meetings:
    """Return all meetings of texts that could be alike."""
    import numpy as np

    prefixes = prefixed(ranked, limits, rarity, "any")
    assert len(ranked.sizes_N) < 1 << 31
    keys_F = (prefixes.features_F.astype(np.uint64) << np.uint64(32)) | prefixes.rows_F.astype(np.uint64)
    prefixes = replace(prefixes, features_F=prefixes.features_F[:0], rows_F=prefixes.rows_F[:0])
    keys_F.sort()
    features_F, guests = keys_F >> np.uint64(32), (keys_F & np.uint64(0xFFFFFFFF)).astype(np.int64)
    del keys_F
    begins_F = np.flatnonzero(np.concatenate(([True], features_F[1:] != features_F[:-1]))[: len(features_F)])
    sizes_F = np.diff(np.concatenate((begins_F, [len(guests)])))
    begins_M = np.repeat(begins_F, sizes_F)
    num_before_M = np.arange(len(guests)) - begins_M
    masses_M = rarity.masses(features_F.astype(np.uint32)).astype(np.float32)
    everyone = Meetings(
        texts_M=guests,
        begins_M=begins_M,
        num_before_M=num_before_M,
        masses_M=masses_M,
        guests=guests,
        prefixes=prefixes,
    )
    return everyone.by_text()


def without(meetings: Meetings, gone_N: "NDArray[np.bool_]") -> Meetings:
    """Return the meetings that are left when some texts go."""
    import numpy as np

    stay = ~gone_N[meetings.guests]
    places = np.concatenate(([0], np.cumsum(stay)))
    stay_M = ~gone_N[meetings.texts_M]
    begins_M, num_before_M = meetings.begins_M[stay_M], meetings.num_before_M[stay_M]
    return Meetings(
        texts_M=meetings.texts_M[stay_M],
        begins_M=places[begins_M],
        num_before_M=places[begins_M + num_before_M] - places[begins_M],
        masses_M=meetings.masses_M[stay_M],
        guests=meetings.guests[stay],
        prefixes=meetings.prefixes,
    ).by_text()


def pairs_of(meetings: Meetings, ranked: Ranked, limits: Limits, rarity: Rarity) -> Iterator[Pairs]:
    """Yield the pairs of those who meet that are alike, ``first_P`` earlier than ``second_P``, ordered by the later."""
    import numpy as np

    total_M = np.concatenate(([0], np.cumsum(meetings.num_before_M)))
    borders = np.flatnonzero(np.concatenate(([True], meetings.texts_M[1:] != meetings.texts_M[:-1], [True])))
    if not len(meetings.texts_M):
        return

    def work(portion: tuple[int, int]) -> Pairs:
        span = slice(borders[portion[0]], borders[portion[1]])
        counts = meetings.num_before_M[span]
        later, places = expanded(meetings.texts_M[span], meetings.begins_M[span], counts)
        met = Met.of(later, meetings.guests[places], np.repeat(meetings.masses_M[span].astype(np.float64), counts))
        met = met.where(limits.alike(met.at_most(ranked, meetings.prefixes, ranked, meetings.prefixes)))
        return compare(ranked, ranked, met.second_P, met.first_P, limits=limits, rarity=rarity)

    yield from in_order(work, portions(np.diff(total_M[borders])))


def first_met(meetings: Meetings, ranked: Ranked, limits: Limits, rarity: Rarity) -> Iterator[Pairs]:
    """Yield the pairs of texts that are alike where the earlier one is the first everywhere it goes.

    Such a text stays whatever becomes of the others. So where thousands of texts are alike they are told so by one
    look each, not by looking at every two of them.
    """
    import numpy as np

    num_texts = len(ranked.sizes_N)
    heads_M = meetings.guests[meetings.begins_M]
    ever_later_N = np.zeros(num_texts, dtype=bool)
    ever_later_N[meetings.texts_M] = True
    sure_M = ~ever_later_N[heads_M]
    keys_P = distinct((meetings.texts_M[sure_M] * num_texts + heads_M[sure_M]).astype(np.uint64)).astype(np.int64)
    for start, stop in portions(np.ones(len(keys_P), dtype=np.int64)):
        second_P, first_P = np.divmod(keys_P[start:stop], num_texts)
        yield compare(ranked, ranked, first_P, second_P, limits=limits, rarity=rarity)
