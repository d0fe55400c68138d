"""Arms: which rows a student is trained on, the real ones, the teacher's, a control's; and which arm is the best."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import ceil
from typing import Literal, assert_never

from drllama.ids import derive_seed
from drllama.recipe import Augment, Finetune, New, Rewrite
from drllama.stages.controls import copies, edits
from drllama.types import (
    Arm,
    ArmName,
    Candidate,
    Cell,
    Equality,
    Example,
    FilterName,
    Finetuned,
    SwitchedOff,
    Synthetic,
    TrainingRow,
    Unfiltered,
    Votes,
)

SYSTEMS = {
    ArmName.NONE: "fine-tuned",
    ArmName.REWRITE: "fine-tuned + rewrites",
    ArmName.NEW: "fine-tuned + new questions",
    ArmName.COMBINED: "fine-tuned + both",
    ArmName.SYNTHETIC_ONLY: "fine-tuned on both alone",
    ArmName.DUPLICATE_REAL: "fine-tuned + copies",
    ArmName.EDA: "fine-tuned + edits",
}
"""An arm's name among evaluations and in reports."""
JUDGED = (ArmName.REWRITE, ArmName.NEW, ArmName.COMBINED)
"""The teacher's rows beside the real ones: what the verdict is about."""
FILTERS_TOLD = {
    FilterName.FORM: "the form check",
    FilterName.DUPLICATES: "the check for duplicates",
    FilterName.LABEL: "the label check",
    FilterName.JUDGE: "the judge",
    FilterName.BALANCE: "balancing",
}
"""What reports call the filters that can be switched off."""

CONTROLS = (ArmName.DUPLICATE_REAL, ArmName.EDA)
_LEARNED_WEIGHTS = (1.0, 0.5, 0.25)
"""Those that are tried; of equals on dev the first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stock:
    """What arms are put together from."""

    train: tuple[Example, ...]
    kept: tuple[Candidate, ...] = ()
    """The teacher's rows that passed the filters."""
    votes: Mapping[str, Votes] = field(default_factory=dict)
    """Blind answers to them, by candidate id."""
    unfiltered: Mapping[FilterName, Unfiltered] = field(default_factory=dict)
    """What is kept without a filter, for each that is to be switched off."""
    seed: int
    """Of the recipe."""


def expected_stock(train: Sequence[Example], augment: Augment | None, *, seed: int) -> Stock:
    """Return a stand-in stock: every row that is asked for comes, says what its source says, and is kept.

    It tells how much there is to train, and isn't to be trained on.
    """
    sections: dict[Literal["rewrite", "new"], Rewrite | New | None] = (
        {"rewrite": augment.rewrite, "new": augment.new} if augment else {}
    )
    asked = [(method, one) for method, section in sections.items() if section for one in [*train] * section.per_item]
    kept = tuple(
        Candidate(
            example=replace(one, origin=Synthetic(method=method, parents=(one.id,), call="expected", place=place)),
            prompt="",
            rollout=0,
        )
        for place, (method, one) in enumerate(asked)
    )
    switched_off = augment.without_filter if augment else ()
    unfiltered = {name: Unfiltered(kept=kept) for name in switched_off}
    return Stock(train=tuple(train), kept=kept, unfiltered=unfiltered, seed=seed)


def methods_of(arm: ArmName) -> tuple[str, ...]:
    """Return how the teacher's rows that an arm trains on were made."""
    match arm:
        case ArmName.NONE | ArmName.DUPLICATE_REAL | ArmName.EDA:
            return ()
        case ArmName.REWRITE | ArmName.NEW:
            return (arm.value,)
        case ArmName.COMBINED | ArmName.SYNTHETIC_ONLY:
            return ("rewrite", "new")
        case _ as other:
            assert_never(other)


def arms_of(augment: Augment | None, settings: Finetune, stock: Stock) -> tuple[Arm, ...]:
    """Return the arms that a recipe wants, those of equal updates first if it names them first."""
    if augment is None:
        return (_arm(ArmName.NONE, 1.0, Equality.UPDATES, stock, num_control=0),)
    listed = [name for name in augment.arms if methods_of(name)] or [ArmName.COMBINED]
    num_control = max(len(_written(name, stock)) for name in listed)
    arms = []
    for equality in augment.equal:
        for name in augment.arms:
            # As long as nobody asks for other updates, an epoch of the real rows alone is the same in both ways.
            if name is ArmName.NONE and equality != augment.equal[0] and settings.updates is None:
                continue
            for dose in augment.doses if methods_of(name) else (1.0,):
                arms.append(_arm(name, dose, equality, stock, num_control=num_control))
    unfiltered = [_unfiltered_arm(name, augment, stock) for name in augment.without_filter]
    return (*arms, *unfiltered)


def baseline_of(equality: Equality, arms: Sequence[Arm], name: ArmName = ArmName.NONE) -> Arm | None:
    """Return the arm of this name that others are held against: of their equality, if there is one."""
    found = [arm for arm in arms if arm.name is name]
    return next((arm for arm in found if arm.equality is equality), next(iter(found), None))


def rows_of(arm: Arm, stock: Stock, settings: Finetune, *, seed: int) -> dict[float, tuple[TrainingRow, ...]]:
    """Return the training rows of an arm's student: the real ones, then the others, by the weight of these.

    There are several weights only where the weight is to be chosen on dev. ``seed``, from 1, draws the dose and the
    control's rows: their luck is part of what the seeds differ in.
    """
    real = [] if arm.name is ArmName.SYNTHETIC_ONLY else [TrainingRow(example=one) for one in stock.train]
    others = _others(arm, stock, derive_seed(stock.seed, "arms", seed), soft=settings.soft_labels == "votes")
    wanted = settings.synthetic_weight
    weights: tuple[float, ...] = _LEARNED_WEIGHTS if wanted == "learned" else (wanted,)
    if not others or not real:
        weights = (1.0,)  # Nothing weighs less than something else.
    return {
        weight: (*real, *(TrainingRow(example=one.example, weight=weight, target=one.target) for one in others))
        for weight in weights
    }


def all_rows(stock: Stock, settings: Finetune) -> tuple[TrainingRow, ...]:
    """Return the real rows and all of the teacher's; where the weight of these is to be chosen, they weigh 1."""
    arm = _arm(ArmName.COMBINED, 1.0, Equality.UPDATES, stock, num_control=0)
    return next(iter(rows_of(arm, stock, settings, seed=1).values()))


def worth_on_dev(finetuned: Finetuned, settings: Finetune) -> float:
    """Return how good the chosen epoch is on dev, by what chooses epochs; more is better."""
    return worths_on_dev(finetuned, settings)[finetuned.chosen_epoch - 1]


def worths_on_dev(finetuned: Finetuned, settings: Finetune) -> list[float]:
    """Return how good each epoch is on dev, by what chooses epochs; more is better."""
    match settings.choose_epoch_by:
        case "accuracy":
            return [epoch.dev_accuracy for epoch in finetuned.epochs]
        case "macro_f1":
            return [epoch.dev_macro_f1 for epoch in finetuned.epochs]
        case "nll" | "last":
            return [-epoch.dev_nll_nats for epoch in finetuned.epochs]


def arms_on_dev(cells: Sequence[Cell]) -> dict[str, float]:
    """Return what dev came to in the mean over each arm's students, by arm id; more is better."""
    by_arm: dict[str, list[float]] = {}
    for cell in cells:
        by_arm.setdefault(cell.arm, []).append(cell.on_dev)
    return {arm: sum(found) / len(found) for arm, found in by_arm.items()}


def _arm(name: ArmName, dose: float, equality: Equality, stock: Stock, *, num_control: int) -> Arm:
    written = len(_written(name, stock))
    marks = [f"{dose:g}"] * (dose != 1) + ["epochs"] * (equality is Equality.EPOCHS)
    told = [f"{dose:.0%} of them"] * (dose != 1) + ["equal epochs"] * (equality is Equality.EPOCHS)
    return Arm(
        id="-".join([name.value, *marks]),
        name=name,
        dose=dose,
        equality=equality,
        system=", ".join([SYSTEMS[name], *told]),
        num_real=0 if name is ArmName.SYNTHETIC_ONLY else len(stock.train),
        num_extra=num_control if name in CONTROLS else _dosed(dose, written),
    )


def _others(arm: Arm, stock: Stock, seed: int, *, soft: bool) -> Sequence[TrainingRow]:
    """Return the rows beside the real ones, each of weight 1."""
    match arm.name:
        case ArmName.DUPLICATE_REAL:
            return [TrainingRow(example=one) for one in copies(stock.train, arm.num_extra, seed=seed)]
        case ArmName.EDA:
            return [TrainingRow(example=one) for one in edits(stock.train, arm.num_extra, seed=seed)]
    written = _written(arm.name, stock, arm.switched_off)
    # One order for all doses and arms of a seed: what a small dose holds, a larger one holds too.
    drawn = sorted(range(len(written)), key=lambda place: (derive_seed(seed, "dose", written[place].id), place))
    return [
        TrainingRow(
            example=written[place].example, target=_shares(stock.votes.get(written[place].id)) if soft else None
        )
        for place in sorted(drawn[: _dosed(arm.dose, len(written))])
    ]


def _unfiltered_arm(filter: FilterName, augment: Augment, stock: Stock) -> Arm:
    """Return the largest judged arm with what is kept where one filter is switched off."""
    judged = [name for name in augment.arms if name in JUDGED]
    whole = max(judged, key=lambda name: (name is ArmName.COMBINED, len(_written(name, stock))))
    arm = _arm(whole, 1.0, augment.equal[0], stock, num_control=0)
    found = SwitchedOff(
        filter=filter, arm=arm.id, num_let_in=0, num_left_out=0, num_unanswered=stock.unfiltered[filter].num_unanswered
    )
    there = {one.id for one in _written(whole, stock)}
    here = {one.id for one in _written(whole, stock, found)}
    return replace(
        arm,
        id=f"{arm.id}-without-{filter}",
        system=f"{arm.system}, without {FILTERS_TOLD[filter]}",
        num_extra=len(here),
        switched_off=replace(found, num_let_in=len(here - there), num_left_out=len(there - here)),
    )


def _written(name: ArmName, stock: Stock, switched_off: SwitchedOff | None = None) -> list[Candidate]:
    kept = stock.unfiltered[switched_off.filter].kept if switched_off else stock.kept
    return [one for one in kept if _method(one) in methods_of(name)]


def _dosed(dose: float, number: int) -> int:
    return ceil(dose * number)


def _shares(votes: Votes | None) -> Mapping[str, float] | None:
    """Return the labels' shares of the readable answers; None where there are none."""
    answered = sum(votes.counts.values()) if votes else 0
    return {label: count / answered for label, count in votes.counts.items() if count} if votes and answered else None


def _method(candidate: Candidate) -> str:
    assert isinstance(candidate.example.origin, Synthetic), candidate
    return candidate.example.origin.method
