"""Training one point of a sweep with each seed, each time judged by examples that it wasn't trained on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TypeAlias

from drllama import plugins
from drllama.errors import DataError
from drllama.ids import fingerprint
from drllama.progress import Saying
from drllama.protocols import Progress, Student
from drllama.recipe import Recipe
from drllama.stages.select import folds_of
from drllama.stats import over_seeds
from drllama.stats.epochs import chosen_epoch
from drllama.steps import Steps, Training
from drllama.store import Store
from drllama.sweeps.request import Judge, Settings
from drllama.sweeps.rows import Rows
from drllama.types import Epoch, Splits, StudentCard, SweepPoint, SweepTraining, Task

Before: TypeAlias = Callable[[Student, Sequence[tuple[Steps, Training]]], None] | None
"""Called with the first student that has trainings ahead, and with these."""
Case: TypeAlias = tuple[int, int]
"""A point, and one of its trainings: that of a seed and a part."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What is trained on, as train, and what judges, as dev; there is no test."""

    fold: int | None
    splits: Splits


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A choice of settings, how far it was trained, and what came of it."""

    settings: Settings
    recipe: Recipe
    trainings: tuple[SweepTraining, ...] = ()
    num_epochs: int = 0

    @property
    def is_finished(self) -> bool:
        """Return whether it was trained to its end."""
        return self.num_epochs >= self.recipe.finetune.epochs


def parts_of(splits: Splits, *, folds: int | None) -> tuple[Part, ...]:
    """Return train and dev as they are, or so many ways to leave a part of both out, documents whole.

    Raises:
        DataError: nothing is left to judge by, or the documents are too few.
    """
    if folds is None:
        if not splits.dev:
            raise DataError("there are no dev questions to judge by; give --folds 5 to judge by parts of train")
        return (Part(fold=None, splits=replace(splits, test=())),)
    together = (*splits.train, *splits.dev)
    try:
        places = folds_of(together, number=folds)
    except ValueError as error:
        raise DataError(f"--folds {folds}: {error}; set it lower") from error
    parts = []
    for number, left_out in enumerate(map(frozenset, places), start=1):
        train = tuple(one for at, one in enumerate(together) if at not in left_out)
        judged = tuple(one for at, one in enumerate(together) if at in left_out)
        parts.append(Part(fold=number, splits=Splits(train=train, dev=judged, test=())))
    return tuple(parts)


class Trainings:
    """Trains points; one student is in memory at a time, made anew only where a point has another one."""

    def __init__(
        self,
        parts: Sequence[Part],
        task: Task,
        *,
        rows: Rows,
        num_seeds: int,
        store: Store,
        progress: Progress,
        before: Before,
    ) -> None:
        """Train and judge on these parts, after ``before`` was called, once."""
        self._task, self._rows, self._num_seeds, self._num_parts = task, rows, num_seeds, len(parts)
        self._cases = [(seed, part) for seed in range(1, num_seeds + 1) for part in parts]
        self._store, self._progress, self._before = store, progress, before
        self._student: tuple[Recipe, Student] | None = None

    @property
    def card(self) -> StudentCard:
        """Which student was trained last."""
        assert self._student, "nothing was trained"
        return self._student[1].card

    def student_of(self, recipe: Recipe) -> Student:
        """Return the recipe's student, the one in memory where it is the same."""
        if self._student is None or self._student[0].student != recipe.student:
            self._progress.work(
                f"loading student {recipe.student.model} (the first time, its weights are unpacked: about a minute)"
            )
            self._student = None  # Two students at once may be more than the memory holds.
            self._student = (recipe, plugins.make_student(recipe, self._task))
        return self._student[1]

    def to_epoch(self, points: Sequence[Point], epoch: int) -> list[Point]:
        """Return the points trained up to this epoch, or to their own end before it.

        Other processes that carry out the same sweep share the trainings.
        """
        order = sorted(range(len(points)), key=lambda at: _first_with(points, at))
        groups = [list(group) for _, group in groupby(order, key=lambda at: _first_with(points, at))]
        found: dict[Case, SweepTraining] = {}
        for same in groups:
            found |= self._trained(points, [(at, number) for at in same for number in self._numbers], epoch)
        # What other processes had begun comes last: there was other work to do in the meantime.
        for same in groups:
            left = [(at, number) for at in same for number in self._numbers if (at, number) not in found]
            if left:
                found |= self._trained(points, left, epoch, wait=True)
        return [
            replace(
                point,
                trainings=tuple(found[at, number] for number in self._numbers),
                num_epochs=min(epoch, point.recipe.finetune.epochs),
            )
            for at, point in enumerate(points)
        ]

    @property
    def _numbers(self) -> range:
        """Return the places of a point's trainings."""
        return range(len(self._cases))

    def _trained(
        self, points: Sequence[Point], cases: Sequence[Case], epoch: int, *, wait: bool = False
    ) -> dict[Case, SweepTraining]:
        """Return these trainings of one student; those that another process has are left out, or waited for."""
        student = self.student_of(points[cases[0][0]].recipe)
        of_point = {at: self._trainings_of(student, points[at].recipe) for at, _ in cases}
        trainings = [of_point[at][number] for at, number in cases]
        if not wait:
            missing = [(steps, one) for steps, one in trainings if steps.training_ahead(one)]
            if missing and self._before:
                self._before(student, missing)
                self._before = None
            self._progress.expect(sum(self._ahead(student, points[at], epoch) for at in of_point))
            Steps.train_together(student, trainings, self._progress, stop_after=epoch)
        keys = [fingerprint(steps.adapter_key(training)) for steps, training in trainings]
        found: dict[Case, SweepTraining] = {}
        for place in self._store.shared("sweep", keys, on_wait=self._progress.work if wait else None):
            at, number = cases[place]
            who = Saying(self._progress, f"setting {at + 1} of {len(points)}{self._told(number)}")
            epochs, seconds = _epochs(*trainings[place], student, epoch, who)
            found[at, number] = self._training(points[at], number, epochs, seconds)
        return found

    def _told(self, number: int) -> str:
        seed, part = self._cases[number]
        told = "" if self._num_seeds == 1 else f", seed {seed} of {self._num_seeds}"
        return told if part.fold is None else f"{told}, fold {part.fold} of {self._num_parts}"

    def _training(self, point: Point, number: int, epochs: tuple[Epoch, ...], seconds: float) -> SweepTraining:
        seed, part = self._cases[number]
        return SweepTraining(
            seed=seed,
            fold=part.fold,
            epochs=epochs,
            chosen_epoch=chosen_epoch(epochs, point.recipe.finetune.choose_epoch_by),
            num_judged=len(part.splits.dev),
            seconds=round(seconds + (point.trainings[number].seconds if point.trainings else 0.0), 1),
        )

    def _ahead(self, student: Student, point: Point, epoch: int) -> float:
        epochs = point.recipe.finetune.epochs
        share = max(0, min(epoch, epochs) - point.num_epochs) / epochs
        return share * sum(steps.training_ahead(one) for steps, one in self._trainings_of(student, point.recipe))

    def _trainings_of(self, student: Student, recipe: Recipe) -> list[tuple[Steps, Training]]:
        """Return the trainings of a point, a seed and a part each."""
        found = []
        for seed, part in self._cases:
            steps = Steps(recipe, part.splits, self._task, student.card, self._store)
            rows = self._rows(recipe, part.splits.train, seed)
            found.append((steps, steps.training(rows, seed=seed)))
        return found


def _epochs(
    steps: Steps, training: Training, student: Student, epoch: int, progress: Progress
) -> tuple[tuple[Epoch, ...], float]:
    """Return the epochs of a training up to this one, and the seconds of this sitting."""
    if epoch < steps.num_epochs:
        first = steps.first_epochs(student, training, epoch, progress)
        return first.result, first.record.seconds
    whole = steps.finetuned(student, training, progress)
    return whole.result.epochs, whole.record.seconds


def _first_with(points: Sequence[Point], at: int) -> int:
    """Return the first point that has the same student as this one."""
    return next(place for place, one in enumerate(points) if one.recipe.student == points[at].recipe.student)


def told(point: Point) -> SweepPoint:
    """Return what came of a point, over its seeds; the folds of one seed count by their size."""
    by_seed = [list(group) for _, group in groupby(point.trainings, key=lambda one: one.seed)]
    level = point.recipe.evaluate.level

    def each(number: Callable[[Epoch], float]) -> list[float]:
        return [
            sum(number(one.epochs[one.chosen_epoch - 1]) * one.num_judged for one in group)
            / sum(one.num_judged for one in group)
            for group in by_seed
        ]

    return SweepPoint(
        settings=point.settings,
        accuracy=over_seeds(each(lambda epoch: epoch.dev_accuracy), level=level, highest=1.0),
        macro_f1=over_seeds(each(lambda epoch: epoch.dev_macro_f1), level=level, highest=1.0),
        nll=over_seeds(each(lambda epoch: epoch.dev_nll_nats), level=level),
        seconds=round(sum(one.seconds for one in point.trainings), 1),
        stopped_after=None if point.is_finished else point.num_epochs,
        trainings=point.trainings,
    )


def worth(point: Point, by: Judge) -> tuple[float, float]:
    """Return how good a point is, more is better; what is equal is told apart by its NLL."""
    found = told(point)
    match by:
        case "nll":
            return -found.nll.value, 0.0
        case "accuracy":
            return found.accuracy.value, -found.nll.value
        case "macro_f1":
            return found.macro_f1.value, -found.nll.value
