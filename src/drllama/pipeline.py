"""The story of a run, one line a stage; what takes long is kept by ``steps``, what a teacher said by ``replies``."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path

from drllama import plugins, teaching
from drllama.cell_files import CellFolder
from drllama.cells import Cells, PlannedCell, choices_of, readings_of
from drllama.environment import environment
from drllama.errors import OverlapError, TimeUp
from drllama.ids import fingerprint
from drllama.progress import Uncounted, Until
from drllama.protocols import Progress, Student, Workers
from drllama.recipe import Recipe, as_yaml, resolve
from drllama.replies import RequestStore
from drllama.report import (
    leaks_json,
    published_beside,
    report_contents,
    report_html,
    report_json,
    report_markdown,
)
from drllama.rounds import WeakSpots
from drllama.stages.arms import Stock, arms_of, arms_on_dev, expected_stock
from drllama.stages.evaluate import evaluate
from drllama.stages.guard import audit_leaks, refuse_leaks
from drllama.stages.ledger import with_arms_without_filter
from drllama.stages.weigh import weigh
from drllama.steps import Steps
from drllama.store import Step, Store, ledger_lines
from drllama.types import (
    Arm,
    Audit,
    Cell,
    Decision,
    Example,
    LeakAudit,
    Prediction,
    Published,
    Run,
    Splits,
    Task,
    Taught,
)
from drllama.written import WrittenAnswers


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What earlier work left, and where this run's is left."""

    store: Store
    replies: RequestStore
    decisions: Sequence[Decision] = ()
    """What people said of the teacher's rows, in reviews of earlier runs."""
    cells: Path | None = None
    """A folder of finished cells, which are taken as done and added to."""


def run(
    recipe: Recipe,
    *,
    kept: Kept,
    limits: teaching.Limits,
    progress: Progress,
    command: str,
    workers: Workers = nullcontext,
) -> Run:
    """Carry out a recipe, reusing every step and every reply that is already stored, and return the run.

    When the time of the limits is over, the run holds what is finished, and the same call goes on with the rest.
    ``workers`` are let in while students are trained.

    Raises:
        DrLlamaError: something that a person can mend; what was finished is kept.
    """
    until = Until(progress, limits.max_minutes)
    plan = _planned(recipe, kept, limits, progress)
    scene, taught, work, planned = plan.scene, plan.taught, plan.work, plan.planned
    store = kept.store
    words = WrittenAnswers(recipe, scene.splits.test, scene.task, student=scene.student, steps=scene.steps, store=store)
    run_id = _run_id(scene, planned, taught)
    if store.has_run(run_id) and work.all_kept(planned) and not (before := store.run(run_id)).num_unfinished:
        return before
    leaks = _guarded(scene, (one for cell in planned for one in cell.examples), run_id)
    bare = (scene.splits.test, scene.splits.dev) if taught else (scene.splits.test,)
    asked = sum(map(scene.steps.score_ahead, bare))
    if told := work.forecast(planned, of_bare=round(asked)):
        progress.tell(told)
    ahead = work.work_ahead(planned) + (words.work_ahead(planned) if recipe.evaluate.generate else 0)
    progress.expect(ahead + asked)

    # A GPU trains the students together.
    with workers(work.num_missing(planned) if scene.student.card.device.startswith("cpu") else 0):
        done = _in_time(work, planned, until)
    # After the students: those who help have no need to wait for it.
    untrained = scene.steps.scored(scene.student, scene.splits.test, "the untrained student", progress)
    if taught:
        taught = replace(taught, audit=_beside(scene, taught.audit))
    in_words = words.of(done, until) if recipe.evaluate.generate and len(done) == len(planned) else {}

    progress.work("counting and writing the report")
    finished = _counted(scene, untrained, plan.arms, done, run_id=run_id, command=command, taught=taught, leaks=leaks)
    finished = words.told_in(finished, in_words)
    store.save_run(finished, _files(finished, scene.splits.test, plan.sifted, plan.published))
    return finished


def work_on(recipe: Recipe, *, kept: Kept, progress: Progress) -> None:
    """Work out cells of a recipe that no other process is working on, until none is left; the teacher isn't asked."""
    plan = _planned(recipe, kept, teaching.Limits(max_calls=0), Uncounted(progress))
    for _ in plan.work.all_finished(plan.planned, progress, wait=False):
        pass


def foretell(recipe: Recipe, *, kept: Kept, progress: Progress) -> str:
    """Return in a line what training by a recipe takes if the filters keep all that the teacher is asked for.

    The student is loaded and tries a few rows, for seconds; nobody is asked anything, and nothing is kept.
    """
    splits, task = _questions(recipe)
    scene = _scene(recipe, splits, task, kept.store, progress)
    stock = expected_stock(splits.train, recipe.augment, seed=recipe.seed)
    arms, work = arms_of(recipe.augment, recipe.finetune, stock), _cells(scene, kept)
    planned = work.planned(arms, stock)
    spots = _weak_spots(scene)
    choosing = spots.trainings() if spots else []
    progress.work("training a few rows, to be thrown away")
    asked = sum(map(scene.steps.score_ahead, (splits.test, splits.dev) if recipe.augment else (splits.test,)))
    told = work.forecast(planned, of_bare=round(asked), before=choosing) or "nothing ahead: all of them are trained"
    names = ", ".join(arm.id for arm in arms)
    more = f", and at most {len(choosing)} more that choose what the teacher works on" if choosing else ""
    return f"students to train: {len(planned)} (arms: {names}; seeds: {recipe.seeds}){more}; {told}"


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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scene:
    """What all steps of one recipe work with."""

    recipe: Recipe
    splits: Splits
    task: Task
    student: Student
    store: Store
    steps: Steps
    progress: Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """What is to be trained, on what."""

    scene: _Scene
    taught: Taught | None
    sifted: teaching.Sifted | None
    published: Published | None
    arms: tuple[Arm, ...]
    work: Cells
    planned: tuple[PlannedCell, ...]


def _planned(recipe: Recipe, kept: Kept, limits: teaching.Limits, progress: Progress) -> _Plan:
    progress.work("reading the questions")
    splits, task = _questions(recipe)
    published = published_beside(recipe.report)
    if recipe.augment:
        teaching.read_lesson(recipe)  # Without a teacher there is no need to unpack a student first.
    scene = _scene(recipe, splits, task, kept.store, progress)
    taught, sifted = _taught(scene, kept.decisions, kept.replies, limits)
    stock = _stock(scene, sifted)
    arms = arms_of(recipe.augment, recipe.finetune, stock)
    work = _cells(scene, kept)
    return _Plan(
        scene=scene,
        taught=taught,
        sifted=sifted,
        published=published,
        arms=arms,
        work=work,
        planned=work.planned(arms, stock),
    )


def _scene(recipe: Recipe, splits: Splits, task: Task, store: Store, progress: Progress) -> _Scene:
    progress.work(f"loading student {recipe.student.model} (the first time, its weights are unpacked: about a minute)")
    student = plugins.make_student(recipe, task)
    steps = Steps(recipe, splits, task, student.card, store)
    return _Scene(recipe=recipe, splits=splits, task=task, student=student, store=store, steps=steps, progress=progress)


def _cells(scene: _Scene, kept: Kept) -> Cells:
    folder = CellFolder(kept.cells) if kept.cells else None
    student, steps = scene.student, scene.steps
    return Cells(scene.recipe, scene.splits, scene.task, student=student, steps=steps, store=kept.store, folder=folder)


def _taught(
    scene: _Scene, decisions: Sequence[Decision], replies: RequestStore, limits: teaching.Limits
) -> tuple[Taught | None, teaching.Sifted | None]:
    recipe, splits, task = scene.recipe, scene.splits, scene.task
    if recipe.augment is None:
        return None, None
    lesson = teaching.Lesson(recipe=recipe, splits=splits, task=task, decisions=tuple(decisions))
    return teaching.teach(lesson, replies=replies, limits=limits, progress=scene.progress, choose=_weak_spots(scene))


def _weak_spots(scene: _Scene) -> WeakSpots | None:
    """Return what chooses the questions that the teacher works on; None: it works on all."""
    recipe = scene.recipe
    if recipe.augment is None or recipe.augment.select.by == "all":
        return None
    return WeakSpots(
        recipe,
        scene.splits,
        scene.task,
        student=scene.student,
        store=scene.store,
        guard=lambda rows: _guarded(scene, rows, f"{recipe.name}-before-rounds"),
        progress=scene.progress,
    )


def _stock(scene: _Scene, sifted: teaching.Sifted | None) -> Stock:
    filtered = sifted.filtered if sifted else None
    return Stock(
        train=scene.splits.train,
        kept=filtered.kept if filtered else (),
        votes=sifted.votes if sifted else {},
        unfiltered=sifted.unfiltered if sifted else {},
        seed=scene.recipe.seed,
    )


def _run_id(scene: _Scene, planned: Sequence[PlannedCell], taught: Taught | None) -> str:
    """Return a name that changes with the settings, the questions, what is trained on and what the teacher said."""
    settings = scene.recipe.model_dump(mode="json", exclude={"cells"})
    told = fingerprint([settings, [cell.fingerprint for cell in planned], _answers(taught)])
    return f"{scene.recipe.name}-{told[:8]}"


def _guarded(scene: _Scene, trained_on: Iterable[Example], run_id: str) -> LeakAudit:
    """Return how all rows to train on are like dev and test, which is written down before anything is refused."""
    scene.progress.work("holding all rows to train on against dev and test")
    # The students share most rows; only what isn't the very same is worth a hash.
    apart = {id(one): one for one in trained_on}.values()
    rows = {(one.id, one.origin): one for one in apart}
    held_out = (*scene.splits.dev, *scene.splits.test)
    leaks = audit_leaks(tuple(rows.values()), held_out, scene.recipe.filters.leaks)
    path = scene.store.save_beside_run(run_id, "leaks.json", leaks_json(leaks))
    refuse_leaks(leaks, told=str(path))
    return leaks


def _answers(taught: Taught | None) -> list[list[str | None]]:
    """Return what a teacher said to the dev questions: other answers make another run."""
    return [[one.example_id, one.choice] for one in taught.audit.teacher.predictions] if taught else []


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


def _in_time(work: Cells, planned: Sequence[PlannedCell], until: Until) -> list[Cell]:
    """Return the cells, or those that are finished when the time is over.

    Raises:
        TimeUp: it is over, and none is finished.
    """
    cells: dict[int, Cell] = {}
    try:
        work.train_together(planned, until)
        for place, cell in work.all_finished(planned, until):
            cells[place] = cell
    except TimeUp:
        if not cells:
            raise
    return [cell for _, cell in sorted(cells.items())]


def _counted(
    scene: _Scene,
    untrained: Step[tuple[Prediction, ...]],
    arms: tuple[Arm, ...],
    cells: Sequence[Cell],
    *,
    run_id: str,
    command: str,
    taught: Taught | None,
    leaks: LeakAudit,
) -> Run:
    """Return the run with all that follows from the answers."""
    recipe, splits, task = scene.recipe, scene.splits, scene.task
    found = weigh(arms, cells, task, recipe, bill=taught.bill if taught else ())
    on_dev = arms_on_dev(cells)
    chosen = max(on_dev, key=lambda arm: on_dev[arm])  # Of equals the first.
    return Run(
        id=run_id,
        finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
        command=command,
        recipe=recipe.model_dump(mode="json"),
        task=task,
        environment=environment(),
        student=scene.student.card,
        split_sizes={"train": len(splits.train), "dev": len(splits.dev), "test": len(splits.test)},
        steps=(untrained.record, *chain.from_iterable((cell.adapter, cell.scoring) for cell in cells)),
        taught=taught,
        leaks=leaks,
        baselines=evaluate(
            {"untrained": untrained.result},
            train=splits.train,
            asked=splits.test,
            split="test",
            task=task,
            recipe=recipe,
        ),
        arms=arms,
        cells=tuple(cells),
        num_unfinished=len(arms) * recipe.seeds - len(cells),
        chosen_arm=chosen,
        choices=choices_of(cells, on_dev, chosen, recipe),
        readings=readings_of(untrained, cells),
        summaries=found.summaries,
        effects=found.effects,
        conclusion=found.conclusion,
        worth=found.worth,
    )


def _files(
    finished: Run, asked: Sequence[Example], sifted: teaching.Sifted | None, published: Published | None
) -> Mapping[str, str]:
    recipe = resolve(finished.recipe).recipe
    contents = report_contents(
        finished,
        {one.id: one for one in asked},
        worst=recipe.report.worst_mistakes,
        flipped=recipe.report.flipped_questions,
        published=published,
    )
    rows = with_arms_without_filter(sifted.rows, finished.arms, sifted.unfiltered) if sifted else ()
    ledger = {"rows.jsonl": ledger_lines(rows)} if sifted else {}
    return {
        **ledger,
        "report.html": report_html(contents),
        "report.md": report_markdown(contents),
        "report.json": report_json(contents),
        "recipe.yaml": as_yaml(recipe),
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
