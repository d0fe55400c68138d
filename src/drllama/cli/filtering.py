"""The commands that say which of a teacher's rows reach the student, and why the others don't."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from drllama.cli.app import (
    REPLIES,
    REVIEWS,
    STORE,
    Assignments,
    RecipePath,
    StoreFolder,
    app,
)
from drllama.cli.limits import limited

if TYPE_CHECKING:
    from drllama.teaching import Limits


@app.command("filter")
@limited
def filter_rows(
    recipe: RecipePath,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write a line for each row, with its verdict.")
    ] = None,
    assignments: Assignments = None,
    store: StoreFolder = STORE,
    *,
    limits: "Limits",
) -> None:
    """Let the teacher of RECIPE write its rows, filter them, and print what became of them; train nothing."""
    from drllama import teaching
    from drllama.cli.filtering_text import sifted_text
    from drllama.cli.progress import ShownProgress
    from drllama.files import write_whole
    from drllama.recipe import read_recipe
    from drllama.replies import RequestStore
    from drllama.reviews import ReviewStore
    from drllama.store import ledger_lines

    with ReviewStore(store / REVIEWS) as reviews:
        lesson = teaching.read_lesson(read_recipe(recipe, assignments or ()).recipe, reviews.decisions())
    with RequestStore(store / REPLIES) as replies, ShownProgress() as progress:
        found = teaching.sift(lesson, replies=replies, limits=limits, progress=progress)
    if out is not None:
        write_whole(out, ledger_lines(found.rows))
    typer.echo(sifted_text(found.funnel, found.drops, found.diversity))


@app.command()
def why(
    row: Annotated[str, typer.Argument(metavar="ROW", help="A row's id, or how it begins; rows.jsonl has them.")],
    run: Annotated[str | None, typer.Option("--run", help="A run's id, or how it begins; default: the newest.")] = None,
    store: StoreFolder = STORE,
) -> None:
    """Print the whole life of one of the teacher's rows: its source, its request, each filter's verdict, its arms."""
    from drllama import afterwards
    from drllama.cli.filtering_text import story_text
    from drllama.replies import RequestStore
    from drllama.store import Store

    kept = Store(store)
    with RequestStore(store / REPLIES) as replies:
        story = afterwards.why(
            kept.run(run) if run is not None else kept.newest_run(), row, store=kept, replies=replies
        )
    typer.echo(story_text(story))
