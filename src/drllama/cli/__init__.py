"""The command line: parse, one call, print. Each error that a person can cause is one line."""

import os
import sys


def main() -> None:
    """Run the command line and exit: 0 done, 1 something a person can mend, 2 wrong usage, 130 interrupted."""
    from drllama.cli.app import app
    from drllama.errors import DrLlamaError

    try:
        app(prog_name="drllama", standalone_mode=True)
    except DrLlamaError as error:
        sys.stderr.write(f"{type(error).__name__}: {' '.join(str(error).split())}\n")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; run the same command again: it goes on where it stopped\n")
        sys.exit(130)
    except BrokenPipeError:
        # `drllama runs | head`: nobody reads any more. Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
