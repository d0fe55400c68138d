"""A run: its student, its steps, its evaluations."""

from collections.abc import Mapping
from dataclasses import dataclass

from drllama.types.answers import Evaluation
from drllama.types.questions import SplitName, Task


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """One pass over the training examples."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRecord:
    """One stage of a run and where its result lies."""

    stage: str
    key: str
    """Fingerprint of all that the result depends on."""
    folder: str
    """Relative to the store."""
    seconds: float
    """Working time of the sitting that finished the step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A finished run: what was asked, where it ran, what came out."""

    id: str
    finished_at: str
    """UTC, ISO 8601."""
    command: str
    """What reproduces the run."""
    recipe: Mapping[str, object]
    """Every setting, defaults included."""
    task: Task
    environment: Mapping[str, str]
    student: StudentCard
    split_sizes: Mapping[SplitName, int]
    steps: tuple[StepRecord, ...]
    finetuned: Finetuned
    evaluations: tuple[Evaluation, ...]
