"""A student: which model it is, what it is trained on, and what training did."""

from collections.abc import Mapping
from dataclasses import dataclass

from drllama.types.questions import Example, Label


@dataclass(frozen=True, slots=True, kw_only=True)
class StudentCard:
    """Which student this is."""

    model: str
    weights_sha256: str
    """Hash of the base weights' file: two students with the same hash give the same scores."""
    tokenizer_sha256: str
    num_parameters: int
    device: str
    """``cpu`` or ``cuda``, a comma, then its threads or its name."""
    dtype: str
    is_chat: bool = False
    """Whether questions are put to it in its chat template."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRow:
    """A question to train on, and how much it counts."""

    example: Example
    weight: float = 1.0
    """In the loss, beside those of the other rows."""
    target: Mapping[Label, float] | None = None
    """The share of each label in what is to be learnt, 1 in all; None: the example's label alone."""

    @property
    def shares(self) -> Mapping[Label, float]:
        """Return the share of each label in what is to be learnt."""
        return {str(self.example.label): 1.0} if self.target is None else self.target


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """As many updates as one pass over the real training examples takes."""

    number: int
    """From 1."""
    train_loss_nats: float
    """Mean loss of the epoch's steps."""
    dev_accuracy: float
    dev_macro_f1: float
    dev_nll_nats: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Finetuned:
    """What training did; the adapter itself lies beside it."""

    epochs: tuple[Epoch, ...]
    chosen_epoch: int
    """Chosen on dev only; its weights are the adapter's."""
    num_steps: int
    num_examples: int
    left_out: tuple[str, ...]
    """Examples that don't fit the student even with an empty context, each with the reason."""
    truncated_examples: int
    """Examples whose context was cut."""
    trainable_parameters: int
