"""The plain-English sentences of a report, and what they may not claim."""

from collections import Counter
from collections.abc import Mapping, Sequence

from drllama.types import ArmName, Choice, Conclusion, Estimate, Evaluation, Power, Published, Reading, Run, SplitName

_WITH_NEW = (ArmName.NEW, ArmName.COMBINED, ArmName.SYNTHETIC_ONLY)


def summary(run: Run) -> str:
    """Return one sentence: the accuracy of the student that is best on dev, next to the baselines'."""
    finetuned = run.cell().evaluation
    accuracy = finetuned.metrics["accuracy"]
    text = (
        f"After fine-tuning {run.student.model} on {counted(run.cell().finetuned.num_examples, 'question')}"
        f"{_generated(run)}, accuracy on "
        f"{counted(accuracy.n, f'{finetuned.split} question')} is {_shown(accuracy)}"
    )
    others = []
    if (majority := _named(run, "majority")) is not None:
        others.append(f"{_always(majority)} gives {_shown(majority.metrics['accuracy'])}")
    if (untrained := _named(run, "untrained")) is not None:
        others.append(f"the untrained student {_shown(untrained.metrics['accuracy'])}")
    return "; ".join([text, *others]) + "."


def about_majority(run: Run) -> str:
    """Return how the student's interval lies to the majority baseline; empty where there is no baseline."""
    majority = _named(run, "majority")
    if majority is None:
        return ""
    accuracy, to_beat = run.cell().evaluation.metrics["accuracy"], majority.metrics["accuracy"].value
    rival = _always(majority)
    if to_beat < accuracy.low:
        return f"Better than {rival}: the student's whole interval lies above it."
    if to_beat > accuracy.high:
        return f"Worse than {rival}: the student's whole interval lies below it."
    return f"Not shown to be better than {rival}: the student's interval includes it."


def readings_told(readings: Sequence[Reading], choices: Sequence[Choice], split: SplitName) -> str:
    """Return how often the questions were read, and by what everything was chosen."""
    if not readings:
        return "This run doesn't tell."
    systems = Counter(one.system for one in readings)
    times = f"The {split} questions were read {counted(len(readings), 'time')}"
    if max(systems.values()) == 1:
        told = f"{times}, once by each of {counted(len(systems), 'system')}"
    else:
        again = sorted(name for name, number in systems.items() if number > 1)
        told = f"{times}, more than once by {', '.join(again)}"
    splits = sorted({one.split for one in choices})
    return f"{told}; {counted(len(choices), 'choice')}, all made on {' and '.join(splits)}." if choices else f"{told}."


def power_told(power: Power, conclusion: Conclusion | None) -> str:
    """Return what could be seen at all, before the run and after it."""
    told = (
        f"{counted(power.num_questions, 'question')}, {counted(power.num_seeds, 'seed')}, "
        f"{counted(power.num_arms, 'arm')} against a baseline: "
    )
    if power.detectable is None:
        told += "before the run it had to be expected that no difference would be found four times in five."
    else:
        told += (
            f"before the run it could be said that a true difference of {100 * power.detectable:.1f} points would be "
            "found four times in five."
        )
    if conclusion is None:
        return told
    seen = ", ".join(f"'{one.arm}' {100 * one.detectable:.1f} points" for one in conclusion.arms)
    return f"{told} From how the answers did vary: {seen}."


def notes(run: Run, published: Published | None) -> tuple[str, ...]:
    """Return what a reader must know before quoting a number."""
    return tuple(
        note
        for note in (
            *_about_the_questions(run),
            *_about_the_rows(run),
            *_about_the_answers(run),
            *_about_the_students(run),
            *(_about_published(run, published) if published else ()),
        )
        if note
    )


def _about_the_questions(run: Run) -> list[str]:
    source = run.recipe["data"]
    if isinstance(source, Mapping) and "pubmedqa-demo" in source:
        return [
            "Demonstration data: this student was trained on part of the official PubMedQA test half, "
            "so it must not be scored on the official test set."
        ]
    return []


def _about_the_rows(run: Run) -> list[str]:
    if run.taught is None:
        return []
    found = []
    if not run.taught.audit.may_write_new and any(arm.name in _WITH_NEW for arm in run.arms):
        found.append(
            "The teacher wrote new questions although it isn't clearly better than the majority answer: their labels "
            "may be no better than guesses."
        )
    if not sum(run.taught.funnel[-1].counts.values()):
        found.append("The filters kept none of the teacher's rows: the arms that were to have some had none.")
    return found


def _about_the_answers(run: Run) -> list[str]:
    predictions = run.cell().evaluation.predictions
    found = [about_majority(run)] if run.conclusion else []
    if len({one.choice for one in predictions}) == 1 and (choice := predictions[0].choice) is not None:
        found.append(f"The fine-tuned student answered '{choice}' to every question.")
    if (silent := sum(one.choice is None for one in predictions)) > 0:
        found.append(
            f"{counted(silent, 'question')} of {len(predictions)} got no answer; "
            "accuracy and macro-F1 count that as not correct."
        )
    return found


def _about_the_students(run: Run) -> list[str]:
    found = []
    if run.num_unfinished:
        found.append(
            f"{counted(run.num_unfinished, 'student')} of {len(run.cells) + run.num_unfinished} are still to be "
            "trained: the same command goes on with them."
        )
    if machines := _machines(run):
        found.append(machines)
    if len({cell.seed for cell in run.cells}) == 1:
        found.append(
            f"One training run{'' if len(run.arms) == 1 else ' for each arm'} with one seed: the intervals tell how "
            "much the numbers depend on which questions were asked, not how much they depend on the luck of training."
        )
    return found


def _about_published(run: Run, published: Published) -> list[str]:
    students = ", ".join(dict.fromkeys(row.student for row in published.rows))
    found = [f"Published results beside ours: {published.source}, {students}. {published.note}"]
    source = run.recipe["data"]
    sections = source.values() if isinstance(source, Mapping) else ()
    if published.split not in {one.get("split") for one in sections if isinstance(one, Mapping)}:
        found.append(f"They are of the split '{published.split}', and this run isn't: they had other questions.")
    finetune = run.recipe["finetune"]
    ours = set(finetune["method"]) if isinstance(finetune, Mapping) else set()
    if not ours & (theirs := {row.method for row in published.rows}):
        found.append(f"They were trained by {' and '.join(sorted(theirs))}, this run's students by {', '.join(ours)}.")
    return found


def _machines(run: Run) -> str:
    """Return where the students were trained, if not all of them here."""
    brought = sum(cell.brought for cell in run.cells)
    places = Counter(f"{cell.ran.device}, {cell.ran.processor}, {cell.ran.dtype}" for cell in run.cells)
    if not brought and len(places) == 1:
        return ""
    told = f"Trained were {'; '.join(f'{number} on {place}' for place, number in sorted(places.items()))}."
    if not brought:
        return told
    whole = counted(len(run.cells), "student")
    return f"{brought} of {whole} weren't trained in this sitting: their results were taken from files. {told}"


def _generated(run: Run) -> str:
    arm = run.arm()
    if not arm.num_extra:
        return ""
    made = {ArmName.DUPLICATE_REAL: "copies of others", ArmName.EDA: "edits of others"}
    return f" ({arm.num_extra:,} of them {made.get(arm.name, 'written by the teacher')})"


def _named(run: Run, system: str) -> Evaluation | None:
    return next((evaluation for evaluation in run.baselines if evaluation.system == system), None)


def _always(majority: Evaluation) -> str:
    return f"always answering '{majority.predictions[0].choice}'"


def counted(number: int, noun: str) -> str:
    """Return a number with its noun in the right form."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _shown(estimate: Estimate) -> str:
    return f"{100 * estimate.value:.1f} % [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"
