"""What several seeds tell about a setting: their mean and Student's interval around it."""

import math
from collections.abc import Sequence
from statistics import fmean, stdev

from drllama.stats.student_t import t_quantile
from drllama.types import OverSeeds


def over_seeds(each: Sequence[float], *, level: float, lowest: float = 0.0, highest: float = math.inf) -> OverSeeds:
    """Return the mean of a number over seeds with Student's t interval, cut where the number can't be.

    Raises:
        ValueError: there are no seeds.

    >>> found = over_seeds([0.60, 0.62, 0.64], level=0.95)
    >>> round(found.value, 3), round(found.low, 3), round(found.high, 3)
    (0.62, 0.57, 0.67)
    """
    if not each:
        raise ValueError("over_seeds: no seeds; the mean of nothing is not 0")
    value, low, high = fmean(each), None, None
    if len(each) > 1:
        reach = t_quantile(1 - level, len(each) - 1) * stdev(each) / math.sqrt(len(each))
        low, high = max(lowest, value - reach), min(highest, value + reach)
    return OverSeeds(value=value, low=low, high=high, each=tuple(each), level=level)
