"""What the students of a sweep are trained on: the real questions, or one of the recipe's arms."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

from drllama import teaching
from drllama.errors import BudgetSpent, DataError, RecipeError
from drllama.pipeline import Kept
from drllama.protocols import Progress
from drllama.recipe import Augment, Recipe
from drllama.stages.arms import Stock, arms_of, rows_of
from drllama.types import Equality, Example, Splits, Synthetic, Task, TrainingRow

Rows: TypeAlias = Callable[[Recipe, Sequence[Example], int], Sequence[TrainingRow]]
"""Returns the rows of a student, given the recipe with a point's settings, the training questions and the seed."""


def real_rows(_: Recipe, train: Sequence[Example], __: int) -> Sequence[TrainingRow]:
    """Return the training questions as they are."""
    return [TrainingRow(example=one) for one in train]


def rows_of_arm(name: str, recipe: Recipe, splits: Splits, task: Task, *, kept: Kept, progress: Progress) -> Rows:
    """Return what gives the rows of an arm, made of what the teacher has answered before; it isn't asked.

    Raises:
        RecipeError: the recipe has no such arm.
        DataError: the teacher hasn't answered everything yet.
    """
    augment = _augment_with(name, recipe)
    lesson = teaching.Lesson(recipe=recipe, splits=splits, task=task, decisions=tuple(kept.decisions))
    try:
        sifted = teaching.sift(lesson, replies=kept.replies, limits=teaching.Limits(max_calls=0), progress=progress)
    except BudgetSpent as error:
        raise DataError(
            f"--arm {name}: the teacher hasn't answered all that the recipe asks, and a sweep doesn't ask it; "
            "drllama plan tells what that takes, drllama filter asks"
        ) from error

    def rows(recipe: Recipe, train: Sequence[Example], seed: int) -> Sequence[TrainingRow]:
        there = {one.id for one in train}
        # With folds, what was made of a question that judges isn't to be trained on.
        candidates = tuple(
            one
            for one in sifted.filtered.kept
            if isinstance(one.example.origin, Synthetic) and there.issuperset(one.example.origin.parents)
        )
        stock = Stock(train=tuple(train), kept=candidates, votes=sifted.votes, seed=recipe.seed)
        arm = next(one for one in arms_of(augment, recipe.finetune, stock) if one.id == name)
        (found,) = rows_of(arm, stock, recipe.finetune, seed=seed).values()
        return found

    return rows


def refuse_unknown_arm(name: str, recipe: Recipe) -> None:
    """Refuse an arm that the recipe doesn't have, or whose rows hang on a student.

    Raises:
        RecipeError: the message says which arms there are.
    """
    augment = _augment_with(name, recipe)
    if augment.select.by != "all":
        raise RecipeError(
            f"--arm {name}: with augment.select.by={augment.select.by} a student chooses what the teacher works on, "
            "and a sweep has many; set it to all"
        )
    if recipe.finetune.synthetic_weight == "learned":
        raise RecipeError(
            f"--arm {name}: finetune.synthetic_weight=learned tries three weights for one student; sweep them: "
            "--set finetune.synthetic_weight=1 --grid finetune.synthetic_weight=0.25,0.5,1"
        )
    arms = [one.id for one in arms_of(augment, recipe.finetune, Stock(train=(), seed=recipe.seed))]
    if name not in arms:
        raise RecipeError(f"--arm {name}: the recipe has no such arm of equal updates; choose one of {', '.join(arms)}")


def _augment_with(name: str, recipe: Recipe) -> Augment:
    """Return what the recipe says of arms, without those that a sweep can't train."""
    if recipe.augment is None:
        raise RecipeError(f"--arm {name}: the recipe has no section augment, so no arms; leave --arm out")
    return recipe.augment.model_copy(update={"without_filter": (), "equal": (Equality.UPDATES,)})
