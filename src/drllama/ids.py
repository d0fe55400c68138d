"""Canonical JSON, content ids, fingerprints and derived seeds: names that depend on content alone."""

import hashlib
import json
from pathlib import Path

_CANONICAL = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def canonical_json(value: object) -> str:
    """Return the one JSON text of a value: sorted keys, no spaces, no NaN.

    >>> canonical_json({"b": 1, "a": ["é"]})
    '{"a":["é"],"b":1}'
    """
    return _CANONICAL.encode(value)


def fingerprint(value: object) -> str:
    """Return the sha256 of a value's canonical JSON, 64 hexadecimal digits."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def content_id(*parts: str) -> str:
    """Return a name for these texts in this order, 16 hexadecimal digits.

    >>> content_id("ab", "c") == content_id("a", "bc")
    False
    """
    return fingerprint(list(parts))[:16]


def derive_seed(root: int, *scope: str | int) -> int:
    """Return the seed of one named use of randomness, below 2**63.

    Named, not counted: adding a stage or reordering calls changes nobody else's numbers.
    """
    return int(fingerprint([root, *scope])[:16], 16) >> 1


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file's bytes, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
