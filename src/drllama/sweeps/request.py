"""What a person asks of a sweep: a grid or ranges to search, checked before anything is trained."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Literal, TypeAlias

from drllama.errors import RecipeError
from drllama.recipe import Recipe, recipe_of, value_text, values_of
from drllama.sweeps.rows import refuse_unknown_arm

Settings: TypeAlias = Mapping[str, object]
"""Values by dotted path."""
Judge = Literal["nll", "accuracy", "macro_f1"]
_VARIED = ("finetune", "student")


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """A setting's values, one of which is drawn."""

    values: tuple[object, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Numbers from low to high, both included."""

    low: float
    high: float
    is_whole: bool
    is_log: bool
    """Drawn evenly over the logarithm: each factor of ten is as likely as the next."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepRequest:
    """A recipe and what is to be varied in it."""

    path: Path
    text: str
    """The recipe's file as it was when the sweep began."""
    assignments: tuple[str, ...] = ()
    grid: tuple[str, ...] = ()
    """Such as ``finetune.epochs=1,2,3``; several make a product."""
    search: tuple[str, ...] = ()
    """Such as ``finetune.learning_rate=1e-4..1e-2`` or ``finetune.class_weights=none,balanced``."""
    trials: int | None = None
    seeds: int | None = None
    """Trainings of each point; None: as many as the recipe says."""
    folds: int | None = None
    halving: bool = False
    arm: str | None = None
    """Whose rows are trained on, by id; None: the real questions alone."""

    def recipe(self, settings: Settings | None = None) -> Recipe:
        """Return the recipe with these settings.

        Raises:
            RecipeError: a setting is unknown or out of range.
        """
        return recipe_of(self.text, self._assigned(settings or {}), where=str(self.path)).recipe

    @property
    def command(self) -> str:
        """Return what reproduces the sweep."""
        options = [
            *(word for one in self.grid for word in ("--grid", one)),
            *(word for one in self.search for word in ("--search", one)),
            *(() if self.trials is None else ("--trials", str(self.trials))),
            *(() if self.seeds is None else ("--seeds", str(self.seeds))),
            *(() if self.folds is None else ("--folds", str(self.folds))),
            *(("--halving",) if self.halving else ()),
            *(() if self.arm is None else ("--arm", self.arm)),
        ]
        return shlex.join(["drllama", "sweep", str(self.path), *_set(self.assignments), *options])

    def run_command(self, settings: Settings) -> str:
        """Return the command that runs the recipe with these settings."""
        return shlex.join(["drllama", "run", str(self.path), *_set(self._assigned(settings))])

    def _assigned(self, settings: Settings) -> tuple[str, ...]:
        seeds = () if self.seeds is None else (f"seeds={self.seeds}",)
        return (*self.assignments, *seeds, *(f"{path}={value_text(value)}" for path, value in settings.items()))

    def judge(self) -> Judge:
        """Return what the best settings are best in: what chooses the recipe's epochs."""
        rule = self.recipe().finetune.choose_epoch_by
        return "nll" if rule == "last" else rule

    def points(self) -> tuple[Settings, ...]:
        """Return the product of the grid's values, the first setting changing slowest.

        Raises:
            RecipeError: a setting can't be varied, or has a value that it can't have.
        """
        written = [_written(one, "--grid") for one in self.grid]
        paths = _paths([path for path, _ in written])
        points = tuple(
            dict(zip(paths, values, strict=True))
            for values in product(*(_values(path, text, "--grid") for path, text in written))
        )
        for settings in points:
            self.recipe(settings)
        return points

    def ranges(self) -> dict[str, Choices | Range]:
        """Return what is to be searched.

        Raises:
            RecipeError: a setting can't be varied, or has a value that it can't have.
        """
        written = [_written(one, "--search") for one in self.search]
        _paths([path for path, _ in written])
        return {path: self._range(path, text) for path, text in written}

    def _range(self, path: str, text: str) -> Choices | Range:
        low_text, dots, high_text = text.partition("..")
        values = [*values_of(low_text), *values_of(high_text)] if dots else list(_values(path, text, "--search"))
        for value in values:
            self.recipe({path: value})
        if not dots:
            return Choices(values=tuple(values))
        numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
        if len(numbers) != 2 or len(values) != 2 or numbers[0] >= numbers[1]:
            raise RecipeError(f"--search {path}={text}: write a range as LOW..HIGH, such as 1e-4..1e-2")
        low, high = numbers
        return Range(
            low=low,
            high=high,
            is_whole=isinstance(low, int) and isinstance(high, int) and self._is_whole(path, (low + high) // 2 + 0.5),
            is_log=low > 0 and high / low >= 10,
        )

    def _is_whole(self, path: str, between: float) -> bool:
        try:
            self.recipe({path: between})
        except RecipeError:
            return True
        return False


def checked(request: SweepRequest) -> SweepRequest:
    """Return the request if it can be carried out, as far as that can be told without reading a question.

    Raises:
        RecipeError: the recipe or an option is wrong; the message says how to write it.
    """
    recipe = request.recipe()
    if bool(request.grid) == bool(request.search):
        raise RecipeError(
            "a sweep varies settings by --grid or by --search, one of the two; "
            "such as --grid finetune.method.lora.alpha=16,64,256"
        )
    if request.trials is not None and not request.search:
        raise RecipeError("--trials is for --search; a grid tries each of its points")
    if request.arm is not None:
        refuse_unknown_arm(request.arm, recipe)
    varied = [*request.ranges()] if request.search else [*request.points()[0]]
    if request.halving and recipe.finetune.epochs == 1 and "finetune.epochs" not in varied:
        raise RecipeError("--halving stops settings after an epoch, and finetune.epochs is 1; set it to 2 or more")
    return request


def _paths(paths: Sequence[str]) -> list[str]:
    for path in paths:
        if path.partition(".")[0] not in _VARIED:
            raise RecipeError(
                f"'{path}' can't be swept: a sweep compares trainings on the same questions, so it varies "
                "settings of finetune and student; for several seeds give --seeds N"
            )
        if paths.count(path) > 1:
            raise RecipeError(f"'{path}' is swept twice; give all its values at once")
    return list(paths)


def _written(one: str, option: str) -> tuple[str, str]:
    path, equals, text = one.partition("=")
    if not equals or not path.strip() or not text.strip():
        example = "finetune.epochs=1,2,3" if option == "--grid" else "finetune.learning_rate=1e-4..1e-2"
        raise RecipeError(f"{option} {one}: write it as SETTING=VALUES, such as {option} {example}")
    return path.strip(), text.strip()


def _values(path: str, text: str, option: str) -> list[object]:
    values = values_of(text)
    texts = [value_text(value) for value in values]
    if twice := [one for one in texts if texts.count(one) > 1]:
        raise RecipeError(f"{option} {path}={text}: {twice[0]} stands there twice; give it once")
    return values


def _set(assignments: Sequence[str]) -> Iterator[str]:
    for one in assignments:
        yield from ("--set", one)
