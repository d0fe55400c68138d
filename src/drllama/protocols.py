"""The edges: what a part must offer to be used here. Each has one or two methods; anything that has them fits."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from drllama.recipe import Finetune
from drllama.types import Example, Finetuned, Prediction, Splits, StudentCard, Task


class Progress(Protocol):
    """Tells a person how far the work is."""

    def begin(self, activity: str) -> None:
        """Say what happens from now on."""

    def advance(self, units: float) -> None:
        """Count finished work; one unit is one forward pass of one question."""


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


class Student(Protocol):
    """A small language model that can be scored and fine-tuned."""

    @property
    def card(self) -> StudentCard:
        """Which student this is."""

    def score(self, examples: Sequence[Example]) -> Iterator[Prediction]:
        """Yield one prediction for each example, in any order, as soon as it is there."""

    def finetune(
        self,
        train: Sequence[Example],
        dev: Sequence[Example],
        *,
        settings: Finetune,
        seed: int,
        workspace: Path,
        on_work: Callable[[str, float], None],
    ) -> Finetuned:
        """Train an adapter, leave it in ``workspace/adapter`` and wear it from now on.

        ``workspace`` outlives a kill: what the student keeps there lets the next call go on where this one ended,
        with the same adapter at the end, byte for byte. ``on_work`` gets (activity, finished units).
        """

    def wear(self, adapter: Path) -> None:
        """Put on an adapter that ``finetune`` left.

        Raises:
            ModelError: the adapter was made for another base, prompt or task.
        """
