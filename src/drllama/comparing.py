"""Finished runs held against each other, arm by arm, paired by question and seed."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from drllama import plugins
from drllama.errors import DataError, DrLlamaError
from drllama.ids import derive_seed, fingerprint
from drllama.recipe import resolve
from drllama.report import ComparisonContents, comparison_contents
from drllama.report.comparing import Compared, Contestant, setting_differences
from drllama.stages.arms import methods_of
from drllama.stats import by_teacher, effects_against, summarise_arms
from drllama.types import Arm, ArmAnswers, Attribution, Cell, Effect, Run


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A run, and which of its arms is to be compared."""

    run: Run
    arm: str | None
    """Its id; None: whatever the runs have in common."""


def compare(entries: Sequence[Entry], *, command: str) -> ComparisonContents:
    """Return how the later runs differ from the first.

    Without arms named, each arm that all runs have is held against the first run's; where they have none in common, it
    is the arm of each that was best on dev.

    Raises:
        DataError: there are fewer than two runs, a run has no such arm, or they can't be paired; the message says what
            differs.
    """
    runs = tuple({entry.run.id: entry.run for entry in entries}.values())
    if len(entries) < 2 or (len(runs) < len(entries) and any(entry.arm is None for entry in entries)):
        raise DataError(
            "compare needs two runs or more, each named once, or RUN:ARM; drllama runs lists those that there are"
        )
    first = runs[0]
    for other in runs[1:]:
        _refuse_unpaired(first, other)
    labels, rows = _labels(runs), _rows(entries)
    seeds = _shared_seeds(rows)
    grid = [[_contestant(labels[run.id], run, arm, seeds, first) for run, arm in row] for row in rows]
    names = [one.name for row in grid for one in row]
    if again := [name for name in names if names.count(name) > 1]:
        raise DataError(f"compare: '{again[0]}' is named twice; name it once")
    settings = resolve(first.recipe).recipe
    answers = [[_answers(one) for one in row] for row in grid]
    found = Compared(
        id=f"comparison-{fingerprint([[one.run.id, one.arm.id] for row in grid for one in row])[:8]}",
        made_at=datetime.now(UTC).isoformat(timespec="seconds"),
        labels=labels,
        runs=runs,
        contestants=tuple(one for row in grid for one in row),
        summaries=summarise_arms(
            [one for row in answers for one in row],
            first.task.labels,
            settings=settings.evaluate,
            seed=derive_seed(settings.seed, "bootstrap", "seeds"),
        ),
        effects=tuple(effect for row in answers for effect in _effects(row, first, level=settings.evaluate.level)),
        attributions=_by_teacher(grid, answers, level=settings.evaluate.level),
        notes=_notes(runs, rows, seeds),
        command=command,
    )
    try:
        asked = {one.id: one for one in plugins.make_source(settings).load().test}
    except DrLlamaError as error:
        found, asked = replace(found, notes=(*found.notes, f"The questions' texts can't be read any more: {error}")), {}
    return comparison_contents(found, asked, flipped=settings.report.flipped_questions)


_Row = tuple[tuple[Run, Arm], ...]


def _refuse_unpaired(first: Run, other: Run) -> None:
    """Refuse two runs whose students weren't asked the same."""
    both = f"runs {first.id} and {other.id}"
    if first.task.labels != other.task.labels:
        raise DataError(
            f"{both} have other labels: {', '.join(first.task.labels)} and {', '.join(other.task.labels)}; "
            "compare runs of one task"
        )
    mine, theirs = _golds(first), _golds(other)
    if mine.keys() != theirs.keys():
        raise DataError(
            f"{both} were asked different questions: {len(mine)} and {len(theirs)}, {len(mine.keys() & theirs.keys())} "
            "of them the same; compare runs with the same test split"
        )
    if changed := [name for name in mine if mine[name] != theirs[name]]:
        before, after = mine[changed[0]], theirs[changed[0]]
        raise DataError(
            f"{both} have other gold labels for {len(changed)} of the same questions, such as question {before[0]}: "
            f"{before[1]} and {after[1]}; compare runs on the same data"
        )


def _golds(run: Run) -> dict[str, tuple[str, str]]:
    """Return each question's source id and gold label, by example id."""
    return {one.example_id: (one.source_id, one.gold) for one in run.cells[0].evaluation.predictions}


def _labels(runs: Sequence[Run]) -> dict[str, str]:
    """Return what each run is called, by its id: its recipe's name, where that tells them apart."""
    names = {run.id: str(run.recipe["name"]) for run in runs}
    return names if len(set(names.values())) == len(names) else {run.id: run.id for run in runs}


def _rows(entries: Sequence[Entry]) -> list[_Row]:
    """Return what is held against what: in each row an arm of each run, the first run's first."""
    if any(entry.arm for entry in entries):
        return [tuple((entry.run, _arm(entry)) for entry in entries)]
    runs = [entry.run for entry in entries]
    common = [arm.id for arm in runs[0].arms if all(arm.id in {one.id for one in run.arms} for run in runs)]
    rows: list[_Row] = [tuple((run, run.arm(name)) for run in runs) for name in common]
    if not rows:
        return [tuple((run, run.arm()) for run in runs)]
    if differing := [row for row in rows if not _are_same(row)]:
        return differing
    told = " and ".join(run.id for run in runs)
    raise DataError(f"runs {told} trained the same students, so nothing differs; compare other runs")


def _arm(entry: Entry) -> Arm:
    there = [arm.id for arm in entry.run.arms]
    if entry.arm is not None and entry.arm not in there:
        raise DataError(f"run {entry.run.id} has no arm '{entry.arm}'; choose one of {', '.join(there)}")
    return entry.run.arm(entry.arm)


def _are_same(row: _Row) -> bool:
    return len({tuple((cell.seed, cell.fingerprint) for cell in run.cells_of(arm)) for run, arm in row}) == 1


def _shared_seeds(rows: Sequence[_Row]) -> set[int]:
    """Return the seeds that all arms have students of."""
    places = [(run, arm) for row in rows for run, arm in row]
    seeds = set.intersection(*({cell.seed for cell in run.cells_of(arm)} for run, arm in places))
    if not seeds:
        told = "; ".join(f"{run.id}: {arm.id} {sorted(cell.seed for cell in run.cells_of(arm))}" for run, arm in places)
        raise DataError(f"the arms have no seed in common ({told}); finish the runs first")
    return seeds


def _contestant(label: str, run: Run, arm: Arm, seeds: set[int], first: Run) -> Contestant:
    order = [one.example_id for one in first.cells[0].evaluation.predictions]
    cells = sorted((cell for cell in run.cells_of(arm) if cell.seed in seeds), key=lambda cell: cell.seed)
    return Contestant(
        name=f"{label}: {arm.system}", run=run, arm=arm, cells=tuple(_in_order(cell, order) for cell in cells)
    )


def _in_order(cell: Cell, order: Sequence[str]) -> Cell:
    by_id = {one.example_id: one for one in cell.evaluation.predictions}
    predictions = tuple(by_id[name] for name in order)
    return replace(cell, evaluation=replace(cell.evaluation, predictions=predictions))


def _answers(one: Contestant) -> ArmAnswers:
    return ArmAnswers(
        arm=one.name,
        seeds=tuple(cell.seed for cell in one.cells),
        answers=tuple(cell.evaluation.predictions for cell in one.cells),
    )


def _effects(row: Sequence[ArmAnswers], first: Run, *, level: float) -> tuple[Effect, ...]:
    names = [one.arm for one in row]
    return effects_against(names[0], names[1:], row, first.task.labels, level=level)


_OF_THE_TEACHER = ("teacher.", "audit.", "name", "allow_hosts", "cells", "report.")
"""Settings that say whom to ask and how a run is told; two runs that differ in these alone differ in their teacher."""


def _by_teacher(
    grid: Sequence[Sequence[Contestant]], answers: Sequence[Sequence[ArmAnswers]], *, level: float
) -> tuple[Attribution, ...]:
    """Return what each teacher's rows bring against those of the first run's, in each arm that has any."""
    runs = tuple({one.run.id: one.run for row in grid for one in row}.values())
    models = _teachers(runs)
    # Resolved, because a run of an earlier drllama lacks the settings that came since.
    whole = [replace(run, recipe=resolve(run.recipe).recipe.model_dump(mode="json")) for run in runs]
    differing = [one.path for one in setting_differences(whole) if not one.path.startswith(_OF_THE_TEACHER)]
    if differing or len(set(models.values())) < len(grid[0]):
        return ()
    return tuple(
        found
        for row, given in zip(grid, answers, strict=True)
        if methods_of(row[0].arm.name) and len({one.arm.id for one in row}) == 1
        for found in by_teacher(
            {models[one.run.id]: one.name for one in row},
            given,
            row[0].run.task.labels,
            where=row[0].arm.system,
            level=level,
        )
    )


def _teachers(runs: Sequence[Run]) -> dict[str, str]:
    """Return what each run's teacher is called, by the run's id: its model, where that tells them apart."""
    taught = {run.id: run.taught for run in runs if run.taught}
    models = {name: one.model for name, one in taught.items()}
    if len(set(models.values())) == len(models):
        return models
    return {name: f"{one.model} at {one.endpoint}" for name, one in taught.items()}


def _notes(runs: Sequence[Run], rows: Sequence[_Row], seeds: set[int]) -> tuple[str, ...]:
    """Return what a reader must know before quoting a number."""
    found = []
    if len({run.recipe["seed"] for run in runs}) > 1:
        found.append(
            "The runs' recipes have other seeds: students of one number didn't start alike, which makes intervals "
            "wider but not wrong."
        )
    there = {cell.seed for row in rows for run, arm in row for cell in run.cells_of(arm)}
    if there > seeds:
        found.append(f"Compared are the seeds that all have: {', '.join(map(str, sorted(seeds)))}.")
    compared = {arm.id for row in rows for _, arm in row}
    if left := [arm.id for arm in runs[0].arms if arm.id not in compared]:
        found.append(f"Not compared: {', '.join(left)} (the same students in all runs, or not in all runs).")
    if any(run.num_unfinished for run in runs):
        found.append("Some of the runs aren't finished: more seeds may come.")
    return tuple(found)
