"""Whether a candidate's label is what others answer: by blind votes, or by a judge who saw the source."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from drllama.recipe import LabelKept
from drllama.types import Candidate, Judgement, Label, Objection, Quoted, Unparsed, Votes

UNJUDGED = "unjudged"


@dataclass(frozen=True)
class LabelFilter:
    """Keeps candidates whose label enough of their blind answers chose."""

    settings: LabelKept
    votes: Mapping[str, Votes]
    """By candidate id."""
    name: str = field(default="label", init=False)

    def check(self, candidates: Sequence[Candidate]) -> list[Objection | None]:
        """Return an objection or None for each candidate."""
        return [
            votes_objection(self.votes[one.id], str(one.example.label), self.settings.agreement) for one in candidates
        ]


def votes_objection(votes: Votes, label: Label, agreement: float) -> Objection | None:
    """Return an objection where fewer than this share of all answers, silent ones too, chose the label."""
    if votes.agreement(label) >= agreement:
        return None
    if not any(votes.counts.values()):
        return Objection(reason="no blind answer could be read", evidence=votes)
    others = [count for other, count in votes.counts.items() if other != label]
    if max(others, default=0) > votes.counts.get(label, 0):
        return Objection(reason="blind answers chose another label", evidence=votes)
    return Objection(reason="too few blind answers chose the label", evidence=votes)


@dataclass(frozen=True)
class JudgeFilter:
    """Keeps candidates that a judge supports and would label alike; one that can't be read is no pass."""

    judgements: Mapping[str, Judgement | Unparsed]
    """By candidate id."""
    name: str = field(default="judge", init=False)

    def check(self, candidates: Sequence[Candidate]) -> list[Objection | None]:
        """Return an objection or None for each candidate."""
        return [judge_objection(self.judgements[one.id], str(one.example.label)) for one in candidates]


def judge_objection(judgement: Judgement | Unparsed, label: Label) -> Objection | None:
    """Return an objection where the judge doesn't support the answer, would give another, or wasn't understood."""
    if isinstance(judgement, Unparsed):
        return Objection(reason=UNJUDGED, evidence=Quoted(text=judgement.reason))
    if not judgement.supported:
        return Objection(reason="the judge finds no support in the source's context", evidence=judgement)
    if judgement.label != label:
        return Objection(reason="the judge would answer with another label", evidence=judgement)
    return None
