"""Processes that help a run, as the one that started them sees it."""

import pytest

from bench import RecordedBench
from drllama import pipeline, plugins
from drllama.cli.jobs import SharedProgress, WorkerProcesses
from drllama.recipe import read_recipe
from drllama.replies import RequestStore
from drllama.store import Store


class Heard:
    """A progress that remembers."""

    def __init__(self):
        self.units, self.told = 0.0, []

    def expect(self, units):
        self.units = 0.0

    def work(self, activity, units=0):
        self.units += units

    def tell(self, line):
        self.told.append(line)


def test_a_worker_that_fails_is_told_of_in_one_line(tmp_path):
    heard = Heard()
    workers = WorkerProcesses(["work-on", "nothing.yaml"], 1, logs=tmp_path, progress=SharedProgress(heard))
    with workers:
        for process, _ in workers._running:
            process.wait(timeout=60)
    assert len(heard.told) == 2
    assert heard.told[1].startswith("a worker process ended early, the others did its work: RecipeError: nothing.yaml")


@pytest.mark.parametrize("number", [0, -1], ids=["one student", "no student"])
def test_where_nothing_is_left_to_share_nothing_is_said(tmp_path, number):
    heard = Heard()
    with WorkerProcesses(["work-on", "nothing.yaml"], number, logs=tmp_path, progress=SharedProgress(heard)):
        pass
    assert heard.told == []


def test_what_others_do_counts_with_the_next_work_done_here():
    heard = Heard()
    progress = SharedProgress(heard)
    progress.others_did(3)
    assert heard.units == 0
    progress.work("training", 2)
    progress.work("training", 1)
    assert heard.units == 6


def test_a_worker_counts_what_it_does_for_students_and_not_what_the_teacher_said_before(tmp_path, monkeypatch):
    bench, alone, worker = RecordedBench(tmp_path), Heard(), Heard()
    monkeypatch.setattr(plugins, "make_student", bench.script.make_student)
    run = bench.run(progress=alone)
    untrained = run.split_sizes["test"] + run.split_sizes["dev"]
    store = Store(tmp_path / "another")
    with RequestStore(store.root / "replies.sqlite") as replies:
        recipe = read_recipe(tmp_path / "recipe.yaml").recipe
        pipeline.work_on(recipe, kept=pipeline.Kept(store=store, replies=replies), progress=worker)
    assert worker.units == alone.units - untrained > 0
