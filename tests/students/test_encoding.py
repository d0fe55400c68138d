import random
from dataclasses import replace

import pytest
import tokenizers
import transformers

from drllama.errors import ModelError
from drllama.prompts import prompt_versions
from drllama.recipe import Student
from drllama.students.chat import phrasing_of
from drllama.students.encoding import Encoded, Unfit, make_encoder
from drllama.text import sentences
from drllama.types import Outcome
from tiny_student import YES_NO_MAYBE, example, questions, student_of, task_of

OPENING = {
    "context-first.v1": "Answer:",
    "question-twice.v1": "Answer:",
    "paper.v1": "the answer to the question given the context is",
    "alpaca.v1": "### Response:",
}
CONTEXTS = {
    "English": "The pain fell. It fell by 3.5 points (p = 0.05) in group 2. Nobody knows why it did! " * 8,
    "Chinese": "阿司匹林对头痛有效吗？试验发现了很小的效果。没有人知道。" * 8,
    "lines": "It rose\nIt fell\nIt rose again, nobody knows why\n" * 8,
    "one sentence": "it rose and it fell and " * 60,
    "one word": "x" * 700,
}
QUESTION = "Did the pain fall. Or rise? 真的吗？"


@pytest.fixture(scope="module")
def tokenizer(tiny_llama):
    return transformers.AutoTokenizer.from_pretrained(tiny_llama)


def encoder(tokenizer, *, task=YES_NO_MAYBE, **settings):
    settings = Student(**{"max_tokens": 100, **settings})
    return make_encoder(tokenizer, phrasing_of(tokenizer, settings, task), task, settings)


def read_by(tokenizer, encoded):
    return tokenizer.decode(encoded.tokens)


def kept_of(tokenizer, encoded, prompt):
    """Return the context that the student reads, found between the template's own words."""
    text = read_by(tokenizer, encoded)
    if prompt == "paper.v1":
        return text.removesuffix(f" {OPENING[prompt]}").partition(" context: ")[2]
    before, _, rest = text.partition("Context: ")
    assert not before or prompt == "question-twice.v1"
    return rest.partition("\nQuestion: ")[0]


@pytest.mark.parametrize("prompt", ["context-first.v1", "question-twice.v1", "paper.v1"])
@pytest.mark.parametrize("keep", ["start", "end"])
@pytest.mark.parametrize("kind", CONTEXTS)
def test_a_long_context_loses_sentences_at_one_end_and_nothing_else(tokenizer, kind, keep, prompt):
    context = CONTEXTS[kind].strip()
    again = len(tokenizer(QUESTION)["input_ids"]) if prompt == "question-twice.v1" else 0
    for max_tokens in (80 + again, 131 + again, 200 + again):
        encoded = encoder(tokenizer, prompt=prompt, max_tokens=max_tokens, keep_context=keep).encode(
            example(QUESTION, context)
        )
        text, kept = read_by(tokenizer, encoded), kept_of(tokenizer, encoded, prompt)
        assert QUESTION in text
        assert text.endswith(OPENING[prompt])
        assert len(encoded.tokens) < max_tokens, "one token of the label follows"
        assert kept
        assert context.startswith(kept) if keep == "start" else context.endswith(kept)
        if kind in ("one sentence", "one word"):
            assert len(encoded.tokens) > max_tokens - 8, "a sentence too long by itself is cut inside"
        else:
            cuts = sentences(context)
            wanted = cuts if keep == "start" else cuts[::-1]
            assert any(kept == "".join(wanted[:n] if keep == "start" else wanted[:n][::-1]).strip() for n in range(24))


def test_as_many_sentences_stay_as_fit(tokenizer):
    context = "It rose. " * 20
    made, kept = encoder(tokenizer), []
    for max_tokens in range(40, 90):
        encoded = replace(made, max_tokens=max_tokens).encode(example("Did it?", context))
        kept.append(kept_of(tokenizer, encoded, "context-first.v1").count("rose"))
    one_more = len(tokenizer(" It rose.")["input_ids"])
    assert kept == sorted(kept)
    assert [kept.count(number) for number in sorted(set(kept))][1:-1] == [one_more] * (len(set(kept)) - 2)


def test_truncated_tokens_are_what_the_context_lost(tokenizer):
    one = example("Did it rise?", CONTEXTS["English"])
    whole = encoder(tokenizer, max_tokens=4000).encode(one)
    assert whole.truncated_tokens == 0
    for max_tokens in (60, 100, 300):
        cut = encoder(tokenizer, max_tokens=max_tokens).encode(one)
        assert cut.truncated_tokens == len(whole.tokens) - len(cut.tokens) > 0


def test_a_context_that_just_fits_is_not_cut(tokenizer):
    one = example("Did it rise?", "It rose. It fell. Nobody knows.")
    length = len(encoder(tokenizer).encode(one).tokens)
    assert encoder(tokenizer, max_tokens=length + 1).encode(one).truncated_tokens == 0
    assert encoder(tokenizer, max_tokens=length).encode(one).truncated_tokens > 0


def test_a_context_of_100_kilobytes_without_a_boundary_is_cut_in_time(tokenizer):
    letters = random.Random(3)
    for text in ("".join(letters.choices("abcdefgh ", k=100_000)), "头" * 33_000):
        encoded = encoder(tokenizer, max_tokens=128).encode(example("Did it?", text))
        assert 110 < len(encoded.tokens) < 128
        assert encoded.truncated_tokens > 30_000


def test_every_length_of_input_and_label_fits(tokenizer, tiny_llama):
    long_labels = task_of("yes", "it is not known at all whether it did")
    room_for_label = max(map(len, encoder(tokenizer, task=long_labels).label_tokens.values()))
    assert room_for_label > 5
    encoded = encoder(tokenizer, task=long_labels, max_tokens=80).encode(example("Did it?", CONTEXTS["one word"]))
    assert 70 < len(encoded.tokens) + room_for_label <= 80


def test_a_question_that_fits_not_even_alone_fails_and_harms_no_other(tiny_llama):
    poisoned = example("Did it rise? " * 200, "It rose.")
    good = questions(count=4)
    alone = {one.example_id: one for one in student_of(tiny_llama, max_tokens=128).score(good)}
    found = {
        one.example_id: one for one in student_of(tiny_llama, max_tokens=128).score([*good[:2], poisoned, *good[2:]])
    }
    failed = found.pop(poisoned.id)
    assert found == alone
    assert (failed.outcome, failed.choice, failed.scores_nats) == (Outcome.FAILED, None, None)
    assert failed.note.endswith("tokens, student.max_tokens is 128")


def test_an_unfit_question_says_how_long_it_is(tokenizer):
    match encoder(tokenizer, max_tokens=40).encode(example("Did it? " * 30)):
        case Unfit(reason=reason):
            length = len(encoder(tokenizer, max_tokens=4000).encode(example("Did it? " * 30)).tokens)
            assert reason == f"the question alone has {length} tokens, student.max_tokens is 40"
        case Encoded():
            pytest.fail("30 questions don't fit 40 tokens")


@pytest.mark.parametrize("prompt", prompt_versions("student"))
def test_the_long_answer_never_enters_the_input(tokenizer, prompt):
    with_answer = example("Did it rise?", "It rose.", long_answer="SECRET yes it rose")
    without = example("Did it rise?", "It rose.")
    assert with_answer.long_answer != without.long_answer
    one, other = (encoder(tokenizer, prompt=prompt, max_tokens=256).encode(each) for each in (with_answer, without))
    assert one.tokens == other.tokens
    assert "SECRET" not in read_by(tokenizer, one)


@pytest.mark.parametrize("prompt", prompt_versions("student"))
def test_the_label_never_enters_the_input(tokenizer, prompt):
    inputs = {
        encoder(tokenizer, prompt=prompt, max_tokens=256).encode(example("Did it?", "It did.", label=label)).tokens
        for label in ("yes", "no", "maybe")
    }
    assert len(inputs) == 1


@pytest.mark.parametrize("prompt", prompt_versions("student"))
def test_options_stand_beside_their_letters_in_the_order_of_the_labels(tokenizer, prompt):
    letters = task_of("A", "B", "C", "D")
    asked = example("Which one rose?", "It rose. " * 60, options=("pain", "头痛", "the effect", "nobody"), label="B")
    text = read_by(tokenizer, encoder(tokenizer, task=letters, prompt=prompt, max_tokens=256).encode(asked))
    places = [text.index(f"{letter}. {option}") for letter, option in zip("ABCD", asked.options, strict=True)]
    assert places == sorted(places)
    assert text.endswith(OPENING[prompt])
    assert text.count("It rose.") < 60, "the context is cut, the options aren't"


@pytest.mark.parametrize("prompt", prompt_versions("student"))
def test_without_a_context_the_template_names_none(tokenizer, prompt):
    text = read_by(tokenizer, encoder(tokenizer, prompt=prompt, max_tokens=256).encode(example("Did it?")))
    assert not any(word in text for word in ("ontext:", "Input:", "further context"))


def test_the_words_of_a_label_follow_the_prompt_as_they_do_in_text(tokenizer):
    text = "Context: It rose.\nQuestion: Did it?\nAnswer:"
    for task in (YES_NO_MAYBE, task_of("A", "B"), task_of("yes", "not sure"), task_of("是", "否")):
        made = encoder(tokenizer, task=task)
        before = made.encode(example("Did it?", "It rose.")).tokens
        assert list(before) == tokenizer(text)["input_ids"]
        for label in task.labels:
            assert [*before, *made.label_tokens[label]] == tokenizer(f"{text} {label}")["input_ids"]


def test_labels_of_which_one_begins_another_are_all_closed_by_the_end_of_text(tokenizer):
    closed = encoder(tokenizer, task=task_of("no", "no effect", "yes")).label_tokens
    assert {tokens[-1] for tokens in closed.values()} == {tokenizer.eos_token_id}
    open_ended = encoder(tokenizer, task=task_of("no", "yes")).label_tokens
    assert tokenizer.eos_token_id not in {token for tokens in open_ended.values() for token in tokens}


def test_labels_with_the_same_tokens_are_refused_in_one_line(tiny_llama):
    cased = transformers.AutoTokenizer.from_pretrained(tiny_llama)
    cased.backend_tokenizer.normalizer = tokenizers.normalizers.Lowercase()
    with pytest.raises(ModelError, match=r"task.verbalizers: two of Yes, yes, no have the same tokens"):
        encoder(cased, task=task_of("Yes", "yes", "no"))


def test_labels_that_need_an_end_of_text_are_refused_where_the_tokenizer_has_none(tiny_llama):
    endless = transformers.AutoTokenizer.from_pretrained(tiny_llama)
    endless.eos_token = None
    assert encoder(endless, task=task_of("no", "yes")).label_tokens
    with pytest.raises(ModelError, match="'no' begins 'no effect'"):
        encoder(endless, task=task_of("no", "no effect"))


def test_the_context_s_tokens_come_first_and_are_the_same_for_every_question_about_it(tokenizer):
    made = encoder(tokenizer, max_tokens=256)
    for context in ("It rose.", "It rose. Question: Did it? (0)", "试验发现了很小的效果"):
        found = [made.encode(example(asked, context)) for asked in ("Did it?", "fell it", "(1) and what?", "有效吗？")]
        assert len({one.tokens[: one.split] for one in found}) == 1
        for one in found:
            assert tokenizer.decode(one.tokens[: one.split]) == f"Context: {context}\n"
            assert tokenizer.decode(one.tokens[one.split :]).startswith(f"Question: {one.example.question}\n")


def test_a_question_asked_twice_is_split_before_it_is_asked_again(tokenizer):
    made = encoder(tokenizer, max_tokens=256, prompt="question-twice.v1")
    for context in ("It rose.", "It rose. Question: Did it? (0)", "试验发现了很小的效果"):
        for asked in ("Did it?", "fell it", "(1) and what?", "有效吗？"):
            one = made.encode(example(asked, context))
            assert tokenizer.decode(one.tokens[: one.split]) == f"Question: {asked}\nContext: {context}\n"
            assert tokenizer.decode(one.tokens[one.split :]) == f"Question: {asked}\nAnswer:"
    assert made.encode(example("Did it?")).split == 0


def test_where_no_context_comes_first_nothing_is_shared(tokenizer):
    assert encoder(tokenizer).encode(example("Did it?")).split == 0
    for prompt in ("paper.v1", "alpaca.v1"):
        assert encoder(tokenizer, prompt=prompt, max_tokens=400).encode(example("Did it?", "It rose.")).split == 0
