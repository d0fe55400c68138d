"""Sweeps of students that are trained on a recipe's arm."""

import re

import pytest

from bench import RecordedBench, Silent
from drllama import plugins, sweeps
from drllama.errors import DataError, RecipeError
from drllama.pipeline import Kept
from drllama.replies import RequestStore
from drllama.types import Synthetic

EPOCHS = "finetune.epochs=1,2"


@pytest.fixture
def bench(tmp_path, monkeypatch):
    bench = RecordedBench(tmp_path)
    monkeypatch.setattr(plugins, "make_student", bench.script.make_student)
    return bench


def swept(bench, arm, *grid, **asked):
    path = bench.folder / "recipe.yaml"
    request = sweeps.SweepRequest(path=path, text=path.read_text(), grid=grid or (EPOCHS,), arm=arm, **asked)
    with RequestStore(bench.store.root / "replies.sqlite") as replies:
        return sweeps.sweep(sweeps.checked(request), kept=Kept(store=bench.store, replies=replies), progress=Silent())


def written(lesson):
    return [row for row in lesson if isinstance(row.example.origin, Synthetic)]


@pytest.mark.parametrize(("arm", "number"), [("none", 0), ("rewrite", 4), ("new", 8), ("combined", 12)])
def test_students_are_trained_on_the_rows_of_the_arm(bench, arm, number):
    found = swept(bench, arm)
    assert [(len(lesson), len(written(lesson))) for lesson in bench.script.lessons] == [(4 + number, number)] * 2
    assert f"--arm {arm}" in found.command
    assert f"trained on 4 questions with the rows of arm '{arm}'" in (
        bench.store.sweep_folder(found.id) / "sweep.md"
    ).read_text(encoding="utf-8")


def test_a_run_finds_the_students_of_its_arm_trained(bench):
    swept(bench, "new", seeds=2)
    bench.script.lessons.clear()
    bench.run("finetune.epochs=2", "seeds=2", "augment.arms=[none, new]")
    assert [len(written(lesson)) for lesson in bench.script.lessons] == [0, 0]


def test_with_folds_nothing_made_of_a_question_that_judges_is_trained_on(bench):
    swept(bench, "combined", folds=3)
    assert len(bench.script.lessons) == 6
    for lesson in bench.script.lessons:
        real = {row.example.id for row in lesson if row not in written(lesson)}
        parents = [one for row in written(lesson) for one in row.example.origin.parents]
        assert set(parents) <= real
        assert len(parents) == 3 * len(set(parents))


def test_the_weight_of_the_teacher_s_rows_can_be_swept(bench):
    swept(bench, "new", "finetune.synthetic_weight=0.25,1")
    assert [{row.weight for row in written(lesson)} for lesson in bench.script.lessons] == [{0.25}, {1.0}]


def test_a_sweep_never_asks_the_teacher(bench):
    live = "teacher={openai-compatible: {base_url: 'http://127.0.0.1:9/v1', model: large}}"
    with pytest.raises(DataError, match=r"--arm new: the teacher hasn't answered all .*drllama filter asks"):
        swept(bench, "new", assignments=(live,))
    assert bench.script.trainings == 0


@pytest.mark.parametrize(
    ("arm", "assignment", "told"),
    [
        (
            "both",
            "seeds=1",
            "--arm both: the recipe has no such arm of equal updates; choose one of none, rewr",
        ),
        ("new", "augment.select.by=errors", "with augment.select.by=errors a student chooses"),
        ("new", "finetune.synthetic_weight=learned", "tries three weights for one student; sweep them"),
        ("new", "augment=null", "the recipe has no section augment, so no arms; leave --arm out"),
    ],
)
def test_an_arm_that_can_t_be_swept_is_refused_in_one_line(bench, arm, assignment, told):
    with pytest.raises(RecipeError, match=re.escape(told)):
        swept(bench, arm, assignments=(assignment,))
