"""What travels between the parts: frozen, keyword-only values, each field documented under it.

What users write is pydantic (``recipe``); what travels is here; what is stored is JSON made from it by ``store``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, TypeAlias

from drllama.ids import content_id
from drllama.text import normalise

Label: TypeAlias = str
SplitName: TypeAlias = Literal["train", "dev", "test"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A kind of question with a closed set of answers."""

    name: str
    instruction: str
    """One sentence that tells a reader, or a large model, what is asked."""
    labels: tuple[Label, ...]
    """The allowed answers; their order breaks ties and orders every table."""
    verbalizers: Mapping[Label, str]
    """The words that stand for each label at the answer position, without the space before them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Original:
    """An example that a person wrote and labelled."""

    source: str
    """The name of the source, or the file."""
    source_id: str
    """The row's own name there: a PubMed id, an ``id`` column, or the line number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One question of the domain, with its gold label where it has one."""

    question: str
    context: str
    """The text to answer from; paragraphs are parted by line breaks. Empty: the question stands alone."""
    options: tuple[str, ...] = ()
    """The answers to choose from, in the order of the task's labels; empty when the labels speak for themselves."""
    long_answer: str | None = None
    """The conclusion in words. It never enters a student's input: it would give the label away."""
    label: Label | None
    split: SplitName
    group: str
    """The document that the example was made from; a group never spans two splits."""
    origin: Original

    @property
    def id(self) -> str:
        """Return the hash of what is asked; letter case and white space don't matter, label and long answer neither."""
        return content_id(normalise(self.question), normalise(self.context), *map(normalise, self.options))


@dataclass(frozen=True, slots=True, kw_only=True)
class Splits:
    """The examples of a source, by split."""

    train: tuple[Example, ...]
    dev: tuple[Example, ...]
    test: tuple[Example, ...]

    def named(self, split: SplitName) -> tuple[Example, ...]:
        """Return the examples of one split."""
        return {"train": self.train, "dev": self.dev, "test": self.test}[split]


class Outcome(StrEnum):
    """What became of one question; the four counts add up to the number asked."""

    CORRECT = "correct"
    WRONG = "wrong"
    UNPARSED = "unparsed"
    """An answer came but names no label."""
    FAILED = "failed"
    """No answer came: the question doesn't fit the student, or its scores aren't numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """One answer to one question."""

    example_id: str
    source_id: str
    gold: Label
    choice: Label | None
    """None when the outcome is ``unparsed`` or ``failed``."""
    outcome: Outcome
    scores_nats: Mapping[Label, float] | None
    """Log-probability of each label's verbalizer at the answer position; None when the answer is a bare label."""
    num_tokens: int
    """Length of the student's input; 0 when nothing was read."""
    truncated_tokens: int
    """Tokens of the context that were cut off so that the input fits."""
    note: str = ""
    """Why the outcome is ``unparsed`` or ``failed``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A number with its interval."""

    value: float
    low: float
    high: float
    n: int
    """Observations behind it."""
    level: float
    """Coverage of the interval, 0.95 for 95 %."""
    method: str
    """How the interval was made: ``wilson``, ``bootstrap``."""

    def __str__(self) -> str:
        """Return value, interval, number of observations and method."""
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}] (n={self.n}, {self.method} {self.level:.0%})"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassScores:
    """How one label was found."""

    label: Label
    support: int
    """Gold examples with this label."""
    precision: Estimate
    recall: Estimate
    f1: Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class ReliabilityBin:
    """Predictions whose confidence lies in (low, high], and how many of them were right."""

    low: float
    high: float
    n: int
    mean_confidence: float
    """0 when the bin is empty."""
    accuracy: float
    """0 when the bin is empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """One system's answers to one split, counted."""

    system: str
    """``majority``, ``prior``, ``untrained`` or ``fine-tuned``."""
    split: SplitName
    labels: tuple[Label, ...]
    predictions: tuple[Prediction, ...]
    counts: Mapping[Outcome, int]
    """All four outcomes; they add up to the number of predictions."""
    metrics: Mapping[str, Estimate]
    """``accuracy`` and ``macro_f1`` always; ``nll`` (nats), ``brier`` and ``ece`` where every answered
    question has scores."""
    per_class: tuple[ClassScores, ...]
    confusion: tuple[tuple[int, ...], ...]
    """Rows: gold labels; columns: chosen labels, then "no answer"."""
    reliability: tuple[ReliabilityBin, ...]
    """Empty where there are no scores."""


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
