"""What a training will take: a few of its real rows are trained, measured, and thrown away.

Rows are picked by their length, so that a line through them tells of all others. Seconds and bytes are counted by the
tokens of a row, or of a padded batch where several rows go together.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from drllama.recipe import Lora
from drllama.students.encoding import Encoded
from drllama.students.memory import LiveBytes, free_bytes, used_bytes
from drllama.students.passes import PlainReader, Reader
from drllama.students.scoring import label_scores
from drllama.students.training import Lesson, backward, label_nats, micro_batches
from drllama.types import Forecast, Label

Micro = Sequence[tuple[Encoded, float]]
"""Rows that go through the student at once, and what each weighs."""
_NO_LIMIT = 1 << 62
# A first pass that takes so much longer than the next was more than a pass: it filled a cache.
_FILLS_A_CACHE = 1.3
# A backward pass and an allocator with holes take more than what a forward pass keeps alive; measured 1.1 to 1.2.
_PEAK_OVER_FORWARD = 1.15


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


def forecast(reader: Reader, lesson: Lesson, dev: Sequence[Encoded], *, scored_at_once: int) -> Forecast:
    """Return what a training will take; the weights that the reader trains are as they were, and have no gradients."""
    device = reader.model.device
    weights = [weight for weight in reader.model.parameters() if weight.requires_grad]
    before, free = used_bytes(device), free_bytes(device)
    micros = _micros_by_size(reader, lesson)
    sizes = list(map(_size, micros))

    def train(micro: Micro) -> None:
        backward(reader, lesson, [micro], step=0)

    kept = _live_bytes(reader, lambda: label_nats(reader, [one for one, _ in micros[0]], lesson.label_tokens))
    activations = _PEAK_OVER_FORWARD * kept / sizes[0] * sizes[-1]
    train(micros[0])  # The first of all is slower than any other.
    # Without a learning rate an update changes nothing, and takes as long as any other.
    optimizer = torch.optim.AdamW(weights, lr=0.0, weight_decay=0.0)
    step_seconds = min(_took(optimizer.step, device) for _ in range(2))
    pace = _pace(reader, [(_size(one), partial(train, one)) for one in (_at(micros, 0.3), _at(micros, 0.85))], device)
    optimizer.zero_grad(set_to_none=True)
    scoring, scoring_bytes = _scoring(reader, dev, lesson.label_tokens, scored_at_once)

    trained_bytes = sum(weight.numel() * weight.element_size() for weight in weights)
    # Gradients, two moments and the best epoch's weights; while a checkpoint is written, its bytes, but no activations.
    written = 0 if device.type == "cuda" else 4 * trained_bytes
    peak = before + 4 * trained_bytes + int(max(activations, scoring_bytes, written))
    limit = before + (_NO_LIMIT if free is None else free)
    epochs, asked = lesson.settings.epochs, [len(one.tokens) for one in dev]
    updates = lesson.updates_per_epoch * epochs
    passes = updates / lesson.updates_of_pass
    return Forecast(
        seconds=passes * pace.seconds(sizes) + updates * step_seconds + epochs * scoring.seconds(asked),
        once_seconds=min(1.0, passes) * pace.once_seconds(sizes) + scoring.once_seconds(asked),
        question_seconds=(scoring.seconds(asked) + scoring.once_token_seconds * sum(asked)) / len(asked),
        peak_bytes=peak,
        limit_bytes=limit,
        way_out=_way_out(lesson, micros[-1], activations=activations, over=peak - limit),
    )


def _way_out(lesson: Lesson, longest: Micro, *, activations: float, over: int) -> str:
    """Return the settings that would make a training fit which is over the limit by so many bytes; empty if it fits."""
    if over <= 0:
        return ""
    share = 1 - over / activations
    settings, ways = lesson.settings, []
    if len(longest) > 1 and (rows := int(len(longest) * share)) >= 1:
        return f"set finetune.micro_batch_size={rows}"
    if (tokens := int(share * max(len(one.tokens) for one, _ in longest)) // 32 * 32) >= 64:
        ways.append(f"student.max_tokens={tokens}")
    if isinstance(settings.method, Lora) and share > 0:
        ways.append(f"finetune.method.lora.top_layers to {share:.0%} of the student's layers")
    return f"set {' or '.join(ways)}" if ways else "choose a smaller student, or a method that trains fewer weights"


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
    return len(micro) * max(len(one.tokens) for one, _ in micro)


def _at(micros: Sequence[Micro], share: float) -> Micro:
    return micros[int((len(micros) - 1) * share)]


def _pace(reader: Reader, probes: Sequence[tuple[int, Callable[[], None]]], device: torch.device) -> _Pace:
    """Return the line through what probes of these sizes take."""
    firsts = [_took(work, device) for _, work in probes]
    seconds, once, probed = firsts, 0.0, sum(size for size, _ in probes)
    if not isinstance(reader, PlainReader):
        again = [_took(work, device) for _, work in probes]
        if sum(firsts) > _FILLS_A_CACHE * sum(again):
            once = (sum(firsts) - sum(again)) / probed
        seconds = again
    (small, low), (large, high) = ((probes[at][0], seconds[at]) for at in (0, -1))
    slope = (high - low) / (large - small) if large > small else 0.0
    start = low - slope * small
    if slope <= 0 or start < 0:
        # Two measures so near that chance tells them apart: all is put down to the tokens.
        slope, start = sum(seconds) / probed, 0.0
    return _Pace(start_seconds=start, token_seconds=slope, once_token_seconds=once, probed=probed)


def _scoring(
    reader: Reader, dev: Sequence[Encoded], label_tokens: Mapping[Label, tuple[int, ...]], at_once: int
) -> tuple[_Pace, float]:
    """Return the pace of scoring, and the bytes that the longest batch takes."""
    by_length = sorted(dev, key=lambda one: len(one.tokens))
    probes = [by_length[int((len(by_length) - 1) * share)] for share in (0.3, 0.85)]
    device = reader.model.device
    live = _live_bytes(reader, partial(_scored, reader, by_length[0], label_tokens)) / len(by_length[0].tokens)
    pace = _pace(reader, [(len(one.tokens), partial(_scored, reader, one, label_tokens)) for one in probes], device)
    return pace, live * min(at_once, len(dev)) * len(by_length[-1].tokens)


def _scored(reader: Reader, question: Encoded, label_tokens: Mapping[Label, tuple[int, ...]]) -> None:
    label_scores(reader, [question], label_tokens)


def _took(work: Callable[[], object], device: torch.device) -> float:
    began = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def _live_bytes(reader: Reader, work: Callable[[], object]) -> int:
    """Return the most bytes that are alive while work is done, weights left out."""
    with LiveBytes() as live:
        live.note(reader.model.parameters())
        work()
    return int(live.peak)
