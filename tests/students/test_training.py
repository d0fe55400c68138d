import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import safetensors.torch
import torch
import transformers

import tiny_student
from drllama.errors import DataError, ModelError, StoreError
from drllama.recipe import Finetune, FrozenCache
from drllama.students import training
from drllama.students.encoding import Encoded
from drllama.students.frozen import FrozenWork
from drllama.students.methods import with_new_adapter
from drllama.students.passes import make_reader
from drllama.students.training import Lesson, train_adapter
from drllama.types import Epoch, Finetuned, TrainingRow
from tiny_student import (
    YES_NO_MAYBE,
    Told,
    example,
    files_of,
    finetune_of,
    naive_scores,
    needs_gpu,
    plain_model,
    plain_tokens,
    questions,
    rows_of,
    student_of,
    task_of,
)


def finetuned(
    folder,
    workspace,
    *,
    task=YES_NO_MAYBE,
    train=None,
    progress=None,
    seed=7,
    device="cpu",
    stop_after=None,
    **settings,
):
    """Train a fresh student in a workspace and return what it says of it."""
    train = questions(task.labels) if train is None else train
    return student_of(folder, task, device=device).finetune(
        rows_of(train),
        questions(task.labels, count=3),
        settings=finetune_of(**settings),
        seed=seed,
        stop_after=stop_after,
        workspace=workspace,
        progress=progress or Told(),
    )


def weights_of(workspace):
    return safetensors.torch.load_file(workspace / "adapter" / "adapter_model.safetensors")


def largest_difference(one, other):
    assert one.keys() == other.keys()
    return max((one[name] - other[name]).abs().max().item() for name in one)


def lesson_of(*, examples=None, seed=3, updates=8, **settings):
    """Return a lesson whose questions have no real tokens: for what needs their number and length only."""
    examples = questions(count=29) if examples is None else examples
    encoded = [
        Encoded(example=one, tokens=(1,) * (5 + at * 7 % 11), split=0, truncated_tokens=0)
        for at, one in enumerate(examples)
    ]
    return Lesson(
        examples=encoded,
        rows=rows_of(examples),
        label_tokens={"yes": (2,), "no": (3,), "maybe": (4,)},
        settings=finetune_of(**settings),
        seed=seed,
        updates_per_epoch=updates,
    )


def weights_in(lesson):
    """Return what each example weighs."""
    return [sum(sum(part.weights.values()) for part in parts) for parts in lesson.parts()]


# The loss


@pytest.mark.parametrize(
    ("task", "class_weights"),
    [(YES_NO_MAYBE, "none"), (YES_NO_MAYBE, "balanced"), (task_of("yes", "not sure", "no effect"), "balanced")],
    ids=["one token", "balanced", "several tokens, balanced"],
)
def test_the_loss_is_that_of_a_naive_computation(tiny_llama, tmp_path, task, class_weights):
    train = [*questions(task.labels, count=6), *questions(task.labels[:1], count=8)[6:]]
    told = finetuned(tiny_llama, tmp_path, task=task, train=train, epochs=1, batch_size=99, class_weights=class_weights)
    model, tokenizer = plain_model(tiny_llama), transformers.AutoTokenizer.from_pretrained(tiny_llama)
    losses = [-naive_scores(model, *plain_tokens(tokenizer, one, task))[one.label] for one in train]
    counts = {label: sum(one.label == label for one in train) for label in task.labels}
    assert list(counts.values()) == [4, 2, 2]
    shares = [1 / counts[one.label] if class_weights == "balanced" else 1.0 for one in train]
    wanted = sum(loss * share for loss, share in zip(losses, shares, strict=True)) / sum(shares)
    assert told.epochs[0].train_loss_nats == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize(
    "task", [YES_NO_MAYBE, task_of("yes", "not sure", "no effect")], ids=["one token", "several tokens"]
)
def test_a_row_s_weight_and_target_count_in_the_loss_as_they_are_told(tiny_llama, tmp_path, task):
    labels = task.labels
    asked = questions(labels, count=4)
    targets = [None, dict(zip(labels, (0.5, 0.25, 0.25), strict=True)), {labels[2]: 1.0}, None]
    weights = [1.0, 0.5, 0.5, 1.0]
    rows = [
        TrainingRow(example=one, weight=weight, target=target)
        for one, weight, target in zip(asked, weights, targets, strict=True)
    ]
    told = student_of(tiny_llama, task).finetune(
        rows,
        asked[:1],
        settings=finetune_of(epochs=1, batch_size=9, micro_batch_size=2),
        seed=1,
        workspace=tmp_path,
        progress=Told(),
    )
    model, tokenizer = plain_model(tiny_llama), transformers.AutoTokenizer.from_pretrained(tiny_llama)
    wanted = 0.0
    for row in rows:
        scores = naive_scores(model, *plain_tokens(tokenizer, row.example, task))
        shares = row.target or {row.example.label: 1.0}
        wanted -= row.weight * sum(shares.get(label, 0) * scores[label] for label in labels)
    assert told.epochs[0].train_loss_nats == pytest.approx(wanted / sum(weights), abs=1e-5)


def test_labels_whose_words_differ_in_the_last_token_alone_are_learnt_from_one_row():
    asked = questions(count=2)
    rows = [TrainingRow(example=one, target={"yes": 0.5, "no": 0.25, "maybe": 0.25}) for one in asked]
    short = dataclasses.replace(lesson_of(examples=asked), rows=rows)
    longer = dataclasses.replace(short, label_tokens={"yes": (2,), "no": (5, 3), "maybe": (5, 4)})
    assert [[set(part.weights) for part in parts] for parts in short.parts()] == [[{"yes", "no", "maybe"}]] * 2
    assert [[set(part.weights) for part in parts] for parts in longer.parts()] == [[{"yes"}, {"no", "maybe"}]] * 2


def test_balanced_weights_give_each_label_the_same_share_and_a_mean_of_1():
    train = questions(("yes", "yes", "yes", "no", "maybe"), count=25)
    weights = weights_in(lesson_of(examples=train, class_weights="balanced"))
    assert sum(weights) == pytest.approx(len(weights))
    for label in YES_NO_MAYBE.labels:
        of_label = [weight for weight, one in zip(weights, train, strict=True) if one.label == label]
        assert sum(of_label) == pytest.approx(len(train) / 3)
    assert set(weights_in(lesson_of(examples=train))) == {1.0}


@pytest.mark.parametrize("batch_size", [8, 5], ids=["one step", "steps that leave a rest"])
def test_the_update_is_the_same_whatever_the_micro_batch(tiny_llama, tmp_path, batch_size):
    train = questions(count=8)
    found = []
    for micro in (1, 3, 8):
        finetuned(
            tiny_llama,
            tmp_path / str(micro),
            train=train,
            epochs=1,
            batch_size=batch_size,
            micro_batch_size=micro,
            class_weights="balanced",
        )
        found.append(weights_of(tmp_path / str(micro)))
    assert all("lora_B" not in name or weight.abs().max() > 1e-3 for name, weight in found[0].items()), "it learnt"
    assert largest_difference(found[0], found[1]) < 1e-6
    assert largest_difference(found[0], found[2]) < 1e-6


def test_training_learns_a_rule_that_can_be_learnt(tiny_llama, tmp_path):
    facts = (
        (f"Patient {number}: it {word}.", label)
        for number in range(14)
        for word, label in (("rose", "yes"), ("fell", "no"))
    )
    asked = [example("Did it rise?", context, label=label) for context, label in facts]
    student = student_of(tiny_llama, task_of("yes", "no"))
    told = student.finetune(
        rows_of(asked[:20]),
        asked[20:],
        settings=finetune_of(
            {"rank": 4, "targets": "all-linear"}, epochs=6, choose_epoch_by="accuracy", learning_rate=0.02
        ),
        seed=1,
        workspace=tmp_path,
        progress=Told(),
    )
    assert told.epochs[-1].train_loss_nats < 0.5 < 1 < told.epochs[0].train_loss_nats
    assert told.epochs[told.chosen_epoch - 1].dev_accuracy == 1.0
    student.wear(tmp_path / "adapter")
    assert all(found.choice == found.gold for found in student.score(asked[20:]))


@pytest.mark.parametrize(
    ("method", "rate"),
    [
        ({"lora": {"rank": 4}}, 2e-2),
        ({"alora": {}}, 2e-2),
        ({"prefix": {"virtual_tokens": 16}}, 5e-2),
        ({"ia3": {}}, 5e-2),
        ({"full": {}}, 1e-3),
    ],
    ids=["lora", "alora", "prefix", "ia3", "full"],
)
def test_a_bfloat16_student_learns_in_float32(tiny_llama, tmp_path, method, rate):
    # In bfloat16 an update smaller than a 256th of a weight would be lost.
    train = questions(count=8)
    told = student_of(tiny_llama, dtype="bfloat16").finetune(
        rows_of(train),
        train,
        settings=Finetune(method=method, epochs=4, batch_size=4, learning_rate=rate),
        seed=1,
        workspace=tmp_path,
        progress=Told(),
    )
    assert told.epochs[-1].train_loss_nats < 0.9 * told.epochs[0].train_loss_nats
    (weights,) = (tmp_path / "adapter").glob("*.safetensors")
    assert {weight.dtype for weight in safetensors.torch.load_file(weights).values()} == {torch.float32}
    moments = safetensors.torch.load_file(tmp_path / training.CHECKPOINT)
    assert {moment.dtype for moment in moments.values()} == {torch.float32}


# Order, batches, learning rate


@pytest.mark.parametrize("batch_size", [1, 3, 4, 8, 29, 64])
def test_each_example_stands_in_exactly_one_batch_of_an_epoch(batch_size):
    lesson = lesson_of(batch_size=batch_size)
    for epoch in (1, 2):
        batches = lesson.batches(epoch)
        assert sorted(index for batch in batches for index in batch) == list(range(29))
        assert len(batches) == -(-29 // batch_size)
        assert all(len(batch) <= batch_size for batch in batches)


@pytest.mark.parametrize("updates", [1, 3, 8, 9, 20])
def test_updates_go_through_pass_after_pass_however_long_an_epoch_is(updates):
    lesson = lesson_of(batch_size=4, updates=updates)
    passes = [*lesson.batches(1), *lesson.batches(2), *lesson.batches(3)]
    assert [lesson.batch(update) for update in range(len(passes))] == passes


def test_more_rows_get_as_many_updates_as_are_asked_for(tiny_llama, tmp_path):
    found = student_of(tiny_llama).finetune(
        rows_of(questions(count=12)),
        questions(count=2),
        settings=finetune_of(batch_size=4, epochs=2),
        seed=1,
        updates_per_epoch=2,
        workspace=tmp_path,
        progress=Told(),
    )
    assert (found.num_steps, found.num_examples, len(found.epochs)) == (4, 12, 2)


def test_the_order_depends_on_seed_and_epoch_only():
    lesson = lesson_of()
    torch.manual_seed(1)
    first = [lesson.batches(epoch) for epoch in (1, 2, 3)]
    torch.manual_seed(2)
    assert [lesson_of(learning_rate=0.5, epochs=9).batches(epoch) for epoch in (3, 2, 1)] == first[::-1]
    assert len({str(batches) for batches in (*first, lesson_of(seed=4).batches(1))}) == 4


def test_training_leaves_the_random_state_of_the_process_alone(tiny_llama, tmp_path):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    finetuned(tiny_llama, tmp_path, lora={"dropout": 0.2}, epochs=1)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("warmup_share", "warmup"), [(0.0, 0), (0.21, 2)])
def test_the_learning_rate_rises_in_a_line_and_falls_in_a_line_to_0(
    tiny_llama, tmp_path, monkeypatch, warmup_share, warmup
):
    rates, step = [], torch.optim.AdamW.step

    def note(optimizer):
        rates.append(optimizer.param_groups[0]["lr"])
        step(optimizer)

    monkeypatch.setattr(torch.optim.AdamW, "step", note)
    finetuned(
        tiny_llama,
        tmp_path,
        train=questions(count=3),
        epochs=9,
        batch_size=3,
        warmup_share=warmup_share,
        learning_rate=0.6,
    )
    assert len(rates) == 9
    assert rates[:warmup] == pytest.approx([0.6 * (at + 1) / warmup for at in range(warmup)])
    # The step after the last would have rate 0.
    assert rates[warmup:] == pytest.approx([0.6 * (9 - at) / (9 - warmup) for at in range(warmup, 9)])


# Which epoch

SCORED = (
    {"dev_accuracy": 0.5, "dev_macro_f1": 0.3, "dev_nll_nats": 0.9},
    {"dev_accuracy": 0.6, "dev_macro_f1": 0.4, "dev_nll_nats": 0.8},
    {"dev_accuracy": 0.8, "dev_macro_f1": 0.4, "dev_nll_nats": 1.2},
    {"dev_accuracy": 0.8, "dev_macro_f1": 0.7, "dev_nll_nats": 1.3},
    {"dev_accuracy": 0.7, "dev_macro_f1": 0.7, "dev_nll_nats": 1.4},
    {"dev_accuracy": 0.1, "dev_macro_f1": 0.1, "dev_nll_nats": 1.5},
)


@pytest.mark.parametrize(("rule", "chosen"), [("nll", 2), ("accuracy", 3), ("macro_f1", 4), ("last", 6)])
def test_the_epoch_is_chosen_on_dev_and_its_weights_are_kept(tiny_llama, tmp_path, rule, chosen):
    # Where accuracies or F1s are equal, the lower NLL wins.
    settings = finetune_of(epochs=6, choose_epoch_by=rule)
    student = student_of(tiny_llama)
    model = with_new_adapter(student._bare, settings.method, student._encoder, seed=1)
    after = {}

    def on_dev(number, loss):
        after[number] = {name: weight.clone() for name, weight in model.named_parameters() if weight.requires_grad}
        return Epoch(number=number, train_loss_nats=loss, **SCORED[number - 1])

    lesson = dataclasses.replace(lesson_of(examples=questions(count=5)), settings=settings)
    reader = make_reader(model, FrozenWork({}, FrozenCache()))
    epochs, found = train_adapter(reader, lesson, workspace=tmp_path, on_dev=on_dev, on_step=lambda *_: None)
    assert ([epoch.number for epoch in epochs], found) == ([1, 2, 3, 4, 5, 6], chosen)
    kept = dict(model.named_parameters())
    for number in after:
        same = all(torch.equal(kept[name], weight) for name, weight in after[number].items())
        assert same == (number == chosen)


# Exact resume


class Killed(Exception):
    pass


def kill():
    raise Killed


# 5 questions: 3 steps an epoch, 6 in all, and 6 dev questions scored. What dropout doesn't change, nothing changes.
RESUMED = {"train": questions(count=5), "epochs": 2, "batch_size": 2, "lora": {"dropout": 0.3}}


class Undisturbed(NamedTuple):
    told: Finetuned
    files: dict[str, bytes]
    checkpoint: bytes


@pytest.fixture(scope="module")
def undisturbed(tiny_llama, tmp_path_factory):
    workspace = tmp_path_factory.mktemp("undisturbed")
    told = finetuned(tiny_llama, workspace, **RESUMED)
    checkpoint = (workspace / training.CHECKPOINT).read_bytes()
    return Undisturbed(told=told, files=files_of(workspace / "adapter"), checkpoint=checkpoint)


@pytest.mark.parametrize(
    "moments",
    [
        [("training", 1)],
        [("training", 3)],
        [("training", 5)],
        [("scoring", 2)],
        [("training", 4), ("training", 1), ("training", 3), ("scoring", 1)],
    ],
    ids=lambda moments: ", ".join(f"{of} {at}" for of, at in moments),
)
def test_a_killed_training_ends_with_the_same_bytes(tiny_llama, tmp_path, monkeypatch, undisturbed, moments):
    monkeypatch.setattr(training, "CHECKPOINT_EVERY_SECONDS", -1)
    steps = 0
    for of, at in moments:
        sitting = Told(at=at, of=of, then=kill)
        with pytest.raises(Killed):
            finetuned(tiny_llama, tmp_path, progress=sitting, **RESUMED)
        # What the step of the kill itself did is lost.
        steps += sitting.calls["training"] - (of == "training")
        assert not (tmp_path / "adapter").exists()
    last = Told()
    assert finetuned(tiny_llama, tmp_path, progress=last, **RESUMED) == undisturbed.told
    assert files_of(tmp_path / "adapter") == undisturbed.files
    assert steps + last.calls["training"] == 6, "no step was made twice"


def test_a_training_paused_after_each_epoch_ends_with_the_same_bytes(tiny_llama, tmp_path, undisturbed):
    first = finetuned(tiny_llama, tmp_path, stop_after=1, **RESUMED)
    assert (first.epochs, first.num_steps) == (undisturbed.told.epochs[:1], 3)
    assert not (tmp_path / "adapter").exists()
    rest = Told()
    assert finetuned(tiny_llama, tmp_path, progress=rest, **RESUMED) == undisturbed.told
    assert files_of(tmp_path / "adapter") == undisturbed.files
    assert rest.calls["training"] == 3, "no step was made twice"
    again = Told()
    told = finetuned(tiny_llama, tmp_path, stop_after=1, progress=again, **RESUMED)
    assert (told.epochs, again.calls) == (first.epochs, {}), "what is known already is told"


def test_a_training_killed_before_its_adapter_was_saved_is_not_repeated(tiny_llama, tmp_path, undisturbed):
    (tmp_path / training.CHECKPOINT).write_bytes(undisturbed.checkpoint)
    again = Told()
    assert finetuned(tiny_llama, tmp_path, progress=again, **RESUMED) == undisturbed.told
    assert files_of(tmp_path / "adapter") == undisturbed.files
    assert not again.calls


def test_one_student_trained_twice_gives_the_same_bytes(tiny_llama, tmp_path, undisturbed):
    student = student_of(tiny_llama)
    for sitting in ("first", "second"):
        found = student.finetune(
            rows_of(RESUMED["train"]),
            questions(count=3),
            settings=finetune_of(**{name: value for name, value in RESUMED.items() if name != "train"}),
            seed=7,
            workspace=tmp_path / sitting,
            progress=Told(),
        )
        assert found == undisturbed.told
        assert files_of(tmp_path / sitting / "adapter") == undisturbed.files


def test_without_a_kill_the_checkpoint_interval_changes_nothing(tiny_llama, tmp_path, monkeypatch, undisturbed):
    monkeypatch.setattr(training, "CHECKPOINT_EVERY_SECONDS", -1)
    assert finetuned(tiny_llama, tmp_path, **RESUMED) == undisturbed.told
    assert files_of(tmp_path / "adapter") == undisturbed.files


@pytest.mark.parametrize(
    "content",
    [b"", b"not a checkpoint", safetensors.torch.save({"x": torch.zeros(2)}), None],
    ids=["empty", "text", "other tensors", "cut"],
)
def test_a_checkpoint_that_is_none_is_refused_in_one_line(tiny_llama, tmp_path, undisturbed, content):
    checkpoint = tmp_path / training.CHECKPOINT
    checkpoint.write_bytes(undisturbed.checkpoint[:-100] if content is None else content)
    with pytest.raises(StoreError, match="delete it and run again: training starts anew") as error:
        finetuned(tiny_llama, tmp_path, **RESUMED)
    assert str(error.value).startswith(str(checkpoint))
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    "other",
    [{"seed": 8}, {"learning_rate": 2e-2}, {"lora": {"alpha": 8}}, {"train": questions(count=6)[1:]}],
    ids=["seed", "learning rate", "alpha", "questions"],
)
def test_a_checkpoint_of_another_training_is_refused_in_one_line(tiny_llama, tmp_path, undisturbed, other):
    (tmp_path / training.CHECKPOINT).write_bytes(undisturbed.checkpoint)
    with pytest.raises(StoreError, match=f"{training.CHECKPOINT}: not a checkpoint of this training; delete it"):
        finetuned(tiny_llama, tmp_path, **{**RESUMED, **other})


def test_a_checkpoint_goes_on_with_another_micro_batch(tiny_llama, tmp_path, undisturbed):
    (tmp_path / training.CHECKPOINT).write_bytes(undisturbed.checkpoint)
    assert finetuned(tiny_llama, tmp_path, micro_batch_size=1, **RESUMED) == undisturbed.told


_SITTING = """
import os, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
sys.path.insert(0, sys.argv[1])
from tiny_student import Told, finetune_of, questions, rows_of, student_of
from drllama.students import training
training.CHECKPOINT_EVERY_SECONDS = -1
student_of(sys.argv[2]).finetune(
    rows_of(questions(count=5)),
    questions(count=3),
    settings=finetune_of({"dropout": 0.3, "targets": "all-linear"}, epochs=2, batch_size=2),
    seed=7,
    workspace=Path(sys.argv[3]),
    progress=Told(at=int(sys.argv[4]), then=lambda: os.kill(os.getpid(), signal.SIGKILL)),
)
"""


@pytest.mark.slow
def test_after_kill_9_other_processes_end_with_the_same_bytes(tiny_llama, tmp_path):
    # PEFT keeps the targets as a set, whose order depends on the process: with seven of them it would show.
    finetuned(tiny_llama, tmp_path / "here", **{**RESUMED, "lora": {"dropout": 0.3, "targets": "all-linear"}})
    arguments = [str(Path(tiny_student.__file__).parent), str(tiny_llama), str(tmp_path / "killed")]
    for moment, hash_seed, code in ((4, "1", -signal.SIGKILL), (99, "2", 0)):
        done = subprocess.run(
            [sys.executable, "-c", _SITTING, *arguments, str(moment)],
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == code, done.stderr
    assert files_of(tmp_path / "killed" / "adapter") == files_of(tmp_path / "here" / "adapter")


@needs_gpu
def test_a_killed_training_on_a_gpu_goes_on_where_it_stopped(tiny_llama, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "CHECKPOINT_EVERY_SECONDS", -1)
    told = finetuned(tiny_llama, tmp_path / "undisturbed", device="cuda", **RESUMED)
    with pytest.raises(Killed):
        finetuned(tiny_llama, tmp_path / "killed", device="cuda", progress=Told(at=4, then=kill), **RESUMED)
    last = Told()
    again = finetuned(tiny_llama, tmp_path / "killed", device="cuda", progress=last, **RESUMED)
    assert last.calls["training"] == 3
    # A GPU's sums may be made in another order each time.
    assert [epoch.dev_nll_nats for epoch in again.epochs] == pytest.approx(
        [epoch.dev_nll_nats for epoch in told.epochs], abs=1e-2
    )


# What can go wrong


def test_examples_that_do_not_fit_are_left_out_by_name(tiny_llama, tmp_path):
    train = [*questions(count=4), example("Did it? " * 200), example("Did it rise?", "It rose. " * 200)]
    told = finetuned(tiny_llama, tmp_path, train=train, epochs=1)
    assert told.num_examples == 5
    (left_out,) = told.left_out
    assert left_out.startswith("Did it? ")
    assert left_out.endswith("student.max_tokens is 256")
    assert told.truncated_examples == 1


def test_where_nothing_fits_nothing_is_trained(tiny_llama, tmp_path):
    long = [example("Did it? " * 200)]
    with pytest.raises(DataError, match=r"none of 1 training questions fits student.max_tokens; raise it"):
        finetuned(tiny_llama, tmp_path, train=long)


def test_a_diverging_training_is_told_in_one_line(tiny_llama, tmp_path):
    with pytest.raises(ModelError, match=r"after epoch \d the student's scores aren't numbers: .*learning_rate"):
        finetuned(tiny_llama, tmp_path, learning_rate=1e30, warmup_share=0.0, lora={"targets": "all-linear"})


def test_a_run_says_how_much_was_trained(tiny_llama, tmp_path):
    progress = Told()
    told = finetuned(tiny_llama, tmp_path, progress=progress, epochs=2)
    assert (told.num_steps, told.num_examples, len(told.epochs)) == (6, 11, 2)
    # Rank 2 on q (48 to 48) and v (48 to 24) of two layers.
    assert told.trainable_parameters == 2 * 2 * (48 + 48 + 48 + 24)
    assert progress.units["training"] == pytest.approx(2 * 11 * 2.3)
    assert progress.units["scoring"] == 2 * 3
    assert all(math.isfinite(epoch.train_loss_nats) for epoch in told.epochs)
    assert json.loads((tmp_path / "adapter" / "drllama.json").read_bytes())["trained_on"] == [
        one.id for one in (*questions(), *questions(count=3))
    ]
