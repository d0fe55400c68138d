"""How many rows of each label stay: wanted shares, and at most so many in all."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import floor

from drllama.ids import fingerprint
from drllama.recipe import Balance
from drllama.types import Candidate, Label, Measured, Objection, Votes


@dataclass(frozen=True)
class BalanceFilter:
    """Keeps as many rows as the shares and the limit allow.

    Of a label's rows those go first that fewer blind answers agreed with, then by the hash of their id: which rows go
    depends on the rows alone, not on their order.
    """

    settings: Balance
    votes: Mapping[str, Votes]
    """By candidate id; where there are none, the hash alone decides."""
    name: str = field(default="balance", init=False)

    def check(self, candidates: Sequence[Candidate]) -> list[Objection | None]:
        """Return an objection or None for each candidate."""
        ranked = sorted(candidates, key=self._rank)
        if self.settings.shares is None:
            limit = len(ranked) if self.settings.at_most is None else self.settings.at_most
            stay = {one.id for one in ranked[:limit]}
            beyond = Objection(reason="more rows than wanted", evidence=Measured(value=len(ranked), limit=limit))
            return [None if one.id in stay else beyond for one in candidates]
        there = Counter(str(one.example.label) for one in ranked)
        wanted = label_quotas(there, self.settings.shares, at_most=self.settings.at_most)
        stay = {
            one.id
            for label in there
            for one in [one for one in ranked if one.example.label == label][: wanted.get(label, 0)]
        }
        return [None if one.id in stay else _beyond_share(str(one.example.label), there, wanted) for one in candidates]

    def _rank(self, candidate: Candidate) -> tuple[float, str]:
        votes = self.votes.get(candidate.id)
        return -votes.agreement(str(candidate.example.label)) if votes else 0.0, fingerprint(candidate.id)


def _beyond_share(label: Label, there: Mapping[Label, int], wanted: Mapping[Label, int]) -> Objection:
    evidence = Measured(value=there[label], limit=wanted.get(label, 0))
    return Objection(reason="more rows of its label than its share", evidence=evidence)


def label_quotas(there: Mapping[Label, int], shares: Mapping[Label, float], *, at_most: int | None) -> dict[Label, int]:
    """Return how many rows of each label to keep: the most that there are enough rows for, to a row, at these shares.

    >>> label_quotas({"yes": 50, "no": 10}, {"yes": 0.5, "no": 0.5}, at_most=None)
    {'yes': 11, 'no': 10}
    """
    most = sum(there.values()) if at_most is None else min(at_most, sum(there.values()))
    # Past this total, some label has too few rows even when its quota is rounded down.
    enough = min(((there.get(label, 0) + 1) / share for label, share in shares.items() if share > 0), default=0.0)
    total = min(most, floor(enough))
    while any(count > there.get(label, 0) for label, count in _rounded(shares, total).items()):
        total -= 1
    return _rounded(shares, total)


def _rounded(shares: Mapping[Label, float], total: int) -> dict[Label, int]:
    """Return whole numbers that add up to the total, by largest remainder; of equal remainders the first."""
    whole = {label: floor(share * total + 1e-9) for label, share in shares.items()}
    left = total - sum(whole.values())
    by_remainder = sorted(shares, key=lambda label: whole[label] - shares[label] * total)
    return {label: count + (label in by_remainder[:left]) for label, count in whole.items()}
