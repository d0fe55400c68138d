"""The story of a run, one line a stage; each stage's result is kept under the fingerprint of all it depends on."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from drllama import plugins
from drllama.environment import environment
from drllama.errors import DataError, OverlapError
from drllama.ids import derive_seed, fingerprint
from drllama.prompts import student_prompt
from drllama.protocols import TRAINING_COST, Progress, Student
from drllama.recipe import Recipe, as_yaml, resolve
from drllama.report import report_contents, report_html, report_json, report_markdown
from drllama.stages.evaluate import evaluate
from drllama.stages.score import refuse_seen, score
from drllama.store import Step, Store
from drllama.types import Evaluation, Example, Finetuned, Original, Prediction, Run, SplitName, Splits, Task

# A change of what a stage computes from the same input changes its number here, and with it the key of its results.
_SCORING, _TRAINING = 1, 1


def run(recipe: Recipe, *, store: Store, progress: Progress, command: str) -> Run:
    """Carry out a recipe, reusing every step whose result is already stored, and return the run.

    Raises:
        DrLlamaError: something that a person can mend; what was finished is kept.
    """
    progress.work("reading the questions")
    splits, task = _questions(recipe)
    progress.work(f"loading student {recipe.student.model} (the first time, its weights are unpacked: about a minute)")
    student = plugins.make_student(recipe, task)
    keys = _Keys(recipe, splits, task, student)
    run_id = f"{recipe.name}-{fingerprint([keys.recipe, keys.tuned])[:8]}"
    if store.has_run(run_id):
        return store.run(run_id)
    progress.expect(_work_ahead(store, keys, recipe, splits))

    untrained = _scored(store, keys.untrained, student, splits.test, "the untrained student", progress)
    tuned = _finetuned(store, keys.adapter, student, splits, recipe, progress)
    refuse_seen(student.wear(tuned.folder / "adapter"), splits.test, where=recipe.name)
    answers = _scored(store, keys.tuned, student, splits.test, "the fine-tuned student", progress)

    progress.work("counting and writing the report")
    evaluations = evaluate(
        {"untrained": untrained.result, "fine-tuned": answers.result},
        train=splits.train,
        asked=splits.test,
        split="test",
        task=task,
        recipe=recipe,
    )
    finished = Run(
        id=run_id,
        finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
        command=command,
        recipe=recipe.model_dump(mode="json"),
        task=task,
        environment=environment(),
        student=student.card,
        split_sizes={"train": len(splits.train), "dev": len(splits.dev), "test": len(splits.test)},
        steps=(untrained.record, tuned.record, answers.record),
        finetuned=tuned.result,
        evaluations=evaluations,
    )
    store.save_run(finished, _report_files(finished, splits.test, worst=recipe.report.worst_mistakes))
    return finished


def evaluate_run(
    finished: Run, *, split: SplitName, on: Recipe | None, store: Store, progress: Progress
) -> tuple[Evaluation, ...]:
    """Score a finished run's student on a split of its own data, or of another recipe's, beside the baselines.

    Raises:
        OverlapError: the split holds examples that the student was trained on.
    """
    recipe = resolve(finished.recipe).recipe
    asked_of = recipe if on is None else on.model_copy(update={"student": recipe.student, "seed": recipe.seed})
    source = plugins.make_source(asked_of)
    splits = source.load()
    if source.task.labels != finished.task.labels:
        raise DataError(
            f"run {finished.id} answers {', '.join(finished.task.labels)}, the questions want "
            f"{', '.join(source.task.labels)}; choose questions with the same labels"
        )
    student = plugins.make_student(recipe, finished.task)
    asked = splits.named(split)
    seen = student.wear(store.step_folder(finished, "finetune") / "adapter")
    refuse_seen(seen, asked, where=f"run {finished.id}, split {split}")
    (adapter,) = (step.key for step in finished.steps if step.stage == "finetune")
    key = {"adapter": adapter, **_Keys(recipe, splits, finished.task, student).scoring(asked)}
    progress.expect(0 if store.has("score", key) else len(asked))
    answers = _scored(store, key, student, asked, "the fine-tuned student", progress)
    return evaluate(
        {"fine-tuned": answers.result}, train=splits.train, asked=asked, split=split, task=finished.task, recipe=recipe
    )


def ask(finished: Run, question: str, context: str, *, store: Store) -> Prediction:
    """Return a finished run's answer to one question.

    Raises:
        DataError: the question is empty.
    """
    if not question.strip():
        raise DataError("the question is empty; write one in quotes, such as 'Does aspirin help?'")
    recipe = resolve(finished.recipe).recipe
    student = plugins.make_student(recipe, finished.task)
    student.wear(store.step_folder(finished, "finetune") / "adapter")
    origin = Original(source="ask", source_id="question")
    example = Example(
        question=question, context=context, label=finished.task.labels[0], split="test", group="ask", origin=origin
    )
    (answer,) = student.score([example])
    return answer


class _Keys:
    """What each step depends on, as plain JSON values."""

    def __init__(self, recipe: Recipe, splits: Splits, task: Task, student: Student) -> None:
        self._student = {
            "weights": student.card.weights_sha256,
            "tokenizer": student.card.tokenizer_sha256,
            "dtype": student.card.dtype,
            "device": student.card.device.partition(",")[0],
            "prompt": student_prompt(recipe.student.prompt).sha256,
            "max_tokens": recipe.student.max_tokens,
            "keep_context": recipe.student.keep_context,
            "labels": [[label, task.verbalizers[label]] for label in task.labels],
        }
        self.recipe = recipe.model_dump(mode="json")
        self.untrained = self.scoring(splits.test)
        self.adapter = {
            "code": _TRAINING,
            "student": self._student,
            "train": _content(splits.train),
            "dev": _content(splits.dev),
            # An update is the same whatever the micro batch is, up to rounding.
            "settings": recipe.finetune.model_dump(mode="json", exclude={"micro_batch_size"}),
            "seed": recipe.seed,
        }
        self.tuned = {"adapter": fingerprint(self.adapter), **self.untrained}

    def scoring(self, asked: Sequence[Example]) -> dict[str, object]:
        """Return what a bare student's answers depend on."""
        return {"code": _SCORING, "student": self._student, "asked": _content(asked)}


def _content(examples: Sequence[Example]) -> str:
    """Return the fingerprint of all that a student could see of the examples; letter case counts here."""
    return fingerprint([[one.question, one.context, one.options, one.label] for one in examples])


def _report_files(finished: Run, asked: Sequence[Example], *, worst: int) -> dict[str, str]:
    contents = report_contents(finished, {one.id: one for one in asked}, worst=worst)
    return {
        "report.html": report_html(contents),
        "report.md": report_markdown(contents),
        "report.json": report_json(contents),
        "recipe.yaml": as_yaml(resolve(finished.recipe).recipe),
    }


def _work_ahead(store: Store, keys: _Keys, recipe: Recipe, splits: Splits) -> float:
    ahead = 0.0
    ahead += 0 if store.has("score", keys.untrained) else len(splits.test)
    ahead += 0 if store.has("score", keys.tuned) else len(splits.test)
    if not store.has("finetune", keys.adapter):
        ahead += recipe.finetune.epochs * (len(splits.train) * TRAINING_COST + len(splits.dev))
    return ahead


def _scored(
    store: Store, key: object, student: Student, asked: Sequence[Example], who: str, progress: Progress
) -> Step[tuple[Prediction, ...]]:
    def work(_: Path) -> tuple[Prediction, ...]:
        return score(student, asked, activity=f"scoring {who}", progress=progress)

    return store.step("score", key, tuple[Prediction, ...], work, on_wait=progress.work)


def _finetuned(
    store: Store, key: object, student: Student, splits: Splits, recipe: Recipe, progress: Progress
) -> Step[Finetuned]:
    def work(workspace: Path) -> Finetuned:
        return student.finetune(
            splits.train,
            splits.dev,
            settings=recipe.finetune,
            seed=derive_seed(recipe.seed, "finetune"),
            workspace=workspace,
            progress=progress,
        )

    return store.step("finetune", key, Finetuned, work, on_wait=progress.work)


def _questions(recipe: Recipe) -> tuple[Splits, Task]:
    source = plugins.make_source(recipe)
    splits = source.load()
    learnt = {one.id: one for one in (*splits.train, *splits.dev)}
    for one in splits.test:
        if one.id in learnt:
            raise OverlapError(
                f"{one.origin.source}: the same question stands in test ({one.origin.source_id}) and in "
                f"{learnt[one.id].split} ({learnt[one.id].origin.source_id}); delete one of them"
            )
    return splits, source.task
