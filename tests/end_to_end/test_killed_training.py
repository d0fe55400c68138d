"""Trainings and sweeps that are killed with no chance to say goodbye end with the bytes of an undisturbed one."""

import json
import signal
from pathlib import Path

import pytest
from commands import answers, trained

from forked import Forked, finished

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
    finished("run", recipe, "--store", tmp_path / "whole")
    for number in (3, 7):
        script = KILLED_WHILE_WRITING.format(number=number)
        died = Forked("run", recipe, "--store", tmp_path / "killed", script=script)
        assert died.end() == -signal.SIGKILL, died.err
        assert list((tmp_path / "killed").glob("steps/*.work/*.partial"))
        assert trained(tmp_path / "killed") == {}
    finished("run", recipe, "--store", tmp_path / "killed")
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
    finished(*words, tmp_path / "whole")
    for moment in moments:
        killed = Forked(*words, tmp_path / "killed")
        killed.wait_for(moment)
        killed.send(signal.SIGKILL)
        assert killed.end() == -signal.SIGKILL
    finished(*words, tmp_path / "killed")
    whole = trained(tmp_path / "whole")
    assert len(whole) == to_the_end
    assert trained(tmp_path / "killed") == whole
    assert points(tmp_path / "killed") == points(tmp_path / "whole")
