"""Counting: predictions, their metrics with intervals, the baselines to beat, and what became of a teacher's rows."""

from drllama.stats.baselines import majority_predictions, prior_predictions
from drllama.stats.conclusion import conclude
from drllama.stats.diversity import diversity
from drllama.stats.effects import effects_against
from drllama.stats.funnel import drop_counts, funnel
from drllama.stats.intervals import wilson
from drllama.stats.metrics import evaluate_predictions
from drllama.stats.power import Variation, detectable_difference, variation_of
from drllama.stats.seeds import over_seeds
from drllama.stats.summaries import summarise_arms
from drllama.stats.worth import FilterArms, by_filter, by_method, by_teacher, cost_per_point, marginal_curve

__all__ = [
    "FilterArms",
    "Variation",
    "by_filter",
    "by_method",
    "by_teacher",
    "conclude",
    "cost_per_point",
    "detectable_difference",
    "diversity",
    "drop_counts",
    "effects_against",
    "evaluate_predictions",
    "funnel",
    "majority_predictions",
    "marginal_curve",
    "over_seeds",
    "prior_predictions",
    "summarise_arms",
    "variation_of",
    "wilson",
]
