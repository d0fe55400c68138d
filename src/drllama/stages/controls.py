"""Rows that a control trains on in the place of the teacher's: copies of the real ones, and edits of a few words."""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

import regex

from drllama.ids import derive_seed
from drllama.types import Derived, Example

_SHARE = 0.1
"""Of the words of a text, so many are edited; Wei and Zou (2019) recommend it for a few hundred rows."""
# What stands between spaces; in scripts without spaces between words, a letter.
_WORD = regex.compile(
    r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]\p{M}*"
    r"|[^\s\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]+"
)


def copies(train: Sequence[Example], number: int, *, seed: int) -> tuple[Example, ...]:
    """Return so many of the examples, drawn by seed, all of them before any of them once more."""
    drawn: list[Example] = []
    while len(drawn) < number:
        drawn += random.Random(derive_seed(seed, "copies", len(drawn))).sample(list(train), len(train))
    return tuple(drawn[:number])


def edits(train: Sequence[Example], number: int, *, seed: int) -> tuple[Example, ...]:
    """Return so many edits of the examples, drawn by seed, each with its parent's label.

    After "easy data augmentation" (Wei and Zou 2019) without its synonyms, which take a lexicon of one language: an
    edit swaps a tenth of the words with others, leaves a tenth out, or puts a tenth in once more elsewhere.
    """
    parents = copies(train, number, seed=seed)
    return tuple(_edited(one, place, derive_seed(seed, "edit", place)) for place, one in enumerate(parents))


def _edited(parent: Example, place: int, seed: int) -> Example:
    rng = random.Random(seed)
    edit = rng.choice((_swapped, _thinned, _repeated))
    return replace(
        parent,
        question=_line_by_line(parent.question, edit, rng),
        context=_line_by_line(parent.context, edit, rng),
        long_answer=None,
        origin=Derived(source_id=f"{parent.origin.source_id}~{place}", parent=parent.id),
    )


def _line_by_line(text: str, edit: Callable[[list[str], random.Random], None], rng: random.Random) -> str:
    """Return the text with its paragraphs as they were; each word goes with the space behind it."""
    lines = []
    for line in text.split("\n"):
        starts = [found.start() for found in _WORD.finditer(line)]
        words = [line[start:end] for start, end in zip(starts, [*starts[1:], len(line)], strict=True)]
        if len(words) > 1:
            # The last word has no space behind it, wherever it goes.
            gap = " " if any(word[-1].isspace() for word in words[:-1]) else ""
            words[-1] = words[-1].rstrip() + gap
            edit(words, rng)
            line = line[: starts[0]] + "".join(words).rstrip()
        lines.append(line)
    return "\n".join(lines)


def _swapped(words: list[str], rng: random.Random) -> None:
    for _ in range(_number(words)):
        one, other = rng.sample(range(len(words)), 2)
        words[one], words[other] = words[other], words[one]


def _thinned(words: list[str], rng: random.Random) -> None:
    for place in sorted(rng.sample(range(len(words)), _number(words)), reverse=True):
        del words[place]


def _repeated(words: list[str], rng: random.Random) -> None:
    for _ in range(_number(words)):
        words.insert(rng.randrange(len(words) + 1), rng.choice(words))


def _number(words: Sequence[str]) -> int:
    return max(1, round(_SHARE * len(words)))
