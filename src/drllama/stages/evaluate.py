"""Counting answers: every system beside the baselines that need no student."""

from collections.abc import Mapping, Sequence

from drllama.ids import derive_seed
from drllama.recipe import Recipe
from drllama.stats import evaluate_predictions, majority_predictions, prior_predictions
from drllama.types import Evaluation, Example, Prediction, SplitName, Task


def evaluate(
    answers: Mapping[str, Sequence[Prediction]],
    *,
    train: Sequence[Example],
    asked: Sequence[Example],
    split: SplitName,
    task: Task,
    recipe: Recipe,
) -> tuple[Evaluation, ...]:
    """Return the evaluations of the majority and prior baselines and of each named system, in this order."""
    systems = {
        "majority": majority_predictions(train, asked, task.labels),
        "prior": prior_predictions(train, asked, task.labels),
        **answers,
    }
    return tuple(
        counted(predictions, system=system, split=split, task=task, recipe=recipe)
        for system, predictions in systems.items()
    )


def counted(
    predictions: Sequence[Prediction], *, system: str, split: SplitName, task: Task, recipe: Recipe
) -> Evaluation:
    """Return the evaluation of one system's answers."""
    return evaluate_predictions(
        predictions,
        system=system,
        split=split,
        labels=task.labels,
        settings=recipe.evaluate,
        # One seed for all systems: their intervals come from the same resampled questions.
        seed=derive_seed(recipe.seed, "bootstrap", split),
    )
