"""Where two texts differ, word by word; letter by letter in scripts without spaces between words."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

import regex

_UNSPACED = r"\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Thai}\p{Script=Lao}\p{Script=Khmer}"
_PIECE = regex.compile(
    rf"[{_UNSPACED}]\p{{M}}* | (?: (?! [{_UNSPACED}] ) [\p{{L}}\p{{N}}\p{{M}}] )+ | \s+ | .", regex.VERBOSE
)
_LEAST_ALIKE = 0.3
_LONGEST = 6_000
"""Pieces of both texts together that are compared exactly; beyond, frequent ones no longer anchor a match."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a text."""

    text: str
    is_marked: bool
    """It isn't in the other text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Differences:
    """Two texts, each in pieces that join to the whole."""

    first: tuple[Piece, ...]
    second: tuple[Piece, ...]
    are_marked: bool
    """False: they are the same, or have so little in common that marks would tell nothing."""


def differences(first: str, second: str) -> Differences:
    """Return both texts with the pieces marked that the other doesn't have.

    >>> [piece.text for piece in differences("Does it help?", "Does this help?").second if piece.is_marked]
    ['this']
    >>> [piece.text for piece in differences("阿司匹林有效吗？", "阿司匹林安全吗？").second if piece.is_marked]
    ['安全']
    """
    mine, theirs = _PIECE.findall(first), _PIECE.findall(second)
    matcher = SequenceMatcher(None, mine, theirs, autojunk=len(mine) + len(theirs) > _LONGEST)
    if first == second or _share_alike(matcher, mine, theirs) < _LEAST_ALIKE:
        return Differences(first=_whole(first), second=_whole(second), are_marked=False)
    one, other = _Pieces(), _Pieces()
    for kind, start, end, begin, stop in matcher.get_opcodes():
        # White space alone between two changes is no island worth keeping apart.
        is_gap = kind == "equal" and start > 0 and end < len(mine) and "".join(mine[start:end]).isspace()
        one.add(mine[start:end], is_marked=kind != "equal" or is_gap)
        other.add(theirs[begin:stop], is_marked=kind != "equal" or is_gap)
    return Differences(first=one.joined(), second=other.joined(), are_marked=True)


def _share_alike(matcher: SequenceMatcher[str], mine: Sequence[str], theirs: Sequence[str]) -> float:
    """Return the share of words that both texts have in common; white space is in all texts and tells nothing."""
    shared = [mine[block.a + place] for block in matcher.get_matching_blocks() for place in range(block.size)]
    num_shared, num_all = (sum(not piece.isspace() for piece in pieces) for pieces in (shared, [*mine, *theirs]))
    return 2 * num_shared / num_all if num_all else 0.0


def _whole(text: str) -> tuple[Piece, ...]:
    return (Piece(text, False),) if text else ()


class _Pieces:
    """Collects stretches, neighbours of one kind as one."""

    def __init__(self) -> None:
        self._found: list[Piece] = []

    def add(self, pieces: Sequence[str], *, is_marked: bool) -> None:
        text = "".join(pieces)
        if not text:
            return
        if self._found and self._found[-1].is_marked == is_marked:
            text = self._found.pop().text + text
        self._found.append(Piece(text, is_marked))

    def joined(self) -> tuple[Piece, ...]:
        """Return the pieces; a mark covers no white space at its ends."""
        return tuple(part for piece in self._found for part in _trimmed(piece))


def _trimmed(piece: Piece) -> Iterator[Piece]:
    core = piece.text.strip()
    if not piece.is_marked or not core:
        yield piece
        return
    before, _, behind = piece.text.partition(core)
    yield from (one for one in (Piece(before, False), Piece(core, True), Piece(behind, False)) if one.text)
