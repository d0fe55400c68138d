"""A run's contents: what its report shows, gathered once."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from math import exp
from statistics import median

from drllama.ids import canonical_json
from drllama.report.contents import (
    CellLine,
    Mistake,
    ReportContents,
    SettingValue,
    SilentNote,
    StudentPart,
    System,
    TeacherPart,
    Truncation,
)
from drllama.report.lineup import arm_lines, flips_of, focal_arm
from drllama.report.verdict import about_majority, notes, summary
from drllama.report.written import written_lines
from drllama.types import (
    Arm,
    ArmName,
    Cell,
    Evaluation,
    Example,
    Finetuned,
    Label,
    Outcome,
    Prediction,
    Published,
    Ran,
    Run,
    Teaching,
)


def report_contents(
    run: Run, asked: Mapping[str, Example], *, worst: int, flipped: int, published: Published | None = None
) -> ReportContents:
    """Return what a report of this run shows, with the text of so many of the surest mistakes and flipped questions.

    ``asked`` holds the scored questions by example id; ``published`` stands beside the arms.

    Raises:
        ValueError: the run has evaluations of different splits.
    """
    if len(splits := {evaluation.split for evaluation in run.evaluations}) > 1:
        raise ValueError(f"report: evaluations of {', '.join(sorted(splits))}; one table shows one split")
    cell, focal = run.cell(), focal_arm(run)
    systems = tuple(_system(run, evaluation) for evaluation in run.evaluations)
    machines = tuple(dict.fromkeys(one.ran for one in run.cells))
    return ReportContents(
        name=str(run.recipe["name"]),
        run_id=run.id,
        finished_at=run.finished_at,
        verdict=run.conclusion.sentence if run.conclusion else about_majority(run) or summary(run),
        finding=run.conclusion.finding if run.conclusion else None,
        summary=summary(run),
        notes=notes(run, published),
        arms=arm_lines(run, published),
        conclusion=run.conclusion,
        worth=run.worth,
        majority=majority_of(run),
        published=published,
        flips=flips_of(run, focal, asked, most=flipped) if focal else None,
        teacher=_teacher(run),
        leaks=run.leaks,
        choices=run.choices,
        readings=run.readings,
        cells=tuple(cell_line(one, machines, system=one.evaluation.system) for one in run.cells),
        num_unfinished=run.num_unfinished,
        machines=machines,
        systems=systems,
        student=_student(cell, systems[run.evaluations.index(cell.evaluation)], asked, worst=worst),
        written=written_lines(run),
        task=run.task.name,
        instruction=run.task.instruction,
        labels=cell.evaluation.labels,
        split=cell.evaluation.split,
        split_sizes=dict(run.split_sizes),
        card=run.student,
        settings=tuple(SettingValue(path=path, value=value) for path, value in settings_of(run)),
        environment=dict(run.environment),
        steps=run.steps,
        command=run.command,
    )


def majority_of(run: Run) -> float | None:
    """Return the accuracy of always giving the most frequent training label; None where nobody asked."""
    return next((one.metrics["accuracy"].value for one in run.baselines if one.system == "majority"), None)


def settings_of(run: Run) -> Iterator[tuple[str, str]]:
    """Yield each setting's dotted path and value; texts as they are, everything else as JSON."""
    yield from _flat(run.recipe)


def _flat(settings: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value if isinstance(value, str) else canonical_json(value)


def cell_line(cell: Cell, machines: Sequence[Ran], *, system: str) -> CellLine:
    """Return where a student was trained, by this name."""
    return CellLine(
        system=system,
        chosen_epoch=cell.finetuned.chosen_epoch,
        num_epochs=len(cell.finetuned.epochs),
        on_dev=cell.on_dev,
        accuracy=cell.evaluation.metrics["accuracy"],
        train_seconds=cell.adapter.seconds,
        score_seconds=cell.scoring.seconds,
        finished_at=cell.scoring.finished_at,
        brought=cell.brought,
        machine=machines.index(cell.ran) + 1,
    )


def _teacher(run: Run) -> TeacherPart | None:
    if run.taught is None:
        return None
    audit = run.taught.audit
    asked = [audit.majority, *([audit.student] if audit.student else []), audit.teacher]
    return TeacherPart(
        **{field.name: getattr(run.taught, field.name) for field in fields(Teaching)},
        verdict=audit.verdict,
        systems=tuple(_system(run, one) for one in asked),
        methods=tuple(run.taught.funnel[0].counts),
    )


def _system(run: Run, evaluation: Evaluation) -> System:
    match evaluation.system:
        case "majority":
            description = "always the most frequent training label"
        case "prior":
            description = "the same answer, with the shares of the training labels as its probabilities"
        case "untrained":
            description = f"{run.student.model} before training"
        case system:
            cell = next((cell for cell in run.cells if cell.evaluation.system == system), None)
            description = f"{run.student.model} after training{_on(run, run.arm(cell.arm))}" if cell else ""
    return System(
        name=evaluation.system,
        description=description,
        num_questions=len(evaluation.predictions),
        counts={outcome.value: evaluation.counts[outcome] for outcome in Outcome},
        metrics=dict(evaluation.metrics),
        per_class=evaluation.per_class,
        confusion=evaluation.confusion,
        reliability=evaluation.reliability,
    )


def _on(run: Run, arm: Arm) -> str:
    """Return what an arm was trained on, where there are several."""
    if len(run.arms) == 1 and arm.name == ArmName.NONE:
        return ""
    written = f"{arm.num_extra:,} of the teacher's"
    match arm.name:
        case ArmName.SYNTHETIC_ONLY:
            return f" on {written} alone"
        case ArmName.DUPLICATE_REAL:
            written = f"{arm.num_extra:,} copies of them"
        case ArmName.EDA:
            written = f"{arm.num_extra:,} edits of them"
    real = f" on {arm.num_real:,} real rows"
    return f"{real} and {written}" if arm.num_extra else f"{real} alone"


def _student(cell: Cell, system: System, asked: Mapping[str, Example], *, worst: int) -> StudentPart:
    evaluation, training = cell.evaluation, cell.finetuned
    wrong = [prediction for prediction in evaluation.predictions if prediction.outcome is Outcome.WRONG]
    wrong.sort(key=lambda prediction: (-_confidence(prediction, evaluation.labels), prediction.example_id))
    return StudentPart(
        system=system,
        epochs=training.epochs,
        chosen_epoch=training.chosen_epoch,
        num_steps=training.num_steps,
        trainable_parameters=training.trainable_parameters,
        truncation=_truncation(training, evaluation),
        silent=_silent(evaluation),
        num_wrong=len(wrong),
        mistakes=tuple(_mistake(prediction, asked, evaluation.labels) for prediction in wrong[:worst]),
    )


def _truncation(training: Finetuned, evaluation: Evaluation) -> Truncation:
    cut = [prediction.truncated_tokens for prediction in evaluation.predictions if prediction.truncated_tokens]
    return Truncation(
        num_questions=len(evaluation.predictions),
        num_truncated=len(cut),
        median_cut_tokens=float(median(cut)) if cut else 0.0,
        max_cut_tokens=max(cut, default=0),
        longest_input_tokens=max((prediction.num_tokens for prediction in evaluation.predictions), default=0),
        num_training=training.num_examples,
        num_training_truncated=training.truncated_examples,
        left_out=training.left_out,
    )


def _silent(evaluation: Evaluation) -> tuple[SilentNote, ...]:
    found = Counter(
        (prediction.outcome.value, prediction.note)
        for prediction in evaluation.predictions
        if prediction.choice is None
    )
    return tuple(
        SilentNote(outcome=outcome, note=note, num_questions=number)
        for (outcome, note), number in sorted(found.items(), key=lambda item: (-item[1], item[0]))
    )


def _probabilities(prediction: Prediction, labels: Sequence[Label]) -> dict[Label, float]:
    if prediction.scores_nats is None:
        return {}
    top = max(prediction.scores_nats[label] for label in labels)
    odds = {label: exp(prediction.scores_nats[label] - top) for label in labels}
    return {label: odd / sum(odds.values()) for label, odd in odds.items()}


def _confidence(prediction: Prediction, labels: Sequence[Label]) -> float:
    """Return the chosen label's probability; below all others where the answer is a bare label."""
    probabilities = _probabilities(prediction, labels)
    if not probabilities or prediction.choice is None:
        return -1.0
    return probabilities[prediction.choice]


def _mistake(prediction: Prediction, asked: Mapping[str, Example], labels: Sequence[Label]) -> Mistake:
    assert prediction.choice is not None, f"{prediction.example_id}: a wrong answer without a choice"
    example = asked[prediction.example_id]
    return Mistake(
        example_id=prediction.example_id,
        source_id=prediction.source_id,
        question=example.question,
        context=example.context,
        options=tuple(zip(labels, example.options, strict=True)) if example.options else (),
        gold=prediction.gold,
        choice=prediction.choice,
        probabilities=_probabilities(prediction, labels),
        truncated_tokens=prediction.truncated_tokens,
    )
