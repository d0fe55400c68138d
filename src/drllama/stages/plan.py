"""What asking a teacher will take, told before anything is sent."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from drllama.types import TeacherRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What tokens cost, and how that is known."""

    usd_per_million_in: float
    usd_per_million_out: float
    source: str
    """Such as "price table, seen 2025-04-14" or "the recipe"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """A machine that text would be sent to."""

    host: str
    is_this_machine: bool
    is_allowed: bool
    """It is this machine, or the recipe's ``allow_hosts`` names it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedPart:
    """The requests of one template."""

    prompt: str
    num_requests: int
    num_kept: int
    """Of these, replies that lie in the store already: they cost nothing."""
    tokens_in: int
    """Of the requests still to be sent, counted on the rendered messages."""
    tokens_out: int
    """Of their replies, as far as can be said before."""
    tokens_out_from: str
    """How the length of a reply is known: a pilot, or an assumption."""
    cost_usd: float | None
    """None: unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shows:
    """What a run of this size shows."""

    detectable: float | None
    """The smallest difference in accuracy that it finds with 80 % power; None: it is too small for any."""
    num_test: int
    num_seeds: int
    num_judged: int
    """Arms that the verdict is about; 1 where the recipe trains none."""
    with_more_seeds: tuple[int, float] | None = None
    """Where it finds none: the fewest seeds that find one, and which; None: a few more don't either."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All that will be asked, before it is; of an augmentation the first round."""

    endpoint: str
    model: str
    destination: Destination | None
    """None: nothing is sent anywhere."""
    parts: tuple[PlannedPart, ...]
    price: Price | None
    cost_usd: float | None
    minutes: float | None
    """At the allowed rate; None where none is set."""
    shows: Shows


@dataclass(frozen=True, slots=True, kw_only=True)
class Pilot:
    """What earlier replies to a template tell about the length of the next."""

    num_replies: int
    mean_tokens_out: float


def plan_part(
    prompt: str,
    requests: Sequence[TeacherRequest],
    *,
    is_kept: Callable[[str], bool],
    count_tokens: Callable[[str], int],
    pilot: Pilot | None,
    price: Price | None,
) -> PlannedPart:
    """Return what the requests of one template will take."""
    ahead = [request for request in requests if not is_kept(request.key)]
    tokens_in = sum(count_tokens(message.content) for request in ahead for message in request.messages)
    if pilot:
        tokens_out = round(pilot.mean_tokens_out * len(ahead))
        known_from = f"mean of {pilot.num_replies} replies"
    else:
        tokens_out = sum(request.sampling.max_tokens for request in ahead)
        known_from = "assumed: every reply as long as allowed"
    cost = None
    if price:
        cost = (tokens_in * price.usd_per_million_in + tokens_out * price.usd_per_million_out) / 1e6
    return PlannedPart(
        prompt=prompt,
        num_requests=len(requests),
        num_kept=len(requests) - len(ahead),
        tokens_in=tokens_in,
        tokens_out=tokens_out,
        tokens_out_from=known_from,
        cost_usd=0.0 if not ahead else cost,
    )


def minutes_needed(
    parts: Sequence[PlannedPart], *, requests_per_minute: int | None, tokens_per_minute: int | None
) -> float | None:
    """Return the time that the allowed rates force, in minutes; None where no rate is set."""
    requests = sum(part.num_requests - part.num_kept for part in parts)
    tokens = sum(part.tokens_in + part.tokens_out for part in parts)
    needed = [
        amount / rate
        for amount, rate in ((requests, requests_per_minute), (tokens, tokens_per_minute))
        if rate is not None
    ]
    return max(needed) if needed else None
