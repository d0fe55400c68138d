"""What generated rows are worth: dose by dose, by ingredient, for money; and what could have been seen at all."""

from dataclasses import dataclass

from drllama.types.answers import Estimate
from drllama.types.effects import Attribution, CurvePoint


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmCost:
    """What an arm's generated rows took, and what a point of accuracy so came to."""

    arm: str
    usd: float | None
    """Of all replies behind its rows, audit and checks included; None: some price is unknown."""
    per_point: Estimate | None
    """US dollars; None: the arm isn't shown to gain anything, or the price is unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Power:
    """What an experiment of this size can show, told from its size alone."""

    num_questions: int
    num_seeds: int
    num_arms: int
    """Held against one baseline together."""
    detectable: float | None
    """The true difference in accuracy that is found four times in five; None: the questions are too few for any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Worth:
    """What generated rows bring, seen from several sides."""

    curves: tuple[tuple[CurvePoint, ...], ...]
    """For each method given in several doses: from none of its rows to the largest dose."""
    attributions: tuple[Attribution, ...]
    costs: tuple[ArmCost, ...]
    """For each arm that has all of its rows of the teacher's."""
    power: Power
