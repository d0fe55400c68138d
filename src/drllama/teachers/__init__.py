"""Large models, and what is wrapped around them."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager

from drllama.protocols import AnswerMany, Batches, Replies, Teacher
from drllama.recipe import Endpoint
from drllama.teachers.batch_server import BatchServer
from drllama.teachers.batches import Batched, NotTwice
from drllama.teachers.budget import Budgeted, Ledger
from drllama.teachers.endpoint import ChatEndpoint
from drllama.teachers.limits import Limited
from drllama.teachers.many import ask_all
from drllama.teachers.replay import Replay
from drllama.teachers.retry import Latched, Retried, Sleep
from drllama.teachers.stored import Kept, Stored

__all__ = [
    "Budgeted",
    "ChatEndpoint",
    "Kept",
    "Latched",
    "Ledger",
    "Limited",
    "NotTwice",
    "Replay",
    "Retried",
    "Stored",
    "ask_all",
    "asked_at_once",
    "batched",
    "http_teacher",
]


@asynccontextmanager
async def http_teacher(
    settings: Endpoint,
    *,
    replies: Replies,
    ledger: Ledger,
    seed: int,
    allow_hosts: Collection[str] = (),
    usd_per_million_tokens: tuple[float, float] | None = None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Sleep = asyncio.sleep,
) -> AsyncIterator[Teacher]:
    """Give a teacher over HTTP that loses no reply, buys none twice and keeps to its limits.

    From the outside in: a stored reply costs nothing and waits for nobody; a failed attempt is sent again through
    everything inside; each attempt is kept, failed or not, before anybody sees it; it waits for its place, is stopped
    if the key was refused meanwhile, has its worst cost set aside, and is sent once.

    Raises:
        RecipeError: the host isn't allowed, or money is limited and the price unknown.
    """
    prices = usd_per_million_tokens or settings.usd_per_million_tokens
    async with ChatEndpoint(settings, allow_hosts=allow_hosts, usd_per_million_tokens=prices, clock=clock) as endpoint:
        limited = Limited(
            Latched(Budgeted(endpoint, ledger, usd_per_million_tokens=prices)),
            max_in_flight=settings.max_in_flight,
            requests_per_minute=settings.requests_per_minute,
            tokens_per_minute=settings.tokens_per_minute,
            clock=clock,
            sleep=sleep,
        )
        async with Kept(limited, replies) as kept:
            yield Stored(Retried(kept, seed=seed, sleep=sleep), replies)


def asked_at_once(settings: Endpoint) -> int:
    """Return how many requests to have on their way: some more than the server gets, for those that are being kept."""
    return settings.max_in_flight + max(1, settings.max_in_flight // 8)


# A file of many requests takes longer than one request.
_UPLOAD_SECONDS = 900.0


@asynccontextmanager
async def batched(
    settings: Endpoint,
    *,
    batches: Batches,
    replies: Replies,
    ledger: Ledger,
    seed: int,
    allow_hosts: Collection[str] = (),
    usd_per_million_tokens: tuple[float, float] | None = None,
    sleep: Sleep = asyncio.sleep,
) -> AsyncIterator[AnswerMany]:
    """Give the way to put many requests to a server as batches, at a batch's prices.

    Raises:
        RecipeError: the host isn't allowed.
    """
    patient = settings.model_copy(update={"timeout_seconds": max(settings.timeout_seconds, _UPLOAD_SECONDS)})
    async with ChatEndpoint(
        patient, allow_hosts=allow_hosts, usd_per_million_tokens=usd_per_million_tokens
    ) as endpoint:
        yield Batched(
            endpoint,
            BatchServer(endpoint.client, seed=seed, sleep=sleep),
            batches=batches,
            replies=replies,
            ledger=ledger,
            usd_per_million_tokens=usd_per_million_tokens,
        )
