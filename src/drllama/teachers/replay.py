"""Recorded replies only: the same work again, offline and at no cost."""

from typing import final

from drllama.errors import TeacherFailure
from drllama.protocols import Replies
from drllama.types import FailureKind, Reply, TeacherRequest


@final
class Replay:
    """A teacher that answers from recorded replies and sends nothing, ever."""

    def __init__(self, replies: Replies, *, endpoint: str) -> None:
        self._replies = replies
        self._endpoint = endpoint

    @property
    def endpoint(self) -> str:
        """The endpoint that the recording names."""
        return self._endpoint

    async def ask(self, request: TeacherRequest) -> Reply:
        """Return the recorded reply.

        Raises:
            TeacherFailure: there is none; the message names the request.
        """
        reply = self._replies.find(request.key)
        if reply is None:
            raise TeacherFailure(
                f"no recorded reply to {request.prompt}, rollout {request.rollout}, of {request.model} "
                f"(key {request.key[:12]}); import the recording that has it with drllama replies import, "
                "or name a teacher that can be asked",
                kind=FailureKind.BAD_REQUEST,
            )
        return reply
