"""How rare each feature is, and the sets of features of texts in that order.

Letters in the names of arrays: N texts, F features, S slots of features, W words of a bitmap,
B buckets of features.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias

from drllama.filters.features import BLOCK_TEXTS, Bags, blocks
from drllama.filters.threads import in_order

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MakeBags: TypeAlias = Callable[[Sequence[str]], Bags]

_SLOT_BITS = (12, 23)
_BITMAP_BITS = (256, 8192)
_HEAVIEST = (1 << 16) - 1
_COMMONEST = (1 << 17) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Rarity:
    """How many texts have a feature; it orders all features, and weighs them."""

    counts_S: "NDArray[np.int32]"
    num_texts: int
    num_buckets: int
    """Into how many buckets the features of a set are weighed; a power of two."""
    bitmap_bits: int
    """A power of two, and more than a text has features: a full bitmap would tell nothing."""

    @property
    def slot_shift(self) -> int:
        """Return how many bits of a feature don't tell its slot."""
        return 33 - len(self.counts_S).bit_length()

    @property
    def mass_step(self) -> float:
        """Return the unit of rounded masses: a 500th of the heaviest feature's."""
        return (1 + math.log(1 + self.num_texts)) ** 2 / 500

    def keys(self, features_F: "NDArray[np.uint32]") -> "NDArray[np.uint64]":
        """Return the rank of each feature, the rarest first; equal for equal features only."""
        import numpy as np

        keys_F: NDArray[np.uint64] = (self.counts(features_F).astype(np.uint64) << np.uint64(32)) | features_F
        return keys_F

    def counts(self, features_F: "NDArray[np.uint32]") -> "NDArray[np.int32]":
        """Return at most how many texts have each feature; 0 is sure."""
        counts_F: NDArray[np.int32] = self.counts_S[features_F >> self.slot_shift]
        return counts_F

    def masses(self, features_F: "NDArray[np.uint32]") -> "NDArray[np.float64]":
        """Return the squared inverse document frequency of each feature, as in TF-IDF."""
        import numpy as np

        masses_F: NDArray[np.float64] = (1 + np.log((1 + self.num_texts) / (1 + self.counts(features_F)))) ** 2
        return masses_F


@dataclass(frozen=True, kw_only=True)  # no slots: cached_property needs a dict
class Ranked:
    """The sets of features of some texts, each with its rarest feature first."""

    features_F: "NDArray[np.uint32]"
    borders_N: "NDArray[np.int64]"
    bitmaps_NW: "NDArray[np.uint64]"
    masses_N: "NDArray[np.float64]"
    """The sum of the set's masses."""
    buckets_NB: "NDArray[np.uint16]"
    """What the features weigh in each of some buckets, rounded up, in steps of the rarity."""

    def parts(self) -> "Iterator[Ranked]":
        """Yield the same in parts of a bounded number of texts."""
        for start in range(0, len(self.masses_N), BLOCK_TEXTS):
            borders_N = self.borders_N[start : start + BLOCK_TEXTS + 1]
            yield Ranked(
                features_F=self.features_F[borders_N[0] : borders_N[-1]],
                borders_N=borders_N - borders_N[0],
                bitmaps_NW=self.bitmaps_NW[start : start + BLOCK_TEXTS],
                masses_N=self.masses_N[start : start + BLOCK_TEXTS],
                buckets_NB=self.buckets_NB[start : start + BLOCK_TEXTS],
            )

    @cached_property
    def sizes_N(self) -> "NDArray[np.int64]":
        """Return the number of features of each text."""
        import numpy as np

        return np.diff(self.borders_N)


def count(normalised: Sequence[str], make_bags: MakeBags, *, num_buckets: int) -> Rarity:
    """Return about how often each feature stands in these texts."""
    import numpy as np

    fewest, many = _SLOT_BITS
    slot_bits = min(many, max(fewest, (8 * sum(map(len, normalised))).bit_length()))
    counts_S, num_features = np.zeros(1 << slot_bits, dtype=np.int32), 0

    def work(block: tuple[int, int]) -> "NDArray[np.int64]":
        return (make_bags(normalised[block[0] : block[1]]).features_F >> (32 - slot_bits)).astype(np.int64)

    for slots_F in in_order(work, blocks(normalised)):
        num_features += len(slots_F)
        np.add(counts_S, np.bincount(slots_F, minlength=len(counts_S)), out=counts_S, casting="unsafe")
    least, most = _BITMAP_BITS
    wanted = 2 * num_features // max(1, len(normalised))
    return Rarity(
        counts_S=np.minimum(counts_S, _COMMONEST),
        num_texts=len(normalised),
        num_buckets=num_buckets,
        bitmap_bits=min(most, max(least, 1 << wanted.bit_length())),
    )


def rank_all(normalised: Sequence[str], make_bags: MakeBags, rarity: Rarity) -> Ranked:
    """Return the ranked sets of all texts, made block by block."""
    import numpy as np

    parts = list(
        in_order(lambda block: rank(make_bags(normalised[block[0] : block[1]]), rarity), blocks(normalised))
    ) or [rank(make_bags([]), rarity)]
    # One column after the other, so that only one stands in memory twice.
    sizes_N = np.concatenate([part.sizes_N for part in parts])
    columns = {
        name: [getattr(part, name) for part in parts] for name in ("features_F", "bitmaps_NW", "masses_N", "buckets_NB")
    }
    parts.clear()
    whole = {name: np.concatenate(columns.pop(name)) for name in list(columns)}
    return Ranked(borders_N=np.concatenate(([0], np.cumsum(sizes_N))), **whole)


def rank(bags: Bags, rarity: Rarity) -> Ranked:
    """Return the sets of at most 2**15 bags, each in the order of rarity."""
    import numpy as np

    # One sort of whole numbers does it all: the text in the upper 15 bits, then 17 of rarity, then the feature.
    assert len(bags) <= BLOCK_TEXTS, len(bags)
    keys_F = rarity.keys(bags.features_F) | (bags.rows_F.astype(np.uint64) << np.uint64(49))
    keys_F = distinct(keys_F)
    features_F = (keys_F & np.uint64(0xFFFFFFFF)).astype(np.uint32)
    rows_F = (keys_F >> np.uint64(49)).astype(np.int64)
    borders_N = np.searchsorted(rows_F, np.arange(len(bags) + 1))
    bits = rarity.bitmap_bits
    flags = np.zeros(len(bags) * bits, dtype=bool)
    flags[rows_F * bits + (features_F & (bits - 1))] = True
    weights_F = rarity.masses(features_F)
    buckets_F = rows_F * rarity.num_buckets + ((features_F >> 13) & (rarity.num_buckets - 1))
    masses_NB = np.bincount(buckets_F, weights=weights_F, minlength=len(bags) * rarity.num_buckets)
    masses_NB = masses_NB.reshape(-1, rarity.num_buckets)
    steps_NB = np.ceil(masses_NB / rarity.mass_step)
    # A bucket too heavy for its 16 bits makes its text one that may share all: the bound stays a bound.
    steps_NB[(steps_NB > _HEAVIEST).any(axis=1)] = _HEAVIEST
    return Ranked(
        features_F=features_F,
        borders_N=borders_N,
        bitmaps_NW=np.packbits(flags).view(np.uint64).reshape(len(bags), bits // 64),
        masses_N=masses_NB.sum(axis=1),
        buckets_NB=steps_NB.astype(np.uint16),
    )


def distinct(keys: "NDArray[np.uint64]") -> "NDArray[np.uint64]":
    """Return the keys in order, each once; what was given is sorted too."""
    import numpy as np

    keys.sort()
    return keys[np.concatenate(([True], keys[1:] != keys[:-1]))[: len(keys)]]
