"""Arms over several seeds: what each comes to, how two differ, and what may be said of it.

Metrics are named ``accuracy``, ``macro_f1``, ``f1:LABEL`` and ``recall:LABEL``; a label that is no question's gold
label has neither. All are shares: 0.01 is a point.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from drllama.types.answers import Estimate, Prediction


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmAnswers:
    """What the students of one arm answered, one student a seed."""

    arm: str
    """Its name, another for each arm and dose."""
    seeds: tuple[int, ...]
    """The same for all arms of an experiment, in the same order: this is what pairs them."""
    answers: tuple[tuple[Prediction, ...], ...]
    """For each seed the answers to the same questions, in the same order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmSummary:
    """What one arm comes to."""

    arm: str
    seeds: tuple[int, ...]
    metrics: Mapping[str, Estimate]
    """Means over the seeds. Method ``hierarchical bootstrap``; ``bootstrap`` where there is one seed, whose interval
    tells nothing of the luck of training."""
    by_seed: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Discordance:
    """Questions that exactly one of two systems got right."""

    gained: int
    """Only the arm got them right."""
    lost: int
    """Only the baseline got them right."""
    p_value: float
    """Exact McNemar test of ``gained`` against ``lost``, two-sided."""
    p_adjusted: float
    """The same after Holm over the arms."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """An arm's metric minus its baseline's, on the same questions with the same seeds."""

    estimate: Estimate
    """Mean over the seeds. Method ``items and seeds``; ``items`` where there is one seed."""
    by_seed: tuple[float, ...]
    item_error: float
    """Standard error that comes from which questions were asked."""
    seed_error: float | None
    """Standard error that comes from the luck of training; None: one seed can't tell."""
    seed_df: int
    """Degrees of freedom behind ``seed_error``: (arms - 1) x (seeds - 1)."""
    p_value: float
    """Two-sided; below 0.05 exactly where the 95 % interval excludes 0. Never below 1e-12."""
    p_adjusted: float
    """The same after Holm over the arms."""
    detectable: float
    """The true difference that this comparison, after Holm, shows four times in five."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """What an arm changes against a baseline arm."""

    arm: str
    baseline: str
    seeds: tuple[int, ...]
    num_items: int
    num_arms: int
    """Arms that were held against this baseline together: what Holm counts."""
    differences: Mapping[str, Difference]
    """By metric."""
    discordance: tuple[Discordance, ...]
    """For each seed."""
    vote: Discordance
    """Of the labels that most seeds chose. A tie goes to the label with the larger mean probability over the seeds,
    then by the order of the labels; an answer without a label has no vote."""

    @property
    def accuracy(self) -> Difference:
        """Return the difference in accuracy."""
        return self.differences["accuracy"]


class Finding(StrEnum):
    """What may be said of generated rows."""

    HELPS = "helps"
    HURTS = "hurts"
    NO_EVIDENCE = "no evidence either way"


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmFinding:
    """What may be said of one arm."""

    arm: str
    finding: Finding
    p_adjusted: float
    """Of what was found: against the baseline that is hardest to tell from it, after Holm over the arms. 1 where
    nothing was."""
    detectable: float
    """The true difference that would have shown four times in five against every baseline."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conclusion:
    """Whether generated rows help, by the rule of decision 0020."""

    finding: Finding
    """``helps`` where any arm does; else ``hurts`` where any does."""
    metric: str
    level: float
    """1 minus the share of experiments without any effect in which the rule may name one."""
    baselines: tuple[str, ...]
    """Whom an arm must beat; the first is the one that it may hurt against."""
    arms: tuple[ArmFinding, ...]
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CurvePoint:
    """A dose of generated rows and what it brings."""

    arm: str
    share: float
    """Of the generated rows; 0: none."""
    value: Estimate
    """The metric itself."""
    step: Estimate | None
    """Its difference to the dose before; None: this is the smallest."""


class Factor(StrEnum):
    """What two arms differ in."""

    METHOD = "method"
    TEACHER = "teacher"
    FILTER = "filter"


@dataclass(frozen=True, slots=True, kw_only=True)
class RowsTaken:
    """What a filter takes from an arm."""

    num_before: int
    """Rows of the teacher's that the arm has without the filter."""
    num_dropped: int
    """Of these, those that it hasn't with it."""
    num_instead: int
    """Rows that it only has with the filter, in the place of others."""
    num_unanswered: int
    """Rows that are in neither for want of the teacher's reply."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribution:
    """What one ingredient brings: two arms that differ in nothing else."""

    factor: Factor
    name: str
    """The ingredient: a method, a teacher, a filter."""
    arm: str
    """The one that has it."""
    without: str
    """The one that hasn't, or has another teacher's rows."""
    difference: Difference
    share_dropped: float | None
    """What a filter cost: the share of its rows that it dropped. None: not a filter."""
    sentence: str
    macro_f1: Difference | None = None
    """As ``difference``, which is of accuracy; None in runs of an earlier drllama."""
    rows: RowsTaken | None = None
    """None: not a filter."""
