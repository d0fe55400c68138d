"""Requests that are out at a server as a batch: submitted, left, come back for."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenBatch:
    """A batch whose replies aren't here yet."""

    id: str
    """Our own name for it, sent along: by it a batch is found again whose number at the server we never heard."""
    num_requests: int
    sent_at: datetime | None
    """When the server was told to begin; None: it was never told, so nothing is out."""
    server_id: str | None
    """The server's name for it; None: not heard yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRecord:
    """A batch, out or ended, and what came of it."""

    id: str
    endpoint: str
    server_id: str | None
    state: str
    """The server's word for it, ``out`` for one whose replies aren't here yet."""
    num_requests: int
    num_replies: int
    num_failures: int
    """Requests that got no reply; with the replies they add up to the requests, once it has ended."""
    num_strays: int
    """Lines that couldn't be read, or belong to no request of the batch; they were left out."""
    created_at: str
    """UTC, ISO 8601."""
