"""What a row shows by itself: its lengths, whether it asks, repeats itself, is in its source's language, or tells."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import regex

from drllama.filters.giveaway import answer_objection, conclusion_objection, label_objection, ordinary_labels
from drllama.filters.language import LanguageProfile, language_profile, script_objection
from drllama.filters.repetition import repetition
from drllama.recipe import Form
from drllama.text import num_columns
from drllama.types import Candidate, Example, Label, Measured, Objection, Quoted, Synthetic

# A mark of asking in any script, at the end of a sentence: a "?" inside an address is none.
_MARK = regex.compile(r"""[?？؟;՞፧⁇⁈‽⸮꘏](?:["'”’»)\]）」』\s]|$)""")
_OPENS = regex.compile(
    r"""\W*(?:am|is|are|was|were|do|does|did|has|have|had|can|could|may|might|must|shall|should|will|would|who|whom|whose
    |what|which|when|where|why|how)\b""",
    regex.I | regex.VERBOSE,
)
# Chinese, Japanese and Korean ask by a word or an ending, with or without a mark.
_ASKS = regex.compile(
    r"[吗嗎呢么]\W*$|是否|能否|可否|有无|是不是|有没有|什么|什麼|为什么|為什麼|怎么|怎麼|如何|哪|谁|誰|几|幾|多少|か\W*$|(?:까|나요|니|가요)\W*$"
)


@dataclass(frozen=True)
class FormFilter:
    """The first thing wrong with a row's form, if there is any."""

    settings: Form
    labels: Sequence[Label]
    train: Sequence[Example]
    """The real rows, the parents of all candidates among them."""
    name: str = "form"

    def check(self, candidates: Sequence[Candidate]) -> list[Objection | None]:
        """Return an objection or None for each candidate."""
        return [next(self._objections(one.example), None) for one in candidates]

    def _objections(self, row: Example) -> Iterator[Objection]:
        parent = self._parent(row)
        retold = row.context if row.context != parent.context else ""
        looks = [
            length_objection(row.question, retold, self.settings),
            asking_objection(row.question) if self.settings.must_ask else None,
            *(repetition_objection(text, self.settings.max_repetition) for text in _texts(row, retold)),
        ]
        yield from filter(None, looks)
        if self.settings.same_script:
            yield from filter(None, self._language_objections(_texts(row, retold), parent))
        yield from filter(None, self._giveaways(row, parent, retold))

    def _giveaways(self, row: Example, parent: Example, retold: str) -> Iterator[Objection | None]:
        assert row.label is not None, row
        if not self.settings.label_in_question:
            yield label_objection(row.question, row.label, self.labels, self._ordinary)
        if retold:
            conclusions = [one for one in (row.long_answer, parent.long_answer) if one]
            yield answer_objection(retold, parent.context, row.label)
            yield conclusion_objection(
                retold,
                parent.context,
                conclusions,
                frequent=self._profile.frequent,
                limit=self.settings.max_conclusion_overlap,
            )

    def _language_objections(self, texts: Sequence[str], parent: Example) -> Iterator[Objection | None]:
        source = f"{parent.question}\n{parent.context}\n{parent.long_answer or ''}"
        for text in texts:
            yield script_objection(text, source)
            yield self._profile.objection(text)
        # Together they may be long enough to tell.
        yield self._profile.objection(" ".join(texts))

    def _parent(self, row: Example) -> Example:
        assert isinstance(row.origin, Synthetic), row
        return self._by_id[row.origin.parents[0]]

    @cached_property
    def _by_id(self) -> dict[str, Example]:
        return {one.id: one for one in self.train}

    @cached_property
    def _profile(self) -> LanguageProfile:
        return language_profile(f"{one.question}\n{one.context}" for one in self.train)

    @cached_property
    def _ordinary(self) -> frozenset[Label]:
        return ordinary_labels(self.train, self.labels)


def length_objection(question: str, retold: str, settings: Form) -> Objection | None:
    """Return an objection to a question or a retold context of a length that no row should have."""
    length = num_columns(question)
    if length < settings.min_question_characters:
        limit = settings.min_question_characters
        return Objection(reason="the question is too short", evidence=Measured(value=length, limit=limit))
    if length > settings.max_question_characters:
        limit = settings.max_question_characters
        return Objection(reason="the question is too long", evidence=Measured(value=length, limit=limit))
    if retold and num_columns(retold) < settings.min_context_characters:
        evidence = Measured(value=num_columns(retold), limit=settings.min_context_characters)
        return Objection(reason="the retold context is too short", evidence=evidence)
    return None


def asking_objection(question: str) -> Objection | None:
    """Return an objection to a text that asks nothing: no mark of asking, no opening or ending that asks.

    Openings are known of English, words and endings of Chinese, Japanese and Korean; other languages need the mark.
    """
    if _MARK.search(question) or _OPENS.match(question) or _ASKS.search(question):
        return None
    return Objection(reason="the question asks nothing", evidence=Quoted(text=question[-40:]))


def repetition_objection(text: str, limit: float) -> Objection | None:
    """Return an objection to a text that goes in circles."""
    share = repetition(text)
    if share <= limit:
        return None
    return Objection(reason="a text repeats itself", evidence=Measured(value=share, limit=limit))


def _texts(row: Example, retold: str) -> list[str]:
    return [text for text in (row.question, row.long_answer or "", retold) if text]
