"""The stories around a teacher: audit, preview, augment, sift and teach, each over the same store of replies."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol, TypeVar

from drllama import plugins
from drllama.errors import BatchPending, DataError, RecipeError, TeacherFailure
from drllama.filters.review import review
from drllama.ids import derive_seed
from drllama.protocols import AnswerMany, Progress, Teacher
from drllama.recipe import Augment, Recipe, Recorded
from drllama.replies import ImportCount, RequestStore
from drllama.stages.audit import audit_teacher
from drllama.stages.augment import Augmented, augment_examples, first_requests
from drllama.stages.bill import FOR_ARMS_WITHOUT_FILTER, Bill
from drllama.stages.correspond import Correspondent, known_correspondent, probed_correspondent
from drllama.stages.filter import FilterBench, filter_candidates, unfiltered_by
from drllama.stages.ledger import ledger_rows
from drllama.stages.recordings import recorded_calls
from drllama.stats import diversity, drop_counts, funnel
from drllama.types import (
    Audit,
    Candidate,
    Decision,
    Diversity,
    DropCount,
    Example,
    Filtered,
    FilterName,
    FunnelStep,
    LedgerRow,
    Round,
    Spent,
    Splits,
    Synthetic,
    Task,
    Taught,
    TeacherCall,
    TeacherRequest,
    Unfiltered,
    Votes,
)

T = TypeVar("T")
_PREVIEWED = 3


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
    chosen: tuple[Example, ...] | None = None
    """The training examples that the teacher works on, one that was chosen twice two times; None: each of them once."""
    decisions: tuple[Decision, ...] = ()
    """What people said of the teacher's rows."""

    @property
    def sources(self) -> tuple[Example, ...]:
        """Return the training examples that the teacher works on."""
        return self.splits.train if self.chosen is None else self.chosen

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


def read_lesson(recipe: Recipe, decisions: Sequence[Decision] = ()) -> Lesson:
    """Return the recipe's questions, with what people said of the teacher's rows.

    Raises:
        RecipeError: the recipe names no teacher.
    """
    if recipe.teacher is None:
        raise RecipeError(
            "the recipe names no teacher; add one, such as teacher: {openai-compatible: {model: NAME}}, "
            "{local: {model: smollm2-135m}} or {replay: {endpoint: E, model: M}}"
        )
    source = plugins.make_source(recipe)
    return Lesson(recipe=recipe, splits=source.load(), task=source.task, decisions=tuple(decisions))


def audit(lesson: Lesson, *, replies: RequestStore, limits: Limits, progress: Progress) -> Audit:
    """Return how well the teacher answers the dev questions blind."""

    async def work(correspondent: Correspondent, teacher: Teacher, ask_all: AnswerMany) -> Audit:
        progress.expect(len({example.id for example in lesson.splits.dev}))
        return await _audited(lesson, correspondent, teacher, ask_all, progress)

    return asyncio.run(_with_teacher(lesson, replies, limits, work))


def augment(lesson: Lesson, *, replies: RequestStore, limits: Limits, progress: Progress) -> Augmented:
    """Return the candidates that the teacher writes for the training questions."""

    async def work(correspondent: Correspondent, teacher: Teacher, ask_all: AnswerMany) -> Augmented:
        progress.expect(len(requests_of(lesson, correspondent)))
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
    unfiltered: Mapping[FilterName, Unfiltered] = field(default_factory=dict)
    """What is kept without each filter that ``augment.without_filter`` names."""

    @property
    def votes(self) -> Mapping[str, Votes]:
        """Return the blind answers to all rows that any arm may train on."""
        asked = (*(one.votes for one in self.unfiltered.values()), self.filtered.votes)
        return {name: votes for some in asked for name, votes in some.items()}


def sift(lesson: Lesson, *, replies: RequestStore, limits: Limits, progress: Progress) -> Sifted:
    """Return the candidates that the teacher writes, and which of them the recipe's filters keep."""

    async def work(correspondent: Correspondent, teacher: Teacher, ask_all: AnswerMany) -> Sifted:
        progress.expect(len(requests_of(lesson, correspondent)))
        return await _sifted(lesson, correspondent, teacher, ask_all, progress)

    return asyncio.run(_with_teacher(lesson, replies, limits, work))


class Choose(Protocol):
    """Says, round by round, which training examples the teacher is to work on."""

    def __call__(self, kept: Sequence[Candidate]) -> tuple[Example, ...] | None:
        """Return all sources of the next round, given the rows that came of the last ones; None: no more."""

    @property
    def best(self) -> tuple[Example, ...]:
        """Return the sources whose rows are to be used."""

    @property
    def rounds(self) -> tuple[Round, ...]:
        """Return what each round came to."""


def teach(
    lesson: Lesson, *, replies: RequestStore, limits: Limits, progress: Progress, choose: Choose | None = None
) -> tuple[Taught, Sifted]:
    """Return what a run needs of its teacher, the audit and the filtered rows, within one set of limits.

    ``choose`` says which training examples it works on; None: all of them, once.
    """
    bill = Bill()

    async def work(correspondent: Correspondent, teacher: Teacher, ask_all: AnswerMany) -> tuple[Taught, Sifted]:
        noting = bill.noting(ask_all)

        async def sifted(chosen: Lesson) -> Sifted:
            return await _sifted(chosen, correspondent, teacher, noting, progress)

        progress.expect(len({example.id for example in lesson.splits.dev}) + len(requests_of(lesson, correspondent)))
        try:
            audited = await _audited(lesson, correspondent, teacher, noting, progress)
        except BatchPending:
            # What is written doesn't hang on the audit: both batches go out together.
            await (sifted(lesson) if choose is None else _sifted_rounds(lesson, choose, sifted))
            raise
        found = await (sifted(lesson) if choose is None else _sifted_rounds(lesson, choose, sifted))
        asking = bill.noting(ask_all, mark=FOR_ARMS_WITHOUT_FILTER)
        found = await _unfiltered(lesson, found, _bench(lesson, correspondent, teacher, asking, progress))
        rounds = choose.rounds if choose else ()
        return _taught(correspondent, audited, found, rounds, bill.lines), found

    return asyncio.run(_with_teacher(lesson, replies, limits, work))


async def _sifted_rounds(lesson: Lesson, choose: Choose, sifted: Callable[[Lesson], Awaitable[Sifted]]) -> Sifted:
    """Return the rows of the best round; what a later round asked for stays in the store of replies."""
    found: Sifted | None = None
    chosen: tuple[Example, ...] = ()
    while (wanted := choose(found.filtered.kept if found else ())) is not None:
        chosen = wanted
        found = await sifted(replace(lesson, chosen=chosen))
    return found if found and chosen == choose.best else await sifted(replace(lesson, chosen=choose.best))


def _taught(
    correspondent: Correspondent, audited: Audit, sifted: Sifted, rounds: tuple[Round, ...], bill: tuple[Spent, ...]
) -> Taught:
    found = sifted.augmented
    return Taught(
        model=correspondent.model,
        endpoint=correspondent.endpoint,
        audit=audited,
        num_requests=found.num_requests,
        bill=bill,
        candidates=dict(
            Counter(one.example.origin.method for one in found.candidates if isinstance(one.example.origin, Synthetic))
        ),
        num_spare=found.spare + found.duplicates,
        num_unparsed=len(found.unparsed),
        num_failed=len(found.failed),
        num_short=len(found.short_of),
        funnel=sifted.funnel,
        drops=sifted.drops,
        diversity=sifted.diversity,
        rounds=rounds,
    )


def preview(lesson: Lesson, *, replies: RequestStore, limits: Limits, progress: Progress) -> list[TeacherCall]:
    """Return the first few calls whole, prompt and reply, before anything big is asked; never in a batch."""

    async def work(correspondent: Correspondent, teacher: Teacher, ask_all: AnswerMany) -> list[TeacherCall]:
        some = replace(lesson, splits=replace(lesson.splits, train=lesson.splits.train[:_PREVIEWED]))
        first = requests_of(some, correspondent)[:_PREVIEWED]
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
                correspondent=correspondent_of(lesson.recipe, replies),
                examples=everyone,
                find=replies.find,
                task=lesson.task,
                recipe=lesson.recipe,
            )
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: can't be read ({error}); give a JSON Lines file in UTF-8") from error
    kept = replies.record(recording.calls, source=f"recorded {path.name}", created_at=datetime.now(UTC))
    return Imported(replies=kept, num_unknown=len(recording.unknown_ids))


def correspondent_of(recipe: Recipe, replies: RequestStore) -> Correspondent:
    """Return whom requests go to, as far as can be told without asking."""
    return known_correspondent(recipe, plugins.endpoint_of(recipe), replies)


async def _with_teacher(
    lesson: Lesson,
    replies: RequestStore,
    limits: Limits,
    work: Callable[[Correspondent, Teacher, AnswerMany], Awaitable[T]],
) -> T:
    bring_recording(lesson, replies)
    async with plugins.make_teacher(
        lesson.recipe,
        replies=replies,
        max_usd=limits.max_usd,
        max_calls=limits.max_calls,
        max_minutes=limits.max_minutes,
        seed=derive_seed(lesson.recipe.seed, "retries"),
    ) as (teacher, ask_all):
        known = correspondent_of(lesson.recipe, replies)
        return await work(await probed_correspondent(lesson.recipe, known, teacher, replies), teacher, ask_all)


def bring_recording(lesson: Lesson, replies: RequestStore) -> None:
    """Take the recording that the recipe names into the store, if it names one; again adds nothing."""
    if isinstance(lesson.recipe.teacher, Recorded) and lesson.recipe.teacher.recording is not None:
        import_recording(lesson, lesson.recipe.teacher.recording, replies=replies)


def requests_of(lesson: Lesson, correspondent: Correspondent) -> list[TeacherRequest]:
    """Return the first requests for rewrites and new questions."""
    return first_requests(correspondent, lesson.sources, lesson.task, lesson.augment)


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
        train=lesson.sources,
        task=lesson.task,
        settings=lesson.augment,
        progress=progress,
    )


async def _sifted(
    lesson: Lesson, correspondent: Correspondent, teacher: Teacher, ask_all: AnswerMany, progress: Progress
) -> Sifted:
    found = await _augmented(lesson, correspondent, teacher, ask_all, progress)
    reviewed = review(found.candidates, lesson.decisions)
    progress.work("filtering the teacher's rows")
    filtered = await filter_candidates(_bench(lesson, correspondent, teacher, ask_all, progress), reviewed)
    rows = ledger_rows(found, filtered, lesson.augment.arms, reviewed)
    groups = {
        "real": lesson.splits.train,
        "written": [one.example for one in found.candidates],
        "kept": [one.example for one in filtered.kept],
    }
    return Sifted(
        augmented=found,
        filtered=filtered,
        rows=rows,
        funnel=funnel(rows, lesson.recipe.filters.active),
        drops=drop_counts(rows),
        diversity=diversity(groups, lesson.task.labels),
    )


async def _unfiltered(lesson: Lesson, sifted: Sifted, bench: FilterBench) -> Sifted:
    reviewed, found = review(sifted.augmented.candidates, lesson.decisions), {}
    for name in lesson.augment.without_filter:
        bench.progress.work(f"filtering the teacher's rows without the filter {name}")
        found[name] = await unfiltered_by(name, sifted.filtered, bench, reviewed)
    return replace(sifted, unfiltered=found)


def _bench(
    lesson: Lesson, correspondent: Correspondent, teacher: Teacher, ask_all: AnswerMany, progress: Progress
) -> FilterBench:
    return FilterBench(
        teacher=teacher,
        ask_all=ask_all,
        correspondent=correspondent,
        splits=lesson.splits,
        task=lesson.task,
        settings=lesson.recipe.filters,
        progress=progress,
    )
