"""The rows of the controls: copies of real rows, and edits of a few of their words."""

from collections import Counter

import pytest

from drllama.stages.controls import copies, edits
from drllama.types import Example, Original

CONTEXT = "Forty patients with a headache got aspirin twice a day for a week.\nThe others got nothing at all that week."


def make_example(number, question="Does aspirin help patients with a headache?", context=CONTEXT):
    origin = Original(source="made-up", source_id=str(number))
    label = ("yes", "no")[number % 2]
    return Example(question=question, context=context, label=label, split="train", group=f"g{number}", origin=origin)


TRAIN = [make_example(number, f"Does {name} help patients?") for number, name in enumerate("abcdefg")]


@pytest.mark.parametrize("number", [0, 3, 7, 17])
def test_copies_take_every_row_before_any_of_them_again(number):
    drawn = Counter(one.id for one in copies(TRAIN, number, seed=1))
    assert sum(drawn.values()) == number
    assert max(drawn.values(), default=0) - min(drawn[one.id] for one in TRAIN) <= 1


def test_rows_are_drawn_by_seed():
    for draw in (copies, edits):
        assert draw(TRAIN, 5, seed=1) == draw(TRAIN, 5, seed=1)
        assert draw(TRAIN, 5, seed=1) != draw(TRAIN, 5, seed=2)


def test_an_edit_keeps_label_document_and_paragraphs_and_adds_no_word_of_its_own():
    parents = {one.id: one for one in TRAIN}
    for edit in edits(TRAIN, 60, seed=3):
        parent = parents[edit.origin.parent]
        assert (edit.label, edit.group, edit.split) == (parent.label, parent.group, "train")
        assert set(edit.context.split()) <= set(parent.context.split())
        assert edit.context != parent.context
        assert edit.context.count("\n") == parent.context.count("\n")
        assert "  " not in edit.context
        assert edit.context == edit.context.strip()


def test_edits_swap_leave_out_and_repeat_a_tenth_of_the_words():
    words = len(TRAIN[0].context.split("\n")[0].split())
    found = Counter(len(edit.context.split("\n")[0].split()) - words for edit in edits(TRAIN, 90, seed=4))
    assert set(found) == {-1, 0, 1}
    assert all(count > 15 for count in found.values())


def test_a_text_without_spaces_is_edited_letter_by_letter_and_a_single_word_stays():
    chinese = "阿司匹林对患者的头痛有效吗"
    for edit in edits([make_example(0, chinese, "是")], 20, seed=5):
        assert edit.context == "是"
        assert edit.question != chinese
        assert set(edit.question) <= set(chinese)
