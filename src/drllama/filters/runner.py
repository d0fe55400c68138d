"""One filter after the other: what each drops, with its reason, and what is left; nothing vanishes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from drllama.protocols import Filter
from drllama.types import Candidate, Dropped


@dataclass(frozen=True, slots=True, kw_only=True)
class Sieve:
    """What is left of some candidates, and what became of the others."""

    kept: tuple[Candidate, ...]
    dropped: tuple[Dropped, ...] = ()

    def through(self, filter: Filter) -> "Sieve":
        """Return the sieve after one more filter has looked at what is left."""
        objections = filter.check(self.kept)
        judged = list(zip(self.kept, objections, strict=True))
        kept = tuple(candidate for candidate, objection in judged if objection is None)
        dropped = tuple(
            Dropped(candidate=candidate, by=filter.name, reason=objection.reason, evidence=objection.evidence)
            for candidate, objection in judged
            if objection is not None
        )
        assert len(kept) + len(dropped) == len(self.kept), filter.name
        return Sieve(kept=kept, dropped=(*self.dropped, *dropped))


def run_filters(candidates: Sequence[Candidate], filters: Iterable[Filter]) -> Sieve:
    """Return what is left of the candidates, and who dropped the others why; the first that objects drops."""
    sieve = Sieve(kept=tuple(candidates))
    for one in filters:
        sieve = sieve.through(one)
    assert len(sieve.kept) + len(sieve.dropped) == len(candidates)
    return sieve
