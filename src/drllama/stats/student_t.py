"""Student's t for whole degrees of freedom: finite sums (Abramowitz and Stegun 26.7.3 and 26.7.4)."""

from functools import cache
from math import cos, pi, sin, sqrt, tan

_HALVINGS = 60


def t_tails(angle: float, df: int) -> float:
    """Return the probability that abs(t) is above sqrt(df) x tan(angle).

    The angle, in [0, pi / 2], instead of t: a bounded line can be halved until the root is found.

    Raises:
        ValueError: there isn't a single degree of freedom.
    """
    if df < 1:
        raise ValueError(f"t: {df} degrees of freedom; a spread can't be told from one observation")
    sine, cosine = sin(angle), cos(angle)
    is_odd = df % 2
    term = sum_of_terms = (cosine if df > 1 else 0.0) if is_odd else 1.0
    for k in range(2 + is_odd, df - 1, 2):
        term *= (k - 1) / k * cosine * cosine
        sum_of_terms += term
    inside = 2 / pi * (angle + sine * sum_of_terms) if is_odd else sine * sum_of_terms
    return min(1.0, max(0.0, 1 - inside))


@cache
def t_quantile(p_value: float, df: int) -> float:
    """Return the t whose two tails hold this probability.

    >>> round(t_quantile(0.05, 1), 2), round(t_quantile(0.05, 8), 3)
    (12.71, 2.306)
    """
    low, high = 0.0, pi / 2
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if t_tails(middle, df) > p_value else (low, middle)
    return sqrt(df) * tan(low)
