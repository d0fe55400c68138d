"""What a report shows, gathered once from a run and free of any layout."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import exp
from statistics import median

from drllama.ids import canonical_json
from drllama.report.verdict import effects, notes, summary, verdict
from drllama.report.written import WrittenLine, written_lines
from drllama.types import (
    Arm,
    ArmName,
    Cell,
    ClassScores,
    Comparison,
    Diversity,
    DropCount,
    Epoch,
    Estimate,
    Evaluation,
    Example,
    Finetuned,
    FunnelStep,
    Label,
    LeakAudit,
    Outcome,
    Prediction,
    ReliabilityBin,
    Round,
    Run,
    SplitName,
    StepRecord,
    StudentCard,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """One system's numbers; its predictions are stored elsewhere."""

    name: str
    description: str
    """What it does, in a few words; empty for a system that the report doesn't know."""
    num_questions: int
    counts: dict[str, int]
    """By outcome."""
    metrics: dict[str, Estimate]
    per_class: tuple[ClassScores, ...]
    confusion: tuple[tuple[int, ...], ...]
    """Rows: gold labels; columns: chosen labels, then "no answer"."""
    reliability: tuple[ReliabilityBin, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Truncation:
    """How many contexts were cut, and by how much."""

    num_questions: int
    num_truncated: int
    median_cut_tokens: float
    """Over the truncated ones; 0 when there are none."""
    max_cut_tokens: int
    longest_input_tokens: int
    num_training: int
    num_training_truncated: int
    left_out: tuple[str, ...]
    """Training examples that don't fit at all, each with the reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistake:
    """A wrong answer with its text."""

    example_id: str
    source_id: str
    question: str
    context: str
    options: tuple[tuple[Label, str], ...]
    """The answers to choose from, each with its label; empty when the labels speak for themselves."""
    gold: Label
    choice: Label
    probabilities: dict[Label, float]
    """Over the labels; empty when the answer is a bare label."""
    truncated_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SilentNote:
    """Why questions have no answer."""

    outcome: str
    note: str
    num_questions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingValue:
    """One setting of the recipe."""

    path: str
    """Dotted, such as ``finetune.epochs``."""
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmLine:
    """One student: what it was trained on, how it did on dev, and how it differs on the questions asked."""

    system: str
    num_real: int
    num_extra: int
    """The teacher's, or a control's copies or edits."""
    num_steps: int
    chosen: Epoch
    """The epoch whose weights were kept."""
    is_chosen: bool
    """Best on dev of all arms."""
    against_real: Comparison | None
    """Against the arm without generated rows; None: it is that arm, or there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherLine:
    """Who wrote the generated rows, and whether it knows the domain."""

    model: str
    endpoint: str
    verdict: str
    """What follows from its blind answers to the dev questions."""
    systems: tuple[System, ...]
    """Majority, the untrained student where it was asked, and the teacher, on dev."""
    num_requests: int
    candidates: dict[str, int]
    """By method."""
    num_spare: int
    num_unparsed: int
    num_failed: int
    num_short: int
    methods: tuple[str, ...]
    """How rows were asked for: the columns of the next two."""
    rounds: tuple[Round, ...]
    """Empty where it worked on all training questions."""
    funnel: tuple[FunnelStep, ...]
    drops: tuple[DropCount, ...]
    """What stopped rows, the most frequent first."""
    diversity: tuple[Diversity, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportContents:
    """Everything that a report shows, top to bottom."""

    name: str
    run_id: str
    finished_at: str
    summary: str
    verdict: str
    """How the fine-tuned student stands to the majority baseline; empty where there is none."""
    effects: tuple[str, ...]
    """What the generated rows changed, a sentence for each arm that has some."""
    notes: tuple[str, ...]
    """What a reader must know before quoting a number."""
    task: str
    instruction: str
    labels: tuple[Label, ...]
    split: SplitName
    systems: tuple[System, ...]
    finetuned: System
    """The one of ``systems`` that the rest of the report is about: of several arms the one that was best on dev."""
    arms: tuple[ArmLine, ...]
    written: tuple[WrittenLine, ...]
    """How written answers are read; empty where none were asked for."""
    leaks: LeakAudit
    teacher: TeacherLine | None
    """None: no generated rows were asked for."""
    epochs: tuple[Epoch, ...]
    chosen_epoch: int
    num_steps: int
    trainable_parameters: int
    truncation: Truncation
    silent: tuple[SilentNote, ...]
    num_wrong: int
    mistakes: tuple[Mistake, ...]
    """The surest wrong answers, surest first."""
    student: StudentCard
    split_sizes: dict[SplitName, int]
    settings: tuple[SettingValue, ...]
    environment: dict[str, str]
    steps: tuple[StepRecord, ...]
    command: str


def report_contents(run: Run, asked: Mapping[str, Example], *, worst: int) -> ReportContents:
    """Return what a report of this run shows, with the text of so many of the surest mistakes.

    ``asked`` holds the scored questions by example id.

    Raises:
        ValueError: the run has evaluations of different splits.
    """
    cell = run.cell()
    finetuned, training = _finetuned(run, cell), cell.finetuned
    wrong = [prediction for prediction in finetuned.predictions if prediction.outcome is Outcome.WRONG]
    wrong.sort(key=lambda prediction: (-_confidence(prediction, finetuned.labels), prediction.example_id))
    systems = tuple(_system(run, evaluation) for evaluation in run.evaluations)
    return ReportContents(
        name=str(run.recipe["name"]),
        run_id=run.id,
        finished_at=run.finished_at,
        summary=summary(run, finetuned),
        verdict=verdict(run, finetuned),
        effects=effects(run),
        notes=notes(run, finetuned),
        task=run.task.name,
        instruction=run.task.instruction,
        labels=finetuned.labels,
        split=finetuned.split,
        systems=systems,
        finetuned=systems[run.evaluations.index(finetuned)],
        arms=tuple(_arm_line(run, one) for one in run.cells),
        written=written_lines(run),
        leaks=run.leaks,
        teacher=_teacher_line(run),
        epochs=training.epochs,
        chosen_epoch=training.chosen_epoch,
        num_steps=training.num_steps,
        trainable_parameters=training.trainable_parameters,
        truncation=_truncation(training, finetuned),
        silent=_silent(finetuned),
        num_wrong=len(wrong),
        mistakes=tuple(_mistake(prediction, asked, finetuned.labels) for prediction in wrong[:worst]),
        student=run.student,
        split_sizes=dict(run.split_sizes),
        settings=tuple(SettingValue(path=path, value=value) for path, value in _flat(run.recipe)),
        environment=dict(run.environment),
        steps=run.steps,
        command=run.command,
    )


def _finetuned(run: Run, cell: Cell) -> Evaluation:
    if len(splits := {evaluation.split for evaluation in run.evaluations}) > 1:
        raise ValueError(
            f"report: evaluations of {', '.join(sorted(splits))}; one table can't compare different splits"
        )
    return cell.evaluation


def _arm_line(run: Run, cell: Cell) -> ArmLine:
    arm, system = run.arm(cell.arm), cell.evaluation.system
    return ArmLine(
        system=system,
        num_real=arm.num_real,
        num_extra=arm.num_extra,
        num_steps=cell.finetuned.num_steps,
        chosen=cell.finetuned.epochs[cell.finetuned.chosen_epoch - 1],
        is_chosen=arm.id == run.chosen_arm,
        against_real=next((one for one in run.comparisons if one.other == system), None),
    )


def _teacher_line(run: Run) -> TeacherLine | None:
    if run.taught is None:
        return None
    audit = run.taught.audit
    asked = [audit.majority, *([audit.student] if audit.student else []), audit.teacher]
    return TeacherLine(
        model=run.taught.model,
        endpoint=run.taught.endpoint,
        verdict=audit.verdict,
        systems=tuple(_system(run, one) for one in asked),
        num_requests=run.taught.num_requests,
        candidates=dict(run.taught.candidates),
        num_spare=run.taught.num_spare,
        num_unparsed=run.taught.num_unparsed,
        num_failed=run.taught.num_failed,
        num_short=run.taught.num_short,
        methods=tuple(run.taught.funnel[0].counts),
        rounds=run.taught.rounds,
        funnel=run.taught.funnel,
        drops=run.taught.drops,
        diversity=run.taught.diversity,
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


def _flat(settings: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield each setting's dotted path and value; texts as they are, everything else as JSON."""
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value if isinstance(value, str) else canonical_json(value)
