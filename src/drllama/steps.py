"""The steps of a run that take long: each is kept under the fingerprint of all that its result depends on."""

from collections.abc import Iterable, Sequence
from math import ceil
from pathlib import Path

from drllama.ids import derive_seed, fingerprint
from drllama.prompts import student_prompt
from drllama.protocols import TRAINING_COST, Progress, Student
from drllama.recipe import Recipe
from drllama.stages.score import score
from drllama.store import Step, Store
from drllama.types import Epoch, Example, Finetuned, Prediction, Splits, StudentCard, Task

# A change of what a step computes from the same input changes its number here, and with it the key of its results.
_SCORING, _TRAINING = 1, 2


class Steps:
    """The steps of one recipe: what they cost, and their results, worked out at most once."""

    def __init__(self, recipe: Recipe, splits: Splits, task: Task, card: StudentCard, store: Store) -> None:
        self._recipe, self._splits, self._store = recipe, splits, store
        self._student = {
            "weights": card.weights_sha256,
            "tokenizer": card.tokenizer_sha256,
            "dtype": card.dtype,
            "device": card.device.partition(",")[0],
            "prompt": student_prompt(recipe.student.prompt).sha256,
            "max_tokens": recipe.student.max_tokens,
            "keep_context": recipe.student.keep_context,
            "labels": [[label, task.verbalizers[label]] for label in task.labels],
        }

    @property
    def updates_per_epoch(self) -> int:
        """Return the updates of one pass over the real rows: every arm gets as many."""
        return ceil(len(self._splits.train) / self._recipe.finetune.batch_size)

    def adapter_key(self, train: Sequence[Example]) -> dict[str, object]:
        """Return what an adapter trained on these rows depends on."""
        return {
            "code": _TRAINING,
            "student": self._student,
            "train": _content(train),
            "dev": _content(self._splits.dev),
            # An update is the same whatever the micro batch is, up to rounding.
            "settings": self._recipe.finetune.model_dump(mode="json", exclude={"micro_batch_size"}),
            "updates_per_epoch": self.updates_per_epoch,
            "seed": self._recipe.seed,
        }

    def score_key(self, asked: Sequence[Example], adapter_key: str | None = None) -> dict[str, object]:
        """Return what the answers of a student depend on; None: of the bare one."""
        worn = {} if adapter_key is None else {"adapter": adapter_key}
        return {**worn, "code": _SCORING, "student": self._student, "asked": _content(asked)}

    def work_ahead(self, arms: Iterable[Sequence[Example]], *bare: Sequence[Example]) -> float:
        """Return the forward passes ahead: of training and testing arms, and of asking the bare student."""
        test = self._splits.test
        ahead = 0.0
        for asked in bare:
            ahead += 0 if self._store.has("score", self.score_key(asked)) else len(asked)
        for train in arms:
            key = self.adapter_key(train)
            ahead += 0 if self._store.has("score", self.score_key(test, fingerprint(key))) else len(test)
            ahead += self.training_ahead(train)
        return ahead

    def training_ahead(self, train: Sequence[Example]) -> float:
        """Return the forward passes that training on these rows takes, 0 if it is done."""
        if self._store.has("finetune", self.adapter_key(train)):
            return 0
        settings = self._recipe.finetune
        seen = min(len(train), self.updates_per_epoch * settings.batch_size)
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

    def finetuned(self, student: Student, train: Sequence[Example], progress: Progress) -> Step[Finetuned]:
        """Return what training on these rows did; the adapter lies in the step's folder."""

        def work(workspace: Path) -> Finetuned:
            return self._train(student, train, workspace, progress)

        return self._store.step("finetune", self.adapter_key(train), Finetuned, work, on_wait=progress.work)

    def first_epochs(
        self, student: Student, train: Sequence[Example], number: int, progress: Progress
    ) -> Step[tuple[Epoch, ...]]:
        """Return what the first epochs of training on these rows come to; ``finetuned`` goes on where they end."""
        key = self.adapter_key(train)

        def work(_: Path) -> tuple[Epoch, ...]:
            if self._store.has("finetune", key):
                return self.finetuned(student, train, progress).result.epochs[:number]

            def part(workspace: Path) -> Finetuned:
                return self._train(student, train, workspace, progress, stop_after=number)

            return self._store.part("finetune", key, part, on_wait=progress.work).epochs

        depends_on = {"finetune": fingerprint(key), "epochs": number}
        return self._store.step("epochs", depends_on, tuple[Epoch, ...], work, on_wait=progress.work)

    def _train(
        self,
        student: Student,
        train: Sequence[Example],
        workspace: Path,
        progress: Progress,
        *,
        stop_after: int | None = None,
    ) -> Finetuned:
        return student.finetune(
            train,
            self._splits.dev,
            settings=self._recipe.finetune,
            # The same for all arms: they start alike, and the data's order is drawn alike.
            seed=derive_seed(self._recipe.seed, "finetune"),
            updates_per_epoch=self.updates_per_epoch,
            stop_after=stop_after,
            workspace=workspace,
            progress=progress,
        )


def _content(examples: Sequence[Example]) -> str:
    """Return the fingerprint of all that a student could see of the examples; letter case counts here."""
    return fingerprint([[one.question, one.context, one.options, one.label] for one in examples])
