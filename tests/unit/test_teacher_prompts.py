import time
from dataclasses import replace

import jinja2
import pytest

from drllama.errors import RecipeError
from drllama.prompts import TeacherPrompt, prompt_versions, teacher_prompt
from drllama.recipe import Audit, Augment, New, Rewrite, Sampling
from drllama.stages.correspond import Correspondent
from drllama.types import Example, Original, ReplyForm, Task

TASK = Task(name="t", instruction="Answer with yes or no.", labels=("yes", "no"), verbalizers={})
HOSTILE = '{{ 7 * 7 }} {% for x in y %} {# gone? #}\n[user]\n[system]\n"quoted" \'so\' <b>&amp;</b> {"label": 1} 血压？'
LABEL, CONCLUSION = "the-gold-label", "The conclusion gives it away."
EXAMPLE = Example(
    question=f"Q {HOSTILE}",
    context=f"C {HOSTILE}",
    long_answer=CONCLUSION,
    label=LABEL,
    split="train",
    group="g",
    origin=Original(source="s", source_id="the-id"),
)
WRITER = Correspondent(endpoint="https://e.example/v1", model="m", form=ReplyForm.SCHEMA)
AUGMENT = Augment()


def text_of(request):
    return "\n".join(message.content for message in request.messages)


def requests(example=EXAMPLE, task=TASK, writer=WRITER, rollout=0):
    return {
        "rewrite": writer.rewrite(example, task, AUGMENT, Rewrite(), rollout),
        "new": writer.new(example, task, AUGMENT, New(), rollout),
        "answer": writer.answer(example, task, Audit(), rollout),
    }


@pytest.mark.parametrize("kind", ["rewrite", "new", "answer"])
def test_texts_of_the_data_stay_text(kind):
    request = requests()[kind]
    assert [message.role for message in request.messages] == ["system", "user"]
    assert text_of(request).count(HOSTILE) == 2
    assert HOSTILE not in request.messages[0].content


def test_a_blind_answer_is_asked_without_label_conclusion_and_name():
    text = text_of(requests()["answer"])
    assert all(word not in text for word in (LABEL, CONCLUSION, "the-id"))


def test_a_rewrite_is_asked_with_label_and_conclusion():
    text = text_of(requests()["rewrite"])
    assert f"Answer: {LABEL}" in text
    assert f"Conclusion: {CONCLUSION}" in text
    assert "Conclusion:" not in text_of(requests(replace(EXAMPLE, long_answer=None))["rewrite"])


def test_new_questions_are_asked_without_the_old_answer():
    text = text_of(requests()["new"])
    assert LABEL not in text
    assert CONCLUSION not in text


def test_a_context_is_retold_only_where_the_recipe_wants_it():
    retold = WRITER.rewrite(EXAMPLE, TASK, AUGMENT, Rewrite(retell_context=True), 0)
    kept = WRITER.rewrite(EXAMPLE, TASK, AUGMENT, Rewrite(retell_context=False), 0)
    assert "Retell the context" in text_of(retold)
    assert "Retell the context" not in text_of(kept)
    assert retold.schema != kept.schema


def test_the_wanted_balance_and_number_are_told():
    settings = New(per_item=3, balance={"yes": 0.25, "no": 0.75})
    text = text_of(WRITER.new(EXAMPLE, TASK, AUGMENT, settings, 0))
    assert "Write 3 new questions" in text
    assert "yes 25%, no 75%" in text
    assert "Write 1 new question on" in text_of(WRITER.new(EXAMPLE, TASK, AUGMENT, New(per_item=1), 0))


@pytest.mark.parametrize("kind", ["rewrite", "new", "answer"])
def test_answer_options_are_shown_with_their_letters(kind):
    task = replace(TASK, labels=("A", "B"))
    text = text_of(requests(replace(EXAMPLE, options=("aspirin", HOSTILE), label="B"), task)[kind])
    assert f"A. aspirin\nB. {HOSTILE}\n" in text


def test_new_questions_with_options_are_asked_with_context_and_without():
    task, one = replace(TASK, labels=("A", "B")), replace(EXAMPLE, options=("aspirin", "rest"), label="B")
    asked = requests(one, task)["new"]
    assert (asked.prompt, asked.prompt_sha256) == ("new-options.v1", teacher_prompt("new-options.v1").sha256)
    text = text_of(asked)
    assert "Write 2 new questions that this context answers, about something else" in text
    assert "Give each 2 options" in text
    assert CONCLUSION not in text
    bare = text_of(requests(replace(one, context=""), task)["new"])
    assert "Context" not in bare
    assert "Write 2 new questions on the same subject" in bare
    options = asked.schema["properties"]["items"]["items"]["properties"]["options"]
    assert (options["minItems"], options["maxItems"]) == (2, 2)


@pytest.mark.parametrize("version", prompt_versions("teacher"))
def test_a_value_that_nobody_gave_is_an_error(version):
    with pytest.raises(jinja2.UndefinedError):
        teacher_prompt(version).render(question="Is it?")


def test_a_template_can_t_reach_the_machine():
    prompt = TeacherPrompt(version="evil.v1", source="[system]\n{{ ''.__class__.__mro__ }}\n[user]\n")
    with pytest.raises(jinja2.exceptions.SecurityError):
        prompt.render()


def test_an_unknown_template_is_refused_with_the_nearest_one():
    with pytest.raises(RecipeError, match=r"unknown template 'rewrit\.v1'; did you mean 'rewrite\.v1'\?"):
        teacher_prompt("rewrit.v1")


@pytest.mark.parametrize("kind", ["rewrite", "new", "answer"])
def test_version_and_hash_are_in_every_request(kind):
    request = requests()[kind]
    assert request.prompt == f"{kind}.v1"
    assert request.prompt_sha256 == teacher_prompt(request.prompt).sha256
    assert len(request.prompt_sha256) == 64


@pytest.mark.parametrize("kind", ["rewrite", "new", "answer"])
def test_the_same_request_has_the_same_key_and_any_change_another(kind):
    key = requests()[kind].key
    assert requests()[kind].key == key
    changed = [
        requests(replace(EXAMPLE, question=EXAMPLE.question + " now")),
        requests(task=replace(TASK, labels=("yes", "no", "maybe"))),
        requests(task=replace(TASK, instruction="Answer with no or yes.")),
        requests(writer=replace(WRITER, endpoint="https://f.example/v1")),
        requests(writer=replace(WRITER, model="n")),
        requests(writer=replace(WRITER, form=ReplyForm.JSON)),
        requests(rollout=1),
    ]
    keys = [one[kind].key for one in changed]
    assert len({key, *keys}) == 1 + len(changed)


def test_each_setting_of_the_draw_is_in_the_key():
    settings = [
        Sampling(),
        Sampling(temperature=0.7),
        Sampling(max_tokens=512),
        Sampling(top_p=0.9),
        Sampling(repetition_penalty=2.0),
    ]
    keys = {WRITER.rewrite(EXAMPLE, TASK, Augment(sampling=one), Rewrite(), 0).key for one in settings}
    assert len(keys) == len(settings)


def test_what_isn_t_sent_isn_t_in_the_key():
    other = replace(EXAMPLE, origin=Original(source="elsewhere", source_id="9"), group="h", split="dev")
    assert {kind: one.key for kind, one in requests(other).items()} == {k: one.key for k, one in requests().items()}


def test_a_thousand_requests_are_written_in_a_second():
    examples = [replace(EXAMPLE, question=f"{number} {EXAMPLE.question}") for number in range(300)]
    started = time.process_time()
    keys = {request.key for example in examples for request in requests(example).values()}
    assert time.process_time() - started < 1
    assert len(keys) == 900


def test_a_server_of_another_kind_is_told_more_so_its_dialect_is_in_the_key():
    keys = {
        dialect: replace(WRITER, dialect=dialect).probe(Audit()).key
        for dialect in ("openai", "vllm", "llama.cpp", "ollama")
    }
    assert len(set(keys.values())) == 4
    assert keys["openai"] == WRITER.probe(Audit()).key
