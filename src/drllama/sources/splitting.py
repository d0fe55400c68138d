"""Cutting questions into train, dev and test by content alone: adding a row never moves another."""

from collections.abc import Sequence

from drllama.errors import DataError
from drllama.ids import content_id
from drllama.recipe import Limit
from drllama.text import normalise
from drllama.types import Example, SplitName, Splits

SPLIT_NAMES: tuple[SplitName, ...] = ("train", "dev", "test")


def document_id(question: str, context: str) -> str:
    """Return the group of a question whose source names none: its context, or itself when it stands alone."""
    context = normalise(context)
    return content_id("context", context) if context else content_id("question", normalise(question))


def split_of(group: str, *, dev: float, test: float) -> SplitName:
    """Return the split that a document falls into, from the hash of its name; ``dev`` and ``test`` are shares."""
    # 13 hexadecimal digits are 52 bits: exact in a float.
    place = int(content_id("split", group)[:13], 16) / 16**13
    if place < test:
        return "test"
    return "dev" if place < test + dev else "train"


def by_split(examples: Sequence[Example]) -> Splits:
    """Return the examples parted by their split, each in the order given."""
    parted = {name: tuple(one for one in examples if one.split == name) for name in SPLIT_NAMES}
    assert sum(map(len, parted.values())) == len(examples)
    return Splits(**parted)


def refuse_empty(splits: Splits, where: str, way_out: str) -> None:
    """Do nothing when every split holds a question.

    Raises:
        DataError: one is empty.
    """
    sizes = {name: len(splits.named(name)) for name in SPLIT_NAMES}
    if empty := [name for name, size in sizes.items() if not size]:
        counted = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise DataError(f"{where}: no question is in {' and '.join(empty)} ({counted}); {way_out}")


def limited(splits: Splits, limit: Limit) -> Splits:
    """Return the first so many of each split by content hash, in the order that they had."""
    return Splits(
        train=_first_by_hash(splits.train, limit.train),
        dev=_first_by_hash(splits.dev, limit.dev),
        test=_first_by_hash(splits.test, limit.test),
    )


def _first_by_hash(examples: tuple[Example, ...], most: int | None) -> tuple[Example, ...]:
    if most is None or most >= len(examples):
        return examples
    names = [one.id for one in examples]
    chosen = set(sorted(range(len(examples)), key=names.__getitem__)[:most])
    return tuple(one for place, one in enumerate(examples) if place in chosen)
