"""What people decided about candidates: a rejected one goes, an approved one stays, whatever filters say but leaks."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from drllama.protocols import Filter
from drllama.types import Candidate, Decision, Objection, Texts, Verdict, texts_of

_NEVER_OVERRULED = "leaks"
# These compare rows with each other, so they must see the approved ones too.
_COMPARING = ("duplicates", "balance")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reviewed:
    """Candidates with people's decisions."""

    candidates: tuple[Candidate, ...]
    """As many as were given, in their order; edited ones with the texts that a person gave them, and their origin."""
    decisions: Mapping[str, Decision]
    """Those that are respected, by candidate id."""
    written: Mapping[str, Texts]
    """What the teacher wrote, by candidate id, of the edited ones."""
    outdated: tuple[Decision, ...]
    """Decisions about other texts than the teacher's under the same id: it was asked anew, and nobody saw these."""

    @property
    def approved(self) -> frozenset[str]:
        """Return the ids of candidates that a person wants: accepted or edited."""
        return frozenset(name for name, one in self.decisions.items() if one.ruling.verdict != Verdict.REJECT)


def current(decisions: Iterable[Decision]) -> dict[str, Decision]:
    """Return the decision that counts for each candidate, by id: the last one, unless it undoes."""
    last: dict[str, Decision] = {}
    for one in sorted(decisions, key=lambda one: one.number):
        last[one.ruling.candidate_id] = one
    return {name: one for name, one in last.items() if one.ruling.verdict != Verdict.UNDO}


def review(candidates: Sequence[Candidate], decisions: Iterable[Decision]) -> Reviewed:
    """Return the candidates with the decisions about them; decisions about others are left out."""
    found = current(decisions)
    written = {one.id: texts_of(one.example) for one in candidates}
    about = {name: found[name] for name in written if name in found}
    respected = {name: one for name, one in about.items() if one.ruling.written == written[name].id}
    edits = {name: one.ruling.edited for name, one in respected.items() if one.ruling.edited}
    return Reviewed(
        candidates=tuple(_edited(one, edits[one.id]) if one.id in edits else one for one in candidates),
        decisions=respected,
        written={name: written[name] for name in edits},
        outdated=tuple(one for name, one in about.items() if name not in respected),
    )


def _edited(candidate: Candidate, texts: Texts) -> Candidate:
    example = replace(
        candidate.example,
        question=texts.question,
        context=texts.context,
        label=texts.label,
        long_answer=texts.long_answer,
    )
    return replace(candidate, example=example)


@dataclass(frozen=True)
class ReviewFilter:
    """Objects to what a person rejected; the evidence is the decision."""

    reviewed: Reviewed
    name: str = field(default="review", init=False)

    def check(self, candidates: Sequence[Candidate]) -> list[Objection | None]:
        """Return an objection or None for each candidate."""
        return [self._objection(self.reviewed.decisions.get(one.id)) for one in candidates]

    @staticmethod
    def _objection(decision: Decision | None) -> Objection | None:
        if decision is None or decision.ruling.verdict != Verdict.REJECT:
            return None
        return Objection(reason="rejected by a reviewer", evidence=decision)


@dataclass(frozen=True)
class Sparing:
    """A filter that lets rows pass which a person approved, whatever it makes of them."""

    inner: Filter
    approved: frozenset[str]
    """Ids of candidates."""

    @property
    def name(self) -> str:
        """Return the inner filter's name: it drops the others."""
        return self.inner.name

    def check(self, candidates: Sequence[Candidate]) -> list[Objection | None]:
        """Return the inner filter's objection for each candidate that nobody approved, None for the others."""
        shown = [one for one in candidates if self.inner.name in _COMPARING or one.id not in self.approved]
        objections = dict(zip([one.id for one in shown], self.inner.check(shown), strict=True))
        return [None if one.id in self.approved else objections[one.id] for one in candidates]


def sparing(inner: Filter, reviewed: Reviewed) -> Filter:
    """Return the filter as it respects what people approved; the leak guard stays as it is: it respects nobody."""
    if inner.name == _NEVER_OVERRULED or not reviewed.approved:
        return inner
    return Sparing(inner, reviewed.approved)
