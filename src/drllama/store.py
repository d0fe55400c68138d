"""The results folder: each step's result under its key, each run's manifest and report. Nothing is ever half there.

STORE/steps/STAGE-KEY/       a finished step: result.json, step.json, and what else it made (an adapter)
STORE/steps/STAGE-KEY.work/  an unfinished one; it outlives a kill, and the next call goes on in it
STORE/RUN/manifest.json      a finished run, written last; beside it the report and the resolved recipe
STORE/RUN/rows.jsonl         the ledger, where a teacher was asked: a line for each item, and what became of it
STORE/comparisons/ID/          runs held against each other: comparison.html, comparison.md, comparison.json
STORE/sweeps/SWEEP/          a finished sweep: sweep.html, sweep.md, and last sweep.json
"""

import difflib
import json
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Generic, TypeVar

from filelock import FileLock, Timeout
from pydantic import TypeAdapter, ValidationError

from drllama.errors import StoreError
from drllama.files import disk_errors_told, write_whole
from drllama.ids import canonical_json, fingerprint
from drllama.types import LedgerRow, Run, StepRecord

FORMAT = 4
LEDGER_FORMAT = 1
_TELL_EVERY_SECONDS = 2.0
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Step(Generic[T]):
    """A finished step."""

    result: T
    folder: Path
    record: StepRecord


@dataclass(frozen=True, slots=True)
class Store:
    """The folder that holds all results."""

    root: Path

    def has(self, stage: str, depends_on: object) -> bool:
        """Return whether this step is finished."""
        return (self._folder(stage, fingerprint(depends_on)) / "step.json").is_file()

    def step(
        self,
        stage: str,
        depends_on: object,
        result_type: type[T],
        work: Callable[[Path], T],
        *,
        on_wait: Callable[[str], None],
    ) -> Step[T]:
        """Return the step's result: read if it is there, else worked out now and kept.

        ``depends_on`` is everything that the result depends on, as plain JSON values. ``work`` gets a folder that
        outlives a kill. Two processes that want the same step: one works, the other waits and reads.

        Raises:
            StoreError: the disk is full, or the folder can't be written to; what was finished is kept.
        """
        folder = self._folder(stage, fingerprint(depends_on))
        if not (folder / "step.json").is_file():
            with self._alone(folder, on_wait):
                if not (folder / "step.json").is_file():
                    self._carry_out(stage, depends_on, folder, result_type, work)
        return self._read(folder, result_type)

    def part(self, stage: str, depends_on: object, work: Callable[[Path], T], *, on_wait: Callable[[str], None]) -> T:
        """Return what a part of a step's work gives; it is done in the step's folder, and the step stays unfinished.

        Raises:
            StoreError: the disk is full, or the folder can't be written to; what was finished is kept.
        """
        folder = self._folder(stage, fingerprint(depends_on))
        with self._alone(folder, on_wait):
            return work(_unfinished(folder))

    def parts(
        self,
        stage: str,
        depends_on: Sequence[object],
        work: Callable[[Mapping[int, Path]], None],
        *,
        on_wait: Callable[[str], None],
    ) -> None:
        """Let a part of several steps' work be done at once, each in its own folder; the steps stay unfinished.

        ``work`` gets the folders of those that aren't finished, by place.

        Raises:
            StoreError: the disk is full, or the folder can't be written to; what was finished is kept.
        """
        places = {self._folder(stage, fingerprint(one)): place for place, one in enumerate(depends_on)}
        with ExitStack() as held:
            # Always in the same order: two processes that want some of the same steps would wait for each other.
            for folder in sorted(places):
                held.enter_context(self._alone(folder, on_wait))
            waiting = {place: folder for folder, place in places.items() if not (folder / "step.json").is_file()}
            work({place: _unfinished(waiting[place]) for place in sorted(waiting)})

    def shared(self, what: str, keys: Sequence[str], *, on_wait: Callable[[str], None] | None) -> Iterator[int]:
        """Yield the place of each key; until the next is asked for, no other process that shares the same gets it.

        What others have comes last, when they are done with it; without ``on_wait`` it is left out.

        Raises:
            StoreError: the disk is full, or the folder can't be written to.
        """
        later = []
        for place, key in enumerate(keys):
            with self._alone(self._folder(what, key), None) as alone:
                if alone:
                    yield place
            if not alone:
                later.append(place)
        for place in later if on_wait else ():
            with self._alone(self._folder(what, keys[place]), on_wait):
                yield place

    @contextmanager
    def _alone(self, folder: Path, on_wait: Callable[[str], None] | None) -> Iterator[bool]:
        with disk_errors_told(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(folder.with_name(folder.name + ".lock"))
            try:
                lock.acquire(timeout=0)
            except Timeout:
                if on_wait is None:
                    yield False
                    return
                _wait_for(lock, lambda: on_wait(f"another process is working on {folder.name}; waiting for it"))
            try:
                yield True
            finally:
                lock.release()

    def _carry_out(
        self, stage: str, depends_on: object, folder: Path, result_type: type[T], work: Callable[[Path], T]
    ) -> None:
        began = time.monotonic()
        unfinished = _unfinished(folder)
        result = work(unfinished)
        write_whole(unfinished / "result.json", TypeAdapter(result_type).dump_json(result, indent=1))
        record = StepRecord(
            stage=stage,
            key=fingerprint(depends_on),
            folder=str(folder.relative_to(self.root)),
            seconds=round(time.monotonic() - began, 1),
            finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        write_whole(unfinished / "depends_on.json", canonical_json(depends_on))
        write_whole(unfinished / "step.json", TypeAdapter(StepRecord).dump_json(record, indent=1))
        shutil.rmtree(folder, ignore_errors=True)
        unfinished.rename(folder)

    def _read(self, folder: Path, result_type: type[T]) -> Step[T]:
        try:
            return Step(
                result=TypeAdapter(result_type).validate_json((folder / "result.json").read_bytes()),
                folder=folder,
                record=TypeAdapter(StepRecord).validate_json((folder / "step.json").read_bytes()),
            )
        except (OSError, ValidationError) as error:
            raise StoreError(f"{folder}: the step's result can't be read; delete the folder and run again") from error

    def _folder(self, stage: str, key: str) -> Path:
        return self.root / "steps" / f"{stage}-{key[:16]}"

    def save_run(self, run: Run, files: Mapping[str, str]) -> Path:
        """Write a run's files, the manifest last, and return its folder."""
        folder = self.root / run.id
        for name, content in files.items():
            write_whole(folder / name, content)
        write_whole(folder / "manifest.json", TypeAdapter(Run).dump_json(run, indent=1))
        return folder

    def save_beside_run(self, run_id: str, name: str, content: str | bytes) -> Path:
        """Write one more file into a run's folder and return its path."""
        path = self.root / run_id / name
        write_whole(path, content)
        return path

    def save_sweep(self, sweep_id: str, files: Mapping[str, str]) -> None:
        """Write a sweep's files, in their order."""
        for name, content in files.items():
            write_whole(self.sweep_folder(sweep_id) / name, content)

    def sweep_folder(self, sweep_id: str) -> Path:
        """Return where a sweep's files lie."""
        return self.root / "sweeps" / sweep_id

    def save_comparison(self, comparison_id: str, files: Mapping[str, str]) -> None:
        """Write a comparison's files, in their order."""
        for name, content in files.items():
            write_whole(self.comparison_folder(comparison_id) / name, content)

    def comparison_folder(self, comparison_id: str) -> Path:
        """Return where a comparison's files lie."""
        return self.root / "comparisons" / comparison_id

    def runs(self) -> list[Run]:
        """Return all finished runs, the oldest first."""
        found = [self._read_run(path) for path in self.root.glob("*/manifest.json")]
        return sorted(found, key=lambda run: run.finished_at)

    def run(self, name: str) -> Run:
        """Return the run with this id, or the newest whose id begins with it.

        Raises:
            StoreError: there is none; the message names those that there are.
        """
        manifests = {path.parent.name: path for path in self.root.glob("*/manifest.json")}
        if name in manifests:
            return self._read_run(manifests[name])
        # Only the runs in question are read: one that can't be read is no hindrance to the others.
        matching = [self._read_run(path) for run_id, path in manifests.items() if name and run_id.startswith(name)]
        if matching:
            return max(matching, key=lambda run: run.finished_at)
        if not manifests:
            raise StoreError(
                f"{self.root}: no finished runs here; make one with drllama run RECIPE, or give --store FOLDER"
            )
        near = difflib.get_close_matches(name, manifests, n=1)
        hint = f"did you mean '{near[0]}'?" if near else "drllama runs lists those that there are"
        raise StoreError(f"{self.root}: no finished run '{name}'; {hint}")

    def newest_run(self) -> Run:
        """Return the run that was finished last.

        Raises:
            StoreError: there is none.
        """
        if runs := self.runs():
            return runs[-1]
        raise StoreError(
            f"{self.root}: no finished runs here; make one with drllama run RECIPE, or give --store FOLDER"
        )

    def has_run(self, run_id: str) -> bool:
        """Return whether a run is finished."""
        return (self.root / run_id / "manifest.json").is_file()

    def ledger(self, run: Run) -> tuple[LedgerRow, ...]:
        """Return a row for each item that the run's teacher was asked for.

        Raises:
            StoreError: the run asked no teacher, or its ledger can't be read; the message names the line.
        """
        path = self.root / run.id / "rows.jsonl"
        if run.taught is None:
            raise StoreError(f"run {run.id} asked no teacher for rows; name a run whose recipe has a section augment")
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise StoreError(f"{path}: can't be read ({error}); delete the run's folder and run again") from error
        return tuple(_ledger_row(line, f"{path} line {number}") for number, line in enumerate(lines, start=1))

    def step_folder(self, run: Run, step: StepRecord) -> Path:
        """Return the folder of one of a run's steps.

        Raises:
            StoreError: it is gone.
        """
        if (folder := self.root / step.folder).is_dir():
            return folder
        raise StoreError(
            f"{folder}: run {run.id} has no folder for its step '{step.stage}' any more; run its recipe again"
        )

    def _read_run(self, path: Path) -> Run:
        try:
            return TypeAdapter(Run).validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise StoreError(
                f"{path}: can't be read as a run of format {FORMAT}; delete its folder and run again"
            ) from error


def _wait_for(lock: FileLock, tell: Callable[[], None]) -> None:
    while True:
        tell()
        with suppress(Timeout):
            lock.acquire(timeout=_TELL_EVERY_SECONDS)
            return


def _unfinished(folder: Path) -> Path:
    unfinished = folder.with_name(folder.name + ".work")
    unfinished.mkdir(exist_ok=True)
    return unfinished


def ledger_lines(rows: Iterable[LedgerRow]) -> str:
    """Return the rows as JSON Lines, each with its format number."""
    dumped = (_LEDGER_ROW.dump_python(row, mode="json") for row in rows)
    # ASCII: a reply may hold half a character, and a line must stay one line to every reader.
    return "".join(f"{json.dumps({'format': LEDGER_FORMAT, **row})}\n" for row in dumped)


def _ledger_row(line: str, where: str) -> LedgerRow:
    try:
        row = json.loads(line)
        number = row.pop("format")
        if number != LEDGER_FORMAT:
            raise StoreError(f"{where}: has format {number}, this drllama reads {LEDGER_FORMAT}; use the other")
        return _LEDGER_ROW.validate_python(row)
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise StoreError(f"{where}: isn't a row of a ledger; delete the run's folder and run again") from error


_LEDGER_ROW: TypeAdapter[LedgerRow] = TypeAdapter(LedgerRow)
