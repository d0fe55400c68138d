"""What the commands about a teacher's rows print."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import assert_never

from drllama.afterwards import RowStory
from drllama.cli.tables import table
from drllama.replies import Attempt
from drllama.report.evidence import evidence_text
from drllama.types import (
    CandidateRow,
    Diversity,
    DropCount,
    Evidence,
    Example,
    FailedRow,
    FunnelStep,
    Reply,
    UnparsedRow,
)

_REASONS_SHOWN = 15


def sifted_text(funnel: Sequence[FunnelStep], drops: Sequence[DropCount], diversity: Sequence[Diversity]) -> str:
    """Return the funnel, what stopped rows, and how varied the rows are, as aligned plain text."""
    methods = list(funnel[0].counts)
    steps = [[step.name, *_counts(step.counts, methods)] for step in funnel]
    lines = [table(["rows", *methods, "all"], steps)]
    if drops:
        shown = [[one.by, one.reason, *_counts(one.counts, methods)] for one in drops[:_REASONS_SHOWN]]
        lines += ["", table(["stopped by", "because", *methods, "all"], shown)]
        left = sum(sum(one.counts.values()) for one in drops[_REASONS_SHOWN:])
        lines += [f"{left} more for other reasons"] if left else []
    return "\n".join([*lines, "", diversity_table(diversity)])


def diversity_table(groups: Sequence[Diversity]) -> str:
    """Return how varied groups of rows are, side by side."""
    labels = list(groups[0].label_shares)
    rows = [
        [
            one.rows,
            str(one.num_rows),
            f"{one.distinct_1:.3f}",
            f"{one.distinct_2:.3f}",
            f"{one.self_similarity:.3f}",
            *(f"{one.label_shares[label]:.1%}" for label in labels),
            " / ".join(f"{length:.0f}" for length in one.question_columns),
        ]
        for one in groups
    ]
    header = ["questions", "rows", "distinct-1", "distinct-2", "self-similarity", *labels, "length, quartiles"]
    note = f"distinct and self-similarity are of {groups[0].num_compared} rows of each; length is in columns"
    return f"{table(header, rows)}\n{note}"


def story_text(story: RowStory) -> str:
    """Return the whole life of a row."""
    row, asking = story.row, story.row.asking
    lines = [f"row {row.id} of run {story.run_id}: {_fate(story)}"]
    for parent in story.parents:
        lines += [
            "",
            f"made from {parent.origin.source_id} of {parent.origin.source}, by {asking.method}",
            *_texts(parent),
        ]
    lines += ["", f"asked with {asking.prompt}, rollout {asking.rollout}, key {asking.call}"]
    lines += [f"  {_attempt(one)}" for one in story.attempts] or ["  the store of replies doesn't hold this request"]
    match row:
        case CandidateRow():
            lines += ["", f"the reply's item {row.place}", *_texts(row), "", *_verdicts(row, story)]
            lines += ["", f"trained on in: {', '.join(row.arms) or 'no arm'}"]
        case UnparsedRow(text=text):
            lines += ["", "what came", textwrap.indent(text, "  ")]
        case FailedRow(message=message):
            lines += ["", f"no reply: {message}"]
        case _ as other:
            assert_never(other)
    return "\n".join(lines)


def _fate(story: RowStory) -> str:
    match story.row:
        case CandidateRow(dropped=None):
            return "kept"
        case CandidateRow(dropped=drop):
            assert drop is not None
            return f"dropped by {drop.by}: {drop.reason}"
        case UnparsedRow(reason=reason):
            return f"couldn't be read: {reason}"
        case FailedRow(failure=failure):
            return f"got no reply: {failure}"


def _texts(row: Example | CandidateRow) -> list[str]:
    told = [
        ("question", row.question),
        *(("option", option) for option in row.options),
        ("label", str(row.label)),
        ("long answer", row.long_answer or "-"),
        ("context", row.context or "-"),
    ]
    return [
        textwrap.fill(text, width=110, initial_indent=f"  {name + ':':<13}", subsequent_indent=" " * 15)
        for name, text in told
    ]


def _verdicts(row: CandidateRow, story: RowStory) -> list[str]:
    lines = [f"  review: {row.review.ruling.verdict} ({evidence_text(row.review)})"] if row.review else []
    if row.dropped and row.dropped.by == "review":
        return lines
    for name in story.filters:
        if row.dropped and row.dropped.by == name:
            return [*lines, f"  {name}: {row.dropped.reason} ({evidence_text(row.dropped.evidence)})"]
        seen: Evidence | None = {"label": row.votes, "judge": row.judgement}.get(name)
        lines.append(f"  {name}: passed" + (f" ({evidence_text(seen)})" if seen else ""))
    return lines


def _attempt(attempt: Attempt) -> str:
    when = f"{attempt.created_at[:19]} UTC, {attempt.request.model}, {attempt.source}"
    if not isinstance(attempt.outcome, Reply):
        return f"{when}: {attempt.outcome.kind}"
    reply = attempt.outcome
    cost = "cost unknown" if reply.cost_usd is None else f"${reply.cost_usd:.4f}"
    tokens = "tokens unknown" if reply.tokens_out is None else f"{reply.tokens_in} tokens in, {reply.tokens_out} out"
    return f"{when}: replied ({reply.finish}), {tokens}, {cost}"


def _counts(counts: Mapping[str, int], methods: Sequence[str]) -> list[str]:
    return [*(str(counts.get(method, 0)) for method in methods), str(sum(counts.values()))]
