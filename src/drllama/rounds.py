"""Letting the teacher work where the student is weak: find what it gets wrong, augment that, train, and again.

After LLM2LLM (Lee et al. 2024), with two differences: what is wrong is told by students that weren't trained on the
question, and another round must make dev better or its rows aren't used.
"""

from collections.abc import Callable, Sequence

from drllama.errors import DataError
from drllama.protocols import Progress, Student
from drllama.recipe import Recipe
from drllama.stages.arms import Stock, all_rows, worth_on_dev
from drllama.stages.select import chosen_examples, folds_of
from drllama.steps import Steps, Training
from drllama.store import Store
from drllama.types import Candidate, Example, Prediction, Round, Splits, Task


class WeakSpots:
    """Says, round by round, which training examples the teacher is to work on; it satisfies ``teaching.Choose``."""

    def __init__(
        self,
        recipe: Recipe,
        splits: Splits,
        task: Task,
        *,
        student: Student,
        store: Store,
        guard: Callable[[Sequence[Example]], object],
        progress: Progress,
    ) -> None:
        assert recipe.augment, "nothing is written, so nothing is chosen to be worked on"
        self._recipe, self._settings, self._splits, self._task = recipe, recipe.augment.select, splits, task
        self._student, self._store, self._guard, self._progress = student, store, guard, progress
        self._asked: tuple[Example, ...] = ()
        self._rounds: list[Round] = []
        self._best: tuple[float, tuple[Example, ...]] | None = None

    @property
    def rounds(self) -> tuple[Round, ...]:
        """Return what each round came to."""
        return tuple(self._rounds)

    @property
    def best(self) -> tuple[Example, ...]:
        """Return the sources of the round after which dev was best; an example chosen twice stands there twice."""
        return self._best[1] if self._best else self._asked

    def trainings(self) -> list[tuple[Steps, Training]]:
        """Return what all rounds train to choose by, at most, as if the teacher's rows were none yet.

        Raises:
            DataError: there are more folds than documents.
        """
        of_round = [lesson for _, lesson in self._lessons(())]
        if self._settings.rounds > 1:
            steps = self._steps(self._splits)
            of_round.append((steps, self._training(steps, self._splits.train, ())))
        return of_round * self._settings.rounds

    def __call__(self, kept: Sequence[Candidate]) -> tuple[Example, ...] | None:
        """Return the sources so far and those of the next round; None: no round is left, or the last one didn't help.

        ``kept`` are the rows that came of the sources returned last.

        Raises:
            DataError: there is nothing to choose: the student gets every training question right.
            OverlapError: a row to train on is like one of dev or test.
        """
        # Not after the rounds: what is trained on here is scored on dev, and chooses what is asked for.
        self._guard([*self._splits.train, *(one.example for one in kept)])
        if self._asked and not self._helped(kept):
            return None
        if len(self._rounds) == self._settings.rounds:
            return None
        chosen = chosen_examples(self._splits.train, self._out_of_fold(kept), self._settings)
        if not chosen and not self._asked:
            raise DataError(
                "augment.select: the student gets every training question right out of fold; "
                "set augment.select.by to uncertain or all"
            )
        if not chosen:
            return None
        self._rounds.append(Round(number=len(self._rounds) + 1, num_chosen=len(chosen), num_kept=0, dev=None))
        self._asked = (*self._asked, *chosen)
        return self._asked

    def _helped(self, kept: Sequence[Candidate]) -> bool:
        """Return whether dev got better by what the last round brought, and note it; one round alone isn't tested."""
        last = self._rounds[-1]
        worth = None
        if self._settings.rounds > 1:
            steps = self._steps(self._splits)
            training = self._training(steps, self._splits.train, kept)
            self._progress.expect(steps.training_ahead(training))
            worth = worth_on_dev(steps.finetuned(self._student, training, self._progress).result, self._recipe.finetune)
        self._rounds[-1] = Round(number=last.number, num_chosen=last.num_chosen, num_kept=len(kept), dev=worth)
        if worth is None or (self._best is not None and worth <= self._best[0]):
            return False
        self._best = (worth, self._asked)
        return True

    def _out_of_fold(self, kept: Sequence[Candidate]) -> list[Prediction]:
        """Return the answers to all training examples, each by a student that saw neither it nor its document."""
        train, lessons = self._splits.train, self._lessons(kept)
        self._progress.expect(sum(steps.training_ahead(lesson) + len(part) for part, (steps, lesson) in lessons))
        answers: dict[int, Prediction] = {}
        for number, (part, (steps, lesson)) in enumerate(lessons, start=1):
            tuned = steps.finetuned(self._student, lesson, self._progress)
            self._student.wear(tuned.folder / "adapter")
            asked = [train[place] for place in part]
            who = f"the training questions of part {number} of {len(lessons)}"
            found = steps.scored(self._student, asked, who, self._progress, tuned.record.key)
            answers.update(zip(part, found.result, strict=True))
        return [answers[place] for place in range(len(train))]

    def _lessons(self, kept: Sequence[Candidate]) -> list[tuple[list[int], tuple[Steps, Training]]]:
        """Return parts of the training examples, by place, and of each what is trained without it."""
        try:
            parts = folds_of(self._splits.train, number=self._settings.folds)
        except ValueError as error:
            raise DataError(f"augment.select.folds {self._settings.folds}: {error}; set it lower") from error
        return [(part, self._without(part, kept)) for part in parts]

    def _without(self, part: Sequence[int], kept: Sequence[Candidate]) -> tuple[Steps, Training]:
        train = self._splits.train
        left_out = {train[place].group for place in part}
        rest = Splits(
            train=tuple(one for one in train if one.group not in left_out), dev=self._splits.dev, test=self._splits.test
        )
        written = [one for one in kept if one.example.group not in left_out]
        steps = self._steps(rest)
        return steps, self._training(steps, rest.train, written)

    def _training(self, steps: Steps, train: tuple[Example, ...], kept: Sequence[Candidate]) -> Training:
        stock = Stock(train=train, kept=tuple(kept), seed=self._recipe.seed)
        return steps.training(all_rows(stock, self._recipe.finetune))

    def _steps(self, splits: Splits) -> Steps:
        return Steps(self._recipe, splits, self._task, self._student.card, self._store)
