import dataclasses

from drllama.sources import PUBMEDQA_TASK
from drllama.stages.describe import describe
from drllama.types import Example, Original, Splits


def example(question, *, context="", label="yes", split="train", group=None):
    origin = Original(source="test", source_id=question)
    return Example(question=question, context=context, label=label, split=split, group=group or question, origin=origin)


def pairs_of(description):
    return {(count.first, count.second): (count.exact, count.near) for count in description.duplicates}


SPLITS = Splits(
    train=(
        example("Does aspirin help against headache?", context="a" * 10),
        example("does ASPIRIN help against headache?", context="A" * 10, label="no"),
        example("Is the new scanner faster?", context="b" * 30, group="scan"),
        example("Is the old scanner cheaper?", context="c" * 20, group="scan"),
    ),
    dev=(example("Do nurses sleep enough?", label="maybe", split="dev"),),
    test=(
        example("Do nurses sleep enough??", label="maybe", split="test"),
        example("Is it so?", label=None, split="test"),
    ),
)


def test_every_example_is_counted_once_under_its_label():
    train, dev, test = describe(SPLITS, PUBMEDQA_TASK).splits
    assert dict(train.label_counts) == {"yes": 3, "no": 1, "maybe": 0}
    assert dict(test.label_counts) == {"yes": 0, "no": 0, "maybe": 1}
    assert (train.num_unlabelled, dev.num_unlabelled, test.num_unlabelled) == (0, 0, 1)
    for one in (train, dev, test):
        assert sum(one.label_counts.values()) + one.num_unlabelled == one.num_examples


def test_labels_come_in_the_order_of_the_task():
    turned = dataclasses.replace(PUBMEDQA_TASK, labels=("maybe", "no", "yes"))
    assert list(describe(SPLITS, turned).splits[0].label_counts) == ["maybe", "no", "yes"]


def test_lengths_are_in_characters():
    lengths = describe(SPLITS, PUBMEDQA_TASK).splits[0].context_lengths
    assert (lengths.shortest, lengths.median, lengths.p95, lengths.longest) == (10, 15.0, 30, 30)


def test_p95_is_the_length_that_95_of_100_texts_keep_to():
    hundred = tuple(example(f"{'x' * number}") for number in range(1, 101))
    lengths = describe(dataclasses.replace(SPLITS, train=hundred), PUBMEDQA_TASK).splits[0].question_lengths
    assert (lengths.shortest, lengths.median, lengths.p95, lengths.longest) == (1, 50.5, 95, 100)


def test_questions_of_one_document_are_one_group():
    assert [split.num_groups for split in describe(SPLITS, PUBMEDQA_TASK).splits] == [3, 1, 2]


def test_duplicates_are_counted_within_and_across_splits():
    assert pairs_of(describe(SPLITS, PUBMEDQA_TASK)) == {
        ("train", "train"): (1, 0),
        ("train", "dev"): (0, 0),
        ("train", "test"): (0, 0),
        ("dev", "dev"): (0, 0),
        ("dev", "test"): (0, 1),
        ("test", "test"): (0, 0),
    }


def test_the_pairs_are_the_ones_that_were_counted():
    description = describe(SPLITS, PUBMEDQA_TASK)
    assert len(description.pairs) == sum(exact + near for exact, near in pairs_of(description).values())


def test_the_same_question_with_two_answers_is_a_contradiction():
    (contradiction,) = describe(SPLITS, PUBMEDQA_TASK).contradictions
    assert contradiction.examples == SPLITS.train[:2]


def test_the_same_question_with_one_answer_is_none():
    twice = dataclasses.replace(SPLITS, train=(SPLITS.train[0], SPLITS.train[0]))
    assert describe(twice, PUBMEDQA_TASK).contradictions == ()


def test_an_empty_split_has_no_lengths_rather_than_zeros():
    dev = describe(dataclasses.replace(SPLITS, dev=()), PUBMEDQA_TASK).splits[1]
    assert (dev.num_examples, dev.question_lengths, dev.context_lengths) == (0, None, None)
