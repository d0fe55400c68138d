"""How far the work is, for a person: a live line on a terminal, plain lines elsewhere; always on standard error."""

import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

_PLAIN_LINE_EVERY_SECONDS = 15.0
_TOO_LITTLE_TO_TELL = 0.01
"""Share of the work from which on its speed says when the rest is done."""


class ShownProgress:
    """Shows the activity, the share done and the time left, measured from the speed so far."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        # Not the console's own word for it: FORCE_COLOR makes it take a log file for a terminal.
        alive = sys.stderr.isatty() and not self._console.is_dumb_terminal
        self._live = Live(console=self._console, refresh_per_second=4, transient=True) if alive else None
        self._expected = self._finished = 0.0
        self._activity = ""
        self._working_since = self._last_line_at = time.monotonic()

    def __enter__(self) -> Self:
        """Begin to show."""
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop showing."""
        if self._live:
            self._live.stop()

    def expect(self, units: float) -> None:
        """Hear how much work lies ahead in all."""
        self._expected, self._finished, self._working_since = units, 0.0, time.monotonic()

    def work(self, activity: str, units: float = 0) -> None:
        """Hear what is being done, and how much of the work that finished."""
        self._finished += units
        now = time.monotonic()
        if self._live:
            self._live.update(Text(self._line(activity, now)))
        elif activity != self._activity or now - self._last_line_at > _PLAIN_LINE_EVERY_SECONDS:
            self._last_line_at = now
            sys.stderr.write(self._line(activity, now) + "\n")
            sys.stderr.flush()
        self._activity = activity

    def tell(self, line: str) -> None:
        """Hear what a person is to read and keep."""
        if self._live:
            self._console.print(line, markup=False, highlight=False)
        else:
            sys.stderr.write(line + "\n")
            sys.stderr.flush()

    def _line(self, activity: str, now: float) -> str:
        if not self._expected:
            return activity
        share = min(1.0, self._finished / self._expected)
        if share < _TOO_LITTLE_TO_TELL:
            return f"  0%  {activity}"
        left = (now - self._working_since) * (self._expected - self._finished) / self._finished
        return f"{share:4.0%}, {minutes(max(0.0, left))} left  {activity}"


def minutes(seconds: float) -> str:
    """Return a length of time as minutes and seconds.

    >>> minutes(125.2)
    '2:05'
    """
    whole = round(seconds)
    return f"{whole // 60}:{whole % 60:02d}"
