"""What a training will take: a few of its real rows are trained, measured, and thrown away.

Rows are picked by their length, so that a line through them tells of all others. Seconds and bytes are counted by the
tokens of a row, or of a padded batch where several rows go together. Memory comes first, from the shortest rows: what
won't fit isn't tried.
"""

import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import safetensors.torch
import torch

from drllama.files import write_whole
from drllama.recipe import Full, Lora
from drllama.students.checkpoint import CHECKPOINT
from drllama.students.encoding import Encoded
from drllama.students.memory import LiveBytes, room_bytes, used_bytes
from drllama.students.passes import PlainReader, Reader
from drllama.students.scoring import batches, label_scores
from drllama.students.training import CHECKPOINT_EVERY_SECONDS, Lesson, Part, backward, micro_batches, weighted_nats
from drllama.types import Durations, Forecast, Label

Micro = Sequence[Part]
"""What goes through the student at once."""
T = TypeVar("T")
_FEWEST_TOKENS = 64
_LONG_ENOUGH_SECONDS = 0.1
_ENOUGH_TO_WRITE = 1 << 26
_SMALLER = "choose a smaller student.model"
# A first pass that takes so much longer than the next was more than a pass: it filled a cache.
_FILLS_A_CACHE = 1.3
# A backward pass and an allocator with holes take more than what a forward pass keeps alive; measured 1.1 to 1.2.
_PEAK_OVER_FORWARD = 1.15
# Gradients, two moments and the best epoch's weights; a checkpoint has the weights in place of the gradients.
_COPIES = 4
# So often a checkpoint is in memory before it is a file.
_WRITTEN = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pace:
    """How long work on tokens takes: so much for each start, and so much for each token."""

    start_seconds: float
    token_seconds: float
    once_token_seconds: float
    """Beside that, the first time that a token is worked on."""
    probed: int
    """Tokens that were worked on to find this out: their first time is over."""

    def seconds(self, sizes: Sequence[int]) -> float:
        return self.start_seconds * len(sizes) + self.token_seconds * sum(sizes)

    def once_seconds(self, sizes: Sequence[int]) -> float:
        return self.once_token_seconds * max(0, sum(sizes) - self.probed)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Needs:
    """Bytes that a training takes beside the student."""

    trained: int
    """Of gradients, moments and the best epoch's weights."""
    activations: float
    """Of the largest rows that are trained at once."""
    scoring: float
    """Of the longest dev questions that are scored at once."""
    scored_at_once: int
    written: int
    """Of a checkpoint being written; what gradients and activations took is then kept by the allocator."""

    @property
    def peak(self) -> int:
        return self.trained + self.written + int(max(self.activations, self.scoring))


def forecast(reader: Reader, lesson: Lesson, dev: Sequence[Encoded], *, batch_size: int | None) -> Forecast:
    """Return what a training will take; the weights that the reader trains are as they were, and have no gradients.

    ``batch_size`` is that of scoring dev.
    """
    device = reader.model.device
    before, room = used_bytes(device), room_bytes(device)
    micros, asked = _micros_by_size(reader, lesson), sorted(dev, key=lambda one: len(one.tokens))
    needs = _needs(reader, lesson, micros, asked, batch_size, math.inf if room is None else room - before)
    peak = before + needs.peak
    if room is None or peak <= room:
        durations = _durations(reader, lesson, micros, asked)
        return Forecast(durations=durations, peak_bytes=peak, room_bytes=room, way_out="")
    left = room - before - needs.trained - needs.written
    way_out = _way_out(lesson, micros[-1], needs, left=left)
    return Forecast(durations=None, peak_bytes=peak, room_bytes=room, way_out=way_out)


def _needs(
    reader: Reader,
    lesson: Lesson,
    micros: Sequence[Micro],
    asked: Sequence[Encoded],
    batch_size: int | None,
    room: float,
) -> _Needs:
    """Return the memory that a training takes; no row is tried that may be too long for this room."""
    trained = sum(map(_num_bytes, _trained(reader)))
    fixed = _COPIES * trained
    written = 0 if reader.model.device.type == "cuda" else _WRITTEN * fixed
    live = _live_bytes(reader, partial(_scored, reader, asked[0], lesson.label_tokens))
    scored_at_once = max(map(len, batches(reader, asked, batch_size)))
    return _Needs(
        trained=fixed,
        activations=_PEAK_OVER_FORWARD * _kept(reader, lesson, micros, room - fixed - written),
        scoring=live / len(asked[0].tokens) * scored_at_once * len(asked[-1].tokens),
        scored_at_once=scored_at_once,
        written=written,
    )


def _kept(reader: Reader, lesson: Lesson, micros: Sequence[Micro], room: float) -> float:
    """Return what a forward pass of the largest rows keeps for the way back, from what single short rows do."""
    by_length = sorted((part for micro in micros for part in micro), key=_num_tokens)
    short, longer = by_length[0], _two_of(by_length)[0]
    size, more = _num_tokens(short), _num_tokens(longer) - _num_tokens(short)

    def live(part: Part) -> int:
        weighted_nats(reader, [part], lesson.label_tokens)  # What a cache is filled with is kept by no later pass.
        return _live_bytes(reader, partial(weighted_nats, reader, [part], lesson.label_tokens))

    low = live(short)
    start, slope = 0.0, low / size
    if more and slope * _num_tokens(longer) < room:
        slope = (live(longer) - low) / more
        start = low - slope * size
    longest = micros[-1]
    return len(longest) * start + slope * _size(longest)


def _durations(reader: Reader, lesson: Lesson, micros: Sequence[Micro], asked: Sequence[Encoded]) -> Durations:
    device, settings, weights = reader.model.device, lesson.settings, _trained(reader)

    def train(micro: Micro) -> None:
        backward(reader, lesson, [micro], step=0)

    train(micros[0])  # So that there are gradients.
    # Without a learning rate an update changes nothing, and takes as long as any other.
    optimizer = torch.optim.AdamW(weights, lr=0.0, weight_decay=0.0)

    def update() -> None:
        torch.nn.utils.clip_grad_norm_(weights, settings.max_grad_norm)
        optimizer.step()
        # Each update's first pass finds no gradients, and has to ask for their memory.
        optimizer.zero_grad(set_to_none=True)
        for weight in weights:
            weight.grad = torch.zeros_like(weight)

    update_seconds = min(_took(update, device) for _ in range(2))
    training = _pace(reader, [(_size(one), partial(train, one)) for one in _two_of(micros)], device)
    optimizer.zero_grad(set_to_none=True)
    scoring = _scoring_pace(reader, asked, lesson.label_tokens)

    sizes, lengths = list(map(_size, micros)), [len(one.tokens) for one in asked]
    updates = lesson.updates_per_epoch * settings.epochs
    passes = updates / lesson.updates_of_pass
    seconds = passes * training.seconds(sizes) + updates * update_seconds + settings.epochs * scoring.seconds(lengths)
    checkpoints = settings.epochs + seconds / CHECKPOINT_EVERY_SECONDS
    return Durations(
        training=seconds + checkpoints * _checkpoint_seconds(weights, device),
        once=min(1.0, passes) * training.once_seconds(sizes) + scoring.once_seconds(lengths),
        question=scoring.seconds(lengths) / len(lengths),
        question_once=scoring.once_token_seconds * sum(lengths) / len(lengths),
        bare_question=scoring.seconds(lengths) / len(lengths),
    )


def with_bare_question(
    found: Forecast, reader: Reader, dev: Sequence[Encoded], label_tokens: Mapping[Label, tuple[int, ...]]
) -> Forecast:
    """Return the forecast with what a question takes that this reader, of the bare student, reads."""
    if found.durations is None:
        return found
    asked = sorted(dev, key=lambda one: len(one.tokens))
    scoring = _scoring_pace(reader, asked, label_tokens)
    seconds = scoring.seconds([len(one.tokens) for one in asked]) / len(asked)
    return replace(found, durations=replace(found.durations, bare_question=seconds))


def _checkpoint_seconds(weights: Sequence[torch.Tensor], device: torch.device) -> float:
    """Return the time that a checkpoint takes, by that of some weights alone."""
    some: dict[str, torch.Tensor] = {}
    written = 0
    for weight in weights:
        some[str(len(some))] = weight.detach()
        if (written := written + _num_bytes(weight)) > _ENOUGH_TO_WRITE:
            break

    def write() -> None:
        with tempfile.TemporaryDirectory() as folder:
            write_whole(Path(folder) / CHECKPOINT, safetensors.torch.save(some))

    return _took(write, device) * _COPIES * sum(map(_num_bytes, weights)) / written


def _way_out(lesson: Lesson, longest: Micro, needs: _Needs, *, left: int) -> str:
    """Return the settings that would make a training fit that has so many bytes for activations and scoring."""
    method, ways = lesson.settings.method, []
    if left <= 0:
        return "set finetune.method=lora" if isinstance(method, Full) else _SMALLER
    if needs.scoring > left and needs.scored_at_once > 1:
        ways.append(f"student.batch_size={max(1, int(needs.scored_at_once * left / needs.scoring))}")
    share = min(1.0, left / max(needs.activations, needs.scoring / needs.scored_at_once))
    tokens = int(share * max(map(_num_tokens, longest))) // 32 * 32
    if share < 1 and (rows := int(len(longest) * share)):
        ways.append(f"finetune.micro_batch_size={rows}")
    elif share < 1 and tokens >= _FEWEST_TOKENS:
        layers = f" or finetune.method.lora.top_layers to {share:.0%} of the student's layers"
        ways.append(f"student.max_tokens={tokens}{layers if isinstance(method, Lora) else ''}")
    elif share < 1:
        return _SMALLER
    return f"set {' and '.join(ways)}"


def _micros_by_size(reader: Reader, lesson: Lesson) -> list[Micro]:
    """Return what goes through at once in one pass over the examples, the smallest first."""
    parts = lesson.parts()
    micros: list[Micro] = []
    for batch in lesson.batches(1):
        together = [part for index in batch for part in parts[index]]
        micros += micro_batches(reader, lesson, together)
    return sorted(micros, key=_size)


def _size(micro: Micro) -> int:
    """Return the tokens that go through, padding included."""
    return len(micro) * max(map(_num_tokens, micro))


def _num_tokens(part: Part) -> int:
    return len(part.question.tokens)


def _two_of(by_size: Sequence[T]) -> list[T]:
    return [by_size[int((len(by_size) - 1) * share)] for share in (0.3, 0.85)]


def _scoring_pace(reader: Reader, by_length: Sequence[Encoded], label_tokens: Mapping[Label, tuple[int, ...]]) -> _Pace:
    probes = [(len(one.tokens), partial(_scored, reader, one, label_tokens)) for one in _two_of(by_length)]
    return _pace(reader, probes, reader.model.device)


def _pace(reader: Reader, probes: Sequence[tuple[int, Callable[[], None]]], device: torch.device) -> _Pace:
    """Return the line through what probes of these sizes take, the smaller first."""
    recalls, probed = not isinstance(reader, PlainReader), sum(size for size, _ in probes)
    # Memory that is touched for the first time is slow: the largest rows touch what the others need.
    firsts = [_took(work, device) for _, work in (probes if recalls else probes[-1:])]
    again = [_took_again(work, device) for _, work in probes]
    once = 0.0
    if recalls and sum(firsts) > _FILLS_A_CACHE * sum(again):
        once = (sum(firsts) - sum(again)) / probed
    (small, low), (large, high) = ((probes[at][0], again[at]) for at in (0, -1))
    slope = (high - low) / (large - small) if large > small else 0.0
    start = low - slope * small
    if slope <= 0 or start < 0:
        # Two measures so near that chance tells them apart: all is put down to the tokens.
        slope, start = sum(again) / probed, 0.0
    return _Pace(start_seconds=start, token_seconds=slope, once_token_seconds=once, probed=probed)


def _trained(reader: Reader) -> list[torch.Tensor]:
    return [weight for weight in reader.model.parameters() if weight.requires_grad]


def _num_bytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _scored(reader: Reader, question: Encoded, label_tokens: Mapping[Label, tuple[int, ...]]) -> None:
    label_scores(reader, [question], label_tokens)


def _took(work: Callable[[], object], device: torch.device) -> float:
    began = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def _took_again(work: Callable[[], object], device: torch.device) -> float:
    """Return the mean time of work that is done as often as it takes to even out chance."""
    seconds = [_took(work, device)]
    while sum(seconds) < _LONG_ENOUGH_SECONDS:
        seconds.append(_took(work, device))
    return sum(seconds) / len(seconds)


def _live_bytes(reader: Reader, work: Callable[[], object]) -> int:
    """Return the most bytes that are alive while work is done, weights left out."""
    with LiveBytes() as live:
        live.note(reader.model.parameters())
        work()
    return int(live.peak)
