"""Rows run in parts, recalled or shared give what whole rows give, in every family."""

import dataclasses
from functools import partial
from types import SimpleNamespace

import pytest
import torch
import transformers
from safetensors.torch import load_file

from drllama.recipe import Alora, Finetune, FrozenCache, Full, Ia3, Lora, Prefix
from drllama.students.frozen import FrozenWork
from drllama.students.methods import with_new_adapter
from drllama.students.passes import ActivatedReader, PlainReader, TopReader, make_reader
from drllama.students.rows import Row
from drllama.students.training import Lesson
from tiny_student import Told, example, files_of, questions, rows_of, student_of

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
OPENING = (61, 62)


def row_of(context, rest, *, shared=0):
    """Return a row with a context of so many tokens, the question's opening words, and so many more."""
    told = tuple((7 * at + context) % 57 + 3 for at in range(context))
    asked = tuple((5 * at + rest + context) % 57 + 3 for at in range(rest))
    return Row(tokens=(*told, *OPENING, *asked), context=context, shared=shared)


ROWS = [row_of(24, 4), row_of(0, 5), row_of(9, 8), row_of(4, 5)]
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
    return trained(model, Lora(targets=targets_of(model), **settings), seed=seed)


def targets_of(model):
    return ("c_attn", "c_fc") if model.config.model_type == "gpt2" else ("q_proj", "v_proj")


def trained(model, method, *, seed=2):
    """Return the model wearing an adapter of this method, each of its weights moved by chance."""
    encoder = SimpleNamespace(opening=OPENING, prompt=None, max_tokens=64)
    worn = with_new_adapter(model, method, encoder, seed=1)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for name, weight in worn.named_parameters():
            if weight.requires_grad and "lora_A" not in name:
                weight.data += torch.randn_like(weight) * 0.1
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


# Activated LoRA on a recalled context


def peft_gradients(model):
    """Return what PEFT's own forward of whole rows, one by one, gives, as ``gradients`` does."""
    model.zero_grad(set_to_none=True)
    found = []
    for at, (row, asked) in enumerate(zip(ROWS, LAST, strict=True)):
        logits = model(input_ids=torch.tensor([row.tokens]), use_cache=False).logits[0, asked]
        (logits.log_softmax(dim=-1)[:, 5] * (at + 1.0)).sum().backward()
        found.append(logits.detach())
    return torch.stack(found), {
        name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None
    }


@pytest.mark.parametrize("dtype", ["float32", None])
def test_alora_on_recalled_contexts_gives_what_peft_gives_for_whole_rows(bare, frozen, dtype):
    model = trained(bare, Alora(targets=targets_of(bare)))
    wanted = peft_gradients(model)
    reader = make_reader(model, frozen(dtype))
    assert isinstance(reader, ActivatedReader)
    for _ in range(2):
        assert_same(gradients(reader), wanted, 1e-5)
    assert_same(peft_gradients(model), wanted, 1e-9)


@torch.no_grad()
def test_a_bare_model_on_recalled_contexts_gives_what_it_gives_for_whole_rows(bare, frozen):
    wanted = make_reader(bare, frozen()).logits(ROWS, LAST)
    for _ in range(2):
        assert (ActivatedReader(bare, frozen()).logits(ROWS, LAST) - wanted).abs().max() < 1e-5


def test_alora_s_logits_do_not_depend_on_neighbours_or_order(bare, frozen):
    reader = make_reader(trained(bare, Alora(targets=targets_of(bare))), frozen("float16"))
    together = gradients(reader)[0]
    for at, row in enumerate(ROWS):
        assert (reader.logits([row], LAST[[at]])[0] - together[at]).abs().max() < 1e-5
    backwards = reader.logits(ROWS[::-1], LAST.flip(0)).flip(0)
    assert (backwards - together).abs().max() < 1e-5


def test_a_context_is_run_once_and_without_dropout(frozen):
    model = transformers.GPT2LMHeadModel(CONFIGS["gpt2"]).eval().requires_grad_(False)
    worn, ran = trained(model, Alora(targets=("c_attn",), dropout=0.5)), []
    model.transformer.wte.register_forward_hook(lambda _, inputs, __: ran.append((*inputs[0].shape, model.training)))
    reader = make_reader(worn, frozen())
    reader.train()
    for _ in range(2):
        reader.logits(ROWS, LAST)
    contexts = [(1, row.context, False) for row in ROWS if row.context]
    assert ran == [*contexts, (4, 10, True), (4, 10, True)]


# Shared contexts

TWO_CONTEXTS = [row_of(9, rest, shared=9) for rest in (3, 7)] + [row_of(14, rest, shared=14) for rest in (2, 9, 4)]
# In another order, and one that shares with nobody.
MIXED = [TWO_CONTEXTS[at] for at in (2, 0, 3, 1, 4)] + [row_of(5, 3, shared=5), row_of(0, 3, shared=0)]


@pytest.mark.parametrize("method", ["lora", "prefix", "ia3", "full"])
def test_rows_that_share_a_context_have_the_gradients_of_rows_by_themselves(bare, frozen, method):
    kinds = {
        "lora": Lora(targets=targets_of(bare)),
        "prefix": Prefix(virtual_tokens=16, start="random"),
        "ia3": Ia3(targets=targets_of(bare), feedforward=()),
        "full": Full(),
    }
    reader = make_reader(trained(bare, kinds[method]).double(), frozen())
    asked = torch.tensor([[len(row.tokens) - 1, len(row.tokens) - 2] for row in MIXED])
    alone = [dataclasses.replace(row, shared=0) for row in MIXED]
    assert_same(gradients(reader, MIXED, asked), gradients(reader, alone, asked), 1e-6)


def test_a_shared_context_is_run_once(frozen):
    model, ran = transformers.LlamaForCausalLM(CONFIGS["llama"]).eval(), []
    model.model.embed_tokens.register_forward_hook(lambda _, inputs, __: ran.append(tuple(inputs[0].shape)))
    asked = torch.tensor([[len(row.tokens) - 1] for row in MIXED])
    make_reader(model, frozen()).logits(MIXED, asked)
    assert sorted(ran) == [(1, 9), (1, 14), (2, 9), (2, 10), (3, 11)]


# Training


def asked_of_three_contexts():
    contexts = [f"Patient {number} had pain. It {'rose' if number else 'fell'}." * (number + 1) for number in range(3)]
    return [
        example(f"Did the pain {word}?", context, label=label)
        for word, label in (("rise", "yes"), ("fall", "no"), ("stay", "maybe"))
        for context in contexts
    ]


def test_sharing_contexts_changes_what_a_training_runs_but_not_what_it_learns(tiny_llama, tmp_path):
    trained, ran = {}, {}
    for micro in (1, None, 3):
        student = student_of(tiny_llama)
        ran[micro] = []
        count = partial(lambda told, _, inputs, __: told.append(inputs[0].numel()), ran[micro])
        student._bare.model.embed_tokens.register_forward_hook(count)
        student.finetune(
            rows_of(asked_of_three_contexts()),
            questions(count=1),
            settings=Finetune(epochs=2, batch_size=5, micro_batch_size=micro, share_contexts=True, learning_rate=1e-2),
            seed=1,
            workspace=tmp_path / str(micro),
            progress=Told(),
        )
        trained[micro] = load_file(tmp_path / str(micro) / "adapter" / "adapter_model.safetensors")
    for micro in (None, 3):
        assert max((trained[1][name] - weight).abs().max() for name, weight in trained[micro].items()) < 1e-5
        assert sum(ran[micro]) < 0.8 * sum(ran[1])


def test_questions_about_one_context_meet_in_a_batch(tiny_llama):
    student = student_of(tiny_llama)
    encoded = [student._encoder.encode(one) for one in asked_of_three_contexts()]
    lesson = Lesson(
        examples=encoded,
        rows=rows_of(asked_of_three_contexts()),
        label_tokens={},
        settings=Finetune(batch_size=3, share_contexts=True),
        seed=1,
        updates_per_epoch=3,
    )
    passes = [lesson.batches(number) for number in (1, 2, 3)]
    for batches in passes:
        assert sorted(index for batch in batches for index in batch) == list(range(9))
        assert all(len({index % 3 for index in batch}) == 1 for batch in batches)
    assert len({str(batches) for batches in passes}) == 3


def test_scores_of_questions_about_one_context_are_those_of_each_by_itself(tiny_llama):
    student, asked = student_of(tiny_llama), asked_of_three_contexts()
    together = {found.example_id: found.scores_nats for found in student.score(asked)}
    for one in asked:
        (alone,) = student.score([one])
        assert together[one.id] == pytest.approx(alone.scores_nats, abs=1e-5)


@pytest.mark.parametrize(("family", "kind"), [("gpt2", "lora"), ("llama", "alora")])
def test_twenty_updates_with_the_cache_are_those_without(family, kind, tiny_llama, tiny_gpt2, tmp_path):
    folder, target = (tiny_llama, "q_proj") if family == "llama" else (tiny_gpt2, "c_attn")
    # The one case is cached for each row, the other for each context; dropout is drawn above what is frozen.
    method, micro = {"targets": [target], "rank": 2, "dropout": 0.2}, None
    if kind == "lora":
        method, micro = {**method, "top_layers": 1}, 1
    trained = {}
    for dtype in (None, "float32", "float16"):
        student_of(folder, frozen_cache={"dtype": dtype}).finetune(
            rows_of(questions(count=8)),
            questions(count=2),
            settings=Finetune(
                method={kind: method}, epochs=1, batch_size=4, micro_batch_size=micro, learning_rate=1e-2
            ),
            seed=1,
            updates_per_epoch=20,
            workspace=tmp_path / str(dtype),
            progress=Told(),
        )
        trained[dtype] = load_file(tmp_path / str(dtype) / "adapter" / "adapter_model.safetensors")
    largest = {
        dtype: max((found[name] - weight).abs().max().item() for name, weight in trained[None].items())
        for dtype, found in trained.items()
    }
    assert largest["float32"] < 1e-5 < largest["float16"] < 0.05


@pytest.mark.parametrize("method", [{"lora": {"top_layers": 1}}, {"alora": {"rank": 2}}], ids=["top layer", "aLoRA"])
def test_what_the_disk_holds_changes_no_byte_of_an_adapter(tiny_llama, tmp_path, monkeypatch, method):
    found = {}
    # A cache that is too small keeps nothing; the others find what the first left.
    for sitting, max_gib in (("empty", 20), ("filled", 20), ("too small", 1e-9)):
        monkeypatch.setenv("DRLLAMA_CACHE", str(tmp_path / f"cache of {max_gib}"))
        student_of(tiny_llama, frozen_cache={"max_gib": max_gib}).finetune(
            rows_of(questions(count=5)),
            questions(count=2),
            settings=Finetune(method=method, epochs=2, batch_size=2, learning_rate=1e-2),
            seed=1,
            workspace=tmp_path / sitting,
            progress=Told(),
        )
        found[sitting] = files_of(tmp_path / sitting / "adapter")
    assert found["empty"] == found["filled"] == found["too small"]
    assert len(list(tmp_path.glob("cache of 20/frozen/*/*"))) >= 3
    assert not list(tmp_path.glob("cache of 1e-09/frozen/*/*"))
