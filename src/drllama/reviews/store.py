"""The decisions of a results folder: only ever added to, and never over a decision that its writer hadn't seen."""

import json
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from drllama.database import Connection, DatabaseKind, transaction
from drllama.types import Decision, Ruling, Texts, Verdict

_MIGRATIONS = (
    (
        """CREATE TABLE decisions (
            number INTEGER PRIMARY KEY,
            candidate_id TEXT NOT NULL,
            written TEXT NOT NULL,
            verdict TEXT NOT NULL CHECK (verdict IN ('accept', 'reject', 'edit', 'undo')),
            reason TEXT NOT NULL,
            edited TEXT,
            reviewer TEXT NOT NULL,
            at TEXT NOT NULL,
            CHECK ((verdict = 'edit') = (edited IS NOT NULL))
        )""",
        "CREATE INDEX decisions_by_candidate ON decisions (candidate_id)",
        """CREATE TRIGGER decisions_stay BEFORE UPDATE ON decisions
            BEGIN SELECT RAISE(ABORT, 'decisions are only ever added'); END""",
        """CREATE TRIGGER decisions_are_kept BEFORE DELETE ON decisions
            BEGIN SELECT RAISE(ABORT, 'decisions are only ever added'); END""",
    ),
)
REVIEWS = DatabaseKind(name="store of reviews", application_id=0x64724C52, migrations=_MIGRATIONS)

_INSERT = """
    INSERT INTO decisions (candidate_id, written, verdict, reason, edited, reviewer, at)
    VALUES (:candidate_id, :written, :verdict, :reason, :edited, :reviewer, :at)
"""
_LATEST = "SELECT * FROM decisions WHERE candidate_id = ? ORDER BY number DESC LIMIT 1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflict:
    """A ruling that wasn't kept: since its writer looked, somebody decided otherwise."""

    mine: Ruling
    theirs: Decision


def _utc_now() -> datetime:
    return datetime.now(UTC)


class ReviewStore:
    """One file of decisions; opened at the first use, its folder created then.

    Several processes, and several threads of one, may use it at once.
    """

    def __init__(self, path: Path, *, clock: Callable[[], datetime] = _utc_now, busy_seconds: float = 30) -> None:
        self.path = path.absolute()
        self._clock = clock
        self._connection = Connection(self.path, REVIEWS, busy_seconds=busy_seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        self._connection.close()

    def decisions(self) -> tuple[Decision, ...]:
        """Return all decisions, the oldest first; of a file that isn't there, none.

        Raises:
            StoreError: the file can't be read.
        """
        if not self.path.exists():
            return ()
        with self._connection.using() as connection:
            return tuple(map(_decision, connection.execute("SELECT * FROM decisions ORDER BY number").fetchall()))

    def decide(self, ruling: Ruling, *, seen: int) -> Decision | Conflict:
        """Keep a ruling, and return it as a decision; when this returns, a power cut doesn't lose it.

        ``seen`` is the number of the candidate's last decision that the writer knew, 0 for none. Somebody else's ruling
        to the same effect is no conflict; the same ruling by the same person again adds nothing.

        Raises:
            StoreError: the file can't be written to.
        """
        kept = self.decide_all([(ruling, seen)])
        return kept if isinstance(kept, Conflict) else kept[0]

    def decide_all(self, rulings: Sequence[tuple[Ruling, int]]) -> tuple[Decision, ...] | Conflict:
        """Keep several rulings, each with what its writer had seen; with one conflict among them, none is kept.

        Raises:
            StoreError: the file can't be written to.
        """
        at = self._clock().astimezone(UTC).isoformat(timespec="seconds")
        with self._connection.using() as connection, transaction(connection, "IMMEDIATE"):
            for ruling, seen in rulings:
                latest = _latest(connection, ruling.candidate_id)
                if latest and latest.number != seen and not latest.ruling.says_the_same(ruling):
                    return Conflict(mine=ruling, theirs=latest)
            return tuple(_kept(connection, ruling, at) for ruling, _ in rulings)


def _latest(connection: sqlite3.Connection, candidate_id: str) -> Decision | None:
    row = connection.execute(_LATEST, (candidate_id,)).fetchone()
    return _decision(row) if row else None


def _kept(connection: sqlite3.Connection, ruling: Ruling, at: str) -> Decision:
    latest = _latest(connection, ruling.candidate_id)
    if latest and latest.ruling == ruling:
        return latest
    edited = json.dumps(asdict(ruling.edited)) if ruling.edited else None
    row = {**asdict(ruling), "edited": edited, "at": at}
    number = connection.execute(_INSERT, row).lastrowid
    assert number is not None
    return Decision(number=number, ruling=ruling, at=at)


def _decision(row: sqlite3.Row) -> Decision:
    return Decision(
        number=row["number"],
        ruling=Ruling(
            candidate_id=row["candidate_id"],
            written=row["written"],
            verdict=Verdict(row["verdict"]),
            reason=row["reason"],
            edited=Texts(**json.loads(row["edited"])) if row["edited"] else None,
            reviewer=row["reviewer"],
        ),
        at=row["at"],
    )
