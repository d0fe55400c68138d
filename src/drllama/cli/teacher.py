"""The commands around a teacher: plan, audit, preview, augment, and the store of replies."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from drllama.cli.app import REPLIES, STORE, Assignments, RecipePath, StoreFolder, app, kept_for
from drllama.cli.limits import limited
from drllama.errors import DataError, StoreError

if TYPE_CHECKING:
    from drllama.teaching import Limits

replies_app = typer.Typer(no_args_is_help=True, help="Move recorded replies between machines, and count them.")
app.add_typer(replies_app, name="replies")


@app.command()
def plan(
    recipe: RecipePath,
    assignments: Assignments = None,
    store: StoreFolder = STORE,
    training: Annotated[
        bool,
        typer.Option(
            "--training",
            help="Tell the time and memory of all trainings too: the student is loaded and tries a few rows.",
        ),
    ] = False,
) -> None:
    """Print what asking the teacher of RECIPE will take and cost, and what leaves the machine; send nothing."""
    from drllama import planning, plugins, teaching
    from drllama.cli.teaching_text import plan_text
    from drllama.recipe import read_recipe
    from drllama.replies import RequestStore

    wanted = read_recipe(recipe, assignments or ()).recipe
    with RequestStore(store / REPLIES) as replies:
        if wanted.teacher is not None or not training:
            lesson = teaching.read_lesson(wanted)
            found = planning.plan(lesson, replies=replies, count_tokens=plugins.make_token_counter(wanted))
            typer.echo(plan_text(found, wanted))
        if not training:
            typer.echo("training: --training tells its time and memory; it loads the student")
            return
        from drllama import pipeline
        from drllama.cli.progress import ShownProgress

        with ShownProgress() as progress:
            told = pipeline.foretell(wanted, kept=kept_for(store, replies, wanted, recipe), progress=progress)
    typer.echo(f"{told} (measured on a few rows just now)")


@app.command()
@limited
def audit(
    recipe: RecipePath,
    assignments: Assignments = None,
    store: StoreFolder = STORE,
    student: Annotated[bool, typer.Option(help="Ask the untrained student the same questions.")] = True,
    *,
    limits: "Limits",
) -> None:
    """Ask the teacher of RECIPE the dev questions blind, and print how well it knows the domain."""
    from drllama import pipeline
    from drllama.cli.progress import ShownProgress
    from drllama.cli.teaching_text import audit_text
    from drllama.recipe import read_recipe
    from drllama.replies import RequestStore
    from drllama.store import Store

    resolved = read_recipe(recipe, assignments or ()).recipe
    with RequestStore(store / REPLIES) as replies, ShownProgress() as progress:
        found = pipeline.audit(
            resolved, store=Store(store), replies=replies, limits=limits, progress=progress, with_student=student
        )
    typer.echo(audit_text(found))


@app.command()
@limited
def preview(
    recipe: RecipePath,
    assignments: Assignments = None,
    store: StoreFolder = STORE,
    *,
    limits: "Limits",
) -> None:
    """Ask the teacher of RECIPE for three candidates, and print prompts and replies whole."""
    from drllama import teaching
    from drllama.cli.progress import ShownProgress
    from drllama.cli.teaching_text import call_text
    from drllama.recipe import read_recipe
    from drllama.replies import RequestStore

    lesson = teaching.read_lesson(read_recipe(recipe, assignments or ()).recipe)
    with RequestStore(store / REPLIES) as replies, ShownProgress() as progress:
        calls = teaching.preview(lesson, replies=replies, limits=limits, progress=progress)
    for call in calls:
        typer.echo(call_text(call))


@app.command()
@limited
def augment(
    recipe: RecipePath,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Where the candidates go, as JSON Lines.")],
    assignments: Assignments = None,
    store: StoreFolder = STORE,
    *,
    limits: "Limits",
) -> None:
    """Let the teacher of RECIPE rewrite the training questions and write new ones; keep every reply."""
    from drllama import teaching
    from drllama.cli.progress import ShownProgress
    from drllama.cli.teaching_text import augmented_text
    from drllama.files import write_whole
    from drllama.recipe import read_recipe
    from drllama.replies import RequestStore
    from drllama.stages.ledger import candidate_lines

    lesson = teaching.read_lesson(read_recipe(recipe, assignments or ()).recipe)
    with RequestStore(store / REPLIES) as replies, ShownProgress() as progress:
        found = teaching.augment(lesson, replies=replies, limits=limits, progress=progress)
    write_whole(out, "".join(f"{line}\n" for line in candidate_lines(found.candidates)))
    typer.echo(augmented_text(found, out))


def _kept_in(store: Path) -> Path:
    """Return the file of a store that has one: a command that only reads makes none."""
    path = store / REPLIES
    if not path.exists():
        raise StoreError(f"{path}: isn't there, no reply was kept; name the folder that has it with --store")
    return path


@replies_app.command("stats")
def replies_stats(store: StoreFolder = STORE) -> None:
    """Count the kept replies: by teacher and template, with tokens and cost."""
    from drllama.cli.teaching_text import stats_text
    from drllama.replies import RequestStore

    with RequestStore(_kept_in(store)) as replies:
        typer.echo(stats_text(replies.stats()))


@replies_app.command("batches")
def replies_batches(store: StoreFolder = STORE) -> None:
    """List the batches that were submitted, and what came of each; nobody is asked."""
    from drllama.cli.teaching_text import batches_text
    from drllama.replies import BatchBook, RequestStore

    with RequestStore(_kept_in(store)) as replies:
        typer.echo(batches_text(BatchBook(replies).records()))


@replies_app.command("forget")
def replies_forget(
    batch: Annotated[str, typer.Argument(metavar="BATCH", help="Its name here, as replies batches lists it.")],
    store: StoreFolder = STORE,
) -> None:
    """Give up BATCH, whose server doesn't know it any more; what it asked is asked again, and paid again."""
    from drllama.replies import BatchBook, RequestStore

    with RequestStore(_kept_in(store)) as replies:
        batches = BatchBook(replies)
        with batches.alone():
            found = [one for one in batches.records() if one.id == batch and one.state == "out"]
            if not found:
                raise DataError(f"no batch {batch!r} is out; drllama replies batches lists those that are")
            batches.settle(batch, {}, state="forgotten", num_strays=0)
    typer.echo(f"{batch}: forgotten, with {found[0].num_requests} requests")


@replies_app.command("export")
def replies_export(
    out: Annotated[Path, typer.Argument(metavar="FILE", help="A JSON Lines file.")], store: StoreFolder = STORE
) -> None:
    """Write all kept attempts to FILE, so that another machine can replay them."""
    from drllama.files import write_whole
    from drllama.replies import RequestStore

    with RequestStore(_kept_in(store)) as replies:
        write_whole(out, "".join(replies.export_lines()))
    typer.echo(f"{out}: written")


@replies_app.command("import")
def replies_import(
    source: Annotated[Path, typer.Argument(metavar="FILE", help="An export, or recorded answers by item.")],
    recipe: Annotated[
        Path | None,
        typer.Option("--recipe", help="For recorded answers by item: the recipe whose requests they answer."),
    ] = None,
    assignments: Assignments = None,
    store: StoreFolder = STORE,
) -> None:
    """Read replies from FILE: an export as it is, or, with --recipe, recorded answers by source item."""
    from drllama import teaching
    from drllama.recipe import read_recipe
    from drllama.replies import RequestStore

    unknown = ""
    with RequestStore(store / REPLIES) as replies:
        if recipe is not None:
            lesson = teaching.read_lesson(read_recipe(recipe, assignments or ()).recipe)
            imported = teaching.import_recording(lesson, source, replies=replies)
            count = imported.replies
            if imported.num_unknown:
                unknown = f"; {imported.num_unknown} lines name no question of the recipe's train or dev"
        else:
            try:
                with source.open(encoding="utf-8") as lines:
                    count = replies.import_lines(lines, source=f"import of {source.name}")
            except (OSError, UnicodeDecodeError) as error:
                raise DataError(f"{source}: can't be read ({error}); give a file that replies export wrote") from error
    typer.echo(f"{source}: {count.read} read, {count.added} added, {count.already_there} there already{unknown}")
