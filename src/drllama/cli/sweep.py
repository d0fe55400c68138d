"""The command that tries many settings of one recipe."""

import shlex
from typing import Annotated

import typer

from drllama.cli.app import REPLIES, STORE, Assignments, Jobs, RecipePath, StoreFolder, app, kept_for

Several = list[str] | None


@app.command()
def sweep(  # noqa: PLR0913  options of a command
    recipe: RecipePath,
    grid: Annotated[
        Several, typer.Option(metavar="A.B=V,V", help="Try each of these values; several make a product.")
    ] = None,
    search: Annotated[
        Several, typer.Option(metavar="A.B=LOW..HIGH", help="Draw from this range, or from V,V; may be given often.")
    ] = None,
    trials: Annotated[int | None, typer.Option(min=1, help="Settings that a search tries; 20 if not given.")] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Trainings of each; else the recipe's seeds.")] = None,
    folds: Annotated[
        int | None, typer.Option(min=2, help="Judge by so many parts of train and dev left out by turns, not by dev.")
    ] = None,
    halving: Annotated[bool, typer.Option("--halving", help="Give up the worse settings after each epoch.")] = False,
    arm: Annotated[
        str | None,
        typer.Option("--arm", help="Train on this arm of the recipe, such as combined; its rows must be answered."),
    ] = None,
    jobs: Jobs = 1,
    works_on: Annotated[bool, typer.Option("--works-on", hidden=True, help="Help the sweep that began this.")] = False,
    assignments: Assignments = None,
    store: StoreFolder = STORE,
) -> None:
    """Train RECIPE's student with many settings and compare them on dev; the test split isn't read."""
    from drllama.cli.jobs import SharedProgress, ToldProgress, WorkerProcesses, share_cores

    if jobs > 1:
        share_cores(jobs)
    from drllama import sweeps
    from drllama.cli.progress import ShownProgress
    from drllama.cli.tables import sweep_summary
    from drllama.recipe import recipe_text
    from drllama.replies import RequestStore

    request = sweeps.checked(
        sweeps.SweepRequest(
            path=recipe,
            text=recipe_text(recipe),
            assignments=tuple(assignments or ()),
            grid=tuple(grid or ()),
            search=tuple(search or ()),
            trials=trials,
            seeds=seeds,
            folds=folds,
            halving=halving,
            arm=arm,
        )
    )
    with RequestStore(store / REPLIES) as replies, ShownProgress() as shown:
        kept = kept_for(store, replies, request.recipe(), recipe)
        if works_on:
            sweeps.work_on(request, kept=kept, progress=ToldProgress())
            return
        progress = SharedProgress(shown)
        same = [*shlex.split(request.command)[1:], "--store", str(store), "--works-on"]
        found = sweeps.sweep(
            request,
            kept=kept,
            progress=progress,
            workers=lambda ahead: WorkerProcesses(same, min(jobs, ahead) - 1, logs=store, progress=progress),
        )
    typer.echo(sweep_summary(found, kept.store.sweep_folder(found.id)))
