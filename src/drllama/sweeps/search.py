"""How points are tried: all of a grid, a grid that is halved after each epoch, or a search by Optuna.

Nothing but the trainings is stored. Optuna's choices follow from its seed and from what it was told before, so a sweep
that was stopped makes the same choices again, and finds their trainings done.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from drllama.errors import MissingExtra
from drllama.recipe import value_text
from drllama.sweeps.request import Choices, Judge, Range, Settings
from drllama.sweeps.trainings import Point, Trainings, worth

if TYPE_CHECKING:
    import optuna

_DIGITS = 4
"""Of a number that a search draws: more would only be noise in commands and tables."""


def halved(points: Sequence[Point], trainings: Trainings, *, by: Judge) -> list[Point]:
    """Return the points; after each epoch the worse half of those still in training was given up."""
    found = dict(enumerate(points))
    alive = list(found)
    for epoch in range(1, max(point.recipe.finetune.epochs for point in points) + 1):
        reached = trainings.to_epoch([found[at] for at in alive], epoch)
        found.update(zip(alive, reached, strict=True))
        best_first = sorted(alive, key=lambda at: worth(found[at], by), reverse=True)
        alive = sorted(best_first[: math.ceil(len(alive) / 2)])
    return [found[at] for at in sorted(found)]


def searched(
    ranges: Mapping[str, Choices | Range],
    point_of: Callable[[Settings], Point],
    trainings: Trainings,
    *,
    trials: int,
    seed: int,
    halving: bool,
    by: Judge,
) -> list[Point]:
    """Return so many points, each drawn where the earlier ones were good; one that is drawn twice stands there once."""
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise MissingExtra("--search needs optuna; pip install 'drllama[sweep]', or give --grid") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    pruner = (
        optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=2)
        if halving
        else optuna.pruners.NopPruner()
    )
    study = optuna.create_study(
        direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed % 2**32), pruner=pruner
    )
    found: dict[str, Point] = {}
    for _ in range(trials):
        trial = study.ask()
        point = point_of({path: _drawn(trial, path, one) for path, one in ranges.items()})
        point = _tried(trial, point, trainings, by, stops=halving)
        found[str([value_text(value) for value in point.settings.values()])] = point
        if point.is_finished:
            study.tell(trial, worth(point, by)[0])
        else:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    return list(found.values())


def _tried(trial: "optuna.Trial", point: Point, trainings: Trainings, by: Judge, *, stops: bool) -> Point:
    last = point.recipe.finetune.epochs
    for epoch in range(1 if stops else last, last + 1):
        (point,) = trainings.to_epoch([point], epoch)
        trial.report(worth(point, by)[0], epoch)
        if trial.should_prune() and epoch < last:
            return point
    return point


def _drawn(trial: "optuna.Trial", path: str, asked: Choices | Range) -> object:
    match asked:
        case Choices(values=values):
            # Optuna keeps plain values only; a list is one of a setting's values here.
            return values[trial.suggest_categorical(path, range(len(values)))]
        case Range(low=low, high=high, is_whole=True, is_log=is_log):
            return trial.suggest_int(path, int(low), int(high), log=is_log)
        case Range(low=low, high=high, is_log=is_log):
            drawn = float(f"{trial.suggest_float(path, low, high, log=is_log):.{_DIGITS}g}")
            return min(max(drawn, low), high)
