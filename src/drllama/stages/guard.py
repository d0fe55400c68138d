"""The last look before training: no row to train on may be one that the student is scored on."""

from collections import Counter
from collections.abc import Sequence
from typing import get_args

from drllama.errors import OverlapError
from drllama.filters.leaks import find_leaks
from drllama.recipe import Leaks
from drllama.text import normalise
from drllama.types import Example, How, LeakAudit, LeakCount, Lookalike, Neighbour, SplitName, Synthetic

NUM_NEAREST = 20
_HELD_OUT: tuple[SplitName, ...] = ("dev", "test")


def audit_leaks(train_rows: Sequence[Example], held_out: Sequence[Example], settings: Leaks) -> LeakAudit:
    """Return how the rows to train on are like dev and test rows.

    A generated row that is like one in any way is fatal. A real row is fatal when it comes from the same document or
    asks the same of the same text; two questions of people may otherwise look alike, so that is told and no more.

    Raises:
        OverlapError: a row has no question, so that it can't be compared.
        MissingExtra: the settings name an encoder that isn't installed.
    """
    for row in (*train_rows, *held_out):
        if not normalise(row.question):
            raise OverlapError(
                f"row {row.origin.source_id} of {row.split} ({row.origin.source}) has no question, so it can't be "
                "checked for leaks; remove it"
            )
    held_out_ids = {row.id for row in held_out}
    found = [
        _lookalike(row, neighbour, row.id in held_out_ids)
        for row, neighbour in zip(train_rows, find_leaks(train_rows, held_out, settings), strict=True)
        if neighbour is not None
    ]
    counted = Counter((one.neighbour.how, one.neighbour.split, one.real, one.fatal) for one in found)
    audit = LeakAudit(
        num_real=(num_real := sum(not isinstance(row.origin, Synthetic) for row in train_rows)),
        num_synthetic=len(train_rows) - num_real,
        num_dev=sum(row.split == "dev" for row in held_out),
        num_test=sum(row.split == "test" for row in held_out),
        counts=tuple(_count(counted, how, split) for how in get_args(How) for split in _HELD_OUT),
        nearest=tuple(sorted(found, key=lambda one: (not one.fatal, -one.neighbour.similarity))[:NUM_NEAREST]),
        num_clean=len(train_rows) - len(found),
    )
    assert audit.num_dev + audit.num_test == len(held_out), "a held-out row is in neither dev nor test"
    assert sum(one.num_real + one.num_synthetic for one in audit.counts) + audit.num_clean == len(train_rows)
    return audit


def refuse_leaks(audit: LeakAudit, *, told: str) -> None:
    """Do nothing if no row leaks; ``told`` is where the audit can be read.

    Raises:
        OverlapError: one does.
    """
    if not audit.num_fatal:
        return
    worst = audit.nearest[0]
    neighbour = worst.neighbour
    raise OverlapError(
        f"{audit.num_fatal} of {audit.num_real + audit.num_synthetic} rows to train on leak dev or test; the first, "
        f"{'real' if worst.real else 'generated'} row {worst.source_id}, is like {neighbour.split} row "
        f"{neighbour.source_id} ({neighbour.how}, {neighbour.similarity:.2f}); remove them from train "
        f"(all of them: {told})"
    )


def _lookalike(row: Example, neighbour: Neighbour, same: bool) -> Lookalike:
    real = not isinstance(row.origin, Synthetic)
    return Lookalike(
        source_id=row.origin.source_id,
        question=row.question,
        real=real,
        neighbour=neighbour,
        fatal=not real or same or neighbour.how == "document",
    )


def _count(counted: Counter[tuple[How, SplitName, bool, bool]], how: How, split: SplitName) -> LeakCount:
    return LeakCount(
        how=how,
        split=split,
        num_real=counted[how, split, True, True] + counted[how, split, True, False],
        num_synthetic=counted[how, split, False, True],
        num_fatal=counted[how, split, True, True] + counted[how, split, False, True],
    )
