"""The commands. Each is a translation: settings live in the recipe, work is done by ``pipeline``."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from drllama.cli.limits import limited
from drllama.errors import DataError, RecipeError
from drllama.types import SplitName

if TYPE_CHECKING:
    from drllama.pipeline import Kept
    from drllama.recipe import Recipe
    from drllama.replies import RequestStore
    from drllama.teaching import Limits

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Make a small language model good at the questions of one domain, and say honestly whether it worked.",
)

RecipePath = Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe's YAML file.")]
Assignments = Annotated[
    list[str] | None, typer.Option("--set", metavar="A.B=VALUE", help="Override one setting; may be given often.")
]
StoreFolder = Annotated[
    Path, typer.Option("--store", envvar="DRLLAMA_STORE", metavar="FOLDER", help="Where results are kept.")
]
RunName = Annotated[str, typer.Argument(metavar="RUN", help="A run's id, or how it begins.")]
Jobs = Annotated[
    int, typer.Option(min=1, help="Train so many students at once, each on its share of the processor's cores.")
]
ArmOption = Annotated[
    str | None,
    typer.Option("--arm", help="Which of a run's arms, such as none or combined; the default is the one best on dev."),
]
SeedOption = Annotated[
    int | None, typer.Option("--seed", help="Which of the arm's students; the default is the one best on dev.")
]
STORE = Path("runs")
REPLIES = "replies.sqlite"
REVIEWS = "reviews.sqlite"
_WORK_ON = "work-on"


def _say(text: str) -> None:
    typer.echo(text)


@app.command()
@limited
def run(
    recipe: RecipePath,
    assignments: Assignments = None,
    store: StoreFolder = STORE,
    jobs: Jobs = 1,
    *,
    limits: "Limits",
) -> None:
    """Carry out RECIPE, reusing every step and reply that is already stored, and print the result."""
    from drllama.cli.jobs import SharedProgress, WorkerProcesses, share_cores

    if jobs > 1:
        share_cores(jobs)
    from drllama import pipeline
    from drllama.cli.progress import ShownProgress
    from drllama.cli.tables import run_summary
    from drllama.recipe import read_recipe
    from drllama.replies import RequestStore

    resolved = read_recipe(recipe, assignments or ())
    words = [str(recipe), *(word for one in assignments or () for word in ("--set", one))]
    with RequestStore(store / REPLIES) as replies, ShownProgress() as shown:
        progress = SharedProgress(shown)
        same = [_WORK_ON, *words, "--store", str(store)]
        finished = pipeline.run(
            resolved.recipe,
            kept=kept_for(store, replies, resolved.recipe, recipe),
            limits=limits,
            progress=progress,
            command=shlex.join(["drllama", "run", *words]),
            workers=lambda missing: WorkerProcesses(same, min(jobs, missing) - 1, logs=store, progress=progress),
        )
    _say(run_summary(finished, store))


@app.command(_WORK_ON, hidden=True)
def work_on(recipe: RecipePath, assignments: Assignments = None, store: StoreFolder = STORE) -> None:
    """Train students of RECIPE that the ``run`` which started this process isn't working on."""
    from drllama import pipeline
    from drllama.cli.jobs import ToldProgress
    from drllama.recipe import read_recipe
    from drllama.replies import RequestStore

    wanted = read_recipe(recipe, assignments or ()).recipe
    with RequestStore(store / REPLIES) as replies:
        pipeline.work_on(wanted, kept=kept_for(store, replies, wanted, recipe), progress=ToldProgress())


@app.command()
def explain(recipe: RecipePath, assignments: Assignments = None) -> None:
    """Print every setting of RECIPE, its value and where the value came from, and what the student will read."""
    from drllama.cli.describing import reading_text
    from drllama.cli.tables import table
    from drllama.recipe import read_recipe

    resolved = read_recipe(recipe, assignments or ())
    reading = reading_text(resolved.recipe)
    _say(
        table(
            ["setting", "value", "came from"],
            [[one.path, _shown(one.value), one.came_from] for one in resolved.settings],
        )
    )
    _say(f"\n{reading}")


@app.command("runs")
def list_runs(store: StoreFolder = STORE) -> None:
    """List the finished runs, the oldest first."""
    from drllama.cli.tables import table
    from drllama.store import Store

    runs = Store(store).runs()
    if not runs:
        _say(
            f"{store}: {'no finished runs' if store.is_dir() else 'no such folder'}; make one with: drllama run RECIPE"
        )
        return
    rows = [
        [
            one.id,
            one.finished_at,
            one.student.model,
            *(f"{one.cell().evaluation.metrics[name].value:.3f}" for name in ("accuracy", "macro_f1")),
        ]
        for one in runs
    ]
    _say(table(["run", "finished (UTC)", "student", "accuracy", "macro-F1"], rows))


@app.command()
def show(name: RunName, store: StoreFolder = STORE) -> None:
    """Print a finished run: its table, its steps and where they lie."""
    from drllama.cli.tables import run_summary, table
    from drllama.store import Store

    finished = Store(store).run(name)
    _say(run_summary(finished, store))
    steps = [[step.stage, f"{step.seconds:.1f} s", str(store / step.folder)] for step in finished.steps]
    _say("\n" + table(["step", "took", "lies in"], steps))
    _say(f"\nfinished {finished.finished_at} by: {finished.command}")


@app.command("eval")
def evaluate(
    name: RunName,
    split: Annotated[str, typer.Option(help="train, dev or test.")] = "test",
    on: Annotated[Path | None, typer.Option(metavar="RECIPE", help="Ask the questions of this recipe's data.")] = None,
    arm: ArmOption = None,
    seed: SeedOption = None,
    assignments: Assignments = None,
    store: StoreFolder = STORE,
) -> None:
    """Score a finished run's student on a split of its data, or of another recipe's."""
    from drllama import afterwards
    from drllama.afterwards import WhichCell
    from drllama.cli.progress import ShownProgress
    from drllama.cli.tables import evaluation_table
    from drllama.recipe import read_recipe
    from drllama.store import Store

    kept, asked = Store(store), _split(split)
    if assignments and on is None:
        raise RecipeError("--set changes the recipe given by --on; give --on RECIPE too")
    other = read_recipe(on, assignments or ()).recipe if on else None
    finished = kept.run(name)
    with ShownProgress() as progress:
        found = afterwards.evaluate_run(
            finished, which=WhichCell(arm=arm, seed=seed), split=asked, on=other, store=kept, progress=progress
        )
    _say(f"{finished.id} on {asked} of {on or 'its own data'}, {len(found[0].predictions)} questions")
    _say(evaluation_table(found))


@app.command()
def ask(
    name: RunName,
    question: Annotated[str, typer.Argument(metavar="QUESTION")],
    context: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The text to answer from; - reads standard input.")
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option(metavar="TEXT", help="An answer option; one for each label, in their order.")
    ] = None,
    arm: ArmOption = None,
    seed: SeedOption = None,
    store: StoreFolder = STORE,
) -> None:
    """Ask a finished run's student one question."""
    from drllama import afterwards
    from drllama.afterwards import WhichCell
    from drllama.cli.tables import answer_lines
    from drllama.store import Store

    kept = Store(store)
    answer = afterwards.ask(
        kept.run(name), question, _context(context), option or (), which=WhichCell(arm=arm, seed=seed), store=kept
    )
    _say(answer_lines(answer))


@app.command("data")
def describe_data(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="A recipe, pubmedqa-demo, or a .json, .jsonl or .csv file.")
    ],
    labels: Annotated[
        str | None,
        typer.Option(help="The labels that a .jsonl or .csv file may hold, such as yes,no,maybe; else those it holds."),
    ] = None,
    assignments: Assignments = None,
) -> None:
    """Describe a source of questions: counts, label balance, lengths, duplicates within and across splits."""
    from drllama import plugins
    from drllama.cli.describing import description_text, recipe_for
    from drllama.stages.describe import describe

    found = plugins.make_source(recipe_for(source, labels, assignments or ()))
    _say(description_text(describe(found.load(), found.task)))


@app.command()
def models() -> None:
    """List the students known by name, their licence, and whether they are ready."""
    from drllama.cli.tables import table
    from drllama.students.catalogue import student_states

    rows = [
        [
            one.student.name,
            one.state,
            f"{one.student.num_parameters / 1e6:.0f} M",
            one.student.licence,
            one.student.about,
            one.place,
        ]
        for one in student_states()
    ]
    _say(table(["student", "state", "size", "licence", "what it is", "where it lies, or how to get it"], rows))
    _say("Any causal language model works too: a Hugging Face Hub id, a folder, or a .gguf file.")


@app.command()
def doctor() -> None:
    """Check this machine: versions, cores, memory, matrix-product rate, students; what is missing and how to get it."""
    from drllama.cli.doctor import checkup

    for line in checkup():
        _say(line)


def kept_for(folder: Path, replies: "RequestStore", recipe: "Recipe", path: Path) -> "Kept":
    """Return what earlier work left in a store for this recipe, which stands in that file."""
    from drllama.pipeline import Kept
    from drllama.reviews import ReviewStore
    from drllama.store import Store

    with ReviewStore(folder / REVIEWS) as reviews:
        decisions = tuple(reviews.decisions())
    beside = path.parent / "cells"
    cells = recipe.cells or (beside if beside.is_dir() else None)
    return Kept(store=Store(folder), replies=replies, decisions=decisions, cells=cells)


def _split(name: str) -> SplitName:
    match name:
        case "train" | "dev" | "test":
            return name
        case _:
            raise RecipeError(f"--split {name}: choose train, dev or test")


def _context(path: Path | None) -> str:
    if path is None:
        return ""
    try:
        return sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"--context {path}: {error.strerror}; check the path") from error
    except UnicodeDecodeError as error:
        raise DataError(f"--context {path}: not UTF-8 at byte {error.start}; save the file as UTF-8") from error


def _shown(value: object) -> str:
    return "null" if value is None else ", ".join(map(str, value)) if isinstance(value, list) else str(value)
