"""A run: what was asked, what a teacher did for it, its cells, and what may be said of them."""

from collections.abc import Mapping
from dataclasses import dataclass

from drllama.types.answers import Evaluation, Reader
from drllama.types.cells import Arm, Cell, StepRecord
from drllama.types.effects import ArmSummary, Conclusion, Effect
from drllama.types.filtering import LeakAudit
from drllama.types.funnel import Diversity, DropCount, FunnelStep
from drllama.types.questions import SplitName, Task
from drllama.types.students import StudentCard
from drllama.types.teaching import Audit, Spent
from drllama.types.worth import Worth


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One round of choosing training examples and letting the teacher work on them."""

    number: int
    """From 1."""
    num_chosen: int
    """Training examples that the student was weak on."""
    num_kept: int
    """Rows that all rounds so far brought."""
    dev: float | None
    """What dev came to with them, by what chooses epochs, more is better; None: a single round isn't tested."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Teaching:
    """What a teacher was asked for a run, and what came of it."""

    model: str
    endpoint: str
    num_requests: int
    bill: tuple[Spent, ...]
    """What its replies took: audit, rows, blind answers and judgements."""
    candidates: Mapping[str, int]
    """By method."""
    num_spare: int
    """Readable items beyond what was wanted of their source, or given before."""
    num_unparsed: int
    num_failed: int
    """Requests without a reply."""
    num_short: int
    """Sources that gave fewer items than wanted."""
    funnel: tuple[FunnelStep, ...]
    """How many rows got how far, from ``asked`` to ``kept``."""
    drops: tuple[DropCount, ...]
    """What stopped the others, the most frequent first."""
    diversity: tuple[Diversity, ...]
    """Of the real rows, of all candidates, and of those kept; a group without rows is missing."""
    rounds: tuple[Round, ...] = ()
    """Empty where the teacher worked on all training examples."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Taught(Teaching):
    """What a teacher did for a run."""

    audit: Audit


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Something that was chosen by answers to questions."""

    what: str
    """Such as ``epoch of combined, seed 1``."""
    split: SplitName
    """Whose questions."""
    by: str
    """What was to be best."""
    among: Mapping[str, float]
    """What each could come to; more is better."""
    chosen: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Test questions put to one system."""

    system: str
    step: str
    """Key of the step that did it."""
    at: str
    """UTC, ISO 8601."""
    num_questions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """One student's written answers, read in one way."""

    student: str
    """Its name among the run's evaluations, where its scores are counted."""
    reader: Reader
    evaluation: Evaluation


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
    taught: Taught | None
    """None: the recipe asks no teacher for rows."""
    leaks: LeakAudit
    """How the rows that any student trained on are like dev and test."""
    baselines: tuple[Evaluation, ...]
    """Systems that weren't trained: majority, prior, the untrained student."""
    arms: tuple[Arm, ...]
    cells: tuple[Cell, ...]
    """The students, seed by seed, and in each seed arm by arm."""
    num_unfinished: int
    """Cells that were still to come when the time was up."""
    chosen_arm: str
    """Id of the arm that was best on dev, in the mean over its seeds; test had no say."""
    choices: tuple[Choice, ...]
    """All that was chosen after looking at answers."""
    readings: tuple[Reading, ...]
    """All that read the test questions."""
    written: tuple[Written, ...] = ()
    """How written answers are read, student by student; empty where none were asked for."""
    summaries: tuple[ArmSummary, ...] = ()
    """Each arm over the seeds that all of them have."""
    effects: tuple[Effect, ...] = ()
    conclusion: Conclusion | None = None
    """What may be said of the teacher's rows; None: no arm has any, or there is nothing to hold them against."""
    worth: Worth | None = None
    """What doses, ingredients and money bring; None: no seed is finished in all arms."""

    @property
    def evaluations(self) -> tuple[Evaluation, ...]:
        """Return the evaluations of all systems, in the order of tables."""
        return (*self.baselines, *(cell.evaluation for cell in self.cells))

    def arm(self, name: str | None = None) -> Arm:
        """Return the arm with this id; None: the chosen one."""
        return next(arm for arm in self.arms if arm.id == (name or self.chosen_arm))

    def cells_of(self, arm: Arm) -> tuple[Cell, ...]:
        """Return the students of an arm."""
        return tuple(cell for cell in self.cells if cell.arm == arm.id)

    def cell(self, arm: Arm | None = None) -> Cell:
        """Return an arm's student that is best on dev; None: of the chosen arm."""
        return max(self.cells_of(arm or self.arm()), key=lambda cell: cell.on_dev)
