"""Which requests are out in batches; each step is durable here before what it tells of is done.

A batch is begun, then sending, then sent, and in the end settled: its attempts and its end are one write. A request is
in one batch at a time.
"""

import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from datetime import datetime

from filelock import FileLock, Timeout

from drllama.database import transaction
from drllama.errors import StoreError, TeacherFailure
from drllama.files import disk_errors_told
from drllama.replies.rows import BATCH, failure_of_text, json_of, request_from, row_of, utc_text
from drllama.replies.store import RequestStore, insert_attempts
from drllama.types import BatchRecord, OpenBatch, Reply, TeacherRequest

_OUT = "out"
_OTHERS_PATIENCE_SECONDS = 600


class BatchBook:
    """The batches of a request store."""

    def __init__(self, store: RequestStore, *, patience_seconds: float = _OTHERS_PATIENCE_SECONDS) -> None:
        self._store = store
        self._patience_seconds = patience_seconds

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other processes from submitting and harvesting; a kill ends it.

        Raises:
            StoreError: another process has been at it for long.
        """
        path = self._store.path.with_name(self._store.path.name + ".batches.lock")
        with disk_errors_told(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(path)
            try:
                lock.acquire(timeout=self._patience_seconds)
            except Timeout as error:
                raise StoreError(
                    f"{self._store.path}: another process submits or harvests batches; run this again when it ended"
                ) from error
        try:
            yield
        finally:
            lock.release()

    def now(self) -> datetime:
        """Return the store's time."""
        return self._store.clock()

    def open_batches(self, endpoint: str) -> list[OpenBatch]:
        """Return the batches at an endpoint whose replies aren't here yet, oldest first."""
        with self._store.using() as connection:
            rows = connection.execute(
                "SELECT * FROM batches WHERE endpoint = ? AND state = ? ORDER BY number", (endpoint, _OUT)
            ).fetchall()
        return [
            OpenBatch(
                id=row["id"],
                num_requests=row["num_requests"],
                sent_at=datetime.fromisoformat(row["sent_at"]) if row["sent_at"] else None,
                server_id=row["server_id"],
            )
            for row in rows
        ]

    def batch_of(self, key: str) -> str | None:
        """Return the id of the batch in which this request is out, None if it isn't."""
        with self._store.using() as connection:
            found = connection.execute("SELECT batch FROM batch_requests WHERE key = ?", (key,)).fetchone()
        return found["batch"] if found else None

    def requests(self, batch_id: str) -> list[TeacherRequest]:
        """Return what an open batch asks, in the order of its lines."""
        wanted = "SELECT request FROM batch_requests WHERE batch = ? ORDER BY number"
        with self._store.using() as connection:
            return [request_from(row["request"]) for row in connection.execute(wanted, (batch_id,)).fetchall()]

    def begin(self, endpoint: str, requests: Sequence[TeacherRequest]) -> OpenBatch:
        """Return a batch that nobody has been told of yet.

        Raises:
            StoreError: the file can't be written to.
        """
        batch_id = uuid.uuid4().hex
        with self._store.using() as connection, transaction(connection, "IMMEDIATE"):
            connection.execute(
                "INSERT INTO batches (id, endpoint, state, num_requests, created_at) VALUES (?, ?, ?, ?, ?)",
                (batch_id, endpoint, _OUT, len(requests), utc_text(self.now())),
            )
            connection.executemany(
                "INSERT INTO batch_requests (batch, key, request) VALUES (?, ?, ?)",
                ((batch_id, request.key, json_of(request)) for request in requests),
            )
        return OpenBatch(id=batch_id, num_requests=len(requests), sent_at=None, server_id=None)

    def sending(self, batch_id: str) -> None:
        """Note that from now on the server may have the batch."""
        self._update("UPDATE batches SET sent_at = ? WHERE id = ?", utc_text(self.now()), batch_id)

    def sent(self, batch_id: str, server_id: str) -> None:
        """Note the server's name for the batch."""
        self._update("UPDATE batches SET server_id = ? WHERE id = ?", server_id, batch_id)

    def forget(self, batch_id: str) -> None:
        """Take a batch back that the server doesn't have; its requests are free again."""
        with self._store.using() as connection, transaction(connection, "IMMEDIATE"):
            connection.execute("DELETE FROM batch_requests WHERE batch = ?", (batch_id,))
            connection.execute("DELETE FROM batches WHERE id = ?", (batch_id,))

    def settle(
        self, batch_id: str, outcomes: Mapping[str, Reply | TeacherFailure], *, state: str, num_strays: int
    ) -> None:
        """Keep what came of a batch that ended, and end it here: both or, after an error or a kill, neither.

        Requests without an outcome were never carried out; they are free again, without an attempt.

        Raises:
            StoreError: the file can't be written to.
        """
        created_at = utc_text(self.now())
        rows = [
            row_of(request, outcomes[request.key], row_id=uuid.uuid4().hex, created_at=created_at, source=BATCH)
            for request in self.requests(batch_id)
            if request.key in outcomes
        ]
        num_replies = sum(row["reply"] is not None for row in rows)
        with self._store.using() as connection, transaction(connection, "IMMEDIATE"):
            insert_attempts(connection, rows)
            connection.execute("DELETE FROM batch_requests WHERE batch = ?", (batch_id,))
            connection.execute(
                """UPDATE batches SET state = ?, num_replies = ?, num_failures = num_requests - ?, num_strays = ?
                WHERE id = ?""",
                (state, num_replies, num_replies, num_strays, batch_id),
            )

    def failures(self, key: str) -> list[TeacherFailure]:
        """Return how the request with this key failed in batches, oldest first."""
        wanted = "SELECT failure FROM attempts WHERE key = ? AND source = ? AND failure IS NOT NULL ORDER BY number"
        with self._store.using() as connection:
            return [failure_of_text(row["failure"]) for row in connection.execute(wanted, (key, BATCH)).fetchall()]

    def records(self) -> list[BatchRecord]:
        """Return all batches of the store, oldest first."""
        columns = ", ".join(field.name for field in fields(BatchRecord))
        with self._store.using() as connection:
            rows = connection.execute(f"SELECT {columns} FROM batches ORDER BY number").fetchall()
        return [BatchRecord(**dict(row)) for row in rows]

    def _update(self, statement: str, value: str, batch_id: str) -> None:
        with self._store.using() as connection, transaction(connection, "IMMEDIATE"):
            connection.execute(statement, (value, batch_id))
