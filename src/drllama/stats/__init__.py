"""Counting: predictions, their metrics with intervals, the baselines to beat, and what became of a teacher's rows."""

from drllama.stats.baselines import majority_predictions, prior_predictions
from drllama.stats.comparison import compare_accuracy
from drllama.stats.diversity import diversity
from drllama.stats.funnel import drop_counts, funnel
from drllama.stats.intervals import wilson
from drllama.stats.metrics import evaluate_predictions

__all__ = [
    "compare_accuracy",
    "diversity",
    "drop_counts",
    "evaluate_predictions",
    "funnel",
    "majority_predictions",
    "prior_predictions",
    "wilson",
]
