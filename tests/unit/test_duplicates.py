import dataclasses
import random
import time

import pytest

from drllama.filters.duplicates import find_duplicates
from drllama.recipe import PubMedQA
from drllama.sources import PubMedQASource
from drllama.text import shingles
from drllama.types import Example, Original

CHINESE = "阿司匹林能够降低心肌梗死患者的死亡率吗这项研究纳入了三百名患者并随访五年"


def example(question, *, context="", split="train", group=None, options=()):
    return Example(
        question=question,
        context=context,
        options=options,
        label="yes",
        split=split,
        group=group or question,
        origin=Original(source="test", source_id=question),
    )


def found(examples, **settings):
    return {
        (pair.first.origin.source_id, pair.second.origin.source_id, pair.kind)
        for pair in find_duplicates(examples, **settings)
    }


def test_copies_are_exact_whatever_their_case_and_white_space():
    pairs = find_duplicates([example("Does it work?"), example("DOES  it\nwork?", split="test")])
    assert [(pair.kind, pair.similarity) for pair in pairs] == [("exact", 1.0)]
    assert (pairs[0].first.split, pairs[0].second.split) == ("train", "test")


def test_one_changed_word_in_a_long_text_is_near():
    text = "the quick brown fox jumps over the lazy dog while the band plays on and nobody minds the rain at all "
    pairs = find_duplicates([example("Is it so?", context=text), example("Is it so?", context=text + "today")])
    assert [pair.kind for pair in pairs] == ["near"]
    assert 0.8 <= pairs[0].similarity < 1


def test_near_duplicates_are_found_in_scripts_without_spaces():
    assert found([example(CHINESE), example(CHINESE + "吗"), example("完全不同的另一个问题与前面无关")]) == {
        (CHINESE, CHINESE + "吗", "near")
    }


def test_other_punctuation_or_options_are_told_apart_from_copies():
    plain = example("Which of the following statements on the treatment of asthma is true?", options=("a", "b"))
    other = dataclasses.replace(plain, options=("b", "a"))
    assert [pair.kind for pair in find_duplicates([plain, other])] == ["near"]


def test_a_hundred_copies_are_ninety_nine_pairs():
    assert len(find_duplicates([example("Does it work?")] * 100)) == 99


def test_copies_in_three_splits_are_a_pair_for_each_two_splits():
    copies = [example("Does it work?", split=split) for split in ("train", "train", "dev", "test")]
    pairs = sorted((pair.first.split, pair.second.split) for pair in find_duplicates(copies))
    assert pairs == [("dev", "test"), ("train", "dev"), ("train", "test"), ("train", "train")]


def test_two_questions_on_one_document_say_so():
    long = "word soup with many different letters " + "".join(map(chr, range(0x4E00, 0x4F00)))
    pair, other = (
        find_duplicates([example("Is it?", context=long, group=one), example("Was it?", context=long, group="a")])[0]
        for one in ("a", "b")
    )
    assert pair.same_document
    assert not other.same_document


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8, 1.0])
def test_no_pair_is_missed_and_none_is_invented(threshold):
    generator = random.Random(7)
    texts = []
    for _ in range(12):
        words = [generator.choice(["alpha", "beta", "gamma", "delta", "药物", "试验", "ε"]) for _ in range(20)]
        for num_changes in range(5):
            changed = [*words]
            for _ in range(num_changes):
                changed[generator.randrange(20)] = generator.choice(["omega", "zeta", "患者"])
            texts.append(" ".join(changed))
    texts = list(dict.fromkeys(texts))
    # The context is empty, and white space isn't part of a shingle.
    sets = [shingles(text) for text in texts]
    expected = {
        (texts[i], texts[j], "near")
        for j in range(len(texts))
        for i in range(j)
        if len(sets[i] & sets[j]) >= threshold * len(sets[i] | sets[j])
    }
    assert found([example(text) for text in texts], threshold=threshold) == expected
    assert expected or threshold == 1.0


def test_a_thousand_abstracts_take_seconds_and_planted_copies_come_out(shared_pubmedqa):
    splits = PubMedQASource(PubMedQA(path=shared_pubmedqa / "ori_pqal.json")).load()
    copied, edited = splits.test[3], splits.test[4]
    planted = [
        dataclasses.replace(copied, split="train", question=copied.question.upper()),
        dataclasses.replace(edited, split="train", context=edited.context + " This was confirmed later."),
    ]
    began = time.perf_counter()
    pairs = find_duplicates([*splits.train, *splits.dev, *splits.test, *planted])
    assert time.perf_counter() - began < 20
    assert [(pair.first, pair.second, pair.kind) for pair in pairs] == [
        (copied, planted[0], "exact"),
        (edited, planted[1], "near"),
    ]
