"""Answers in the student's own words: the likeliest token each time, a batch at a time, each row until it is done.

Letters: B rows of a batch, T tokens of a row, V vocabulary.
Rows are padded on the left, so that all go on at the same place; padding is masked and positions count from each row's
first token, so what a row says depends neither on its padding nor on its neighbours.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import peft
import torch
from torch.nn.utils.rnn import pad_sequence

from drllama.students.encoding import Encoded
from drllama.students.head import head_only_at

WORDS = 100
"""An answer ends behind so many words: the reader that reads most looks no further."""
_TOKENS = 200
AT_ONCE = 8
"""So many questions are answered together if nothing else is wanted."""
_WORDS = re.compile(rf"\s*(?:\S+\s+){{0,{WORDS - 1}}}\S*")


@dataclass(slots=True)
class _Row:
    """One answer as it grows."""

    question: Encoded
    said: list[int] = field(default_factory=list)
    text: str | None = ""
    is_done: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Writer:
    """A model with what says where its answers end."""

    model: Any
    tokenizer: Any

    @torch.inference_mode()
    def answers(self, batch: Sequence[Encoded]) -> list[str | None]:
        """Return what stands behind each question, to the end of its first line of text, of 100 words or of the text.

        White space at the beginning is kept. None: the scores stopped being numbers.
        """
        rows = [_Row(question) for question in batch]
        going = rows
        tokens_BT, mask_BT, positions_BT = _left_padded([row.question.tokens for row in rows], self.model.device)
        cache = self._read(going, tokens_BT, mask_BT, positions_BT)
        if self._prefixed:
            mask_BT = torch.cat([mask_BT.new_ones(len(going), self._prefixed), mask_BT], dim=1)
            positions_BT = positions_BT + self._prefixed
        while still := [at for at, row in enumerate(going) if not row.is_done]:
            if len(still) < len(going):
                going = [going[at] for at in still]
                still_B = torch.tensor(still, dtype=torch.long, device=mask_BT.device)
                cache.batch_select_indices(still_B)
                mask_BT, positions_BT = mask_BT[still_B], positions_BT[still_B]
            tokens_BT = torch.tensor([[row.said[-1]] for row in going], device=mask_BT.device)
            mask_BT = torch.cat([mask_BT, mask_BT.new_ones(len(going), 1)], dim=1)
            positions_BT = positions_BT[:, -1:] + 1
            cache = self._read(going, tokens_BT, mask_BT, positions_BT, cache)
        return [row.text for row in rows]

    def _read(
        self,
        rows: Sequence[_Row],
        tokens_BT: torch.Tensor,
        mask_BT: torch.Tensor,
        positions_BT: torch.Tensor,
        cache: Any = None,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        """Read on behind what is in the cache, let each row say its next token, and return the cache."""
        model, told = self.model, {}
        if cache is not None and self._prefixed:
            # PEFT would put its prefix in the place of the keys and values, which begin with it already.
            model = model.get_base_model()
        if cache is not None and self._is_activated:
            # PEFT looks for the question's opening, which was read before; what follows it is adapted, every token.
            told = {"alora_offsets": [1] * len(rows)}
        last_B1 = torch.full((len(rows), 1), tokens_BT.shape[1] - 1, device=tokens_BT.device)
        with head_only_at(model, last_B1):
            read = model(
                input_ids=tokens_BT,
                attention_mask=mask_BT,
                position_ids=positions_BT,
                past_key_values=cache,
                use_cache=True,
                **told,
            )
        self._say(rows, read.logits[:, 0].float())
        return read.past_key_values

    @property
    def _prefixed(self) -> int:
        """Return how many keys and values stand before the first token."""
        worn = self.model.active_peft_config if isinstance(self.model, peft.PeftModel) else None
        return int(worn.num_virtual_tokens) if worn is not None and worn.is_prompt_learning else 0

    @property
    def _is_activated(self) -> bool:
        """Return whether what is worn adapts only what stands behind an opening."""
        worn = self.model.active_peft_config if isinstance(self.model, peft.PeftModel) else None
        return getattr(worn, "alora_invocation_tokens", None) is not None

    def _say(self, rows: Sequence[_Row], logits_BV: torch.Tensor) -> None:
        assert logits_BV.shape[0] == len(rows), f"logits {tuple(logits_BV.shape)} for {len(rows)} rows"
        sound = logits_BV.amax(dim=-1).isfinite().tolist()
        for row, token, is_sound in zip(rows, logits_BV.argmax(dim=-1).tolist(), sound, strict=True):
            if not is_sound:
                row.text, row.is_done = None, True
                continue
            row.said.append(token)
            # The clean-up of old tokenizers would take away spaces before punctuation.
            text = str(self.tokenizer.decode(row.said, skip_special_tokens=True, clean_up_tokenization_spaces=False))
            row.text, is_whole = _first_line(text)
            is_full = len(row.said) == _TOKENS or len(row.question.tokens) + len(row.said) >= self._window()
            row.is_done = is_whole or is_full or token in self._end_tokens()

    def _end_tokens(self) -> frozenset[int]:
        # Chat models often name several in the generation settings and only one of them in the tokenizer.
        named = self.model.generation_config.eos_token_id
        listed = named if isinstance(named, list) else [named]
        return frozenset(token for token in [*listed, self.tokenizer.eos_token_id] if token is not None)

    def _window(self) -> float:
        return getattr(self.model.config.get_text_config(), "max_position_embeddings", None) or float("inf")


def _first_line(text: str) -> tuple[str, bool]:
    r"""Return the text to the end of its first line that isn't blank, at most 100 words, and if that is all.

    >>> _first_line(" yes\nQuestion:")
    (' yes', True)
    >>> _first_line("\n\nye")
    ('\n\nye', False)
    """
    blank = len(text) - len(text.lstrip())
    end = text.find("\n", blank)
    line = text if end < 0 else text[:end]
    words = _WORDS.match(line)
    assert words is not None, "the pattern matches nothing too"
    return words[0], end >= 0 or len(words[0]) < len(line.rstrip())


def _left_padded(
    rows: Sequence[Sequence[int]], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return tokens_BT, mask_BT (1: a token, 0: padding) and position ids, which count from each row's first token."""
    told = [torch.tensor(tokens, device=device) for tokens in rows]
    padded = partial(pad_sequence, batch_first=True, padding_side="left")
    mask_BT = padded([torch.ones_like(tokens) for tokens in told])
    return padded(told), mask_BT, (mask_BT.cumsum(dim=1) - 1).clamp(min=0)
