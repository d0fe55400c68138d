"""Replies that are kept before they are used, and never bought twice."""

import asyncio
from typing import final

from drllama.errors import TeacherFailure
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


@final
class Kept:
    """A teacher whose every attempt is kept, a failed one with its kind, before anybody uses it.

    It stands next to the teacher itself: what doesn't reach it wasn't sent.
    """

    def __init__(self, teacher: Teacher, replies: Replies) -> None:
        self._teacher = teacher
        self._replies = replies

    @property
    def endpoint(self) -> str:
        """Where requests go."""
        return self._teacher.endpoint

    async def ask(self, request: TeacherRequest) -> Reply:
        """Return the reply, which is kept by then."""
        try:
            reply = await self._teacher.ask(request)
        except TeacherFailure as failure:
            self._replies.keep(request, failure)
            raise
        self._replies.keep(request, reply)
        return reply
