"""Several processes that train the students of one run."""

import subprocess

import pytest
from commands import COMMAND, answers, finished, trained

SEEDS = ("--set", "seeds=3")
pytestmark = pytest.mark.slow


def test_students_trained_by_two_processes_are_those_that_one_trains(recipe, tmp_path):
    alone = finished("run", recipe, *SEEDS, "--store", tmp_path / "alone", OMP_NUM_THREADS="1")
    both = finished("run", recipe, *SEEDS, "--store", tmp_path / "both", "--jobs", 2, OMP_NUM_THREADS="1")
    assert (alone.returncode, both.returncode) == (0, 0), both.stderr
    assert "2 processes share the students" in both.stderr
    assert len(trained(tmp_path / "alone")) == 3
    assert trained(tmp_path / "both") == trained(tmp_path / "alone")
    assert answers(tmp_path / "both") == answers(tmp_path / "alone")
    assert both.stdout.replace("both", "alone") == alone.stdout


def test_what_a_worker_trained_is_not_trained_again(recipe, tmp_path):
    helped = finished("work-on", recipe, *SEEDS, "--store", tmp_path, OMP_NUM_THREADS="1")
    assert helped.returncode == 0, helped.stderr
    assert sum(map(float, helped.stdout.split())) > 0
    assert len(trained(tmp_path)) == 3
    run = finished("run", recipe, *SEEDS, "--store", tmp_path)
    assert run.returncode == 0, run.stderr
    assert "training" not in run.stderr


def test_a_worker_ends_when_the_process_that_it_works_for_is_gone(recipe, tmp_path):
    words = [*COMMAND, "work-on", str(recipe), *SEEDS, "--set", "finetune.epochs=500", "--store", str(tmp_path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as worker:
        worker.stdout.readline()
        worker.stdout.close()
        assert "Traceback" not in worker.stderr.read()
        assert worker.wait(timeout=120) == 1
    assert trained(tmp_path) == {}
