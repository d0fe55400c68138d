"""Whether a teacher knows the domain: it answers the dev questions blind, and what follows is said."""

from collections import Counter
from collections.abc import Sequence

from drllama.errors import TeacherFailure
from drllama.ids import derive_seed
from drllama.parsing import parse_answer
from drllama.protocols import AnswerMany, Progress, Teacher
from drllama.recipe import Recipe
from drllama.stages.correspond import Correspondent
from drllama.stats import evaluate_predictions, majority_predictions
from drllama.types import Audit, Evaluation, Example, Outcome, Prediction, Reply, Task, Unparsed


async def audit_teacher(
    teacher: Teacher,
    ask_all: AnswerMany,
    *,
    correspondent: Correspondent,
    train: Sequence[Example],
    dev: Sequence[Example],
    task: Task,
    recipe: Recipe,
    progress: Progress,
) -> Audit:
    """Return how well the teacher answers the dev questions from their contexts alone.

    Raises:
        TeacherFailure: it answered none of them.
    """
    requests = [correspondent.answer(example, task, recipe.audit) for example in dev]
    # Two questions that read alike are one request: asked once, and counted for both.
    keys = [request.key for request in requests]
    outcomes: dict[str, Reply | TeacherFailure] = {}
    async for request, outcome in ask_all(teacher, dict(zip(keys, requests, strict=True)).values()):
        progress.work("auditing the teacher", 1)
        outcomes[request.key] = outcome
    asked = [outcomes[key] for key in keys]
    failed = [outcome for outcome in asked if isinstance(outcome, TeacherFailure)]
    if len(failed) == len(dev):
        raise TeacherFailure(f"no dev question got a reply; the first: {failed[0]}", kind=failed[0].kind)
    predictions = [_prediction(example, outcome, task) for example, outcome in zip(dev, asked, strict=True)]
    settings, seed = recipe.evaluate, derive_seed(recipe.seed, "bootstrap", "audit")
    found = evaluate_predictions(
        predictions, system="teacher", split="dev", labels=task.labels, settings=settings, seed=seed
    )
    majority = evaluate_predictions(
        majority_predictions(train, dev, task.labels),
        system="majority",
        split="dev",
        labels=task.labels,
        settings=settings,
        seed=seed,
    )
    clearly = found.metrics["accuracy"].low > majority.metrics["accuracy"].value
    return Audit(
        teacher=found,
        majority=majority,
        student=None,
        failures=Counter(str(failure) for failure in failed),
        may_write_new=clearly,
        verdict=_verdict(found, majority, num_failed=len(failed), clearly=clearly),
    )


def _prediction(example: Example, outcome: Reply | TeacherFailure, task: Task) -> Prediction:
    label = outcome if isinstance(outcome, TeacherFailure) else parse_answer(outcome.text, task)
    match label:
        case TeacherFailure():
            choice, result, note = None, Outcome.FAILED, str(label)
        case Unparsed(reason=reason):
            choice, result, note = None, Outcome.UNPARSED, reason
        case _:
            choice, note = label, ""
            result = Outcome.CORRECT if label == example.label else Outcome.WRONG
    return Prediction(
        example_id=example.id,
        source_id=example.origin.source_id,
        gold=str(example.label),
        choice=choice,
        outcome=result,
        scores_nats=None,
        num_tokens=0,
        truncated_tokens=0,
        note=note,
    )


def _verdict(teacher: Evaluation, majority: Evaluation, *, num_failed: int, clearly: bool) -> str:
    accuracy, baseline = teacher.metrics["accuracy"], majority.metrics["accuracy"].value
    without_reply = f"{num_failed} of which got no reply and count as wrong, " if num_failed else ""
    told = (
        f"accuracy {accuracy.value:.3f} [{accuracy.low:.3f}, {accuracy.high:.3f}] on {accuracy.n} dev questions, "
        f"{without_reply}majority {baseline:.3f}"
    )
    if clearly:
        return (
            f"The teacher is clearly better than the majority answer ({told}): it may rewrite and write new questions."
        )
    return (
        f"The teacher isn't clearly better than the majority answer ({told}): it may rewrite questions, whose labels "
        "are known, but should not write new ones, whose labels would be its guesses."
    )
