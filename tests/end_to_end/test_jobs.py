"""Several processes that train the students of one run or sweep."""

import json
import subprocess
from pathlib import Path

import pytest
from commands import COMMAND, answers, trained

from forked import finished

SEEDS = ("--set", "seeds=3")
GRID = ("--grid", "finetune.method.lora.alpha=4,16", "--seeds", 2)
pytestmark = pytest.mark.slow


def test_students_trained_by_two_processes_are_those_that_one_trains(recipe, tmp_path):
    alone = finished("run", recipe, *SEEDS, "--store", tmp_path / "alone")
    both = finished("run", recipe, *SEEDS, "--store", tmp_path / "both", "--jobs", 2)
    assert "2 processes share the students" in both.err
    assert len(trained(tmp_path / "alone")) == 3
    assert trained(tmp_path / "both") == trained(tmp_path / "alone")
    assert answers(tmp_path / "both") == answers(tmp_path / "alone")
    assert both.out.replace("both", "alone") == alone.out


def test_what_a_worker_trained_is_not_trained_again(recipe, tmp_path):
    helped = finished("work-on", recipe, *SEEDS, "--store", tmp_path)
    assert sum(map(float, helped.out.split())) > 0
    assert len(trained(tmp_path)) == 3
    run = finished("run", recipe, *SEEDS, "--store", tmp_path)
    assert "training" not in run.err


def test_a_worker_ends_when_the_process_that_it_works_for_is_gone(recipe, tmp_path):
    words = [*COMMAND, "work-on", str(recipe), *SEEDS, "--set", "finetune.epochs=500", "--store", str(tmp_path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as worker:
        worker.stdout.readline()
        worker.stdout.close()
        assert "Traceback" not in worker.stderr.read()
        assert worker.wait(timeout=120) == 1
    assert trained(tmp_path) == {}


def swept(store):
    """Return what a sweep found, without times."""
    (path,) = Path(store).glob("sweeps/*/sweep.json")
    points = json.loads(path.read_text())["points"]
    for point in points:
        for timed in (point, *point["trainings"]):
            del timed["seconds"]
    return points


@pytest.mark.parametrize("more", [(), ("--halving",)], ids=["whole", "halved"])
def test_a_sweep_of_two_processes_finds_what_one_finds(recipe, tmp_path, more):
    finished("sweep", recipe, *GRID, *more, "--store", tmp_path / "alone")
    both = finished("sweep", recipe, *GRID, *more, "--store", tmp_path / "both", "--jobs", 2)
    assert "2 processes share the students" in both.err
    assert "ended early" not in both.err
    assert swept(tmp_path / "both") == swept(tmp_path / "alone")
    assert trained(tmp_path / "both") == trained(tmp_path / "alone")


def test_what_is_left_of_a_sweep_is_shared_by_those_who_come_later(recipe, tmp_path):
    helped = finished("sweep", recipe, *GRID, "--store", tmp_path, "--works-on")
    assert sum(map(float, helped.out.split())) > 0
    assert len(trained(tmp_path)) == 4
    sweep = finished("sweep", recipe, *GRID, "--store", tmp_path, "--jobs", 2)
    assert "share the students" not in sweep.err
    assert "training" not in sweep.err
