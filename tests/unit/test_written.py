"""What students write, and how it is read."""

import pytest

from drllama.parsing import read_written, readers_of
from drllama.recipe import Evaluate
from drllama.stages.write import read_as
from drllama.stats import evaluate_predictions
from drllama.types import Example, Original, Outcome, Reader, Task, Unparsed, Writing


def task(*labels, **verbalizers):
    return Task(name="t", instruction="Answer.", labels=labels, verbalizers={one: one for one in labels} | verbalizers)


MEDICAL, LETTERS = task("yes", "no", "maybe"), task("A", "B", "C", "D")
# What the paper's two notebooks and our own reader make of the same words.
READINGS = [
    (" yes", "yes", "yes", "yes"),
    (" No.", "no", "no", "no"),
    (" maybe", "maybe", "maybe", "maybe"),
    (" Yes, it does", "yes", "yes", "yes"),
    (" The answer is yes.", "maybe", "yes", "yes"),
    (" It isn't known.", "maybe", "no", None),
    (" The diagnosis was late, yes", "maybe", "no", None),
    (" Cannot say", "no", "no", None),
    (" There is no evidence", "maybe", "no", None),
    (" It helps.", "maybe", "maybe", None),
    ("\n yes", "maybe", "maybe", "yes"),
    ("", "maybe", "maybe", None),
    (" yes yes yes", "yes", "yes", "yes"),
    (" yes. maybe. maybe.", "yes", "yes", None),
    (" so" * 100 + " yes", "maybe", "maybe", None),
    (" so" * 99 + " yes", "maybe", "yes", None),
]


@pytest.mark.parametrize(("text", "first_word", "hundred_words", "strict"), READINGS)
def test_three_readers_read_the_same_words(text, first_word, hundred_words, strict):
    assert read_written(text, MEDICAL, Reader.FIRST_WORD) == first_word
    assert read_written(text, MEDICAL, Reader.HUNDRED_WORDS) == hundred_words
    found = read_written(text, MEDICAL, Reader.STRICT)
    assert found == strict if strict else isinstance(found, Unparsed)


def test_the_papers_readers_are_for_yes_no_and_maybe_only():
    assert readers_of(task("no", "maybe", "yes")) == (Reader.FIRST_WORD, Reader.HUNDRED_WORDS, Reader.STRICT)
    assert readers_of(LETTERS) == (Reader.STRICT,)


@pytest.mark.parametrize(
    ("text", "label"),
    [(" it helps", "yes"), (" It helps. It helps", "yes"), (" no effect.", "no effect"), (" no", "no"), (" yes", None)],
)
def test_the_strict_reader_looks_for_the_words_that_stand_for_a_label(text, label):
    found = read_written(text, task("yes", "no", "no effect", yes="it helps"), Reader.STRICT)
    assert found == label if label else isinstance(found, Unparsed)


def test_what_was_asked_is_correct_wrong_unparsed_or_failed():
    texts = [(" yes", "yes"), (" no", "yes"), (" Who knows?", "maybe"), (None, "no")]
    asked = [
        Example(
            question=f"{number}?",
            context="",
            label=gold,
            split="test",
            group=str(number),
            origin=Original(source="s", source_id=str(number)),
        )
        for number, (_, gold) in enumerate(texts)
    ]
    written = [
        Writing(
            example_id=one.id,
            source_id=one.origin.source_id,
            text=text,
            num_tokens=9,
            truncated_tokens=0,
            note="" if text else "too long",
        )
        for one, (text, _) in zip(asked, texts, strict=True)
    ]
    counts = {}
    for reader in readers_of(MEDICAL):
        found = read_as(written, asked, reader, MEDICAL)
        counted = evaluate_predictions(
            found,
            system=reader,
            split="test",
            labels=MEDICAL.labels,
            settings=Evaluate(bootstrap_samples=100),
            seed=1,
        )
        counts[reader] = [counted.counts[outcome] for outcome in Outcome]
        assert [one.note for one in found][3:] == ["too long"]
    # Correct, wrong, unparsed, failed: the first word takes what can't be read for "maybe", the scan "knows" for "no".
    assert counts == {
        Reader.FIRST_WORD: [2, 1, 0, 1],
        Reader.HUNDRED_WORDS: [1, 2, 0, 1],
        Reader.STRICT: [1, 1, 1, 1],
    }
