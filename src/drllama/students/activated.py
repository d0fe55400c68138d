"""Activated LoRA on a context's keys and values, which are the bare base's.

Letters: B rows of a batch, T tokens of a row, K gathered positions, V vocabulary.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import peft
import torch
from peft.tuners.lora import LoraLayer
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from drllama.students.frozen import FrozenWork
from drllama.students.rows import Row, asked_logits, right_padded

_SHARE_KEYS = "TRANSFORMERS_SDPA_FORCE_GQA"


class ActivatedReader:
    """Runs what follows the context, with the adapter if there is one, on the context's keys and values, recalled.

    A context is always run by itself and without the adapter. So the cache changes nothing but the time it takes.
    """

    one_by_one = False

    def __init__(self, model: Any, frozen: FrozenWork) -> None:  # noqa: ANN401
        """Read with a model that wears an activated adapter, or none."""
        self.model, self._frozen = model, frozen
        self._inner = model.get_base_model() if isinstance(model, peft.PeftModel) else model
        self._adapted = [module for module in model.modules() if isinstance(module, LoraLayer)]

    def train(self) -> None:
        """See ``passes.Reader``."""
        self.model.train()

    def backward(self, loss: torch.Tensor) -> None:
        """See ``passes.Reader``."""
        loss.backward()  # type: ignore[no-untyped-call]

    def logits(self, rows: Sequence[Row], asked_BK: torch.Tensor) -> torch.Tensor:
        """See ``passes.Reader``."""
        contexts = [self._recalled(row.tokens[: row.context]) for row in rows]
        lengths = [row.context for row in rows]
        longest, lengths_B1 = max(lengths), torch.tensor(lengths)[:, None]
        tokens_BT, offsets_BT = right_padded([row.tokens[row.context :] for row in rows], self.model.device)
        # Contexts are padded on the left: so a key's distance is its place's distance, as sliding windows take it.
        mask_BT = (torch.arange(longest + tokens_BT.shape[1]) >= longest - lengths_B1).to(self.model.device)
        with self._active_everywhere(), _keys_unrepeated(self.model.device):
            return asked_logits(
                self._inner,
                asked_BK - lengths_B1,
                input_ids=tokens_BT,
                position_ids=offsets_BT + lengths_B1.to(self.model.device),
                attention_mask=mask_BT.long(),
                past_key_values=self._past(contexts, longest),
                use_cache=True,
            )

    def _recalled(self, context: tuple[int, ...]) -> list[torch.Tensor]:
        return self._frozen.recall("keys and values", context, partial(self._read, context)) if context else []

    @torch.no_grad()
    def _read(self, context: tuple[int, ...]) -> list[torch.Tensor]:
        """Return keys and values that the base has of a context: of each layer, [heads, tokens, size]."""
        tokens_1T, positions_1T = right_padded([context], self.model.device)
        unasked_11 = torch.zeros(1, 1, dtype=torch.long)
        past, training = DynamicCache(), self.model.training
        self.model.eval()
        with self._without_adapter():
            asked_logits(
                self._inner,
                unasked_11,
                input_ids=tokens_1T,
                position_ids=positions_1T,
                past_key_values=past,
                use_cache=True,
            )
        self.model.train(training)
        return [states[0] for layer in past.layers for states in (layer.keys, layer.values)]

    def _past(self, contexts: Sequence[Sequence[torch.Tensor]], longest: int) -> DynamicCache:
        # Not told of sliding windows, it keeps all keys, and the mask says which of them are seen.
        past = DynamicCache()
        some = next((found for found in contexts if found), [])
        for number in range(0, len(some), 2):
            layer = DynamicLayer()
            layer.keys, layer.values = (
                self._left_padded([found[at] if found else None for found in contexts], some[at], longest)
                for at in (number, number + 1)
            )
            layer.dtype, layer.device, layer.is_initialized = layer.keys.dtype, layer.keys.device, True
            past.layers.append(layer)
        return past

    def _left_padded(self, states: Sequence[torch.Tensor | None], like: torch.Tensor, longest: int) -> torch.Tensor:
        heads, _, size = like.shape
        padded = torch.zeros(len(states), heads, longest, size, dtype=self.model.dtype, device=self.model.device)
        for row, state in zip(padded, states, strict=True):
            if state is not None:
                row[:, longest - state.shape[1] :] = state
        return padded

    @contextmanager
    def _without_adapter(self) -> Iterator[None]:
        # Not PEFT's own way, which leaves a worn adapter's weights marked as trained.
        for module in self._adapted:
            module._disable_adapters = True
        try:
            yield
        finally:
            for module in self._adapted:
                module._disable_adapters = False

    @contextmanager
    def _active_everywhere(self) -> Iterator[None]:
        # PEFT would look for the opening words among the tokens, and pick the tokens behind them in every module.
        variants = [module.lora_variant for module in self._adapted]
        for module in self._adapted:
            module.lora_variant = {}
        try:
            yield
        finally:
            for module, variant in zip(self._adapted, variants, strict=True):
                module.lora_variant = variant


@contextmanager
def _keys_unrepeated(device: torch.device) -> Iterator[None]:
    """Let heads that share keys share them in memory: on a CPU, contexts' copies would take a fifth of a step.

    transformers copies them for each head where there is a mask, since GPUs' fast kernels want it so; its environment
    variable is the one way to say otherwise.
    """
    before = os.environ.get(_SHARE_KEYS)
    if device.type == "cpu":
        os.environ[_SHARE_KEYS] = "1"
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(_SHARE_KEYS, None)
        else:
            os.environ[_SHARE_KEYS] = before


def is_activated(model: Any) -> bool:  # noqa: ANN401
    """Return whether a model wears an activated adapter."""
    return isinstance(model, peft.PeftModel) and bool(
        getattr(model.active_peft_config, "alora_invocation_tokens", None)
    )
