"""The output head of a student, where hidden states become logits.

Letters: B rows of a batch, T tokens of a row, K gathered positions, D hidden size, V vocabulary.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def head_only_at(model: Any, positions_BK: torch.Tensor) -> Iterator[None]:  # noqa: ANN401
    """Let the output head see only these positions of each row, so that logits are [B, K, V], never [B, T, V].

    Gathering before the head is exact, and works for any architecture, its own scaling of logits included. Logits are
    float32 whatever the weights are: in bfloat16 those of two labels are often the same number.
    """
    head = model.get_output_embeddings()

    def gather(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        hidden_BTD = inputs[0]
        index_BKD = positions_BK[:, :, None].expand(-1, -1, hidden_BTD.shape[-1])
        return (hidden_BTD.gather(1, index_BKD),)

    def in_float32(hidden_BKD: torch.Tensor) -> torch.Tensor:
        bias_V = None if head.bias is None else head.bias.float()
        return torch.nn.functional.linear(hidden_BKD.float(), head.weight.float(), bias_V)

    hook = head.register_forward_pre_hook(gather)
    wider = isinstance(head, torch.nn.Linear) and head.weight.dtype != torch.float32
    if wider:
        head.forward = in_float32
    try:
        yield
    finally:
        hook.remove()
        if wider:
            del head.forward
