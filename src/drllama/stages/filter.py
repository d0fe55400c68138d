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
from drllama.recipe import FilterName, Filters, Judge, LabelKept
from drllama.stages.correspond import Correspondent
from drllama.stages.judge import collect_judgements
from drllama.stages.vote import collect_votes
from drllama.types import Candidate, Filtered, Judgement, Splits, Task, Unparsed, Votes


async def filter_candidates(
    teacher: Teacher,
    ask_all: AnswerMany,
    *,
    correspondent: Correspondent,
    reviewed: Reviewed,
    splits: Splits,
    task: Task,
    settings: Filters,
    progress: Progress,
) -> Filtered:
    """Return which candidates are kept, and why the others aren't; the first filter that objects drops one.

    What people rejected goes first; what they approved passes every filter but ``leaks``, and nobody asks about it.

    Only candidates that got so far are voted on and judged, so cheap filters save questions.

    Raises:
        RecipeError: ``filters.balance.shares`` names a label that the task doesn't have.
        TeacherFailure: votes or judgements were asked for, and no request got a reply.
    """
    _check_shares(settings, task)
    gates = _Gates(
        teacher=teacher,
        ask_all=ask_all,
        correspondent=correspondent,
        splits=splits,
        task=task,
        settings=settings,
        progress=progress,
    )
    sieve = Sieve(kept=reviewed.candidates).through(ReviewFilter(reviewed))
    for name in settings.active:
        unsure = [one for one in sieve.kept if one.id not in reviewed.approved]
        sieve = sieve.through(sparing(await gates.gate(name, unsure), reviewed))
    assert len(sieve.kept) + len(sieve.dropped) == len(reviewed.candidates)
    verdicts = gates.judgements.items()
    return Filtered(
        kept=sieve.kept,
        dropped=sieve.dropped,
        votes=gates.votes,
        judgements={name: one for name, one in verdicts if isinstance(one, Judgement)},
        unjudged=tuple(name for name, one in verdicts if isinstance(one, Unparsed)),
    )


@dataclass(slots=True, kw_only=True)
class _Gates:
    """Makes each filter when it is its turn: some need answers about the candidates that are left."""

    teacher: Teacher
    ask_all: AnswerMany
    correspondent: Correspondent
    splits: Splits
    task: Task
    settings: Filters
    progress: Progress
    votes: Mapping[str, Votes] = field(default_factory=dict)
    judgements: Mapping[str, Judgement | Unparsed] = field(default_factory=dict)

    async def gate(self, name: FilterName, left: Sequence[Candidate]) -> Filter:
        """Return the filter of this name, ready for these candidates."""
        settings = self.settings
        match name:
            case FilterName.FORM:
                assert settings.form
                return FormFilter(settings.form, self.task.labels, self.splits.train)
            case FilterName.DUPLICATES:
                assert settings.duplicates
                return DuplicatesFilter(settings.duplicates, train=self.splits.train)
            case FilterName.LEAKS:
                return LeaksFilter(settings.leaks, held_out=(*self.splits.dev, *self.splits.test))
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
            self.teacher,
            self.ask_all,
            correspondent=self.correspondent,
            candidates=left,
            task=self.task,
            settings=settings,
            progress=self.progress,
        )
        return LabelFilter(settings, self.votes)

    async def _judge(self, settings: Judge, left: Sequence[Candidate]) -> JudgeFilter:
        self.judgements = await collect_judgements(
            self.teacher,
            self.ask_all,
            correspondent=self.correspondent,
            candidates=left,
            parents={one.id: one for one in self.splits.train},
            task=self.task,
            settings=settings,
            progress=self.progress,
        )
        return JudgeFilter(self.judgements)


def _check_shares(settings: Filters, task: Task) -> None:
    for label in (settings.balance and settings.balance.shares) or ():
        if label not in task.labels:
            raise RecipeError(
                f"filters.balance.shares: the task has no label '{label}'; its labels are {', '.join(task.labels)}"
            )
