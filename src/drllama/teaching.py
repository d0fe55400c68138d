"""The stories around a teacher: plan, audit, preview and augment, each over the same store of replies."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from drllama import plugins
from drllama.errors import BatchPending, DataError, RecipeError, TeacherFailure
from drllama.ids import derive_seed
from drllama.protocols import AnswerMany, Progress, Teacher
from drllama.recipe import Augment, Endpoint, Recipe, Recorded
from drllama.replies import ImportCount, RequestStore
from drllama.stages.audit import audit_teacher
from drllama.stages.augment import Augmented, augment_examples, first_requests
from drllama.stages.correspond import Correspondent, known_correspondent, probed_correspondent
from drllama.stages.filter import filter_candidates
from drllama.stages.ledger import ledger_rows
from drllama.stages.plan import Pilot, Plan, minutes_needed, plan_part
from drllama.stages.recordings import recorded_calls
from drllama.stats import diversity, drop_counts, funnel
from drllama.stats.power import detectable_difference
from drllama.types import (
    Audit,
    Diversity,
    DropCount,
    Filtered,
    FunnelStep,
    LedgerRow,
    Splits,
    Synthetic,
    Task,
    Taught,
    TeacherCall,
    TeacherRequest,
)

T = TypeVar("T")
_PREVIEWED = 3
_PILOT_REPLIES = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one command may spend; None: no limit."""

    max_usd: float | None = None
    max_calls: int | None = None
    max_minutes: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """A recipe's questions, and what a teacher is to do with them."""

    recipe: Recipe
    splits: Splits
    task: Task

    @property
    def augment(self) -> Augment:
        """Return what the teacher writes.

        Raises:
            RecipeError: the recipe doesn't say.
        """
        if self.recipe.augment is None:
            raise RecipeError(
                "the recipe doesn't say what the teacher writes; add a section augment, such as augment: {}"
            )
        return self.recipe.augment


def read_lesson(recipe: Recipe) -> Lesson:
    """Return the recipe's questions.

    Raises:
        RecipeError: the recipe names no teacher.
    """
    if recipe.teacher is None:
        raise RecipeError(
            "the recipe names no teacher; add one, such as teacher: {openai-compatible: {model: NAME}}, "
            "{local: {model: smollm2-135m}} or {replay: {endpoint: E, model: M}}"
        )
    source = plugins.make_source(recipe)
    return Lesson(recipe=recipe, splits=source.load(), task=source.task)


def plan(lesson: Lesson, *, replies: RequestStore, count_tokens: Callable[[str], int]) -> Plan:
    """Return what the audit, and the augmentation if there is to be one, will take; nothing is sent."""
    _bring_recording(lesson, replies)
    destination = plugins.destination_of(lesson.recipe)
    correspondent = _known(lesson.recipe, replies)
    price = plugins.price_of(lesson.recipe)
    dev = [correspondent.answer(example, lesson.task, lesson.recipe.audit) for example in lesson.splits.dev]
    wanted: dict[str, list[TeacherRequest]] = {}
    for request in [*dev, *(_first_requests(lesson, correspondent) if lesson.recipe.augment else [])]:
        wanted.setdefault(request.prompt, []).append(request)
    for request in _requests_about_rows(lesson, correspondent):
        wanted.setdefault(f"{request.prompt} on the rows, at most", []).append(request)
    parts = tuple(
        plan_part(
            name,
            requests,
            is_kept=lambda key: replies.find(key) is not None,
            count_tokens=count_tokens,
            pilot=_pilot(replies, correspondent, requests[0].prompt),
            price=price,
        )
        for name, requests in wanted.items()
    )
    costs = [part.cost_usd for part in parts]
    served = lesson.recipe.teacher if isinstance(lesson.recipe.teacher, Endpoint) else None
    return Plan(
        endpoint=correspondent.endpoint,
        model=correspondent.model,
        destination=destination,
        parts=parts,
        price=price,
        cost_usd=None if None in costs else sum(cost for cost in costs if cost is not None),
        minutes=minutes_needed(
            parts,
            requests_per_minute=served.requests_per_minute if served else None,
            tokens_per_minute=served.tokens_per_minute if served else None,
        ),
        detectable_effect=detectable_difference(len(lesson.splits.test)),
        num_test=len(lesson.splits.test),
    )


def audit(lesson: Lesson, *, replies: RequestStore, limits: Limits, progress: Progress) -> Audit:
    """Return how well the teacher answers the dev questions blind."""

    async def work(correspondent: Correspondent, teacher: Teacher, ask_all: AnswerMany) -> Audit:
        progress.expect(len({example.id for example in lesson.splits.dev}))
        return await _audited(lesson, correspondent, teacher, ask_all, progress)

    return asyncio.run(_with_teacher(lesson, replies, limits, work))


def augment(lesson: Lesson, *, replies: RequestStore, limits: Limits, progress: Progress) -> Augmented:
    """Return the candidates that the teacher writes for the training questions."""

    async def work(correspondent: Correspondent, teacher: Teacher, ask_all: AnswerMany) -> Augmented:
        progress.expect(len(_first_requests(lesson, correspondent)))
        return await _augmented(lesson, correspondent, teacher, ask_all, progress)

    return asyncio.run(_with_teacher(lesson, replies, limits, work))


@dataclass(frozen=True, slots=True, kw_only=True)
class Sifted:
    """What a teacher wrote and what became of it."""

    augmented: Augmented
    filtered: Filtered
    rows: tuple[LedgerRow, ...]
    funnel: tuple[FunnelStep, ...]
    drops: tuple[DropCount, ...]
    diversity: tuple[Diversity, ...]


def sift(lesson: Lesson, *, replies: RequestStore, limits: Limits, progress: Progress) -> Sifted:
    """Return the candidates that the teacher writes, and which of them the recipe's filters keep."""

    async def work(correspondent: Correspondent, teacher: Teacher, ask_all: AnswerMany) -> Sifted:
        progress.expect(len(_first_requests(lesson, correspondent)))
        return await _sifted(lesson, correspondent, teacher, ask_all, progress)

    return asyncio.run(_with_teacher(lesson, replies, limits, work))


def teach(lesson: Lesson, *, replies: RequestStore, limits: Limits, progress: Progress) -> tuple[Taught, Sifted]:
    """Return what a run needs of its teacher, the audit and the filtered rows, within one set of limits."""

    async def work(correspondent: Correspondent, teacher: Teacher, ask_all: AnswerMany) -> tuple[Taught, Sifted]:
        progress.expect(
            len({example.id for example in lesson.splits.dev}) + len(_first_requests(lesson, correspondent))
        )
        try:
            audited = await _audited(lesson, correspondent, teacher, ask_all, progress)
        except BatchPending:
            # What is written doesn't hang on the audit: both batches go out together.
            await _sifted(lesson, correspondent, teacher, ask_all, progress)
            raise
        sifted = await _sifted(lesson, correspondent, teacher, ask_all, progress)
        found = sifted.augmented
        taught = Taught(
            model=correspondent.model,
            endpoint=correspondent.endpoint,
            audit=audited,
            num_requests=found.num_requests,
            candidates=Counter(
                one.example.origin.method for one in found.candidates if isinstance(one.example.origin, Synthetic)
            ),
            num_spare=found.spare + found.duplicates,
            num_unparsed=len(found.unparsed),
            num_failed=len(found.failed),
            num_short=len(found.short_of),
            funnel=sifted.funnel,
            drops=sifted.drops,
            diversity=sifted.diversity,
        )
        return taught, sifted

    return asyncio.run(_with_teacher(lesson, replies, limits, work))


def preview(lesson: Lesson, *, replies: RequestStore, limits: Limits, progress: Progress) -> list[TeacherCall]:
    """Return the first few calls whole, prompt and reply, before anything big is asked; never in a batch."""

    async def work(correspondent: Correspondent, teacher: Teacher, ask_all: AnswerMany) -> list[TeacherCall]:
        some = replace(lesson, splits=replace(lesson.splits, train=lesson.splits.train[:_PREVIEWED]))
        first = _first_requests(some, correspondent)[:_PREVIEWED]
        outcomes = {}
        async for request, outcome in ask_all(teacher, first):
            outcomes[request.key] = outcome
            progress.work("asking the teacher for a preview", 1)
        calls = []
        for request in first:
            outcome = outcomes[request.key]
            if isinstance(outcome, TeacherFailure):
                raise outcome
            calls.append(TeacherCall(request=request, reply=outcome))
        return calls

    live = replace(lesson, recipe=plugins.asked_live(lesson.recipe))
    return asyncio.run(_with_teacher(live, replies, limits, work))


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What became of a recording."""

    replies: ImportCount
    num_unknown: int
    """Lines whose id names no question of train or dev."""


def import_recording(lesson: Lesson, path: Path, *, replies: RequestStore) -> Imported:
    """Keep recorded answers, item by item, as replies to the requests that this recipe would send.

    Raises:
        DataError: the file can't be read; the message names the line.
    """
    everyone = (*lesson.splits.train, *lesson.splits.dev)
    try:
        with path.open(encoding="utf-8") as lines:
            recording = recorded_calls(
                lines,
                where=str(path),
                correspondent=_known(lesson.recipe, replies),
                examples=everyone,
                find=replies.find,
                task=lesson.task,
                recipe=lesson.recipe,
            )
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: can't be read ({error}); give a JSON Lines file in UTF-8") from error
    kept = replies.record(recording.calls, source=f"recorded {path.name}", created_at=datetime.now(UTC))
    return Imported(replies=kept, num_unknown=len(recording.unknown_ids))


def _known(recipe: Recipe, replies: RequestStore) -> Correspondent:
    return known_correspondent(recipe, plugins.endpoint_of(recipe), replies)


def _pilot(replies: RequestStore, correspondent: Correspondent, prompt: str) -> Pilot | None:
    rows = [
        row
        for row in replies.stats().rows
        if (row.endpoint, row.model, row.prompt) == (correspondent.endpoint, correspondent.model, prompt)
    ]
    told = sum(row.replies - row.unknown_tokens for row in rows)
    if told < _PILOT_REPLIES:
        return None
    return Pilot(num_replies=told, mean_tokens_out=sum(row.tokens_out for row in rows) / told)


async def _with_teacher(
    lesson: Lesson,
    replies: RequestStore,
    limits: Limits,
    work: Callable[[Correspondent, Teacher, AnswerMany], Awaitable[T]],
) -> T:
    _bring_recording(lesson, replies)
    async with plugins.make_teacher(
        lesson.recipe,
        replies=replies,
        max_usd=limits.max_usd,
        max_calls=limits.max_calls,
        max_minutes=limits.max_minutes,
        seed=derive_seed(lesson.recipe.seed, "retries"),
    ) as (teacher, ask_all):
        known = _known(lesson.recipe, replies)
        return await work(await probed_correspondent(lesson.recipe, known, teacher, replies), teacher, ask_all)


def _bring_recording(lesson: Lesson, replies: RequestStore) -> None:
    if isinstance(lesson.recipe.teacher, Recorded) and lesson.recipe.teacher.recording is not None:
        import_recording(lesson, lesson.recipe.teacher.recording, replies=replies)


def _first_requests(lesson: Lesson, correspondent: Correspondent) -> list[TeacherRequest]:
    return first_requests(correspondent, lesson.splits.train, lesson.task, lesson.augment)


def _requests_about_rows(lesson: Lesson, correspondent: Correspondent) -> list[TeacherRequest]:
    """Return as many requests as votes and judgements may take, each about its row's source instead of the row."""
    filters, augment = lesson.recipe.filters, lesson.recipe.augment
    if augment is None:
        return []
    per_item = sum(section.per_item for section in (augment.rewrite, augment.new) if section)
    rows = [example for example in lesson.splits.train for _ in range(per_item)]
    label, judge, task = filters.label, filters.judge, lesson.task
    votes = [(one, rollout) for one in rows for rollout in range(label.votes)] if label else []
    return [
        *(correspondent.answer(one, task, label, rollout) for one, rollout in votes if label),
        *(correspondent.judge(one, one, task, judge) for one in rows if judge),
    ]


async def _audited(
    lesson: Lesson, correspondent: Correspondent, teacher: Teacher, ask_all: AnswerMany, progress: Progress
) -> Audit:
    return await audit_teacher(
        teacher,
        ask_all,
        correspondent=correspondent,
        train=lesson.splits.train,
        dev=lesson.splits.dev,
        task=lesson.task,
        recipe=lesson.recipe,
        progress=progress,
    )


async def _augmented(
    lesson: Lesson, correspondent: Correspondent, teacher: Teacher, ask_all: AnswerMany, progress: Progress
) -> Augmented:
    return await augment_examples(
        teacher,
        ask_all,
        correspondent=correspondent,
        train=lesson.splits.train,
        task=lesson.task,
        settings=lesson.augment,
        progress=progress,
    )


async def _sifted(
    lesson: Lesson, correspondent: Correspondent, teacher: Teacher, ask_all: AnswerMany, progress: Progress
) -> Sifted:
    found = await _augmented(lesson, correspondent, teacher, ask_all, progress)
    filters = lesson.recipe.filters
    progress.work("filtering the teacher's rows")
    filtered = await filter_candidates(
        teacher,
        ask_all,
        correspondent=correspondent,
        candidates=found.candidates,
        splits=lesson.splits,
        task=lesson.task,
        settings=filters,
        progress=progress,
    )
    rows = ledger_rows(found, filtered, lesson.augment.arms)
    groups = {
        "real": lesson.splits.train,
        "written": [one.example for one in found.candidates],
        "kept": [one.example for one in filtered.kept],
    }
    return Sifted(
        augmented=found,
        filtered=filtered,
        rows=rows,
        funnel=funnel(rows, filters.active),
        drops=drop_counts(rows),
        diversity=diversity(groups, lesson.task.labels),
    )
