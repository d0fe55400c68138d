"""A SQLite file: made, brought up to date, locked, and its errors told. It knows nothing of what is kept in it."""

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, final

from drllama.errors import DataError, StoreError
from drllama.files import disk_errors_told


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseKind:
    """What tells one kind of file from another, and how it came to be what it is."""

    name: str
    """As errors call it, such as ``store of replies``."""
    application_id: int
    """Stands in the file's head; another number is another program's file."""
    migrations: tuple[tuple[str, ...], ...]
    """Only ever appended to: a file's format number is how many of these it has been through."""


_WAYS_OUT = {
    sqlite3.SQLITE_FULL: "the disk is full; free some space and run the same command again: what was kept stays",
    sqlite3.SQLITE_IOERR: "the disk refuses to read or write; see that it has space and is still there, then run again",
    sqlite3.SQLITE_READONLY: "may not be written to; choose a file in a folder that you may write to",
    sqlite3.SQLITE_CANTOPEN: "can't be opened; choose a file in a folder that you may write to",
    sqlite3.SQLITE_PERM: "may not be opened; choose a file in a folder that you may write to",
    sqlite3.SQLITE_AUTH: "may not be opened; choose a file in a folder that you may write to",
    sqlite3.SQLITE_BUSY: "another process keeps it locked; wait until that one ends, then run the same command again",
    sqlite3.SQLITE_LOCKED: "another process keeps it locked; wait until that one ends, then run the same command again",
    sqlite3.SQLITE_NOTADB: "isn't a {kind}; name another file",
    sqlite3.SQLITE_CORRUPT: "is damaged; put a copy in its place, or save what can be read: sqlite3 FILE .recover",
}


def connect(path: Path, kind: DatabaseKind, *, busy_seconds: float) -> sqlite3.Connection:
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
            _prepare(connection, path, kind)
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


def _prepare(connection: sqlite3.Connection, path: Path, kind: DatabaseKind) -> None:
    """Set the connection up, and bring the file to this version's format."""
    with transaction(connection, "DEFERRED"):
        format_found = _format(connection, path, kind)
    connection.execute("PRAGMA journal_mode = WAL")
    # FULL: a commit reaches the disk before it returns. fullfsync: on a Mac, a plain fsync stops at the disk's cache.
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA fullfsync = ON")
    if format_found < len(kind.migrations):
        with transaction(connection, "IMMEDIATE"):
            for statements in kind.migrations[_format(connection, path, kind) :]:
                for statement in statements:
                    connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {kind.application_id}")
            connection.execute(f"PRAGMA user_version = {len(kind.migrations)}")


def _format(connection: sqlite3.Connection, path: Path, kind: DatabaseKind) -> int:
    """Return the file's format number, 0 for an empty one, or refuse the file."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (number,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application != kind.application_id and (application or number or tables):
        raise StoreError(f"{path}: is another program's database, not a {kind.name}; name another file")
    if number > len(kind.migrations):
        raise StoreError(
            f"{path}: has format {number}, this drllama knows up to {len(kind.migrations)}; upgrade drllama to read it"
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
def errors_told(path: Path, kind: DatabaseKind) -> Iterator[None]:
    """Turn SQLite's error into one line that names the path and the way out; a mistake in our SQL passes."""
    try:
        yield
    except sqlite3.Error as error:
        # The low byte is the kind of error, the others its particulars.
        way_out = _WAYS_OUT.get(getattr(error, "sqlite_errorcode", 0) & 0xFF)
        if way_out is None:
            raise
        raise StoreError(f"{path}: {way_out.format(kind=kind.name)}") from error
    except DataError as error:
        raise StoreError(f"{path}: a row can't be read: {error}; put a copy of the file in its place") from error


@final
class Connection:
    """A connection to one file, opened at the first use, that threads use one after another."""

    def __init__(self, path: Path, kind: DatabaseKind, *, busy_seconds: float) -> None:
        self._path, self._kind = path, kind
        self._busy_seconds = busy_seconds
        self._opened: sqlite3.Connection | None = None
        self._lock = threading.RLock()

    @contextmanager
    def using(self) -> Iterator[sqlite3.Connection]:
        """Give the connection to one thread; SQLite's errors are told in one line."""
        with self._lock, errors_told(self._path, self._kind):
            if self._opened is None:
                self._opened = connect(self._path, self._kind, busy_seconds=self._busy_seconds)
            yield self._opened

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        with self._lock:
            if self._opened is not None:
                self._opened.close()
                self._opened = None
