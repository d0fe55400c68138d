"""Reading what a chat completions server answered: a reply, or a failure of a kind that says what may help."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from drllama.errors import TeacherFailure
from drllama.types import FailureKind, Finish

LONGEST_RETRY_AFTER_SECONDS = 300.0
"""A server that asks for a longer wait has nothing left for this account today: that is no burst."""

_QUOTA_CODES = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"})
_FILTER_CODES = frozenset({"content_filter", "content_policy_violation"})
_QUOTED_CHARACTERS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """The text of a reply, and its length in tokens."""

    text: str
    finish: Finish
    tokens_in: int | None
    tokens_out: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """An answer with an error status."""

    status: int
    headers: Mapping[str, str]
    body: object
    """The decoded JSON (the ``error`` object itself where there is one), or the text."""


def completion_or_failure(raw: bytes, *, who: str) -> Completion | TeacherFailure:
    """Return what a 200 answer says; ``who`` names the server in messages."""
    try:
        answer = json.loads(raw)
    except ValueError:
        quoted = one_line(raw.decode("utf-8", "replace"))
        return _failure(FailureKind.UNREADABLE, f"{who} answered 200 with something that isn't JSON: {quoted!r}")
    match answer:
        case {"choices": [{"message": {} as message, **choice}, *_]}:
            finish = choice.get("finish_reason")
        case _:
            return _failure(FailureKind.UNREADABLE, f"{who} answered 200 without a choice: {_quoted(answer)}")
    text, refusal = message.get("content"), message.get("refusal")
    if finish == "content_filter":
        return _failure(FailureKind.CONTENT_FILTER, f"{who} filtered the reply")
    if refusal:
        return _failure(FailureKind.CONTENT_FILTER, f"{who} refused: {_quoted(refusal)}")
    if finish not in {"stop", "length"}:
        return _failure(FailureKind.UNREADABLE, f"{who} gave finish_reason {_quoted(finish)}, not stop or length")
    if text is None and finish == "length":
        text = ""  # A reasoning model that thought up to its limit has said nothing.
    if not isinstance(text, str):
        return _failure(FailureKind.UNREADABLE, f"{who} answered 200 with content {_quoted(text)}, which isn't text")
    tokens_in, tokens_out = _usage(answer)
    return Completion(text=text, finish=Finish(finish), tokens_in=tokens_in, tokens_out=tokens_out)


def _usage(answer: object) -> tuple[int | None, int | None]:
    match answer:
        case {"usage": {"prompt_tokens": int(tokens_in), "completion_tokens": int(tokens_out)}}:
            return tokens_in, tokens_out
        case _:
            return None, None


def refusal_of(status: int, headers: Mapping[str, str], raw: bytes) -> Refusal:
    """Return an answer with an error status as it can be read; header names are in lower case."""
    try:
        body = json.loads(raw)
    except ValueError:
        body = raw.decode("utf-8", "replace")
    if isinstance(body, dict):
        body = body.get("error", body)
    return Refusal(status=status, headers=headers, body=body)


def failure_of(refusal: Refusal, *, who: str, key_env: str | None, now: datetime) -> TeacherFailure:
    """Return the failure that an answer with an error status stands for; ``key_env`` None: no key was sent."""
    status, code = refusal.status, _code(refusal.body)
    said = f"{who} answered {status}: {_message(refusal.body)}"
    wait_seconds = retry_after_seconds(refusal.headers, now)
    if status in {401, 403} and key_env is None:
        return _failure(
            FailureKind.AUTH,
            f"{who} wants a key (HTTP {status}); name the environment variable that holds it in teacher.api_key_env",
        )
    if status in {401, 403}:
        # The server's own words are left out: they may quote the key.
        return _failure(
            FailureKind.AUTH,
            f"{who} refused the key in the environment variable {key_env} (HTTP {status}); "
            "set the right key there, or name another variable in teacher.api_key_env",
        )
    if status == 402 or code in _QUOTA_CODES:
        return _failure(FailureKind.QUOTA, f"{said}; top up the account, then the same command goes on from here")
    if status == 429 and wait_seconds is not None and wait_seconds > LONGEST_RETRY_AFTER_SECONDS:
        return _failure(
            FailureKind.QUOTA, f"{said}; it asks to wait {wait_seconds:.0f} s: run the same command again after that"
        )
    if status == 429:
        return _failure(FailureKind.RATE, said, wait_seconds)
    if code in _FILTER_CODES:
        return _failure(FailureKind.CONTENT_FILTER, said)
    if status == 408:
        return _failure(FailureKind.TIMEOUT, said)
    if status >= 500 or status in {409, 425}:
        return _failure(FailureKind.TRANSIENT, said)
    if 300 <= status < 400:
        return _failure(
            FailureKind.BAD_REQUEST,
            f"{who} redirects (HTTP {status}), which isn't followed; write the address itself in teacher.base_url",
        )
    return _failure(FailureKind.BAD_REQUEST, said)


def retry_after_seconds(headers: Mapping[str, str], now: datetime) -> float | None:
    """Return how long the server asks to wait: seconds or a date in ``Retry-After``; None if it doesn't say.

    >>> retry_after_seconds({"retry-after": "Wed, 21 Oct 2015 07:28:10 GMT"}, datetime(2015, 10, 21, 7, 28, tzinfo=UTC))
    10.0
    """
    told = headers.get("retry-after")
    if told is None:
        return None
    try:
        seconds = float(told)
    except ValueError:
        try:
            then = parsedate_to_datetime(told)
        except ValueError:
            return None
        seconds = (then.replace(tzinfo=then.tzinfo or UTC) - now).total_seconds()
    return max(0.0, seconds) if math.isfinite(seconds) else None


def one_line(text: str) -> str:
    """Return the text's beginning on one line."""
    return " ".join(text.split())[:_QUOTED_CHARACTERS]


def _code(body: object) -> str | None:
    match body:
        case {"code": str(code)} if code:
            return code
        case {"type": str(kind)}:
            return kind
        case _:
            return None


def _message(body: object) -> str:
    match body:
        case {"message": str(message)}:
            return one_line(message)
        case None | "":
            return "no reason given"
        case _:
            return _quoted(body)


def _quoted(value: object) -> str:
    return one_line(json.dumps(value, ensure_ascii=False))


def _failure(kind: FailureKind, message: str, wait_seconds: float | None = None) -> TeacherFailure:
    return TeacherFailure(message, kind=kind, retry_after_seconds=wait_seconds)
