"""Asking again after a failure, and never again after some."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from random import Random
from typing import TypeVar, assert_never, final

from drllama.errors import NotSent, TeacherFailure
from drllama.ids import derive_seed
from drllama.protocols import Teacher
from drllama.types import FailureKind, Reply, TeacherRequest

T = TypeVar("T")
Sleep = Callable[[float], Awaitable[object]]

STOPS_EVERYTHING = frozenset({FailureKind.AUTH, FailureKind.QUOTA})
"""After one of these no other request would fare better."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How often a request is sent again after one kind of failure, and how long to wait before."""

    attempts: int
    """Requests sent in all that may end in this kind; 1: never again."""
    first_wait_seconds: float = 0.0
    """Upper end of the first wait; it doubles each time."""
    longest_wait_seconds: float = 0.0


def policy_for(kind: FailureKind) -> Policy:
    """Return what is done about a kind of failure."""
    match kind:
        case FailureKind.RATE:
            return Policy(attempts=10, first_wait_seconds=1.0, longest_wait_seconds=60.0)
        case FailureKind.TRANSIENT:
            return Policy(attempts=5, first_wait_seconds=0.5, longest_wait_seconds=30.0)
        case FailureKind.TIMEOUT:
            return Policy(attempts=3, first_wait_seconds=1.0, longest_wait_seconds=30.0)
        case FailureKind.UNREADABLE:
            return Policy(attempts=3, first_wait_seconds=0.5, longest_wait_seconds=10.0)
        case FailureKind.AUTH | FailureKind.QUOTA | FailureKind.BAD_REQUEST | FailureKind.CONTENT_FILTER:
            return Policy(attempts=1)
        case _ as other:
            assert_never(other)


async def retried(
    attempt: Callable[[], Awaitable[T]],
    *,
    name: str,
    seed: int,
    sleep: Sleep,
    again_after: Collection[FailureKind] = frozenset(FailureKind),
) -> T:
    """Return what the first attempt gives that doesn't fail; ``name`` and seed fix how long each wait is.

    Raises:
        TeacherFailure: the last attempt's failure, with the number of attempts.
    """
    failures: Counter[FailureKind] = Counter()
    while True:
        try:
            return await attempt()
        except TeacherFailure as failure:
            kind = FailureKind(failure.kind)
            failures[kind] += 1
            if kind not in again_after or failures[kind] >= policy_for(kind).attempts:
                raise _last(failure, failures.total()) from None
            policy, told_seconds = policy_for(kind), failure.retry_after_seconds or 0.0
        longest = min(policy.longest_wait_seconds, policy.first_wait_seconds * 2 ** (failures[kind] - 1))
        # Jitter over the whole range: requests that failed together don't come back together.
        jitter = Random(derive_seed(seed, "retry", name, failures.total())).uniform(0, longest)
        await sleep(told_seconds + jitter)


@final
class Retried:
    """A teacher that is asked again where that may help, a bounded number of times for each kind of failure.

    Every attempt goes through the wrapped teacher anew, so what stands inside (budget, limits, store) sees each.
    """

    def __init__(self, teacher: Teacher, *, seed: int, sleep: Sleep = asyncio.sleep) -> None:
        self._teacher = teacher
        self._seed = seed
        self._sleep = sleep

    @property
    def endpoint(self) -> str:
        """Where requests go."""
        return self._teacher.endpoint

    async def ask(self, request: TeacherRequest) -> Reply:
        """Return the reply of the first attempt that has one.

        Raises:
            TeacherFailure: the last attempt's failure, with the number of attempts.
        """
        return await retried(lambda: self._teacher.ask(request), name=request.key, seed=self._seed, sleep=self._sleep)


def _last(failure: TeacherFailure, attempts: int) -> TeacherFailure:
    if attempts == 1:
        return failure
    return TeacherFailure(
        f"{failure} (given up after {attempts} attempts)",
        kind=failure.kind,
        retry_after_seconds=failure.retry_after_seconds,
    )


@final
class Latched:
    """A teacher that sends nothing more once a key was refused or an account found empty.

    It stands inside the queue of ``Limited``, so that requests which wait there are stopped too.
    """

    def __init__(self, teacher: Teacher) -> None:
        self._teacher = teacher
        self._stopped_by: TeacherFailure | None = None

    @property
    def endpoint(self) -> str:
        """Where requests go."""
        return self._teacher.endpoint

    async def ask(self, request: TeacherRequest) -> Reply:
        """Return the reply.

        Raises:
            NotSent: an earlier request found that none will be answered.
            TeacherFailure: there is none.
        """
        if self._stopped_by is not None:
            raise NotSent(str(self._stopped_by), kind=self._stopped_by.kind)
        try:
            return await self._teacher.ask(request)
        except TeacherFailure as failure:
            if failure.kind in STOPS_EVERYTHING:
                self._stopped_by = failure
            raise
