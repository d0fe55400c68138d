"""What counts as alike, and how many of its rarest features a text must be looked up by so that no pair is missed.

Letters in the names of arrays: as in ``similarity``.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

from drllama.filters.rarity import Ranked, Rarity

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SLACK = 1e-6
"""Sums of rounded numbers may fall short of a limit by so much."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sharing:
    """What the sets of each pair share, or at most share, and how large they are."""

    shared_P: "NDArray[np.int64]"
    mass_P: "NDArray[np.float64]"
    sizes_P: "tuple[NDArray[np.int64], NDArray[np.int64]]"
    masses_P: "tuple[NDArray[np.float64], NDArray[np.float64]]"

    @property
    def jaccard_P(self) -> "NDArray[np.float64]":
        """Return shared over united."""
        one, other = self.sizes_P
        return self.shared_P / (one + other - self.shared_P)

    @property
    def cosine_P(self) -> "NDArray[np.float64]":
        """Return the cosine of the weighted sets."""
        import numpy as np

        one, other = self.masses_P
        return self.mass_P / np.sqrt(one * other)


Side: TypeAlias = Literal["any", "lighter"]
"""What is known of a text when its prefix is cut: nothing, or that it is the lighter one of its pair."""


class Limits(Protocol):
    """What counts as alike; sharing more never makes a pair less alike."""

    @property
    def num_buckets(self) -> int:
        """Return into how many buckets features are best weighed, to bound what two sets share."""

    def alike(self, sharing: Sharing) -> "NDArray[np.bool_]":
        """Return which pairs are alike."""

    def prefixes(self, ranked: Ranked, rarity: Rarity, side: Side) -> "NDArray[np.int64]":
        """Return how many of its rarest features each text must be looked up by, so that no pair is missed."""

    def weights(self, ranked: Ranked) -> "NDArray[np.float64]":
        """Return what tells which side of a pair is the lighter one."""

    def lightest(self, weights_N: "NDArray[np.float64]") -> "NDArray[np.float64]":
        """Return the least weight that something lighter may have, to be like a text of such a weight."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Near:
    """Alike from this Jaccard similarity on."""

    jaccard: float

    @property
    def num_buckets(self) -> int:
        """Return 1: counts are what is compared."""
        return 1

    def alike(self, sharing: Sharing) -> "NDArray[np.bool_]":
        """Return which pairs reach it."""
        return sharing.jaccard_P >= self.jaccard - SLACK

    def prefixes(self, ranked: Ranked, rarity: Rarity, side: Side) -> "NDArray[np.int64]":
        """Return one more than may lack in the other set; a smaller set must share 2 t / (1 + t) of its features."""
        import numpy as np

        least = self.jaccard if side == "any" else 2 * self.jaccard / (1 + self.jaccard)
        prefixes_N: NDArray[np.int64] = np.floor((1 - least) * ranked.sizes_N + SLACK).astype(np.int64) + 1
        return np.minimum(prefixes_N, ranked.sizes_N)

    def weights(self, ranked: Ranked) -> "NDArray[np.float64]":
        """Return the sizes of the sets."""
        return ranked.sizes_N.astype(float)

    def lightest(self, weights_N: "NDArray[np.float64]") -> "NDArray[np.float64]":
        """Return the similarity's part: the smaller set can't share more than it has."""
        return (self.jaccard - SLACK) * weights_N


@dataclass(frozen=True, slots=True, kw_only=True)
class Semantic:
    """Alike from this cosine on, of the sets as vectors of inverse document frequencies."""

    cosine: float

    @property
    def num_buckets(self) -> int:
        """Return 128: masses are what is compared."""
        return 128

    def alike(self, sharing: Sharing) -> "NDArray[np.bool_]":
        """Return which pairs reach it."""
        return sharing.cosine_P >= self.cosine - SLACK

    def prefixes(self, ranked: Ranked, rarity: Rarity, side: Side) -> "NDArray[np.int64]":
        """Return how many features of each set have enough behind them: the rarest shared one begins all they share.

        That is the cosine's part of the geometric mean, so of the lighter set at least the cosine's part itself.
        """
        import numpy as np

        running_F = np.concatenate(([0.0], np.cumsum(rarity.masses(ranked.features_F))))
        left_F = np.repeat(running_F[ranked.borders_N[1:]], ranked.sizes_N) - running_F[:-1]
        needed_N = (self.cosine - SLACK) ** (2 if side == "any" else 1) * ranked.masses_N
        enough_F = np.concatenate(([0], np.cumsum(left_F >= np.repeat(needed_N, ranked.sizes_N))))
        prefixes_N: NDArray[np.int64] = enough_F[ranked.borders_N[1:]] - enough_F[ranked.borders_N[:-1]]
        return prefixes_N

    def weights(self, ranked: Ranked) -> "NDArray[np.float64]":
        """Return the masses of the sets."""
        return ranked.masses_N

    def lightest(self, weights_N: "NDArray[np.float64]") -> "NDArray[np.float64]":
        """Return the squared cosine's part: the lighter set can't share more than it weighs."""
        return (self.cosine - SLACK) ** 2 * weights_N


@dataclass(frozen=True, slots=True, kw_only=True)
class Edited:
    """Alike but for some words: so many may be in one and not in the other, in any order."""

    words: int
    share: float
    """What they share must weigh this part of the second: "is there a ... of" is no question."""

    @property
    def num_buckets(self) -> int:
        """Return 1: counts are what is compared."""
        return 1

    def alike(self, sharing: Sharing) -> "NDArray[np.bool_]":
        """Return which pairs differ in so few words."""
        import numpy as np

        few_P = np.maximum(*sharing.sizes_P) - sharing.shared_P <= self.words
        return few_P & (sharing.mass_P >= (self.share - SLACK) * sharing.masses_P[1])

    def prefixes(self, ranked: Ranked, rarity: Rarity, side: Side) -> "NDArray[np.int64]":
        """Return one more than may differ."""
        import numpy as np

        return np.minimum(ranked.sizes_N, self.words + 1)

    def weights(self, ranked: Ranked) -> "NDArray[np.float64]":
        """Return the numbers of words."""
        return ranked.sizes_N.astype(float)

    def lightest(self, weights_N: "NDArray[np.float64]") -> "NDArray[np.float64]":
        """Return as many words less as may differ."""
        return weights_N - self.words
