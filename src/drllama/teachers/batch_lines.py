"""A batch's files: requests as lines that go up, answers as lines that come back in any order."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from drllama.errors import TeacherFailure
from drllama.teachers.http import Answer
from drllama.types import FailureKind, Reply, TeacherRequest

MOST_REQUESTS = 50_000
"""In one batch; this and the next from OpenAI's API reference, Create batch, seen 2026-11-22."""
MOST_BYTES = 200_000_000
"""In one input file."""

ASKED_AT = "/v1/chat/completions"
_NEVER_CARRIED_OUT = frozenset({"batch_expired", "batch_cancelled"})


def line_of(request: TeacherRequest, body: bytes) -> bytes:
    """Return the line that asks a request; ``body`` is what a live request would send, and stands in it as it is."""
    # A key has 64 characters, the most that some servers allow.
    start = f'{{"custom_id":"{request.key}","method":"POST","url":"{ASKED_AT}","body":'
    return start.encode() + body + b"}\n"


def upload_form(content: bytes, *, name: str) -> tuple[bytes, str]:
    """Return body and content type of an upload; ``name`` must not stand in the content, such as a random id."""
    head = (
        f'--{name}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n--{name}\r\n'
        f'Content-Disposition: form-data; name="file"; filename="{name}.jsonl"\r\n'
        "Content-Type: application/jsonl\r\n\r\n"
    )
    return head.encode() + content + f"\r\n--{name}--\r\n".encode(), f"multipart/form-data; boundary={name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lines:
    """What a batch's output and error file say."""

    outcomes: Mapping[str, Reply | TeacherFailure]
    """By request key."""
    num_strays: int
    """Lines that can't be read, name no request of the batch, or repeat one."""


def read_lines(
    files: Iterable[bytes], keys: Iterable[str], *, read: Callable[[Answer], Reply | TeacherFailure], who: str
) -> Lines:
    """Return what became of each request that a line names; ``read`` reads an answer as if it had come live."""
    wanted = frozenset(keys)
    outcomes: dict[str, Reply | TeacherFailure] = {}
    num_strays = 0
    for line in _lines(files):
        key = line.get("custom_id") if line is not None else None
        if line is None or not isinstance(key, str) or key not in wanted:
            num_strays += 1
            continue
        outcome = _outcome(line, read, who)
        if key in outcomes:
            num_strays += 1
            # The first reply counts, like everywhere; a reply counts more than a failure.
            if isinstance(outcomes[key], Reply) or isinstance(outcome, TeacherFailure):
                continue
        outcomes[key] = outcome
    return Lines(outcomes=outcomes, num_strays=num_strays)


def without_a_line(state: str, lines: Lines, *, who: str) -> TeacherFailure:
    """Return what became of a request that no line names, in a batch that ended in this state."""
    if lines.num_strays:
        line = f"{who}: the batch has no line for this request, and {lines.num_strays} that belong to none"
        return TeacherFailure(line, kind=FailureKind.UNREADABLE)
    if state == "completed":
        return TeacherFailure(f"{who}: the batch has no line for this request", kind=FailureKind.TRANSIENT)
    return _never_carried_out(f"the batch is {state}", who)


def _lines(files: Iterable[bytes]) -> Iterator[Mapping[str, object] | None]:
    """Yield each line's object, None for a line that holds none."""
    for file in files:
        for line in file.split(b"\n"):
            if line.strip():
                try:
                    value = json.loads(line)
                except (ValueError, RecursionError):
                    value = None
                yield value if isinstance(value, dict) else None


def _outcome(
    line: Mapping[str, object], read: Callable[[Answer], Reply | TeacherFailure], who: str
) -> Reply | TeacherFailure:
    match line:
        case {"response": {"status_code": int(status), "body": body}}:
            return read(Answer(status=status, headers={}, body=json.dumps(body).encode()))
        case {"error": {"code": str(code)}} if code in _NEVER_CARRIED_OUT:
            return _never_carried_out(code, who)
        case {"error": {"code": "request_timeout"}}:
            return TeacherFailure(f"{who}: the model took too long (request_timeout)", kind=FailureKind.TIMEOUT)
        case {"error": {"code": str(code)}}:
            return TeacherFailure(f"{who}: a batch's request failed with {code[:64]!r}", kind=FailureKind.TRANSIENT)
        case _:
            told = f"{who}: a batch's line has neither response nor error"
            return TeacherFailure(told, kind=FailureKind.UNREADABLE)


def _never_carried_out(why: str, who: str) -> TeacherFailure:
    # Of the rate's kind: the server had no room for it in time, charges nothing, and takes it again.
    return TeacherFailure(f"{who} didn't come to this request in its batch ({why})", kind=FailureKind.RATE)
