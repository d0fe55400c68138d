"""From a method's section to a model that is ready to be trained by it; what can't be done is refused in one line."""

import copy
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle, islice
from typing import Any, assert_never

import peft
import torch
from transformers import AutoModelForCausalLM, DynamicCache
from transformers.pytorch_utils import Conv1D

from drllama.errors import RecipeError
from drllama.recipe import Alora, AnyMethod, Full, Ia3, Lora, Prefix
from drllama.students.encoding import Encoded, Encoder
from drllama.students.memory import room_bytes

_GIB = 2**30
_COPIES = 5
"""Of all weights, in float32: themselves, gradients, two moments, the best epoch's."""


def with_new_adapter(model: Any, method: AnyMethod, encoder: Encoder, *, seed: int) -> Any:  # noqa: ANN401
    """Return the model wrapped in a fresh adapter whose start depends on the seed alone, in evaluation mode.

    Of full fine-tuning it is a copy in float32: small updates would get lost in bfloat16, and the base is wanted again.

    Raises:
        RecipeError: the student or its prompt can't be trained so; the message says which setting would do.
    """
    # Resumed training may score dev before its first update: with dropout still on, it would choose by chance.
    if isinstance(method, Full):
        _refuse_too_large(model)
        return _in_float32(model).requires_grad_(True).eval()
    config = _config(model, method, encoder)
    with torch.random.fork_rng(), peft_warnings_off():
        torch.manual_seed(seed)
        adapted = peft.get_peft_model(model, config).eval()
    if isinstance(method, Prefix) and method.start == "text":
        start = _keys_and_values(model, _start_tokens(method, encoder))
        adapted.prompt_encoder["default"].load_prompt_embeddings(start.float())
    return adapted


def refuse_unopened(method: AnyMethod, encoder: Encoder, examples: Sequence[Encoded]) -> None:
    """Refuse what plain PEFT would train no part of.

    Raises:
        RecipeError: an input doesn't hold the tokens from which on an activated adapter is active: some tokenizers read
            a text's first word otherwise than the same word behind a context.
    """
    if not isinstance(method, Alora):
        return
    for one in examples:
        if one.tokens[one.split : one.split + len(encoder.opening)] != encoder.opening:
            raise RecipeError(
                f"finetune.method.alora: question {one.example.origin.source_id} has no context, and the student's "
                "tokenizer reads its beginning otherwise than behind one; choose lora, or leave such questions out"
            )


@contextmanager
def peft_warnings_off() -> Iterator[None]:
    """Silence what PEFT says of itself."""
    # PEFT 0.21 asks transformers 5.2x for an attribute under its old name, and tells that it found out by itself which
    # way round GPT-2's weights lie; nothing that a user could mend.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set to", category=UserWarning)
        yield


def _refuse_too_large(model: Any) -> None:  # noqa: ANN401
    """Refuse weights that can't be trained here: tried in spite of it, the system would kill the program."""
    number = sum(weight.numel() for weight in model.parameters())
    there = sum(weight.numel() * weight.element_size() for weight in model.parameters())
    needed, room = there + 4 * _COPIES * number, room_bytes(model.device)
    if room is not None and needed > room:
        raise RecipeError(
            f"finetune.method full: {number / 1e6:,.0f} million parameters take {needed / _GIB:.1f} GiB to be trained, "
            f"there are {room / _GIB:.1f}; set finetune.method=lora"
        )


def _in_float32(model: Any) -> Any:  # noqa: ANN401
    if model.dtype == torch.float32:
        return copy.deepcopy(model)
    # Not by .float(): what the model works out for itself when it is made, such as Gemma's scale of embeddings, would
    # stay as rounded as it was, and be another as soon as the saved model is loaded.
    with torch.random.fork_rng():
        fresh = AutoModelForCausalLM.from_config(copy.deepcopy(model.config), dtype=torch.float32)
    fresh.load_state_dict(model.state_dict())
    return fresh.to(model.device)


def _config(model: Any, method: Lora | Alora | Prefix | Ia3, encoder: Encoder) -> peft.PeftConfig:  # noqa: ANN401
    match method:
        case Lora():
            return peft.LoraConfig(
                task_type="CAUSAL_LM",
                r=method.rank,
                lora_alpha=method.alpha,
                lora_dropout=method.dropout,
                target_modules=_targets(model, method),
                layers_to_transform=_top_layers(model, method.top_layers),
                use_rslora=method.scaling == "rank-stabilized",
                use_dora=method.dora,
            )
        case Alora():
            return peft.LoraConfig(
                task_type="CAUSAL_LM",
                r=method.rank,
                lora_alpha=method.alpha,
                lora_dropout=method.dropout,
                target_modules=_targets(model, method),
                alora_invocation_tokens=_opening(encoder),
            )
        case Ia3():
            return peft.IA3Config(
                task_type="CAUSAL_LM",
                target_modules=_targets(model, method),
                feedforward_modules=list(method.feedforward),
            )
        case Prefix():
            _refuse_too_long_prefix(model, method, encoder)
            return peft.PrefixTuningConfig(
                task_type="CAUSAL_LM",
                num_virtual_tokens=method.virtual_tokens,
                init_weights="zero" if method.start == "zeros" else None,
            )
        case _:
            assert_never(method)


def _targets(model: Any, method: Lora | Alora | Ia3) -> list[str]:  # noqa: ANN401
    head = model.get_output_embeddings()
    linear = [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear | Conv1D) and module is not head
    ]
    names = sorted({name.rpartition(".")[2] for name in linear})
    if method.targets == "all-linear":
        return names
    if unknown := [one for one in method.targets if not any(f".{name}".endswith(f".{one}") for name in linear)]:
        raise RecipeError(
            f"finetune.method.{method.kind}.targets: the student has no module '{unknown[0]}'; "
            f"choose of {', '.join(names)}"
        )
    return list(method.targets)


def _top_layers(model: Any, wanted: int | None) -> list[int] | None:  # noqa: ANN401
    if wanted is None:
        return None
    there = int(model.config.get_text_config().num_hidden_layers)
    if wanted > there:
        raise RecipeError(
            f"finetune.method.lora.top_layers is {wanted}, the student has {there}; choose fewer, or null for all"
        )
    return list(range(there - wanted, there))


def _opening(encoder: Encoder) -> list[int]:
    if not encoder.opening:
        raise RecipeError(
            f"finetune.method.alora: {encoder.phrasing.prompt.version} doesn't put the context before the question; "
            "choose student.prompt context-first.v1"
        )
    return list(encoder.opening)


def _refuse_too_long_prefix(model: Any, method: Prefix, encoder: Encoder) -> None:  # noqa: ANN401
    longest = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if longest is not None and method.virtual_tokens + encoder.max_tokens > longest:
        raise RecipeError(
            f"finetune.method.prefix.virtual_tokens is {method.virtual_tokens}, with student.max_tokens "
            f"{encoder.max_tokens} that is more than the {longest} tokens that the student reads; lower one of them"
        )


def _start_tokens(method: Prefix, encoder: Encoder) -> list[int]:
    words = ", ".join(encoder.task.verbalizers[label] for label in encoder.task.labels)
    text = method.text or f"{encoder.task.instruction} {words}"
    first = encoder.token_ids(text)
    # Repeated without what the tokenizer puts before every text: a second beginning would say that the text ended.
    again = encoder.token_ids(f"{text} {text}")[len(first) :] or first
    return [*first, *islice(cycle(again), method.virtual_tokens)][: method.virtual_tokens]


@torch.no_grad()
def _keys_and_values(model: Any, tokens: Sequence[int]) -> torch.Tensor:  # noqa: ANN401
    """Return the base's keys and values of a text as PEFT keeps a prefix, [tokens, layers x 2 x heads x size]."""
    # A cache that knows nothing of sliding windows, which would drop the first of many tokens.
    read = model(input_ids=torch.tensor([tokens], device=model.device), past_key_values=DynamicCache(), use_cache=True)
    # One after another by layer, keys before values: [2 x layers, heads, tokens, size].
    each = torch.cat([torch.cat([layer.keys, layer.values]) for layer in read.past_key_values.layers])
    return each.permute(2, 0, 1, 3).reshape(len(tokens), -1)
