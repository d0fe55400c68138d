"""The SQLite file under the store: made, brought up to date, locked, and its errors told. It knows no requests."""

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, final

from drllama.errors import DataError, StoreError
from drllama.files import disk_errors_told

_APPLICATION_ID = 0x64724C4C

# Only ever appended to: a store's format number is how many of these it has been through.
_MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE attempts (
            number INTEGER PRIMARY KEY,
            id TEXT NOT NULL UNIQUE,
            key TEXT NOT NULL,
            endpoint TEXT NOT NULL,
            model TEXT NOT NULL,
            prompt TEXT NOT NULL,
            prompt_sha256 TEXT NOT NULL,
            rollout INTEGER NOT NULL,
            request TEXT NOT NULL,
            reply TEXT,
            failure TEXT,
            finish TEXT,
            failure_kind TEXT,
            tokens_in INTEGER,
            tokens_out INTEGER,
            cost_usd REAL,
            seconds REAL,
            created_at TEXT NOT NULL,
            source TEXT NOT NULL,
            chosen INTEGER NOT NULL CHECK (chosen = 0 OR reply IS NOT NULL),
            CHECK ((reply IS NULL) <> (failure IS NULL))
        )""",
        "CREATE INDEX attempts_by_key ON attempts (key)",
        "CREATE UNIQUE INDEX one_chosen_reply ON attempts (key) WHERE chosen",
    ),
    (
        """CREATE TABLE batches (
            number INTEGER PRIMARY KEY,
            id TEXT NOT NULL UNIQUE,
            endpoint TEXT NOT NULL,
            server_id TEXT,
            state TEXT NOT NULL,
            num_requests INTEGER NOT NULL,
            num_replies INTEGER NOT NULL DEFAULT 0,
            num_failures INTEGER NOT NULL DEFAULT 0,
            num_strays INTEGER NOT NULL DEFAULT 0,
            created_at TEXT NOT NULL,
            sent_at TEXT
        )""",
        # Only what is out now: a request leaves with its attempt, so no request is in two batches at once.
        """CREATE TABLE batch_requests (
            number INTEGER PRIMARY KEY,
            batch TEXT NOT NULL REFERENCES batches (id),
            key TEXT NOT NULL UNIQUE,
            request TEXT NOT NULL
        )""",
        "CREATE INDEX requests_by_batch ON batch_requests (batch, number)",
    ),
)

_WAYS_OUT = {
    sqlite3.SQLITE_FULL: "the disk is full; free some space and run the same command again: kept replies stay",
    sqlite3.SQLITE_IOERR: "the disk refuses to read or write; see that it has space and is still there, then run again",
    sqlite3.SQLITE_READONLY: "may not be written to; choose a file in a folder that you may write to",
    sqlite3.SQLITE_CANTOPEN: "can't be opened; choose a file in a folder that you may write to",
    sqlite3.SQLITE_PERM: "may not be opened; choose a file in a folder that you may write to",
    sqlite3.SQLITE_AUTH: "may not be opened; choose a file in a folder that you may write to",
    sqlite3.SQLITE_BUSY: "another process keeps it locked; wait until that one ends, then run the same command again",
    sqlite3.SQLITE_LOCKED: "another process keeps it locked; wait until that one ends, then run the same command again",
    sqlite3.SQLITE_NOTADB: "isn't a store of replies; name another file",
    sqlite3.SQLITE_CORRUPT: "is damaged; put a copy in its place, or save what can be read: sqlite3 FILE .recover",
}


def connect(path: Path, *, busy_seconds: float) -> sqlite3.Connection:
    """Return a connection to the file, made with its folder if it isn't there, in this version's format.

    Raises:
        StoreError: the file is of another kind or a newer format.
    """
    _make_folder(path.parent)
    give_up_at = time.monotonic() + busy_seconds
    while True:
        connection = sqlite3.connect(path, timeout=busy_seconds, isolation_level=None, check_same_thread=False)
        try:
            connection.row_factory = sqlite3.Row
            _prepare(connection, path)
            return connection
        except sqlite3.OperationalError as error:
            connection.close()
            # While another process opens or closes the file, SQLite says "locked" at once, without its own waiting.
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > give_up_at:
                raise
            time.sleep(0.02)
        except BaseException:
            connection.close()
            raise


def _make_folder(folder: Path) -> None:
    """Make a folder and its parents so that a power cut doesn't lose them either."""
    with disk_errors_told(folder):
        try:
            missing = [one for one in (folder, *folder.parents) if not one.exists()]
            folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise StoreError(f"{folder}: a file stands where a folder is needed; choose another folder") from error
        if os.name == "posix":
            for one in missing:
                parent = os.open(one.parent, os.O_RDONLY)
                try:
                    os.fsync(parent)
                finally:
                    os.close(parent)


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Set the connection up, and bring the file to this version's format."""
    with transaction(connection, "DEFERRED"):
        format_found = _format(connection, path)
    connection.execute("PRAGMA journal_mode = WAL")
    # FULL: a commit reaches the disk before it returns. fullfsync: on a Mac, a plain fsync stops at the disk's cache.
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA fullfsync = ON")
    if format_found < len(_MIGRATIONS):
        with transaction(connection, "IMMEDIATE"):
            for statements in _MIGRATIONS[_format(connection, path) :]:
                for statement in statements:
                    connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {len(_MIGRATIONS)}")


def _format(connection: sqlite3.Connection, path: Path) -> int:
    """Return the file's format number, 0 for an empty one, or refuse the file."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (number,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application != _APPLICATION_ID and (application or number or tables):
        raise StoreError(f"{path}: is another program's database, not a store of replies; name another file")
    if number > len(_MIGRATIONS):
        raise StoreError(
            f"{path}: has format {number}, this drllama knows up to {len(_MIGRATIONS)}; upgrade drllama to read it"
        )
    return int(number)


@contextmanager
def transaction(connection: sqlite3.Connection, mode: Literal["DEFERRED", "IMMEDIATE"]) -> Iterator[None]:
    """Carry out the block wholly or, after an error, not at all."""
    try:
        connection.execute(f"BEGIN {mode}")
        yield
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


@contextmanager
def errors_told(path: Path) -> Iterator[None]:
    """Turn SQLite's error into one line that names the path and the way out; a mistake in our SQL passes."""
    try:
        yield
    except sqlite3.Error as error:
        # The low byte is the kind of error, the others its particulars.
        way_out = _WAYS_OUT.get(getattr(error, "sqlite_errorcode", 0) & 0xFF)
        if way_out is None:
            raise
        raise StoreError(f"{path}: {way_out}") from error
    except DataError as error:
        raise StoreError(f"{path}: a row can't be read: {error}; put a copy of the file in its place") from error


@final
class Connection:
    """A connection to one file, opened at the first use, that threads use one after another."""

    def __init__(self, path: Path, *, busy_seconds: float) -> None:
        self._path = path
        self._busy_seconds = busy_seconds
        self._opened: sqlite3.Connection | None = None
        self._lock = threading.RLock()

    @contextmanager
    def using(self) -> Iterator[sqlite3.Connection]:
        """Give the connection to one thread; SQLite's errors are told in one line."""
        with self._lock, errors_told(self._path):
            if self._opened is None:
                self._opened = connect(self._path, busy_seconds=self._busy_seconds)
            yield self._opened

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        with self._lock:
            if self._opened is not None:
                self._opened.close()
                self._opened = None
