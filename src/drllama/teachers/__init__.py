"""Large models, and what is wrapped around them."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager

from drllama.protocols import Replies, Teacher
from drllama.recipe import Endpoint
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
    "Replay",
    "Retried",
    "Stored",
    "ask_all",
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
    everything inside; each attempt waits for its place, is stopped if the key was refused meanwhile, has its worst
    cost set aside, is sent once, and is kept, failed or not, before anybody sees it.

    Raises:
        RecipeError: the host isn't allowed, or money is limited and the price unknown.
    """
    prices = usd_per_million_tokens or settings.usd_per_million_tokens
    async with ChatEndpoint(settings, allow_hosts=allow_hosts, usd_per_million_tokens=prices, clock=clock) as endpoint:
        careful = Latched(Budgeted(Kept(endpoint, replies), ledger, usd_per_million_tokens=prices))
        limited = Limited(
            careful,
            max_in_flight=settings.max_in_flight,
            requests_per_minute=settings.requests_per_minute,
            tokens_per_minute=settings.tokens_per_minute,
            clock=clock,
            sleep=sleep,
        )
        yield Stored(Retried(limited, seed=seed, sleep=sleep), replies)
