"""What a training will take, told before it is begun."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """Time and memory of one training, from a few rows of it that were trained and thrown away."""

    seconds: float
    """Of the training itself, dev included."""
    once_seconds: float
    """Beside that, of work that later trainings find done; 0 without a cache."""
    question_seconds: float
    """Of one question that is scored for the first time."""
    peak_bytes: int
    """The most memory that the process takes; on a GPU, the GPU's memory that its tensors take."""
    limit_bytes: int
    """The most that it could take now."""
    way_out: str
    """Settings that would make it fit; empty where it fits."""

    @property
    def fits(self) -> bool:
        """Return whether the memory is enough."""
        return self.peak_bytes <= self.limit_bytes
