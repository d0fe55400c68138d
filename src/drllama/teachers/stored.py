"""Replies that are kept before they are used, and never bought twice."""

import asyncio
from dataclasses import dataclass
from typing import Self, final

from drllama.errors import DataError, NotSent, TeacherFailure
from drllama.protocols import Replies, Teacher
from drllama.types import Reply, TeacherRequest


@final
class Stored:
    """A teacher that is asked only for what isn't kept already; equal requests at the same time are asked once."""

    def __init__(self, teacher: Teacher, replies: Replies) -> None:
        self._teacher = teacher
        self._replies = replies
        self._asking: dict[str, asyncio.Future[Reply | TeacherFailure | None]] = {}

    @property
    def endpoint(self) -> str:
        """Where requests go."""
        return self._teacher.endpoint

    async def ask(self, request: TeacherRequest) -> Reply:
        """Return the kept reply, or the teacher's."""
        key = request.key
        while (kept := self._replies.find(key)) is None:
            asking = self._asking.get(key)
            if asking is None:
                return await self._ask_first(request, key)
            await asyncio.wait({asking})
            match asking.result():
                case Reply() as reply:
                    return reply
                case TeacherFailure() as failure:
                    raise TeacherFailure(str(failure), kind=failure.kind)
                case None:
                    continue  # The one who asked was cancelled or stopped by a limit: this one asks for itself.
        return kept

    async def _ask_first(self, request: TeacherRequest, key: str) -> Reply:
        told = self._asking[key] = asyncio.get_running_loop().create_future()
        outcome: Reply | TeacherFailure | None = None
        try:
            outcome = await self._teacher.ask(request)
        except TeacherFailure as failure:
            outcome = failure
            raise
        finally:
            del self._asking[key]
            told.set_result(outcome)
        return outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class _Attempt:
    request: TeacherRequest
    outcome: Reply | TeacherFailure
    kept: asyncio.Future[None]
    """Done when a power cut can't lose the attempt any more."""


@final
class Kept:
    """A teacher whose every attempt is kept, a failed one with its kind, before anybody uses it.

    It stands outside ``Limited``: while a reply is being written, the next request has its place at the server.
    Attempts that end while others are being written are written together, in a thread, for the price of one. ``async
    with`` waits at its end for the last of them: whoever asked may be gone, the reply is paid for all the same.
    """

    def __init__(self, teacher: Teacher, replies: Replies) -> None:
        self._teacher = teacher
        self._replies = replies
        self._ended: list[_Attempt] = []
        self._writing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        while self._writing is not None:
            await asyncio.wait({self._writing})

    @property
    def endpoint(self) -> str:
        """Where requests go."""
        return self._teacher.endpoint

    async def ask(self, request: TeacherRequest) -> Reply:
        """Return the reply, which is kept by then.

        Raises:
            TeacherFailure: there is none; that is kept too.
            StoreError: it can't be kept.
        """
        outcome: Reply | TeacherFailure
        try:
            outcome = await self._teacher.ask(request)
        except NotSent:
            raise  # No attempt: there is nothing to keep.
        except TeacherFailure as failure:
            outcome = failure
        kept = asyncio.get_running_loop().create_future()
        self._ended.append(_Attempt(request=request, outcome=outcome, kept=kept))
        if self._writing is None:
            # A task begins in the next turn of the loop: what ends in this one is written with it.
            self._writing = asyncio.create_task(self._write())
        await kept
        if isinstance(outcome, TeacherFailure):
            raise outcome
        return outcome

    async def _write(self) -> None:
        try:
            while self._ended:
                together, self._ended = self._ended, []
                await self._keep(together)
        except asyncio.CancelledError:
            # The loop is ending. A thread still writes what it was given; nobody else will write the rest.
            self._replies.keep_many([(one.request, one.outcome) for one in self._ended])
            raise
        finally:
            self._writing = None

    async def _keep(self, together: list[_Attempt]) -> None:
        written = asyncio.get_running_loop().run_in_executor(
            None, self._replies.keep_many, [(one.request, one.outcome) for one in together]
        )
        await asyncio.wait({written})
        error = written.exception()
        if isinstance(error, DataError) and len(together) > 1:
            # One of them can't be written; it must not take the others with it.
            for one in together:
                await self._keep([one])
            return
        for one in together:
            if one.kept.done():
                continue  # Cancelled: nobody waits for it, and it is kept.
            if error is None:
                one.kept.set_result(None)
            else:
                one.kept.set_exception(error)
