"""The story of a run, one line a stage; what takes long is kept by ``steps``, what a teacher said by ``replies``."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import chain

from drllama import plugins, teaching
from drllama.environment import environment
from drllama.errors import DataError, OverlapError
from drllama.ids import derive_seed, fingerprint
from drllama.protocols import Progress, Student
from drllama.recipe import FilterName, Recipe, as_yaml, resolve
from drllama.replies import Attempt, RequestStore
from drllama.report import leaks_json, report_contents, report_html, report_json, report_markdown
from drllama.rounds import WeakSpots
from drllama.stages.arms import SYSTEMS, chosen_arm, rows_of
from drllama.stages.evaluate import evaluate
from drllama.stages.guard import audit_leaks, refuse_leaks
from drllama.stages.score import refuse_seen
from drllama.stats import compare_accuracy
from drllama.steps import Steps, Training
from drllama.store import Store, ledger_lines
from drllama.types import (
    Arm,
    ArmName,
    Audit,
    Comparison,
    Decision,
    Evaluation,
    Example,
    LeakAudit,
    LedgerRow,
    Original,
    Prediction,
    Run,
    SplitName,
    Splits,
    StepRecord,
    Task,
    Taught,
    TrainingRow,
)


def run(
    recipe: Recipe,
    *,
    store: Store,
    replies: RequestStore,
    limits: teaching.Limits,
    progress: Progress,
    command: str,
    decisions: Sequence[Decision] = (),
) -> Run:
    """Carry out a recipe, reusing every step and every reply that is already stored, and return the run.

    ``decisions`` are what people said of the teacher's rows, in reviews of earlier runs.

    Raises:
        DrLlamaError: something that a person can mend; what was finished is kept.
    """
    progress.work("reading the questions")
    splits, task = _questions(recipe)
    if recipe.augment:
        teaching.read_lesson(recipe)  # Without a teacher there is no need to unpack a student first.
    scene = _scene(recipe, splits, task, store, progress)
    taught, sifted = _taught(scene, decisions, store, replies, limits)
    arms = {name: rows_of(name, splits.train, sifted.filtered.kept if sifted else ()) for name in _arm_names(recipe)}
    run_id = _run_id(scene, arms, taught)
    if store.has_run(run_id):
        return store.run(run_id)
    leaks = _guarded(scene, arms, run_id, store)
    progress.expect(_ahead(scene, arms.values(), splits.test, *([splits.dev] if taught else [])))

    untrained = scene.steps.scored(scene.student, splits.test, "the untrained student", progress)
    if taught:
        taught = replace(taught, audit=_beside(scene, taught.audit))
    trained = [_trained(scene, name, rows) for name, rows in arms.items()]

    progress.work("counting and writing the report")
    answers = {"untrained": untrained.result, **{one.arm.system: one.answers for one in trained}}
    evaluations = evaluate(answers, train=splits.train, asked=splits.test, split="test", task=task, recipe=recipe)
    finished = Run(
        id=run_id,
        finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
        command=command,
        recipe=recipe.model_dump(mode="json"),
        task=task,
        environment=environment(),
        student=scene.student.card,
        split_sizes={"train": len(splits.train), "dev": len(splits.dev), "test": len(splits.test)},
        steps=(untrained.record, *chain.from_iterable((one.arm.adapter, one.scoring) for one in trained)),
        taught=taught,
        leaks=leaks,
        arms=tuple(one.arm for one in trained),
        chosen_arm=chosen_arm([one.arm for one in trained], recipe.finetune),
        evaluations=evaluations,
        comparisons=_comparisons(trained, evaluations, recipe),
    )
    store.save_run(finished, _files(finished, splits.test, sifted, worst=recipe.report.worst_mistakes))
    return finished


def audit(
    recipe: Recipe,
    *,
    store: Store,
    replies: RequestStore,
    limits: teaching.Limits,
    progress: Progress,
    with_student: bool,
) -> Audit:
    """Return how well the recipe's teacher answers the dev questions blind, beside its untrained student if wanted."""
    lesson = teaching.read_lesson(recipe)
    found = teaching.audit(lesson, replies=replies, limits=limits, progress=progress)
    if not with_student:
        return found
    scene = _scene(recipe, lesson.splits, lesson.task, store, progress)
    progress.expect(scene.steps.score_ahead(lesson.splits.dev))
    return _beside(scene, found)


def evaluate_run(
    finished: Run, *, arm: ArmName | None, split: SplitName, on: Recipe | None, store: Store, progress: Progress
) -> tuple[Evaluation, ...]:
    """Score a finished run's student on a split of its own data, or of another recipe's, beside the baselines.

    ``arm`` says which of its students; None: the one that was best on dev.

    Raises:
        OverlapError: the split holds examples that the student was trained on.
        DataError: the run has no such arm, or the questions have other labels.
    """
    trained = _arm_of(finished, arm)
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
    seen = student.wear(store.step_folder(finished, trained.adapter) / "adapter")
    refuse_seen(seen, asked, where=f"run {finished.id}, split {split}")
    steps = Steps(recipe, splits, finished.task, student.card, store)
    progress.expect(steps.score_ahead(asked, trained.adapter.key))
    answers = steps.scored(student, asked, "the fine-tuned student", progress, trained.adapter.key)
    return evaluate(
        {trained.system: answers.result},
        train=splits.train,
        asked=asked,
        split=split,
        task=finished.task,
        recipe=recipe,
    )


def ask(finished: Run, question: str, context: str, *, arm: ArmName | None, store: Store) -> Prediction:
    """Return the answer of a finished run's student to one question.

    Raises:
        DataError: the question is empty, or the run has no such arm.
    """
    if not question.strip():
        raise DataError("the question is empty; write one in quotes, such as 'Does aspirin help?'")
    trained = _arm_of(finished, arm)
    recipe = resolve(finished.recipe).recipe
    student = plugins.make_student(recipe, finished.task)
    student.wear(store.step_folder(finished, trained.adapter) / "adapter")
    origin = Original(source="ask", source_id="question")
    example = Example(
        question=question, context=context, label=finished.task.labels[0], split="test", group="ask", origin=origin
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scene:
    """What all steps of one recipe work with."""

    recipe: Recipe
    splits: Splits
    task: Task
    student: Student
    steps: Steps
    progress: Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class _Trained:
    """An arm with its answers to the test questions."""

    arm: Arm
    answers: tuple[Prediction, ...]
    scoring: StepRecord


def _scene(recipe: Recipe, splits: Splits, task: Task, store: Store, progress: Progress) -> _Scene:
    progress.work(f"loading student {recipe.student.model} (the first time, its weights are unpacked: about a minute)")
    student = plugins.make_student(recipe, task)
    steps = Steps(recipe, splits, task, student.card, store)
    return _Scene(recipe=recipe, splits=splits, task=task, student=student, steps=steps, progress=progress)


def _taught(
    scene: _Scene, decisions: Sequence[Decision], store: Store, replies: RequestStore, limits: teaching.Limits
) -> tuple[Taught | None, teaching.Sifted | None]:
    recipe, splits, task = scene.recipe, scene.splits, scene.task
    if recipe.augment is None:
        return None, None
    select, choose = recipe.augment.select, None
    if select.by != "all":
        choose = WeakSpots(recipe, select, splits, task, student=scene.student, store=store, progress=scene.progress)
    lesson = teaching.Lesson(recipe=recipe, splits=splits, task=task, decisions=tuple(decisions))
    return teaching.teach(lesson, replies=replies, limits=limits, progress=scene.progress, choose=choose)


def _run_id(scene: _Scene, arms: Mapping[ArmName, Sequence[Example]], taught: Taught | None) -> str:
    """Return a name that changes with the settings, the questions, what is trained on and what the teacher said."""
    adapters = [fingerprint(scene.steps.adapter_key(_training(scene, rows))) for rows in arms.values()]
    asked = scene.steps.score_key(scene.splits.test)
    settings = scene.recipe.model_dump(mode="json")
    return f"{scene.recipe.name}-{fingerprint([settings, asked, adapters, _answers(taught)])[:8]}"


def _guarded(scene: _Scene, arms: Mapping[ArmName, Sequence[Example]], run_id: str, store: Store) -> LeakAudit:
    """Return how all rows to train on are like dev and test, which is written down before anything is refused."""
    scene.progress.work("holding all rows to train on against dev and test")
    rows = {(one.id, one.origin): one for rows in arms.values() for one in rows}
    held_out = (*scene.splits.dev, *scene.splits.test)
    leaks = audit_leaks(tuple(rows.values()), held_out, scene.recipe.filters.leaks)
    path = store.save_beside_run(run_id, "leaks.json", leaks_json(leaks))
    refuse_leaks(leaks, told=str(path))
    return leaks


def _arm_names(recipe: Recipe) -> tuple[ArmName, ...]:
    return recipe.augment.arms if recipe.augment else (ArmName.NONE,)


def _answers(taught: Taught | None) -> list[list[str | None]]:
    """Return what a teacher said to the dev questions: other answers make another run."""
    return [[one.example_id, one.choice] for one in taught.audit.teacher.predictions] if taught else []


def _trained(scene: _Scene, name: ArmName, rows: Sequence[Example]) -> _Trained:
    steps, student, test = scene.steps, scene.student, scene.splits.test
    tuned = steps.finetuned(student, _training(scene, rows), scene.progress)
    refuse_seen(student.wear(tuned.folder / "adapter"), test, where=scene.recipe.name)
    scored = steps.scored(student, test, f"the {SYSTEMS[name]} student", scene.progress, tuned.record.key)
    arm = Arm(
        name=name,
        system=SYSTEMS[name],
        num_generated=len(rows) - len(scene.splits.train),
        finetuned=tuned.result,
        adapter=tuned.record,
    )
    return _Trained(arm=arm, answers=scored.result, scoring=scored.record)


def _training(scene: _Scene, rows: Sequence[Example]) -> Training:
    return scene.steps.training([TrainingRow(example=one) for one in rows])


def _ahead(scene: _Scene, arms: Iterable[Sequence[Example]], *bare: Sequence[Example]) -> float:
    steps, ahead = scene.steps, 0.0
    for rows in arms:
        training = _training(scene, rows)
        ahead += steps.training_ahead(training)
        ahead += steps.score_ahead(scene.splits.test, fingerprint(steps.adapter_key(training)))
    return ahead + sum(map(steps.score_ahead, bare))


def _beside(scene: _Scene, audited: Audit) -> Audit:
    dev = scene.splits.dev
    answers = scene.steps.scored(scene.student, dev, "the untrained student on dev", scene.progress)
    found = evaluate(
        {"untrained student": answers.result},
        train=scene.splits.train,
        asked=dev,
        split="dev",
        task=scene.task,
        recipe=scene.recipe,
    )
    return replace(audited, student=found[-1])


def _comparisons(
    trained: Sequence[_Trained], evaluations: Sequence[Evaluation], recipe: Recipe
) -> tuple[Comparison, ...]:
    """Return each arm with generated rows against the one without, where there is one."""
    by_system = {one.system: one for one in evaluations}
    systems = {one.arm.name: one.arm.system for one in trained}
    baseline = systems.pop(ArmName.NONE, None)
    if baseline is None:
        return ()
    seed = derive_seed(recipe.seed, "bootstrap", "test")
    return tuple(
        compare_accuracy(by_system[baseline], by_system[system], settings=recipe.evaluate, seed=seed)
        for system in systems.values()
    )


def _arm_of(finished: Run, name: ArmName | None) -> Arm:
    if name is not None and all(arm.name != name for arm in finished.arms):
        there = ", ".join(arm.name for arm in finished.arms)
        raise DataError(f"run {finished.id} has no arm '{name}'; choose one of {there}")
    return finished.arm(name)


def _files(finished: Run, asked: Sequence[Example], sifted: teaching.Sifted | None, *, worst: int) -> Mapping[str, str]:
    contents = report_contents(finished, {one.id: one for one in asked}, worst=worst)
    ledger = {"rows.jsonl": ledger_lines(sifted.rows)} if sifted else {}
    return {
        **ledger,
        "report.html": report_html(contents),
        "report.md": report_markdown(contents),
        "report.json": report_json(contents),
        "recipe.yaml": as_yaml(resolve(finished.recipe).recipe),
    }


def _questions(recipe: Recipe) -> tuple[Splits, Task]:
    source = plugins.make_source(recipe)
    splits = source.load()
    learnt = {one.id: one for one in (*splits.train, *splits.dev)}
    for one in splits.test:
        if one.id in learnt:
            raise OverlapError(
                f"{one.origin.source}: the same question stands in test ({one.origin.source_id}) and in "
                f"{learnt[one.id].split} ({learnt[one.id].origin.source_id}); delete one of them"
            )
    return splits, source.task
