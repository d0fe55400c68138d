"""What lies on the desk: a run's candidates, what is known of each, and which of them somebody wants to see."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from urllib.parse import urlencode

from drllama import plugins
from drllama.errors import DataError
from drllama.filters.review import current
from drllama.recipe import resolve
from drllama.reviews import Reviewable, drawing_order
from drllama.store import Store
from drllama.text import normalise
from drllama.types import CandidateRow, Decision, Example, FilterName, Label, Run, texts_of

UNDECIDED = "undecided"
STATES = {"all": "all", UNDECIDED: UNDECIDED, "accept": "accepted", "reject": "rejected", "edit": "edited"}
"""Decisions as they stand in an address, and in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """Which rows somebody wants to see; each field is as it stands in the address."""

    state: str = "all"
    """A key of ``STATES``."""
    outcome: str = "all"
    """``all``, ``kept``, ``dropped``, or ``by-`` and a filter's name."""
    method: str = "all"
    label: str = ""
    """Empty: any."""
    text: str = ""
    """Words that a row must hold, whatever the letter case."""

    @property
    def query(self) -> str:
        """Return the view as the query of an address, without what is as usual."""
        return urlencode({one.name: value for one in fields(self) if (value := getattr(self, one.name)) != one.default})


@dataclass(frozen=True, kw_only=True)
class Desk:
    """The rows that are reviewed, and what they were made from."""

    run: Run
    rows: tuple[CandidateRow, ...]
    """In the order in which they are shown."""
    all_rows: tuple[CandidateRow, ...]
    """The run's, whatever is shown."""
    parents: Mapping[str, Example]
    """By id; one that the data don't hold any more is missing."""
    filters: tuple[FilterName, ...]
    """Those that looked, in their order."""
    level: float
    """Coverage of intervals."""
    sample_size: int | None
    """None: all rows are shown."""

    @cached_property
    def by_id(self) -> Mapping[str, CandidateRow]:
        """Return the rows that are reviewed, by id."""
        return {row.id: row for row in self.rows}

    @cached_property
    def num_from_call(self) -> Mapping[str, int]:
        """Return how many rows each request gave, by its key."""
        return Counter(row.asking.call for row in self.all_rows)

    @property
    def labels(self) -> tuple[Label, ...]:
        """Return the task's labels."""
        return self.run.task.labels

    @cached_property
    def outcomes(self) -> Mapping[str, str]:
        """Return what the filters may have made of a row: as in an address, and in words."""
        droppers = dict.fromkeys(row.dropped.by for row in self.rows if row.dropped)
        found = {"all": "any", "kept": "kept", "dropped": "dropped"}
        return found | {f"by-{name}": f"dropped by {name}" for name in droppers}

    @cached_property
    def methods(self) -> tuple[str, ...]:
        """Return the methods that made the rows."""
        return tuple(dict.fromkeys(row.asking.method for row in self.rows))

    @cached_property
    def _written(self) -> Mapping[str, str]:
        """Return the hash of what the teacher wrote, by row."""
        return {row.id: row.teachers_texts.id for row in self.all_rows}

    def parent(self, row: CandidateRow) -> Example | None:
        """Return the example that a row was made from; None: the data don't hold it any more."""
        return next((self.parents[name] for name in row.asking.parents if name in self.parents), None)

    def standing(self, decisions: Sequence[Decision]) -> dict[str, Decision]:
        """Return the decisions that count for the run's rows as the teacher wrote them, by candidate id."""
        found = current(decisions).items()
        return {name: one for name, one in found if one.ruling.written == self._written.get(name)}

    def seen_through(self, view: View, standing: Mapping[str, Decision]) -> tuple[CandidateRow, ...]:
        """Return the rows that a view shows."""
        words = normalise(view.text).split()
        return tuple(row for row in self.rows if self._fits(row, view, words, standing.get(row.id)))

    def _fits(self, row: CandidateRow, view: View, words: Sequence[str], decision: Decision | None) -> bool:
        outcomes = ("all", "dropped", f"by-{row.dropped.by}") if row.dropped else ("all", "kept")
        return (
            view.state in ("all", decision.ruling.verdict if decision else UNDECIDED)
            and view.outcome in outcomes
            and view.method in ("all", row.asking.method)
            and view.label in ("", row.label)
            and all(word in self._searched[row.id] for word in words)
        )

    @cached_property
    def _searched(self) -> Mapping[str, str]:
        """Return what a search looks at, by row."""
        found = {}
        for row in self.rows:
            parent = self.parent(row)
            told = (row.id, row.question, row.context, row.long_answer or "", *row.options)
            found[row.id] = normalise("\n".join((*told, parent.question if parent else "")))
        return found

    @property
    def reviewables(self) -> list[Reviewable]:
        """Return the rows for a spreadsheet."""
        return [
            Reviewable(
                id=row.id,
                written=row.teachers_texts,
                method=row.asking.method,
                outcome=f"dropped by {row.dropped.by}: {row.dropped.reason}" if row.dropped else "kept",
                original=texts_of(parent) if (parent := self.parent(row)) else None,
            )
            for row in self.rows
        ]


def read_desk(run: Run, *, store: Store, sample_size: int | None) -> Desk:
    """Return a run's candidates; with a sample size, only so many of the kept ones, drawn at random.

    Raises:
        StoreError: the run asked no teacher, or its ledger can't be read.
        DataError: the run has no candidates, or none was kept to draw from.
    """
    rows = tuple(row for row in store.ledger(run) if isinstance(row, CandidateRow))
    if not rows:
        raise DataError(f"run {run.id}: its teacher wrote nothing that could be read; there is nothing to review")
    shown = rows
    if sample_size is not None:
        by_id = {row.id: row for row in rows}
        shown = tuple(by_id[name] for name in drawing_order(rows, run)[:sample_size])
        if not shown:
            raise DataError(f"run {run.id} kept no row to draw a sample from; leave --sample out to see all rows")
    recipe = resolve(run.recipe).recipe
    wanted = {name for row in rows for name in row.asking.parents}
    train = plugins.make_source(recipe).load().train
    return Desk(
        run=run,
        rows=shown,
        all_rows=rows,
        parents={one.id: one for one in train if one.id in wanted},
        filters=recipe.filters.active,
        level=recipe.evaluate.level,
        sample_size=sample_size,
    )
