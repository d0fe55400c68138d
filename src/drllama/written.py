"""Students' answers in their own words, beside their scores: written once, read in several ways."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from drllama.cells import PlannedCell
from drllama.ids import fingerprint
from drllama.parsing import readers_of
from drllama.protocols import Progress, Student
from drllama.recipe import Recipe
from drllama.stages.evaluate import counted
from drllama.stages.score import refuse_seen
from drllama.stages.write import read_as
from drllama.steps import Steps
from drllama.store import Step, Store
from drllama.types import Cell, Example, Reader, Reading, Run, Task, Writing, Written

_SEED = 1
"""Of each arm one student writes: what is to be seen is what reading does, not luck."""


class WrittenAnswers:
    """What the untrained student and each arm's first student write to the test questions."""

    def __init__(
        self, recipe: Recipe, test: Sequence[Example], task: Task, *, student: Student, steps: Steps, store: Store
    ) -> None:
        self._recipe, self._test, self._task = recipe, test, task
        self._student, self._steps, self._store = student, steps, store

    def work_ahead(self, planned: Sequence[PlannedCell]) -> float:
        """Return what writing takes in forward passes, 0 for what is done."""
        ahead = self._steps.write_ahead(self._test)
        for cell in planned:
            if cell.seed == _SEED:
                keys = [fingerprint(self._steps.adapter_key(one)) for one in cell.trainings.values()]
                ahead += min(self._steps.write_ahead(self._test, key) for key in keys)
        return ahead

    def of(self, cells: Sequence[Cell], progress: Progress) -> dict[str, Step[tuple[Writing, ...]]]:
        """Return what each student wrote, by system; of those trained elsewhere only if their adapter is here."""
        bare = self._steps.written(self._student, self._test, "the untrained student", progress)
        found = {"untrained": bare}
        for cell in cells:
            folder = self._store.root / cell.adapter.folder / "adapter"
            if cell.seed == _SEED and folder.is_dir():
                if self._steps.write_ahead(self._test, cell.adapter.key):
                    refuse_seen(self._student.wear(folder), self._test, where=self._recipe.name)
                system = cell.evaluation.system
                found[system] = self._steps.written(
                    self._student, self._test, f"the {system} student", progress, cell.adapter.key
                )
        return found

    def told_in(self, run: Run, in_words: Mapping[str, Step[tuple[Writing, ...]]]) -> Run:
        """Return the run with what readers find in these answers, and with the steps that wrote them."""
        records = {student: step.record for student, step in in_words.items()}
        return replace(
            run,
            written=tuple(
                self._read(student, step.result, reader)
                for student, step in in_words.items()
                for reader in readers_of(self._task)
            ),
            steps=(*run.steps, *records.values()),
            readings=(
                *run.readings,
                *(
                    Reading(
                        system=f"{student}, in words",
                        step=record.key,
                        at=record.finished_at,
                        num_questions=len(self._test),
                    )
                    for student, record in records.items()
                ),
            ),
        )

    def _read(self, student: str, writings: Sequence[Writing], reader: Reader) -> Written:
        evaluation = counted(
            read_as(writings, self._test, reader, self._task),
            system=f"{student}, {reader}",
            split="test",
            task=self._task,
            recipe=self._recipe,
        )
        return Written(student=student, reader=reader, evaluation=evaluation)
