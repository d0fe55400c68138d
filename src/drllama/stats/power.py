"""What a test set can show at all."""

import math
from statistics import NormalDist


def detectable_difference(
    n: int, *, discordant_share: float = 0.15, power: float = 0.8, level: float = 0.95
) -> float | None:
    """Return the smallest paired difference in accuracy that McNemar's test finds with this power.

    None: the questions are too few, even for a system that wins all those on which the two differ.

    ``discordant_share`` is the share of questions that exactly one of the two systems answers rightly; normal
    approximation of Connor (1987). Two students fine-tuned on the same real rows differ on about 15 to 20 %.

    >>> round(detectable_difference(500), 3)
    0.048
    """
    if n < 1:
        raise ValueError("detectable_difference: no questions")
    alpha_quantile, power_quantile = NormalDist().inv_cdf((1 + level) / 2), NormalDist().inv_cdf(power)

    def is_found(difference: float) -> bool:
        spread = alpha_quantile * math.sqrt(discordant_share)
        spread += power_quantile * math.sqrt(max(0.0, discordant_share - difference**2))
        return difference * math.sqrt(n) >= spread

    low, high = 0.0, discordant_share
    if not is_found(high):
        return None
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if is_found(middle) else (middle, high)
    return high
