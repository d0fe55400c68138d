import dataclasses
import random

import pytest

from drllama.filters import duplicates
from drllama.filters.duplicates import DuplicatesFilter, find_duplicates
from drllama.recipe import Duplicates, PubMedQA
from drllama.sources import PubMedQASource
from drllama.text import shingles
from drllama.types import Candidate, Example, Original, Synthetic

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


def test_planted_copies_come_out_from_among_a_thousand_abstracts(shared_pubmedqa):
    splits = PubMedQASource(PubMedQA(path=shared_pubmedqa / "ori_pqal.json")).load()
    copied, edited = splits.test[3], splits.test[4]
    planted = [
        dataclasses.replace(copied, split="train", question=copied.question.upper()),
        dataclasses.replace(edited, split="train", context=edited.context + " This was confirmed later."),
    ]
    pairs = find_duplicates([*splits.train, *splits.dev, *splits.test, *planted])
    assert [(pair.first, pair.second, pair.kind) for pair in pairs] == [
        (copied, planted[0], "exact"),
        (edited, planted[1], "near"),
    ]


ASKED = "Does daily aspirin lower mortality in elderly patients with stable heart failure?"
NEARLY = "Does daily aspirin lower mortality in elderly patients with stable heart failures?"
TURNED = "Heart failure, stable: in patients elderly, does aspirin daily lower with mortality?"


def candidates(*questions, method="new", parent="p", group="g"):
    return [
        Candidate(
            example=Example(
                question=question,
                context="All on one text.",
                label="yes",
                split="train",
                group=group,
                origin=Synthetic(method=method, parents=(parent,), call="c" * 16, place=place),
            ),
            prompt="new.v1",
            rollout=0,
        )
        for place, question in enumerate(questions)
    ]


def dropped(rows, train=(), **settings):
    found = DuplicatesFilter(Duplicates(**settings), train=train).check(rows)
    assert len(found) == len(rows)
    return [one and (one.evidence.how, one.evidence.source_id) for one in found]


def test_the_first_of_several_copies_stays():
    rows = candidates("Is it so?", ASKED, "IS  it so?", NEARLY, TURNED, CHINESE, CHINESE + "吗", "Why?")
    first, second = rows[0].id, rows[1].id
    assert dropped(rows) == [
        None,
        None,
        ("exact", first),
        ("near", second),
        ("semantic", second),
        None,
        ("near", rows[5].id),
        None,
    ]
    assert dropped(rows, near=None, semantic=None) == [None, None, ("exact", first), *[None] * 5]


def test_a_copy_of_a_training_row_is_dropped_and_the_training_row_named():
    (one,) = DuplicatesFilter(Duplicates(), train=[example(ASKED), example(NEARLY)]).check(candidates(NEARLY))
    assert (one.reason, one.evidence.source_id) == ("the same question as a training row", NEARLY)


def test_a_rewrite_may_mean_what_its_parent_means_but_not_say_it():
    parent = example(ASKED)
    again = candidates(TURNED, method="rewrite", parent=parent.id)
    assert dropped(again, [parent]) == [None]
    assert dropped(candidates(NEARLY, method="rewrite", parent=parent.id), [parent]) == [("near", ASKED)]
    assert dropped(candidates(TURNED, method="rewrite", parent="another"), [parent]) == [("semantic", ASKED)]
    assert dropped(candidates(TURNED, parent=parent.id), [parent]) == [("semantic", ASKED)]
    siblings = candidates(ASKED, TURNED, NEARLY, method="rewrite", parent="another")
    assert dropped(siblings) == [None, None, ("near", siblings[0].id)]


def test_a_row_like_one_that_was_dropped_stays():
    words = [
        "alpha",
        "beta",
        "gamma",
        "delta",
        "epsilon",
        "zeta",
        "eta",
        "theta",
        "iota",
        "kappa",
        "lambda",
        "mu",
        "nu",
        "xi",
        "omicron",
        "pi",
        "rho",
        "sigma",
        "tau",
    ]
    chain = [" ".join(words[start : start + 15]) for start in range(4)]
    rows = candidates(*chain)
    assert dropped(rows, near=0.8, semantic=None) == [None, ("near", rows[0].id), None, ("near", rows[2].id)]


def test_a_form_that_training_documents_are_asked_is_a_copy_on_one_document_only():
    train = [example("Is the clause fair?", group=str(n)) for n in range(2)]
    fresh, again = candidates("Is the clause fair?"), candidates("Is the clause fair?", group="1")
    assert dropped([*fresh, *fresh, *again], train) == [
        None,
        ("exact", fresh[0].id),
        ("exact", "Is the clause fair?"),
    ]


@pytest.mark.parametrize("many", [0, 400_000_000])
def test_a_row_is_dropped_if_and_only_if_an_earlier_one_that_stays_is_near(many, monkeypatch):
    monkeypatch.setattr(duplicates, "MANY_PAIRS", many)
    generator = random.Random(11)
    texts = []
    for _ in range(150):
        words = [generator.choice(["alpha", "beta", "gamma", "delta", "药物", "试验"]) for _ in range(12)]
        if texts and generator.random() < 0.8:
            words = generator.choice(texts).split()
            words[generator.randrange(len(words))] = generator.choice(["omega", "zeta", "患者"])
        texts.append(" ".join(words))
    found = DuplicatesFilter(Duplicates(near=0.7, semantic=None), train=()).check(candidates(*texts))
    sets, stay = [shingles(text) for text in texts], []
    for place, one in enumerate(sets):
        near = [other for other in stay if len(one & sets[other]) >= 0.7 * len(one | sets[other])]
        assert (found[place] is not None) == bool(near), texts[place]
        if not near:
            stay.append(place)
    assert 10 < len(stay) < 140


def test_ten_thousand_rows_that_are_all_alike_are_told_by_one_look_each(monkeypatch):
    monkeypatch.setattr(duplicates, "MANY_PAIRS", 100_000)
    rows = candidates(*(f"{ASKED} Number {number}" for number in range(10_000)))
    found = dropped(rows)
    assert found[0] is None
    assert {how for how, _ in filter(None, found)} == {"near"}
    assert found.count(None) < 20


def test_no_candidates_have_no_copies():
    assert dropped([], [example(ASKED)]) == []
    assert dropped(candidates("", "")) == [None, ("exact", "c" * 16 + ":0")]
