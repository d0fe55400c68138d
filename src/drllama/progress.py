"""Progresses that stand between the work and another progress; all of them satisfy ``protocols.Progress``."""

import time
from dataclasses import dataclass

from drllama.errors import TimeUp
from drllama.protocols import Progress


class Until:
    """Ends the work when the time is up."""

    def __init__(self, progress: Progress, minutes: float | None) -> None:
        self._progress, self._minutes, self._began = progress, minutes, time.monotonic()

    def expect(self, units: float) -> None:
        """Hear how much work lies ahead in all."""
        self._progress.expect(units)

    def work(self, activity: str, units: float = 0) -> None:
        """Hear what is being done.

        Raises:
            TimeUp: the time is over.
        """
        self._progress.work(activity, units)
        if self._minutes is not None and time.monotonic() - self._began > 60 * self._minutes:
            raise TimeUp(
                f"{self._minutes:g} minutes are over (--max-minutes), in the middle of {activity}; "
                "the same command goes on from here"
            )

    def tell(self, line: str) -> None:
        """Hear what a person is to read and keep."""
        self._progress.tell(line)


@dataclass(frozen=True, slots=True)
class Uncounted:
    """Passes on what is done, but not how much: it is no part of what was said to lie ahead."""

    progress: Progress

    def expect(self, units: float) -> None:
        """Hear how much work lies ahead in all."""

    def work(self, activity: str, units: float = 0) -> None:
        """Hear what is being done."""
        self.progress.work(activity)

    def tell(self, line: str) -> None:
        """Hear what a person is to read and keep."""
        self.progress.tell(line)


@dataclass(frozen=True, slots=True)
class Saying:
    """Says before each activity whose it is."""

    progress: Progress
    who: str

    def expect(self, units: float) -> None:
        """Hear how much work lies ahead in all."""
        self.progress.expect(units)

    def work(self, activity: str, units: float = 0) -> None:
        """Hear what is being done, and how much of the work that finished."""
        self.progress.work(f"{self.who}: {activity}", units)

    def tell(self, line: str) -> None:
        """Hear what a person is to read and keep."""
        self.progress.tell(line)
