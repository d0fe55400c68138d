"""The pages as text: what a visitor sees of the desk, rendered whole on this side."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cache
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote

from drllama.replies import Attempt
from drllama.report.evidence import evidence_text
from drllama.report.wording import visible
from drllama.reviews import Conflict, Precision, precision_of
from drllama.types import CandidateRow, Decision, Evidence, Reply, Texts, Verdict, texts_of
from drllama.web.desk import STATES, UNDECIDED, Desk, View
from drllama.web.differences import Differences, differences

if TYPE_CHECKING:
    from jinja2.sandbox import SandboxedEnvironment

QUICK_REASONS = (
    "wrong label",
    "not answered by the context",
    "gives the answer away",
    "nothing new",
    "unclear or garbled",
    "not about the domain",
)
_LISTED = 60
"""Rows of the list beside a row; the others are a page away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """One request: who looks, at what, from where."""

    base: str
    """The path that all pages begin with; it holds the token."""
    here: str
    """Path and query of this request."""
    nonce: str
    """Marks the page's own style and script."""
    reviewer: str | None
    """None: nobody said."""
    view: View
    done: int | None
    """Number of the decision that was just kept."""

    def address(self, row_id: str, *, done: int | None = None) -> str:
        """Return where a row stands, under the same view."""
        query = "&".join(filter(None, [self.view.query, f"done={done}" if done is not None else ""]))
        return f"{self.base}row/{quote(row_id, safe=':')}" + (f"?{query}" if query else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterVerdict:
    """What one filter made of a row."""

    name: str
    outcome: Literal["passed", "dropped", "not asked"]
    told: str
    """Reason and evidence; may be empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far the reviewers are."""

    num_rows: int
    counts: Mapping[str, int]
    """By state."""

    @property
    def num_decided(self) -> int:
        """Return how many rows have a decision."""
        return self.num_rows - self.counts[UNDECIDED]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Compared:
    """Two versions of a row's texts, with their differences marked."""

    question: Differences
    context: Differences
    long_answer: Differences


class Pages:
    """Renders pages over one desk."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def row(
        self,
        visit: Visit,
        row: CandidateRow,
        decisions: Sequence[Decision],
        attempts: Sequence[Attempt],
        refused: str,
        typed: Mapping[str, str] | None,
    ) -> str:
        """Return the page of one row; ``refused`` says why what was typed couldn't be kept."""
        standing = self._desk.standing(decisions)
        decision, parent, written = standing.get(row.id), self._desk.parent(row), row.teachers_texts
        history = [one for one in decisions if one.ruling.candidate_id == row.id]
        original = texts_of(parent) if parent else None
        edited = decision.ruling.edited if decision else None
        done = next((one for one in decisions if one.number == visit.done), None)
        return self._render(
            "row.html.jinja",
            visit,
            decisions,
            row=row,
            written=written,
            original=original,
            parent=parent,
            compared=_compared(original, written) if original else None,
            decision=decision,
            edited=edited,
            after_edit=_compared(written, edited) if edited else None,
            form=_typed(edited or written, typed),
            history=history,
            seen=history[-1].number if history else 0,
            is_outdated=bool(history) and decision is None and history[-1].ruling.verdict != Verdict.UNDO,
            done=done,
            verdicts=self._verdicts(row),
            votes=_votes(row),
            call=next((one for one in attempts if one.chosen), None),
            num_siblings=self._desk.num_from_call[row.asking.call],
            refused=refused,
            **self._list(visit, row, standing),
        )

    def conflict(self, visit: Visit, row: CandidateRow, conflict: Conflict) -> str:
        """Return a page that shows two decisions that crossed, and asks which is to stand."""
        theirs, mine = conflict.theirs.ruling, conflict.mine
        between = _compared(theirs.edited or row.teachers_texts, mine.edited or row.teachers_texts)
        return self._render(
            "conflict.html.jinja", visit, None, row=row, theirs=conflict.theirs, mine=mine, between=between
        )

    def empty(self, visit: Visit, decisions: Sequence[Decision]) -> str:
        """Return a page for a view that shows no row."""
        return self._render("empty.html.jinja", visit, decisions, rows=(), row=None)

    def name(self, visit: Visit, refused: str) -> str:
        """Return a page that asks who is there."""
        return self._render("name.html.jinja", visit, None, refused=refused)

    def trouble(self, visit: Visit, told: str) -> str:
        """Return a page that tells what went wrong."""
        return self._render("trouble.html.jinja", visit, None, told=told)

    def _render(self, template: str, visit: Visit, decisions: Sequence[Decision] | None, **shown: object) -> str:
        desk = self._desk
        counted = (
            {"progress": self._progress(decisions), "precision": self._precision(decisions)}
            if decisions is not None
            else {}
        )
        return (
            _environment()
            .get_template(template)
            .render(
                desk=desk,
                run=desk.run,
                visit=visit,
                view=visit.view,
                states=STATES,
                quick_reasons=QUICK_REASONS,
                **counted,
                **shown,
            )
            + "\n"
        )

    def _progress(self, decisions: Sequence[Decision]) -> Progress:
        standing = self._desk.standing(decisions)
        found = [standing[row.id].ruling.verdict if row.id in standing else UNDECIDED for row in self._desk.rows]
        return Progress(
            num_rows=len(found), counts={name: sum(one == name for one in found) for name in STATES if name != "all"}
        )

    def _precision(self, decisions: Sequence[Decision]) -> Precision | None:
        """Return the precision of the kept rows once a whole sample is decided."""
        desk = self._desk
        if desk.sample_size is None:
            return None
        standing = desk.standing(decisions)
        if any(row.id not in standing for row in desk.rows):
            return None
        return precision_of(desk.all_rows, standing, desk.run, size=desk.sample_size, level=desk.level)

    def _list(self, visit: Visit, row: CandidateRow, standing: Mapping[str, Decision]) -> dict[str, object]:
        rows = self._desk.seen_through(visit.view, standing)
        # A row that a view doesn't show any more, its decision being new, stays between its neighbours.
        order = {one.id: place for place, one in enumerate(self._desk.rows)}
        here = order[row.id]
        before = [one for one in rows if order[one.id] < here]
        behind = [one for one in rows if order[one.id] > here]
        first = max(0, min(len(before) - _LISTED // 2, len(rows) - _LISTED))
        return {
            "rows": rows[first : first + _LISTED],
            "num_listed": len(rows),
            "first_listed": first,
            "place": len(before) + 1 if any(one.id == row.id for one in rows) else None,
            "previous": before[-1] if before else None,
            "following": behind[0] if behind else None,
            "state_of": {one.id: standing[one.id].ruling.verdict if one.id in standing else UNDECIDED for one in rows},
            "earlier": rows[max(0, first - _LISTED // 2)] if first else None,
            "later": rows[min(len(rows) - 1, first + _LISTED + _LISTED // 2)] if first + _LISTED < len(rows) else None,
        }

    def _verdicts(self, row: CandidateRow) -> list[FilterVerdict]:
        names = [str(name) for name in self._desk.filters]
        if row.dropped and row.dropped.by not in names:
            names.insert(0, row.dropped.by)
        found: list[FilterVerdict] = []
        for name in names:
            asked = not any(one.outcome == "dropped" for one in found)
            if row.dropped and row.dropped.by == name:
                told = f"{row.dropped.reason} ({evidence_text(row.dropped.evidence)})"
                found.append(FilterVerdict(name=name, outcome="dropped", told=told))
                continue
            seen: Evidence | None = {"label": row.votes, "judge": row.judgement}.get(name)
            told = evidence_text(seen) if seen and asked else ""
            found.append(FilterVerdict(name=name, outcome="passed" if asked else "not asked", told=told))
        return found


@cache
def _environment() -> "SandboxedEnvironment":
    from jinja2 import PackageLoader, StrictUndefined
    from jinja2.sandbox import SandboxedEnvironment
    from markupsafe import Markup

    def shown(value: object) -> object:
        assert value is not None, "a page shows None"
        return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value

    environment = SandboxedEnvironment(
        loader=PackageLoader("drllama", "web"),
        undefined=StrictUndefined,
        autoescape=True,
        finalize=shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["when"] = lambda at: f"{at[:10]} {at[11:19]} UTC"
    environment.tests["a_reply"] = lambda outcome: isinstance(outcome, Reply)
    return environment


def _compared(first: Texts, second: Texts) -> _Compared:
    return _Compared(
        question=differences(first.question, second.question),
        context=differences(first.context, second.context),
        long_answer=differences(first.said, second.said),
    )


def _typed(texts: Texts, typed: Mapping[str, str] | None) -> dict[str, str]:
    """Return what stands in the edit form: what somebody typed there, else the texts."""
    kept = {**asdict(texts), "long_answer": texts.said}
    return {one.name: (typed or {}).get(one.name, kept[one.name]) for one in fields(Texts)}


def _votes(row: CandidateRow) -> list[tuple[str, int, float]]:
    """Return each answer, how often it was given, and its share in percent; silence too where there was any."""
    if row.votes is None or not row.votes.num_asked:
        return []
    silent = {"unreadable": row.votes.num_unparsed, "no reply": row.votes.num_failed}
    counts = {**row.votes.counts, **{name: count for name, count in silent.items() if count}}
    return [(name, count, 100 * count / row.votes.num_asked) for name, count in counts.items()]
