"""A causal language model as a student."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from drllama.errors import DataError, ModelError
from drllama.ids import derive_seed
from drllama.protocols import TRAINING_COST, Course, Progress
from drllama.recipe import Evaluate, Finetune
from drllama.recipe import Student as StudentSettings
from drllama.stats import evaluate_predictions
from drllama.students.activated import ActivatedReader
from drllama.students.adapters import (
    FORMAT,
    AdapterNote,
    read_note,
    save_adapter,
    take_off,
    with_saved_adapter,
)
from drllama.students.chat import phrasing_of
from drllama.students.encoding import Encoded, Unfit, by_context, make_encoder
from drllama.students.forecast import forecast, with_bare_question
from drllama.students.frozen import FrozenWork
from drllama.students.loading import LoadedModel, load_model
from drllama.students.methods import refuse_unopened, with_new_adapter
from drllama.students.passes import PlainReader, Reader, make_reader
from drllama.students.scoring import batches, label_scores, shuffled
from drllama.students.sharded import Crew, refuse_unshardable
from drllama.students.stacked import Due, Seat, StackReader, stacks_of, train_stacked
from drllama.students.training import Lesson, train_adapter
from drllama.students.writing import AT_ONCE, Writer
from drllama.types import (
    Epoch,
    Example,
    Finetuned,
    Forecast,
    Label,
    Outcome,
    Prediction,
    StudentCard,
    Task,
    TrainingRow,
    Writing,
)

_NO_NUMBERS = "scores that aren't numbers"


class CausalStudent:
    """A causal language model of transformers, bare or wearing one adapter."""

    def __init__(self, settings: StudentSettings, task: Task, *, contexts_apart: bool = False) -> None:
        """Load it; bare, it may read contexts apart from questions and recall them, as with activated LoRA."""
        self._settings, self._task, self._contexts_apart = settings, task, contexts_apart
        loaded = load_model(settings)
        # Adapters are put on the bare model; what is worn, if anything, is the other.
        self._bare: Any = loaded.model
        self._model: Any = loaded.model
        self._card = loaded.card
        self._crew = Crew(loaded.model, settings) if settings.processes > 1 else None
        self._frozen = FrozenWork(_numbers_of(loaded), settings.frozen_cache)
        self._phrasing = phrasing_of(loaded.tokenizer, settings, task)
        self._encoder = make_encoder(loaded.tokenizer, self._phrasing, task, settings)

    @property
    def card(self) -> StudentCard:
        """Which student this is."""
        return self._card

    def score(self, examples: Sequence[Example]) -> Iterator[Prediction]:
        """Yield one prediction for each example, the longest first, so that a lack of memory shows at once.

        The others come in an order of chance, which changes no score.
        """
        yield from (prediction for (prediction,) in self._scored(self._reader(), examples, by_chance=True))

    def write(self, examples: Sequence[Example]) -> Iterator[Writing]:
        """Yield what the student writes to each example, the longest first.

        Raises:
            ModelError: its weights are divided among several processes.
        """
        if self._crew:
            raise ModelError("student.processes: divided weights don't write; set it to 1, or let labels be scored")
        fitting, unfit = self._longest_first(examples)
        for one in unfit:
            yield _writing(one.example, None, num_tokens=0, truncated_tokens=0, note=one.reason)
        writer = Writer(model=self._model, tokenizer=self._encoder.tokenizer)
        at_once = self._settings.batch_size or AT_ONCE
        for start in range(0, len(fitting), at_once):
            batch = fitting[start : start + at_once]
            for encoded, text in zip(batch, writer.answers(batch), strict=True):
                yield _writing(
                    encoded.example,
                    text,
                    num_tokens=len(encoded.tokens),
                    truncated_tokens=encoded.truncated_tokens,
                    note=_NO_NUMBERS if text is None else "",
                )

    def finetune(
        self,
        train: Sequence[TrainingRow],
        dev: Sequence[Example],
        *,
        settings: Finetune,
        seed: int,
        updates_per_epoch: int | None = None,
        stop_after: int | None = None,
        workspace: Path,
        progress: Progress,
    ) -> Finetuned:
        """Train an adapter and leave it in ``workspace/adapter`` (see ``protocols.Student``)."""
        if self._crew:
            refuse_unshardable(settings.method)
        lesson, unfit = self._lesson(train, settings, seed, updates_per_epoch)
        self.undress()
        self._model = with_new_adapter(self._bare, settings.method, self._encoder, seed=derive_seed(seed, "adapter"))
        epochs, chosen = train_adapter(
            self._reader(),
            lesson,
            workspace=workspace,
            on_dev=lambda number, loss: self._dev_epoch(dev, number, loss, progress),
            on_step=lambda activity, examples: progress.work(activity, examples * TRAINING_COST),
            stop_after=stop_after,
        )
        if len(epochs) == settings.epochs:
            note = self._note(
                settings.method.kind, (*(row.example.id for row in train), *(example.id for example in dev))
            )
            save_adapter(self._model, workspace / "adapter", note, self._encoder.tokenizer)
        return Finetuned(
            epochs=epochs,
            chosen_epoch=chosen,
            num_steps=lesson.updates_per_epoch * len(epochs),
            num_examples=len(lesson.examples),
            left_out=tuple(f"{one.example.origin.source_id}: {one.reason}" for one in unfit),
            truncated_examples=sum(one.truncated_tokens > 0 for one in lesson.examples),
            trainable_parameters=sum(weight.numel() for weight in self._model.parameters() if weight.requires_grad),
        )

    def forecast(
        self,
        train: Sequence[TrainingRow],
        dev: Sequence[Example],
        *,
        settings: Finetune,
        seed: int,
        updates_per_epoch: int | None = None,
    ) -> Forecast:
        """Return what a training will take (see ``protocols.Student``)."""
        lesson, _ = self._lesson(train, settings, seed, updates_per_epoch)
        judged, _ = self._longest_first(dev)
        if not judged:
            raise DataError("none of the dev questions fits student.max_tokens; raise it")
        self.undress()
        self._model = with_new_adapter(self._bare, settings.method, self._encoder, seed=derive_seed(seed, "adapter"))
        reader = make_reader(self._model, self._frozen)
        found = forecast(reader, lesson, judged, batch_size=self._settings.batch_size)
        self.undress()
        if isinstance(reader, PlainReader):
            return found
        # The bare student may recall less, or nothing.
        return with_bare_question(found, self._reader(), judged, lesson.label_tokens)

    def stacks(self, settings: Sequence[Finetune]) -> list[list[int]]:
        """Return which trainings take less time at once than one after another (see ``protocols.Student``)."""
        # A CPU is busy with the rows of one training; a GPU waits for work, most of all with small students.
        if self._crew or not self._card.device.startswith("cuda"):
            return []
        return stacks_of(self._bare, [one.method for one in settings], recalls=self._frozen.remembers)

    def finetune_many(
        self, courses: Sequence[Course], *, stop_after: int | None = None, progress: Progress
    ) -> list[Finetuned]:
        """Train one adapter for each course (see ``protocols.Student``)."""
        self.undress()
        for places in self.stacks([course.settings for course in courses]):
            self._train_stacked([courses[at] for at in places], stop_after, progress)
        # What was trained in a stack is finished here, by its checkpoint; the rest is trained one after another.
        return [
            self.finetune(
                course.train,
                course.dev,
                settings=course.settings,
                seed=course.seed,
                updates_per_epoch=course.updates_per_epoch,
                stop_after=stop_after,
                workspace=course.workspace,
                progress=progress,
            )
            for course in courses
        ]

    def wear(self, adapter: Path) -> frozenset[str]:
        """Put on an adapter, and return the ids that it must not be scored on (see ``protocols.Student``)."""
        found = read_note(adapter)
        wanted = self._note(found.method, ())
        for what, theirs, ours in (
            ("base weights", found.weights_sha256, wanted.weights_sha256),
            ("prompt", found.prompt_sha256, wanted.prompt_sha256),
            ("labels and verbalizers", list(found.verbalizers.items()), list(wanted.verbalizers.items())),
        ):
            if theirs != ours:
                raise ModelError(
                    f"{adapter}: made for other {what} ({theirs}, here {ours}); use the recipe that made it"
                )
        self.undress()
        self._model = with_saved_adapter(self._bare, adapter, found)
        return frozenset(found.trained_on)

    def undress(self) -> None:
        """Take off the adapter, if there is one."""
        take_off(self._model)
        self._model = self._bare

    def _train_stacked(self, courses: Sequence[Course], stop_after: int | None, progress: Progress) -> None:
        seats = []
        for course in courses:
            lesson, _ = self._lesson(course.train, course.settings, course.seed, course.updates_per_epoch)
            adapter_seed = derive_seed(course.seed, "adapter")
            seats.append(Seat(lesson=lesson, adapter_seed=adapter_seed, workspace=course.workspace))
        train_stacked(
            self._bare,
            self._encoder,
            seats,
            on_dev=lambda reader, due: self._dev_epochs(reader, due, courses, progress),
            on_step=lambda activity, examples: progress.work(activity, examples * TRAINING_COST),
            stop_after=stop_after,
        )

    def _lesson(
        self, train: Sequence[TrainingRow], settings: Finetune, seed: int, updates_per_epoch: int | None
    ) -> tuple[Lesson, list[Unfit]]:
        """Return what is to be trained, and the examples that can't be."""
        encoded = [(row, self._encoder.encode(row.example)) for row in train]
        fitting = [(row, one) for row, one in encoded if isinstance(one, Encoded)]
        if not fitting:
            raise DataError(f"none of {len(encoded)} training questions fits student.max_tokens; raise it")
        refuse_unopened(settings.method, self._encoder, [one for _, one in fitting])
        lesson = Lesson(
            examples=[one for _, one in fitting],
            rows=[row for row, _ in fitting],
            label_tokens=self._encoder.label_tokens,
            settings=settings,
            seed=derive_seed(seed, "training"),
            updates_per_epoch=updates_per_epoch or math.ceil(len(fitting) / settings.batch_size),
        )
        return lesson, [one for _, one in encoded if isinstance(one, Unfit)]

    def _scored(
        self, reader: Reader, examples: Sequence[Example], *, copies: int = 1, by_chance: bool = False
    ) -> Iterator[tuple[Prediction, ...]]:
        """Yield for each example the prediction of each adapter that the reader reads its own copy of it for."""
        fitting, unfit = self._longest_first(examples)
        for one in unfit:
            yield (_prediction(one.example, None, num_tokens=0, truncated_tokens=0, note=one.reason),) * copies
        in_turn = batches(reader, fitting, self._settings.batch_size)
        for batch in shuffled(in_turn) if by_chance else in_turn:
            found = label_scores(reader, [*batch] * copies, self._encoder.label_tokens)
            for at, encoded in enumerate(batch):
                yield tuple(_scored_prediction(encoded, scores) for scores in found[at :: len(batch)])

    def _reader(self) -> Reader:
        if self._crew:
            return self._crew.reader(self._model)
        if self._contexts_apart and self._model is self._bare:
            return ActivatedReader(self._bare, self._frozen)
        return make_reader(self._model, self._frozen)

    def _longest_first(self, examples: Sequence[Example]) -> tuple[list[Encoded], list[Unfit]]:
        """Return the questions that fit, those about one context together, and those that don't."""
        encoded = [self._encoder.encode(example) for example in examples]
        fitting = [one for one in encoded if isinstance(one, Encoded)]
        groups = [
            sorted((fitting[at] for at in group), key=lambda one: -len(one.tokens)) for group in by_context(fitting)
        ]
        groups.sort(key=lambda group: -len(group[0].tokens))
        return [one for group in groups for one in group], [one for one in encoded if isinstance(one, Unfit)]

    def _dev_epoch(self, dev: Sequence[Example], number: int, loss: float, progress: Progress) -> Epoch:
        predictions = []
        for (prediction,) in self._scored(self._reader(), dev):
            predictions.append(prediction)
            progress.work(f"scoring dev after epoch {number}", 1)
        return self._epoch(predictions, number, loss)

    def _dev_epochs(
        self, reader: StackReader, due: Sequence[Due], courses: Sequence[Course], progress: Progress
    ) -> list[Epoch | ModelError]:
        """Return what dev comes to for each of these adapters; the same dev questions are read in one pass."""
        by_dev: dict[tuple[Example, ...], list[Due]] = {}
        for one in due:
            by_dev.setdefault(tuple(courses[one.seat].dev), []).append(one)
        found: dict[int, Epoch | ModelError] = {}
        for dev, same in by_dev.items():
            reader.read_for([one.seat for one in same])
            predictions = []
            for of_one_example in self._scored(reader, dev, copies=len(same)):
                predictions.append(of_one_example)
                progress.work(f"scoring dev after epoch {same[0].number}", len(same))
            for place, one in enumerate(same):
                try:
                    own = [of_one_example[place] for of_one_example in predictions]
                    found[one.seat] = self._epoch(own, one.number, one.train_loss_nats)
                except ModelError as error:
                    found[one.seat] = error
        return [found[one.seat] for one in due]

    def _epoch(self, predictions: Sequence[Prediction], number: int, loss: float) -> Epoch:
        # Only the values are used, so the fewest resamplings that the settings allow.
        counted = evaluate_predictions(
            predictions,
            system=f"epoch {number}",
            split="dev",
            labels=self._task.labels,
            settings=Evaluate(bootstrap_samples=100),
            seed=0,
        ).metrics
        if "nll" not in counted:
            if any(prediction.num_tokens for prediction in predictions):
                raise ModelError(
                    f"after epoch {number} the student's scores aren't numbers: training diverged; "
                    "lower finetune.learning_rate"
                )
            raise DataError("none of the dev questions fits student.max_tokens; raise it")
        return Epoch(
            number=number,
            train_loss_nats=loss,
            dev_accuracy=counted["accuracy"].value,
            dev_macro_f1=counted["macro_f1"].value,
            dev_nll_nats=counted["nll"].value,
        )

    def _note(self, method: str, trained_on: tuple[str, ...]) -> AdapterNote:
        return AdapterNote(
            format=FORMAT,
            method=method,
            model=self._settings.model,
            weights_sha256=self._card.weights_sha256,
            prompt=self._phrasing.prompt.version,
            prompt_sha256=self._phrasing.sha256,
            max_tokens=self._settings.max_tokens,
            keep_context=self._settings.keep_context,
            verbalizers={label: self._task.verbalizers[label] for label in self._task.labels},
            trained_on=trained_on,
        )


def _numbers_of(loaded: LoadedModel) -> dict[str, object]:
    """Return all that a pass through the bare model depends on, but for the tokens."""
    return {
        "weights": loaded.card.weights_sha256,
        "config": {name: value for name, value in loaded.model.config.to_dict().items() if name != "_name_or_path"},
        "dtype": loaded.card.dtype,
        "device": loaded.card.device.partition(",")[0],
    }


def _scored_prediction(encoded: Encoded, scores: dict[Label, float]) -> Prediction:
    finite = all(map(math.isfinite, scores.values()))
    return _prediction(
        encoded.example,
        scores if finite else None,
        num_tokens=len(encoded.tokens),
        truncated_tokens=encoded.truncated_tokens,
        note="" if finite else _NO_NUMBERS,
    )


def _prediction(
    example: Example, scores: dict[Label, float] | None, *, num_tokens: int, truncated_tokens: int, note: str
) -> Prediction:
    choice = max(scores, key=lambda label: scores[label]) if scores else None
    outcome = Outcome.FAILED if choice is None else Outcome.CORRECT if choice == example.label else Outcome.WRONG
    return Prediction(
        example_id=example.id,
        source_id=example.origin.source_id,
        gold=str(example.label),
        choice=choice,
        outcome=outcome,
        scores_nats=scores,
        num_tokens=num_tokens,
        truncated_tokens=truncated_tokens,
        note=note,
    )


def _writing(example: Example, text: str | None, *, num_tokens: int, truncated_tokens: int, note: str) -> Writing:
    return Writing(
        example_id=example.id,
        source_id=example.origin.source_id,
        text=text,
        num_tokens=num_tokens,
        truncated_tokens=truncated_tokens,
        note=note,
    )
