"""Writing requests to a teacher: which template, which values, which rollout."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from drllama.errors import TeacherFailure
from drllama.parsing import answer_schema, judge_schema, new_schema, rewrite_schema
from drllama.prompts import teacher_prompt
from drllama.protocols import Replies, Teacher
from drllama.recipe import (
    Audit,
    Augment,
    Endpoint,
    Judge,
    LabelKept,
    LocalTeacher,
    New,
    Recipe,
    Rewrite,
    Sampling,
)
from drllama.types import Example, FailureKind, Message, ReplyForm, Task, TeacherRequest
from drllama.types import Sampling as SentSampling

_NEW_WITH_OPTIONS = "new-options.v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Correspondent:
    """Whom requests go to, and how structured replies are asked for there."""

    endpoint: str
    model: str
    form: ReplyForm
    dialect: str = "openai"
    """In which words sampling settings are sent."""

    def rewrite(
        self, example: Example, task: Task, augment: Augment, settings: Rewrite, rollout: int
    ) -> TeacherRequest:
        """Return the request for one rewrite of a training example."""
        values = {
            "instruction": task.instruction,
            "labels": task.labels,
            "context": example.context,
            "question": example.question,
            "label": example.label,
            "long_answer": example.long_answer,
            "options": _options(example, task),
            "retell_context": settings.retell_context,
        }
        schema = rewrite_schema(retell_context=settings.retell_context)
        return self._request(settings.prompt, values, schema, augment.sampling, rollout)

    def new(self, example: Example, task: Task, augment: Augment, settings: New, rollout: int) -> TeacherRequest:
        """Return the request for new questions on a training example's context; with options if it has them."""
        shares = settings.balance or {}
        values = {
            "instruction": task.instruction,
            "labels": task.labels,
            "context": example.context,
            "question": example.question,
            "options": _options(example, task),
            "count": settings.per_item,
            "balance": ", ".join(f"{label} {share:.0%}" for label, share in shares.items()),
        }
        schema = new_schema(task.labels, settings.per_item, with_options=bool(example.options))
        prompt = _NEW_WITH_OPTIONS if example.options else settings.prompt
        return self._request(prompt, values, schema, augment.sampling, rollout)

    def answer(self, example: Example, task: Task, asking: Audit | LabelKept, rollout: int = 0) -> TeacherRequest:
        """Return the request for a blind answer: neither label nor long answer is in it."""
        values = {
            "instruction": task.instruction,
            "labels": task.labels,
            "context": example.context,
            "question": example.question,
            "options": _options(example, task),
        }
        return self._request(asking.prompt, values, answer_schema(task.labels), asking.sampling, rollout)

    def judge(self, example: Example, source: Example, task: Task, judge: Judge) -> TeacherRequest:
        """Return the request for a judgement of a candidate by its source's context."""
        values = {
            "instruction": task.instruction,
            "labels": task.labels,
            "context": source.context,
            "question": example.question,
            "label": example.label,
            "long_answer": example.long_answer,
            "options": _options(example, task),
        }
        return self._request(judge.prompt, values, judge_schema(task.labels), judge.sampling, 0)

    def probe(self, audit: Audit) -> TeacherRequest:
        """Return a small request that only an endpoint that knows this form of reply answers."""
        values = {
            "instruction": "Answer with yes or no.",
            "labels": ("yes", "no"),
            "context": "",
            "question": "Is ice frozen water?",
            "options": [],
        }
        return self._request(audit.prompt, values, answer_schema(("yes", "no")), audit.sampling, 0)

    def _request(
        self, version: str, values: Mapping[str, object], schema: Mapping[str, object], sampling: Sampling, rollout: int
    ) -> TeacherRequest:
        prompt = teacher_prompt(version)
        messages: tuple[Message, ...] = prompt.render(**values)
        return TeacherRequest(
            endpoint=self.endpoint,
            model=self.model,
            prompt=prompt.version,
            prompt_sha256=prompt.sha256,
            messages=messages,
            sampling=SentSampling(
                temperature=sampling.temperature,
                max_tokens=sampling.max_tokens,
                top_p=sampling.top_p,
                repetition_penalty=sampling.repetition_penalty,
            ),
            form=self.form,
            schema=schema,
            rollout=rollout,
            dialect=self.dialect,
        )


def _options(example: Example, task: Task) -> list[tuple[str, str]]:
    return list(zip(task.labels, example.options, strict=True)) if example.options else []


def known_correspondent(recipe: Recipe, endpoint: str, replies: Replies) -> Correspondent:
    """Return the correspondent at an endpoint as far as can be told without asking: for plans and recordings."""
    assert recipe.teacher is not None, "a recipe without a teacher has no correspondent"
    form = ReplyForm.PROMPT if isinstance(recipe.teacher, LocalTeacher) else ReplyForm.SCHEMA
    dialect = recipe.teacher.dialect if isinstance(recipe.teacher, Endpoint) else "openai"
    strictest = Correspondent(endpoint=endpoint, model=recipe.teacher.model, form=form, dialect=dialect)
    if isinstance(recipe.teacher, Endpoint):
        for form in ReplyForm:
            candidate = replace(strictest, form=form)
            if replies.find(candidate.probe(recipe.audit).key):
                return candidate
    return strictest


async def probed_correspondent(
    recipe: Recipe, known: Correspondent, teacher: Teacher, replies: Replies
) -> Correspondent:
    """Return the correspondent with the strictest form of reply that the endpoint knows; found out once, then kept.

    Raises:
        TeacherFailure: even a plain request is refused.
    """
    if not isinstance(recipe.teacher, Endpoint) or replies.find(known.probe(recipe.audit).key):
        return known
    last: TeacherFailure | None = None
    for form in ReplyForm:
        candidate = replace(known, form=form)
        try:
            await teacher.ask(candidate.probe(recipe.audit))
        except TeacherFailure as failure:
            if failure.kind != FailureKind.BAD_REQUEST:
                raise
            last = failure
            continue
        return candidate
    raise TeacherFailure(
        f"{last}: even a plain request to {known.model} is refused; check teacher.model and teacher.base_url",
        kind=FailureKind.BAD_REQUEST,
    )
