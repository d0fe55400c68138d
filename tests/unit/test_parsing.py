import json

import pytest

from drllama.parsing import (
    Invented,
    Retold,
    answer_schema,
    new_schema,
    parse_answer,
    parse_new,
    parse_rewrite,
    rewrite_schema,
)
from drllama.types import Task, Unparsed


def task(*labels):
    return Task(name="t", instruction="Answer.", labels=labels, verbalizers={label: label for label in labels})


MEDICAL, LETTERS, CHINESE = task("yes", "no", "maybe"), task("A", "B", "C", "D"), task("是", "否", "不确定")
TOLD = {"question": "Does it {really} help?", "long_answer": 'It "does". }', "context": "Ten of 20 {50 %} were helped."}
RETOLD = Retold(**TOLD)


def rewrite(text):
    return parse_rewrite(text, retell_context=True)


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(TOLD),
        json.dumps(TOLD, indent=2),
        f"```json\n{json.dumps(TOLD)}\n```",
        f"```\n{json.dumps(TOLD, indent=1)}\n```\nI hope this helps.",
        f"Here is the question, with the set {{1, 2}} left out:\n{json.dumps(TOLD)}",
        f"{json.dumps(TOLD)}\n{json.dumps({**TOLD, 'question': 'Another?'})}",
        json.dumps({**TOLD, "question": f"  {TOLD['question']}\n", "more": [1, {"question": "inner"}]}),
    ],
)
def test_an_object_is_found_whatever_stands_around_it(text):
    assert rewrite(text) == RETOLD


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no JSON object"),
        ("Does it help?", "no JSON object"),
        ('["question"]', "no JSON object"),
        (json.dumps(TOLD)[:-1], "doesn't end"),
        (json.dumps(TOLD)[:40], "doesn't end"),
        ("{'question': 'single quotes'}", "doesn't end or is broken"),
        ('{"draft": ' + json.dumps(TOLD), "doesn't end"),
        ("{}", "no text 'question'"),
        (json.dumps({**TOLD, "context": None}), "no text 'context'"),
        (json.dumps({**TOLD, "question": 7}), "'question' is empty or no text"),
        (json.dumps({**TOLD, "question": " \n"}), "'question' is empty or no text"),
        (json.dumps({**TOLD, "long_answer": ["It does."]}), "'long_answer' is empty or no text"),
        (json.dumps({**TOLD, "context": "half \ud83d"}), "'context' is empty or no text"),
        (json.dumps({"items": [TOLD]}), "no text 'question'"),
    ],
)
def test_what_can_t_be_read_is_told_with_its_reason(text, reason):
    found = rewrite(text)
    assert isinstance(found, Unparsed)
    assert reason in found.reason
    found.text.encode()  # it can be written to a file


def test_a_context_that_wasn_t_asked_for_isn_t_taken():
    assert parse_rewrite(json.dumps(TOLD), retell_context=False) == Retold(
        question=TOLD["question"], long_answer=TOLD["long_answer"], context=None
    )


@pytest.mark.parametrize(
    ("asked", "text", "label"),
    [
        (MEDICAL, '{"label": "yes"}', "yes"),
        (MEDICAL, '{"label": " YES "}', "yes"),
        (LETTERS, '{"label": "c"}', "C"),
        (CHINESE, '{"label": "否"}', "否"),
        (task("a", "A"), '{"label": "A"}', "A"),
        (MEDICAL, "Maybe.", "maybe"),
        (MEDICAL, "**No**", "no"),
        (MEDICAL, '"yes"', "yes"),
        (MEDICAL, "Yes!", "yes"),
        (MEDICAL, "  No\n\nThe groups were alike, yes.", "no"),
        (MEDICAL, "Yes, there is no doubt.", "yes"),
        (MEDICAL, "No - nothing was seen, maybe by chance.", "no"),
        (MEDICAL, "No (p = 0.4).", "no"),
        (MEDICAL, "**Yes** it does.", "yes"),
        (MEDICAL, "Answer: maybe", "maybe"),
        (MEDICAL, "From the context, no harm is seen. **Answer:** Yes.", "yes"),
        (MEDICAL, "The answer is no, because maybe more would be needed.", "no"),
        (MEDICAL, "The answer to the question is:\n\nYes, treatment 0 of", "yes"),
        (MEDICAL, "## Answer\n\nNo\n", "no"),
        (MEDICAL, "label: 'yes'", "yes"),
        (MEDICAL, "Meine Antwort: maybe.", "maybe"),
        (MEDICAL, "Yes. Yes, it does.", "yes"),
        (LETTERS, "Answer: (C) because of A", "C"),
        (LETTERS, "B", "B"),
        (LETTERS, "(B) vitamin C", "B"),
        (LETTERS, "B. A vitamin", "B"),
        (CHINESE, "答案是：否。", "否"),
        (CHINESE, "是", "是"),
        (CHINESE, "否，不确定有效。", "否"),
    ],
)
def test_a_label_is_read_from_the_object_or_where_it_is_the_answer(asked, text, label):
    assert parse_answer(text, asked) == label


@pytest.mark.parametrize(
    ("asked", "text", "reason"),
    [
        (MEDICAL, '{"label": "unsure"}', "label not one of yes, no, maybe"),
        (MEDICAL, '{"label": true}', "'label' is empty or no text"),
        (MEDICAL, '{"label": ""}', "'label' is empty or no text"),
        (MEDICAL, '{"answer": "yes"}', "no text 'label'"),
        (MEDICAL, '{"label": "yes', "doesn't end"),
        (MEDICAL, '{"answer": "yes", "label": "no', "doesn't end"),
        (MEDICAL, "yes or no", "several labels"),
        (MEDICAL, "It isn't known.", "no label"),
        (MEDICAL, "yes, no, maybe", "several labels"),
        (MEDICAL, "The allowed answers are: yes, no, maybe.", "several labels"),
        (MEDICAL, "Answer: yes. Answer: no.", "several labels"),
        (MEDICAL, "No. The answer is yes.", "several labels"),
        (MEDICAL, "Yes/no", "several labels"),
        (MEDICAL, "Maybe, or yes", "several labels"),
        (MEDICAL, "There is no evidence that it helps.", "a label in passing"),
        (MEDICAL, "No patient died.", "a label in passing"),
        (MEDICAL, "No-one was helped.", "a label in passing"),
        (MEDICAL, "It is maybe too early to tell.", "a label in passing"),
        (MEDICAL, "The answer is no longer known.", "a label in passing"),
        (MEDICAL, "The answer is not yes.", "a label in passing"),
        (MEDICAL, "Does it help? Some say yes.", "a label in passing"),
        (MEDICAL, '"No" is what the authors say.', "a label in passing"),
        (MEDICAL, "The trial, no. 12 of its kind, was stopped.", "a label in passing"),
        (MEDICAL, "It is known: yes, yes.", "a label in passing"),
        (MEDICAL, "Maybe it helps.", "a label in passing"),
        (LETTERS, "A, B or C", "several labels"),
        (CHINESE, "是否有效？不确定。", "a label in passing"),
        (MEDICAL, "", "no label"),
        (LETTERS, "A vitamin", "no label"),
        (LETTERS, "It is vitamin C.", "no label"),
        (task("a", "A", "b"), '{"label": "B "}', None),
        (task("a", "A", "ß"), '{"label": "SS"}', None),
        (task("aa", "AA", "b"), '{"label": "Aa"}', "label not one of"),
        (CHINESE, "不是", "no label"),
        (CHINESE, "是否？", "no label"),
        (CHINESE, "是，否", "several labels"),
    ],
)
def test_an_answer_never_gets_a_default_label(asked, text, reason):
    found = parse_answer(text, asked)
    if reason is None:
        assert found == asked.labels[2]
    else:
        assert isinstance(found, Unparsed)
        assert reason in found.reason


def test_new_questions_are_readable_one_by_one():
    good = {"question": "Is it so?", "label": "No", "long_answer": "It isn't."}
    items = [good, {**good, "label": "perhaps"}, "a text", {"question": "Is it?"}, good]
    first, *bad, last = parse_new(json.dumps({"items": items}), MEDICAL, with_options=False)
    assert first == last == Invented(question="Is it so?", label="no", long_answer="It isn't.")
    assert [one.reason for one in bad] == [
        "label not one of yes, no, maybe",
        "an item that isn't an object",
        "no text 'label'",
    ]


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["rest ", "tea", "A. milk", "a"], ("rest", "tea", "A. milk", "a")),
        (["A. rest", "b) tea", "C: milk", "D.  none"], ("rest", "tea", "milk", "none")),
        (["B. rest", "A. tea", "C. milk", "D. none"], ("B. rest", "A. tea", "C. milk", "D. none")),
        (["rest", "tea", "milk"], "no list 'options' of 4 texts"),
        ("rest, tea, milk, none", "no list 'options' of 4 texts"),
        (None, "no list 'options' of 4 texts"),
        (["rest", "tea", "milk", " "], "an option is empty or no text"),
        (["rest", "tea", "milk", 4], "an option is empty or no text"),
        (["rest", "tea", "milk", "Tea "], "two options are the same"),
    ],
)
def test_new_questions_need_an_option_for_each_label(options, found):
    item = {"question": "What helps?", "options": options, "label": "b", "long_answer": "It does."}
    (read,) = parse_new(json.dumps({"items": [item]}), LETTERS, with_options=True)
    if isinstance(found, str):
        assert read.reason == found
        assert "What helps?" in read.text
    else:
        assert read == Invented(question="What helps?", label="B", long_answer="It does.", options=found)


@pytest.mark.parametrize("value", [{"items": []}, {"items": {}}, {"items": None}, {"question": "Is it?"}, {}])
def test_a_reply_without_items_is_unreadable_as_a_whole(value):
    assert parse_new(json.dumps(value), MEDICAL, with_options=False).reason == "no list 'items'"


@pytest.mark.parametrize(
    "text",
    [
        "{" * 100_000,
        '{"a":' * 20_000,
        '{"a":' * 400 + "1" + "}" * 400,
        '{"question": ' + "[" * 50_000,
        "{ " * 50_000,
        '{"question": "' + "x" * 100_000,
        '{"question": ' + "9" * 10_000 + "}",
        " yes" * 25_000 + " no",
        "yes, no, " * 25_000,
        "answer: " * 25_000,
        " " * 100_000 + "x",
    ],
)
def test_a_long_or_deep_reply_is_unreadable_and_nothing_worse(text):
    for found in (rewrite(text), parse_new(text, MEDICAL, with_options=True), parse_answer(text, MEDICAL)):
        assert isinstance(found, Unparsed)


def test_a_long_reply_is_read():
    long = {**TOLD, "context": "A sentence. " * 10_000 + "The end."}
    assert rewrite("So:\n" + json.dumps(long)).context == long["context"]


def test_schemas_ask_for_exactly_what_is_read():
    assert rewrite_schema(retell_context=True)["required"] == ["question", "long_answer", "context"]
    assert rewrite_schema(retell_context=False)["required"] == ["question", "long_answer"]
    assert answer_schema(CHINESE.labels)["properties"] == {"label": {"enum": ["是", "否", "不确定"]}}
    items = new_schema(MEDICAL.labels, 2, with_options=False)["properties"]["items"]
    assert (items["minItems"], items["maxItems"]) == (2, 2)
    assert items["items"]["additionalProperties"] is False
