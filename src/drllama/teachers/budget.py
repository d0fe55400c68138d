"""Limits of money, calls and time that hold: what a request may cost is set aside before it is sent."""

import asyncio
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

from drllama.errors import BudgetSpent, RecipeError, TeacherFailure
from drllama.ids import canonical_json
from drllama.protocols import Teacher
from drllama.types import FailureKind, Reply, ReplyForm, TeacherRequest

_NANO = 1_000_000_000

# What a chat template may add: role marks for each message, and a preamble of its own for the conversation.
TOKENS_ADDED_BY_TEMPLATE = 256
TOKENS_ADDED_TO_MESSAGE = 16

UNBILLED = frozenset({FailureKind.RATE, FailureKind.AUTH, FailureKind.QUOTA, FailureKind.BAD_REQUEST})
"""The server turned the request away before any model read it. After all other failures it may have been answered and
charged, although nobody saw the answer."""


def most_tokens_in(request: TeacherRequest) -> int:
    """Return a number of prompt tokens that the request can't exceed: a token is at least one byte."""
    said = sum(len(one.content.encode()) + TOKENS_ADDED_TO_MESSAGE for one in request.messages)
    schema = len(canonical_json(request.schema).encode()) if request.form is ReplyForm.SCHEMA else 0
    return said + schema + TOKENS_ADDED_BY_TEMPLATE


def nano_usd(tokens_in: int, tokens_out: int, usd_per_million_tokens: tuple[float, float]) -> int:
    """Return what so many tokens cost, in billionths of a dollar, rounded up."""
    price_in, price_out = usd_per_million_tokens
    return math.ceil((tokens_in * price_in + tokens_out * price_out) * (_NANO // 1_000_000))


def worst_nano_usd(request: TeacherRequest, usd_per_million_tokens: tuple[float, float]) -> int:
    """Return what a request can't cost more than, in billionths of a dollar."""
    return nano_usd(most_tokens_in(request), request.sampling.max_tokens, usd_per_million_tokens)


@dataclass(frozen=True, slots=True)
class Reservation:
    """Money set aside for one request."""

    nano_usd: int


@final
class Ledger:
    """What was spent under which limits; one ledger may serve several teachers, one after another or at once."""

    def __init__(
        self,
        *,
        max_usd: float | None = None,
        max_calls: int | None = None,
        max_minutes: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.max_usd = max_usd
        self._max_calls = max_calls
        self._max_minutes = max_minutes
        self._clock = clock
        self._started = clock()
        self._spent = self._reserved = self._uncertain = 0
        self._uncertain_calls = 0
        self._settled: asyncio.Future[None] | None = None
        self.calls = 0
        """Requests sent, failed ones too; each attempt counts."""

    @property
    def spent_usd(self) -> float:
        """Money spent, at most: an attempt with an unknown outcome counts as what it may have cost."""
        return self._spent / _NANO

    @property
    def uncertain_usd(self) -> float:
        """The part of ``spent_usd`` for attempts whose outcome is unknown."""
        return self._uncertain / _NANO

    @property
    def reserved_usd(self) -> float:
        """Money set aside for requests on their way."""
        return self._reserved / _NANO

    async def reserve(self, nano_usd: int) -> Reservation:
        """Return once one call and this much money are set aside for a request.

        Where money is only set aside by others and may come back, this waits until they are through.

        Raises:
            BudgetSpent: the request can't be sent within the limits.
        """
        while (reason := self._refusal(nano_usd)) is None:
            if self.max_usd is None or self._spent + self._reserved + nano_usd <= round(self.max_usd * _NANO):
                return self.count(nano_usd)
            # A future of the running loop, made when needed: the ledger outlives the loop of one stage.
            if self._settled is None or self._settled.done():
                self._settled = asyncio.get_running_loop().create_future()
            await asyncio.wait({self._settled})
        raise BudgetSpent(reason)

    def reserve_now(self, nano_usd: int) -> Reservation:
        """Set aside one call and this much money without waiting for what others may give back.

        Raises:
            BudgetSpent: beside what is set aside already, the request can't be sent within the limits.
        """
        if (reason := self._refusal(nano_usd, beside=self._reserved)) is not None:
            raise BudgetSpent(reason)
        return self.count(nano_usd)

    def count(self, nano_usd: int) -> Reservation:
        """Set aside one call and this much money, limit or not: an earlier command sent the request."""
        self.calls += 1
        self._reserved += nano_usd
        return Reservation(nano_usd)

    def settle(self, reservation: Reservation, nano_usd: int | None) -> None:
        """Replace what was set aside by what was spent; None: nobody knows, so all of it counts as spent."""
        self._reserved -= reservation.nano_usd
        self._spent += reservation.nano_usd if nano_usd is None else nano_usd
        if nano_usd is None:
            self._uncertain += reservation.nano_usd
            self._uncertain_calls += 1
        self._tell()

    def give_back(self, reservation: Reservation) -> None:
        """Undo a reservation for a request that was never sent."""
        self._reserved -= reservation.nano_usd
        self.calls -= 1
        self._tell()

    def _tell(self) -> None:
        if self._settled is not None and not self._settled.done():
            self._settled.set_result(None)

    def _refusal(self, nano_usd: int, *, beside: int = 0) -> str | None:
        if self._max_calls == 0:
            return (
                "max_calls 0 allows no request, and not all that is asked is kept yet; drllama plan says what it "
                "takes, --max-usd or --max-calls allow it"
            )
        if self._max_calls is not None and self.calls >= self._max_calls:
            return self._line(f"max_calls {self._max_calls}", "--max-calls")
        if self._max_minutes is not None and self._clock() - self._started >= self._max_minutes * 60:
            return self._line(f"max_minutes {self._max_minutes:g}", "--max-minutes")
        if self.max_usd is not None and self._spent + beside + nano_usd > round(self.max_usd * _NANO):
            return self._line(
                f"max_usd {self.max_usd:g} (the next request may cost {nano_usd / _NANO:.6f})", "--max-usd"
            )
        return None

    def _line(self, limit: str, option: str) -> str:
        money = f", {self.spent_usd:.6f} USD spent" if self.max_usd is not None else ""
        if money and self._uncertain_calls:
            money += f" ({self.uncertain_usd:.6f} of it for {self._uncertain_calls} calls without a known outcome)"
        return (
            f"{limit} would be passed by the next request: {self.calls} calls sent{money}; "
            f"all replies are kept, so the same command with a higher {option} goes on from here"
        )


@final
class Budgeted:
    """A teacher that is asked only within the limits of a ledger.

    It stands inside ``Retried``: each attempt is reserved before it is sent. It stands inside ``Limited``: money is
    set aside when a request leaves, not while it queues.
    """

    def __init__(
        self, teacher: Teacher, ledger: Ledger, *, usd_per_million_tokens: tuple[float, float] | None = None
    ) -> None:
        """Watch over a teacher whose prompt and reply tokens have these prices; None: nobody knows them.

        Raises:
            RecipeError: the ledger limits money, and the price is unknown.
        """
        if ledger.max_usd is not None and usd_per_million_tokens is None:
            raise RecipeError(
                f"max_usd {ledger.max_usd:g} can't be held: the price of {teacher.endpoint} is unknown; "
                "give teacher.usd_per_million_tokens or drop --max-usd"
            )
        self._teacher = teacher
        self._ledger = ledger
        self._prices = usd_per_million_tokens or (0.0, 0.0)

    @property
    def endpoint(self) -> str:
        """Where requests go."""
        return self._teacher.endpoint

    async def ask(self, request: TeacherRequest) -> Reply:
        """Return the reply, paid for.

        Raises:
            BudgetSpent: nothing was sent.
            TeacherFailure: there is no reply; it may have cost something all the same.
        """
        reservation = await self._ledger.reserve(worst_nano_usd(request, self._prices))
        spent: int | None = None
        sent = True
        try:
            reply = await self._teacher.ask(request)
            if reply.tokens_in is not None and reply.tokens_out is not None:
                spent = nano_usd(reply.tokens_in, reply.tokens_out, self._prices)
        except TeacherFailure as failure:
            spent = 0 if failure.kind in UNBILLED else None
            raise
        except RecipeError:
            sent = False
            raise
        finally:
            if sent:
                self._ledger.settle(reservation, spent)
            else:
                self._ledger.give_back(reservation)
        return reply
