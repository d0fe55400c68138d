"""What trainings will take, in words."""

from drllama.types import Forecast

_GIB = 2**30


def forecast_line(found: Forecast, *, trainings: float, questions: int) -> str:
    """Return how long so many trainings like this one and the scoring of so many questions take, and the memory.

    >>> from drllama.types import Durations
    >>> durations = Durations(training=300, once=60, question=0.5)
    >>> found = Forecast(durations=durations, peak_bytes=3 * 2**30, room_bytes=4 * 2**30, way_out="")
    >>> forecast_line(found, trainings=2, questions=120)
    'about 12 minutes ahead, about 3.0 GiB of memory'
    """
    memory = f"about {found.peak_bytes / _GIB:.1f}"
    if found.durations is None:
        assert found.room_bytes is not None, "too much for a room of unknown size"
        there = f"{found.room_bytes / _GIB:.1f} GiB"
        return f"more memory ahead than there is: {memory} of {there}; {found.way_out}"
    time = found.durations
    seconds = time.once + trainings * time.training + questions * time.question
    return f"about {_duration(seconds)} ahead, {memory} GiB of memory"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} seconds"
    minutes = round(seconds / 60)
    return f"{minutes} minutes" if minutes < 100 else f"{minutes // 60} hours {minutes % 60} minutes"
