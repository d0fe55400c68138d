"""Adapters in PEFT's format, whole models in that of transformers, and beside each a note of its origin."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peft
import torch
from peft.utils import get_peft_model_state_dict
from pydantic import TypeAdapter
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from drllama.errors import ModelError
from drllama.files import folder_whole
from drllama.students.loading import save_model, saved_model
from drllama.students.methods import peft_warnings_off
from drllama.types import Label

NOTE, WEIGHTS, CONFIG = "drllama.json", "adapter_model.safetensors", "adapter_config.json"
FORMAT = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterNote:
    """What an adapter needs to be used rightly."""

    format: int
    method: str
    """Its kind; ``full`` has all weights beside it, the others an adapter."""
    model: str
    weights_sha256: str
    """Of the base that it was trained on."""
    prompt: str
    prompt_sha256: str
    """Of the template, and of the chat that it stands in, if it does."""
    max_tokens: int
    keep_context: str
    verbalizers: Mapping[Label, str]
    """In the order of the task's labels."""
    trained_on: tuple[str, ...]
    """Ids of the training and dev examples: a test set that holds one of them isn't a test."""


def with_saved_adapter(model: Any, folder: Path, note: AdapterNote) -> Any:  # noqa: ANN401
    """Return the model wrapped in what ``save_adapter`` wrote, or in its place the fine-tuned one, in evaluation mode.

    Raises:
        ModelError: a file is missing or can't be read; the model is as it was.
    """
    # All is opened here first: what PEFT doesn't find in the folder it asks the Hub for, and half of an adapter that
    # it has begun to put on would stay on.
    try:
        if note.method == "full":
            return saved_model(folder, torch.float32).to(model.device).eval().requires_grad_(False)
        if missing := [name for name in (WEIGHTS, CONFIG) if not (folder / name).is_file()]:
            raise FileNotFoundError(missing[0])
        with safe_open(folder / WEIGHTS, framework="pt"):
            config = peft.PeftConfig.from_pretrained(folder)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise ModelError(f"{folder}: the adapter can't be read; run the recipe again to make it anew") from error
    with peft_warnings_off():
        return peft.PeftModel.from_pretrained(model, folder, config=config).eval()


def take_off(model: Any) -> None:  # noqa: ANN401
    """Leave the base as it was before this adapter was put on it."""
    # A prefix stands beside the base and a fully trained model is a copy of it: nothing of them is inside.
    if isinstance(model, peft.PeftModel) and not model.active_peft_config.is_prompt_learning:
        model.unload()


def save_adapter(model: Any, folder: Path, note: AdapterNote, tokenizer: Any) -> None:  # noqa: ANN401
    """Write the adapter in PEFT's format, the same bytes for the same weights, and its note.

    A model without an adapter is written whole, with its tokenizer, in the format of transformers.
    """
    with folder_whole(folder) as partial:
        if isinstance(model, peft.PeftModel):
            _write_adapter(model, partial, note.model)
        else:
            save_model(model, tokenizer, partial)
        (partial / NOTE).write_bytes(TypeAdapter(AdapterNote).dump_json(note, indent=1) + b"\n")


def _write_adapter(model: Any, folder: Path, base: str) -> None:  # noqa: ANN401
    weights = {
        name: weight.detach().cpu().contiguous()
        # Left to itself, PEFT looks the base model up on the Hub to find out whether its embeddings were changed.
        for name, weight in sorted(get_peft_model_state_dict(model, save_embedding_layers=False).items())
    }
    config = model.peft_config["default"].to_dict()
    # PEFT keeps sets here, whose order changes from process to process, and a path that is this machine's alone.
    plain = {key: sorted(value) if isinstance(value, set) else value for key, value in config.items()}
    plain |= {"base_model_name_or_path": base, "inference_mode": True}
    # Not save_file: it tells a full disk by an error of its own.
    (folder / WEIGHTS).write_bytes(save(weights, metadata={"format": "pt"}))
    (folder / CONFIG).write_text(json.dumps(plain, indent=2, sort_keys=True, default=str) + "\n")


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
