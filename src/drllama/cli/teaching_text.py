"""What the commands around a teacher print."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from drllama.cli.tables import evaluation_table, table
from drllama.recipe import Endpoint, Recipe
from drllama.replies import StoreStats
from drllama.stages.augment import Augmented
from drllama.stages.plan import Plan, Shows
from drllama.types import Audit, BatchRecord, Outcome, TeacherCall

_REASONS_SHOWN = 10


def plan_text(plan: Plan, recipe: Recipe) -> str:
    """Return a plan: requests, tokens, cost, time, what leaves the machine, and what the test set can show."""
    rows = [
        [
            part.prompt,
            str(part.num_requests),
            str(part.num_kept),
            f"{part.tokens_in:,}",
            f"{part.tokens_out:,}",
            _usd(part.cost_usd),
            part.tokens_out_from,
        ]
        for part in plan.parts
    ]
    source = plan.price.source if plan.price else "no price known; set usd_per_million_tokens"
    header = ["template", "requests", "kept already", "tokens to send", "tokens back", "cost", "tokens back are"]
    lines = [
        f"teacher {plan.model} at {plan.endpoint}",
        "",
        table(header, rows),
        "",
        f"cost: {_usd(plan.cost_usd)} ({source})",
        _time(plan, recipe),
        _leaving(plan, recipe),
        _detectable(plan.shows),
    ]
    return "\n".join(lines)


def audit_text(audit: Audit) -> str:
    """Return an audit's table and what follows from it."""
    lines = [evaluation_table([audit.majority, *([audit.student] if audit.student else []), audit.teacher])]
    unread = Counter(one.note for one in audit.teacher.predictions if one.outcome == Outcome.UNPARSED)
    lines += _most_frequent({**audit.failures, **unread})
    rows = [
        [one.label, str(one.support), *(f"{share.value:.3f}" for share in (one.precision, one.recall, one.f1))]
        for one in audit.teacher.per_class
    ]
    lines += ["", table(["label", "gold", "precision", "recall", "F1"], rows), "", audit.verdict]
    return "\n".join(lines)


def augmented_text(found: Augmented, out: Path) -> str:
    """Return what became of an augmentation's requests, with the reasons for what isn't there."""
    lines = [
        f"{len(found.candidates)} candidates from {found.num_requests} requests: {out}",
        f"unreadable: {len(found.unparsed)}; without a reply: {len(found.failed)}; spare: {found.spare}; "
        f"the same question again: {found.duplicates}; sources short of what was wanted: {len(found.short_of)}",
    ]
    reasons = Counter(one.unparsed.reason for one in found.unparsed)
    reasons.update(f"{failed.kind}: {failed.message}" for failed in found.failed)
    return "\n".join([*lines, *_most_frequent(reasons)])


def call_text(call: TeacherCall) -> str:
    """Return one call whole."""
    told = "\n".join(f"[{message.role}] {message.content}" for message in call.request.messages)
    head = f"=== {call.request.prompt}, rollout {call.request.rollout}"
    return f"{head}\n{told}\n--- reply ({call.reply.finish})\n{call.reply.text}\n"


def stats_text(stats: StoreStats) -> str:
    """Return the counts of a store of replies."""
    if not stats.rows:
        return "no replies are kept here yet"
    rows = [
        [
            row.model,
            row.endpoint,
            row.prompt,
            row.source,
            str(row.replies),
            ", ".join(f"{count} {kind}" for kind, count in row.failures.items()) or "-",
            f"{row.tokens_in:,} / {row.tokens_out:,}",
            f"{_usd(row.known_cost_usd)}" + (f" and {row.unknown_costs} unknown" if row.unknown_costs else ""),
        ]
        for row in stats.rows
    ]
    return table(["model", "endpoint", "template", "from", "replies", "failures", "tokens in / out", "cost"], rows)


def batches_text(batches: Sequence[BatchRecord]) -> str:
    """Return what was submitted as batches, and what came of each."""
    if not batches:
        return "no batches were submitted from here yet"
    rows = [
        [
            one.id,
            one.server_id or "not known yet",
            one.endpoint,
            one.state,
            one.created_at[:16],
            *map(str, (one.num_requests, one.num_replies, one.num_failures, one.num_strays)),
        ]
        for one in batches
    ]
    header = ["batch", "at the server", "endpoint", "state", "submitted, UTC", "requests", "replies", "without one"]
    return table([*header, "stray lines"], rows)


def _usd(cost: float | None) -> str:
    return "unknown" if cost is None else f"${cost:,.4f}" if 0 < cost < 1 else f"${cost:,.2f}"


def _most_frequent(reasons: Mapping[str, int]) -> list[str]:
    ranked = sorted(reasons.items(), key=lambda pair: (-pair[1], pair[0]))
    lines = [f"  {count} x {reason}" for reason, count in ranked[:_REASONS_SHOWN]]
    left = sum(count for _, count in ranked[_REASONS_SHOWN:])
    return [*lines, f"  {left} x other reasons"] if left else lines


def _time(plan: Plan, recipe: Recipe) -> str:
    if isinstance(recipe.teacher, Endpoint) and recipe.teacher.batch:
        return "time: each batch takes up to 24 hours; run the same command again to come back for it"
    told = "no rate is set" if plan.minutes is None else f"{plan.minutes:.1f} minutes"
    return f"time at the allowed rate: {told}"


def _leaving(plan: Plan, recipe: Recipe) -> str:
    if plan.destination is None or plan.destination.is_this_machine:
        return "nothing leaves this machine"
    host = plan.destination.host
    allowed = (
        f"{host} stands in allow_hosts"
        if plan.destination.is_allowed
        else f"not allowed yet: add {host} to allow_hosts, or nothing is sent"
    )
    train = ""
    if recipe.augment:
        train = "; questions, contexts, labels and conclusions of train" if recipe.augment.rewrite else ""
        train = train or "; questions and contexts of train"
    return f"what leaves this machine for {host}: questions and contexts of dev{train}; no test question\n({allowed})"


def _detectable(shows: Shows) -> str:
    assumed = "15 % of the questions answered differently"
    if shows.num_seeds > 1 or shows.with_more_seeds:
        assumed += ", half of them with every seed, and a point of luck in training"
    judged = f", {shows.num_judged} arms" if shows.num_judged > 1 else ""
    if shows.with_more_seeds:
        enough, found = shows.with_more_seeds
        few = "one seed is" if shows.num_seeds == 1 else f"{shows.num_seeds} seeds are"
        return (
            f"{few} too few to show any difference in accuracy on the {shows.num_test} test questions; "
            f"{enough} show {found:.1%} or more (80 % power, {assumed}{judged})"
        )
    seeds = (
        "one seed, which tells nothing of the luck of training" if shows.num_seeds == 1 else f"{shows.num_seeds} seeds"
    )
    basis = f"(80 % power, {assumed}; {seeds}{judged})"
    if shows.detectable is None:
        return f"the {shows.num_test} test questions are too few to show any difference in accuracy {basis}"
    return (
        f"the {shows.num_test} test questions show a difference in accuracy of {shows.detectable:.1%} or more {basis}"
    )
