"""Whether a row tells its own answer: the label as a word of the question, the conclusion as a part of the context."""

from collections.abc import Collection, Sequence
from itertools import pairwise

import regex

from drllama.text import holds_word, sentences, words
from drllama.types import Example, Label, Measured, Objection, Quoted

_FEWEST_WORDS = 4
_STEM = 6
_LATE = 3
_COPY = 0.85


def ordinary_labels(train: Sequence[Example], labels: Sequence[Label]) -> frozenset[Label]:
    """Return the labels that are words of real questions with another label, as "no" is in "Is there no effect?"."""
    return frozenset(
        label for label in labels if any(one.label != label and holds_word(one.question, label) for one in train)
    )


def label_objection(
    question: str, label: Label, labels: Sequence[Label], ordinary: Collection[Label]
) -> Objection | None:
    """Return an objection to a question that names its own label.

    A question that names several labels gives none of them away. An ordinary word counts only where it stands apart:
    in quotes or brackets, or with nothing but a mark behind it. The letter of a multiple-choice option never counts.
    """
    if len(label) == 1 and label.isascii():
        return None
    if not holds_word(question, label) or sum(holds_word(question, one) for one in labels) > 1:
        return None
    # "no" is an article in English before it is an answer, whether or not the real questions happen to show it.
    if (label in ordinary or label.casefold() == "no") and not _stands_apart(question, label):
        return None
    return Objection(reason="the question names its label", evidence=Quoted(text=label))


def conclusion_objection(
    context: str, source_context: str, conclusions: Sequence[str], *, frequent: Collection[str], limit: float
) -> Objection | None:
    """Return an objection to a retold context with a sentence that holds more of a conclusion than it may.

    What counts is the share of the words of one of the conclusion's sentences, without the frequent ones, by their
    first letters, so that "reduced" is "reduces". Two kinds of sentences hold many of them and give nothing away:
    those of the source's own context, so one that holds no more than these passes; and those that tell a study's aim,
    so what stands before the last three sentences counts only where it is nearly a copy. Claims of fewer than four
    words aren't looked at.

    On 450 real pairs of context and conclusion this finds a conclusion that is added word for word every time, one in
    other words every second time (243), and stops 8 contexts that state results only.
    """
    said, known = _sentence_stems(context, frequent), _sentence_stems(source_context, frequent)
    for claim in (claim for conclusion in conclusions for claim in sentences(conclusion)):
        told = _stems(claim, frequent)
        if len(told) < _FEWEST_WORDS:
            continue
        bar, _ = max(_shares(known, told), default=(0.0, ""))
        late, early = _shares(said[-_LATE:], told), _shares(said[:-_LATE], told)
        giving = [one for one in late if one[0] > limit] + [one for one in early if one[0] > max(limit, _COPY)]
        share, sentence = max(giving, default=(0.0, ""))
        if share > bar:
            evidence = Quoted(text=sentence.strip(), measured=Measured(value=share, limit=limit))
            return Objection(reason="a sentence of the retold context states the conclusion", evidence=evidence)
    return None


def answer_objection(context: str, source_context: str, label: Label) -> Objection | None:
    """Return an objection to a retold context with a sentence that begins with the label as an answer, or is it."""
    answer = regex.compile(rf"^\W*{regex.escape(label)}\s*(?:[,.:;!—–。，：；！-]|$)", regex.I)
    for sentence in sentences(context):
        if answer.search(sentence) and sentence.strip() not in source_context:
            return Objection(reason="a sentence of the retold context states the answer", evidence=Quoted(text=label))
    return None


def _stands_apart(text: str, word: str) -> bool:
    apart = rf"""
        ["'“”‘’«»「」『』(\[（:：,，]\s* {regex.escape(word)} \s*(?:\W|$)
        | (?<!\w) {regex.escape(word)} \s*[?？!！.。)）"”]+\s*$
    """
    return regex.search(apart, text, regex.I | regex.VERBOSE) is not None


def _shares(said: Sequence[tuple[set[str], str]], told: set[str]) -> list[tuple[float, str]]:
    """Return how much of a claim each sentence holds."""
    return [(len(stems & told) / len(told), sentence) for stems, sentence in said]


def _sentence_stems(text: str, frequent: Collection[str]) -> list[tuple[set[str], str]]:
    return [(_stems(sentence, frequent), sentence) for sentence in sentences(text)]


def _stems(text: str, frequent: Collection[str]) -> set[str]:
    kept = [one for one in words(text) if one not in frequent]
    alone = [one for one in kept if len(one) == 1 and not one.isascii()]
    # Letters of scripts without spaces count in pairs: one alone is hardly a word.
    pairs = {first + second for first, second in pairwise(alone)}
    return pairs | {one[:_STEM] for one in kept if len(one) > 1 or one.isascii()}
