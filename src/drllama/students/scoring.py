"""Log-probabilities of label words at the answer position, one pass over each question.

Letters: B rows of a batch, R beginnings of label words, K gathered positions, V vocabulary.
"""

import random
from collections.abc import Mapping, Sequence

import torch

from drllama.students.encoding import Encoded, by_context
from drllama.students.passes import Reader
from drllama.students.rows import Row
from drllama.types import Label

_AT_ONCE = 8


def batches(reader: Reader, questions: Sequence[Encoded], size: int | None) -> list[Sequence[Encoded]]:
    """Return the questions, in their order, as they are to be scored together; ``size`` None: as is fastest.

    On a CPU that is one by one where rows are run whole, but for those about one context, which is run once.
    """
    groups = [questions]
    if size is None and reader.one_by_one and reader.model.device.type == "cpu":
        groups = [[questions[at] for at in group] for group in by_context(questions)]
    at_once = size or _AT_ONCE
    return [group[start : start + at_once] for group in groups for start in range(0, len(group), at_once)]


def shuffled(in_turn: Sequence[Sequence[Encoded]]) -> list[Sequence[Encoded]]:
    """Return the first, then the others in an order of chance.

    Processes that score the same questions side by side, for the first time, so keep frozen work for each other; in
    one order each would do all of it.
    """
    later = list(in_turn[1:])
    random.SystemRandom().shuffle(later)
    return [*in_turn[:1], *later]


@torch.inference_mode()
def label_scores(
    reader: Reader,
    batch: Sequence[Encoded],
    label_tokens: Mapping[Label, tuple[int, ...]],
) -> list[dict[Label, float]]:
    """Return for each question the log-probability in nats of each label's words, summed over their tokens."""
    beginnings = _beginnings(label_tokens)
    # Each row is the question and a label's words without the last; the logits at word k tell the word k + 1.
    rows = [
        Row(
            tokens=(*question.tokens, *words),
            context=question.split,
            shared=question.split if len(beginnings) == 1 else len(question.tokens) - 1,
        )
        for question in batch
        for words in beginnings
    ]
    longest = max(map(len, beginnings))
    asked_BK = torch.tensor(
        [
            [len(row.tokens) - 1 - len(words) + min(at, len(words)) for at in range(longest + 1)]
            for row, words in zip(rows, [*beginnings] * len(batch), strict=True)
        ]
    )
    nats_BKV = torch.log_softmax(reader.logits(rows, asked_BK).float(), dim=-1)
    each = nats_BKV.unflatten(0, (len(batch), len(beginnings)))  # type: ignore[no-untyped-call]
    return [_summed(nats_RKV, beginnings, label_tokens) for nats_RKV in each]


def _beginnings(label_tokens: Mapping[Label, tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Return the labels' words without the last, but for those that another begins with."""
    found = {tokens[:-1] for tokens in label_tokens.values()}
    return sorted(
        words for words in found if not any(words != other and other[: len(words)] == words for other in found)
    )


def _summed(
    nats_RKV: torch.Tensor, beginnings: Sequence[tuple[int, ...]], label_tokens: Mapping[Label, tuple[int, ...]]
) -> dict[Label, float]:
    """Return each label's sum, from what the rows of one question tell of each word."""
    scores = {}
    for label, tokens in label_tokens.items():
        row = next(at for at, words in enumerate(beginnings) if words[: len(tokens) - 1] == tokens[:-1])
        scores[label] = float(sum(nats_RKV[row, at, token].double() for at, token in enumerate(tokens)))
    return scores
