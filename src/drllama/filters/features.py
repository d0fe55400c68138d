"""Texts as numbers: character shingles, words and runs of words, hashed for whole blocks of texts at once.

Letters in the names of arrays: C characters, U units, F features, N texts (and one more where they are borders).

A unit is a word; in a script that doesn't part its words it is one character, which counts as half a word.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import regex

from drllama.text import normalise

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SHINGLE = 5
"""Characters of a shingle, as in ``text.shingles``."""
PART = 4
"""Characters of a part of a word."""
HALF_WORDS = 2
"""What a word weighs; a character of a script without spaces weighs 1."""
BLOCK_TEXTS = 1 << 15
_BLOCK_CHARACTERS = 2_000_000
_UNSPACED = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]")
# Odd, so that they have an inverse modulo 2**64; otherwise any will do.
_LETTER_BASE, _UNIT_BASE = 0x9E3779B97F4A7C15, 0xD6E8FEB86659FD93


@dataclass(frozen=True, slots=True, kw_only=True)
class Bags:
    """A set of hashed features for each text, one set after the other."""

    features_F: "NDArray[np.uint32]"
    borders_N: "NDArray[np.int64]"
    """Text n has the features from border n to border n + 1."""

    def __len__(self) -> int:
        """Return the number of texts."""
        return len(self.borders_N) - 1

    @property
    def rows_F(self) -> "NDArray[np.int64]":
        """Return the text that each feature is of."""
        import numpy as np

        return np.repeat(np.arange(len(self)), np.diff(self.borders_N))


@dataclass(frozen=True, slots=True, kw_only=True)
class Windows:
    """All runs of so many words in some texts, hashed."""

    hashes_U: "NDArray[np.uint64]"
    rows_U: "NDArray[np.int64]"


def blocks(texts: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Yield the borders of blocks of texts that are small enough to work on at once, at least one text each."""
    start = characters = 0
    for stop, text in enumerate(texts):
        if stop - start == BLOCK_TEXTS or (characters and characters + len(text) > _BLOCK_CHARACTERS):
            yield start, stop
            start, characters = stop, 0
        characters += len(text) + SHINGLE
    if start < len(texts):
        yield start, len(texts)


def shingle_bags(normalised: Sequence[str]) -> Bags:
    """Return the hashed character 5-grams of normalised texts, spaces left out; a feature may stand in a bag twice."""
    import numpy as np

    # The zeros behind each text make a shingle of a text that is shorter than one, and keep texts apart.
    letters = [text.replace(" ", "") for text in normalised]
    codes_C = _codes(("\0" * SHINGLE).join([*letters, ""]))
    lengths_N = np.fromiter(map(len, letters), dtype=np.int64, count=len(letters))
    counts_N = np.maximum(lengths_N - (SHINGLE - 1), 1)
    borders_N = _borders(counts_N)
    starts_F = np.arange(borders_N[-1]) + np.repeat(_borders(lengths_N + SHINGLE)[:-1] - borders_N[:-1], counts_N)
    hashes_C = np.zeros(max(len(codes_C) - SHINGLE + 1, 0), dtype=np.uint64)
    for place in range(SHINGLE):
        # Horner's rule in the ring modulo 2**64; code points have 21 bits, so two of them never overlap by chance.
        hashes_C *= np.uint64(_LETTER_BASE)
        hashes_C += codes_C[place : place + len(hashes_C)]
    return Bags(features_F=_mixed(hashes_C[starts_F]), borders_N=borders_N)


def part_bags(normalised: Sequence[str]) -> Bags:
    """Return the hashed parts of words: 4-grams within each word and the spaces around it; a bag may hold one twice.

    In a script that doesn't part its words they are the pairs of neighbours.
    """
    import numpy as np

    codes_C = _codes("\0" + "".join(text + "\0" for text in normalised))
    halves_C = _halves(codes_C)
    lengths_N = np.fromiter(map(len, normalised), dtype=np.int64, count=len(normalised))
    rows_C = np.concatenate(([0], np.repeat(np.arange(len(normalised)), lengths_N + 1)))
    # One separator between words is enough, and the last stands for the end.
    keep_C = np.concatenate(([True], (halves_C[1:] > 0) | (halves_C[:-1] > 0)))
    halves_C, rows_C = halves_C[keep_C], rows_C[keep_C]
    codes_C = np.where(halves_C > 0, codes_C[keep_C], 0) + np.uint64(1)
    padded_C = np.concatenate((halves_C, np.zeros(2, dtype=np.int8)))
    first_C, second_C, third_C = (padded_C[n : n + len(halves_C)] for n in range(3))
    sizes_C = np.where(first_C == 1, 2, 0)
    sizes_C[(first_C != 1) & (second_C == HALF_WORDS) & (third_C == HALF_WORDS)] = PART
    sizes_C[(first_C == 0) & (second_C == HALF_WORDS) & (third_C != HALF_WORDS)] = PART - 1
    starts_F = np.flatnonzero(sizes_C)
    sizes_F = sizes_C[starts_F]
    codes_C = np.concatenate((codes_C, np.ones(PART, dtype=np.uint64)))
    hashes_F = np.zeros(len(starts_F), dtype=np.uint64)
    for place in range(PART):
        hashes_F = hashes_F * np.uint64(_LETTER_BASE) + np.where(place < sizes_F, codes_C[starts_F + place], 0)
    # A part that begins with the space before a text's first word belongs to that text.
    rows_F = np.concatenate((rows_C, rows_C[-1:]))[starts_F + 1]
    borders_N = np.searchsorted(rows_F, np.arange(len(normalised) + 1))
    return Bags(features_F=_mixed(hashes_F), borders_N=borders_N)


def word_bags(normalised: Sequence[str]) -> Bags:
    """Return the hashed units of normalised texts; the second "the" of a text is another feature than the first."""
    import numpy as np

    hashes_U, _, borders_N = _units(normalised)
    rows_U = np.repeat(np.arange(len(normalised)), np.diff(borders_N))
    order_U = np.lexsort((hashes_U, rows_U))
    hashes_U, places_U = hashes_U[order_U], np.arange(len(hashes_U))
    again_U = np.zeros(len(hashes_U), dtype=bool)
    again_U[1:] = (hashes_U[1:] == hashes_U[:-1]) & (rows_U[1:] == rows_U[:-1])
    nth_U = places_U - np.maximum.accumulate(np.where(again_U, 0, places_U))
    return Bags(
        features_F=_mixed(hashes_U + nth_U.astype(np.uint64) * np.uint64(_UNIT_BASE)),
        borders_N=borders_N,
    )


def windows(normalised: Sequence[str], num_words: int) -> Windows:
    """Return all runs of ``num_words`` words, or twice as many characters where words aren't parted, of each text."""
    import numpy as np

    hashes_U, halves_U, borders_N = _units(normalised)
    rows_U = np.repeat(np.arange(len(normalised)), np.diff(borders_N))
    total_U = _borders(halves_U)
    starts_U = np.arange(len(hashes_U))
    if len(hashes_U) and halves_U.min() == HALF_WORDS:
        ends_U = starts_U + num_words
    else:
        ends_U = np.searchsorted(total_U, total_U[:-1] + num_words * HALF_WORDS)
    whole_U = ends_U <= borders_N[1:][rows_U]
    starts_U, ends_U = starts_U[whole_U], ends_U[whole_U]
    return Windows(hashes_U=_spans(hashes_U, starts_U, ends_U, _UNIT_BASE), rows_U=rows_U[whole_U])


def _units(normalised: Sequence[str]) -> "tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.int64]]":
    """Return the hash and the weight of each unit, and the borders of the texts."""
    import numpy as np

    codes_C = _codes("\0".join([*normalised, ""]))
    ends_N = np.cumsum(np.fromiter(map(len, normalised), dtype=np.int64, count=len(normalised)) + 1)
    halves_C = _halves(codes_C)
    inside_C = halves_C > 0
    begins_C = inside_C.copy()
    begins_C[1:] &= (halves_C[1:] == 1) | (halves_C[:-1] != HALF_WORDS)
    starts_U = np.flatnonzero(begins_C)
    # A word ends where the next character isn't part of it; a lone character ends at once.
    last_C = inside_C.copy()
    last_C[:-1] &= (halves_C[:-1] == 1) | (halves_C[1:] != HALF_WORDS)
    ends_U = np.flatnonzero(last_C) + 1
    assert len(starts_U) == len(ends_U), f"{len(starts_U)} units begin, {len(ends_U)} end"
    borders_N = np.concatenate(([0], np.searchsorted(starts_U, ends_N)))
    return _spans(codes_C, starts_U, ends_U, _LETTER_BASE), halves_C[starts_U].astype(np.int64), borders_N


def _halves(codes_C: "NDArray[np.uint64]") -> "NDArray[np.int8]":
    """Return for each character 2 in a word, 1 where it is a unit by itself, 0 between units."""
    import numpy as np

    table = np.zeros(0x110000 if codes_C.max(initial=0) > 127 else 128, dtype=np.int8)
    present = np.arange(128) if len(table) == 128 else np.flatnonzero(np.bincount(codes_C.astype(np.int64)))
    table[present] = [_half(int(code)) for code in present]
    return table[codes_C]


@lru_cache(maxsize=1 << 16)
def _half(code: int) -> int:
    letter = chr(code)
    if _UNSPACED.match(letter):
        return 1
    return HALF_WORDS if letter.isalnum() else 0


def _spans(
    values: "NDArray[np.uint64]", starts: "NDArray[np.int64]", ends: "NDArray[np.int64]", root: int
) -> "NDArray[np.uint64]":
    """Return a hash of each span of values: a polynomial modulo 2**64, out of differences of one running sum."""
    import numpy as np

    powers, inverses = _powers(root, len(values) + 1)
    running = np.zeros(len(values) + 1, dtype=np.uint64)
    np.cumsum((values + np.uint64(1)) * powers[:-1], out=running[1:])
    return _scrambled((running[ends] - running[starts]) * inverses[starts])


def _powers(root: int, count: int) -> "tuple[NDArray[np.uint64], NDArray[np.uint64]]":
    capacity = 1 << max(16, (count - 1).bit_length())
    powers, inverses = _tables(root, capacity)
    return powers[:count], inverses[:count]


@lru_cache(maxsize=4)
def _tables(root: int, capacity: int) -> "tuple[NDArray[np.uint64], NDArray[np.uint64]]":
    import numpy as np

    found = []
    for factor in (root, pow(root, -1, 1 << 64)):
        table = np.full(capacity, factor, dtype=np.uint64)
        table[0] = 1
        found.append(np.cumprod(table, dtype=np.uint64))
    return found[0], found[1]


def _codes(text: str) -> "NDArray[np.uint64]":
    import numpy as np

    # A lone surrogate, which JSON can smuggle in, is a character like any other here.
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.uint64)


def _borders(counts: "NDArray[np.int64]") -> "NDArray[np.int64]":
    import numpy as np

    borders = np.zeros(len(counts) + 1, dtype=np.int64)
    np.cumsum(counts, out=borders[1:])
    return borders


def _scrambled(hashes: "NDArray[np.uint64]") -> "NDArray[np.uint64]":
    """Return the hashes with all bits made to depend on all others (the finaliser of splitmix64)."""
    import numpy as np

    hashes = (hashes ^ (hashes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    hashes = (hashes ^ (hashes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return hashes ^ (hashes >> np.uint64(31))


def _mixed(hashes: "NDArray[np.uint64]") -> "NDArray[np.uint32]":
    import numpy as np

    return (_scrambled(hashes) >> np.uint64(32)).astype(np.uint32)


def normalise_all(texts: Sequence[str]) -> list[str]:
    """Return the texts as they are compared."""
    return [normalise(text) for text in texts]
