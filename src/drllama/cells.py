"""Cells: for each arm and seed a training and its answers to the test questions; their files outlive the machine."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from drllama.cell_files import CellFolder
from drllama.environment import environment
from drllama.errors import DataError
from drllama.ids import fingerprint
from drllama.protocols import Progress, Student
from drllama.recipe import Recipe
from drllama.stages.arms import Stock, rows_of, worth_on_dev, worths_on_dev
from drllama.stages.evaluate import counted
from drllama.stages.forecast import Asked
from drllama.stages.score import refuse_seen
from drllama.steps import Steps, Training
from drllama.store import Step, Store
from drllama.types import (
    Arm,
    Cell,
    Choice,
    Equality,
    Evaluation,
    Example,
    Prediction,
    Ran,
    Reading,
    Splits,
    Task,
    TrainingRow,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedCell:
    """An arm and a seed, and what is trained for them."""

    arm: Arm
    seed: int
    trainings: Mapping[float, Training]
    """By what a row beside the real ones weighs: the one that is best on dev becomes the cell's student."""
    fingerprint: str
    """Of all that the cell's numbers depend on but the machine."""

    @property
    def examples(self) -> list[Example]:
        """Return what is trained on."""
        return [row.example for training in self.trainings.values() for row in training.rows]


class Cells:
    """The cells of one recipe: what they take, and their results, worked out at most once on any machine."""

    def __init__(
        self,
        recipe: Recipe,
        splits: Splits,
        task: Task,
        *,
        student: Student,
        steps: Steps,
        store: Store,
        folder: CellFolder | None,
    ) -> None:
        self._recipe, self._splits, self._task = recipe, splits, task
        self._student, self._steps, self._store, self._folder = student, steps, store, folder

    def planned(self, arms: Sequence[Arm], stock: Stock) -> tuple[PlannedCell, ...]:
        """Return all cells in the order of work: the first seed of all arms, then the second.

        Raises:
            DataError: an arm has nothing to train on.
        """
        return tuple(self._planned(arm, stock, seed) for seed in range(1, self._recipe.seeds + 1) for arm in arms)

    def _planned(self, arm: Arm, stock: Stock, seed: int) -> PlannedCell:
        rows = rows_of(arm, stock, self._recipe.finetune, seed=seed)
        if not next(iter(rows.values())):
            raise DataError(
                f"arm {arm.id} has nothing to train on: the filters kept none of the teacher's rows; drop it"
            )
        trainings = {weight: self._training(arm, some, seed) for weight, some in rows.items()}
        return PlannedCell(
            arm=arm,
            seed=seed,
            trainings=trainings,
            fingerprint=fingerprint(self._steps.cell_key(list(trainings.values()))),
        )

    def _training(self, arm: Arm, rows: Sequence[TrainingRow], seed: int) -> Training:
        training = self._steps.training(rows, seed=seed)
        if arm.equality is Equality.EPOCHS:
            return replace(training, updates_per_epoch=self._steps.updates_of_pass(len(rows)))
        return training

    def all_kept(self, planned: Iterable[PlannedCell]) -> bool:
        """Return whether the folder of cells, if there is one, has all of these."""
        return self._folder is None or all(self._folder.has(cell.fingerprint) for cell in planned)

    def work_ahead(self, planned: Iterable[PlannedCell]) -> float:
        """Return the forward passes that these cells take; none for what is done, here or in a file."""
        ahead = 0.0
        for cell in planned:
            if self._folder and self._folder.has(cell.fingerprint):
                continue
            ahead += sum(map(self._steps.training_ahead, cell.trainings.values()))
            keys = [fingerprint(self._steps.adapter_key(one)) for one in cell.trainings.values()]
            ahead += min(self._steps.score_ahead(self._splits.test, key) for key in keys)
        return ahead

    def forecast(
        self, planned: Iterable[PlannedCell], *, of_bare: int, before: Sequence[tuple[Steps, Training]] = ()
    ) -> str | None:
        """Return in a line what these cells and so many questions to the bare student take; None: none is ahead.

        ``before`` them comes what is trained to choose what the teacher works on.
        """
        missing = [cell for cell in planned if not (self._folder and self._folder.has(cell.fingerprint))]
        ahead = [*before, *((self._steps, one) for cell in missing for one in cell.trainings.values())]
        asked = Asked(questions=len(self._splits.test), students=len(missing), of_bare=of_bare)
        return Steps.forecast(self._student, ahead, asked=asked)

    def train_together(self, planned: Iterable[PlannedCell], progress: Progress) -> None:
        """Bring the trainings of all cells to their end at once, where that takes less time than cell by cell."""
        missing = [cell for cell in planned if not (self._folder and self._folder.has(cell.fingerprint))]
        trainings = [(self._steps, one) for cell in missing for one in cell.trainings.values()]
        Steps.train_together(self._student, trainings, progress)

    def num_missing(self, planned: Iterable[PlannedCell]) -> int:
        """Return how many of these cells are still to be worked out."""
        return sum(self.work_ahead([cell]) > 0 for cell in planned)

    def all_finished(
        self, planned: Sequence[PlannedCell], progress: Progress, *, wait: bool = True
    ) -> Iterator[tuple[int, Cell]]:
        """Yield each cell with its place, as they are finished: what other processes are working on comes last.

        So several processes that carry out the same recipe share the work; whoever doesn't ``wait`` leaves it out.
        """
        keys = [one.fingerprint for one in planned]
        for place in self._store.shared("cell", keys, on_wait=progress.work if wait else None):
            yield place, self._finished(planned[place], progress)

    def _finished(self, planned: PlannedCell, progress: Progress) -> Cell:
        """Return a cell: read if a file or this machine has it, else worked out now and kept."""
        system = planned.arm.system if self._recipe.seeds == 1 else f"{planned.arm.system}, seed {planned.seed}"

        def count(answers: Sequence[Prediction]) -> Evaluation:
            return counted(answers, system=system, split="test", task=self._task, recipe=self._recipe)

        if self._folder:
            kept = self._folder.find(planned.fingerprint, self._splits.test, count)
            if kept:
                return replace(kept, arm=planned.arm.id, seed=planned.seed)
        cell = self._worked_out(planned, count, progress)
        if self._folder:
            self._folder.keep(cell)
        return cell

    def _worked_out(
        self, planned: PlannedCell, count: Callable[[Sequence[Prediction]], Evaluation], progress: Progress
    ) -> Cell:
        settings, test = self._recipe.finetune, self._splits.test
        tuned = {
            weight: self._steps.finetuned(self._student, training, progress)
            for weight, training in planned.trainings.items()
        }
        on_dev = {weight: worth_on_dev(one.result, settings) for weight, one in tuned.items()}
        weight = max(on_dev, key=lambda weight: on_dev[weight])
        best = tuned[weight]
        if self._steps.score_ahead(test, best.record.key):
            refuse_seen(self._student.wear(best.folder / "adapter"), test, where=self._recipe.name)
        who = f"the {planned.arm.system} student"
        scored = self._steps.scored(self._student, test, who, progress, best.record.key)
        return Cell(
            arm=planned.arm.id,
            seed=planned.seed,
            fingerprint=planned.fingerprint,
            finetuned=best.result,
            synthetic_weight=weight,
            on_dev=on_dev[weight],
            weights_on_dev={f"{one:g}": worth for one, worth in on_dev.items()} if len(on_dev) > 1 else {},
            evaluation=count(scored.result),
            adapter=best.record,
            scoring=scored.record,
            ran=self._here,
        )

    @cached_property
    def _here(self) -> Ran:
        found, card = environment(), self._student.card
        return Ran(
            device=card.device,
            dtype=card.dtype,
            processor=found["processor"],
            torch=found["torch"],
            commit=found["commit"],
        )


def choices_of(
    cells: Sequence[Cell], arms_on_dev: Mapping[str, float], chosen_arm: str, recipe: Recipe
) -> tuple[Choice, ...]:
    """Return all that was chosen by answers: epochs, weights and the arm, each by dev."""
    by = recipe.finetune.choose_epoch_by
    found = []
    for cell in cells:
        who, tuned = f"{cell.arm}, seed {cell.seed}", cell.finetuned
        worths = worths_on_dev(tuned, recipe.finetune)
        epochs = {str(epoch.number): worth for epoch, worth in zip(tuned.epochs, worths, strict=True)}
        found.append(Choice(what=f"epoch of {who}", split="dev", by=by, among=epochs, chosen=str(tuned.chosen_epoch)))
        if cell.weights_on_dev:
            told = f"{cell.synthetic_weight:g}"
            weights = cell.weights_on_dev
            found.append(Choice(what=f"synthetic_weight of {who}", split="dev", by=by, among=weights, chosen=told))
    return (*found, Choice(what="arm", split="dev", by=by, among=arms_on_dev, chosen=chosen_arm))


def readings_of(untrained: Step[tuple[Prediction, ...]], cells: Sequence[Cell]) -> tuple[Reading, ...]:
    """Return what read the test questions: one step for the untrained student, and one for each cell."""
    read = [(cell.evaluation.system, cell.scoring, len(cell.evaluation.predictions)) for cell in cells]
    return tuple(
        Reading(system=system, step=record.key, at=record.finished_at, num_questions=number)
        for system, record, number in (("untrained", untrained.record, len(untrained.result)), *read)
    )
