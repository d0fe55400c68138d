"""A sweep: one recipe with many settings, each trained with several seeds and judged without the test split."""

from collections.abc import Mapping
from dataclasses import dataclass

from drllama.types.students import Epoch, StudentCard


@dataclass(frozen=True, slots=True, kw_only=True)
class OverSeeds:
    """The mean of a number over seeds, with its interval."""

    value: float
    low: float | None
    """None: one seed says nothing about others."""
    high: float | None
    each: tuple[float, ...]
    """The number for each seed."""
    level: float
    """Coverage of the interval, 0.95 for 95 %."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepTraining:
    """One training of a sweep."""

    seed: int
    """Which of the recipe's students, from 1."""
    fold: int | None
    """Which part of train and dev was left out to judge by, from 1; None: dev itself judges."""
    epochs: tuple[Epoch, ...]
    """Fewer than the recipe's where the setting was given up."""
    chosen_epoch: int
    num_judged: int
    """Examples that were left out to judge by."""
    seconds: float
    """Working time, dev included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepPoint:
    """One choice of the varied settings."""

    settings: Mapping[str, object]
    """By dotted path."""
    accuracy: OverSeeds
    macro_f1: OverSeeds
    nll: OverSeeds
    """In nats."""
    seconds: float
    """Working time of all its trainings."""
    stopped_after: int | None
    """The epoch after which it was given up; None: trained to its end."""
    trainings: tuple[SweepTraining, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """A finished sweep."""

    id: str
    name: str
    """The recipe's."""
    finished_at: str
    """UTC, ISO 8601."""
    command: str
    """What reproduces the sweep."""
    run_best: str
    """The command that runs the recipe with the best point's settings."""
    recipe: Mapping[str, object]
    """Every setting of the unvaried recipe, defaults included."""
    environment: Mapping[str, str]
    student: StudentCard
    """The one of the last point."""
    varied: tuple[str, ...]
    """Dotted paths, as they were asked for."""
    num_seeds: int
    folds: int | None
    """Parts of train and dev that were left out by turns; None: trained on train, judged on dev."""
    arm: str | None
    """Whose rows were trained on; None: the questions alone."""
    chosen_by: str
    """``nll``, ``accuracy`` or ``macro_f1``: what the best point is best in."""
    num_train: int
    num_dev: int
    points: tuple[SweepPoint, ...]
    """In the order in which they were tried."""
    best: int
    """The place of the best point among those that were trained to their end."""
