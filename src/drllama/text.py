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


# Scripts that put no spaces between words: there each letter is a unit of its own.
_UNIT = regex.compile(
    r"""
    [\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Thai}\p{Script=Lao}\p{Script=Khmer}\p{Script=Myanmar}]
      \p{M}*
    | (?: (?! [\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Thai}\p{Script=Lao}\p{Script=Khmer}
           \p{Script=Myanmar}] ) [\p{L}\p{N}] \p{M}* )+
    """,
    regex.VERBOSE,
)


def words(text: str) -> list[str]:
    """Return the words of the normalised text; in scripts without spaces between words, its letters.

    >>> words("Does it help?")
    ['does', 'it', 'help']
    >>> words("IL-2 有效吗？")
    ['il', '2', '有', '效', '吗']
    """
    return list(map(str, _UNIT.findall(normalise(text))))


def num_columns(text: str) -> int:
    """Return the columns that a text takes: wide letters two, marks that sit on another letter none.

    >>> num_columns("有效吗？"), num_columns("Is it?")
    (8, 6)
    """
    shown = [letter for letter in text if unicodedata.category(letter) not in ("Mn", "Me", "Cf")]
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in shown)


def holds_word(text: str, word: str) -> bool:
    """Return whether a text holds a word whole, in every script: "no" isn't in "known", nor 是 in 是否.

    >>> holds_word("Is it known?", "no"), holds_word("Yes or NO?", "no"), holds_word("是否有效？", "是")
    (False, True, False)
    """
    return regex.search(rf"(?<![\p{{L}}\p{{N}}]){regex.escape(word)}(?![\p{{L}}\p{{N}}])", text, regex.I) is not None
