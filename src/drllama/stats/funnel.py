"""How many of a teacher's rows got how far, and what stopped the others."""

from collections import Counter
from collections.abc import Sequence

from drllama.types import CandidateRow, DropCount, FilterName, FunnelStep, LedgerRow

PASSED = {
    FilterName.FORM: "well formed",
    FilterName.DUPLICATES: "unique",
    FilterName.LEAKS: "clean",
    FilterName.LABEL: "label kept",
    FilterName.JUDGE: "supported",
    FilterName.BALANCE: "balanced",
}
"""What a row is that passed a filter."""

_REVIEW = "review"
"""Who drops what people rejected, before any filter looks."""


def funnel(rows: Sequence[LedgerRow], filters: Sequence[FilterName]) -> tuple[FunnelStep, ...]:
    """Return the rows that were asked for, could be read, passed each of these filters, and are kept, by method."""
    methods = list(dict.fromkeys(row.asking.method for row in rows))
    left: list[LedgerRow] = list(rows)
    steps = [_step("asked", left, methods)]
    left = [row for row in left if isinstance(row, CandidateRow)]
    steps.append(_step("parsed", left, methods))
    if any(_stopped_by(row)[0] == _REVIEW for row in left):
        left = [row for row in left if _stopped_by(row)[0] != _REVIEW]
        steps.append(_step("not rejected by people", left, methods))
    for name in filters:
        left = [row for row in left if _stopped_by(row)[0] != name]
        steps.append(_step(PASSED[name], left, methods))
    assert all(_stopped_by(row) == ("", "") for row in left), "dropped by a filter that isn't in the recipe"
    return (*steps, _step("kept", left, methods))


def drop_counts(rows: Sequence[LedgerRow]) -> tuple[DropCount, ...]:
    """Return what stopped rows, the most frequent first."""
    found: dict[tuple[str, str], Counter[str]] = {}
    for row in rows:
        if (stopped := _stopped_by(row)) != ("", ""):
            found.setdefault(stopped, Counter())[row.asking.method] += 1
    ranked = sorted(found.items(), key=lambda item: (-item[1].total(), item[0]))
    return tuple(DropCount(by=by, reason=reason, counts=dict(counts)) for (by, reason), counts in ranked)


def _stopped_by(row: LedgerRow) -> tuple[str, str]:
    """Return who stopped a row and why; two empty texts where nobody did."""
    match row:
        case CandidateRow(dropped=None):
            return "", ""
        case CandidateRow(dropped=drop):
            assert drop is not None
            return drop.by, drop.reason
        case _ if row.kind == "unparsed":
            return "unparsed", row.reason
        case _:
            assert row.kind == "failed"
            return "failed", row.failure


def _step(name: str, rows: Sequence[LedgerRow], methods: Sequence[str]) -> FunnelStep:
    counts = Counter[str](row.asking.method for row in rows)
    return FunnelStep(name=name, counts={method: counts[method] for method in methods})
