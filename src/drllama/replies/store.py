"""The request store: finds, keeps, counts, exports and imports attempts."""

import sqlite3
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Self, TypeVar

from drllama.database import Connection, connect, errors_told, transaction
from drllama.errors import StoreError, TeacherFailure
from drllama.replies.format import REPLIES
from drllama.replies.rows import (
    ASKED_HERE,
    LIVE,
    Attempt,
    Row,
    attempt_of,
    call_of,
    line_of,
    parsed_lines,
    recorded_row,
    reply_of,
    row_of,
    utc_text,
)
from drllama.types import FailureKind, Reply, TeacherCall, TeacherRequest

T = TypeVar("T")
_BATCH = 200

_COLUMNS = (
    "id", "key", "endpoint", "model", "prompt", "prompt_sha256", "rollout", "request", "reply", "failure", "finish",
    "failure_kind", "tokens_in", "tokens_out", "cost_usd", "seconds", "created_at", "source",
)  # fmt: skip
_PLACES = f"({'?, ' * len(_COLUMNS)}? AND NOT EXISTS (SELECT 1 FROM attempts WHERE key = ? AND chosen))"
_ROWS_IN_STATEMENT = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportCount:
    """What became of the rows of an import; ``read`` is the sum of the other two."""

    read: int
    added: int
    already_there: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What one prompt to one model at one endpoint came to, for rows of one source."""

    endpoint: str
    model: str
    prompt: str
    """The template's version."""
    source: str
    attempts: int
    """Replies and failures."""
    replies: int
    failures: Mapping[FailureKind, int]
    """Only kinds that occurred."""
    tokens_in: int
    """Sum over the replies whose server told."""
    tokens_out: int
    unknown_tokens: int
    """Replies whose server told no tokens, or only one of the two numbers."""
    known_cost_usd: float
    """Sum over the replies whose cost is known; what failed attempts cost isn't known."""
    unknown_costs: int
    """Replies whose cost is unknown; they aren't in the sum."""
    first_at: str
    """UTC, ISO 8601."""
    last_at: str
    """UTC, ISO 8601."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreStats:
    """What a store holds."""

    rows: tuple[Asked, ...]
    """By endpoint, model, prompt and source, in this order."""


def _utc_now() -> datetime:
    return datetime.now(UTC)


class RequestStore:
    """One file of attempts; opened at the first use, its folder created then.

    Several processes, and several threads of one, may use it at once. A connection doesn't outlive a fork: make the
    store in the process that uses it.
    """

    def __init__(self, path: Path, *, clock: Callable[[], datetime] = _utc_now, busy_seconds: float = 30) -> None:
        self.path = path.absolute()
        self.clock = clock
        self._busy_seconds = busy_seconds
        # Apart, so that nobody who looks for a reply waits for the disk that keeps another, nor sees it before.
        self._reading = Connection(self.path, REPLIES, busy_seconds=busy_seconds)
        self._writing = Connection(self.path, REPLIES, busy_seconds=busy_seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        self._reading.close()
        self._writing.close()

    def find(self, key: str) -> Reply | None:
        """Return the kept reply to the request with this key.

        Raises:
            StoreError: the file can't be read.
        """
        replies = self._select("SELECT reply FROM attempts WHERE key = ? AND chosen", key, reply_of)
        return replies[0] if replies else None

    def find_call(self, key: str) -> TeacherCall | None:
        """Return the request with this key as it was sent, and the kept reply to it.

        Raises:
            StoreError: the file can't be read.
        """
        calls = self._select("SELECT request, reply FROM attempts WHERE key = ? AND chosen", key, call_of)
        return calls[0] if calls else None

    def attempts(self, key: str) -> list[Attempt]:
        """Return all attempts at the request with this key, in the order in which they came here.

        Raises:
            StoreError: the file can't be read.
        """
        return self._select("SELECT * FROM attempts WHERE key = ? ORDER BY number", key, attempt_of)

    def keep_many(self, attempts: Iterable[tuple[TeacherRequest, Reply | TeacherFailure]]) -> None:
        """Keep attempts, several for the price of one; when this returns, a power cut loses none of them.

        Until it returns, none may be used: either all are kept or, after an error or a kill, none. Failed attempts are
        kept too. The first reply to a key stays the one that is found; a second is kept as an attempt.

        Raises:
            StoreError: the file can't be written to.
        """
        created_at = utc_text(self.clock())
        self._insert(
            [
                row_of(request, outcome, row_id=uuid.uuid4().hex, created_at=created_at, source=LIVE)
                for request, outcome in attempts
            ]
        )

    def record(self, calls: Iterable[TeacherCall], *, source: str, created_at: datetime) -> ImportCount:
        """Keep replies that were written down elsewhere, labelled with their source; again adds nothing.

        ``created_at`` is when they were written, in any time zone; the same reply with another date is the same.

        Raises:
            StoreError: the file can't be written to, or the source is called ``live`` or ``batch``.
        """
        when = utc_text(created_at)
        return self._add((recorded_row(call, created_at=when, source=source) for call in calls), source)

    def export_lines(self, *, endpoint: str | None = None, model: str | None = None) -> Iterator[str]:
        """Yield one line of JSON, its line break too, for each attempt; None: at any endpoint, of any model.

        What is kept meanwhile isn't among them.

        Raises:
            StoreError: the file can't be read.
        """
        wanted = "SELECT * FROM attempts WHERE ?1 IN (endpoint, '') AND ?2 IN (model, '') ORDER BY number"
        busy_seconds = self._busy_seconds
        with (
            errors_told(self.path, REPLIES),
            closing(connect(self.path, REPLIES, busy_seconds=busy_seconds)) as connection,
        ):
            for row in connection.execute(wanted, (endpoint or "", model or "")):
                yield line_of(row)

    def import_lines(self, lines: Iterable[str], *, source: str) -> ImportCount:
        """Add the attempts of an export that aren't here yet.

        Rows that were asked for where they came from are labelled ``source``; recordings keep their label. Lines are
        added in groups: after an error or a kill, import the same file again and only the rest is added.

        Raises:
            DataError: a line isn't one of an export; the message names source and line.
            StoreError: the file can't be written to, or the source is called ``live`` or ``batch``.
        """
        return self._add(parsed_lines(lines, source), source)

    def stats(self) -> StoreStats:
        """Return what was asked and what it cost, by endpoint, model, prompt and source.

        Raises:
            StoreError: the file can't be read.
        """
        groups = "endpoint, model, prompt, source"
        with self._reading.using() as connection, transaction(connection, "DEFERRED"):
            totals = connection.execute(
                f"""SELECT {groups}, count(*) AS attempts, count(reply) AS replies,
                    coalesce(sum(tokens_in), 0) AS tokens_in, coalesce(sum(tokens_out), 0) AS tokens_out,
                    sum(reply IS NOT NULL AND tokens_in + tokens_out IS NULL) AS unknown_tokens,
                    total(cost_usd) AS known_cost_usd,
                    sum(reply IS NOT NULL AND cost_usd IS NULL) AS unknown_costs,
                    min(created_at) AS first_at, max(created_at) AS last_at
                FROM attempts GROUP BY {groups} ORDER BY {groups}"""
            ).fetchall()
            failed = connection.execute(
                f"""SELECT {groups}, failure_kind, count(*) FROM attempts
                WHERE failure_kind IS NOT NULL GROUP BY {groups}, failure_kind ORDER BY failure_kind"""
            ).fetchall()
        failures: dict[tuple[str, ...], dict[FailureKind, int]] = {}
        for *group, kind, number in failed:
            failures.setdefault(tuple(group), {})[FailureKind(kind)] = number
        return StoreStats(rows=tuple(Asked(**dict(row), failures=failures.get(tuple(row)[:4], {})) for row in totals))

    def _add(self, rows: Iterator[Row], source: str) -> ImportCount:
        if source in ASKED_HERE or not source:
            raise StoreError(f"{self.path}: recorded replies can't be labelled '{source}'; name where they come from")
        read = added = 0
        while batch := list(islice(rows, _BATCH)):
            read += len(batch)
            added += self._insert(batch)
        return ImportCount(read=read, added=added, already_there=read - added)

    def _insert(self, rows: list[Row]) -> int:
        """Return how many of the rows were not there yet."""
        with self._writing.using() as connection, transaction(connection, "IMMEDIATE"):
            return insert_attempts(connection, rows)

    def _select(self, query: str, key: str, read: Callable[[sqlite3.Row], T]) -> list[T]:
        with self._reading.using() as connection:
            return [read(row) for row in connection.execute(query, (key,)).fetchall()]

    def using(self) -> AbstractContextManager[sqlite3.Connection]:
        """Give the connection that writes, to one thread at a time; for the modules beside this one.

        Raises:
            StoreError: the file can't be read or written to.
        """
        return self._writing.using()


def insert_attempts(connection: sqlite3.Connection, rows: Sequence[Row]) -> int:
    """Return how many of the rows were not there yet; they are inserted within the caller's transaction."""
    # Several rows in a statement: after each, the thread would let the others run and wait for its turn again.
    parts = [rows[first : first + _ROWS_IN_STATEMENT] for first in range(0, len(rows), _ROWS_IN_STATEMENT)]
    return sum(connection.execute(*_insertion(part)).rowcount for part in parts)


def _insertion(rows: Sequence[Row]) -> tuple[str, list[object]]:
    values: list[object] = []
    replied = set()
    for row in rows:
        key, has_reply = row["key"], row["reply"] is not None
        # The first reply to a key is the chosen one; what the statement looks up are the rows before its own.
        values += [*(row[name] for name in _COLUMNS), has_reply and key not in replied, key]
        if has_reply:
            replied.add(key)
    places = ", ".join([_PLACES] * len(rows))
    return f"INSERT INTO attempts ({', '.join(_COLUMNS)}, chosen) VALUES {places} ON CONFLICT (id) DO NOTHING", values
