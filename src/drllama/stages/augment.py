"""Letting a teacher rewrite the training questions and write new ones: candidates, each with its parents and call."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from drllama.errors import RecipeError, TeacherFailure
from drllama.parsing import Invented, Retold, parse_new, parse_rewrite
from drllama.protocols import AnswerMany, Progress, Teacher
from drllama.recipe import Augment, New, Rewrite
from drllama.stages.correspond import Correspondent
from drllama.text import normalise
from drllama.types import Asking, Candidate, Example, Method, Reply, Synthetic, Task, TeacherRequest, Unparsed


@dataclass(frozen=True, slots=True, kw_only=True)
class UnparsedReply:
    """A reply, or an item of one, that couldn't be read."""

    asking: Asking
    place: int
    """Which of the reply's items it is, from 0; 0 too where no items could be made out."""
    unparsed: Unparsed


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedRequest:
    """A request that got no reply after all attempts that its kind of failure allows."""

    asking: Asking
    kind: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmented:
    """What came of asking; every reply's items are either candidates, spare, duplicates, or unparsed."""

    candidates: tuple[Candidate, ...]
    unparsed: tuple[UnparsedReply, ...]
    failed: tuple[FailedRequest, ...]
    spare: int
    """Readable items beyond what was wanted of their source."""
    duplicates: int
    """Readable items whose question their source had given already by the same method; they don't count as given."""
    num_requests: int
    short_of: Mapping[str, int]
    """Sources that gave fewer items than wanted after all attempts, by id of the training example."""


# Rows that read alike make the same requests; each copy draws in a range of its own, whatever the other settings.
_ROLLOUTS_OF_A_COPY = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class _Order:
    """What is wanted of one training example by one method."""

    parent: Example
    method: Method
    wanted: int
    first_rollout: int


@dataclass(slots=True)
class _Harvest:
    """What replies have given so far."""

    readable: list[list[Candidate]]
    """By order."""
    unparsed: list[UnparsedReply] = field(default_factory=list)
    failed: list[FailedRequest] = field(default_factory=list)
    questions: set[tuple[str, str, str]] = field(default_factory=set)
    """Parent, method and normalised question, with its options, of all that is readable."""
    duplicates: int = 0
    given: int = 0
    """Items of all replies, readable or not; a failed request counts as one."""


async def augment_examples(
    teacher: Teacher,
    ask_all: AnswerMany,
    *,
    correspondent: Correspondent,
    train: Sequence[Example],
    task: Task,
    settings: Augment,
    progress: Progress,
) -> Augmented:
    """Return the candidates that a teacher wrote for the training examples, in the examples' order.

    Each source gets exactly what was wanted of it, or after ``max_attempts`` rounds as much as came; a round asks only
    for the sources that are still short, and the same question twice is one. What comes back doesn't depend on the
    order in which replies arrive.

    Raises:
        TeacherFailure: no request got a reply.
        RecipeError: new questions are wanted in shares of labels that there aren't.
    """
    orders = _orders(train, task, settings)
    harvest = _Harvest(readable=[[] for _ in orders])
    num_requests = 0
    for attempt in range(settings.max_attempts):
        requests: dict[str, tuple[int, TeacherRequest]] = {}
        for place, order in enumerate(orders):
            for rollout in _rollouts(order, len(harvest.readable[place]), attempt):
                request = _request(correspondent, order, task, settings, rollout)
                requests[request.key] = (place, request)
        outcomes: dict[str, Reply | TeacherFailure] = {}
        async for request, outcome in ask_all(teacher, [request for _, request in requests.values()]):
            outcomes[request.key] = outcome
            progress.work("asking the teacher for rewrites and new questions", 1)
        if outcomes and len(failed := _failures(outcomes)) == len(outcomes) and not num_requests:
            raise TeacherFailure(f"no request got a reply; the first: {failed[0]}", kind=failed[0].kind)
        num_requests += len(requests)
        for key, (place, request) in requests.items():
            _read(outcomes[key], request, orders[place], task, settings, harvest, place)
    return _counted(orders, harvest, num_requests)


def _counted(orders: Sequence[_Order], harvest: _Harvest, num_requests: int) -> Augmented:
    taken = [one for order, found in zip(orders, harvest.readable, strict=True) for one in found[: order.wanted]]
    spare = sum(map(len, harvest.readable)) - len(taken)
    parts = len(taken), spare, harvest.duplicates, len(harvest.unparsed), len(harvest.failed)
    assert harvest.given == sum(parts), f"{harvest.given} items came, {parts} are told"
    return Augmented(
        candidates=tuple(taken),
        unparsed=tuple(harvest.unparsed),
        failed=tuple(harvest.failed),
        spare=spare,
        duplicates=harvest.duplicates,
        num_requests=num_requests,
        short_of={
            f"{order.parent.id} {order.method}": order.wanted - len(found)
            for order, found in zip(orders, harvest.readable, strict=True)
            if len(found) < order.wanted
        },
    )


def _read(
    outcome: Reply | TeacherFailure,
    request: TeacherRequest,
    order: _Order,
    task: Task,
    settings: Augment,
    harvest: _Harvest,
    place: int,
) -> None:
    asking = Asking(
        method=order.method,
        parents=(order.parent.id,),
        call=request.key,
        prompt=request.prompt,
        rollout=request.rollout,
    )
    if isinstance(outcome, TeacherFailure):
        harvest.failed.append(FailedRequest(asking=asking, kind=outcome.kind, message=str(outcome)))
        harvest.given += 1
        return
    found: Sequence[Retold | Invented | Unparsed]
    if order.method == "rewrite":
        assert settings.rewrite is not None
        found = [parse_rewrite(outcome.text, retell_context=settings.rewrite.retell_context)]
    else:
        items = parse_new(outcome.text, task, with_options=bool(order.parent.options))
        found = [items] if isinstance(items, Unparsed) else items
    harvest.given += len(found)
    for at, item in enumerate(found):
        if isinstance(item, Unparsed):
            harvest.unparsed.append(UnparsedReply(asking=asking, place=at, unparsed=item))
        elif (same := (order.parent.id, order.method, _asked(item))) in harvest.questions:
            harvest.duplicates += 1
        else:
            harvest.questions.add(same)
            example = example_of(item, order.parent, call=asking.call, place=at)
            harvest.readable[place].append(Candidate(example=example, prompt=asking.prompt, rollout=asking.rollout))


def _asked(item: Retold | Invented) -> str:
    return normalise("\n".join((item.question, *(item.options if isinstance(item, Invented) else ()))))


def example_of(item: Retold | Invented, parent: Example, *, call: str, place: int) -> Example:
    """Return the training example that an item makes; its document is its parent's."""
    match item:
        case Retold(question=question, long_answer=long_answer, context=context):
            return replace(
                parent,
                question=question,
                long_answer=long_answer,
                context=parent.context if context is None else context,
                origin=Synthetic(method="rewrite", parents=(parent.id,), call=call, place=place),
            )
        case Invented(question=question, label=label, long_answer=long_answer, options=options):
            return replace(
                parent,
                question=question,
                label=label,
                long_answer=long_answer,
                options=options,
                origin=Synthetic(method="new", parents=(parent.id,), call=call, place=place),
            )


def first_requests(
    correspondent: Correspondent, train: Sequence[Example], task: Task, settings: Augment
) -> list[TeacherRequest]:
    """Return the requests of the first round: what a plan counts and a preview shows."""
    return [
        _request(correspondent, order, task, settings, rollout)
        for order in _orders(train, task, settings)
        for rollout in _rollouts(order, 0, 0)
    ]


def _orders(train: Sequence[Example], task: Task, settings: Augment) -> list[_Order]:
    sections: tuple[tuple[Method, Rewrite | New | None], ...] = (("rewrite", settings.rewrite), ("new", settings.new))
    wanted = {method: section.per_item for method, section in sections if section}
    strange = [label for label in (settings.new and settings.new.balance) or () if label not in task.labels]
    if strange:
        raise RecipeError(
            f"augment.new.balance names {', '.join(strange)}, not among the labels {', '.join(task.labels)}; "
            "name labels as the task does"
        )
    orders, copies = [], Counter[str]()
    for parent in train:
        first = _ROLLOUTS_OF_A_COPY * copies[parent.id]
        copies[parent.id] += 1
        orders += [
            _Order(parent=parent, method=method, wanted=count, first_rollout=first) for method, count in wanted.items()
        ]
    return orders


def _failures(outcomes: Mapping[str, Reply | TeacherFailure]) -> list[TeacherFailure]:
    return [outcome for outcome in outcomes.values() if isinstance(outcome, TeacherFailure)]


def _rollouts(order: _Order, have: int, attempt: int) -> list[int]:
    # A rewrite's reply holds one item, so each wanted item is a draw of its own; new questions come together.
    if order.method == "rewrite":
        return [order.first_rollout + attempt * order.wanted + place for place in range(order.wanted - have)]
    return [order.first_rollout + attempt] if have < order.wanted else []


def _request(
    correspondent: Correspondent, order: _Order, task: Task, settings: Augment, rollout: int
) -> TeacherRequest:
    if order.method == "rewrite":
        assert settings.rewrite is not None
        return correspondent.rewrite(order.parent, task, settings, settings.rewrite, rollout)
    assert settings.new is not None
    return correspondent.new(order.parent, task, settings, settings.new, rollout)
