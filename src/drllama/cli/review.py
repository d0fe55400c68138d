"""The command that lets people decide about a teacher's rows: on a page, or in a spreadsheet."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from drllama.cli.app import REPLIES, REVIEWS, STORE, RunName, StoreFolder, app
from drllama.errors import DataError, MissingExtra, RecipeError

if TYPE_CHECKING:
    from drllama.reviews import Precision, ReviewStore
    from drllama.web.desk import Desk


@app.command()
def review(  # noqa: PLR0913  each is an option of the command
    name: RunName,
    sample: Annotated[
        int | None, typer.Option("--sample", min=1, help="Show only so many of the kept rows, drawn at random.")
    ] = None,
    reviewer: Annotated[str | None, typer.Option("--reviewer", metavar="NAME", help="Who decides.")] = None,
    port: Annotated[
        int, typer.Option("--port", min=0, max=65_535, help="The page's port on 127.0.0.1; 0: any that is free.")
    ] = 0,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in this machine's browser.")] = False,
    export: Annotated[
        Path | None, typer.Option("--export", metavar="FILE.csv", help="Write the rows for a spreadsheet instead.")
    ] = None,
    import_from: Annotated[
        Path | None, typer.Option("--import", metavar="FILE.csv", help="Take decisions from a spreadsheet instead.")
    ] = None,
    precision: Annotated[
        bool, typer.Option("--precision", help="Print how many of the kept rows people found right instead.")
    ] = False,
    store: StoreFolder = STORE,
) -> None:
    """Accept, reject or edit the rows that the teacher of RUN wrote; the next run of its recipe respects it."""
    from drllama.reviews import ReviewStore
    from drllama.store import Store
    from drllama.web.desk import read_desk

    if (export is not None) + (import_from is not None) + precision > 1:
        raise RecipeError("--export, --import and --precision are three commands; give one of them")
    kept = Store(store)
    desk = read_desk(kept.run(name), store=kept, sample_size=None if precision else sample)
    with ReviewStore(store / REVIEWS) as reviews:
        if export is not None:
            _export(desk, reviews, export)
        elif import_from is not None:
            _import(desk, reviews, import_from, reviewer)
        elif precision:
            _precision(desk, reviews, sample)
        else:
            _serve(desk, reviews, store / REPLIES, reviewer, port, _shown(open_page))


def _export(desk: "Desk", reviews: "ReviewStore", path: Path) -> None:
    from drllama.files import write_whole
    from drllama.reviews import exported

    write_whole(path, exported(desk.reviewables, reviews.decisions()))
    typer.echo(f"{path}: {len(desk.rows)} rows; fill in decision (accept, reject, edit) and reason, then --import it")


def _import(desk: "Desk", reviews: "ReviewStore", path: Path, reviewer: str | None) -> None:
    from drllama.reviews import Conflict, read_sheet, rulings_of

    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"--import {path}: {error.strerror}; check the path") from error
    sheet = read_sheet(content, where=str(path))
    found = rulings_of(sheet, desk.reviewables, reviews.decisions(), labels=desk.labels, reviewer=reviewer)
    saved = reviews.decide_all(found)
    if isinstance(saved, Conflict):
        theirs = saved.theirs
        raise DataError(
            f"{path}: {theirs.ruling.candidate_id} was decided this moment by {theirs.ruling.reviewer}; nothing was "
            "imported; export again"
        )
    typer.echo(f"{path}: {len(sheet.rows)} rows read, {len(saved)} decisions added")


def _precision(desk: "Desk", reviews: "ReviewStore", size: int | None) -> None:
    from drllama.reviews import precision_of

    standing = desk.standing(reviews.decisions())
    typer.echo(_told(precision_of(desk.all_rows, standing, desk.run, size=size, level=desk.level), desk.run.id))


def _told(found: "Precision", run_id: str) -> str:
    if found.estimate is None:
        return (
            f"nobody has read a random sample of the {found.num_kept} kept rows yet: drllama review {run_id} --sample N"
        )
    return (
        f"precision of the {found.num_kept} kept rows: {found.estimate}\n"
        f"read {found.num_read}, drawn at random: {found.num_rejected} rejected, {found.num_edited} needed an edit"
    )


def _serve(
    desk: "Desk",
    reviews: "ReviewStore",
    replies_path: Path,
    reviewer: str | None,
    port: int,
    on_ready: Callable[[str], None],
) -> None:
    try:
        from drllama.web.server import serve
    except ModuleNotFoundError as error:
        if str(error.name).startswith("drllama"):
            raise
        raise MissingExtra(f"the review page needs {error.name}; pip install 'drllama[web]'") from error
    from drllama.replies import RequestStore

    before = len(reviews.decisions())
    with RequestStore(replies_path) as replies:
        serve(desk, reviews=reviews, replies=replies, reviewer=reviewer, port=port, on_ready=on_ready)
    typer.echo(f"\nended; {len(reviews.decisions()) - before} decisions were added to {reviews.path}")


def _shown(open_page: bool) -> Callable[[str], None]:
    def show(address: str) -> None:
        typer.echo(f"review page, for this machine alone, until Ctrl-C:\n{address}")
        if open_page:
            typer.launch(address)

    return show
