"""Intervals: Wilson's for proportions, the percentile bootstrap for everything that is made of sums over items.

Letters in names of arrays: N items, F columns that are summed over items, B resamplings, S statistics made of the sums.
"""

from collections.abc import Callable, Iterator
from math import sqrt
from statistics import NormalDist
from typing import TYPE_CHECKING, TypeAlias

from drllama.types import Estimate

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats: TypeAlias = NDArray[np.float64]

_DRAWS_AT_ONCE = 2_000_000
"""Items drawn before they are summed: bounds the memory (three arrays of 16 MB) whatever the number of items."""


def wilson(successes: int, n: int, *, level: float = 0.95) -> Estimate:
    """Return a proportion with its Wilson score interval, which stays inside [0, 1] and is never a point.

    Raises:
        ValueError: there are no observations, or more successes than observations.

    >>> str(wilson(370, 500))
    '0.740 [0.700, 0.777] (n=500, wilson 95%)'
    """
    if n <= 0:
        raise ValueError(f"wilson: {n} observations; an interval of nothing is not [0, 0]")
    if not 0 <= successes <= n:
        raise ValueError(f"wilson: {successes} successes in {n} observations")
    z = NormalDist().inv_cdf((1 + level) / 2)
    share = successes / n
    centre = share + z * z / (2 * n)
    reach = z * sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    # At the ends the exact bound is 0 or 1; rounding must not push it past the value.
    low = 0.0 if successes == 0 else (centre - reach) / scale
    high = 1.0 if successes == n else (centre + reach) / scale
    return Estimate(value=share, low=low, high=high, n=n, level=level, method="wilson")


def unknown_share(level: float) -> Estimate:
    """Return what 0 of 0 says about a proportion: 0 by sklearn's convention, and an interval that excludes nothing."""
    return Estimate(value=0.0, low=0.0, high=1.0, n=0, level=level, method="wilson")


def bootstrap(
    columns_NF: "Floats",
    statistics: "Callable[[Floats], Floats]",
    *,
    samples: int,
    level: float,
    seed: int,
) -> tuple[Estimate, ...]:
    """Return statistics of the columns' sums, each with its percentile bootstrap interval over items.

    ``statistics`` gets sums [B, F] and gives values [B, S]. An interval is widened to its value where resampling is
    biased: the calibration error of a resample is larger than that of the items themselves.
    """
    import numpy as np

    num_items = len(columns_NF)
    values_S = statistics(columns_NF.sum(axis=0, keepdims=True))[0]
    sums_BF = resampled_sums(columns_NF, samples=samples, seed=seed)
    tail = (1 - level) / 2
    lows_S, highs_S = np.quantile(statistics(sums_BF), [tail, 1 - tail], axis=0)
    return tuple(
        Estimate(
            value=float(value),
            low=float(min(low, value)),
            high=float(max(high, value)),
            n=num_items,
            level=level,
            method="bootstrap",
        )
        for value, low, high in zip(values_S, lows_S, highs_S, strict=True)
    )


def resampled_sums(columns_NF: "Floats", *, samples: int, seed: int) -> "Floats":
    """Return the columns' sums [B, F] over items drawn with replacement, as many draws as there are items."""
    import numpy as np

    sums_BF = np.concatenate(list(_blocks_of_sums(columns_NF, samples=samples, seed=seed)))
    assert sums_BF.shape == (samples, columns_NF.shape[1]), f"{sums_BF.shape} sums of {samples} resamplings"
    return sums_BF


def _blocks_of_sums(columns_NF: "Floats", *, samples: int, seed: int) -> "Iterator[Floats]":
    """Yield the columns' sums over items drawn with replacement, a block of resamplings at a time."""
    import numpy as np

    rng = np.random.default_rng(seed)
    num_items = len(columns_NF)
    at_once = max(1, _DRAWS_AT_ONCE // num_items)
    for start in range(0, samples, at_once):
        num_rows = min(at_once, samples - start)
        drawn_BN = rng.integers(num_items, size=(num_rows, num_items))
        drawn_BN += num_items * np.arange(num_rows)[:, None]
        times_BN = np.bincount(drawn_BN.ravel(), minlength=num_rows * num_items).reshape(num_rows, num_items)
        yield times_BN.astype(np.float64) @ columns_NF
