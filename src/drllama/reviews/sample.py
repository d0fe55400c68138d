"""How many of the kept rows are right: a random sample of them, read by people."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

from drllama.ids import derive_seed, fingerprint
from drllama.stats.intervals import wilson
from drllama.types import CandidateRow, Decision, Estimate, Run, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Precision:
    """What people found among rows that were drawn at random from the kept ones."""

    num_kept: int
    """Kept rows, the population."""
    num_read: int
    """Rows of the sample, in the order of their drawing, up to the first that is undecided."""
    num_rejected: int
    num_edited: int
    """Rows that weren't right before a person changed them."""
    estimate: Estimate | None
    """Accepted rows as a share of those read; None: none was read."""


def drawing_order(rows: Iterable[CandidateRow], run: Run) -> tuple[str, ...]:
    """Return the ids of the kept rows in a random order, seeded by the run; its first n are a sample of n.

    A larger sample contains the smaller one, so that what was read is never read in vain.
    """
    seed = derive_seed(_root_seed(run), "review", run.id)
    kept = [row.id for row in rows if row.dropped is None]
    return tuple(sorted(kept, key=lambda name: fingerprint([seed, name])))


def precision_of(
    rows: Sequence[CandidateRow], standing: Mapping[str, Decision], run: Run, *, size: int | None, level: float
) -> Precision:
    """Return the precision of the kept rows, from the first rows of the drawing order that are all decided.

    ``size`` bounds the sample; None: as far as people have read. Stopping at the first undecided row keeps the sample
    random: rows that were skipped because they are hard would flatter the rest.
    """
    by_id = {row.id: row for row in rows}
    order = drawing_order(rows, run)
    read = list(takewhile(lambda name: name in standing, order[:size]))
    verdicts = [_verdict(by_id[name], standing[name]) for name in read]
    rejected, edited = verdicts.count(Verdict.REJECT), verdicts.count(Verdict.EDIT)
    right = len(read) - rejected - edited
    return Precision(
        num_kept=len(order),
        num_read=len(read),
        num_rejected=rejected,
        num_edited=edited,
        estimate=wilson(right, len(read), level=level) if read else None,
    )


def _verdict(row: CandidateRow, decision: Decision) -> Verdict:
    # The run trained on a person's own texts: that row is what the person wants.
    return Verdict.ACCEPT if row.review == decision and row.written is not None else decision.ruling.verdict


def _root_seed(run: Run) -> int:
    seed = run.recipe["seed"]
    assert isinstance(seed, int), seed
    return seed
