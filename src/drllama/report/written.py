"""How written answers are read, beside the scores of the same students: the lines of a table."""

from dataclasses import dataclass

from drllama.types import Estimate, Evaluation, Outcome, Run


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenLine:
    """One student's answers, taken in one way."""

    student: str
    how: str
    """``scores``, or the reader of what it wrote."""
    accuracy: Estimate
    macro_f1: Estimate
    counts: dict[str, int]
    """By outcome; they add up to the questions asked."""
    as_scored: int | None
    """Questions with the label that the scores choose; None: these are the scores."""


def written_lines(run: Run) -> tuple[WrittenLine, ...]:
    """Return for each student that wrote a line for its scores and one for each reader; none if no student did."""
    scored = {one.system: one for one in run.evaluations}
    lines: list[WrittenLine] = []
    for one in run.written:
        if all(line.student != one.student for line in lines):
            lines.append(_line(one.student, "scores", scored[one.student], None))
        lines.append(_line(one.student, one.reader.value, one.evaluation, scored[one.student]))
    return tuple(lines)


def _line(student: str, how: str, found: Evaluation, scored: Evaluation | None) -> WrittenLine:
    return WrittenLine(
        student=student,
        how=how,
        accuracy=found.metrics["accuracy"],
        macro_f1=found.metrics["macro_f1"],
        counts={outcome.value: found.counts[outcome] for outcome in Outcome},
        as_scored=None if scored is None else _num_alike(found, scored),
    )


def _num_alike(one: Evaluation, other: Evaluation) -> int:
    pairs = zip(one.predictions, other.predictions, strict=True)
    return sum(mine.choice == its.choice for mine, its in pairs if mine.choice is not None)
