"""A server that speaks OpenAI's chat completions: one request, one attempt."""

import json
import time
from collections.abc import Callable, Collection
from dataclasses import replace
from datetime import UTC, datetime
from types import TracebackType
from typing import Self, assert_never, final

from drllama.errors import TeacherFailure
from drllama.recipe import Endpoint
from drllama.teachers.answers import Completion, completion_or_failure, failure_of, refusal_of
from drllama.teachers.dialects import sampling_fields
from drllama.teachers.http import OPENAI_HOST, Answer, HttpClient
from drllama.types import Reply, ReplyForm, TeacherRequest

_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


@final
class ChatEndpoint:
    """One server and model; ``async with ChatEndpoint(...) as teacher``."""

    def __init__(
        self,
        settings: Endpoint,
        *,
        allow_hosts: Collection[str] = (),
        usd_per_million_tokens: tuple[float, float] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Check where requests would go; nothing is opened before the first one.

        Raises:
            RecipeError: the host isn't allowed, or has no key named for it.
        """
        self._client = HttpClient(
            settings.base_url,
            api_key_env=settings.api_key_env,
            allow_hosts=allow_hosts,
            timeout_seconds=settings.timeout_seconds,
            max_in_flight=settings.max_in_flight,
        )
        self._settings = settings
        self._prices = usd_per_million_tokens or settings.usd_per_million_tokens
        self._clock = clock

    def __repr__(self) -> str:
        return f"ChatEndpoint({self.endpoint!r}, model={self._settings.model!r})"

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.__aexit__(kind, error, trace)

    @property
    def endpoint(self) -> str:
        """The base URL, without a slash at its end."""
        return self._client.base_url

    @property
    def client(self) -> HttpClient:
        """The connection, for what else is said to the same server."""
        return self._client

    async def ask(self, request: TeacherRequest) -> Reply:
        """Return the reply to one request that is sent once.

        Raises:
            TeacherFailure: there is none.
            RecipeError: the dialect doesn't know a setting; nothing was sent.
        """
        assert request.endpoint == self.endpoint, f"request for {request.endpoint} at {self.endpoint}"
        sent = self.body_of(request)
        started = self._clock()
        answer = await self._client.exchange("POST", "/chat/completions", body=sent)
        seconds = self._clock() - started
        outcome = self.outcome_of(answer)
        if isinstance(outcome, TeacherFailure):
            raise outcome
        return replace(outcome, seconds=seconds)

    def body_of(self, request: TeacherRequest) -> bytes:
        """Return what is sent for a request, live or in a batch: JSON on one line.

        Raises:
            RecipeError: the dialect doesn't know a setting.
        """
        return _ENCODER.encode(self._payload(request)).encode()

    def outcome_of(self, answer: Answer) -> Reply | TeacherFailure:
        """Return what an answer to a request comes to, at this endpoint's prices; how long it took isn't in it."""
        read = self._read(answer)
        if isinstance(read, TeacherFailure):
            return TeacherFailure(
                self._client.scrubbed(str(read)), kind=read.kind, retry_after_seconds=read.retry_after_seconds
            )
        return Reply(
            text=self._client.scrubbed(read.text),
            finish=read.finish,
            tokens_in=read.tokens_in,
            tokens_out=read.tokens_out,
            seconds=0.0,
            cost_usd=self._cost_usd(read),
        )

    def _payload(self, request: TeacherRequest) -> dict[str, object]:
        payload: dict[str, object] = {
            "model": request.model,
            "messages": [{"role": one.role, "content": one.content} for one in request.messages],
            # OpenAI's newer models refuse the older name, other servers don't know the newer one.
            "max_completion_tokens" if self._client.host == OPENAI_HOST else "max_tokens": request.sampling.max_tokens,
            **sampling_fields(request.sampling, self._settings.dialect),
        }
        match request.form:
            case ReplyForm.SCHEMA:
                schema = {"name": "reply", "strict": True, "schema": dict(request.schema)}
                payload["response_format"] = {"type": "json_schema", "json_schema": schema}
            case ReplyForm.JSON:
                payload["response_format"] = {"type": "json_object"}
            case ReplyForm.PROMPT:
                pass
            case _ as other:
                assert_never(other)
        return payload

    def _read(self, answer: Answer) -> Completion | TeacherFailure:
        if 200 <= answer.status < 300:
            return completion_or_failure(answer.body, who=self.endpoint)
        refusal = refusal_of(answer.status, answer.headers, answer.body)
        return failure_of(refusal, who=self.endpoint, key_env=self._client.key_variable, now=datetime.now(UTC))

    def _cost_usd(self, read: Completion) -> float | None:
        if self._prices is None or read.tokens_in is None or read.tokens_out is None:
            return None
        return (read.tokens_in * self._prices[0] + read.tokens_out * self._prices[1]) / 1_000_000
