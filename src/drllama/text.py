"""Cutting text into sentences and comparing texts, in any script; no assumption of English or of spaces."""

import unicodedata

import regex

# Unicode's own classes: STerm ends a sentence wherever it stands (。 ！ ？ ۔ । ? !), ATerm is the full stop, which
# also ends abbreviations and sits in numbers, so it counts only before white space and no small letter.
_SENTENCE_END = regex.compile(
    r"""
    (?: \p{Sentence_Break=STerm}+ [\p{Sentence_Break=Close}]*
      | \p{Sentence_Break=ATerm} [\p{Sentence_Break=Close}]* (?= \s+ [^\s\p{Ll}\p{Nd}\p{Sentence_Break=SContinue}]
                                                              | \s+ \p{Nd}+ \s | \s*$ )
      | (?= \n )
    ) \s*
    """,
    regex.VERBOSE,
)
_ABBREVIATION = regex.compile(
    r"""
    (?<![^\s(])
    (?: \p{L} | e\.g | i\.e | vs | cf | al | etc | nos? | figs? | ref | [dm]r | mrs | ms | prof | st | ca | approx )
    \.
    """,
    regex.IGNORECASE | regex.VERBOSE,
)


def normalise(text: str) -> str:
    r"""Return the text for comparing: compatibility forms folded, case folded, white space collapsed.

    >>> normalise("Ｉs  IT\nso?")
    'is it so?'
    """
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def sentences(text: str) -> list[str]:
    """Return the sentences of a text with the white space behind them; joined, they are the text again.

    >>> sentences("It fell (p = 0.05). Was it so? Yes.")
    ['It fell (p = 0.05). ', 'Was it so? ', 'Yes.']
    >>> sentences("效果很好。真的吗？是的")
    ['效果很好。', '真的吗？', '是的']
    """
    abbreviation_ends = {found.end() for found in _ABBREVIATION.finditer(text)}
    cut, start = [], 0
    for end in _SENTENCE_END.finditer(text):
        mark = end.start() + len(end.group().rstrip())
        if end.end() > start and mark not in abbreviation_ends:
            cut.append(text[start : end.end()])
            start = end.end()
    if start < len(text):
        cut.append(text[start:])
    return cut


def shingles(text: str, *, size: int = 5) -> frozenset[str]:
    """Return the set of character n-grams of the normalised text, spaces left out: they work in any script.

    >>> sorted(shingles("A bc d", size=3))
    ['abc', 'bcd']
    """
    letters = normalise(text).replace(" ", "")
    return frozenset(letters[start : start + size] for start in range(max(1, len(letters) - size + 1)))
