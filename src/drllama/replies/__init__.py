"""What large models answered: every attempt kept, durable before its reply is used, in one SQLite file."""

from drllama.replies.rows import LIVE, Attempt, Failure
from drllama.replies.store import Asked, ImportCount, RequestStore, StoreStats

__all__ = ["LIVE", "Asked", "Attempt", "Failure", "ImportCount", "RequestStore", "StoreStats"]
