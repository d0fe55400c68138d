"""What a training will take, told before it is begun."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Durations:
    """Time of one training, in seconds."""

    training: float
    """Of the training itself, dev and checkpoints included."""
    once: float
    """Beside that, of work that later trainings find done; 0 without a cache."""
    question: float
    """Of one question that the trained student scores."""
    question_once: float
    """Beside that, of work that later students find done; 0 without a cache."""
    bare_question: float
    """Of one question that the untrained student scores."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """Time and memory of one training, from a few rows of it that were trained and thrown away."""

    durations: Durations | None
    """None: it doesn't fit, and wasn't tried."""
    peak_bytes: int
    """The most memory that the process takes; on a GPU, the GPU's memory that its tensors take."""
    room_bytes: int | None
    """The most that it could take now; None: not known."""
    way_out: str
    """Settings that would make it fit; empty where it fits."""
