"""The edges: what a part must offer to be used here. Each has one or two methods; anything that has them fits."""

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from drllama.errors import TeacherFailure
from drllama.recipe import Finetune
from drllama.types import (
    Candidate,
    Example,
    Finetuned,
    Forecast,
    Objection,
    OpenBatch,
    Prediction,
    Reply,
    Splits,
    StudentCard,
    Task,
    TeacherRequest,
    TrainingRow,
    Writing,
)

# A training step's forward and backward pass, in forward passes; measured 2.0 to 2.6 with LoRA in all layers.
TRAINING_COST = 2.3
# A written answer, in forward passes: 3 where students stop by themselves, 10 where they write on to 100 words.
WRITING_COST = 4.0


class Progress(Protocol):
    """Tells a person how far the work is; one unit of work is one forward pass of one question."""

    def expect(self, units: float) -> None:
        """Hear how much work lies ahead in all."""

    def work(self, activity: str, units: float = 0) -> None:
        """Hear what is being done, and how much of the work that finished."""

    def tell(self, line: str) -> None:
        """Hear what a person is to read and keep."""


Workers = Callable[[int], AbstractContextManager[object]]
"""Called with the number of trainings that may be shared; from entry to exit, others may work on them too."""


class Source(Protocol):
    """Labelled questions, already cut into train, dev and test."""

    @property
    def task(self) -> Task:
        """What is asked, and the labels allowed."""

    def load(self) -> Splits:
        """Return all examples, gold labels checked.

        Raises:
            DataError: a row can't be read; the message names file, line, value and what is allowed.
        """


class Teacher(Protocol):
    """A large model, or something that answers like one; behaviour is added by wrapping one in another."""

    @property
    def endpoint(self) -> str:
        """Where requests go: the base URL, or ``local:`` and the hash of the weights."""

    async def ask(self, request: TeacherRequest) -> Reply:
        """Return the reply to a request.

        Raises:
            TeacherFailure: there is none; the failure's kind says why.
            BudgetSpent: a limit would be passed; nothing was sent.
        """


class Replies(Protocol):
    """Where replies are kept, durable before they are used."""

    def find(self, key: str) -> Reply | None:
        """Return the kept reply to the request with this key."""

    def keep_many(self, attempts: Iterable[tuple[TeacherRequest, Reply | TeacherFailure]]) -> None:
        """Keep attempts, failed ones too, all or none; when this returns, a power cut loses none of them.

        It is called from a thread of its own, while others look for replies.
        """


class Batches(Protocol):
    """Where it is kept which requests are out in batches; each step is durable before what it tells of is done."""

    def alone(self) -> AbstractContextManager[None]:
        """Keep other processes from submitting and harvesting meanwhile."""

    def now(self) -> datetime:
        """Return the time by which batches are dated."""

    def open_batches(self, endpoint: str) -> list[OpenBatch]:
        """Return the batches at an endpoint whose replies aren't here yet, oldest first."""

    def batch_of(self, key: str) -> str | None:
        """Return the id of the batch in which this request is out, None if it isn't."""

    def requests(self, batch_id: str) -> list[TeacherRequest]:
        """Return what an open batch asks, in the order of its lines."""

    def failures(self, key: str) -> list[TeacherFailure]:
        """Return how the request with this key failed in batches, oldest first."""

    def begin(self, endpoint: str, requests: Sequence[TeacherRequest]) -> OpenBatch:
        """Return a batch that nobody has been told of yet."""

    def sending(self, batch_id: str) -> None:
        """Note that from now on the server may have the batch."""

    def sent(self, batch_id: str, server_id: str) -> None:
        """Note the server's name for the batch."""

    def forget(self, batch_id: str) -> None:
        """Take a batch back that the server doesn't have; its requests are free again."""

    def settle(
        self, batch_id: str, outcomes: Mapping[str, Reply | TeacherFailure], *, state: str, num_strays: int
    ) -> None:
        """Keep what came of a batch that ended, and end it: both or neither; what has no outcome is free again."""


class AnswerMany(Protocol):
    """Puts many requests to a teacher, so many at once as it is set to, and gives each outcome as it comes."""

    def __call__(
        self, teacher: Teacher, requests: Iterable[TeacherRequest]
    ) -> AsyncIterator[tuple[TeacherRequest, Reply | TeacherFailure]]:
        """Yield each request with its reply or its failure, in any order; stop the stage by raising."""


class Filter(Protocol):
    """One kind of reason to drop rows that a teacher wrote."""

    @property
    def name(self) -> str:
        """Its name in the recipe."""

    def check(self, candidates: Sequence[Candidate]) -> Sequence[Objection | None]:
        """Return an objection or None for each of the candidates that no earlier filter dropped, in their order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """One of several trainings that a student is to make."""

    train: Sequence[TrainingRow]
    dev: Sequence[Example]
    settings: Finetune
    seed: int
    workspace: Path
    """Where the adapter is left, and what outlives a kill."""
    updates_per_epoch: int | None = None
    """How long an epoch is; None: one pass over the rows."""


class Student(Protocol):
    """A small language model that can be scored and fine-tuned."""

    @property
    def card(self) -> StudentCard:
        """Which student this is."""

    def score(self, examples: Sequence[Example]) -> Iterator[Prediction]:
        """Yield one prediction for each example, in any order, as soon as it is there."""

    def write(self, examples: Sequence[Example]) -> Iterator[Writing]:
        """Yield what it writes as its answer to each example, in any order, as soon as it is there."""

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
        """Train an adapter and leave it in ``workspace/adapter``.

        ``updates_per_epoch`` says how long an epoch is, whatever the number of rows, so that students trained on more
        rows don't get more updates; None: one pass over the rows.

        ``stop_after`` pauses after so many epochs: no adapter is left, the result tells of the epochs so far, and the
        next call goes on as if nothing had been. None: all epochs.

        ``workspace`` outlives a kill: what the student keeps there lets the next call go on where this one ended,
        with the same adapter at the end, byte for byte.
        """

    def forecast(
        self,
        train: Sequence[TrainingRow],
        dev: Sequence[Example],
        *,
        settings: Finetune,
        seed: int,
        updates_per_epoch: int | None = None,
    ) -> Forecast:
        """Return what ``finetune`` would take, from a few rows that are trained and thrown away; it takes seconds."""

    def stacks(self, settings: Sequence[Finetune]) -> list[list[int]]:
        """Return, by place, which trainings with these settings take less time at once than one after another."""

    def finetune_many(
        self, courses: Sequence[Course], *, stop_after: int | None = None, progress: Progress
    ) -> list[Finetuned]:
        """Train one adapter for each course, with the same results as ``finetune`` up to rounding.

        Each workspace holds what ``finetune`` would leave there: a call that was killed can go on alone or in other
        company, and in the same company to the same adapters, byte for byte.
        """

    def wear(self, adapter: Path) -> frozenset[str]:
        """Put on an adapter that ``finetune`` left, and return the ids of the examples it must not be scored on.

        Raises:
            ModelError: the adapter was made for another base, prompt or task.
        """

    def undress(self) -> None:
        """Take off the adapter, if there is one."""
