"""How many requests a server gets at once and in a minute, adapting to what it says it can take."""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

from drllama.errors import DrLlamaError, TeacherFailure
from drllama.protocols import Teacher
from drllama.teachers.retry import Sleep
from drllama.types import FailureKind, Reply, TeacherRequest

WINDOW_SECONDS = 60.0
DECREASE = 0.6
"""What remains of the allowed requests in flight after a burst of refusals."""
SUCCESSES_TO_INCREASE = 20
"""Replies after which one more request in flight is tried."""


def estimated_tokens(request: TeacherRequest) -> int:
    """Return a guess of a request's tokens, for pacing only: four characters a token, and the longest reply."""
    return sum(len(one.content) for one in request.messages) // 4 + request.sampling.max_tokens


@dataclass(slots=True, eq=False)
class Booking:
    """One amount in a window."""

    at: float
    amount: int
    expired: bool = False


@final
class Window:
    """Holds a sum over any 60 seconds at or below a limit; None: there is no limit."""

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._bookings: deque[Booking] = deque()
        self._sum = 0

    def wait_seconds(self, amount: int, now: float) -> float:
        """Return how long the amount must wait, 0 if it may be booked now.

        An amount above the limit itself waits for an empty window, and then goes alone.
        """
        if self._limit is None:
            return 0.0
        while self._bookings and self._bookings[0].at + WINDOW_SECONDS <= now:
            expired = self._bookings.popleft()
            expired.expired = True
            self._sum -= expired.amount
        over = self._sum + min(amount, self._limit) - self._limit
        for booking in self._bookings:
            if over <= 0:
                break
            over -= booking.amount
            if over <= 0:
                return booking.at + WINDOW_SECONDS - now
        return 0.0

    def book(self, amount: int, now: float) -> Booking:
        """Return the booking of an amount."""
        booking = Booking(now, amount)
        if self._limit is not None:
            self._bookings.append(booking)
            self._sum += amount
        return booking

    def correct(self, booking: Booking, amount: int) -> None:
        """Replace a booked guess by the true amount."""
        if self._limit is not None and not booking.expired:
            self._sum += amount - booking.amount
            booking.amount = amount


@dataclass(frozen=True, slots=True)
class _Permit:
    tokens: Booking
    burst: int
    """How many bursts of refusals had been seen when the request was sent."""


@final
class Limited:
    """A teacher that gets as many requests as it takes: first come, first served.

    The number in flight falls once for each burst of refusals or timeouts (those sent before the fall don't count
    again) and rises with success. A Retry-After stops everybody. A permit is never lost, whatever the request ends in.
    """

    def __init__(
        self,
        teacher: Teacher,
        *,
        max_in_flight: int,
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._teacher = teacher
        self._max_in_flight = max_in_flight
        self._requests = Window(requests_per_minute)
        self._tokens = Window(tokens_per_minute)
        self._clock = clock
        self._sleep = sleep
        self._turn = asyncio.Lock()
        self._changed = asyncio.Event()
        self._paused_until = -math.inf
        self._successes = 0
        self._burst = 0
        self._allowed = float(max_in_flight)
        self.in_flight = 0
        """Requests at the server now."""

    @property
    def endpoint(self) -> str:
        """Where requests go."""
        return self._teacher.endpoint

    @property
    def allowed_in_flight(self) -> int:
        """Requests that may be at the server at once, as it stands."""
        return max(1, int(self._allowed))

    async def ask(self, request: TeacherRequest) -> Reply:
        """Return the reply, after waiting for a place."""
        permit = await self._enter(estimated_tokens(request))
        try:
            reply = await self._teacher.ask(request)
        except TeacherFailure as failure:
            self._after_failure(permit, failure)
            raise
        except DrLlamaError:
            # A limit or a setting stood in the way: nothing was sent.
            self._tokens.correct(permit.tokens, 0)
            raise
        else:
            self._after_success(permit, reply)
            return reply
        finally:
            self.in_flight -= 1
            self._changed.set()

    async def _enter(self, tokens: int) -> _Permit:
        # The lock keeps the order: only the first in line looks for a place.
        async with self._turn:
            while (seconds := self._wait_seconds(tokens)) > 0:
                self._changed.clear()
                await self._until_changed(seconds)
            # No await from here on: a cancelled request takes nothing with it.
            now = self._clock()
            self._requests.book(1, now)
            self.in_flight += 1
            return _Permit(self._tokens.book(tokens, now), self._burst)

    def _wait_seconds(self, tokens: int) -> float:
        if self.in_flight >= self.allowed_in_flight:
            return math.inf
        now = self._clock()
        return max(
            self._paused_until - now, self._requests.wait_seconds(1, now), self._tokens.wait_seconds(tokens, now)
        )

    async def _until_changed(self, seconds: float) -> None:
        if seconds == math.inf:
            await self._changed.wait()
            return
        both = {asyncio.ensure_future(self._changed.wait()), asyncio.ensure_future(self._sleep(seconds))}
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in both:
                one.cancel()

    def _after_success(self, permit: _Permit, reply: Reply) -> None:
        if reply.tokens_in is not None and reply.tokens_out is not None:
            self._tokens.correct(permit.tokens, reply.tokens_in + reply.tokens_out)
        if permit.burst == self._burst:
            self._successes += 1
            if self._successes >= SUCCESSES_TO_INCREASE:
                self._successes = 0
                self._allowed = min(self._max_in_flight, self._allowed + 1)

    def _after_failure(self, permit: _Permit, failure: TeacherFailure) -> None:
        if failure.kind in {FailureKind.RATE, FailureKind.TIMEOUT} and permit.burst == self._burst:
            self._burst += 1
            self._successes = 0
            self._allowed = max(1.0, self.allowed_in_flight * DECREASE)
        if failure.kind == FailureKind.RATE and failure.retry_after_seconds is not None:
            self._paused_until = max(self._paused_until, self._clock() + failure.retry_after_seconds)
        if failure.kind in {FailureKind.RATE, FailureKind.AUTH, FailureKind.QUOTA, FailureKind.BAD_REQUEST}:
            self._tokens.correct(permit.tokens, 0)
