"""Arms side by side: a line for each, and the questions that change sides between two of them."""

from collections.abc import Mapping, Sequence
from itertools import chain, zip_longest

from drllama.report.contents import ArmAnswer, ArmLine, FlippedItem, Flips, Role
from drllama.report.published import beside_arm
from drllama.types import Arm, ArmName, Cell, Example, Outcome, Published, Run

_CONTROLS = (ArmName.DUPLICATE_REAL, ArmName.EDA)


def arm_lines(run: Run, published: Published | None = None) -> tuple[ArmLine, ...]:
    """Return a line for each arm that has a student, in the order of the recipe."""
    return tuple(_arm_line(run, arm, published) for arm in run.arms if run.cells_of(arm))


def _arm_line(run: Run, arm: Arm, published: Published | None) -> ArmLine:
    cells = run.cells_of(arm)
    finetune = run.recipe.get("finetune")
    found = run.conclusion.arms if run.conclusion else ()
    return ArmLine(
        id=arm.id,
        name=arm.system,
        role=role_of(arm),
        dose=arm.dose,
        equality=arm.equality,
        num_real=arm.num_real,
        num_extra=arm.num_extra,
        num_updates=cells[0].finetuned.num_steps,
        on_dev=sum(cell.on_dev for cell in cells) / len(cells),
        is_chosen=arm.id == run.chosen_arm,
        summary=next((one for one in run.summaries if one.arm == arm.system), None),
        effects=tuple(one for one in run.effects if one.arm == arm.system),
        finding=next((one.finding for one in found if one.arm == arm.system), None),
        published=beside_arm(published, arm.name, finetune)
        if published and isinstance(finetune, Mapping) and arm.dose == 1 and arm.equality is run.arms[0].equality
        else (),
        without_filter=arm.switched_off.filter if arm.switched_off else None,
    )


def role_of(arm: Arm) -> Role:
    """Return what an arm is there for."""
    if arm.name is ArmName.NONE:
        return Role.BASELINE
    return Role.CONTROL if arm.name in _CONTROLS else Role.GENERATED


def focal_arm(run: Run) -> tuple[Arm, Arm] | None:
    """Return the arm that readers want to look into, and its baseline: of those that made the verdict the best on dev.

    None: the verdict is about none.
    """
    if run.conclusion is None:
        return None
    by_system = {arm.system: arm for arm in run.arms}
    arms = [by_system[one.arm] for one in run.conclusion.arms if one.finding is run.conclusion.finding]
    best = max(arms, key=lambda arm: mean_on_dev(run.cells_of(arm)))
    return best, by_system[run.conclusion.baselines[0]]


def mean_on_dev(cells: Sequence[Cell]) -> float:
    """Return the mean of what dev came to."""
    return sum(cell.on_dev for cell in cells) / len(cells)


def flips_of(run: Run, pair: tuple[Arm, Arm], asked: Mapping[str, Example], *, most: int) -> Flips:
    """Return the questions that one arm gets right more, or less, often than the other, at most so many with text."""
    effect = next(one for one in run.effects if (one.arm, one.baseline) == (pair[0].system, pair[1].system))
    alike = [arm for arm in run.arms if arm.equality is pair[0].equality and arm.switched_off is None]
    shown = [arm for arm in alike if arm.dose == pair[0].dose or arm in pair]
    cells = {
        arm.system: [cell for cell in run.cells_of(arm) if cell.seed in effect.seeds]
        for arm in dict.fromkeys((pair[1], pair[0], *shown))
    }
    return flips_between(cells, arm=effect.arm, baseline=effect.baseline, asked=asked, most=most)


def flips_between(
    cells: Mapping[str, Sequence[Cell]], *, arm: str, baseline: str, asked: Mapping[str, Example], most: int
) -> Flips:
    """Return the questions that change sides between two arms, with the answers of all arms to the first of them.

    ``cells`` are the students of each arm, seed by seed, all asked the same questions in the same order; ``asked``
    their texts, where they are known.
    """
    right, before = _num_right(cells[arm]), _num_right(cells[baseline])
    totals = {place: mine - theirs for place, (mine, theirs) in enumerate(zip(right, before, strict=True))}
    order = sorted(totals, key=lambda place: (-abs(totals[place]), _id(cells[arm], place)))
    gained, lost = ([place for place in order if totals[place] * sign > 0] for sign in (1, -1))
    by_turns = [place for place in chain.from_iterable(zip_longest(gained, lost)) if place is not None]
    return Flips(
        arm=arm,
        baseline=baseline,
        num_gained=len(gained),
        num_lost=len(lost),
        items=tuple(_item(cells, place, (right[place], before[place]), asked) for place in by_turns[:most]),
    )


def _num_right(cells: Sequence[Cell]) -> list[int]:
    """Return for each question the seeds in which it was answered rightly."""
    marks = [[one.outcome is Outcome.CORRECT for one in cell.evaluation.predictions] for cell in cells]
    return [sum(one) for one in zip(*marks, strict=True)]


def _id(cells: Sequence[Cell], place: int) -> str:
    return cells[0].evaluation.predictions[place].example_id


def _item(
    cells: Mapping[str, Sequence[Cell]], place: int, right: tuple[int, int], asked: Mapping[str, Example]
) -> FlippedItem:
    first = next(iter(cells.values()))[0].evaluation.predictions[place]
    example = asked.get(first.example_id)
    return FlippedItem(
        example_id=first.example_id,
        source_id=first.source_id,
        question=example.question if example else "",
        context=example.context if example else "",
        gold=first.gold,
        num_right=right[0],
        num_right_before=right[1],
        answers=tuple(
            ArmAnswer(arm=arm, choices=tuple(cell.evaluation.predictions[place].choice for cell in some))
            for arm, some in cells.items()
        ),
    )
