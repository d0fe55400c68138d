"""A student without a model: it answers by rule, remembers what it was asked, and trains by writing a note."""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from drllama.recipe import Finetune
from drllama.types import (
    Durations,
    Epoch,
    Example,
    Finetuned,
    Forecast,
    Outcome,
    Prediction,
    StudentCard,
    TrainingRow,
    Writing,
)

POISON = "POISON"
"""A question that holds this word doesn't fit the scripted student."""
HARD = "HARD"
"""A question that holds this word is answered wrong, whatever was learnt."""

MUMBLED = " That is known to help, yes"
"""What is written to a hard question: the paper's readers find "maybe" and "no" in it, a strict one nothing."""


@dataclass
class Script:
    """What all students of one test share: what was asked of them, and when to fail."""

    asked: list[tuple[str, str]] = field(default_factory=list)
    """("untrained" or "fine-tuned", question), in the order of asking."""
    trainings: int = 0
    fail_after: int | None = None
    """Raise ``failure`` once so many questions were asked."""
    failure: BaseException = field(default_factory=KeyboardInterrupt)
    dev_nats: list[float] = field(default_factory=list)
    """What dev comes to after each training, the next first; 0.1 when none is left."""
    dev_of: Callable[[Finetune, int, int], float] | None = None
    """Says from settings, seed and epoch what dev comes to; it goes before ``dev_nats``."""
    taught: list[list[str]] = field(default_factory=list)
    """The questions of each training."""
    lessons: list[list[TrainingRow]] = field(default_factory=list)
    """The rows of each training."""
    seeds: list[int] = field(default_factory=list)
    """Of each training."""
    device: str = "cpu, 2 threads"
    together: list[list[Path]] | None = None
    """The workspaces of those that were trained at once; None: the student trains one after another."""

    def make_student(self, recipe, task):
        return ScriptedStudent(recipe=recipe, task=task, script=self)

    def questions_asked_of(self, who):
        return [question for system, question in self.asked if system == who]


class ScriptedStudent:
    """Satisfies ``protocols.Student``; untrained it answers with the first label, fine-tuned it is always right."""

    def __init__(self, *, recipe, task, script):
        self._recipe, self._task, self._script = recipe, task, script
        self._who = "untrained"

    @property
    def card(self) -> StudentCard:
        return StudentCard(
            model=self._recipe.student.model,
            weights_sha256="0" * 64,
            tokenizer_sha256="1" * 64,
            num_parameters=7,
            device=self._script.device,
            dtype="float32",
            is_chat=self._recipe.student.chat == "yes",
        )

    def score(self, examples: Sequence[Example]) -> Iterator[Prediction]:
        for example in reversed(examples):  # the protocol promises no order
            if self._script.fail_after is not None and len(self._script.asked) >= self._script.fail_after:
                raise self._script.failure
            self._script.asked.append((self._who, example.question))
            yield self._answer(example)

    def write(self, examples: Sequence[Example]) -> Iterator[Writing]:
        for example in reversed(examples):
            self._script.asked.append((f"{self._who}, writing", example.question))
            answer = self._answer(example)
            yield Writing(
                example_id=answer.example_id,
                source_id=answer.source_id,
                text=None if answer.choice is None else MUMBLED if HARD in example.question else f" {answer.choice}.",
                num_tokens=answer.num_tokens,
                truncated_tokens=0,
                note=answer.note,
            )

    def finetune(
        self, train, dev, *, settings, seed, workspace: Path, progress, updates_per_epoch=None, stop_after=None
    ) -> Finetuned:
        self._script.trainings += 1
        self._script.taught.append([row.example.question for row in train])
        self._script.lessons.append(list(train))
        self._script.seeds.append(seed)
        nats = self._script.dev_nats.pop(0) if self._script.dev_nats else 0.1
        last = min(settings.epochs, stop_after or settings.epochs)
        if last == settings.epochs:
            (workspace / "adapter").mkdir(exist_ok=True)
            ids = [example.id for example in (*(row.example for row in train), *dev)]
            (workspace / "adapter" / "note.json").write_text(json.dumps(ids), encoding="utf-8")
        epochs = []
        for number in range(1, last + 1):
            progress.work(f"training, epoch {number}", len(train))
            if self._script.dev_of:
                dev_nats = self._script.dev_of(settings, seed, number)
                epochs.append(_epoch(number, math.exp(-dev_nats), dev_nats))
            else:
                epochs.append(_epoch(number, 1, nats))
        return Finetuned(
            epochs=tuple(epochs),
            chosen_epoch=min(epochs, key=lambda epoch: epoch.dev_nll_nats).number,
            num_steps=last * (updates_per_epoch or math.ceil(len(train) / settings.batch_size)),
            num_examples=len(train),
            left_out=(),
            truncated_examples=0,
            trainable_parameters=3,
        )

    def stacks(self, settings):
        return [list(range(len(settings)))] if self._script.together is not None and len(settings) > 1 else []

    def finetune_many(self, courses, *, progress, stop_after=None):
        self._script.together.append([course.workspace for course in courses])
        return [
            self.finetune(
                course.train,
                course.dev,
                settings=course.settings,
                seed=course.seed,
                workspace=course.workspace,
                progress=progress,
                updates_per_epoch=course.updates_per_epoch,
                stop_after=stop_after,
            )
            for course in courses
        ]

    def forecast(self, train, dev, *, settings, seed, updates_per_epoch=None) -> Forecast:
        return Forecast(
            durations=Durations(
                training=len(train) * settings.epochs, once=0, question=1, question_once=0, bare_question=1
            ),
            peak_bytes=2**30,
            room_bytes=2**31,
            way_out="",
        )

    def wear(self, adapter: Path) -> frozenset[str]:
        self._who = "fine-tuned"
        return frozenset(json.loads((adapter / "note.json").read_text(encoding="utf-8")))

    def undress(self):
        self._who = "untrained"

    def _answer(self, example: Example) -> Prediction:
        choice, scores = None, None
        if POISON not in example.question:
            choice = example.label if self._who == "fine-tuned" else self._task.labels[0]
            if HARD in example.question:
                choice = next(label for label in self._task.labels if label != example.label)
            rest = math.log(0.2 / (len(self._task.labels) - 1))
            scores = {label: math.log(0.8) if label == choice else rest for label in self._task.labels}
        outcome = Outcome.FAILED if choice is None else Outcome.CORRECT if choice == example.label else Outcome.WRONG
        return Prediction(
            example_id=example.id,
            source_id=example.origin.source_id,
            gold=example.label,
            choice=choice,
            outcome=outcome,
            scores_nats=scores,
            num_tokens=0 if choice is None else len(example.question),
            truncated_tokens=0,
            note="the question alone doesn't fit" if choice is None else "",
        )


def _epoch(number, share, nats):
    return Epoch(number=number, train_loss_nats=1 / number, dev_accuracy=share, dev_macro_f1=share, dev_nll_nats=nats)


def write_questions(path: Path, *, train=24, dev=6, test=12, labels=("yes", "no", "maybe"), extra=()):
    """Write a .jsonl file of questions with split marks; ``extra`` rows come at the end."""
    rows = []
    for split, size in (("train", train), ("dev", dev), ("test", test)):
        for number in range(size):
            rows.append(
                {
                    "id": f"{split}{number}",
                    "question": f"Does treatment {number} of {split} help?",
                    "context": f"In {split}, treatment {number} was given.",
                    "label": labels[number % len(labels)],
                    "split": split,
                }
            )
    lines = [json.dumps(row, ensure_ascii=False) for row in (*rows, *extra)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_recipe(path: Path, questions: Path, *, labels=("yes", "no", "maybe"), more=""):
    """Write a recipe for such a file; ``more`` is YAML that is added at the end."""
    path.write_text(
        f"name: scripted\ndata:\n  jsonl: {{path: '{questions}'}}\ntask:\n  labels: [{', '.join(labels)}]\n{more}",
        encoding="utf-8",
    )
