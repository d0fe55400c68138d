"""Counting predictions: intervals, metrics with their intervals, and the baselines that any student must beat."""

from drllama.stats.baselines import majority_predictions, prior_predictions
from drllama.stats.comparison import compare_accuracy
from drllama.stats.intervals import wilson
from drllama.stats.metrics import evaluate_predictions

__all__ = ["compare_accuracy", "evaluate_predictions", "majority_predictions", "prior_predictions", "wilson"]
