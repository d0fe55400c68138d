"""Choosing the training questions that the teacher works on."""

import math
from collections import Counter
from random import Random

import pytest

from drllama.recipe import Select
from drllama.stages.select import chosen_examples, folds_of
from drllama.types import Example, Original, Outcome, Prediction


def example(number, group=None):
    return Example(
        question=f"Question {number}?",
        context="c",
        label="yes",
        split="train",
        group=group or f"g{number}",
        origin=Original(source="s", source_id=str(number)),
    )


def answer(one, yes, *, choice="yes"):
    outcome = Outcome.FAILED if yes is None else Outcome.CORRECT if choice == "yes" else Outcome.WRONG
    return Prediction(
        example_id=one.id,
        source_id=one.origin.source_id,
        gold="yes",
        choice=None if yes is None else choice,
        outcome=outcome,
        scores_nats=None if yes is None else {"yes": math.log(yes), "no": math.log(1 - yes)},
        num_tokens=1,
        truncated_tokens=0,
    )


@pytest.mark.parametrize("number", [2, 3, 7])
def test_each_example_stands_in_one_part_and_no_document_in_two(number):
    chance = Random(number)
    train = [example(at, group=f"g{chance.randrange(30)}") for at in range(100)]
    parts = folds_of(train, number=number)
    assert sorted(place for part in parts for place in part) == list(range(100))
    seen = Counter(group for part in parts for group in {train[place].group for place in part})
    assert set(seen.values()) == {1}
    largest = max(Counter(one.group for one in train).values())
    assert max(map(len, parts)) - min(map(len, parts)) <= largest


def test_parts_don_t_depend_on_the_order_of_the_examples():
    train = [example(at) for at in range(20)]
    names = [{train[at].id for at in part} for part in folds_of(train, number=3)]
    backwards = train[::-1]
    assert sorted(map(sorted, names)) == sorted(
        sorted(backwards[at].id for at in part) for part in folds_of(backwards, number=3)
    )


def test_more_parts_than_documents_are_refused():
    with pytest.raises(ValueError, match="2 documents can't be cut into 3 parts"):
        folds_of([example(0), example(1), example(2, group="g1")], number=3)


def test_errors_are_the_wrong_and_the_unanswered():
    train = [example(at) for at in range(4)]
    given = [
        answer(train[0], 0.9),
        answer(train[1], 0.4, choice="no"),
        answer(train[2], None),
        answer(train[3], 0.6),
    ]
    assert chosen_examples(train, given, Select(by="errors")) == (train[1], train[2])
    assert chosen_examples(train, given, Select()) == tuple(train)


def test_the_least_sure_share_is_chosen_whatever_is_right():
    train = [example(at) for at in range(5)]
    given = [answer(one, yes) for one, yes in zip(train, [0.99, 0.5, None, 0.55, 0.9], strict=True)]
    chosen = chosen_examples(train, given, Select(by="uncertain", share=0.5))
    assert chosen == (train[1], train[2], train[3])
    assert len(chosen_examples(train, given, Select(by="uncertain", share=1))) == 5
