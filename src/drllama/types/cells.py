"""Arms and cells: what students are trained on, and one student of one arm with one seed."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from drllama.types.answers import Evaluation
from drllama.types.filtering import FilterName
from drllama.types.students import Finetuned


class ArmName(StrEnum):
    """What a student is trained on."""

    NONE = "none"
    """The real rows alone."""
    REWRITE = "rewrite"
    """The real rows and the teacher's rewrites."""
    NEW = "new"
    """The real rows and the teacher's new questions."""
    COMBINED = "combined"
    """The real rows and both."""
    SYNTHETIC_ONLY = "synthetic-only"
    """The teacher's rows, rewrites and new questions, without the real ones."""
    DUPLICATE_REAL = "duplicate-real"
    """A control: the real rows, and as many copies of them as the largest arm has rows of the teacher's."""
    EDA = "eda"
    """A control: the real rows, and as many of them with some words swapped, deleted or repeated elsewhere."""


class Equality(StrEnum):
    """What the arms of a run have in common."""

    UPDATES = "updates"
    """The number of updates, so that more rows don't mean more training."""
    EPOCHS = "epochs"
    """The passes over their rows, so that every row is seen as often."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SwitchedOff:
    """A filter that stops none of an arm's rows, and what that changes in them."""

    filter: FilterName
    arm: str
    """Id of the arm that differs in nothing else."""
    num_let_in: int
    """Rows that this arm has and that one hasn't: what the filter takes away."""
    num_left_out: int
    """Rows that only that one has: without the filter, others stand in their place."""
    num_unanswered: int
    """Rows that are in neither arm for want of the teacher's reply: a filter behind it had to ask about them."""

    @property
    def is_same(self) -> bool:
        """Return whether the two arms have the same rows: the filter takes none away."""
        return not self.num_let_in and not self.num_left_out


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One way to put training rows together; students of different arms differ in nothing else but their seed."""

    id: str
    """Its name in commands and files, such as ``combined`` or ``combined-0.25-epochs``."""
    name: ArmName
    dose: float
    """The share of the teacher's rows that it takes; a smaller dose lies within a larger one."""
    equality: Equality
    system: str
    """Its name in tables."""
    num_real: int
    """Rows that people wrote."""
    num_extra: int
    """Rows beside them: the teacher's, copies or edits."""
    switched_off: SwitchedOff | None = None
    """None: all filters of the recipe stop rows."""


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
    finished_at: str
    """UTC, ISO 8601."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """Where a cell was worked out."""

    device: str
    """``cpu`` or ``cuda``, a comma, then its threads or its name."""
    dtype: str
    processor: str
    torch: str
    """Its version."""
    commit: str
    """Of drllama; ``unknown`` outside a checkout."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A student of one arm with one seed: how it was trained, and its answers to the test questions."""

    arm: str
    """The arm's id."""
    seed: int
    """From 1. Cells of one seed start alike and draw alike, whatever their arm."""
    fingerprint: str
    """Of all that its numbers depend on but the machine."""
    finetuned: Finetuned
    synthetic_weight: float
    """What a row beside the real ones weighed."""
    on_dev: float
    """What dev came to, by what chooses epochs; more is better."""
    weights_on_dev: Mapping[str, float]
    """Where the weight was chosen: what dev came to with each; else empty."""
    evaluation: Evaluation
    """Of its answers to the test questions."""
    adapter: StepRecord
    """The step that trained it, on the machine where it ran."""
    scoring: StepRecord
    """The one step that read the test questions for it."""
    ran: Ran
    brought: bool = False
    """Taken from a file that an earlier sitting or another machine left; its adapter may not be here."""
