"""Trainings and sweeps that are killed with no chance to say goodbye end with the bytes of an undisturbed one."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from commands import answers, finished, started, trained

pytestmark = pytest.mark.slow

# The real command, its checkpoints written after each update; the one with this number is killed half way through.
KILLED_WHILE_WRITING = """
import os, signal
from drllama.students import training

training.CHECKPOINT_EVERY_SECONDS = -1
whole, written = training.write_whole, 0

def write_half(path, content):
    global written
    written += 1
    if written == {number}:
        path.with_name(f"{{path.name}}.{{os.getpid()}}.partial").write_bytes(content[: len(content) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
    whole(path, content)

training.write_whole = write_half
from drllama.cli import main
main()
"""
GRID = ("--grid", "finetune.method.lora.alpha=1,4,16", "--seeds", "2")


def test_a_run_killed_while_a_checkpoint_is_written_ends_with_the_same_adapter_and_answers(recipe, tmp_path):
    done = finished("run", recipe, "--store", tmp_path / "whole", OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    for number in (3, 7):
        script = KILLED_WHILE_WRITING.format(number=number)
        words = [sys.executable, "-c", script, "run", str(recipe), "--store", str(tmp_path / "killed")]
        died = subprocess.run(words, capture_output=True, text=True, timeout=120)
        assert died.returncode == -signal.SIGKILL, died.stderr
        assert list((tmp_path / "killed").glob("steps/*.work/*.partial"))
        assert trained(tmp_path / "killed") == {}
    done = finished("run", recipe, "--store", tmp_path / "killed", OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    assert len(trained(tmp_path / "whole")) == 1
    assert trained(tmp_path / "killed") == trained(tmp_path / "whole")
    assert answers(tmp_path / "killed") == answers(tmp_path / "whole")


def points(store):
    (path,) = Path(store).glob("sweeps/*/sweep.json")
    found = json.loads(path.read_text())["points"]
    return [{**one, "seconds": 0, "trainings": [{**each, "seconds": 0} for each in one["trainings"]]} for one in found]


@pytest.mark.parametrize(
    ("more", "moments", "to_the_end"),
    [
        ((), ("setting 1 of 3, seed 2 of 2: training, epoch 2", "setting 3 of 3, seed 1 of 2: training"), 3 * 2),
        (("--halving",), ("setting 3 of 3, seed 1 of 2: training", "setting 1 of 2, seed 2 of 2: training"), 1 * 2),
    ],
    ids=["whole", "halved"],
)
def test_a_sweep_killed_in_the_middle_of_its_cells_ends_as_if_nothing_had_been(
    recipe, tmp_path, more, moments, to_the_end
):
    words = ("sweep", recipe, *GRID, *more, "--store")
    done = finished(*words, tmp_path / "whole", OMP_NUM_THREADS="1", seconds=300)
    assert done.returncode == 0, done.stderr
    for moment in moments:
        with started(*words, tmp_path / "killed", env={**os.environ, "OMP_NUM_THREADS": "1"}) as process:
            told = ""
            while moment not in told and (line := process.stderr.readline()):
                told += line
            process.send_signal(signal.SIGKILL)
            process.communicate(timeout=60)
        assert moment in told
        assert process.returncode == -signal.SIGKILL
    done = finished(*words, tmp_path / "killed", OMP_NUM_THREADS="1", seconds=300)
    assert done.returncode == 0, done.stderr
    whole = trained(tmp_path / "whole")
    assert len(whole) == to_the_end
    assert trained(tmp_path / "killed") == whole
    assert points(tmp_path / "killed") == points(tmp_path / "whole")
