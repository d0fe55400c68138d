import json
import shutil
from dataclasses import replace

import pytest
import transformers
from safetensors.torch import load_file

import tiny_student
from drllama.errors import ModelError, RecipeError
from drllama.students.adapters import FORMAT, read_note
from drllama.students.methods import with_new_adapter
from tiny_student import (
    YES_NO_MAYBE,
    Told,
    files_of,
    finetune_of,
    naive_scores,
    plain_model,
    plain_tokens,
    questions,
    rows_of,
    student_of,
    task_of,
)


def finetune(student, workspace, *, lora=None, **settings):
    student.finetune(
        rows_of(questions(count=4)),
        questions(count=2),
        settings=finetune_of(lora, epochs=1, batch_size=2, **settings),
        seed=5,
        workspace=workspace,
        progress=Told(),
    )
    return workspace / "adapter"


def scores_of(student):
    return {found.example_id: found.scores_nats for found in student.score(questions(count=4))}


@pytest.fixture
def copied(adapter_for, tiny_llama, tmp_path):
    """An adapter of the tiny Llama that a test may spoil."""
    return shutil.copytree(adapter_for(tiny_llama, YES_NO_MAYBE.labels), tmp_path / "adapter")


@pytest.mark.parametrize("lora", [{}, {"targets": "all-linear", "top_layers": 1}], ids=["default", "top layer"])
def test_plain_peft_loads_an_adapter_and_gives_the_same_scores(tiny_llama, tmp_path, lora):
    student = student_of(tiny_llama, frozen_cache={"dtype": "float32"})
    adapter = finetune(student, tmp_path, lora=lora, learning_rate=0.1)
    student.wear(adapter)
    model, tokenizer = plain_model(tiny_llama, adapter), transformers.AutoTokenizer.from_pretrained(tiny_llama)
    for one in questions(count=4):
        (found,) = student.score([one])
        wanted = naive_scores(model, *plain_tokens(tokenizer, one, YES_NO_MAYBE))
        assert found.scores_nats == pytest.approx(wanted, abs=1e-6)


def test_a_worn_adapter_scores_as_the_student_did_when_it_was_trained(tiny_llama, tmp_path):
    trained = student_of(tiny_llama)
    adapter = finetune(trained, tmp_path)
    fresh = student_of(tiny_llama)
    bare = scores_of(fresh)
    fresh.wear(adapter)
    assert scores_of(fresh) == scores_of(trained) != bare


def test_adapters_are_put_on_one_after_another_and_leave_nothing_behind(tiny_llama, tmp_path):
    student = student_of(tiny_llama)
    first = finetune(student, tmp_path / "first", learning_rate=0.1)
    other = finetune(student, tmp_path / "other", lora={"targets": "all-linear", "rank": 3}, learning_rate=0.05)
    wearing = {}
    for adapter in (first, other, first, first):
        student.wear(adapter)
        assert wearing.setdefault(adapter, scores_of(student)) == scores_of(student)
    alone = student_of(tiny_llama)
    alone.wear(other)
    assert scores_of(alone) == wearing[other] != wearing[first]


def test_a_new_adapter_changes_nothing_before_it_is_trained(tiny_llama):
    student, bare = student_of(tiny_llama), scores_of(student_of(tiny_llama))
    student._model = with_new_adapter(student._model, finetune_of({"dropout": 0.5}).method, student._encoder, seed=1)
    assert scores_of(student) == bare


def test_wearing_tells_what_the_adapter_has_seen(adapter_for, tiny_llama):
    seen = student_of(tiny_llama).wear(adapter_for(tiny_llama, YES_NO_MAYBE.labels))
    assert seen == {one.id for one in questions(count=4)}


def test_all_linear_adapts_every_linear_layer_but_the_head(tiny_llama, tmp_path):
    adapter = finetune(student_of(tiny_llama), tmp_path, lora={"targets": "all-linear"})
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert config["target_modules"] == ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]


def test_top_layers_adapts_the_layers_next_to_the_output(tiny_llama, tmp_path):
    adapter = finetune(student_of(tiny_llama), tmp_path, lora={"top_layers": 1})
    assert json.loads((adapter / "adapter_config.json").read_text())["layers_to_transform"] == [1]
    assert {name.split(".")[4] for name in load_file(adapter / "adapter_model.safetensors")} == {"1"}


def test_more_top_layers_than_there_are_are_refused_in_one_line(tiny_llama, tmp_path):
    with pytest.raises(RecipeError) as error:
        finetune(student_of(tiny_llama), tmp_path, lora={"top_layers": 3})
    assert str(error.value) == (
        "finetune.method.lora.top_layers is 3, the student has 2; choose fewer, or null for all"
    )


def test_an_unknown_target_is_refused_with_the_names_there_are(tiny_llama, tiny_gpt2, tmp_path):
    for folder, unknown, there in (
        (tiny_llama, "c_attn", "down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj"),
        (tiny_gpt2, "q_proj", "c_attn, c_fc, c_proj"),
    ):
        with pytest.raises(RecipeError) as error:
            finetune(student_of(folder), tmp_path, lora={"targets": (unknown, "v_proj")})
        assert str(error.value) == (
            f"finetune.method.lora.targets: the student has no module '{unknown}'; choose of {there}"
        )


def test_the_same_training_leaves_the_same_bytes(tiny_llama, tmp_path):
    lora = {"targets": "all-linear", "rank": 3}
    found = [files_of(finetune(student_of(tiny_llama), tmp_path / sitting, lora=lora)) for sitting in ("1", "2")]
    assert found[0] == found[1]
    assert set(found[0]) == {"adapter_config.json", "adapter_model.safetensors", "drllama.json"}


def test_an_adapter_names_its_model_and_no_place_on_this_machine(adapter_for, tiny_llama):
    adapter = adapter_for(tiny_llama, YES_NO_MAYBE.labels)
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == read_note(adapter).model == str(tiny_llama)
    assert (config["peft_type"], config["task_type"], config["inference_mode"]) == ("LORA", "CAUSAL_LM", True)


def test_an_adapter_is_saved_though_its_model_has_been_moved(tiny_llama, tmp_path):
    folder = shutil.copytree(tiny_llama, tmp_path / "model")
    student = student_of(folder)
    folder.rename(tmp_path / "moved")
    adapter = finetune(student, tmp_path)
    assert {name.split(".")[-2] for name in load_file(adapter / "adapter_model.safetensors")} == {
        "lora_A",
        "lora_B",
    }


# Adapters that don't belong here


def test_an_adapter_of_other_base_weights_is_refused_in_one_line(copied, tmp_path):
    other = student_of(tiny_student.save_tiny("llama", tmp_path / "other", seed=2))
    assert_refused(other, copied, f"{copied}: made for other base weights (")


def test_an_adapter_of_another_prompt_is_refused_in_one_line(copied, tiny_llama):
    assert_refused(student_of(tiny_llama, prompt="paper.v1"), copied, f"{copied}: made for other prompt (")


@pytest.mark.parametrize(
    "task",
    [
        task_of("yes", "no"),
        task_of("no", "yes", "maybe"),
        replace(YES_NO_MAYBE, verbalizers={**YES_NO_MAYBE.verbalizers, "no": "not sure"}),
    ],
    ids=["fewer", "other order", "other words"],
)
def test_an_adapter_of_other_labels_is_refused_in_one_line(copied, tiny_llama, task):
    assert_refused(student_of(tiny_llama, task), copied, f"{copied}: made for other labels and verbalizers (")


def test_a_folder_that_is_no_adapter_is_refused_in_one_line(tiny_llama, tmp_path):
    assert_refused(
        student_of(tiny_llama), tmp_path / "nowhere", f"{tmp_path / 'nowhere' / 'drllama.json'}: can't be read"
    )


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json", "drllama.json"])
@pytest.mark.parametrize(
    "spoil", [None, b"", b'{"peft_type": "LORA"', b"\x00" * 64], ids=["gone", "empty", "cut", "zeros"]
)
def test_a_spoilt_adapter_is_refused_in_one_line(copied, tiny_llama, name, spoil):
    if spoil is None:
        (copied / name).unlink()
    else:
        (copied / name).write_bytes(spoil)
    student = student_of(tiny_llama)
    bare = scores_of(student)
    assert_refused(student, copied, f"{copied}")
    assert scores_of(student) == bare, "the student goes on without it"


def test_an_adapter_of_a_later_format_is_refused_in_one_line(copied, tiny_llama):
    note = json.loads((copied / "drllama.json").read_text())
    (copied / "drllama.json").write_text(json.dumps({**note, "format": FORMAT + 1}))
    assert_refused(student_of(tiny_llama), copied, f"{copied / 'drllama.json'}: format {FORMAT + 1}")


def assert_refused(student, adapter, beginning):
    with pytest.raises(ModelError) as error:
        student.wear(adapter)
    assert str(error.value).startswith(beginning)
    assert len(str(error.value).splitlines()) == 1
    assert "recipe" in str(error.value), "the way out"
