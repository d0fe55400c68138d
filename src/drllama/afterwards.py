"""What can be asked of a finished run: its students' answers to other questions, and the story of a row."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from drllama import plugins
from drllama.errors import DataError, StoreError
from drllama.protocols import Progress
from drllama.recipe import Recipe, resolve
from drllama.replies import Attempt, RequestStore
from drllama.stages.evaluate import evaluate
from drllama.stages.score import refuse_seen
from drllama.steps import Steps
from drllama.store import Store
from drllama.types import Cell, Evaluation, Example, FilterName, LedgerRow, Original, Prediction, Run, SplitName


@dataclass(frozen=True, slots=True, kw_only=True)
class WhichCell:
    """One of a run's students."""

    arm: str | None = None
    """An arm's id; None: the one that was best on dev."""
    seed: int | None = None
    """From 1; None: the arm's student that was best on dev."""


def evaluate_run(
    finished: Run, *, which: WhichCell, split: SplitName, on: Recipe | None, store: Store, progress: Progress
) -> tuple[Evaluation, ...]:
    """Score a finished run's student on a split of its own data, or of another recipe's, beside the baselines.

    Raises:
        OverlapError: the split holds examples that the student was trained on.
        DataError: the run has no such student, or the questions have other labels.
        StoreError: the student's adapter isn't on this machine.
    """
    cell, adapter = _cell_of(finished, which, store)
    recipe = resolve(finished.recipe).recipe
    asked_of = recipe if on is None else on.model_copy(update={"student": recipe.student, "seed": recipe.seed})
    source = plugins.make_source(asked_of)
    splits = source.load()
    if source.task.labels != finished.task.labels:
        raise DataError(
            f"run {finished.id} answers {', '.join(finished.task.labels)}, the questions want "
            f"{', '.join(source.task.labels)}; choose questions with the same labels"
        )
    student = plugins.make_student(recipe, finished.task)
    asked = splits.named(split)
    seen = student.wear(adapter)
    refuse_seen(seen, asked, where=f"run {finished.id}, split {split}")
    steps = Steps(recipe, splits, finished.task, student.card, store)
    progress.expect(steps.score_ahead(asked, cell.adapter.key))
    answers = steps.scored(student, asked, "the fine-tuned student", progress, cell.adapter.key)
    return evaluate(
        {cell.evaluation.system: answers.result},
        train=splits.train,
        asked=asked,
        split=split,
        task=finished.task,
        recipe=recipe,
    )


def ask(
    finished: Run, question: str, context: str, options: Sequence[str] = (), *, which: WhichCell, store: Store
) -> Prediction:
    """Return the answer of a finished run's student to one question; its options stand in the order of the labels.

    Raises:
        DataError: the question is empty, its options aren't one for each label, or the run has no such student.
        StoreError: the student's adapter isn't on this machine.
    """
    if not question.strip():
        raise DataError("the question is empty; write one in quotes, such as 'Does aspirin help?'")
    labels = finished.task.labels
    if options and (len(options) != len(labels) or not all(map(str.strip, options))):
        raise DataError(
            f"options {', '.join(map(repr, options))}: run {finished.id} has {len(labels)} labels "
            f"({', '.join(labels)}); write an option for each, in this order, none of them empty"
        )
    _, adapter = _cell_of(finished, which, store)
    recipe = resolve(finished.recipe).recipe
    student = plugins.make_student(recipe, finished.task)
    student.wear(adapter)
    example = Example(
        question=question,
        context=context,
        options=tuple(options),
        label=labels[0],
        split="test",
        group="ask",
        origin=Original(source="ask", source_id="question"),
    )
    (answer,) = student.score([example])
    return answer


@dataclass(frozen=True, slots=True, kw_only=True)
class RowStory:
    """One of the teacher's rows, with all that is known of it."""

    run_id: str
    row: LedgerRow
    filters: tuple[FilterName, ...]
    """Those that looked, in their order."""
    parents: tuple[Example, ...]
    """The training examples that it was made from; empty where the data don't hold them any more."""
    attempts: tuple[Attempt, ...]
    """At its request, as they were kept."""


def why(finished: Run, name: str, *, store: Store, replies: RequestStore) -> RowStory:
    """Return the story of the row with this id, or whose id begins so.

    Raises:
        DataError: the run has no such row, or several.
    """
    found = [row for row in store.ledger(finished) if name and row.id.startswith(name)]
    exact = [row for row in found if row.id == name]
    if len(exact or found) != 1:
        several = f"{len(found)} rows: {', '.join(row.id for row in found[:5])}" if found else "no row"
        raise DataError(f"run {finished.id} has {several} with an id that begins '{name}'; rows.jsonl lists them all")
    (row,) = exact or found
    recipe = resolve(finished.recipe).recipe
    train = plugins.make_source(recipe).load().train
    return RowStory(
        run_id=finished.id,
        row=row,
        filters=recipe.filters.active,
        parents=tuple({one.id: one for one in train if one.id in row.asking.parents}.values()),
        attempts=tuple(replies.attempts(row.asking.call)),
    )


def _cell_of(finished: Run, which: WhichCell, store: Store) -> tuple[Cell, Path]:
    """Return one of a run's students and its adapter."""
    if which.arm is not None and all(arm.id != which.arm for arm in finished.arms):
        there = ", ".join(arm.id for arm in finished.arms)
        raise DataError(f"run {finished.id} has no arm '{which.arm}'; choose one of {there}")
    cells = finished.cells_of(finished.arm(which.arm))
    found = [cell for cell in cells if which.seed in (None, cell.seed)]
    if not found:
        there = ", ".join(str(cell.seed) for cell in cells) or "none yet"
        raise DataError(f"run {finished.id}: arm {finished.arm(which.arm).id} has no such seed; there are: {there}")
    cell = max(found, key=lambda one: one.on_dev)
    if cell.brought and not (store.root / cell.adapter.folder).is_dir():
        raise StoreError(
            f"run {finished.id}: {cell.arm}, seed {cell.seed} was trained elsewhere ({cell.ran.device}, "
            f"{cell.adapter.finished_at[:10]}) and its adapter isn't on this machine; name another by --arm and --seed"
        )
    return cell, store.step_folder(finished, cell.adapter) / "adapter"
