"""Log-probabilities of label words at the answer position, one pass over each question.

Letters: B rows of a batch, T tokens of a row, K gathered positions, D hidden size, V vocabulary.
Rows are padded on the right and position ids are given: a causal model never sees what stands behind a token, so
scores depend neither on the padding nor on the neighbours.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import peft
import torch

from drllama.students.encoding import Encoded
from drllama.types import Label


@contextmanager
def head_only_at(model: Any, positions_BK: torch.Tensor) -> Iterator[None]:  # noqa: ANN401
    """Let the output head see only these positions of each row, so that logits are [B, K, V], never [B, T, V].

    Gathering before the head is exact, and works for any architecture, its own scaling of logits included.
    """

    def gather(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        hidden_BTD = inputs[0]
        index_BKD = positions_BK[:, :, None].expand(-1, -1, hidden_BTD.shape[-1])
        return (hidden_BTD.gather(1, index_BKD),)

    hook = model.get_output_embeddings().register_forward_pre_hook(gather)
    try:
        yield
    finally:
        hook.remove()


def right_padded(rows: Sequence[Sequence[int]], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return tokens_BT and position ids of the same shape; padding repeats token 0 and is never looked at."""
    longest = max(map(len, rows))
    tokens_BT = torch.zeros(len(rows), longest, dtype=torch.long)
    for row, tokens in enumerate(rows):
        tokens_BT[row, : len(tokens)] = torch.tensor(tokens)
    positions_BT = torch.arange(longest).expand(len(rows), -1)
    return tokens_BT.to(device), positions_BT.to(device)


@torch.inference_mode()
def label_scores(
    model: Any,  # noqa: ANN401  any causal language model of transformers, with or without an adapter
    batch: Sequence[Encoded],
    label_tokens: Mapping[Label, tuple[int, ...]],
) -> list[dict[Label, float]]:
    """Return for each question the log-probability in nats of each label's words, summed over their tokens."""
    if all(len(tokens) == 1 for tokens in label_tokens.values()):
        columns = torch.tensor([tokens[0] for tokens in label_tokens.values()], device=model.device)
        scores_BL = _next_token_nats(model, batch)[:, columns].double().tolist()
        return [dict(zip(label_tokens, row, strict=True)) for row in scores_BL]
    return [_scores_of_word_sequences(model, question, label_tokens) for question in batch]


def _next_token_nats(model: Any, batch: Sequence[Encoded]) -> torch.Tensor:  # noqa: ANN401
    tokens_BT, positions_BT = right_padded([question.tokens for question in batch], model.device)
    last_B1 = torch.tensor([[len(question.tokens) - 1] for question in batch], device=model.device)
    with head_only_at(model, last_B1):
        logits_B1V = model(input_ids=tokens_BT, position_ids=positions_BT, use_cache=False).logits
    assert logits_B1V.shape[:2] == (len(batch), 1), f"logits {tuple(logits_B1V.shape)} for {len(batch)} questions"
    return torch.log_softmax(logits_B1V[:, 0].float(), dim=-1)


def _scores_of_word_sequences(
    model: Any,  # noqa: ANN401
    question: Encoded,
    label_tokens: Mapping[Label, tuple[int, ...]],
) -> dict[Label, float]:
    # The question is read once; its keys and values are then shared by all beginnings of label words.
    device = model.device
    tokens_1T, positions_1T = right_padded([question.tokens], device)
    last_11 = torch.tensor([[len(question.tokens) - 1]], device=device)
    with head_only_at(model, last_11):
        read = model(input_ids=tokens_1T, position_ids=positions_1T, use_cache=True)
    nats: dict[tuple[int, ...], torch.Tensor] = {(): torch.log_softmax(read.logits[0, 0].float(), dim=-1)}
    # Each row is a label's words without the last; the logits at word k tell the word k + 1.
    rows = sorted({tokens[:-1] for tokens in label_tokens.values() if len(tokens) > 1})
    cache = read.past_key_values
    cache.batch_repeat_interleave(len(rows))
    words_BK, offsets_BK = right_padded(rows, device)
    logits_BKV = _going_on(model, words_BK, offsets_BK + len(question.tokens), cache).logits
    for row, words in enumerate(rows):
        for length in range(1, len(words) + 1):
            nats[words[:length]] = torch.log_softmax(logits_BKV[row, length - 1].float(), dim=-1)
    return {
        label: float(sum(nats[tokens[:at]][tokens[at]].double() for at in range(len(tokens))))
        for label, tokens in label_tokens.items()
    }


def _going_on(model: Any, tokens_BK: torch.Tensor, positions_BK: torch.Tensor, cache: Any) -> Any:  # noqa: ANN401
    """Return what the model says of tokens that follow those whose keys and values are in the cache."""
    known = {"position_ids": positions_BK, "past_key_values": cache, "use_cache": True}
    if isinstance(model, peft.PeftModel) and model.active_peft_config.is_prompt_learning:
        # PEFT would put its prefix in the place of this cache, which begins with it already.
        known["position_ids"] = positions_BK + model.active_peft_config.num_virtual_tokens
        return model.get_base_model()(input_ids=tokens_BK, **known)
    if isinstance(model, peft.PeftModel) and getattr(model.active_peft_config, "alora_invocation_tokens", None):
        # PEFT looks for the question's opening in these tokens alone, and wouldn't find it.
        known["alora_offsets"] = [tokens_BK.shape[1]] * len(tokens_BK)
    return model(input_ids=tokens_BK, **known)
