import math

import pytest
import torch

from drllama.recipe import Finetune
from drllama.students import writing
from tiny_student import END, YES_NO_MAYBE, Told, example, plain_tokens, questions, rows_of, student_of

MOST = 12
"""Tokens of an answer, so that the tests are quick."""
WORN = {
    "LoRA": {"lora": {"rank": 2}},
    "aLoRA": {"alora": {"rank": 2}},
    "prefix": {"prefix": {"virtual_tokens": 16}},
    "(IA)3": {"ia3": {}},
    "full": {"full": {}},
}


def naively_written(student, one):
    """Return the likeliest tokens behind a question as text, each found by reading everything before it anew."""
    before, _ = plain_tokens(student._encoder.tokenizer, one, YES_NO_MAYBE)
    tokens = list(before)
    while len(tokens) < len(before) + MOST and tokens[-1] != student._encoder.tokenizer.eos_token_id:
        with torch.inference_mode():
            tokens.append(int(student._model(input_ids=torch.tensor([tokens])).logits[0, -1].argmax()))
    return student._encoder.tokenizer.decode(tokens[len(before) :]).removesuffix(END)


def assert_writes_naively(folder, asked, wear):
    told = []
    for batch_size, order in ((1, asked[::-1]), (3, asked)):
        student = student_of(folder, batch_size=batch_size)
        wear(student)
        written = {one.example_id: one.text for one in student.write(order)}
        for one in asked:
            whole, text = naively_written(student, one), written[one.id]
            assert whole.startswith(text)
            assert text == whole or whole[len(text)] == "\n"
        told.append([written[one.id] for one in asked])
    assert told[0] == told[1]
    return told[0]


@pytest.mark.parametrize("method", WORN.values(), ids=WORN)
def test_a_student_writes_the_likeliest_tokens_whatever_the_batch_the_order_and_the_method(
    method, tiny_llama, tmp_path, monkeypatch
):
    monkeypatch.setattr(writing, "_TOKENS", MOST)
    asked = questions(count=5)
    settings = Finetune(method=method, epochs=1, batch_size=2, learning_rate=0.05, choose_epoch_by="last")
    student_of(tiny_llama).finetune(
        rows_of(asked), asked[:1], settings=settings, seed=5, workspace=tmp_path, progress=Told()
    )
    bare = assert_writes_naively(tiny_llama, asked, lambda _: None)
    worn = assert_writes_naively(tiny_llama, asked, lambda student: student.wear(tmp_path / "adapter"))
    assert worn != bare


def test_learned_positions_count_from_each_row_s_first_token(tiny_gpt2, monkeypatch):
    monkeypatch.setattr(writing, "_TOKENS", MOST)
    assert_writes_naively(tiny_gpt2, questions(count=5), lambda _: None)


def test_an_answer_ends_with_its_first_line_its_hundredth_word_or_the_end_of_text(tiny_llama):
    student, (asked, *_) = student_of(tiny_llama), questions()
    said = {"line": "\n yes\nno", "words": " is" * 300, "end": f" maybe{END} no"}
    wanted = {"line": "\n yes", "words": " is" * 100, "end": " maybe"}
    for kind, text in said.items():
        saying(student, text)
        (written,) = student.write([asked])
        assert (written.text, written.note) == (wanted[kind], "")


def saying(student, text):
    """Let the student say this, whatever it is asked."""
    words = iter(student._encoder.tokenizer(text)["input_ids"])

    def head(_, __, logits):
        spoken = torch.full_like(logits, -1.0)
        spoken[..., next(words)] = 1.0
        return spoken

    for hook in getattr(student, "said", []):
        hook.remove()
    student.said = [student._model.get_output_embeddings().register_forward_hook(head)]


def test_a_question_that_does_not_fit_and_scores_that_are_no_numbers_bring_no_text(tiny_llama):
    long = example("Why? " * 300)
    asked = [*questions(count=3), long]
    student = student_of(tiny_llama)
    with torch.no_grad():
        student._model.get_output_embeddings().weight.fill_(math.nan)
    written = {one.example_id: one for one in student.write(asked)}
    assert len(written) == 4
    assert {one.text for one in written.values()} == {None}
    assert "student.max_tokens" in written[long.id].note
    assert {written[one.id].note for one in asked[:3]} == {"scores that aren't numbers"}
