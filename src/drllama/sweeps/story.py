"""The story of a sweep: points, their trainings, the best of them, and the report."""

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from datetime import UTC, datetime

from drllama import plugins
from drllama.environment import environment
from drllama.ids import derive_seed, fingerprint
from drllama.pipeline import Kept
from drllama.progress import Uncounted
from drllama.protocols import Progress, Student, Workers
from drllama.recipe import Recipe
from drllama.report import published_beside, sweep_html, sweep_json, sweep_markdown
from drllama.stages.forecast import Asked
from drllama.steps import Steps, Training
from drllama.sweeps.request import Settings, SweepRequest
from drllama.sweeps.rows import Rows, real_rows, rows_of_arm
from drllama.sweeps.search import halved, searched
from drllama.sweeps.trainings import Before, Point, Trainings, parts_of, told, worth
from drllama.types import Splits, StudentCard, Sweep

TRIALS = 20
"""Of a search that doesn't say how many."""


def sweep(request: SweepRequest, *, kept: Kept, progress: Progress, workers: Workers = nullcontext) -> Sweep:
    """Train all that was asked for, reusing what is stored, and return what came of it; its report is in the store.

    ``workers`` are let in while students are trained.

    Raises:
        DrLlamaError: something that a person can mend; what was finished is kept.
    """
    recipe = request.recipe()
    published = published_beside(recipe.report)
    with ExitStack() as helped:

        def before(student: Student, ahead: Sequence[tuple[Steps, Training]]) -> None:
            if line := Steps.forecast(student, ahead, asked=Asked(), times=_times(request)):
                progress.tell(line)
            # A GPU trains the students together.
            helped.enter_context(workers(len(ahead) if student.card.device.startswith("cpu") else 0))

        splits, trainings = _trainings(request, kept, progress, before)
        points = _points(request, trainings)
    found = _found(request, recipe, splits, points, trainings.card)
    files = {
        "sweep.html": sweep_html(found, published),
        "sweep.md": sweep_markdown(found),
        "sweep.json": sweep_json(found),
    }
    kept.store.save_sweep(found.id, files)
    return found


def work_on(request: SweepRequest, *, kept: Kept, progress: Progress) -> None:
    """Take part in the trainings of a sweep that another process carries out, until none is left."""
    _, trainings = _trainings(request, kept, progress, None)
    _points(request, trainings)


def _found(
    request: SweepRequest, recipe: Recipe, splits: Splits, points: Sequence[Point], student: StudentCard
) -> Sweep:
    finished = [at for at, point in enumerate(points) if point.is_finished]
    by = request.judge()
    best = max(finished, key=lambda at: worth(points[at], by))
    return Sweep(
        id=f"{recipe.name}-{_fingerprint(request, recipe)[:8]}",
        name=recipe.name,
        finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
        command=request.command,
        run_best=request.run_command(points[best].settings),
        recipe=recipe.model_dump(mode="json"),
        environment=environment(),
        student=student,
        varied=tuple(points[best].settings),
        num_seeds=recipe.seeds,
        folds=request.folds,
        arm=request.arm,
        chosen_by=by,
        num_train=len(splits.train),
        num_dev=len(splits.dev),
        points=tuple(map(told, points)),
        best=best,
    )


def _trainings(request: SweepRequest, kept: Kept, progress: Progress, before: Before) -> tuple[Splits, Trainings]:
    recipe = request.recipe()
    progress.work("reading the questions")
    source = plugins.make_source(recipe)
    splits = source.load()
    parts = parts_of(splits, folds=request.folds)
    rows: Rows = real_rows
    if request.arm is not None:
        rows = rows_of_arm(request.arm, recipe, splits, source.task, kept=kept, progress=Uncounted(progress))
    found = Trainings(
        parts,
        source.task,
        rows=rows,
        num_seeds=recipe.seeds,
        store=kept.store,
        progress=progress,
        before=before,
    )
    return splits, found


def _points(request: SweepRequest, trainings: Trainings) -> list[Point]:
    point_of: Callable[[Settings], Point] = lambda settings: Point(settings=settings, recipe=request.recipe(settings))  # noqa: E731
    if request.search:
        return searched(
            request.ranges(),
            point_of,
            trainings,
            trials=request.trials or TRIALS,
            seed=derive_seed(request.recipe().seed, "search"),
            halving=request.halving,
            by=request.judge(),
        )
    points = [point_of(settings) for settings in request.points()]
    if request.halving:
        return halved(points, trainings, by=request.judge())
    return trainings.to_epoch(points, max(point.recipe.finetune.epochs for point in points))


def _times(request: SweepRequest) -> float:
    """Return how much there is to do in all, in trainings to the end of the points that are begun with."""
    if request.search:
        return request.trials or TRIALS  # What halving will spare isn't known before.
    if not request.halving:
        return 1.0
    alive = len(request.points())
    rungs = [alive := math.ceil(alive / 2) for _ in range(request.recipe().finetune.epochs - 1)]
    return (len(request.points()) + sum(rungs)) / (len(request.points()) * (len(rungs) + 1))


def _fingerprint(request: SweepRequest, recipe: Recipe) -> str:
    asked = [request.grid, request.search, request.trials, request.seeds, request.folds, request.halving, request.arm]
    return fingerprint([recipe.model_dump(mode="json"), *asked])
