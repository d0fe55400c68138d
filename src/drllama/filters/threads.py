"""Two blocks at a time: numpy works on large arrays without Python's lock, so two threads use two cores."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

NUM_THREADS = 2
"""More take more memory; the memory's speed is the limit then."""


def in_order(work: Callable[[_Item], _Result], items: Iterable[_Item]) -> Iterator[_Result]:
    """Yield the result of the work on each item, in the items' order, with no more results waiting than threads."""
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        waiting: deque[Future[_Result]] = deque()
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > NUM_THREADS:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
