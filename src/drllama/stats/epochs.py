"""Which epoch of a training is kept."""

from collections.abc import Sequence
from typing import Literal

from drllama.types import Epoch


def chosen_epoch(epochs: Sequence[Epoch], rule: Literal["nll", "accuracy", "macro_f1", "last"]) -> int:
    """Return the number of the epoch that is best on dev by a rule; of equals the one with the lower NLL."""
    match rule:
        case "last":
            return epochs[-1].number
        case "nll":
            return min(epochs, key=lambda epoch: epoch.dev_nll_nats).number
        case "accuracy":
            return max(epochs, key=lambda epoch: (epoch.dev_accuracy, -epoch.dev_nll_nats)).number
        case "macro_f1":
            return max(epochs, key=lambda epoch: (epoch.dev_macro_f1, -epoch.dev_nll_nats)).number
