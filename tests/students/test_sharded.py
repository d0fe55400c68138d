"""A student whose weights are divided among several processes: two on this machine's processor, as on two GPUs."""

import pytest
import safetensors.torch
import torch

from drllama.errors import ModelError, RecipeError
from drllama.recipe import Alora, Full, Ia3, Lora, Prefix
from drllama.students.sharded import refuse_unshardable
from tiny_student import Told, files_of, finetune_of, questions, rows_of, student_of


class Killed(Exception):
    pass


def kill():
    raise Killed


def lived(student, workspace, *, sittings):
    """Return what a student says before, in and after a training, and what it trained."""
    workspace.mkdir()
    before = [found.scores_nats for found in student.score(questions())]
    for progress in sittings:
        settings = finetune_of({"targets": "all-linear"}, epochs=2, micro_batch_size=3, learning_rate=3e-3)
        finetune = {"settings": settings, "seed": 3, "workspace": workspace, "progress": progress}
        try:
            told = student.finetune(rows_of(questions()), questions(count=3), **finetune)
        except Killed:
            continue
    student.wear(workspace / "adapter")
    after = [found.scores_nats for found in student.score(questions())]
    student.undress()
    assert [found.scores_nats for found in student.score(questions())] == before
    return told, before, after


def same_scores(found, wanted):
    return all(one == pytest.approx(other, abs=1e-4) for one, other in zip(found, wanted, strict=True))


@pytest.mark.slow
def test_two_processes_score_and_train_as_one_does_and_the_first_alone_writes(tiny_llama, tmp_path):
    alone = lived(student_of(tiny_llama), tmp_path / "alone", sittings=[Told()])
    divided = student_of(tiny_llama, processes=2)
    weights = list(divided._bare.parameters())
    here = sum(weight.to_local().numel() for weight in weights)
    assert here < 0.6 * sum(weight.numel() for weight in weights), "each process has its part"
    # Interrupted in the middle of an epoch, the others wait for the next order.
    found = lived(divided, tmp_path / "divided", sittings=[Told(at=2, then=kill), Told()])
    for one, other in zip(found[0].epochs, alone[0].epochs, strict=True):
        assert one.train_loss_nats == pytest.approx(other.train_loss_nats, abs=1e-4)
        assert one.dev_nll_nats == pytest.approx(other.dev_nll_nats, abs=1e-4)
    assert same_scores(found[1], alone[1])
    assert same_scores(found[2], alone[2])
    assert found[1] != found[2]
    files = [files_of(tmp_path / name / "adapter") for name in ("alone", "divided")]
    assert files[0].keys() == files[1].keys()
    one, other = (safetensors.torch.load(each["adapter_model.safetensors"]) for each in files)
    assert one.keys() == other.keys()
    assert all(torch.allclose(one[name], other[name], atol=1e-4) for name in one)
    with pytest.raises(ModelError, match="divided weights don't write; set it to 1"):
        next(divided.write(questions()))


@pytest.mark.parametrize(
    "method", [Alora(), Prefix(), Full(), Lora(dora=True), Lora(dropout=0.1)], ids=lambda method: method.kind
)
def test_what_is_not_trained_on_divided_weights_is_refused(method):
    with pytest.raises(RecipeError, match=rf"finetune.method.{method.kind}: with student.processes above 1, only lora"):
        refuse_unshardable(method)


def test_plain_lora_and_ia3_are_trained_on_divided_weights():
    refuse_unshardable(Lora())
    refuse_unshardable(Ia3())


def test_a_student_that_drops_something_in_training_is_not_divided(tiny_gpt2):
    with pytest.raises(ModelError, match=r"drops by chance in training, which isn't divided; set it to 1"):
        student_of(tiny_gpt2, processes=2)
