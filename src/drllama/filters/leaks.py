"""Finding rows that are too like a dev or test question, in every way that such rows have been seen to be alike."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from drllama.filters.duplicates import forms
from drllama.filters.encoders import Encoder, minilm, pairs_alike
from drllama.filters.features import blocks, normalise_all, part_bags, shingle_bags, windows, word_bags
from drllama.filters.limits import Edited, Near, Semantic
from drllama.filters.similarity import Index, index
from drllama.recipe import Leaks
from drllama.text import normalise
from drllama.types import Candidate, Example, How, Neighbour, Objection, Quoted, Synthetic

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_Key = TypeVar("_Key", bound=Hashable)
Match: TypeAlias = tuple[How, int, int, float]
"""How, which example, which held-out row, and how much."""

_EDITED_SHARE = 0.7
"""What an edited question must share, in squared inverse document frequencies; docs/decisions/0016 tells why."""
_SIEVE_BITS = 24
_KINDS: tuple[How, ...] = ("document", "exact", "near", "edited", "n-gram", "semantic")
_REASONS: Mapping[How, str] = {
    "document": "on a document of",
    "exact": "a question of",
    "near": "nearly a question of",
    "edited": "an edited question of",
    "n-gram": "has a long run of words from",
    "semantic": "means a question of",
}


@dataclass(frozen=True, slots=True)
class LeaksFilter:
    """Drops candidates that are too like a dev or test question."""

    settings: Leaks
    held_out: Sequence[Example]
    """All of dev and test."""
    name: str = "leaks"

    def check(self, candidates: Sequence[Candidate]) -> Sequence[Objection | None]:
        """Return an objection for each candidate that is like a held-out question, naming that question.

        Raises:
            MissingExtra: the recipe names an encoder that isn't installed.
        """
        examples = [candidate.example for candidate in candidates]
        found = find_leaks(examples, self.held_out, self.settings)
        return [_objection(example, neighbour) for example, neighbour in zip(examples, found, strict=True)]


def _objection(example: Example, neighbour: Neighbour | None) -> Objection | None:
    if not normalise(example.question):
        return Objection(reason="no question to compare with dev and test", evidence=Quoted(text=example.question))
    if neighbour is None:
        return None
    return Objection(reason=f"{_REASONS[neighbour.how]} {neighbour.split}", evidence=neighbour)


def find_leaks(examples: Sequence[Example], held_out: Sequence[Example], settings: Leaks) -> list[Neighbour | None]:
    """Return for each example the held-out one that it is too like, or None.

    If it is so in several ways the plainest is told: one document, then the same words, then the same meaning. What
    becomes of an example depends on the held-out ones alone, not on the examples beside it.

    Raises:
        MissingExtra: the settings name an encoder that isn't installed.
    """
    # The plainest kind first, then the most similar, then the held-out row that comes first.
    best: dict[int, tuple[int, float, int]] = {}
    for how, number, row, similarity in _HeldOut(held_out, settings).matches(examples):
        key = (-_KINDS.index(how), similarity, -row)
        best[number] = max(best.get(number, key), key)
    found: list[Neighbour | None] = [None] * len(examples)
    for number, (kind, similarity, row) in best.items():
        found[number] = Neighbour(
            source_id=held_out[-row].origin.source_id,
            split=held_out[-row].split,
            question=held_out[-row].question,
            similarity=similarity,
            how=_KINDS[-kind],
        )
    return found


class _HeldOut:
    """Dev and test, made ready to be looked things up in."""

    def __init__(self, rows: Sequence[Example], settings: Leaks) -> None:
        self._settings = settings
        # What is asked of many documents is a form to be filled in: asking it is no leak, only asking it of the same
        # text is.
        self._forms = forms(rows)
        self._groups = _first((row.group, number) for number, row in enumerate(rows))
        self._contexts = _first((text, number) for number, row in enumerate(rows) if (text := self._text_of(row)))
        self._ids = _first((row.id, number) for number, row in enumerate(rows))
        self._sources = _first(((row.origin.source, row.origin.source_id), number) for number, row in enumerate(rows))
        asked = _first((normalise(row.question), number) for number, row in enumerate(rows))
        self._questions = {text: number for text, number in asked.items() if text not in self._forms}
        self._numbers = list(self._questions.values())
        self._encoder: Encoder | None = minilm() if settings.encoder == "minilm" else None
        texts = list(self._questions)
        self._lookups: list[tuple[How, Index]] = [
            ("near", index(texts, shingle_bags, Near(jaccard=settings.near))),
            ("edited", index(texts, word_bags, Edited(words=settings.edited_words, share=_EDITED_SHARE))),
        ]
        if settings.encoder == "tfidf":
            self._lookups.append(("semantic", index(texts, part_bags, Semantic(cosine=settings.cosine))))
        self._runs = _Runs(rows, settings.shared_words)
        self._encoded = (
            None if self._encoder is None else self._encoder.encode([rows[n].question for n in self._numbers])
        )

    def matches(self, examples: Sequence[Example]) -> Iterator[Match]:
        """Yield all ways in which examples are like held-out rows."""
        yield from self._same_documents(examples)
        asked = normalise_all([example.question for example in examples])
        for number, text in enumerate(asked):
            if text in self._questions:
                yield "exact", number, self._questions[text], 1.0
            elif text in self._forms and examples[number].id in self._ids:
                yield "exact", number, self._ids[examples[number].id], 1.0
        for how, lookup in self._lookups:
            for pairs in lookup.find(asked):
                for first, second, jaccard, cosine in pairs:
                    yield how, first, self._numbers[second], cosine if how == "semantic" else jaccard
        yield from self._runs.matches(examples)
        if self._encoder is not None and self._encoded is not None:
            encoded = self._encoder.encode([example.question for example in examples])
            for pairs in pairs_alike(encoded, self._encoded, self._settings.cosine):
                for first, second, _, cosine in pairs:
                    yield "semantic", first, self._numbers[second], cosine

    def _same_documents(self, examples: Sequence[Example]) -> Iterator[Match]:
        for number, example in enumerate(examples):
            match example.origin:
                case Synthetic(parents=parents):
                    parent = next((self._ids[one] for one in parents if one in self._ids), None)
                case origin:
                    parent = self._sources.get((origin.source, origin.source_id))
            for row in (self._groups.get(example.group), parent, self._contexts.get(self._text_of(example))):
                if row is not None:
                    yield "document", number, row, 1.0

    def _text_of(self, row: Example) -> str:
        """Return the normalised context if it is long enough to tell documents apart, or nothing."""
        text = normalise(row.context)
        return text if len(text) >= 2 * self._settings.shared_words else ""


class _Runs:
    """All runs of so many words in the held-out rows, but for those that several documents have: they are idiom."""

    def __init__(self, rows: Sequence[Example], num_words: int) -> None:
        import numpy as np

        self._num_words = num_words
        texts, numbers = _passages(rows, lambda row: (row.question, row.context, *row.options))
        documents: dict[str, int] = {}
        document_N = np.array([documents.setdefault(row.group, len(documents)) for row in rows], dtype=np.int64)
        hashes, found = _all_windows(texts, num_words)
        row_H = np.array(numbers, dtype=np.int64)[found]
        order_H = np.lexsort((row_H, hashes))
        hashes, row_H = hashes[order_H], row_H[order_H]
        begins = np.flatnonzero(np.concatenate(([True], hashes[1:] != hashes[:-1]))[: len(hashes)])
        alone = begins
        if len(begins):
            of_H = document_N[row_H]
            alone = begins[np.minimum.reduceat(of_H, begins) == np.maximum.reduceat(of_H, begins)]
        self._hashes_H, self._rows_H = hashes[alone], row_H[alone]
        # One bit in 2**24 says whether a hash may be there at all; nearly all that are looked up aren't.
        self._sieve = np.zeros(1 << _SIEVE_BITS, dtype=bool)
        self._sieve[self._hashes_H >> np.uint64(64 - _SIEVE_BITS)] = True

    def matches(self, examples: Sequence[Example]) -> Iterator[Match]:
        """Yield the held-out rows that have a run of words of an example's own, and which share of its runs."""
        import numpy as np

        if not len(self._hashes_H):
            return
        texts, numbers = _passages(examples, _own_texts)
        for start, stop in blocks(texts):
            runs = windows(normalise_all(texts[start:stop]), self._num_words)
            maybe_U = np.flatnonzero(self._sieve[runs.hashes_U >> np.uint64(64 - _SIEVE_BITS)])
            place_U = np.searchsorted(self._hashes_H, runs.hashes_U[maybe_U])
            place_U = np.minimum(place_U, len(self._hashes_H) - 1)
            sure_U = self._hashes_H[place_U] == runs.hashes_U[maybe_U]
            passages, rows = runs.rows_U[maybe_U][sure_U], self._rows_H[place_U[sure_U]]
            sizes_N = np.bincount(runs.rows_U, minlength=stop - start)
            pairs, counts = np.unique(np.stack((passages, rows)), axis=1, return_counts=True)
            for (passage, row), shared in zip(pairs.T.tolist(), counts.tolist(), strict=True):
                yield "n-gram", numbers[start + passage], row, shared / int(sizes_N[passage])


def _own_texts(example: Example) -> tuple[str, ...]:
    """Return what was written for this example: a new question's context, a rewrite's options are a training row's."""
    match example.origin:
        case Synthetic(method="new"):
            return (example.question, *example.options)
        case _:
            return (example.question, example.context)


def _passages(rows: Sequence[Example], texts_of: Callable[[Example], tuple[str, ...]]) -> tuple[list[str], list[int]]:
    """Return all texts, and the number of the row that each is of."""
    passages = [(text, number) for number, row in enumerate(rows) for text in texts_of(row)]
    return [text for text, _ in passages], [number for _, number in passages]


def _all_windows(texts: Sequence[str], num_words: int) -> "tuple[NDArray[np.uint64], NDArray[np.int64]]":
    import numpy as np

    hashes, rows = [np.zeros(0, dtype=np.uint64)], [np.zeros(0, dtype=np.int64)]
    for start, stop in blocks(texts):
        found = windows(normalise_all(texts[start:stop]), num_words)
        hashes.append(found.hashes_U)
        rows.append(found.rows_U + start)
    return np.concatenate(hashes), np.concatenate(rows)


def _first(pairs: Iterable[tuple[_Key, int]]) -> dict[_Key, int]:
    """Return the first number of each key."""
    found: dict[_Key, int] = {}
    for key, number in pairs:
        found.setdefault(key, number)
    return found
