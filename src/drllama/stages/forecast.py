"""What trainings will take, in words."""

from dataclasses import dataclass

from drllama.types import Forecast

_GIB = 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is to be scored once trainings are over."""

    questions: int = 0
    """Asked of each trained student."""
    students: int = 0
    of_bare: int = 0
    """Questions asked of the untrained student."""


def forecast_line(found: Forecast, *, trainings: float, asked: Asked) -> str:
    """Return how long so many trainings like this one and then the scoring take, and the memory.

    >>> from drllama.types import Durations
    >>> durations = Durations(training=300, once=60, question=0.1, question_once=0.4, bare_question=0.5)
    >>> found = Forecast(durations=durations, peak_bytes=3 * 2**30, room_bytes=4 * 2**30, way_out="")
    >>> forecast_line(found, trainings=2, asked=Asked(questions=120, students=2, of_bare=24))
    'about 12 minutes ahead, about 3.0 GiB of memory'
    """
    memory = f"about {found.peak_bytes / _GIB:.1f}"
    if found.durations is None:
        assert found.room_bytes is not None, "too much for a room of unknown size"
        there = f"{found.room_bytes / _GIB:.1f} GiB"
        return f"more memory ahead than there is: {memory} of {there}; {found.way_out}"
    time = found.durations
    scoring = asked.students * asked.questions * time.question + asked.of_bare * time.bare_question
    once = time.once + (asked.questions * time.question_once if asked.students else 0)
    seconds = trainings * time.training + scoring + once
    return f"about {_duration(seconds)} ahead, {memory} GiB of memory"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} seconds"
    minutes = round(seconds / 60)
    return f"{minutes} minutes" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"
