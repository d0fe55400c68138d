"""What a report shows, free of any layout; ``gathering`` fills it from a run, ``comparing`` from several."""

from dataclasses import dataclass
from enum import StrEnum

from drllama.report.written import WrittenLine
from drllama.types import (
    ArmSummary,
    Attribution,
    Choice,
    ClassScores,
    Conclusion,
    Effect,
    Epoch,
    Equality,
    Estimate,
    Finding,
    Label,
    LeakAudit,
    Published,
    PublishedRow,
    Ran,
    Reading,
    ReliabilityBin,
    SplitName,
    StepRecord,
    StudentCard,
    Teaching,
    Worth,
)


class Role(StrEnum):
    """What an arm is there for."""

    BASELINE = "baseline"
    """It has the real rows alone, or it is the one that others are held against."""
    GENERATED = "generated"
    """It has rows of the teacher's."""
    CONTROL = "control"
    """It has as many rows that no teacher wrote."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmLine:
    """One arm: what it was trained on, what it comes to, and what it changes."""

    id: str
    name: str
    role: Role
    dose: float
    """The share of the teacher's rows that it takes."""
    equality: Equality
    num_real: int
    num_extra: int
    """The teacher's, or a control's copies or edits."""
    num_updates: int
    on_dev: float
    """The mean over its students of what dev came to, by what chooses epochs; more is better."""
    is_chosen: bool
    """Best on dev of all arms."""
    summary: ArmSummary | None
    """None: no seed is finished in all arms."""
    effects: tuple[Effect, ...]
    """Against each arm that it is held against, the first of them the one without other rows."""
    finding: Finding | None
    """What may be said of it; None: the verdict isn't about it."""
    published: tuple[PublishedRow, ...] = ()
    """Somebody else's results with an arm like it."""
    without_filter: str | None = None
    """The filter that is switched off for its rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmAnswer:
    """What the students of one arm answered to one question."""

    arm: str
    choices: tuple[Label | None, ...]
    """Seed by seed; None: no answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FlippedItem:
    """A question that one arm gets right in more seeds, or fewer, than another."""

    example_id: str
    source_id: str
    question: str
    context: str
    """Empty, as the question is, where the questions could not be read any more."""
    gold: Label
    num_right: int
    """Seeds in which the arm is right."""
    num_right_before: int
    """Seeds in which the baseline is."""
    answers: tuple[ArmAnswer, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Flips:
    """Questions that change sides between two arms."""

    arm: str
    baseline: str
    num_gained: int
    """That the arm gets right in more seeds."""
    num_lost: int
    """That it gets right in fewer seeds."""
    items: tuple[FlippedItem, ...]
    """Those that change most, gained and lost by turns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CellLine:
    """One student: where it was trained and how long it took."""

    system: str
    chosen_epoch: int
    num_epochs: int
    on_dev: float
    accuracy: Estimate
    train_seconds: float
    score_seconds: float
    finished_at: str
    brought: bool
    """Taken from a file that an earlier sitting or another machine left."""
    machine: int
    """Its place among the machines, from 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """One system's numbers; its predictions are stored elsewhere."""

    name: str
    description: str
    """What it does, in a few words; empty for a system that the report doesn't know."""
    num_questions: int
    counts: dict[str, int]
    """By outcome."""
    metrics: dict[str, Estimate]
    per_class: tuple[ClassScores, ...]
    confusion: tuple[tuple[int, ...], ...]
    """Rows: gold labels; columns: chosen labels, then "no answer"."""
    reliability: tuple[ReliabilityBin, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Truncation:
    """How many contexts were cut, and by how much."""

    num_questions: int
    num_truncated: int
    median_cut_tokens: float
    """Over the truncated ones; 0 when there are none."""
    max_cut_tokens: int
    longest_input_tokens: int
    num_training: int
    num_training_truncated: int
    left_out: tuple[str, ...]
    """Training examples that don't fit at all, each with the reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistake:
    """A wrong answer with its text."""

    example_id: str
    source_id: str
    question: str
    context: str
    options: tuple[tuple[Label, str], ...]
    """The answers to choose from, each with its label; empty when the labels speak for themselves."""
    gold: Label
    choice: Label
    probabilities: dict[Label, float]
    """Over the labels; empty when the answer is a bare label."""
    truncated_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SilentNote:
    """Why questions have no answer."""

    outcome: str
    note: str
    num_questions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingValue:
    """One setting of the recipe."""

    path: str
    """Dotted, such as ``finetune.epochs``."""
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherPart(Teaching):
    """Who wrote the generated rows, whether it knows the domain, and what it took."""

    verdict: str
    """What follows from its blind answers to the dev questions."""
    systems: tuple[System, ...]
    """Majority, the untrained student where it was asked, and the teacher, on dev."""
    methods: tuple[str, ...]
    """How rows were asked for: the columns of funnel and drops."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudentPart:
    """The student that is best on dev, in detail."""

    system: System
    epochs: tuple[Epoch, ...]
    chosen_epoch: int
    num_steps: int
    trainable_parameters: int
    truncation: Truncation
    silent: tuple[SilentNote, ...]
    num_wrong: int
    mistakes: tuple[Mistake, ...]
    """The surest wrong answers, surest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportContents:
    """Everything that a report shows, top to bottom."""

    name: str
    run_id: str
    finished_at: str
    """UTC, ISO 8601."""
    verdict: str
    finding: Finding | None
    """None: the verdict isn't about generated rows."""
    summary: str
    """What the student that is best on dev comes to, in one sentence."""
    notes: tuple[str, ...]
    """What a reader must know before quoting a number."""
    arms: tuple[ArmLine, ...]
    conclusion: Conclusion | None
    worth: Worth | None
    """What doses, ingredients and money bring, and what could have been seen; None: nothing is finished in all arms."""
    majority: float | None
    """Accuracy of always giving the most frequent training label; None where nobody asked."""
    published: Published | None
    """Whose results stand beside the arms'."""
    flips: Flips | None
    """None: there are no two arms to compare."""
    teacher: TeacherPart | None
    """None: no generated rows were asked for."""
    leaks: LeakAudit
    choices: tuple[Choice, ...]
    """All that was chosen after looking at answers."""
    readings: tuple[Reading, ...]
    """All that read the test questions."""
    cells: tuple[CellLine, ...]
    num_unfinished: int
    machines: tuple[Ran, ...]
    """Where students were trained."""
    systems: tuple[System, ...]
    """All that answered the questions."""
    student: StudentPart
    written: tuple[WrittenLine, ...]
    """How written answers are read; empty where none were asked for."""
    task: str
    instruction: str
    labels: tuple[Label, ...]
    split: SplitName
    split_sizes: dict[SplitName, int]
    card: StudentCard
    settings: tuple[SettingValue, ...]
    environment: dict[str, str]
    steps: tuple[StepRecord, ...]
    command: str
    """What reproduces the run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunLine:
    """One of several runs that are compared."""

    label: str
    """Its name on this page."""
    run_id: str
    finished_at: str
    """UTC, ISO 8601."""
    student: str
    split_sizes: dict[SplitName, int]
    teacher: str | None
    """None: it asked none for rows."""
    command: str
    """What reproduces it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingDifference:
    """A setting that the runs don't share."""

    path: str
    """Dotted, such as ``finetune.epochs``."""
    values: tuple[str, ...]
    """Run by run; empty where a run's recipe has no such setting."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonContents:
    """Everything that a comparison of several runs shows, top to bottom."""

    id: str
    made_at: str
    """UTC, ISO 8601."""
    verdict: str
    is_different: bool
    """Whether some difference is shown."""
    notes: tuple[str, ...]
    runs: tuple[RunLine, ...]
    """The first is the one that the others are held against."""
    task: str
    labels: tuple[Label, ...]
    split: SplitName
    num_questions: int
    arms: tuple[ArmLine, ...]
    majority: float | None
    flips: tuple[Flips, ...]
    """Of each pair that is compared."""
    settings: tuple[SettingDifference, ...]
    attributions: tuple[Attribution, ...]
    """What another teacher's rows bring; empty where the runs differ in more than the teacher."""
    cells: tuple[CellLine, ...]
    machines: tuple[Ran, ...]
    command: str
    """What makes this page anew."""
