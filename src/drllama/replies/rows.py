"""An attempt as a value, as a row of the store and as a line of an export.

Texts are stored as ASCII JSON: it holds every character that a server may send, half a surrogate pair too, and is one
line to every reader.
"""

import dataclasses
import functools
import hashlib
import json
import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeAlias

from pydantic import TypeAdapter, ValidationError

from drllama.errors import DataError, TeacherFailure
from drllama.types import FailureKind, Finish, Message, Reply, ReplyForm, Sampling, TeacherCall, TeacherRequest

LIVE = "live"
BATCH = "batch"
ASKED_HERE = frozenset({LIVE, BATCH})
"""Labels of what this store asked itself; elsewhere such rows take the label of the import."""
_LINE_FORMAT = 1
_BIGGEST_INTEGER = 2**63 - 1

Row: TypeAlias = dict[str, str | int | float | None]
_Fields: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why one attempt got no reply."""

    kind: FailureKind
    message: str
    retry_after_seconds: float | None
    """What the server asked for; None where it didn't."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One row: a request that was sent once, and what became of it."""

    id: str
    """The row's own name; it travels with exports, so that nothing is imported twice."""
    request: TeacherRequest
    outcome: Reply | Failure
    created_at: str
    """UTC, ISO 8601."""
    source: str
    """``live`` or ``batch``: this store asked; else the name of the recording or import that it came with."""
    chosen: bool
    """Whether this is the reply that ``find`` returns for its key."""


def row_of(
    request: TeacherRequest, outcome: Reply | TeacherFailure | Failure, *, row_id: str, created_at: str, source: str
) -> Row:
    """Return the row of one attempt.

    Raises:
        DataError: the request holds text that can't be sent, or a number that is none.
    """
    if isinstance(outcome, TeacherFailure):
        outcome = _failure_of(outcome)
    reply, failure = (outcome, None) if isinstance(outcome, Reply) else (None, outcome)
    row: Row = {
        "id": row_id,
        "key": _key(request, source),
        "endpoint": request.endpoint,
        "model": request.model,
        "prompt": request.prompt,
        "prompt_sha256": request.prompt_sha256,
        "rollout": request.rollout,
        "request": json_of(request),
        "reply": json_of(reply) if reply else None,
        "failure": json_of(failure) if failure else None,
        "finish": reply.finish if reply else None,
        "failure_kind": failure.kind if failure else None,
        "tokens_in": reply.tokens_in if reply else None,
        "tokens_out": reply.tokens_out if reply else None,
        "cost_usd": reply.cost_usd if reply else None,
        "seconds": reply.seconds if reply else None,
        "created_at": created_at,
        "source": source,
    }
    for name, number in row.items():
        if isinstance(number, int | float) and not 0 <= number <= _BIGGEST_INTEGER:
            raise DataError(f"{name} {number} of a request to '{request.model}' isn't a count, a sum or a duration")
    return row


def recorded_row(call: TeacherCall, *, created_at: str, source: str) -> Row:
    """Return the row of a reply that was written down elsewhere; its name comes from its content."""
    content = json_of([call, source])
    name = hashlib.sha256(content.encode()).hexdigest()[:32]
    return row_of(call.request, call.reply, row_id=name, created_at=created_at, source=source)


def attempt_of(row: sqlite3.Row) -> Attempt:
    """Return the attempt that a row of the store tells of."""
    return Attempt(
        id=row["id"],
        request=request_from(row["request"]),
        outcome=reply_of(row) if row["reply"] else _failure_from(row["failure"]),
        created_at=row["created_at"],
        source=row["source"],
        chosen=bool(row["chosen"]),
    )


def reply_of(row: sqlite3.Row) -> Reply:
    """Return the reply in a row of the store."""
    return _reply_from(row["reply"])


def call_of(row: sqlite3.Row) -> TeacherCall:
    """Return the request and the reply in a row of the store."""
    return TeacherCall(request=request_from(row["request"]), reply=reply_of(row))


def line_of(row: sqlite3.Row) -> str:
    """Return a row of the store as one line of JSON, with its line break."""
    named = {name: row[name] for name in ("id", "key", "created_at", "source")}
    start = json_of({"format": _LINE_FORMAT, **named}).removesuffix("}")
    # The texts are JSON already; reading and writing them again would cost time and change nothing.
    outcome = f'"reply":{row["reply"]}' if row["reply"] else f'"failure":{row["failure"]}'
    return f'{start},"request":{row["request"]},{outcome}}}\n'


def parsed_lines(lines: Iterable[str], source: str) -> Iterator[Row]:
    """Yield the row of each line; rows that were asked for elsewhere are labelled with this source.

    Raises:
        DataError: a line isn't one of an export; the message names source and line.
    """
    number = 0
    try:
        for line in lines:
            number += 1
            if line.strip():
                yield _row_from(line, source)
    except UnicodeDecodeError as error:
        raise DataError(f"{source} after line {number}: isn't UTF-8 text; export it again") from error
    except DataError as error:
        raise DataError(
            f"{source} line {number}: {error}; mend or delete the line and import again: nothing comes twice"
        ) from error


def utc_text(when: datetime) -> str:
    """Return a moment as it is stored."""
    if when.tzinfo is None:
        raise DataError(f"time {when.isoformat()} has no time zone; add one, such as +00:00")
    return when.astimezone(UTC).isoformat(timespec="microseconds")


def request_from(text: str) -> TeacherRequest:
    """Return the request in a column of the store."""
    fields = _fields_of(TeacherRequest, text)
    for one in fields["messages"]:
        _check_names(Message, one)
    _check_names(Sampling, fields["sampling"])
    messages = tuple(Message(**one) for one in fields.pop("messages"))
    sampling, form = Sampling(**fields.pop("sampling")), ReplyForm(fields.pop("form"))
    return TeacherRequest(**fields, messages=messages, sampling=sampling, form=form)


def _reply_from(text: str) -> Reply:
    fields = _fields_of(Reply, text, free_text="text")
    return Reply(**fields | {"finish": Finish(fields["finish"])})


def _failure_from(text: str) -> Failure:
    fields = _fields_of(Failure, text, free_text="message")
    return Failure(**fields | {"kind": FailureKind(fields["kind"])})


def failure_of_text(text: str) -> TeacherFailure:
    """Return the failure in a column of the store, as it was raised."""
    failure = _failure_from(text)
    return TeacherFailure(failure.message, kind=failure.kind, retry_after_seconds=failure.retry_after_seconds)


def _failure_of(failure: TeacherFailure) -> Failure:
    return Failure(
        kind=FailureKind(failure.kind), message=str(failure), retry_after_seconds=failure.retry_after_seconds
    )


def _row_from(line: str, source: str) -> Row:
    match _loaded(line):
        case {"format": int(number)} if number > _LINE_FORMAT:
            raise DataError(f"has format {number}, this drllama knows up to {_LINE_FORMAT}; upgrade drllama")
        case {
            "format": 1,
            "id": str(row_id),
            "key": str(key),
            "created_at": str(created_at),
            "source": str(origin),
            "request": dict(request),
            **rest,
        } if re.fullmatch("[0-9a-f]{32}", row_id) and origin:
            row = row_of(
                request_from(json_of(request)),
                _outcome_from(rest),
                row_id=row_id,
                created_at=_utc_from(created_at),
                source=source if origin in ASKED_HERE else origin,
            )
        case _:
            raise DataError("isn't an attempt with format, id, key, created_at, source, request, and reply or failure")
    if row["key"] != key:
        raise DataError(f"key {key[:16]!r} isn't that of its request, which is {str(row['key'])[:16]!r}")
    return row


def _outcome_from(fields: Mapping[object, object]) -> Reply | Failure:
    match fields:
        case {"reply": dict(reply)} if len(fields) == 1:
            return _reply_from(json_of(reply))
        case {"failure": dict(failure)} if len(fields) == 1:
            return _failure_from(json_of(failure))
    raise DataError(f"needs a reply or a failure beside the request, has {', '.join(map(repr, fields)) or 'neither'}")


def _utc_from(text: str) -> str:
    try:
        return utc_text(datetime.fromisoformat(text))
    except (ValueError, OverflowError) as error:
        raise DataError(f"created_at {text!r} isn't a time such as 2026-11-22T09:30:00+00:00") from error


def _key(request: TeacherRequest, source: str) -> str:
    try:
        # These aren't in the key, but in columns, which hold whole characters only.
        f"{request.prompt}{request.prompt_sha256}{source}".encode()
        return request.key
    except UnicodeEncodeError as error:
        raise DataError(
            f"a request to {request.model!r}, or the name of its source, holds half of a surrogate pair, which can't "
            "be sent; mend the text that it was made from"
        ) from error


def _plain(value: object) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {name: getattr(value, name) for name in _names(type(value))}
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"a {type(value).__name__} can't be written as JSON")


@functools.cache
def _names(kind: type) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(kind))


# Unsorted: a schema's fields are sent, and answered, in their order.
_ENCODER = json.JSONEncoder(separators=(",", ":"), allow_nan=False, default=_plain)


def json_of(value: object) -> str:
    """Return a value's JSON as it is stored, on one line, its fields in their own order."""
    try:
        return _ENCODER.encode(value)
    except ValueError as error:
        raise DataError(f"can't be written as JSON: {error}") from error


def _loaded(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"isn't JSON: {error}") from error


@functools.cache
def _checker(kind: type) -> TypeAdapter[object]:
    return TypeAdapter(kind)


def _fields_of(kind: type, text: str, *, free_text: str | None = None) -> _Fields:
    """Return the fields of a JSON object that are this type's, each with its type, no other among them."""
    fields = _loaded(text)
    if not isinstance(fields, dict):
        raise DataError(f"isn't a {kind.__name__}")
    _check_names(kind, fields)
    # The checker refuses half a surrogate pair, which a server may well send, so this text goes around it.
    if isinstance(fields.get(free_text), str):
        text = json_of(fields | {free_text: ""})
    try:
        _checker(kind).validate_json(text, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, (kind.__name__, *first["loc"])))
        raise DataError(f"{where}: {first['msg']}") from error
    return fields


def _check_names(kind: type, fields: Mapping[str, object]) -> None:
    allowed = _names(kind)
    for name in fields:
        if name not in allowed:
            raise DataError(f"{kind.__name__} has no field {name!r}, only {', '.join(allowed)}")
