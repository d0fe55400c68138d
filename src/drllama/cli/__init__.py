"""The command line: parse, one call, print. Each error that a person can cause is one line."""

import io
import os
import shlex
import sys

_INTERRUPTED = 130


def main() -> None:
    """Run the command line and exit: 0 done, 1 something a person can mend, 2 wrong usage, 130 interrupted."""
    import drllama.cli.compare
    import drllama.cli.filtering
    import drllama.cli.review
    import drllama.cli.sweep
    import drllama.cli.teacher  # noqa: F401  their commands join the others
    from drllama.cli.app import app
    from drllama.errors import BatchPending, BudgetSpent, DrLlamaError

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal that can't show 是 shows \u662f
    try:
        app(prog_name="drllama", standalone_mode=True)
    except DrLlamaError as error:
        way_on = f": {shlex.join(['drllama', *sys.argv[1:]])}" if isinstance(error, BatchPending | BudgetSpent) else ""
        sys.stderr.write(f"{type(error).__name__}: {' '.join(str(error).split())}{way_on}\n")
        sys.exit(1)
    except SystemExit as end:  # typer turns a KeyboardInterrupt into this, without a word
        if end.code == _INTERRUPTED:
            sys.stderr.write("interrupted; run the same command again: it goes on where it stopped\n")
        raise
    except BrokenPipeError:
        # `drllama runs | head`: nobody reads any more. Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
