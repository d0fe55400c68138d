"""Several adapters trained in one pass. On a CPU the student wouldn't; the tests tell it that it gains by it."""

import dataclasses
from pathlib import Path

import pytest
import safetensors.torch
import transformers

from drllama.errors import ModelError
from drllama.protocols import Course
from drllama.recipe import Full, Ia3
from drllama.students import stacked, training
from drllama.students.causal import CausalStudent
from drllama.students.checkpoint import CHECKPOINT
from drllama.students.stacked import stacks_of
from tiny_student import (
    YES_NO_MAYBE,
    Told,
    files_of,
    finetune_of,
    needs_gpu,
    questions,
    rows_of,
    student_of,
    task_of,
)


def make_it_gain(patch):
    """Let a student on a CPU stack what it would on a GPU."""
    patch.setattr(
        CausalStudent,
        "stacks",
        lambda self, settings: stacks_of(self._bare, [one.method for one in settings], recalls=False),
    )


@pytest.fixture
def gains(monkeypatch):
    make_it_gain(monkeypatch)


@pytest.fixture(scope="session")
def still_gpt2(tiny_gpt2, tmp_path_factory):
    """The tiny GPT-2 without the dropout that its family has by default."""
    folder = tmp_path_factory.mktemp("models") / "gpt2-still"
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny_gpt2)
    model.config.resid_pdrop = model.config.embd_pdrop = model.config.attn_pdrop = 0.0
    model.save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(tiny_gpt2).save_pretrained(folder)
    return folder


def course_of(workspace, *, task=YES_NO_MAYBE, seed=7, train=11, dev=3, updates=10, lora=None, **settings):
    workspace.mkdir(parents=True, exist_ok=True)
    return Course(
        train=rows_of(questions(task.labels, count=train)),
        dev=questions(task.labels, count=dev),
        settings=finetune_of(lora, **{"epochs": 2, "learning_rate": 3e-3, **settings}),
        seed=seed,
        workspace=workspace,
        updates_per_epoch=updates,
    )


def courses_in(folder, *, targets=("q_proj", "v_proj"), **same):
    """Return five courses that differ in all that may differ in a stack."""
    choices = [
        {"seed": 1},
        {"seed": 2, "lora": {"alpha": 32}},
        {"seed": 1, "lora": {"alpha": 8, "scaling": "rank-stabilized"}, "learning_rate": 1e-3, "warmup_share": 0.3},
        {"seed": 3, "train": 6, "weight_decay": 0.1, "batch_size": 3, "choose_epoch_by": "last"},
        {"seed": 4, "dev": 5, "max_grad_norm": 0.05, "class_weights": "balanced"},
    ]
    courses = []
    for number, choice in enumerate(choices):
        lora = {"targets": targets, **choice.pop("lora", {})}
        courses.append(course_of(folder / str(number), lora=lora, **{**same, **choice}))
    return courses


def few_in(folder, **same):
    """Return three courses of four short updates each."""
    choices = {"plain": {}, "strong": {"lora": {"alpha": 32}}, "slow": {"seed": 8, "learning_rate": 1e-3}}
    return [course_of(folder / name, updates=2, **{**same, **choice}) for name, choice in choices.items()]


def alone(student, courses, progress=None):
    """Train one after another."""
    return [
        student.finetune(
            course.train,
            course.dev,
            settings=course.settings,
            seed=course.seed,
            updates_per_epoch=course.updates_per_epoch,
            workspace=course.workspace,
            progress=progress or Told(),
        )
        for course in courses
    ]


def weights_of(course):
    return safetensors.torch.load_file(course.workspace / "adapter" / "adapter_model.safetensors")


def largest_difference(one, other):
    assert one.keys() == other.keys()
    return max((one[name] - other[name]).abs().max().item() for name in one)


def assert_alike(told, wanted, *, within=1e-4):
    for one, other in zip(told, wanted, strict=True):
        for mine, theirs in zip(one.epochs, other.epochs, strict=True):
            assert dataclasses.astuple(mine) == pytest.approx(dataclasses.astuple(theirs), abs=within)
        assert dataclasses.replace(one, epochs=()) == dataclasses.replace(other, epochs=())


# Training in a stack is training alone


@pytest.mark.parametrize(
    ("base", "targets", "task"),
    [
        ("tiny_llama", ("q_proj", "v_proj"), YES_NO_MAYBE),
        pytest.param("tiny_llama", "all-linear", task_of("yes", "not sure", "no effect"), marks=pytest.mark.slow),
        ("still_gpt2", ("c_attn", "c_proj"), YES_NO_MAYBE),
    ],
    ids=["llama", "llama, all modules, labels of several words", "gpt2"],
)
def test_20_updates_in_a_stack_are_those_of_each_adapter_alone(base, targets, task, tmp_path, request, gains):
    student = student_of(request.getfixturevalue(base), task)
    same = {"targets": targets, "task": task}
    together, apart = courses_in(tmp_path / "together", **same), courses_in(tmp_path / "apart", **same)
    steps = Told()
    told = student.finetune_many(together, progress=steps)
    assert steps.calls["training"] == 20, "all were trained in one pass, and none again"
    assert_alike(told, alone(student, apart))
    for mine, theirs in zip(together, apart, strict=True):
        assert largest_difference(weights_of(mine), weights_of(theirs)) < 1e-4
        assert max(weight.abs().max() for name, weight in weights_of(mine).items() if "lora_B" in name) > 1e-2
        for name in ("adapter_config.json", "drllama.json"):
            assert files_of(mine.workspace / "adapter")[name] == files_of(theirs.workspace / "adapter")[name]


@needs_gpu
def test_a_stack_on_a_gpu_trains_what_is_trained_alone(tiny_llama, tmp_path):
    student = student_of(tiny_llama, device="cuda", dtype="float32")
    together, apart, steps = few_in(tmp_path / "together"), few_in(tmp_path / "apart"), Told()
    told = student.finetune_many(together, progress=steps)
    assert steps.calls["training"] == 4
    assert_alike(told, alone(student, apart))
    for one, other in zip(together, apart, strict=True):
        assert largest_difference(weights_of(one), weights_of(other)) < 1e-4


def test_what_a_pass_holds_does_not_change_the_updates(tiny_llama, tmp_path, monkeypatch, gains):
    student = student_of(tiny_llama)
    whole, cut = few_in(tmp_path / "whole", micro_batch_size=None), few_in(tmp_path / "cut", micro_batch_size=3)
    told = student.finetune_many(whole, progress=Told())
    monkeypatch.setattr(stacked, "_MOST_TOKENS", 200)
    assert_alike(student.finetune_many(cut, progress=Told()), told, within=1e-5)
    for one, other in zip(whole, cut, strict=True):
        assert largest_difference(weights_of(one), weights_of(other)) < 1e-5


def test_the_base_is_left_as_it_was(tiny_llama, tmp_path, gains):
    student = student_of(tiny_llama)
    before = list(student.score(questions()))
    student.finetune_many(few_in(tmp_path), progress=Told())
    student.undress()
    assert list(student.score(questions())) == before


def test_as_many_are_trained_in_one_pass_as_are_allowed(tiny_llama, tmp_path, monkeypatch, gains):
    monkeypatch.setattr(stacked, "_MOST_ADAPTERS", 2)
    steps = Told()
    courses = few_in(tmp_path)
    told = student_of(tiny_llama).finetune_many(courses, progress=steps)
    assert len(told) == len(courses) == 3
    assert steps.calls["training"] == 2 * 4, "two together and one alone"


def test_on_a_cpu_they_are_trained_one_after_another_to_the_same_bytes(tiny_llama, tmp_path):
    student, steps = student_of(tiny_llama), Told()
    together, apart = few_in(tmp_path / "together"), few_in(tmp_path / "apart")
    assert student.finetune_many(together, progress=steps) == alone(student, apart)
    assert steps.calls["training"] == 3 * 4
    for one, other in zip(together, apart, strict=True):
        assert files_of(one.workspace / "adapter") == files_of(other.workspace / "adapter")


# What can be stacked


def test_only_lora_of_one_shape_without_dropout_is_stacked(tiny_llama):
    model = student_of(tiny_llama)._bare
    methods = [
        finetune_of(lora).method
        for lora in (
            {"alpha": 1},
            {"rank": 3},
            {"alpha": 2, "scaling": "rank-stabilized"},
            {"dropout": 0.1},
            {"dora": True},
            {"rank": 3, "targets": ("q_proj",)},
            {"rank": 3, "alpha": 9},
            {"top_layers": 1},
        )
    ]
    assert stacks_of(model, [*methods, Ia3(), Full(), methods[-1]], recalls=False) == [[0, 2], [1, 6], [7, 10]]
    assert stacks_of(model, methods[2:6], recalls=False) == []
    # Alone, the top layers read what is recalled of the others, and rounded.
    assert stacks_of(model, [methods[-1], methods[-1]], recalls=True) == []


def test_a_base_that_drops_something_in_training_is_not_stacked(tiny_gpt2, still_gpt2):
    methods = [finetune_of({"targets": ("c_attn",), "alpha": alpha}).method for alpha in (1, 2)]
    assert stacks_of(student_of(still_gpt2)._bare, methods, recalls=False) == [[0, 1]]
    dropping = student_of(tiny_gpt2)._bare
    assert stacks_of(dropping, methods, recalls=False) == []
    assert not dropping.training


def test_what_cannot_be_stacked_is_trained_all_the_same(tiny_llama, tmp_path, gains):
    courses = [
        *few_in(tmp_path),
        course_of(tmp_path / "dora", updates=2, lora={"dora": True}),
        course_of(tmp_path / "dropout", updates=2, lora={"dropout": 0.2}),
    ]
    steps = Told()
    told = student_of(tiny_llama).finetune_many(courses, progress=steps)
    assert [len(one.epochs) for one in told] == [2] * 5
    assert steps.calls["training"] == 4 + 4 + 4
    assert all((course.workspace / "adapter").is_dir() for course in courses)


def test_an_adapter_that_diverges_hurts_itself_only(tiny_llama, tmp_path, gains):
    good, bad = few_in(tmp_path / "good"), course_of(tmp_path / "bad", updates=2, learning_rate=1e30)
    with pytest.raises(ModelError, match="after epoch 1 the student's scores aren't numbers: training diverged"):
        student_of(tiny_llama).finetune_many([good[0], bad, *good[1:]], progress=Told())
    rest = Told()
    told = student_of(tiny_llama).finetune_many(good, progress=rest)
    assert not rest.calls, "the others were trained to their end"
    assert_alike(told, student_of(tiny_llama).finetune_many(few_in(tmp_path / "again"), progress=Told()))


# Exact resume


class Killed(Exception):
    pass


def kill():
    raise Killed


@pytest.fixture(scope="module")
def undisturbed(tiny_llama, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        make_it_gain(patch)
        courses = few_in(tmp_path_factory.mktemp("undisturbed"))
        told = student_of(tiny_llama).finetune_many(courses, progress=Told())
    return told, [files_of(course.workspace / "adapter") for course in courses]


@pytest.mark.parametrize(("of", "at"), [("training", 2), ("scoring", 4), ("training", 4)])
def test_a_killed_stack_ends_with_the_same_bytes(tiny_llama, tmp_path, monkeypatch, gains, undisturbed, of, at):
    monkeypatch.setattr(training, "CHECKPOINT_EVERY_SECONDS", -1)
    first, rest = Told(at=at, of=of, then=kill), Told()
    with pytest.raises(Killed):
        student_of(tiny_llama).finetune_many(few_in(tmp_path), progress=first)
    courses = few_in(tmp_path)
    told = student_of(tiny_llama).finetune_many(courses, progress=rest)
    assert first.calls["training"] - (of == "training") + rest.calls["training"] == 4, "no step was made twice"
    assert (told, [files_of(course.workspace / "adapter") for course in courses]) == undisturbed


@pytest.mark.parametrize("at", [1, 3, 4], ids=["of three files", "before the names", "of three names"])
def test_a_stack_killed_while_it_writes_its_checkpoints_ends_with_the_same_bytes(
    tiny_llama, tmp_path, monkeypatch, gains, undisturbed, at
):
    # Of the second time that it writes: three files, then three names; the first time, all went well.
    monkeypatch.setattr(training, "CHECKPOINT_EVERY_SECONDS", -1)
    replaced, replace = [], Path.replace

    def until_killed(path, target):
        if CHECKPOINT in path.name:
            if len(replaced) == 6 + at:
                raise Killed
            replaced.append(target)
        return replace(path, target)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Path, "replace", until_killed)
        student_of(tiny_llama).finetune_many(few_in(tmp_path), progress=Told())
    courses, rest = few_in(tmp_path), Told()
    told = student_of(tiny_llama).finetune_many(courses, progress=rest)
    assert rest.calls["training"] == (2 if at > 3 else 3), "the second update is there once all three files were"
    assert (told, [files_of(course.workspace / "adapter") for course in courses]) == undisturbed
    assert not [path for course in courses for path in course.workspace.glob("*.next")]


def test_a_killed_stack_can_go_on_alone_or_in_other_company(tiny_llama, tmp_path, monkeypatch, gains, undisturbed):
    monkeypatch.setattr(training, "CHECKPOINT_EVERY_SECONDS", -1)
    student = student_of(tiny_llama)
    with pytest.raises(Killed):
        student.finetune_many(few_in(tmp_path), progress=Told(at=3, then=kill))
    one, two, three = few_in(tmp_path)
    late = course_of(tmp_path / "late", updates=2, seed=9)
    steps = Told()
    (told_one,) = alone(student, [one], steps)
    told_two, _, told_three = student.finetune_many([two, late, three], progress=steps)
    assert steps.calls["training"] == 2 + 4, "what was trained in the first stack is kept"
    assert_alike([told_one, told_two, told_three], undisturbed[0])


def test_a_stack_pauses_after_an_epoch_and_some_of_it_go_on(tiny_llama, tmp_path, gains, undisturbed):
    student, steps = student_of(tiny_llama), Told()
    told = student.finetune_many(few_in(tmp_path), stop_after=1, progress=steps)
    assert [one.epochs for one in told] == [one.epochs[:1] for one in undisturbed[0]]
    assert steps.calls["training"] == 2
    courses = few_in(tmp_path)
    assert not any((course.workspace / "adapter").exists() for course in courses)
    assert_alike(student.finetune_many([courses[2], courses[0]], progress=steps), undisturbed[0][2::-2])
    assert steps.calls["training"] == 4
