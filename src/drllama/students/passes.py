"""How rows of tokens are run through a student: whole, with shared beginnings, or with frozen work recalled.

Letters: B rows of a batch, T tokens of a row, K gathered positions, D hidden size, V vocabulary.
Rows are padded on the right and position ids are given: a causal model never sees what stands behind a token, so
results depend neither on the padding nor on the neighbours.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol

import peft
import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper

from drllama.students.activated import ActivatedReader, is_activated
from drllama.students.frozen import FrozenWork
from drllama.students.head import head_only_at
from drllama.students.rows import Row, asked_logits, right_padded


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
    if is_activated(model):
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
        return asked_logits(self.model, asked_BK, input_ids=tokens_BT, position_ids=positions_BT, use_cache=False)

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
        return asked_logits(
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
