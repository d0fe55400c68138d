"""What large models answered: every attempt kept, durable before its reply is used, in one SQLite file."""

from drllama.replies.batches import BatchBook
from drllama.replies.rows import BATCH, LIVE, Attempt, Failure
from drllama.replies.store import Asked, ImportCount, RequestStore, StoreStats

__all__ = ["BATCH", "LIVE", "Asked", "Attempt", "BatchBook", "Failure", "ImportCount", "RequestStore", "StoreStats"]
