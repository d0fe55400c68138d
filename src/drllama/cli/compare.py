"""The command that holds finished runs against each other."""

import shlex
from typing import Annotated

import typer

from drllama.cli.app import STORE, StoreFolder, app


@app.command()
def compare(
    names: Annotated[
        list[str], typer.Argument(metavar="RUN RUN ...", help="Runs, the first is the baseline; RUN:ARM names an arm.")
    ],
    store: StoreFolder = STORE,
) -> None:
    """Hold finished runs against the first of them, arm by arm, paired by question and seed."""
    from drllama import comparing
    from drllama.cli.tables import comparison_summary
    from drllama.report import comparison_html, comparison_json, comparison_markdown
    from drllama.store import Store

    kept = Store(store)
    entries = []
    for name in names:
        run_name, _, arm = name.partition(":")
        entries.append(comparing.Entry(run=kept.run(run_name), arm=arm or None))
    found = comparing.compare(entries, command=shlex.join(["drllama", "compare", *names]))
    files = {
        "comparison.html": comparison_html(found),
        "comparison.md": comparison_markdown(found),
        "comparison.json": comparison_json(found),
    }
    kept.save_comparison(found.id, files)
    typer.echo(comparison_summary(found, kept.comparison_folder(found.id)))
