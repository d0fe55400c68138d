"""What asking a teacher will take, before anything is sent."""

from collections.abc import Callable

from drllama import plugins
from drllama.recipe import Endpoint
from drllama.replies import RequestStore
from drllama.stages.arms import JUDGED
from drllama.stages.correspond import Correspondent
from drllama.stages.plan import Pilot, Plan, Shows, minutes_needed, plan_part
from drllama.stats.power import detectable_difference
from drllama.teaching import Lesson, bring_recording, correspondent_of, requests_of
from drllama.types import TeacherRequest

_PILOT_REPLIES = 10
_MOST_SEEDS = 10
"""As many as somebody might train."""


def plan(lesson: Lesson, *, replies: RequestStore, count_tokens: Callable[[str], int]) -> Plan:
    """Return what the audit, and the augmentation if there is to be one, will take; nothing is sent."""
    bring_recording(lesson, replies)
    destination = plugins.destination_of(lesson.recipe)
    correspondent = correspondent_of(lesson.recipe, replies)
    price = plugins.price_of(lesson.recipe)
    dev = [correspondent.answer(example, lesson.task, lesson.recipe.audit) for example in lesson.splits.dev]
    wanted: dict[str, list[TeacherRequest]] = {}
    for request in [*dev, *(requests_of(lesson, correspondent) if lesson.recipe.augment else [])]:
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
        shows=_shows(lesson),
    )


def _shows(lesson: Lesson) -> Shows:
    recipe, num_test = lesson.recipe, len(lesson.splits.test)
    num_judged = max(1, sum(name in JUDGED for name in recipe.augment.arms)) if recipe.augment else 1

    def detectable(num_seeds: int) -> float | None:
        return detectable_difference(num_test, num_seeds=num_seeds, num_arms=num_judged)

    with_more_seeds = (
        (seeds, found) for seeds in range(recipe.seeds + 1, _MOST_SEEDS + 1) if (found := detectable(seeds)) is not None
    )
    found = detectable(recipe.seeds)
    return Shows(
        detectable=found,
        num_test=num_test,
        num_seeds=recipe.seeds,
        num_judged=num_judged,
        with_more_seeds=next(with_more_seeds, None) if found is None else None,
    )


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
