"""The plain-English sentences at the top of a report, and what they may not claim."""

from collections import Counter
from collections.abc import Mapping

from drllama.types import ArmName, Equality, Estimate, Evaluation, Run

_WITH_NEW = (ArmName.NEW, ArmName.COMBINED, ArmName.SYNTHETIC_ONLY)
_ALPHA = 0.05


def summary(run: Run, finetuned: Evaluation) -> str:
    """Return one sentence: the fine-tuned student's accuracy, next to the baselines'."""
    accuracy = finetuned.metrics["accuracy"]
    text = (
        f"After fine-tuning {run.student.model} on {_counted(run.cell().finetuned.num_examples, 'question')}"
        f"{_generated(run)}, accuracy on "
        f"{_counted(accuracy.n, f'{finetuned.split} question')} is {_shown(accuracy)}"
    )
    others = []
    if (majority := _named(run, "majority")) is not None:
        others.append(f"{_always(majority)} gives {_shown(majority.metrics['accuracy'])}")
    if (untrained := _named(run, "untrained")) is not None:
        others.append(f"the untrained student {_shown(untrained.metrics['accuracy'])}")
    return "; ".join([text, *others]) + "."


def verdict(run: Run, finetuned: Evaluation) -> str:
    """Return how the fine-tuned student's interval lies to the majority baseline; empty where there is no baseline."""
    majority = _named(run, "majority")
    if majority is None:
        return ""
    accuracy, to_beat = finetuned.metrics["accuracy"], majority.metrics["accuracy"].value
    rival = _always(majority)
    if to_beat < accuracy.low:
        return (
            "The whole interval lies above the majority baseline: "
            f"on these questions the student is better than {rival}."
        )
    if to_beat > accuracy.high:
        return (
            "The whole interval lies below the majority baseline: "
            f"on these questions the student is worse than {rival}."
        )
    return (
        f"The interval includes the majority baseline: this run does not show that the student is better than {rival}."
    )


def effects(run: Run) -> tuple[str, ...]:
    """Return what the generated rows changed: what is concluded over the seeds, or each arm of the only seed."""
    if run.conclusion and len(run.summaries[0].seeds) > 1:
        return (run.conclusion.sentence,)
    told = []
    by_updates = {cell.evaluation.system for cell in run.cells if run.arm(cell.arm).equality is Equality.UPDATES}
    for one in run.comparisons:
        difference = one.difference
        side = "above" if difference.low > 0 else "below" if difference.high < 0 else None
        if side is None:
            found = "the interval includes 0, so this run shows no difference"
        elif one.p_value < _ALPHA:
            found = f"the interval lies {side} 0"
        else:
            found = f"the interval lies {side} 0, but the exact test doesn't exclude chance"
        told.append(
            f"{one.other} against {one.baseline}, at the same number of "
            f"{'updates' if one.other in by_updates else 'passes'}: {one.metric} {difference.value:+.3f} "
            f"[{difference.low:+.3f}, {difference.high:+.3f}], {one.gained} questions gained and {one.lost} lost "
            f"(McNemar p = {one.p_value:.2g}): {found}."
        )
    return tuple(told)


def notes(run: Run, finetuned: Evaluation) -> tuple[str, ...]:
    """Return what a reader must know before quoting a number."""
    found = []
    source = run.recipe["data"]
    if isinstance(source, Mapping) and "pubmedqa-demo" in source:
        found.append(
            "Demonstration data: this student was trained on part of the official PubMedQA test half, "
            "so it must not be scored on the official test set."
        )
    if run.taught and not run.taught.audit.may_write_new and any(arm.name in _WITH_NEW for arm in run.arms):
        found.append(
            "The teacher wrote new questions although it isn't clearly better than the majority answer: their labels "
            "may be no better than guesses."
        )
    if run.taught and not sum(run.taught.funnel[-1].counts.values()):
        found.append("The filters kept none of the teacher's rows: the arms that were to have some had none.")
    choices = {prediction.choice for prediction in finetuned.predictions}
    if len(choices) == 1 and (choice := finetuned.predictions[0].choice) is not None:
        found.append(f"The fine-tuned student answered '{choice}' to every question.")
    if (silent := sum(prediction.choice is None for prediction in finetuned.predictions)) > 0:
        found.append(
            f"{_counted(silent, 'question')} of {len(finetuned.predictions)} got no answer; "
            "accuracy and macro-F1 count that as not correct."
        )
    if len(run.arms) > 1:
        found.append(
            f"Of {len(run.arms)} arms the report is about '{run.arm().system}': it was best on dev; test had no say."
        )
    if run.num_unfinished:
        found.append(
            f"{_counted(run.num_unfinished, 'student')} of {len(run.cells) + run.num_unfinished} are still to be "
            "trained: the same command goes on with them."
        )
    if machines := _machines(run):
        found.append(machines)
    if len({cell.seed for cell in run.cells}) == 1:
        found.append(
            f"One training run{'' if len(run.arms) == 1 else ' for each arm'} with one seed: the intervals tell how "
            "much the numbers depend on which questions were asked, not how much they depend on the luck of training."
        )
    return tuple(found)


def _machines(run: Run) -> str:
    """Return where the students were trained, if not all of them here."""
    brought = sum(cell.brought for cell in run.cells)
    places = Counter(f"{cell.ran.device}, {cell.ran.processor}, {cell.ran.dtype}" for cell in run.cells)
    if not brought and len(places) == 1:
        return ""
    told = "; ".join(f"{number} on {place}" for place, number in sorted(places.items()))
    return (
        f"{brought} of {_counted(len(run.cells), 'student')} weren't trained in this sitting: their results were taken "
        f"from files ({told})."
    )


def _generated(run: Run) -> str:
    arm = run.arm()
    if not arm.num_extra:
        return ""
    made = {ArmName.DUPLICATE_REAL: "copies of others", ArmName.EDA: "edits of others"}
    return f" ({arm.num_extra:,} of them {made.get(arm.name, 'written by the teacher')})"


def _named(run: Run, system: str) -> Evaluation | None:
    return next((evaluation for evaluation in run.evaluations if evaluation.system == system), None)


def _always(majority: Evaluation) -> str:
    return f"always answering '{majority.predictions[0].choice}'"


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _shown(estimate: Estimate) -> str:
    return f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"
