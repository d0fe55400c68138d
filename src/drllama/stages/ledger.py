"""The ledger of what was asked of a teacher: one row for each item, with what became of it."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from drllama.filters.review import Reviewed, review
from drllama.stages.arms import methods_of
from drllama.stages.augment import Augmented, FailedRequest, UnparsedReply
from drllama.types import (
    Arm,
    ArmName,
    Asking,
    Candidate,
    CandidateRow,
    Drop,
    FailedRow,
    Filtered,
    FilterName,
    LedgerRow,
    Synthetic,
    Unfiltered,
    UnparsedRow,
)


def ledger_rows(
    augmented: Augmented, filtered: Filtered, arms: Sequence[ArmName], reviewed: Reviewed | None = None
) -> tuple[LedgerRow, ...]:
    """Return a row for each candidate, in the candidates' order, then for what was unreadable and what failed.

    ``reviewed`` are the candidates with what people decided about them, as they were filtered; None: nobody did.

    Items that a teacher gave beyond what was wanted of their source aren't asked for, and have no row.
    """
    drops = {one.candidate.id: Drop(by=one.by, reason=one.reason, evidence=one.evidence) for one in filtered.dropped}
    kept = {one.id for one in filtered.kept}
    assert len(augmented.candidates) == len(kept) + len(drops), "given = kept + dropped"
    assert kept.isdisjoint(drops)
    reviewed = reviewed or review(augmented.candidates, ())
    rows = (_candidate(one, filtered, drops.get(one.id), arms) for one in reviewed.candidates)
    return (
        *(replace(row, review=reviewed.decisions.get(row.id), written=reviewed.written.get(row.id)) for row in rows),
        *(_unparsed(one) for one in augmented.unparsed),
        *(_failed(one) for one in augmented.failed),
    )


def with_arms_without_filter(
    rows: Sequence[LedgerRow], arms: Sequence[Arm], unfiltered: Mapping[FilterName, Unfiltered]
) -> tuple[LedgerRow, ...]:
    """Return the rows with those arms added that train on them because a filter is switched off, or in spite of it."""
    more: dict[str, list[str]] = {}
    for arm in arms:
        for one in unfiltered[arm.switched_off.filter].kept if arm.switched_off else ():
            if isinstance(one.example.origin, Synthetic) and one.example.origin.method in methods_of(arm.name):
                more.setdefault(one.id, []).append(arm.id)
    return tuple(
        replace(row, arms=(*row.arms, *more[row.id])) if isinstance(row, CandidateRow) and row.id in more else row
        for row in rows
    )


def candidate_lines(candidates: Iterable[Candidate]) -> Iterator[str]:
    """Yield the candidates as JSON Lines that the jsonl source reads: question, context, label, and where from."""
    for one in candidates:
        example = one.example
        yield json.dumps(
            {
                "id": example.origin.source_id,
                "question": example.question,
                "context": example.context,
                **({"options": list(example.options)} if example.options else {}),
                "label": example.label,
                "long_answer": example.long_answer,
                "group": example.group,
                "method": getattr(example.origin, "method", None),
                "parents": list(getattr(example.origin, "parents", ())),
                "prompt": one.prompt,
                "rollout": one.rollout,
            },
            ensure_ascii=False,
        )


def _candidate(candidate: Candidate, filtered: Filtered, drop: Drop | None, arms: Sequence[ArmName]) -> CandidateRow:
    example, origin = candidate.example, candidate.example.origin
    assert isinstance(origin, Synthetic), candidate
    return CandidateRow(
        id=candidate.id,
        asking=Asking(
            method=origin.method,
            parents=origin.parents,
            call=origin.call,
            prompt=candidate.prompt,
            rollout=candidate.rollout,
        ),
        place=origin.place,
        question=example.question,
        context=example.context,
        options=example.options,
        label=str(example.label),
        long_answer=example.long_answer,
        group=example.group,
        dropped=drop,
        votes=filtered.votes.get(candidate.id),
        judgement=filtered.judgements.get(candidate.id),
        arms=() if drop else tuple(arm for arm in arms if origin.method in methods_of(arm)),
    )


def _unparsed(reply: UnparsedReply) -> UnparsedRow:
    return UnparsedRow(
        id=f"{reply.asking.call[:16]}:{reply.place}",
        asking=reply.asking,
        text=reply.unparsed.text,
        reason=reply.unparsed.reason,
    )


def _failed(request: FailedRequest) -> FailedRow:
    return FailedRow(id=request.asking.call[:16], asking=request.asking, failure=request.kind, message=request.message)
