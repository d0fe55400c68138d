"""Questions in a chat template: whatever the template, what is trained is what the template itself writes."""

import time

import pytest
import transformers

from drllama.errors import ModelError
from drllama.prompts import student_prompt
from drllama.recipe import Student
from drllama.students.chat import phrasing_of
from drllama.students.encoding import make_encoder
from tiny_student import (
    END,
    YES_NO_MAYBE,
    Told,
    example,
    finetune_of,
    naive_scores,
    plain_model,
    questions,
    rows_of,
    student_of,
    task_of,
)

TURNS = "{% for message in messages %}"
TEMPLATES = {
    "marked turns": TURNS + "<|{{ message.role }}|>\n{{ message.content }}<|endoftext|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}",
    "a space before the answer": TURNS + "{% if message.role == 'user' %}[INST] {{ message.content | trim }} [/INST]"
    "{% else %} {{ message.content | trim }} <|endoftext|>{% endif %}{% endfor %}",
    "a system turn of its own": "<|system|>You help.\n" + TURNS + "<|{{ message.role }}|> {{ message.content }}\n"
    "{% endfor %}",
    "empty thoughts before the answer": TURNS
    + "<|{{ message.role }}|>\n{% if message.role == 'assistant' %}<think>\n\n"
    "</think>\n\n{% endif %}{{ message.content }}<|endoftext|>\n{% endfor %}",
    "today's date": "Today is {{ strftime_now('%d %b %Y %H:%M:%S.%f') }}.\n" + TURNS + "{{ message.role }}: "
    "{{ message.content }}\n{% endfor %}",
}


@pytest.fixture
def tokenizer(tiny_llama):
    return transformers.AutoTokenizer.from_pretrained(tiny_llama)


@pytest.fixture
def chatty(tiny_llama, tmp_path):
    """Return the folder of the tiny Llama with a chat template."""
    student = student_of(tiny_llama)
    tokenizer = student._encoder.tokenizer
    tokenizer.chat_template = TEMPLATES["marked turns"]
    student._model.save_pretrained(tmp_path / "chatty")
    tokenizer.save_pretrained(tmp_path / "chatty")
    return tmp_path / "chatty"


def encoder(tokenizer, *, template=None, task=YES_NO_MAYBE, **settings):
    tokenizer.chat_template = template
    settings = Student(**{"max_tokens": 256, **settings})
    return make_encoder(tokenizer, phrasing_of(tokenizer, settings, task), task, settings)


@pytest.mark.parametrize("task", [YES_NO_MAYBE, task_of("yes", "not sure"), task_of("是", "否")], ids=str)
@pytest.mark.parametrize("name", sorted(set(TEMPLATES) - {"today's date"}))
def test_question_and_answer_read_as_the_template_writes_them(tokenizer, name, task):
    made = encoder(tokenizer, template=TEMPLATES[name], task=task)
    one = example("Did it fall?", "It rose. 试验")
    asked = student_prompt("context-first.v1").render(question=one.question, context=one.context)
    for label in task.labels:
        turns = [
            {"role": "user", "content": f"{task.instruction}\n\n{asked}"},
            {"role": "assistant", "content": label},
        ]
        whole = tokenizer.apply_chat_template(turns, tokenize=True, return_dict=False)
        begun = [*made.encode(one).tokens, *made.label_tokens[label]]
        assert whole[: len(begun)] == begun


def test_where_tokens_are_cut_is_the_same_for_every_question_in_a_chat_too(tokenizer):
    made = encoder(tokenizer, template=TEMPLATES["marked turns"])
    found = [made.encode(example(asked, "It rose.")) for asked in ("Did it?", "fell it", "(1) and what?", "有效吗？")]
    assert len({one.tokens[: one.split] for one in found}) == 1
    for one in found:
        assert tokenizer.decode(one.tokens[: one.split]).endswith("\n\nContext: It rose.\n")
        assert tokenizer.decode(one.tokens[one.split :]).startswith(f"Question: {one.example.question}\n")


def test_a_long_context_loses_sentences_and_the_turns_stay(tokenizer):
    made = encoder(tokenizer, template=TEMPLATES["marked turns"], max_tokens=100)
    text = tokenizer.decode(made.encode(example("Did it?", "It rose. It fell. " * 60)).tokens)
    assert text.startswith("<|user|>\nAnswer.\n\nContext: It")
    assert text.endswith("Question: Did it?\nAnswer:<|endoftext|>\n<|assistant|>\n")


def test_labels_of_which_one_begins_another_are_closed_by_the_end_of_the_turn(tokenizer):
    made = encoder(tokenizer, template=TEMPLATES["a system turn of its own"], task=task_of("no", "no effect"))
    closed = encoder(tokenizer, template=TEMPLATES["marked turns"], task=task_of("no", "no effect"))
    assert {tokens[-1] for tokens in closed.label_tokens.values()} == {tokenizer.convert_tokens_to_ids(END)}
    assert {tokens[-1] for tokens in made.label_tokens.values()} == {tokenizer.eos_token_id}


def test_a_template_that_names_the_day_gives_the_same_input_every_day(tokenizer):
    inputs = set()
    for _ in range(2):
        inputs.add(encoder(tokenizer, template=TEMPLATES["today's date"]).encode(example("Did it?")).tokens)
        assert tokenizer.decode(next(iter(inputs))).startswith("Today is 26 Jul 2024.\nuser: Answer.")
        time.sleep(0.001)
    assert len(inputs) == 1


def test_the_chat_template_is_used_where_there_is_one_unless_the_recipe_says_no(tokenizer):
    def text(**settings):
        return tokenizer.decode(encoder(tokenizer, **settings).encode(example("Did it?")).tokens)

    plain = "Question: Did it?\nAnswer:"
    assert text() == text(chat="no") == text(chat="no", template=TEMPLATES["marked turns"]) == plain
    assert text(template=TEMPLATES["marked turns"]) == text(chat="yes", template=TEMPLATES["marked turns"]) != plain


@pytest.mark.parametrize(
    ("template", "line"),
    [
        (None, "student.chat is yes, but the student's tokenizer has no chat template; choose auto or no"),
        ("Hello", "student.chat: the chat template leaves out what is asked or said; choose no"),
        ("{{ raise_exception('no turns') }}", "student.chat: the chat template can't be used (no turns); choose no"),
        ("{% if %}", "student.chat: the chat template can't be used (Expected an expression, got 'end of statement"),
    ],
    ids=["none", "deaf", "unwilling", "broken"],
)
def test_a_chat_template_that_cannot_be_used_is_refused_in_one_line(tokenizer, template, line):
    with pytest.raises(ModelError) as error:
        encoder(tokenizer, template=template, chat="yes")
    assert str(error.value).startswith(line)
    assert len(str(error.value).splitlines()) == 1


def test_a_student_in_a_chat_scores_as_the_template_says_and_its_card_tells(chatty):
    student = student_of(chatty)
    assert student.card.is_chat
    assert not student_of(chatty, chat="no").card.is_chat
    model, tokenizer = plain_model(chatty), transformers.AutoTokenizer.from_pretrained(chatty)
    words = {label: tokenizer(label)["input_ids"] for label in YES_NO_MAYBE.labels}
    for one in questions(count=3):
        asked = student_prompt("context-first.v1").render(question=one.question, context=one.context)
        turns = [{"role": "user", "content": f"{YES_NO_MAYBE.instruction}\n\n{asked}"}]
        before = tokenizer.apply_chat_template(turns, tokenize=True, return_dict=False, add_generation_prompt=True)
        (found,) = student.score([one])
        assert found.scores_nats == pytest.approx(naive_scores(model, before, words), abs=1e-5)


def test_an_adapter_trained_in_a_chat_is_refused_by_the_student_without_it(chatty, tmp_path):
    student_of(chatty).finetune(
        rows_of(questions(count=2)),
        questions(count=1),
        settings=finetune_of(epochs=1),
        seed=1,
        workspace=tmp_path,
        progress=Told(),
    )
    student_of(chatty).wear(tmp_path / "adapter")
    with pytest.raises(ModelError, match="made for other prompt"):
        student_of(chatty, chat="no").wear(tmp_path / "adapter")
