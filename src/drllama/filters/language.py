"""Whether a text is written like the rows that it was made from: in their script, and in their language.

No list of any language's words is kept: the frequent words of the real rows are those of their language. What this
can't see: texts of fewer than a dozen words in the same script, languages that share their frequent words, a language
that part of the real rows is written in, and any language at all where there are fewer than 20 real rows.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import regex

from drllama.text import words
from drllama.types import Measured, Objection

# One regular expression that says which script a letter is of. Both Japanese syllabaries are one script here, or a
# sentence in loanwords would be in another than its neighbours.
_SCRIPTS = (
    *("Latin", "Cyrillic", "Greek", "Han", "Hangul", "Arabic", "Hebrew", "Devanagari", "Bengali", "Gurmukhi"),
    *("Gujarati", "Tamil", "Telugu", "Kannada", "Malayalam", "Sinhala", "Thai", "Lao", "Khmer", "Myanmar", "Tibetan"),
    *("Georgian", "Armenian", "Ethiopic", "Mongolian"),
)
_OF_SCRIPT = regex.compile(
    r"(?P<Kana>[\p{Script=Hiragana}\p{Script=Katakana}])|"
    + "|".join(rf"(?P<{name}>\p{{Script={name}}})" for name in _SCRIPTS)
)
_NOTABLE = 0.3
_FAMILIAR = 0.25
_LEAST_FREQUENT = 0.1
_FEWEST_WORDS = 12
_FEWEST_ROWS = 20
_FREQUENT = 0.2


def script_objection(text: str, source: str) -> Objection | None:
    """Return an objection to a text that is largely in a script which its source hardly has.

    Words are counted, and letters where a script puts no spaces: a Chinese question may name HIV.
    """
    there = _script_shares(source)
    for script, share in _script_shares(text).items():
        limit = share * _FAMILIAR
        if share >= _NOTABLE and there.get(script, 0.0) < limit:
            evidence = Measured(value=there.get(script, 0.0), limit=limit)
            return Objection(reason="in another script than its source", evidence=evidence)
    return None


def _script_shares(text: str) -> dict[str, float]:
    counts = Counter(found.lastgroup for one in words(text) if (found := _OF_SCRIPT.match(one)))
    return {str(script): count / counts.total() for script, count in counts.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageProfile:
    """The frequent words of some rows, and how frequent they are."""

    frequent: frozenset[str]
    """Words of at least a fifth of the rows: articles, prepositions, and what the rows are all about;
    none where there are too few rows to tell."""
    rate: float
    """Their share of all words."""

    def objection(self, text: str) -> Objection | None:
        """Return an objection to a text that has far fewer of the frequent words than the rows have."""
        said = words(text)
        limit = self.rate * _LEAST_FREQUENT
        if len(said) < _FEWEST_WORDS or limit == 0:
            return None
        share = sum(one in self.frequent for one in said) / len(said)
        if share >= limit:
            return None
        return Objection(reason="in another language than the real rows", evidence=Measured(value=share, limit=limit))


def language_profile(texts: Iterable[str]) -> LanguageProfile:
    """Return the profile of these texts, one for each row."""
    said = [Counter(words(text)) for text in texts]
    total = sum(counts.total() for counts in said)
    if len(said) < _FEWEST_ROWS or not total:
        return LanguageProfile(frequent=frozenset(), rate=0.0)
    in_rows = Counter(word for counts in said for word in counts)
    frequent = frozenset(word for word, number in in_rows.items() if number >= _FREQUENT * len(said))
    rate = sum(counts[word] for counts in said for word in frequent & counts.keys()) / total
    return LanguageProfile(frequent=frequent, rate=rate)
