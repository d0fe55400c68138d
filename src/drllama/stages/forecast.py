"""What trainings will take, in words."""

from drllama.types import Forecast

_GIB = 2**30


def forecast_line(found: Forecast, *, trainings: float, questions: int) -> str:
    """Return how long so many trainings like this one and the scoring of so many questions take, and the memory.

    >>> f = Forecast(seconds=300, once_seconds=60, question_seconds=0.5, peak_bytes=3 * 2**30, limit_bytes=2**30,
    ...              way_out="set finetune.micro_batch_size=2")
    >>> forecast_line(f, trainings=2, questions=120)
    'about 12 minutes ahead; more memory than there is: about 3.0 of 1.0 GiB; set finetune.micro_batch_size=2'
    """
    seconds = found.once_seconds + trainings * found.seconds + questions * found.question_seconds
    memory = f"about {found.peak_bytes / _GIB:.1f}"
    if found.fits:
        return f"about {_duration(seconds)} ahead, {memory} GiB of memory"
    there = f"{found.limit_bytes / _GIB:.1f} GiB"
    return f"about {_duration(seconds)} ahead; more memory than there is: {memory} of {there}; {found.way_out}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} seconds"
    minutes = round(seconds / 60)
    return f"{minutes} minutes" if minutes < 100 else f"{minutes // 60} hours {minutes % 60} minutes"
