"""Rows of tokens, side by side.

Letters: B rows of a batch, T tokens of a row, K gathered positions, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from drllama.students.head import head_only_at


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What a student reads."""

    tokens: tuple[int, ...]
    context: int
    """So many tokens at the beginning are the context's; an activated adapter works on the others alone."""
    shared: int
    """So many tokens at the beginning may be run once for all rows that begin with the same; less than all."""


def right_padded(rows: Sequence[Sequence[int]], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return tokens_BT and position ids of the same shape; padding repeats token 0 and is never looked at."""
    longest = max(map(len, rows))
    tokens_BT = torch.zeros(len(rows), longest, dtype=torch.long)
    for row, tokens in enumerate(rows):
        tokens_BT[row, : len(tokens)] = torch.tensor(tokens)
    positions_BT = torch.arange(longest).expand(len(rows), -1)
    return tokens_BT.to(device), positions_BT.to(device)


def asked_logits(model: Any, asked_BK: torch.Tensor, **inputs: object) -> torch.Tensor:  # noqa: ANN401
    """Return the logits at these positions of each row of the model's inputs, [B, K, V]."""
    with head_only_at(model, asked_BK.to(model.device)):
        logits_BKV: torch.Tensor = model(**inputs).logits
    assert logits_BKV.shape[:2] == asked_BK.shape, f"{tuple(logits_BKV.shape)} for {tuple(asked_BK.shape)}"
    return logits_BKV
