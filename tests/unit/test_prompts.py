import jinja2
import pytest

from drllama.errors import RecipeError
from drllama.prompts import StudentPrompt, prompt_versions, student_prompt

OPTIONS = (("A", "aspirin"), ("B", "water"))
HOSTILE = "{{ 7 * 7 }} {% for x in y %} {# gone? #} <b>&amp;</b> {{ question }} \\n \x00"


@pytest.mark.parametrize(
    ("version", "text"),
    [
        ("context-first.v1", "Context: It fell.\nQuestion: Did it fall?\nAnswer:"),
        (
            "question-twice.v1",
            "Question: Did it fall?\nContext: It fell.\nQuestion: Did it fall?\nAnswer:",
        ),
        (
            "paper.v1",
            "question: Did it fall? context: It fell. the answer to the question given the context is",
        ),
        (
            "alpaca.v1",
            "Below is an instruction that describes a task, paired with an input that provides further context. "
            "Write a response that appropriately completes the request.\n\n### Instruction:\nDid it fall?\n\n"
            "### Input:\nIt fell.\n\n### Response:",
        ),
    ],
)
def test_a_student_reads(version, text):
    assert student_prompt(version).render(question="Did it fall?", context="It fell.") == text


@pytest.mark.parametrize(
    ("version", "text"),
    [
        ("context-first.v1", "Context: C.\nQuestion: What helps?\nA. aspirin\nB. water\nAnswer:"),
        (
            "question-twice.v1",
            "Question: What helps?\nContext: C.\nQuestion: What helps?\nA. aspirin\nB. water\nAnswer:",
        ),
        (
            "paper.v1",
            "question: What helps? A. aspirin B. water context: C. the answer to the question given the context is",
        ),
    ],
)
def test_a_student_reads_options_with_their_letters(version, text):
    assert student_prompt(version).render(question="What helps?", context="C.", options=OPTIONS) == text


def test_a_template_is_never_edited_after_a_result_used_it():
    # A change here is a new version: copy the file. These are the hashes that stand in adapters and in results.
    assert {version: student_prompt(version).sha256 for version in prompt_versions("student")} == {
        "alpaca.v1": "112164bf4bc8146167320ced27e56b0c7005a83cbae0f7905c440559fc1d8297",
        "context-first.v1": "adf33cac78440b84a5920bd22f076cb23cba04045b942089a9af8c6f3f2c3e64",
        "question-twice.v1": "2e1e04be8e7abad03c40a6621a05f17e134d97ccda3fb15b4b802971efdb5c34",
        "paper.v1": "ef732fc250286b83d97c1ea11489aca434ad4e1d06f0699b67f4f1d1c8eae4a7",
    }


@pytest.mark.parametrize("version", prompt_versions("student"))
def test_texts_of_the_data_are_never_read_as_a_template(version):
    text = student_prompt(version).render(question=HOSTILE, context=HOSTILE, options=[("A", HOSTILE)])
    assert text.count(HOSTILE) == (4 if version == "question-twice.v1" else 3)
    assert "49" not in text


@pytest.mark.parametrize("version", prompt_versions("student"))
def test_the_text_ends_where_the_answer_begins_without_white_space(version):
    for context in ("", "It fell.\n"):
        text = student_prompt(version).render(question="Did it fall?", context=context)
        assert text == text.rstrip()


@pytest.mark.parametrize("version", prompt_versions("student"))
def test_without_a_context_none_is_announced(version):
    assert "context:" not in student_prompt(version).render(question="Did it fall?", context="").lower()


def test_what_stands_before_the_question_doesn_t_depend_on_it():
    prompt = student_prompt("context-first.v1")
    first, second = (prompt.render(question=question, context="It fell.") for question in ("Did it?", "Why did it?"))
    assert first.partition("Did it?")[0] == second.partition("Why did it?")[0] != ""


def test_a_template_that_asks_for_more_than_a_question_has_is_an_error():
    with pytest.raises(jinja2.UndefinedError, match="long_answer"):
        StudentPrompt(version="x", source="{{ long_answer }}").render(question="Q", context="")


def test_a_template_can_t_reach_out_of_its_sandbox():
    escape = StudentPrompt(version="x", source="{{ question.__class__.__mro__[1].__subclasses__() }}")
    with pytest.raises(jinja2.exceptions.SecurityError):
        escape.render(question="Q", context="")


@pytest.mark.parametrize(
    ("version", "hint"),
    [
        ("context-frst.v1", "did you mean 'context-first.v1'?"),
        ("zzz", "choose one of alpaca.v1, context-first.v1, paper.v1"),
        ("../__init__", "choose one of"),
    ],
)
def test_an_unknown_template_is_refused_with_the_nearest_one(version, hint):
    with pytest.raises(RecipeError) as told:
        student_prompt(version)
    assert str(told.value).startswith(f"student.prompt: unknown template '{version}'; {hint}")
