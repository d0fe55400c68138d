"""A chat completions server on this machine that breaks as a plan says, and remembers what it saw.

``FaultServer`` runs in a thread of its own; ``python server.py --latency 0.2`` runs one by itself and prints its URL.
"""

import argparse
import asyncio
import contextlib
import hashlib
import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from enum import StrEnum
from http import HTTPStatus
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from faults.batches import Desk


class Fault(StrEnum):
    """What goes wrong with one request."""

    NONE = "none"
    CUT_OFF = "cut off"
    """A reply that reached max_tokens: not a failure."""
    RATE = "429"
    RATE_TOLD = "429 with Retry-After in seconds"
    RATE_DATED = "429 with Retry-After as a date"
    QUOTA = "429 insufficient_quota"
    BROKEN = "500"
    GATEWAY = "502 with an HTML page"
    SLOW = "slow"
    HALF = "half a reply"
    CLOSED = "closed connection"
    WRONG_JSON = "wrong JSON"
    HTML = "200 with an HTML page"
    NO_CHOICES = "no choices"
    NULL_CONTENT = "null content"
    NO_USAGE = "no usage"
    """A reply that doesn't tell its tokens: not a failure."""
    CHUNKED = "chunked"
    """A reply in pieces without a length: not a failure."""
    ECHOED = "echoed key"
    """A reply that says the client's key, each character as a JSON escape: not a failure."""
    FILTERED = "finish_reason content_filter"
    FILTERED_400 = "400 content_filter"
    REFUSED = "refusal"
    TOO_LONG = "400 context_length_exceeded"
    NO_SUCH_MODEL = "404"
    AUTH = "401 that quotes the key"
    REDIRECT = "307 to another host"


LOST = frozenset(
    {Fault.SLOW, Fault.HALF, Fault.CLOSED, Fault.WRONG_JSON, Fault.HTML, Fault.NO_CHOICES, Fault.NULL_CONTENT}
)
"""Faults after which the server has done its work and the client has nothing."""

WHOLE = frozenset({Fault.NONE, Fault.CUT_OFF, Fault.NO_USAGE, Fault.CHUNKED, Fault.ECHOED})
"""No failure at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One request as a plan sees it."""

    sha256: str
    """Of the request's body: equal bodies are the same request."""
    body: Mapping[str, object]
    times: int
    """How often this body has come, this time included."""
    number: int
    """Which request of the server this is, from 1; 0 where bodies aren't kept."""
    in_flight: int
    """Requests that the server holds at this moment, this one included."""
    says: str
    """What it is answered unless a fault is in the way."""


Plan = Callable[[Seen], Fault]


def faultless(_: Seen) -> Fault:
    """Return no fault."""
    return Fault.NONE


def drawn(seed: int, shares: Mapping[Fault, float], *, at_most: int = 2) -> Plan:
    """Return a plan that draws a fault for each request and attempt, whatever the order they come in.

    Each body meets at most ``at_most`` faults, so that a bounded number of attempts is enough.
    """

    def plan(seen: Seen) -> Fault:
        if seen.times > at_most:
            return Fault.NONE
        left = Random(f"{seed} {seen.sha256} {seen.times}").random()
        for fault, share in shares.items():
            left -= share
            if left < 0:
                return fault
        return Fault.NONE

    return plan


def scripted(*faults: Fault) -> Plan:
    """Return a plan that gives each body these faults one after another, then none."""
    return lambda seen: faults[seen.times - 1] if seen.times <= len(faults) else Fault.NONE


def always(fault: Fault) -> Plan:
    """Return a plan with one fault for all."""
    return lambda _: fault


@dataclass(slots=True, kw_only=True)
class Book:
    """What the server saw and did."""

    received: Counter[str] = field(default_factory=Counter)
    """How often each body came, by its sha256."""
    history: dict[str, list[Fault]] = field(default_factory=dict)
    """What each body met, one fault for each time it came."""
    lost: Counter[str] = field(default_factory=Counter)
    """How often each body's reply never reached the client in a readable form."""
    answered: Counter[str] = field(default_factory=Counter)
    """How often each body got a whole reply."""
    body_of: dict[str, Mapping[str, object]] = field(default_factory=dict)
    bodies: list[Mapping[str, object]] = field(default_factory=list)
    headers: list[Mapping[str, str]] = field(default_factory=list)
    connections: int = 0
    in_flight: int = 0
    most_in_flight: int = 0


class FaultServer:
    """A server in a thread; ``with FaultServer(plan) as server: ... server.base_url``."""

    def __init__(
        self,
        plan: Plan = faultless,
        *,
        says: Callable[[Mapping[str, object]], str] | None = None,
        latency_seconds: float = 0.0,
        jitter_seconds: float = 0.0,
        slow_seconds: float = 5.0,
        retry_after_seconds: int = 1,
        keep_bodies: bool = True,
        desk: "Desk | None" = None,
    ) -> None:
        """``keep_bodies=False`` remembers nothing: memory stays flat over any number of requests.

        ``says`` gives the text of a reply for a request's body; without it, the reply names the body. Each reply takes
        ``latency_seconds`` and a share of ``jitter_seconds`` that its body decides.
        """
        self.desk = desk
        self.plan = plan
        self.says = says
        self.latency_seconds = latency_seconds
        self.jitter_seconds = jitter_seconds
        self.slow_seconds = slow_seconds
        self.retry_after_seconds = retry_after_seconds
        self.keep_bodies = keep_bodies
        self.book = Book()
        self.port = 0
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread: threading.Thread | None = None

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> "FaultServer":
        self._thread = threading.Thread(target=lambda: asyncio.run(self.serve(self._ready.set)), daemon=True)
        self._thread.start()
        assert self._ready.wait(10), "the fault server did not start"
        return self

    def __exit__(self, *_: object) -> None:
        assert self._loop is not None and self._stop is not None and self._thread is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        assert not self._thread.is_alive(), "the fault server did not stop"

    def carry_out(self, raw: bytes) -> tuple[int, bytes]:
        """Return status and body of the answer to a request that came as a line of a batch."""
        book, sha256 = self.book, hashlib.sha256(raw).hexdigest()
        book.received[sha256] += 1
        book.bodies.append(json.loads(raw))
        seen = Seen(
            sha256=sha256,
            body=book.bodies[-1],
            times=book.received[sha256],
            number=len(book.bodies),
            in_flight=0,
            says=heard(sha256) if self.says is None else self.says(book.bodies[-1]),
        )
        fault = self.plan(seen)
        book.body_of[sha256] = seen.body
        book.history.setdefault(sha256, []).append(fault)
        (book.lost if fault in LOST else book.answered)[sha256] += fault in LOST | WHOLE
        status, answer = _REFUSALS.get(fault) or (200, _answer_to(fault, seen))
        return status, answer if isinstance(answer, bytes) else json.dumps(answer).encode()

    async def serve(self, ready: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        open_connections: set[_Connection] = set()
        server = await self._loop.create_server(
            lambda: _Connection(self, open_connections), "127.0.0.1", 0, backlog=2048
        )
        self.port = server.sockets[0].getsockname()[1]
        ready()
        await self._stop.wait()
        server.close()
        for connection in list(open_connections):
            connection.abort()
        await asyncio.sleep(0)


class _Connection(asyncio.Protocol):
    """One HTTP/1.1 connection, one request at a time."""

    def __init__(self, server: FaultServer, open_connections: "set[_Connection]") -> None:
        self._server = server
        self._open = open_connections
        self._buffer = b""
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._busy = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._open.add(self)
        self._server.book.connections += 1

    def connection_lost(self, _: Exception | None) -> None:
        self._open.discard(self)
        if self._timer is not None:
            self._timer.cancel()
        self._free()
        self._transport = None

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, received: bytes) -> None:
        self._buffer += received
        head, found, rest = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return
        lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        length = int(headers.get("content-length", "0"))
        if len(rest) < length:
            return
        self._buffer = rest[length:]
        method, path, _ = lines[0].split(" ")
        if self._server.desk is not None and path.startswith(("/v1/files", "/v1/batches")):
            self._at_desk(self._server.desk, method, path, headers, rest[:length])
        else:
            self._take(headers, rest[:length])

    def _at_desk(self, desk: "Desk", method: str, path: str, headers: Mapping[str, str], raw: bytes) -> None:
        assert self._transport is not None
        self._server.book.headers.append(headers)
        answer = desk.answer(method, path, headers.get("content-type", ""), raw, self._server.carry_out)
        if answer is None:
            self._transport.abort()
            return
        status, body = answer
        if status:  # 0: the client waits for ever
            head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Length: {len(body)}\r\n\r\n"
            self._transport.write(head.encode() + body)

    def _take(self, headers: Mapping[str, str], raw: bytes) -> None:
        book, server = self._server.book, self._server
        sha256 = hashlib.sha256(raw).hexdigest()
        body = json.loads(raw) if raw else {}
        times = 1
        if server.keep_bodies:
            book.received[sha256] += 1
            times = book.received[sha256]
        book.in_flight += 1
        self._busy = True
        book.most_in_flight = max(book.most_in_flight, book.in_flight)
        if server.keep_bodies:
            book.bodies.append(body)
            book.headers.append(headers)
        seen = Seen(
            sha256=sha256,
            body=body,
            times=times,
            number=len(book.bodies),
            in_flight=book.in_flight,
            says=heard(sha256) if server.says is None else server.says(body),
        )
        fault = server.plan(seen)
        if server.keep_bodies:
            book.body_of[sha256] = body
            book.history.setdefault(sha256, []).append(fault)
        jitter_seconds = server.jitter_seconds * Random(f"{sha256} {times}").random() if server.jitter_seconds else 0
        delay = server.slow_seconds if fault is Fault.SLOW else server.latency_seconds + jitter_seconds
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(delay, self._answer, fault, seen, headers)

    def _free(self) -> None:
        if self._busy:
            self._server.book.in_flight -= 1
            self._busy = False

    def _answer(self, fault: Fault, seen: Seen, headers: Mapping[str, str]) -> None:
        self._free()
        if fault in LOST:
            self._server.book.lost[seen.sha256] += 1
        elif fault in WHOLE and self._server.keep_bodies:
            self._server.book.answered[seen.sha256] += 1
        if self._transport is None:
            return
        if fault is Fault.CLOSED:
            self._transport.abort()
            return
        head, body = _response(fault, seen, headers, self._server.retry_after_seconds)
        if fault is Fault.HALF:
            self._transport.write(head + body[: len(body) // 2])
            self._transport.close()
        else:
            self._transport.write(head + body)


def completion(seen: Seen, *, content: str | None, finish: str = "stop") -> dict[str, object]:
    """Return a chat completion's JSON; its token counts are a quarter of the characters."""
    asked = json.dumps(seen.body.get("messages", ""))
    prompt_tokens, reply_tokens = len(asked) // 4, len(content or "") // 4
    return {
        "id": f"chatcmpl-{seen.sha256[:12]}",
        "object": "chat.completion",
        "created": 0,
        "model": seen.body.get("model", ""),
        "choices": [{"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": finish}],
        "usage": {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": reply_tokens,
            "total_tokens": prompt_tokens + reply_tokens,
        },
    }


def heard(sha256: str) -> str:
    """Return the text that the server answers to the request with this body."""
    return json.dumps({"heard": sha256})


def what_was_asked_for(body: Mapping[str, Any]) -> str:
    """Return a value of the schema that the request names, as JSON; its texts and labels are the request's own."""
    name = messages_name(body["messages"])
    return json.dumps(_filled(body["response_format"]["json_schema"]["schema"], name))


def _filled(schema: Mapping[str, Any], name: str) -> object:
    match schema:
        case {"enum": labels}:
            return labels[Random(name).randrange(len(labels))]
        case {"properties": fields}:
            return {field: _filled(inner, f"{name} {field}") for field, inner in fields.items()}
        case {"items": item, "minItems": count}:
            return [_filled(item, f"{name} {place}") for place in range(count)]
        case _:
            return f"Is it {name}?"


def messages_name(messages: object) -> str:
    """Return a name for a request's messages: two draws for the same messages have the same."""
    return hashlib.sha256(json.dumps(messages, sort_keys=True).encode()).hexdigest()[:16]


def _error(message: str, code: str | None) -> dict[str, object]:
    return {"error": {"message": message, "type": "error", "param": None, "code": code}}


_RATE = _error("too many requests", "rate_limit_exceeded")
_REFUSALS: Mapping[Fault, tuple[int, dict[str, object] | bytes]] = {
    Fault.RATE: (429, _RATE),
    Fault.RATE_TOLD: (429, _RATE),
    Fault.RATE_DATED: (429, _RATE),
    Fault.QUOTA: (429, _error("You exceeded your current quota", "insufficient_quota")),
    Fault.BROKEN: (500, _error("the server broke", None)),
    Fault.GATEWAY: (502, b"<html><body>Bad Gateway</body></html>"),
    Fault.FILTERED_400: (400, _error("the prompt was filtered", "content_filter")),
    Fault.TOO_LONG: (400, _error("maximum context length is 10 tokens", "context_length_exceeded")),
    Fault.NO_SUCH_MODEL: (404, _error("no such model, asked with KEY", "model_not_found")),
    Fault.AUTH: (401, _error("Incorrect API key provided: KEY", "invalid_api_key")),
    Fault.REDIRECT: (307, b""),
    Fault.WRONG_JSON: (200, b'{"choices": [{"message": {"content": "unfinis'),
    Fault.HTML: (200, b"<!doctype html><html><body>Please log in</body></html>"),
}
"""Status and body; KEY becomes what the client sent as Authorization."""


def _more_headers(fault: Fault, retry_after_seconds: int) -> str:
    match fault:
        case Fault.RATE_TOLD:
            return f"Retry-After: {retry_after_seconds}\r\n"
        case Fault.RATE_DATED:
            then = datetime.now(UTC) + timedelta(seconds=retry_after_seconds)
            return f"Retry-After: {format_datetime(then, usegmt=True)}\r\n"
        case Fault.REDIRECT:
            return "Location: http://elsewhere.example/v1/chat/completions\r\n"
        case _:
            return ""


def _answer_to(fault: Fault, seen: Seen) -> dict[str, object]:
    """Return the JSON of a request that is answered with status 200."""
    good = completion(seen, content=seen.says)
    match fault:
        case Fault.NO_CHOICES:
            return {**good, "choices": []}
        case Fault.NULL_CONTENT:
            return completion(seen, content=None)
        case Fault.NO_USAGE:
            return {name: value for name, value in good.items() if name != "usage"}
        case Fault.CUT_OFF:
            return completion(seen, content='{"cut": "of', finish="length")
        case Fault.ECHOED:
            return completion(seen, content="You sent KEY.")
        case Fault.FILTERED:
            return completion(seen, content="", finish="content_filter")
        case Fault.REFUSED:
            message = {"role": "assistant", "content": None, "refusal": "I can't help with that."}
            return {**good, "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
        case _:
            return good


def _response(fault: Fault, seen: Seen, headers: Mapping[str, str], retry_after_seconds: int) -> tuple[bytes, bytes]:
    """Return head and body of what goes back."""
    status, answer = _REFUSALS.get(fault) or (200, _answer_to(fault, seen))
    kind = "text/html" if isinstance(answer, bytes) else "application/json"
    body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    key = headers.get("authorization", "")
    if fault is Fault.ECHOED:
        key = "".join(f"\\u{ord(character):04x}" for character in key)
    body = body.replace(b"KEY", key.encode())
    length = f"Content-Length: {len(body)}"
    if fault is Fault.CHUNKED:
        length = "Transfer-Encoding: chunked"
        pieces = (body[start : start + 100] for start in range(0, len(body), 100))
        body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: {kind}\r\n{length}\r\n"
    return f"{head}{_more_headers(fault, retry_after_seconds)}\r\n".encode(), body


@contextlib.contextmanager
def apart(latency_seconds: float, *, jitter_seconds: float = 0.0, notes: Path | None = None) -> Iterator[str]:
    """Run a faultless server in a process of its own and give its URL: it shares no lock with the client.

    With ``notes`` it says what was asked for, and writes the name of each request's messages there, a line each.
    """
    command = [sys.executable, __file__, "--latency", str(latency_seconds), "--jitter", str(jitter_seconds)]
    command += ["--notes", str(notes)] if notes else []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip()
        finally:
            server.terminate()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--latency", type=float, default=0.2, help="seconds before each reply")
    parser.add_argument("--jitter", type=float, default=0.0, help="up to so many seconds more")
    parser.add_argument("--notes", type=Path, help="say what was asked for, and note each request here")
    options = parser.parse_args()
    notes = options.notes.open("a", buffering=1) if options.notes else None

    def noted(body: Mapping[str, Any]) -> str:
        assert notes is not None
        notes.write(messages_name(body["messages"]) + "\n")
        return what_was_asked_for(body)

    server = FaultServer(
        says=noted if notes else None,
        latency_seconds=options.latency,
        jitter_seconds=options.jitter,
        keep_bodies=False,
    )
    with contextlib.suppress(KeyboardInterrupt), notes or contextlib.nullcontext():
        asyncio.run(server.serve(lambda: print(server.base_url, flush=True)))


if __name__ == "__main__":
    main()
