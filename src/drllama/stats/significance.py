"""Whether chance explains a difference: exact McNemar, Holm over several, and two sources of error in one test."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb, pi, sqrt, tan
from statistics import NormalDist

from drllama.stats.student_t import t_quantile, t_tails

SMALLEST_P = 1e-12
"""Below it the sums of a t distribution are rounding noise."""

_NORMAL = NormalDist()
_HALVINGS = 60


def mcnemar(gained: int, lost: int) -> float:
    """Return the two-sided p-value of the exact McNemar test (McNemar 1947): gains as likely as losses.

    >>> mcnemar(5, 0), mcnemar(0, 0)
    (0.0625, 1.0)
    """
    discordant = gained + lost
    tail = sum(comb(discordant, number) for number in range(min(gained, lost) + 1))
    # A quotient of whole numbers: exact however many there are, where powers of floats would run out.
    return min(1.0, 2 * tail / (1 << discordant))


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Return p-values after Holm (1979): the smallest times their number, the next times one less, never falling.

    >>> holm([0.01, 0.04, 0.03])
    (0.03, 0.06, 0.06)
    """
    adjusted = [1.0] * len(p_values)
    largest = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda place: p_values[place])):
        largest = min(1.0, max(largest, p_values[place] * (len(p_values) - rank)))
        adjusted[place] = largest
    return tuple(adjusted)


@dataclass(frozen=True, slots=True, kw_only=True)
class Errors:
    """How far a mean over items and seeds may be off, by its two causes."""

    item: float
    """Standard error that comes from the items; known as from a normal distribution."""
    seed: float | None
    """Standard error that comes from the seeds; None: one seed can't tell."""
    seed_df: int
    """Degrees of freedom behind ``seed``."""

    @property
    def both(self) -> float:
        """Return the standard error of both together."""
        return sqrt(self.item**2 + (self.seed or 0.0) ** 2)

    def reach(self, p_value: float) -> float:
        """Return how far from 0 a difference must lie to have this p-value.

        Each cause has its own quantile, of the normal distribution and of t, and their squares are added: an error that
        few seeds show to be small by luck still counts.
        """
        return sqrt((_normal_quantile(p_value) * self.item) ** 2 + self._seed_reach(p_value) ** 2)

    def detectable(self, p_value: float, power: float = 0.8) -> float:
        """Return the true difference that gets at most this p-value with this power."""
        return self.reach(p_value) + _NORMAL.inv_cdf(power) * self.both

    def p_value(self, difference: float) -> float:
        """Return the two-sided p-value of a difference: where ``reach`` is as far."""
        if difference == 0 or self.both == 0:
            return 1.0 if difference == 0 else SMALLEST_P
        if not self.seed:
            return max(SMALLEST_P, 2 * _NORMAL.cdf(-abs(difference) / self.item))
        low, high = 0.0, pi / 2
        for _ in range(_HALVINGS):
            angle = (low + high) / 2
            tails = max(SMALLEST_P, t_tails(angle, self.seed_df))
            seed_reach = sqrt(self.seed_df) * tan(angle) * self.seed
            is_short = (_normal_quantile(tails) * self.item) ** 2 + seed_reach**2 < difference**2
            low, high = (angle, high) if is_short else (low, angle)
        return max(SMALLEST_P, t_tails(high, self.seed_df))

    def _seed_reach(self, p_value: float) -> float:
        return t_quantile(p_value, self.seed_df) * self.seed if self.seed else 0.0


def _normal_quantile(p_value: float) -> float:
    return -_NORMAL.inv_cdf(p_value / 2)
