"""Commands as processes of their own, and the questions and recipes that they are given."""

import os
import subprocess
import sys

COMMAND = [sys.executable, "-c", "from drllama.cli import main; main()"]


def started(*words, **options):
    """Start a command; what it says is read by the caller."""
    return subprocess.Popen(
        [*COMMAND, *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


def finished(*words, seconds=120, **environment):
    """Carry out a command and return how it ended."""
    return subprocess.run(
        [*COMMAND, *map(str, words)],
        capture_output=True,
        text=True,
        timeout=seconds,
        env={**os.environ, **environment},
    )
