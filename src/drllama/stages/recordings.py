"""Recorded answers of a teacher, by source item, as the requests and replies that they would have been.

A line is one source item: ``id`` (its source id), ``rewrite`` {question, long_answer, context} or a list of them,
``new`` [{question, label, long_answer}, ...], ``answer`` (its blind answer to the item's own question); any may be
missing. A line of blind answers alone holds labels instead: ``question``, ``rewrite``, ``new`` [label, ...]; what they
answer must stand in a line before them, or in the store already.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from drllama.errors import DataError
from drllama.parsing import Invented, Retold, parse_new, parse_rewrite
from drllama.recipe import Audit, Augment, LabelKept, Recipe, Rewrite
from drllama.stages.augment import example_of
from drllama.stages.correspond import Correspondent
from drllama.types import Example, Finish, Reply, Task, TeacherCall, TeacherRequest, Unparsed


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """What a file of recorded answers holds for these examples."""

    calls: tuple[TeacherCall, ...]
    unknown_ids: tuple[str, ...]
    """The id of each line that names none of the examples."""


def recorded_calls(
    lines: Iterable[str],
    *,
    where: str,
    correspondent: Correspondent,
    examples: Sequence[Example],
    find: Callable[[str], Reply | None],
    task: Task,
    recipe: Recipe,
) -> Recording:
    """Return a request and its reply for each recorded answer to an item of these examples.

    The requests are rendered from the recipe: a changed template, temperature or item makes another key, and then the
    recording doesn't answer it.

    Raises:
        DataError: a line can't be read; the message names it.
    """
    told: dict[str, Reply] = {}
    recorder = _Recorder(
        correspondent=correspondent, task=task, recipe=recipe, find=lambda key: told.get(key) or find(key)
    )
    calls: list[TeacherCall] = []
    unknown: list[str] = []
    by_source_id: dict[str, list[Example]] = {}
    for example in examples:
        by_source_id.setdefault(example.origin.source_id, []).append(example)
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            item = json.loads(line)
            source_id = str(item["id"])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise DataError(f"{where} line {number}: not a JSON object with an id; mend or remove the line") from error
        match by_source_id.get(source_id, []):
            case []:
                unknown.append(source_id)
            case [example]:
                try:
                    found = [TeacherCall(request=one, reply=reply) for one, reply in recorder.calls(item, example)]
                except DataError as error:
                    raise DataError(f"{where} line {number}: {error}") from error
                calls += found
                told.update((call.request.key, call.reply) for call in found)
            case several:
                raise DataError(
                    f"{where} line {number}: {len(several)} questions have the id {source_id}; name them apart"
                )
    return Recording(calls=tuple(calls), unknown_ids=tuple(unknown))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Recorder:
    """Writes the requests that recorded answers would have answered."""

    correspondent: Correspondent
    task: Task
    recipe: Recipe
    find: Callable[[str], Reply | None]

    def calls(self, item: Mapping[str, object], example: Example) -> Iterator[tuple[TeacherRequest, Reply]]:
        for name in ("answer", "question"):
            if item.get(name) is not None:
                yield self._answer(example, item[name], self.recipe.audit)
        augment = self.recipe.augment
        if augment and augment.rewrite and (found := item.get("rewrite")) is not None:
            yield from self._rewrites(found if isinstance(found, list) else [found], example, augment, augment.rewrite)
        if augment and augment.new and (found := item.get("new")) is not None:
            if not isinstance(found, list):
                raise DataError(
                    "'new' isn't a list; write [{question, label, long_answer}, ...], with options where the item has "
                    "them, or labels"
                )
            yield from self._new(found, example, self.correspondent.new(example, self.task, augment, augment.new, 0))

    def _rewrites(
        self, found: Sequence[object], example: Example, augment: Augment, settings: Rewrite
    ) -> Iterator[tuple[TeacherRequest, Reply]]:
        for rollout, rewrite in enumerate(found):
            request = self.correspondent.rewrite(example, self.task, augment, settings, rollout)
            if isinstance(rewrite, dict):
                yield request, _reply(rewrite)
            else:
                retold = parse_rewrite(self._kept(request), retell_context=settings.retell_context)
                yield self._answer(_candidate(retold, example, request.key, 0), rewrite, self._voting)

    def _new(
        self, found: Sequence[object], example: Example, request: TeacherRequest
    ) -> Iterator[tuple[TeacherRequest, Reply]]:
        if not all(isinstance(one, str) for one in found):
            yield request, _reply({"items": found})
            return
        items = parse_new(self._kept(request), self.task, with_options=bool(example.options))
        if isinstance(items, Unparsed) or len(items) != len(found):
            raise DataError(f"'new' has {len(found)} labels, the recorded reply another number of questions")
        for place, (invented, label) in enumerate(zip(items, found, strict=True)):
            yield self._answer(_candidate(invented, example, request.key, place), label, self._voting)

    @property
    def _voting(self) -> Audit | LabelKept:
        return self.recipe.filters.label or self.recipe.audit

    def _answer(self, example: Example, label: object, asking: Audit | LabelKept) -> tuple[TeacherRequest, Reply]:
        if not isinstance(label, str):
            raise DataError(f"a blind answer is a label's text, not {json.dumps(label, ensure_ascii=False)}")
        return self.correspondent.answer(example, self.task, asking), _reply({"label": label})

    def _kept(self, request: TeacherRequest) -> str:
        reply = self.find(request.key)
        if reply is None:
            raise DataError(
                f"answers to what {request.prompt} asked for, which isn't kept here (key {request.key[:12]}); "
                "import the recording that holds it first, with the same recipe"
            )
        return reply.text


def _candidate(item: Retold | Invented | Unparsed, parent: Example, call: str, place: int) -> Example:
    if isinstance(item, Unparsed):
        raise DataError(f"answers to a recorded reply that can't be read: {item.reason}")
    return example_of(item, parent, call=call, place=place)


def _reply(value: Mapping[str, object]) -> Reply:
    text = json.dumps(value, ensure_ascii=False)
    return Reply(text=text, finish=Finish.STOP, tokens_in=None, tokens_out=None, seconds=0.0, cost_usd=None)
