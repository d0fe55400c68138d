"""Commands as processes of their own, and the questions and recipes that they are given."""

import os
import subprocess
import sys
from pathlib import Path

import tiny_student

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


def trained(store):
    """Return by key what each training left: its result and all files of its adapter."""
    return {
        folder.name: ((folder / "result.json").read_bytes(), tiny_student.files_of(folder / "adapter"))
        for folder in Path(store).glob("steps/finetune-*")
        if folder.is_dir() and not folder.name.endswith(".work")
    }


def answers(store):
    return {path.parent.name: path.read_bytes() for path in Path(store).glob("steps/score-*/result.json")}
