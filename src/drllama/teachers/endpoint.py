"""A server that speaks OpenAI's chat completions, asked over HTTP: one request, one attempt."""

import asyncio
import importlib
import ipaddress
import os
import ssl
import time
from collections.abc import Callable, Collection
from dataclasses import replace
from datetime import UTC, datetime
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any, Self, assert_never, final
from urllib.parse import urlsplit

from drllama.errors import MissingExtra, RecipeError, TeacherFailure
from drllama.recipe import Endpoint
from drllama.teachers.answers import Refusal, completion_or_failure, failure_of
from drllama.types import FailureKind, Reply, ReplyForm, TeacherRequest

if TYPE_CHECKING:
    from openai import AsyncOpenAI

LONGEST_CONNECT_SECONDS = 10.0
_OPENAI_HOST = "api.openai.com"
# A connection pool looks through all its connections for each request; several small ones take half the time.
_CONNECTIONS_IN_LANE = 16


def host_of(base_url: str) -> str:
    """Return the host that a base URL names.

    Raises:
        RecipeError: it isn't an http(s) address, or it carries a password or a query.
    """
    parts = urlsplit(base_url)
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        # Not quoted: what stands there may be a secret.
        raise RecipeError(
            "teacher.base_url must not hold a user name, a password or a query; put the key into the environment "
            "variable that teacher.api_key_env names"
        )
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise RecipeError(f"teacher.base_url {base_url!r} is not an address such as https://api.openai.com/v1")
    return parts.hostname


def is_this_machine(host: str) -> bool:
    """Return whether the host is a loopback name or address.

    >>> is_this_machine("127.0.0.1"), is_this_machine("localhost"), is_this_machine("localhost.example")
    (True, True, False)
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def check_host(base_url: str, allow_hosts: Collection[str]) -> str:
    """Return the host that a base URL names, if text may be sent there.

    Raises:
        RecipeError: it is another machine, and not allowed by name.
    """
    host = host_of(base_url)
    if not is_this_machine(host) and host.lower() not in {allowed.lower() for allowed in allow_hosts}:
        raise RecipeError(
            f"nothing may be sent to {host}: it isn't in allow_hosts ({', '.join(sorted(allow_hosts)) or 'empty'}); "
            f"add {host} there if your text may leave this machine for it"
        )
    return host


def penalty_fields(penalty: float | None, dialect: str) -> dict[str, float]:
    """Return how a dialect says a repetition penalty, nothing for none.

    Raises:
        RecipeError: the dialect has no word for it.
    """
    match dialect:
        case _ if penalty is None:
            return {}
        case "vllm":
            return {"repetition_penalty": penalty}
        case "llama.cpp":
            return {"repeat_penalty": penalty}
        case "ollama":
            raise RecipeError(
                "endpoint dialect ollama doesn't take repetition_penalty over chat completions; remove it and write "
                f"PARAMETER repeat_penalty {penalty:g} into the model's Modelfile"
            )
        case _:
            raise RecipeError(
                f"endpoint dialect {dialect} doesn't know repetition_penalty; remove it or set teacher.dialect to "
                "vllm or llama.cpp, if the server is one"
            )


@final
class ChatEndpoint:
    """One server and model; ``async with ChatEndpoint(...) as teacher``.

    Nothing is retried, redirects aren't followed, and proxies in the environment aren't used unless asked for. The
    key is read from the environment for each request, kept nowhere, and cut out of whatever the server says.
    """

    def __init__(
        self,
        settings: Endpoint,
        *,
        allow_hosts: Collection[str] = (),
        usd_per_million_tokens: tuple[float, float] | None = None,
        proxies_from_environment: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Check where requests would go; nothing is opened before the first one.

        Raises:
            RecipeError: the host isn't allowed.
        """
        self._host = check_host(settings.base_url, allow_hosts)
        self._settings = settings
        self._prices = usd_per_million_tokens or settings.usd_per_million_tokens
        self._trust_env = proxies_from_environment
        self._clock = clock
        self._client: AsyncOpenAI | None = None
        self._endpoint = settings.base_url.rstrip("/")

    def __repr__(self) -> str:
        return f"ChatEndpoint({self._endpoint!r}, model={self._settings.model!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._client is not None:
            await self._client.close()
            self._client = None

    @property
    def endpoint(self) -> str:
        """The base URL, without a slash at its end."""
        return self._endpoint

    async def ask(self, request: TeacherRequest) -> Reply:
        """Return the reply to one request that is sent once.

        Raises:
            TeacherFailure: there is none.
            RecipeError: the dialect doesn't know a setting; nothing was sent.
        """
        assert request.endpoint == self._endpoint, f"request for {request.endpoint} at {self._endpoint}"
        payload = self._payload(request)
        started = self._clock()
        outcome = await self._exchange(payload)
        if isinstance(outcome, TeacherFailure):
            # Raised here, far from the client's own error, which holds the request and with it the key.
            raise outcome
        return replace(outcome, seconds=self._clock() - started)

    def _payload(self, request: TeacherRequest) -> dict[str, object]:
        sampling = request.sampling
        payload: dict[str, object] = {
            "model": request.model,
            "messages": [{"role": one.role, "content": one.content} for one in request.messages],
            "temperature": sampling.temperature,
            # OpenAI's newer models refuse the older name, other servers don't know the newer one.
            "max_completion_tokens" if self._host == _OPENAI_HOST else "max_tokens": sampling.max_tokens,
        }
        if sampling.top_p is not None:
            payload["top_p"] = sampling.top_p
        payload |= penalty_fields(sampling.repetition_penalty, self._settings.dialect)
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

    async def _exchange(self, payload: dict[str, object]) -> Reply | TeacherFailure:
        key = self._key()
        if isinstance(key, TeacherFailure):
            return key
        client, http, openai = self._open()
        headers = {"Authorization": f"Bearer {key}" if key else openai.Omit()}
        seconds = self._settings.timeout_seconds
        try:
            async with asyncio.timeout(seconds):
                response = await client.post(
                    "/chat/completions", cast_to=http.Response, body=payload, options={"headers": headers}
                )
        except (TimeoutError, openai.APITimeoutError):
            return TeacherFailure(
                f"{self._endpoint} gave no answer within {seconds:g} s (teacher.timeout_seconds)",
                kind=FailureKind.TIMEOUT,
            )
        except openai.APIStatusError as error:
            refusal = Refusal(status=error.status_code, headers=error.response.headers, body=error.body)
            failure = failure_of(refusal, who=self._endpoint, key_env=self._settings.api_key_env, now=datetime.now(UTC))
            return _without(key, failure)
        except openai.OpenAIError as error:
            # The cause's name alone: its words may quote a header.
            what = type(error.__cause__ or error).__name__
            return TeacherFailure(f"{self._endpoint}: the connection broke ({what})", kind=FailureKind.TRANSIENT)
        return self._reply(response.content, key)

    def _reply(self, raw: bytes, key: str) -> Reply | TeacherFailure:
        answer = completion_or_failure(raw, who=self._endpoint)
        if isinstance(answer, TeacherFailure):
            return _without(key, answer)
        cost = None
        if self._prices is not None and answer.tokens_in is not None and answer.tokens_out is not None:
            cost = (answer.tokens_in * self._prices[0] + answer.tokens_out * self._prices[1]) / 1_000_000
        return Reply(
            text=_scrubbed(answer.text, key),
            finish=answer.finish,
            tokens_in=answer.tokens_in,
            tokens_out=answer.tokens_out,
            seconds=0.0,
            cost_usd=cost,
        )

    def _key(self) -> str | TeacherFailure:
        """Return the key, empty for a local server without one."""
        name = self._settings.api_key_env
        key = os.environ.get(name, "").strip()
        if not key and not is_this_machine(self._host):
            return TeacherFailure(
                f"the key for {self._endpoint} is read from the environment variable {name}, which isn't set; "
                "set it, or name another variable in teacher.api_key_env",
                kind=FailureKind.AUTH,
            )
        if not (key.isascii() and key.isprintable()) or " " in key:
            return TeacherFailure(
                f"the environment variable {name} holds characters that no key has; set it anew",
                kind=FailureKind.AUTH,
            )
        return key

    # Any: the client stands on httpx or on httpx2, whichever the installed openai was made for.
    def _open(self) -> tuple[Any, Any, ModuleType]:
        try:
            openai = importlib.import_module("openai")
        except ImportError as error:
            raise MissingExtra("an HTTP teacher needs openai; install it with: pip install openai") from error
        http = importlib.import_module(openai.DefaultAsyncHttpxClient.__mro__[1].__module__.partition(".")[0])
        if self._client is None:
            seconds = self._settings.timeout_seconds
            more = (
                {} if self._trust_env else {"transport": _Lanes(http, self._trust(http), self._settings.max_in_flight)}
            )
            ours = {} if self._host == _OPENAI_HOST else {
                "OpenAI-Organization": openai.Omit(), "OpenAI-Project": openai.Omit()
            }  # fmt: skip
            self._client = openai.AsyncOpenAI(
                base_url=self._endpoint,
                api_key="sent with each request",
                max_retries=0,
                timeout=http.Timeout(seconds, connect=min(seconds, LONGEST_CONNECT_SECONDS)),
                default_headers=ours,
                http_client=openai.DefaultAsyncHttpxClient(
                    follow_redirects=False, trust_env=self._trust_env, limits=_no_limits(http), **more
                ),
            )
        return self._client, http, openai

    def _trust(self, http: Any) -> ssl.SSLContext:  # noqa: ANN401 - httpx or httpx2
        if urlsplit(self._endpoint).scheme == "https":
            trusted: ssl.SSLContext = http.create_ssl_context(trust_env=False)
            return trusted
        # Without TLS nothing needs to be trusted; reading the machine's certificates takes longer than a request.
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def _no_limits(http: Any) -> Any:  # noqa: ANN401 - httpx or httpx2
    # The default keeps 100 connections alive and opens the rest anew for each request.
    return http.Limits(max_connections=None, max_keepalive_connections=None)


@final
class _Lanes:
    """A transport of several small connection pools; the least busy one takes the next request."""

    def __init__(self, http: Any, verify: ssl.SSLContext, max_in_flight: int) -> None:  # noqa: ANN401
        num_lanes = -(-max_in_flight // _CONNECTIONS_IN_LANE)
        self._lanes = [
            http.AsyncHTTPTransport(verify=verify, trust_env=False, limits=_no_limits(http)) for _ in range(num_lanes)
        ]
        self._busy = [0] * num_lanes

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def handle_async_request(self, request: object) -> object:
        lane = min(range(len(self._lanes)), key=self._busy.__getitem__)
        self._busy[lane] += 1
        try:
            return await self._lanes[lane].handle_async_request(request)
        finally:
            self._busy[lane] -= 1

    async def aclose(self) -> None:
        for lane in self._lanes:
            await lane.aclose()


def _scrubbed(text: str, key: str) -> str:
    return text.replace(key, "***") if key else text


def _without(key: str, failure: TeacherFailure) -> TeacherFailure:
    return TeacherFailure(
        _scrubbed(str(failure), key), kind=failure.kind, retry_after_seconds=failure.retry_after_seconds
    )
