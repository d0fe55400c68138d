"""Deciding which candidates reach the student: the recipe's filters in the recipe's order, some of which ask."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import assert_never

from drllama.errors import RecipeError
from drllama.filters.balance import BalanceFilter
from drllama.filters.duplicates import DuplicatesFilter
from drllama.filters.form import FormFilter
from drllama.filters.label import JudgeFilter, LabelFilter
from drllama.filters.leaks import LeaksFilter
from drllama.filters.review import Reviewed, ReviewFilter, sparing
from drllama.filters.runner import Sieve
from drllama.protocols import AnswerMany, Filter, Progress, Teacher
from drllama.recipe import Filters, Judge, LabelKept
from drllama.stages.correspond import Correspondent
from drllama.stages.judge import NO_REPLY, collect_judgements
from drllama.stages.vote import collect_votes
from drllama.types import (
    Candidate,
    Dropped,
    Filtered,
    FilterName,
    Judgement,
    Quoted,
    Splits,
    Task,
    Unfiltered,
    Unparsed,
    Votes,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterBench:
    """What filters work with: a recipe's settings and questions, and a teacher to ask."""

    teacher: Teacher
    ask_all: AnswerMany
    correspondent: Correspondent
    splits: Splits
    task: Task
    settings: Filters
    progress: Progress


async def filter_candidates(
    bench: FilterBench, reviewed: Reviewed, *, switched_off: FilterName | None = None
) -> Filtered:
    """Return which candidates are kept, and why the others aren't; the first filter that objects drops one.

    What people rejected goes first; what they approved passes every filter but ``leaks``, and nobody asks about it.

    Only candidates that got so far are voted on and judged, so cheap filters save questions. A filter that is switched
    off looks, and may ask, but drops nothing: what it finds out, such as votes, is there for those behind it.

    Raises:
        RecipeError: ``filters.balance.shares`` names a label that the task doesn't have.
        TeacherFailure: votes or judgements were asked for, and no request got a reply.
    """
    _check_shares(bench.settings, bench.task)
    gates = _Gates(bench=bench)
    sieve = Sieve(kept=reviewed.candidates).through(ReviewFilter(reviewed))
    for name in bench.settings.active:
        unsure = [one for one in sieve.kept if one.id not in reviewed.approved]
        gate = await gates.gate(name, unsure)
        if name != switched_off:
            sieve = sieve.through(sparing(gate, reviewed))
    assert len(sieve.kept) + len(sieve.dropped) == len(reviewed.candidates)
    verdicts = gates.judgements.items()
    return Filtered(
        kept=sieve.kept,
        dropped=sieve.dropped,
        votes=gates.votes,
        judgements={name: one for name, one in verdicts if isinstance(one, Judgement)},
        unjudged=tuple(name for name, one in verdicts if isinstance(one, Unparsed)),
    )


async def unfiltered_by(name: FilterName, known: Filtered, bench: FilterBench, reviewed: Reviewed) -> Unfiltered:
    """Return what is kept with one filter switched off, given what is kept with all of them."""
    if all(one.by != name for one in known.dropped):
        return Unfiltered(kept=known.kept, votes=known.votes)
    found = await filter_candidates(bench, reviewed, switched_off=name)
    before = {(one.candidate.id, one.by) for one in known.dropped}
    num_unanswered = sum(_lacks_reply(one) for one in found.dropped if (one.candidate.id, one.by) not in before)
    return Unfiltered(kept=found.kept, votes=found.votes, num_unanswered=num_unanswered)


def _lacks_reply(dropped: Dropped) -> bool:
    match dropped.evidence:
        case Votes(num_failed=number):
            return number > 0
        case Quoted(text=text):
            return dropped.by == FilterName.JUDGE and text.startswith(NO_REPLY)
        case _:
            return False


@dataclass(slots=True, kw_only=True)
class _Gates:
    """Makes each filter when it is its turn: some need answers about the candidates that are left."""

    bench: FilterBench
    votes: Mapping[str, Votes] = field(default_factory=dict)
    judgements: Mapping[str, Judgement | Unparsed] = field(default_factory=dict)

    async def gate(self, name: FilterName, left: Sequence[Candidate]) -> Filter:
        """Return the filter of this name, ready for these candidates."""
        settings, splits = self.bench.settings, self.bench.splits
        match name:
            case FilterName.FORM:
                assert settings.form
                return FormFilter(settings.form, self.bench.task.labels, splits.train)
            case FilterName.DUPLICATES:
                assert settings.duplicates
                return DuplicatesFilter(settings.duplicates, train=splits.train)
            case FilterName.LEAKS:
                return LeaksFilter(settings.leaks, held_out=(*splits.dev, *splits.test))
            case FilterName.LABEL:
                assert settings.label
                return await self._label(settings.label, left)
            case FilterName.JUDGE:
                assert settings.judge
                return await self._judge(settings.judge, left)
            case FilterName.BALANCE:
                assert settings.balance
                return BalanceFilter(settings.balance, self.votes)
            case _ as other:
                assert_never(other)

    async def _label(self, settings: LabelKept, left: Sequence[Candidate]) -> LabelFilter:
        self.votes = await collect_votes(
            self.bench.teacher,
            self.bench.ask_all,
            correspondent=self.bench.correspondent,
            candidates=left,
            task=self.bench.task,
            settings=settings,
            progress=self.bench.progress,
        )
        return LabelFilter(settings, self.votes)

    async def _judge(self, settings: Judge, left: Sequence[Candidate]) -> JudgeFilter:
        self.judgements = await collect_judgements(
            self.bench.teacher,
            self.bench.ask_all,
            correspondent=self.bench.correspondent,
            candidates=left,
            parents={one.id: one for one in self.bench.splits.train},
            task=self.bench.task,
            settings=settings,
            progress=self.bench.progress,
        )
        return JudgeFilter(self.judgements)


def _check_shares(settings: Filters, task: Task) -> None:
    for label in (settings.balance and settings.balance.shares) or ():
        if label not in task.labels:
            raise RecipeError(
                f"filters.balance.shares: the task has no label '{label}'; its labels are {', '.join(task.labels)}"
            )
