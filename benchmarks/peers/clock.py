"""What the benchmarks measure with, in every environment: a clock and the highest memory."""

import os
import resource
import time


def now() -> float:
    """Return seconds that only differences of mean something.

    On one thread they are CPU seconds, which other people's jobs lengthen little; else the wall's.
    """
    return time.process_time() if os.environ.get("OMP_NUM_THREADS") == "1" else time.perf_counter()


def rss_mib() -> float:
    """Return the highest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
