"""The steps of a run that take long: each is kept under the fingerprint of all that its result depends on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path

from drllama.ids import derive_seed, fingerprint
from drllama.prompts import student_prompt
from drllama.protocols import TRAINING_COST, WRITING_COST, Course, Progress, Student
from drllama.recipe import Recipe
from drllama.stages.forecast import Asked, forecast_line
from drllama.stages.score import score
from drllama.stages.write import write
from drllama.store import Step, Store
from drllama.types import Epoch, Example, Finetuned, Prediction, Splits, StudentCard, Task, TrainingRow, Writing

# A change of what a step computes from the same input changes its number here, and with it the key of its results.
_WRITING, _SCORING, _TRAINING = 1, 3, 5
_IN_THE_ROWS = {"synthetic_weight", "soft_labels"}
"""Settings of training that say what rows weigh and teach: the rows in a key hold it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """What one student is trained on, for how long, and with which luck."""

    rows: tuple[TrainingRow, ...]
    updates_per_epoch: int
    seed: int = 1
    """Which of the recipe's students, from 1: those with the same number start alike and draw alike."""


class Steps:
    """The steps of one recipe: what they cost, and their results, worked out at most once."""

    def __init__(self, recipe: Recipe, splits: Splits, task: Task, card: StudentCard, store: Store) -> None:
        self._recipe, self._splits, self._store = recipe, splits, store
        self._machine = {"dtype": card.dtype, "device": card.device.partition(",")[0]}
        self._student = {
            "weights": card.weights_sha256,
            "tokenizer": card.tokenizer_sha256,
            "prompt": student_prompt(recipe.student.prompt).sha256,
            # The chat template itself is a part of the tokenizer.
            "chat": task.instruction if card.is_chat else None,
            "max_tokens": recipe.student.max_tokens,
            "keep_context": recipe.student.keep_context,
            "labels": [[label, task.verbalizers[label]] for label in task.labels],
        }

    @property
    def num_epochs(self) -> int:
        """Return the epochs of a training."""
        return self._recipe.finetune.epochs

    @property
    def updates_per_epoch(self) -> int:
        """Return the updates of an epoch of arms with equal updates: of a pass over the real rows, if nothing else."""
        settings = self._recipe.finetune
        if settings.updates is not None:
            return ceil(settings.updates / settings.epochs)
        return self.updates_of_pass(len(self._splits.train))

    def updates_of_pass(self, num_rows: int) -> int:
        """Return the updates of one pass over so many rows."""
        return ceil(num_rows / self._recipe.finetune.batch_size)

    def training(self, rows: Sequence[TrainingRow], *, seed: int = 1) -> Training:
        """Return the training on these rows with as many updates as all others."""
        return Training(rows=tuple(rows), updates_per_epoch=self.updates_per_epoch, seed=seed)

    def adapter_key(self, training: Training) -> dict[str, object]:
        """Return what an adapter depends on."""
        return {**self._lesson_key(training), "machine": self._machine}

    def score_key(self, asked: Sequence[Example], adapter_key: str | None = None) -> dict[str, object]:
        """Return what the answers of a student depend on; None: of the bare one."""
        own: dict[str, object] = {}
        if adapter_key is not None:
            own = {"adapter": adapter_key}
        elif self._recipe.finetune.reads_contexts_apart:
            own = {"frozen_cache": self._recipe.student.frozen_cache.dtype}
        return {**own, **self._asking_key(asked), "machine": self._machine}

    def cell_key(self, trainings: Sequence[Training]) -> dict[str, object]:
        """Return what a cell depends on, whatever the machine: what is tried on dev, and the test questions."""
        return {
            "lessons": [self._lesson_key(one) for one in trainings],
            "asked": self._asking_key(self._splits.test),
            # A number format that was asked for counts; the machine's own choice belongs to the machine.
            "dtype": self._recipe.student.dtype,
        }

    def write_key(self, asked: Sequence[Example], adapter_key: str | None = None) -> dict[str, object]:
        """Return what a student's written answers depend on; how they are read is no part of it."""
        return {**self.score_key(asked, adapter_key), "writing": _WRITING}

    def write_ahead(self, asked: Sequence[Example], adapter_key: str | None = None) -> float:
        """Return what writing answers takes in forward passes, 0 if it is done."""
        return 0 if self._store.has("write", self.write_key(asked, adapter_key)) else len(asked) * WRITING_COST

    def score_ahead(self, asked: Sequence[Example], adapter_key: str | None = None) -> float:
        """Return the forward passes that asking a student takes, 0 if it is done."""
        return 0 if self._store.has("score", self.score_key(asked, adapter_key)) else len(asked)

    def training_ahead(self, training: Training) -> float:
        """Return the forward passes that a training takes, 0 if it is done."""
        if self._store.has("finetune", self.adapter_key(training)):
            return 0
        settings = self._recipe.finetune
        passes = training.updates_per_epoch / self.updates_of_pass(len(training.rows))
        seen = passes * len(training.rows)
        return settings.epochs * (seen * TRAINING_COST + len(self._splits.dev))

    def scored(
        self, student: Student, asked: Sequence[Example], who: str, progress: Progress, adapter_key: str | None = None
    ) -> Step[tuple[Prediction, ...]]:
        """Return the answers of a student, which wears the adapter with this key, or none."""

        def work(_: Path) -> tuple[Prediction, ...]:
            if adapter_key is None:
                student.undress()  # Rounds and earlier arms leave their adapters on.
            return score(student, asked, activity=f"scoring {who}", progress=progress)

        key = self.score_key(asked, adapter_key)
        return self._store.step("score", key, tuple[Prediction, ...], work, on_wait=progress.work)

    def written(
        self, student: Student, asked: Sequence[Example], who: str, progress: Progress, adapter_key: str | None = None
    ) -> Step[tuple[Writing, ...]]:
        """Return the written answers of a student, which wears the adapter with this key, or none."""

        def work(_: Path) -> tuple[Writing, ...]:
            if adapter_key is None:
                student.undress()
            return write(student, asked, activity=f"answers in the words of {who}", progress=progress)

        key = self.write_key(asked, adapter_key)
        return self._store.step("write", key, tuple[Writing, ...], work, on_wait=progress.work)

    def finetuned(self, student: Student, training: Training, progress: Progress) -> Step[Finetuned]:
        """Return what a training did; the adapter lies in the step's folder."""

        def work(workspace: Path) -> Finetuned:
            return self._train(student, training, workspace, progress)

        return self._store.step("finetune", self.adapter_key(training), Finetuned, work, on_wait=progress.work)

    def first_epochs(
        self, student: Student, training: Training, number: int, progress: Progress
    ) -> Step[tuple[Epoch, ...]]:
        """Return what the first epochs of a training come to; ``finetuned`` goes on where they end."""
        key = self.adapter_key(training)

        def work(_: Path) -> tuple[Epoch, ...]:
            if self._store.has("finetune", key):
                return self.finetuned(student, training, progress).result.epochs[:number]

            def part(workspace: Path) -> Finetuned:
                return self._train(student, training, workspace, progress, stop_after=number)

            return self._store.part("finetune", key, part, on_wait=progress.work).epochs

        depends_on = {"finetune": fingerprint(key), "epochs": number}
        return self._store.step("epochs", depends_on, tuple[Epoch, ...], work, on_wait=progress.work)

    @staticmethod
    def train_together(
        student: Student,
        trainings: Sequence[tuple["Steps", Training]],
        progress: Progress,
        *,
        stop_after: int | None = None,
    ) -> None:
        """Bring trainings of one student and store so far at once, where that takes less time than one by one.

        Each is still a step of its own, which ``finetuned`` and ``first_epochs`` find all but finished.
        """
        stacks = student.stacks([steps._recipe.finetune for steps, _ in trainings])
        for stack in ([trainings[place] for place in places] for places in stacks):

            def work(folders: Mapping[int, Path], stack: Sequence[tuple[Steps, Training]] = stack) -> None:
                courses = [stack[place][0]._course(stack[place][1], folder) for place, folder in folders.items()]
                student.finetune_many(courses, stop_after=stop_after, progress=progress)

            keys = [steps.adapter_key(training) for steps, training in stack]
            stack[0][0]._store.parts("finetune", keys, work, on_wait=progress.work)

    def _course(self, training: Training, workspace: Path) -> Course:
        return Course(
            train=training.rows,
            dev=self._splits.dev,
            settings=self._recipe.finetune,
            seed=self._seed(training),
            updates_per_epoch=training.updates_per_epoch,
            workspace=workspace,
        )

    @staticmethod
    def forecast(
        student: Student, trainings: Sequence[tuple["Steps", Training]], *, asked: Asked, times: float = 1.0
    ) -> str | None:
        """Return in a line what these trainings and then the scoring take; None: no training is ahead.

        The one that takes longest is tried for some seconds; the others are told by it, and so are more like them:
        there are ``times`` as many in all.
        """
        ahead = [steps.training_ahead(training) for steps, training in trainings]
        if not any(ahead):
            return None
        steps, training = trainings[ahead.index(max(ahead))]
        found = student.forecast(
            training.rows,
            steps._splits.dev,
            settings=steps._recipe.finetune,
            seed=steps._seed(training),
            updates_per_epoch=training.updates_per_epoch,
        )
        return forecast_line(found, trainings=times * sum(ahead) / max(ahead), asked=asked)

    def _train(
        self,
        student: Student,
        training: Training,
        workspace: Path,
        progress: Progress,
        *,
        stop_after: int | None = None,
    ) -> Finetuned:
        return student.finetune(
            training.rows,
            self._splits.dev,
            settings=self._recipe.finetune,
            seed=self._seed(training),
            updates_per_epoch=training.updates_per_epoch,
            stop_after=stop_after,
            workspace=workspace,
            progress=progress,
        )

    def _lesson_key(self, training: Training) -> dict[str, object]:
        rounds = self._recipe.finetune.method.leaves_frozen_work
        return {
            "code": _TRAINING,
            "student": self._student,
            "train": fingerprint([[_content([row.example]), row.weight, row.shares] for row in training.rows]),
            "dev": _content(self._splits.dev),
            # An update is the same whatever the micro batch is, up to rounding.
            "settings": self._recipe.finetune.model_dump(
                mode="json", exclude={"micro_batch_size", "updates", *_IN_THE_ROWS}
            ),
            "frozen_cache": self._recipe.student.frozen_cache.dtype if rounds else None,
            "updates_per_epoch": training.updates_per_epoch,
            "seed": self._seed(training),
        }

    def _asking_key(self, asked: Sequence[Example]) -> dict[str, object]:
        return {"code": _SCORING, "student": self._student, "asked": _content(asked)}

    def _seed(self, training: Training) -> int:
        """Return the seed of a student: the same for all arms, which so start alike, and draw the order alike."""
        return derive_seed(self._recipe.seed, "finetune", training.seed)


def _content(examples: Sequence[Example]) -> str:
    """Return the fingerprint of all that a student could see of the examples; letter case counts here."""
    return fingerprint([[one.question, one.context, one.options, one.label] for one in examples])
