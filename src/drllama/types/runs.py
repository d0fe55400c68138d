"""A run: its steps, what a teacher did for it, its arms and their evaluations."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from drllama.types.answers import Comparison, Evaluation
from drllama.types.filtering import LeakAudit
from drllama.types.funnel import Diversity, DropCount, FunnelStep
from drllama.types.questions import SplitName, Task
from drllama.types.students import Finetuned, StudentCard
from drllama.types.teaching import Audit, Spent


class ArmName(StrEnum):
    """What a student is trained on beside the real rows."""

    NONE = "none"
    """Nothing."""
    REWRITE = "rewrite"
    """The teacher's rewrites."""
    NEW = "new"
    """The teacher's new questions."""
    COMBINED = "combined"
    """Both."""


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
class Arm:
    """A student trained on one set of rows; arms of a run differ in nothing else."""

    name: ArmName
    system: str
    """Its name among the run's evaluations."""
    num_generated: int
    """Rows of the teacher's among its training examples."""
    finetuned: Finetuned
    adapter: StepRecord
    """The step that trained it."""


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
class Taught:
    """What a teacher did for a run."""

    model: str
    endpoint: str
    audit: Audit
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
    """How the rows that any arm trained on are like dev and test."""
    arms: tuple[Arm, ...]
    chosen_arm: ArmName
    """The one that was best on dev; test had no say."""
    evaluations: tuple[Evaluation, ...]
    comparisons: tuple[Comparison, ...]
    """Each arm with generated rows against the one without, where there is one."""

    def arm(self, name: ArmName | None = None) -> Arm:
        """Return an arm; None: the chosen one."""
        return next(arm for arm in self.arms if arm.name == (name or self.chosen_arm))

    def evaluation(self, arm: Arm) -> Evaluation:
        """Return the evaluation of an arm's student."""
        return next(one for one in self.evaluations if one.system == arm.system)
