"""Adapters in PEFT's format, and beside each the note of what it was made for and from."""

import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peft
import torch
from peft.utils import get_peft_model_state_dict
from pydantic import TypeAdapter
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from transformers.pytorch_utils import Conv1D

from drllama.errors import ModelError, RecipeError
from drllama.files import folder_whole
from drllama.recipe import AnyMethod, Lora
from drllama.types import Label

NOTE, WEIGHTS, CONFIG = "drllama.json", "adapter_model.safetensors", "adapter_config.json"
FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterNote:
    """What an adapter needs to be used rightly."""

    format: int
    model: str
    weights_sha256: str
    """Of the base that it was trained on."""
    prompt: str
    prompt_sha256: str
    max_tokens: int
    keep_context: str
    verbalizers: Mapping[Label, str]
    """In the order of the task's labels."""
    trained_on: tuple[str, ...]
    """Ids of the training and dev examples: a test set that holds one of them isn't a test."""


def with_new_adapter(model: Any, method: AnyMethod, *, seed: int) -> Any:  # noqa: ANN401
    """Return the model wrapped in a fresh adapter whose start depends on the seed alone, in evaluation mode.

    Raises:
        RecipeError: the model has no module of a target's name; the message lists those it has.
    """
    if not isinstance(method, Lora):
        raise RecipeError(f"finetune.method.{method.kind}: can't be trained yet; choose lora")
    config = peft.LoraConfig(
        task_type="CAUSAL_LM",
        r=method.rank,
        lora_alpha=method.alpha,
        lora_dropout=method.dropout,
        target_modules=_targets(model, method),
        layers_to_transform=_top_layers(model, method.top_layers),
        use_rslora=method.scaling == "rank-stabilized",
        use_dora=method.dora,
    )
    with torch.random.fork_rng(), _peft_warnings_off():
        torch.manual_seed(seed)
        # A resumed training may score dev before its first update: with dropout still on, it would choose by chance.
        return peft.get_peft_model(model, config).eval()


def with_saved_adapter(model: Any, folder: Path) -> Any:  # noqa: ANN401
    """Return the model wrapped in an adapter that ``save_adapter`` wrote, in evaluation mode.

    Raises:
        ModelError: a file of the adapter is missing or can't be read; the model is as it was.
    """
    # All is opened here first: what PEFT doesn't find in the folder it asks the Hub for, and half of an adapter that
    # it has begun to put on would stay on.
    try:
        if missing := [name for name in (WEIGHTS, CONFIG) if not (folder / name).is_file()]:
            raise FileNotFoundError(missing[0])
        with safe_open(folder / WEIGHTS, framework="pt"):
            config = peft.PeftConfig.from_pretrained(folder)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise ModelError(f"{folder}: the adapter can't be read; run the recipe again to make it anew") from error
    with _peft_warnings_off():
        return peft.PeftModel.from_pretrained(model, folder, config=config).eval()


@contextmanager
def _peft_warnings_off() -> Iterator[None]:
    # PEFT 0.21 asks transformers 5.2x for an attribute under its old name, and tells that it found out by itself which
    # way round GPT-2's weights lie; nothing that a user could mend.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set to", category=UserWarning)
        yield


def _top_layers(model: Any, wanted: int | None) -> list[int] | None:  # noqa: ANN401
    if wanted is None:
        return None
    there = int(model.config.get_text_config().num_hidden_layers)
    if wanted > there:
        raise RecipeError(
            f"finetune.method.lora.top_layers is {wanted}, the student has {there}; choose fewer, or null for all"
        )
    return list(range(there - wanted, there))


def _targets(model: Any, method: Lora) -> list[str]:  # noqa: ANN401
    head = model.get_output_embeddings()
    linear = sorted(
        {
            name.rpartition(".")[2]
            for name, module in model.named_modules()
            if isinstance(module, torch.nn.Linear | Conv1D) and module is not head
        }
    )
    if method.targets == "all-linear":
        return linear
    if unknown := [target for target in method.targets if target not in linear]:
        raise RecipeError(
            f"finetune.method.lora.targets: the student has no module '{unknown[0]}'; choose of {', '.join(linear)}"
        )
    return list(method.targets)


def save_adapter(model: Any, folder: Path, note: AdapterNote) -> None:  # noqa: ANN401
    """Write the adapter in PEFT's format, the same bytes for the same weights, and its note."""
    weights = {
        name: weight.detach().cpu().contiguous()
        # Left to itself, PEFT looks the base model up on the Hub to find out whether its embeddings were changed.
        for name, weight in sorted(get_peft_model_state_dict(model, save_embedding_layers=False).items())
    }
    config = model.peft_config["default"].to_dict()
    # PEFT keeps sets here, whose order changes from process to process, and a path that is this machine's alone.
    plain = {key: sorted(value) if isinstance(value, set) else value for key, value in config.items()}
    plain |= {"base_model_name_or_path": note.model, "inference_mode": True}
    with folder_whole(folder) as partial:
        # Not save_file: it tells a full disk by an error of its own.
        (partial / WEIGHTS).write_bytes(save(weights, metadata={"format": "pt"}))
        (partial / CONFIG).write_text(json.dumps(plain, indent=2, sort_keys=True, default=str) + "\n")
        (partial / NOTE).write_bytes(TypeAdapter(AdapterNote).dump_json(note, indent=1) + b"\n")


def read_note(folder: Path) -> AdapterNote:
    """Return the note beside an adapter.

    Raises:
        ModelError: there is none, or it can't be read.
    """
    try:
        note = TypeAdapter(AdapterNote).validate_json((folder / NOTE).read_bytes())
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder / NOTE}: can't be read; run the recipe again to make the adapter anew") from error
    if note.format != FORMAT:
        raise ModelError(
            f"{folder / NOTE}: format {note.format}, this version reads format {FORMAT}; "
            "use the version that made it, or run the recipe again"
        )
    return note
