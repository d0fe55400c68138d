"""Several processes for one run or sweep: each trains what no other is working on, on its share of the cores."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from drllama.files import disk_errors_told
from drllama.protocols import Progress

_THREADS = "OMP_NUM_THREADS"
_TELL_AT_MOST = 400


def share_cores(jobs: int) -> None:
    """Leave this process, and those that it starts, so many threads that all of them have a core each.

    To be called before torch is imported, which asks only once. Whoever has set the number of threads keeps it.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    os.environ.setdefault(_THREADS, str(max(1, cores // jobs)))


class WorkerProcesses:
    """Processes that work on the same run or sweep from entry to exit; what they have done is told to a progress.

    One that fails is told of and not replaced: what it was at is left for the others.
    """

    def __init__(self, words: Sequence[str], number: int, *, logs: Path, progress: "SharedProgress") -> None:
        """Start ``drllama WORDS`` so many times; what each says is written into a file in ``logs``."""
        self._command = [sys.executable, "-c", "from drllama.cli import main; main()", *words]
        self._number, self._logs, self._progress = number, logs, progress
        self._running: list[tuple[subprocess.Popen[str], Path]] = []
        self._open = ExitStack()

    def __enter__(self) -> Self:
        """Start them."""
        if self._number > 0:
            # Time and memory were told for this process alone.
            jobs = self._number + 1
            told = f"{jobs} processes share the students: up to {jobs} times as fast, {jobs} times the memory"
            self._progress.tell(f"{told}; threads of each: {os.environ.get(_THREADS, 'all')}")
        for number in range(2, self._number + 2):
            path = self._logs / f"job-{number}.log"
            with disk_errors_told(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                log = self._open.enter_context(path.open("w", encoding="utf-8"))
            process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True
            )
            self._running.append((process, path))
            assert process.stdout is not None
            threading.Thread(target=self._listen, args=(process.stdout,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End those that are still at work: nothing is left for them, or the time is up."""
        for process, _ in self._running:
            if process.poll() is None:
                process.terminate()
        for process, path in self._running:
            with process:
                code = process.wait()
            # Ctrl-C reaches all of them, and is told once.
            if kind is None and code not in (0, -signal.SIGTERM):
                said = path.read_text(encoding="utf-8", errors="replace").strip().rpartition("\n")[2]
                self._progress.tell(f"a worker process ended early, the others did its work: {said[:_TELL_AT_MOST]}")
        self._open.close()

    def _listen(self, units: IO[str]) -> None:
        with suppress(ValueError):  # the pipe is closed when the work is over
            for line in units:
                self._progress.others_did(float(line))


class SharedProgress:
    """A progress that also counts what other processes do; it satisfies ``protocols.Progress``."""

    def __init__(self, progress: Progress) -> None:
        self._progress, self._lock, self._units = progress, threading.Lock(), 0.0

    def expect(self, units: float) -> None:
        """Hear how much work lies ahead in all."""
        self._progress.expect(units)

    def work(self, activity: str, units: float = 0) -> None:
        """Hear what is being done here."""
        with self._lock:
            others, self._units = self._units, 0.0
        self._progress.work(activity, units + others)

    def tell(self, line: str) -> None:
        """Hear what a person is to read and keep."""
        self._progress.tell(line)

    def others_did(self, units: float) -> None:
        """Hear from a thread of its own what was done elsewhere."""
        with self._lock:
            self._units += units


class ToldProgress:
    """A worker's progress: what it has done is told on standard output, which breaks when nobody wants it any more."""

    def expect(self, units: float) -> None:
        """Hear how much work lies ahead in all."""

    def work(self, activity: str, units: float = 0) -> None:
        """Hear what is being done here.

        Raises:
            BrokenPipeError: the process that it works for is gone.
        """
        sys.stdout.write(f"{units}\n")
        sys.stdout.flush()

    def tell(self, line: str) -> None:
        """Hear what a person is to read and keep."""
        sys.stderr.write(line + "\n")
