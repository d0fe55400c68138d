"""How rows of tokens are run through a student: whole, with shared beginnings, or with frozen work recalled.

Letters: B rows of a batch, T tokens of a row, K gathered positions, D hidden size, V vocabulary.
Rows are padded on the right and position ids are given: a causal model never sees what stands behind a token, so
results depend neither on the padding nor on the neighbours.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import peft
import torch
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from drllama.students.frozen import FrozenWork
from drllama.students.head import head_only_at


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What a student reads."""

    tokens: tuple[int, ...]
    context: int
    """So many tokens at the beginning are the context's; an activated adapter works on the others alone."""
    shared: int
    """So many tokens at the beginning may be run once for all rows that begin with the same; less than all."""


class Reader(Protocol):
    """Runs rows through a student in the way that suits what it wears."""

    @property
    def model(self) -> Any:  # noqa: ANN401
        """The model with what it wears."""

    @property
    def one_by_one(self) -> bool:
        """Whether a CPU is faster with rows one by one, which need no padding, than with many at once."""

    def train(self) -> None:
        """Turn dropout on where something is trained; what is frozen stays as it is."""

    def logits(self, rows: Sequence[Row], asked_BK: torch.Tensor) -> torch.Tensor:
        """Return, differentiable, the logits at these positions of each row, [B, K, V]."""

    def backward(self, loss: torch.Tensor) -> None:
        """Leave the gradients of a loss of the logits that were returned last."""


def make_reader(model: Any, frozen: FrozenWork) -> Reader:  # noqa: ANN401
    """Return the reader for a model and what it wears."""
    if _is_activated(model):
        return ActivatedReader(model, frozen)
    layers, depth = decoder_layers(model), _frozen_depth(model)
    if depth and frozen.remembers:
        return TopReader(model, layers, depth, frozen)
    return PlainReader(model, layers[depth:] if depth else None)


class PlainReader:
    """Runs every row whole, through all layers."""

    one_by_one = True

    def __init__(self, model: Any, trained: Sequence[torch.nn.Module] | None) -> None:  # noqa: ANN401
        """Read with a model of which only these parts are trained; None: it isn't known which."""
        self.model, self._trained = model, trained

    def train(self) -> None:
        """See ``Reader``."""
        _train_only(self.model, self._trained)

    def backward(self, loss: torch.Tensor) -> None:
        """See ``Reader``."""
        loss.backward()  # type: ignore[no-untyped-call]

    def logits(self, rows: Sequence[Row], asked_BK: torch.Tensor) -> torch.Tensor:
        """See ``Reader``; what rows have in common at their beginning is run once, gradients add up in it."""
        groups: dict[tuple[int, ...], list[int]] = {}
        for at, row in enumerate(rows):
            groups.setdefault(row.tokens[: row.shared], []).append(at)
        alone = [at for found in groups.values() for at in found if len(found) == 1 or not rows[at].shared]
        parts = [(alone, self.whole([rows[at] for at in alone], asked_BK[alone]))] if alone else []
        for found in groups.values():
            if found[0] not in alone:
                parts.append((found, self._from_one_beginning([rows[at] for at in found], asked_BK[found])))
        order = [at for found, _ in parts for at in found]
        logits_BKV = parts[0][1] if len(parts) == 1 else torch.cat([logits for _, logits in parts])
        if order == sorted(order):
            return logits_BKV
        return logits_BKV[sorted(range(len(order)), key=order.__getitem__)]

    def whole(self, rows: Sequence[Row], asked_BK: torch.Tensor) -> torch.Tensor:
        """Return what ``logits`` does, running every row by itself."""
        tokens_BT, positions_BT = right_padded([row.tokens for row in rows], self.model.device)
        return _asked_logits(self.model, asked_BK, input_ids=tokens_BT, position_ids=positions_BT, use_cache=False)

    def _from_one_beginning(self, rows: Sequence[Row], asked_BK: torch.Tensor) -> torch.Tensor:
        """Run the common beginning once, then what follows in each row on its keys and values."""
        shared, device = rows[0].shared, self.model.device
        tokens_1T, positions_1T = right_padded([rows[0].tokens[:shared]], device)
        with head_only_at(self.model, torch.zeros(1, 1, dtype=torch.long, device=device)):
            read = self.model(input_ids=tokens_1T, position_ids=positions_1T, use_cache=True)
        for layer in read.past_key_values.layers:
            layer.keys = layer.keys.expand(len(rows), -1, -1, -1)
            layer.values = layer.values.expand(len(rows), -1, -1, -1)
        tokens_BT, offsets_BT = right_padded([row.tokens[shared:] for row in rows], device)
        model, start = self.model, shared
        if isinstance(model, peft.PeftModel) and model.active_peft_config.is_prompt_learning:
            # PEFT would put its prefix in the place of these keys and values, which begin with it already.
            model, start = model.get_base_model(), shared + model.active_peft_config.num_virtual_tokens
        return _asked_logits(
            model,
            asked_BK - shared,
            input_ids=tokens_BT,
            position_ids=offsets_BT + start,
            past_key_values=read.past_key_values,
            use_cache=True,
        )


class TopReader:
    """Runs the adapted layers alone: what the layers below give them is recalled."""

    one_by_one = True

    def __init__(self, model: Any, layers: Sequence[torch.nn.Module], depth: int, frozen: FrozenWork) -> None:  # noqa: ANN401
        """Read with a model whose lowest ``depth`` layers, and all below them, are frozen."""
        self.model, self._layers, self._depth, self._frozen = model, layers, depth, frozen
        self._passed = _passed_through(model, layers[0])
        self._plain = PlainReader(model, layers[depth:])

    def train(self) -> None:
        """See ``Reader``."""
        self._plain.train()

    def backward(self, loss: torch.Tensor) -> None:
        """See ``Reader``."""
        loss.backward()  # type: ignore[no-untyped-call]

    def logits(self, rows: Sequence[Row], asked_BK: torch.Tensor) -> torch.Tensor:
        """See ``Reader``."""
        kind = f"hidden states below layer {self._depth}"
        states = [self._frozen.recall(kind, row.tokens, partial(self._states, row))[0] for row in rows]
        longest = max(map(len, states))
        fed_BTD = torch.zeros(len(rows), longest, states[0].shape[-1], dtype=self.model.dtype, device=self.model.device)
        for fed_TD, state in zip(fed_BTD, states, strict=True):
            fed_TD[: len(state)] = state
        with self._only_above(fed_BTD):
            return self._plain.whole(rows, asked_BK)

    @torch.no_grad()
    def _states(self, row: Row) -> list[torch.Tensor]:
        tokens_1T, positions_1T = right_padded([row.tokens], self.model.device)
        found: list[torch.Tensor] = []

        def stop(_: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            found.append((args[0] if args else kwargs["hidden_states"])[0])
            raise _Reached

        hook = self._layers[self._depth].register_forward_pre_hook(stop, with_kwargs=True)
        try:
            self.model(input_ids=tokens_1T, position_ids=positions_1T, use_cache=False)
        except _Reached:
            return found
        finally:
            hook.remove()
        raise AssertionError(f"layer {self._depth} of {len(self._layers)} wasn't reached")

    @contextmanager
    def _only_above(self, fed_BTD: torch.Tensor) -> Iterator[None]:
        """Let the frozen layers pass on what they get, and feed these states to the first that is adapted.

        The model's own forward pass runs otherwise unchanged, so masks, positions and scaling are those of its family.
        """

        def feed(
            _: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
        ) -> tuple[tuple[Any, ...], dict[str, Any]]:
            return ((fed_BTD, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": fed_BTD})

        hook = self._layers[self._depth].register_forward_pre_hook(feed, with_kwargs=True)
        below = self._layers[: self._depth]
        for layer in below:
            layer.forward = self._passed
        try:
            yield
        finally:
            hook.remove()
            for layer in below:
                del layer.forward


class _Reached(Exception):
    """The layer was reached whose input is wanted."""


class ActivatedReader:
    """Runs what follows the context, with the adapter, on the context's keys and values, which are recalled.

    A context is always run by itself and without the adapter. So the cache changes nothing but the time it takes.
    """

    one_by_one = False

    def __init__(self, model: Any, frozen: FrozenWork) -> None:  # noqa: ANN401
        """Read with a model that wears an activated adapter."""
        self.model, self._frozen = model, frozen
        self._inner = model.get_base_model()
        self._adapted = [module for module in model.modules() if isinstance(module, LoraLayer)]

    def train(self) -> None:
        """See ``Reader``."""
        self.model.train()

    def backward(self, loss: torch.Tensor) -> None:
        """See ``Reader``."""
        loss.backward()  # type: ignore[no-untyped-call]

    def logits(self, rows: Sequence[Row], asked_BK: torch.Tensor) -> torch.Tensor:
        """See ``Reader``."""
        contexts = [self._recalled(row.tokens[: row.context]) for row in rows]
        lengths = [row.context for row in rows]
        longest, lengths_B1 = max(lengths), torch.tensor(lengths)[:, None]
        tokens_BT, offsets_BT = right_padded([row.tokens[row.context :] for row in rows], self.model.device)
        # Contexts are padded on the left: so a key's distance is its place's distance, as sliding windows take it.
        mask_BT = (torch.arange(longest + tokens_BT.shape[1]) >= longest - lengths_B1).to(self.model.device)
        with self._active_everywhere():
            return _asked_logits(
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
            _asked_logits(
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


def _is_activated(model: Any) -> bool:  # noqa: ANN401
    return isinstance(model, peft.PeftModel) and bool(
        getattr(model.active_peft_config, "alora_invocation_tokens", None)
    )


def _passed_through(model: Any, layer: torch.nn.Module) -> Any:  # noqa: ANN401
    """Return the forward of a layer that does nothing, in the form in which this family's layers return states."""
    outputs: list[object] = []
    hook = layer.register_forward_hook(lambda _, __, output: outputs.append(output))
    try:
        with torch.no_grad():
            tokens_11, positions_11 = right_padded([[0]], model.device)
            model(input_ids=tokens_11, position_ids=positions_11, use_cache=False)
    finally:
        hook.remove()
    if isinstance(outputs[0], tuple):
        return lambda hidden_states, *_, **__: (hidden_states,)
    return lambda hidden_states, *_, **__: hidden_states


def _train_only(model: Any, trained: Sequence[torch.nn.Module] | None) -> None:  # noqa: ANN401
    model.train(trained is None)
    for module in trained or ():
        module.train()


def decoder_layers(model: Any) -> Sequence[torch.nn.Module]:  # noqa: ANN401
    """Return the model's layers from the bottom up, none where it isn't clear which they are."""
    bare = model.get_base_model() if isinstance(model, peft.PeftModel) else model
    wanted = int(bare.config.get_text_config().num_hidden_layers)
    stacks = {
        name: list(module)
        for name, module in bare.named_modules()
        if isinstance(module, torch.nn.ModuleList) and len(module) == wanted
    }
    outermost = [stack for name, stack in stacks.items() if not any(name.startswith(f"{other}.") for other in stacks)]
    return outermost[0] if len(outermost) == 1 else []


def _frozen_depth(model: Any) -> int:  # noqa: ANN401
    """Return how many layers lie below the lowest that an adapter changes, 0 where more than layers is changed."""
    layers = decoder_layers(model)
    inside = [_num_changed(layer) for layer in layers]
    if not sum(inside) or sum(inside) < _num_changed(model):
        return 0
    return next(depth for depth, found in enumerate(inside) if found)


def _num_changed(part: torch.nn.Module) -> int:
    return sum(isinstance(module, BaseTunerLayer | AuxiliaryTrainingWrapper) for module in part.modules())


def _asked_logits(model: Any, asked_BK: torch.Tensor, **inputs: object) -> torch.Tensor:  # noqa: ANN401
    with head_only_at(model, asked_BK.to(model.device)):
        logits_BKV: torch.Tensor = model(**inputs).logits
    assert logits_BKV.shape[:2] == asked_BK.shape, f"{tuple(logits_BKV.shape)} for {tuple(asked_BK.shape)}"
    return logits_BKV


def right_padded(rows: Sequence[Sequence[int]], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return tokens_BT and position ids of the same shape; padding repeats token 0 and is never looked at."""
    longest = max(map(len, rows))
    tokens_BT = torch.zeros(len(rows), longest, dtype=torch.long)
    for row, tokens in enumerate(rows):
        tokens_BT[row, : len(tokens)] = torch.tensor(tokens)
    positions_BT = torch.arange(longest).expand(len(rows), -1)
    return tokens_BT.to(device), positions_BT.to(device)
