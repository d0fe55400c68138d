"""The training loop: loss on the label's words only, exact resume, the epoch chosen on dev.

Letters: B rows of a batch, T tokens of a row, G labels that are learnt from them, K positions of label words, V
vocabulary.
Nothing here depends on how often the loop was killed: the order of data, dropout and the learning rate are functions
of (seed, epoch, step), and a checkpoint holds weights, moments and the story so far.
"""

import hashlib
import math
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from drllama.files import write_whole
from drllama.ids import canonical_json, derive_seed
from drllama.recipe import Finetune
from drllama.stats.epochs import chosen_epoch
from drllama.students.checkpoint import CHECKPOINT, Checkpoint, Story
from drllama.students.encoding import Encoded, by_context
from drllama.students.passes import Reader
from drllama.students.rows import Row
from drllama.types import Epoch, Label, TrainingRow

CHECKPOINT_EVERY_SECONDS = 60.0
"""And after each epoch."""
# Examples of like length are batched together within pools of this many batches: little padding, little less chance.
_POOL_BATCHES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What goes through the student as one row."""

    question: Encoded
    weights: Mapping[Label, float]
    """What each label that is learnt from it weighs; their words differ in the last token alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """What is trained on, and how."""

    examples: Sequence[Encoded]
    rows: Sequence[TrainingRow]
    """Of the examples, in their order: what each weighs, and what is to be learnt of it."""
    label_tokens: Mapping[Label, tuple[int, ...]]
    settings: Finetune
    seed: int

    updates_per_epoch: int
    """Dev is asked after so many; examples pass by in an endless row of passes, whatever their number."""

    @property
    def updates_of_pass(self) -> int:
        """Return the updates in which each example is seen once."""
        return math.ceil(len(self.examples) / self.settings.batch_size)

    def batch(self, update: int) -> list[int]:
        """Return the examples of one update (from 0) as indices; in each pass each example is seen once."""
        passes, at = divmod(update, self.updates_of_pass)
        return self.batches(passes + 1)[at]

    def batches(self, number: int) -> list[list[int]]:
        """Return the batches of one pass (from 1) as indices into the examples; each example stands in one."""
        groups = self._groups()
        shuffler = random.Random(derive_seed(self.seed, "order", number))
        shuffler.shuffle(groups)
        for group in groups:
            shuffler.shuffle(group)
        order = [index for group in groups for index in group]
        lengths = {index: max(len(self.examples[one].tokens) for one in group) for group in groups for index in group}
        size, pool = self.settings.batch_size, self.settings.batch_size * _POOL_BATCHES
        batches = []
        for start in range(0, len(order), pool):
            # Groups stay together: those as long as one another stay in their order.
            alike = sorted(order[start : start + pool], key=lengths.__getitem__)
            batches += [alike[at : at + size] for at in range(0, len(alike), size)]
        shuffler.shuffle(batches)
        return batches

    def _groups(self) -> list[list[int]]:
        """Return the examples that are to meet, as indices: each alone, or those about one context."""
        if self.settings.share_contexts:
            return by_context(self.examples)
        return [[index] for index in range(len(self.examples))]

    def fingerprint(self) -> str:
        """Return the hash of all that the lesson's updates depend on; the micro batch changes them by rounding only."""
        settings = self.settings.model_dump(mode="json", exclude={"micro_batch_size"})
        told = [settings, self.seed, self.updates_per_epoch, dict(self.label_tokens)]
        digest = hashlib.sha256(canonical_json(told).encode())
        for question, row in zip(self.examples, self.rows, strict=True):
            digest.update(repr((sorted(row.shares.items()), row.weight, question.tokens)).encode())
        return digest.hexdigest()

    def parts(self) -> list[list[Part]]:
        """Return what each example adds to the loss, the labels of its target with what they weigh.

        The examples' weights have the mean 1.
        """
        masses: Counter[Label] = Counter()
        for row in self.rows:
            masses.update({label: row.weight * share for label, share in row.shares.items() if share})
        factors = dict.fromkeys(masses, len(self.rows) / masses.total())
        if self.settings.class_weights == "balanced":
            factors = {label: len(self.rows) / (len(masses) * mass) for label, mass in masses.items()}
        found = []
        for question, row in zip(self.examples, self.rows, strict=True):
            weights = {label: row.weight * share * factors[label] for label, share in row.shares.items() if share}
            found.append([Part(question=question, weights=some) for some in self._read_at_once(weights)])
        return found

    def _read_at_once(self, weights: Mapping[Label, float]) -> list[dict[Label, float]]:
        """Return the labels in groups whose words differ in the last token alone."""
        groups: dict[tuple[int, ...], dict[Label, float]] = {}
        for label, weight in weights.items():
            groups.setdefault(self.label_tokens[label][:-1], {})[label] = weight
        return list(groups.values())


def train_adapter(
    reader: Reader,
    lesson: Lesson,
    *,
    workspace: Path,
    on_dev: Callable[[int, float], Epoch],
    on_step: Callable[[str, int], None],
    stop_after: int | None = None,
) -> tuple[tuple[Epoch, ...], int]:
    """Train what the model wears, leave the chosen epoch's weights in it, and return all epochs and the chosen one.

    ``on_dev(number, train_loss)`` scores dev; ``on_step(activity, examples)`` hears of each update. The checkpoint in
    ``workspace`` is used if there is one. ``stop_after`` ends the sitting after so many epochs; the learning rate stays
    that of the whole training, so the next sitting goes on as if this one hadn't ended.

    Raises:
        StoreError: the checkpoint can't be read, or belongs to another lesson.
    """
    weights = {name: weight for name, weight in reader.model.named_parameters() if weight.requires_grad}
    learner = Learner(lesson, weights, workspace)
    until = learner.last_epoch(stop_after)
    saved_at = time.monotonic()
    while (number := learner.epoch) <= until:
        asks_dev = learner.epoch_is_over
        if asks_dev:
            learner.judge(on_dev(number, learner.mean_loss))
        else:
            batch = learner.batch()
            learner.update(backward(reader, lesson, batch, step=learner.story.step))
            on_step(f"training, epoch {number} of {lesson.settings.epochs}", len(batch))
        if asks_dev or checkpoint_is_due(saved_at):
            learner.save()
            saved_at = time.monotonic()
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(learner.best[name])
    # A sitting that was to go further may have left more epochs than this one asks for.
    epochs = tuple(learner.story.epochs[:until])
    return epochs, chosen_epoch(epochs, lesson.settings.choose_epoch_by)


def checkpoint_is_due(saved_at: float) -> bool:
    """Return whether enough was done since then, by the monotonic clock, to be written down."""
    return time.monotonic() - saved_at > CHECKPOINT_EVERY_SECONDS


class Learner:
    """A training under way, with its own optimizer: it goes on where its checkpoint ends."""

    def __init__(self, lesson: Lesson, weights: Mapping[str, torch.Tensor], workspace: Path) -> None:
        """Train these weights, which the checkpoint in ``workspace`` changes if there is one.

        Raises:
            StoreError: the checkpoint can't be read, or belongs to another lesson.
        """
        self.lesson, self.weights = lesson, weights
        self.checkpoint = Checkpoint(path=workspace / CHECKPOINT, lesson=lesson.fingerprint())
        self.best: dict[str, torch.Tensor] = {}
        self._optimizer = torch.optim.AdamW(weights.values(), weight_decay=lesson.settings.weight_decay)
        self._parts = lesson.parts()
        begun = self.checkpoint.load(weights, self._optimizer, self.best)
        self.story = begun or Story(step=0, loss_sum=0.0, epochs=[])

    @property
    def epoch(self) -> int:
        """Return the number of the running epoch, from 1."""
        return len(self.story.epochs) + 1

    @property
    def epoch_is_over(self) -> bool:
        """Return whether dev is to be asked before the next update."""
        return self.story.step == self.epoch * self.lesson.updates_per_epoch

    @property
    def mean_loss(self) -> float:
        """Return the mean loss of the running epoch's updates, once it is over."""
        return self.story.loss_sum / self.lesson.updates_per_epoch

    def last_epoch(self, stop_after: int | None) -> int:
        """Return the epoch after which a sitting ends."""
        epochs = self.lesson.settings.epochs
        return epochs if stop_after is None else min(stop_after, epochs)

    def batch(self) -> list[list[Part]]:
        """Return the parts of each example of the next update (see ``Lesson.parts``)."""
        return [self._parts[index] for index in self.lesson.batch(self.story.step)]

    def update(self, loss: float) -> None:
        """Change the weights by their gradients, and drop these."""
        settings, story = self.lesson.settings, self.story
        total = self.lesson.updates_per_epoch * settings.epochs
        share = _rate_share(story.step, total, settings.warmup_share)
        self._optimizer.param_groups[0]["lr"] = settings.learning_rate * share
        torch.nn.utils.clip_grad_norm_(self.weights.values(), settings.max_grad_norm)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        story.step += 1
        story.loss_sum += loss

    def judge(self, epoch: Epoch) -> None:
        """End the running epoch with what dev came to; if it is the best, its weights are remembered."""
        self.story.epochs.append(epoch)
        self.story.loss_sum = 0.0
        if chosen_epoch(self.story.epochs, self.lesson.settings.choose_epoch_by) == epoch.number:
            self.best = {name: weight.detach().clone() for name, weight in self.weights.items()}

    def save(self) -> None:
        """Write down all that the training needs to go on."""
        write_whole(self.checkpoint.path, self.snapshot())

    def snapshot(self) -> bytes:
        """Return what ``save`` writes."""
        return self.checkpoint.content(self.weights, self._optimizer, self.best, self.story)


def backward(reader: Reader, lesson: Lesson, batch: Sequence[Sequence[Part]], *, step: int) -> float:
    """Leave the gradients of one update, and return the batch's mean loss in nats.

    An example weighs 1 in the mean of all batches.
    """
    loss_sum = 0.0
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(lesson.seed, "dropout", step))
        reader.train()
        for some in micro_batches(reader, lesson, [part for example in batch for part in example]):
            loss = weighted_nats(reader, some, lesson.label_tokens, share=1 / len(batch)).sum()
            reader.backward(loss)
            loss_sum += loss.item()
        reader.model.eval()
    return loss_sum


def micro_batches(reader: Reader, lesson: Lesson, parts: Sequence[Part]) -> list[list[Part]]:
    """Return what is in memory at once; on a CPU as little as is run together."""
    groups = [[part] for part in parts]
    if lesson.settings.share_contexts:
        groups = [[parts[at] for at in group] for group in by_context([part.question for part in parts])]
    if lesson.settings.micro_batch_size is None and reader.one_by_one and reader.model.device.type == "cpu":
        return groups
    ordered = [part for group in groups for part in group]
    size = lesson.settings.micro_batch_size or len(ordered)
    return [ordered[start : start + size] for start in range(0, len(ordered), size)]


def weighted_nats(
    reader: Reader, parts: Sequence[Part], label_tokens: Mapping[Label, tuple[int, ...]], *, share: float = 1.0
) -> torch.Tensor:
    """Return, differentiable, the negative log-likelihood in nats of each part's labels, [B].

    Those of several labels are added up; each is multiplied by its weight and by ``share``.
    """
    beginnings = [label_tokens[next(iter(part.weights))][:-1] for part in parts]
    rows = [
        Row(tokens=(*part.question.tokens, *words), context=part.question.split, shared=part.question.split)
        for part, words in zip(parts, beginnings, strict=True)
    ]
    # The logits at position t tell the token at t + 1, so a label's first word is told by the prompt's last token.
    longest = 1 + max(map(len, beginnings))
    asked_BK = torch.tensor(
        [
            [len(part.question.tokens) - 1 + min(at, len(words)) for at in range(longest)]
            for part, words in zip(parts, beginnings, strict=True)
        ]
    )
    learnt = [
        (at, label_tokens[label], weight * share)
        for at, part in enumerate(parts)
        for label, weight in part.weights.items()
    ]
    of_G = torch.tensor([at for at, _, _ in learnt])
    gold_GK = torch.tensor([[*words, *[words[-1]] * (longest - len(words))] for _, words, _ in learnt])
    weights_GK = torch.tensor([[weight * (at < len(words)) for at in range(longest)] for _, words, weight in learnt])
    logits_BKV = reader.logits(rows, asked_BK)
    of_G, gold_GK, weights_GK = (tensor.to(logits_BKV.device) for tensor in (of_G, gold_GK, weights_GK))
    nats_BKV = -torch.log_softmax(logits_BKV.float(), dim=-1)
    nats_GK = nats_BKV[of_G].gather(2, gold_GK[:, :, None])[:, :, 0]
    return nats_GK.new_zeros(len(parts)).index_add(0, of_G, (nats_GK * weights_GK).sum(dim=1))


def _rate_share(step: int, total: int, warmup_share: float) -> float:
    """Return the share of the highest learning rate at a step (from 0): up in a line, then down to 0 in a line."""
    warmup = math.ceil(total * warmup_share)
    if step < warmup:
        return (step + 1) / warmup
    return (total - step) / max(1, total - warmup)
