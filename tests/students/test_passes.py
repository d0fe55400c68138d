"""Rows run in parts, recalled or shared give what whole rows give, in every family."""

import pytest
import torch
import transformers
from safetensors.torch import load_file

from drllama.recipe import FrozenCache, Lora
from drllama.students.frozen import FrozenWork
from drllama.students.methods import with_new_adapter
from drllama.students.passes import PlainReader, Row, TopReader, make_reader
from tiny_student import Told, finetune_of, questions, rows_of, student_of

_SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "max_position_embeddings": 256,
}
_HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}
CONFIGS = {
    "llama": transformers.LlamaConfig(**_SIZES, **_HEADS),
    "mistral": transformers.MistralConfig(**_SIZES, **_HEADS, sliding_window=6),
    "gemma3": transformers.Gemma3TextConfig(
        **_SIZES, **_HEADS, sliding_window=6, layer_types=["sliding_attention", "full_attention"] * 2
    ),
    "qwen2": transformers.Qwen2Config(**_SIZES, num_attention_heads=4, num_key_value_heads=2),
    "gpt2": transformers.GPT2Config(vocab_size=64, n_embd=32, n_layer=4, n_head=2, n_positions=256),
    "biogpt": transformers.BioGptConfig(**_SIZES, num_attention_heads=4, layerdrop=0.5),
}
ROWS = [Row(tokens=tuple((7 * at + length) % 60 + 3 for at in range(length)), shared=0) for length in (30, 7, 19, 11)]
LAST = torch.tensor([[len(row.tokens) - 1, len(row.tokens) - 3] for row in ROWS])


@pytest.fixture(params=CONFIGS)
def bare(request):
    """A model of random weights, in fp32, frozen."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        config = CONFIGS[request.param]
        config.initializer_range = 0.2
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    return model.eval().requires_grad_(False)


def wearing(model, *, seed=2, **settings):
    """Return the model in a LoRA adapter whose B isn't zero, as if it had been trained."""
    names = ("c_attn", "c_fc") if model.config.model_type == "gpt2" else ("q_proj", "v_proj")
    worn = with_new_adapter(model, Lora(targets=names, **settings), None, seed=1)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for name, weight in worn.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.1)
    return worn


@pytest.fixture
def frozen(tmp_path, monkeypatch):
    monkeypatch.setenv("DRLLAMA_CACHE", str(tmp_path))

    def of(dtype="float32"):
        return FrozenWork({}, FrozenCache(dtype=dtype))

    return of


def gradients(reader, rows=ROWS, asked=LAST):
    """Return the logits of rows and the gradients of a loss on them."""
    reader.model.zero_grad(set_to_none=True)
    logits = reader.logits(rows, asked)
    (logits.log_softmax(dim=-1)[:, :, 5] * torch.arange(1.0, 1 + len(rows))[:, None]).sum().backward()
    return logits.detach(), {
        name: weight.grad.clone() for name, weight in reader.model.named_parameters() if weight.grad is not None
    }


def assert_same(found, wanted, tolerance):
    assert (found[0] - wanted[0]).abs().max() < tolerance
    assert found[1].keys() == wanted[1].keys()
    assert max(gradient.abs().max() for gradient in wanted[1].values()) > 1e-3
    for name, gradient in wanted[1].items():
        assert (found[1][name] - gradient).abs().max() < tolerance * max(1, gradient.abs().max()), name


@pytest.mark.parametrize("top_layers", [1, 3])
def test_top_layers_on_recalled_states_give_what_the_whole_model_gives(bare, frozen, top_layers):
    model = wearing(bare, top_layers=top_layers)
    plain, top = make_reader(model, frozen(None)), make_reader(model, frozen())
    assert (type(plain), type(top)) == (PlainReader, TopReader)
    wanted = gradients(plain)
    for _ in range(2):
        assert_same(gradients(top), wanted, 1e-5)
    assert_same(gradients(plain), wanted, 1e-9)


def test_what_was_recalled_once_is_not_run_again(bare, frozen):
    model, ran = wearing(bare, top_layers=1), []
    lowest = next(stack for stack in model.modules() if isinstance(stack, torch.nn.ModuleList) and len(stack) == 4)[0]
    part = next(
        module for module in lowest.modules() if isinstance(module, torch.nn.Linear | transformers.pytorch_utils.Conv1D)
    )
    part.register_forward_hook(lambda *_: ran.append(1))
    first = make_reader(model, frozen())
    ran.clear()
    gradients(first)
    assert len(ran) == len(ROWS)
    again = make_reader(model, frozen())
    ran.clear()
    gradients(again)
    assert ran == []


def test_only_adapters_that_leave_layers_as_they_are_have_frozen_work(bare, frozen):
    assert isinstance(make_reader(bare, frozen()), PlainReader)
    assert isinstance(make_reader(wearing(bare), frozen()), PlainReader)


def test_frozen_layers_have_no_dropout_while_those_above_them_train(frozen):
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**{**CONFIGS["gpt2"].to_dict(), "resid_pdrop": 0.5}))
    worn = wearing(model.eval().requires_grad_(False), top_layers=1)
    for dtype in (None, "float32"):
        reader = make_reader(worn, frozen(dtype))
        reader.train()
        layers = worn.base_model.model.transformer.h
        assert [layer.training for layer in layers] == [False, False, False, True]
        assert not worn.base_model.model.transformer.drop.training


def test_half_precision_entries_change_logits_in_the_third_digit(bare, frozen):
    model = wearing(bare, top_layers=2)
    exact = gradients(make_reader(model, frozen(None)))
    for _ in range(2):
        logits, _ = gradients(make_reader(model, frozen("float16")))
        difference = (logits - exact[0]).abs().max()
        assert 0 < difference < 2e-2


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_twenty_updates_with_the_cache_are_those_without(family, tiny_llama, tiny_gpt2, tmp_path):
    folder, target = (tiny_llama, "q_proj") if family == "llama" else (tiny_gpt2, "c_attn")
    trained = {}
    for dtype in (None, "float32", "float16"):
        student_of(folder, frozen_cache={"dtype": dtype}).finetune(
            rows_of(questions(count=8)),
            questions(count=2),
            settings=finetune_of({"targets": [target], "top_layers": 1, "dropout": 0.2}, epochs=10, micro_batch_size=1),
            seed=1,
            workspace=tmp_path / str(dtype),
            progress=Told(),
        )
        trained[dtype] = load_file(tmp_path / str(dtype) / "adapter" / "adapter_model.safetensors")
    largest = {
        dtype: max((found[name] - weight).abs().max().item() for name, weight in trained[None].items())
        for dtype, found in trained.items()
    }
    assert largest["float32"] < 1e-5 < largest["float16"] < 0.05
