"""Several LoRA adapters trained in one pass over their frozen base, each as if it were alone.

Letters: N adapters, B rows of an adapter, M their tokens (B x T), T tokens of a row, I and O a module's inputs and
outputs, R rank, K gathered positions, V vocabulary.
The rows of the first adapter come first, then as many of the second. What differs from adapter to adapter is small:
its updates, alpha, learning rate, moments, order of data and checkpoint.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft.tuners.lora import LoraLayer

from drllama.errors import ModelError
from drllama.ids import derive_seed
from drllama.recipe import AnyMethod, Lora
from drllama.students.adapters import take_off
from drllama.students.checkpoint import CHECKPOINT, settle, write_together
from drllama.students.encoding import Encoder
from drllama.students.methods import with_new_adapter
from drllama.students.passes import PlainReader
from drllama.students.rows import Row, right_padded
from drllama.students.training import Learner, Lesson, Part, checkpoint_is_due, weighted_nats
from drllama.types import Epoch

# So many keep a GPU busy with a small student; the memory of a pass grows with them.
_MOST_TOKENS, _MOST_ADAPTERS = 16_384, 32
_BASE = "base_model.model."


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """One training's place in a stack."""

    lesson: Lesson
    adapter_seed: int
    workspace: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """An adapter whose epoch is over."""

    seat: int
    """From 0, in the order in which they were given."""
    number: int
    train_loss_nats: float


def stacks_of(model: Any, methods: Sequence[AnyMethod], *, recalls: bool) -> list[list[int]]:  # noqa: ANN401
    """Return which of these trainings can be made in one pass, by place; those that must be made alone are left out.

    What chance drops in a row depends on the rows beside it, so where adapter or base drop anything, training in a
    stack wouldn't be training alone; nor where a student alone ``recalls`` frozen work, which is rounded. A DoRA of
    several adapters isn't here.
    """
    alike: dict[str, list[int]] = {}
    for at, method in enumerate(methods):
        alone = not isinstance(method, Lora) or method.dora or method.dropout or (recalls and method.leaves_frozen_work)
        if not alone:
            alike.setdefault(method.model_dump_json(exclude={"alpha", "scaling"}), []).append(at)
    if not alike or drops(model):
        return []
    found = [
        same[start : start + _MOST_ADAPTERS] for same in alike.values() for start in range(0, len(same), _MOST_ADAPTERS)
    ]
    return [places for places in found if len(places) > 1]


def train_stacked(
    model: Any,  # noqa: ANN401  the bare base
    encoder: Encoder,
    seats: Sequence[Seat],
    *,
    on_dev: Callable[["StackReader", Sequence[Due]], Sequence[Epoch | ModelError]],
    on_step: Callable[[str, int], None],
    stop_after: int | None = None,
) -> None:
    """Train one adapter for each seat, and leave in each workspace the checkpoint that ``train_adapter`` would leave.

    ``on_dev`` scores dev for several adapters, which the reader then reads for in their order; ``on_step(activity,
    examples)`` hears of each update. An adapter whose scores aren't numbers stays where it is: alone, it will tell.

    Raises:
        StoreError: a checkpoint can't be read, or belongs to another lesson.
    """
    settle([seat.workspace / CHECKPOINT for seat in seats])
    stack = _Stack([_fresh(model, seat, encoder) for seat in seats])
    learners = [Learner(seat.lesson, stack.weights[at], seat.workspace) for at, seat in enumerate(seats)]
    failed: set[int] = set()
    saved_at = time.monotonic()
    with stack.put_on(model) as reader:
        while running := [
            at
            for at, learner in enumerate(learners)
            if at not in failed and learner.epoch <= learner.last_epoch(stop_after)
        ]:
            over = [at for at in running if learners[at].epoch_is_over]
            if over:
                failed |= _judge(reader, learners, over, on_dev)
            else:
                num_examples = _update(reader, learners, running)
                on_step(f"training {len(running)} adapters, epoch {learners[running[0]].epoch}", num_examples)
            if over or checkpoint_is_due(saved_at):
                write_together({learner.checkpoint.path: learner.snapshot() for learner in learners})
                saved_at = time.monotonic()


def _judge(
    reader: "StackReader",
    learners: Sequence[Learner],
    over: Sequence[int],
    on_dev: Callable[["StackReader", Sequence[Due]], Sequence[Epoch | ModelError]],
) -> set[int]:
    """End the epoch of these adapters, and return those of them whose scores aren't numbers."""
    due = [Due(seat=at, number=learners[at].epoch, train_loss_nats=learners[at].mean_loss) for at in over]
    failed = set()
    for at, epoch in zip(over, on_dev(reader, due), strict=True):
        if isinstance(epoch, ModelError):
            failed.add(at)
        else:
            learners[at].judge(epoch)
    return failed


def _update(reader: "StackReader", learners: Sequence[Learner], running: Sequence[int]) -> int:
    """Make one update of each of these adapters, and return how many examples they saw."""
    batches = [learners[at].batch() for at in running]
    parts = [[part for example in batch for part in example] for batch in batches]
    longest = max(len(part.question.tokens) for own in parts for part in own)
    at_once = max(1, _MOST_TOKENS // (longest * len(running)))
    at_once = min([at_once, *filter(None, (learners[at].lesson.settings.micro_batch_size for at in running))])
    shares_N1 = torch.tensor([[1 / len(batch)] for batch in batches])
    losses_N = torch.zeros(len(running))
    reader.read_for(running)
    for start in range(0, max(map(len, parts)), at_once):
        some = [own[start : start + at_once] for own in parts]
        width = max(map(len, some))
        rows = [part for own, all_own in zip(some, parts, strict=True) for part in _filled(own, width, all_own[0])]
        nats_NB = weighted_nats(reader, rows, learners[running[0]].lesson.label_tokens).view(-1, width)
        loss_N = (nats_NB * shares_N1.to(nats_NB.device)).sum(dim=1)
        reader.backward(loss_N.sum())
        losses_N += loss_N.detach().cpu()
    reader.stack.hand_out_gradients()
    for at, loss in zip(running, losses_N.tolist(), strict=True):
        learners[at].update(loss)
    return sum(map(len, batches))


def _filled(parts: Sequence[Part], width: int, any_part: Part) -> list[Part]:
    """Return as many parts as another adapter has: a row that weighs nothing fills each gap."""
    return [*parts, *[replace(any_part, weights=dict.fromkeys(any_part.weights, 0.0))] * (width - len(parts))]


class StackReader:
    """Reads rows, as many for each adapter, in one pass (see ``passes.Reader``)."""

    one_by_one = False

    def __init__(self, model: Any, stack: "_Stack") -> None:  # noqa: ANN401
        """Read with the base, which wears this stack."""
        self.model, self.stack = model, stack
        self._plain = PlainReader(model, [])

    def read_for(self, seats: Sequence[int]) -> None:
        """Divide the rows that come among these adapters, in this order."""
        self.stack.active = list(seats)

    def train(self) -> None:
        """See ``Reader``; nothing drops anything here."""

    def backward(self, loss: torch.Tensor) -> None:
        """See ``Reader``."""
        loss.backward()  # type: ignore[no-untyped-call]

    def logits(self, rows: Sequence[Row], asked_BK: torch.Tensor) -> torch.Tensor:
        """See ``Reader``; rows are [N x B]."""
        assert len(rows) % len(self.stack.active) == 0, f"{len(rows)} rows for {len(self.stack.active)} adapters"
        return self._plain.whole(rows, asked_BK)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fresh:
    """An adapter before its first update."""

    weights: Mapping[str, torch.Tensor]
    """By PEFT's names."""
    strengths: Mapping[str, float]
    """What the updates of each adapted module are multiplied by, by the module's name in the base."""


def _fresh(model: Any, seat: Seat, encoder: Encoder) -> _Fresh:  # noqa: ANN401
    adapted = with_new_adapter(model, seat.lesson.settings.method, encoder, seed=seat.adapter_seed)
    weights = {name: weight.detach() for name, weight in adapted.named_parameters() if weight.requires_grad}
    strengths = {
        name.removeprefix(_BASE): module.scaling["default"]
        for name, module in adapted.named_modules()
        if isinstance(module, LoraLayer)
    }
    take_off(adapted)
    assert len(weights) == 2 * len(strengths), "each adapted module has two trained matrices"
    return _Fresh(weights=weights, strengths=strengths)


class _Stack:
    """The matrices of N adapters, those of one module in one tensor, and each adapter's share of them by name."""

    def __init__(self, fresh: Sequence[_Fresh]) -> None:
        """Stack adapters of one shape."""
        self.active = list(range(len(fresh)))
        self._whole = {
            name: torch.stack([one.weights[name] for one in fresh]).requires_grad_() for name in fresh[0].weights
        }
        # Optimizers change the shares in place, and with them the whole.
        self.weights = [
            {name: whole.detach()[at].requires_grad_() for name, whole in self._whole.items()}
            for at in range(len(fresh))
        ]
        device = next(iter(self._whole.values())).device
        self._strengths = {
            name: torch.tensor([one.strengths[name] for one in fresh], device=device) for name in fresh[0].strengths
        }

    @contextmanager
    def put_on(self, model: Any) -> Iterator[StackReader]:  # noqa: ANN401
        """Let the base's modules add the updates of the active adapters to the rows of each."""
        hooks = [
            model.get_submodule(name).register_forward_hook(partial(self._add_updates, name))
            for name in self._strengths
        ]
        try:
            yield StackReader(model, self)
        finally:
            for hook in hooks:
                hook.remove()

    def hand_out_gradients(self) -> None:
        """Give each adapter its share of the gradients."""
        for name, whole in self._whole.items():
            assert whole.grad is not None, name
            for at in self.active:
                self.weights[at][name].grad = whole.grad[at]
            whole.grad = None

    def _add_updates(
        self, name: str, _: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor
    ) -> torch.Tensor:
        down_NRI = self._of_active(self._whole[f"{_BASE}{name}.lora_A.default.weight"])
        up_NOR = self._of_active(self._whole[f"{_BASE}{name}.lora_B.default.weight"])
        strength_N = self._of_active(self._strengths[name])
        rows_NMI = inputs[0].to(down_NRI.dtype).reshape(len(self.active), -1, inputs[0].shape[-1])
        update_NMO = (rows_NMI @ down_NRI.mT) @ up_NOR.mT * strength_N[:, None, None]
        return (output + update_NMO.view_as(output)).to(output.dtype)

    def _of_active(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor if self.active == list(range(len(tensor))) else tensor[self.active]


@torch.no_grad()
def drops(model: Any) -> bool:  # noqa: ANN401
    """Return whether the model draws lots in training."""
    tokens_BT, positions_BT = right_padded([[0] * 8], model.device)
    found = []
    with torch.random.fork_rng():
        model.train()
        for number in range(2):
            torch.manual_seed(derive_seed(0, "drops", number))
            found.append(model(input_ids=tokens_BT, position_ids=positions_BT, use_cache=False).logits)
        model.eval()
    return not torch.equal(*found)
