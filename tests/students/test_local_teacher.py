import asyncio
import json
import time
from collections import Counter
from dataclasses import replace

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from drllama import plugins
from drllama.errors import TeacherFailure
from drllama.recipe import resolve
from drllama.replies import RequestStore
from drllama.teachers.json_end import object_end
from drllama.teachers.local import LocalTeacher
from drllama.types import FailureKind, Finish, Message, ReplyForm, Sampling, TeacherRequest

HASH = "0123456789abcdef" * 4
WINDOW = 256
TEMPLATE = (
    "{% for turn in messages %}<|{{ turn.role }}|>{{ turn.content }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no system turn') }}{% endif %}" + TEMPLATE


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    # Threads that wait for each other in matrices this small only take the processor from everybody else.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def tokenizer():
    letters = Tokenizer(models.BPE())
    letters.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    letters.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=280,
        special_tokens=["<end>", "<start>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    letters.train_from_iterator(["Does aspirin lower fever? Yes, it does."] * 3, trainer)
    start = ("<start>", letters.token_to_id("<start>"))
    letters.post_processor = processors.TemplateProcessing(single="<start> $A", special_tokens=[start])
    return PreTrainedTokenizerFast(tokenizer_object=letters, bos_token="<start>", eos_token="<end>")


def tokens_of(text, tokenizer):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def tiny(kind=LlamaForCausalLM, *, size=280):
    torch.manual_seed(7)
    config = LlamaConfig(
        vocab_size=size,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=WINDOW,
        # Wide weights: a random model with narrow ones finds every token equally likely.
        initializer_range=0.6,
        bos_token_id=None,
        eos_token_id=0,
    )
    return kind(config).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def model(tokenizer):
    return tiny(size=len(tokenizer))


@pytest.fixture(scope="module")
def learned_positions(tokenizer):
    """A model that adds a vector for each place: unlike Llama, it tells a row that stands further right."""
    torch.manual_seed(7)
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=WINDOW,
        n_embd=32,
        n_layer=2,
        n_head=4,
        initializer_range=0.6,
        bos_token_id=None,
        eos_token_id=0,
    )
    return GPT2LMHeadModel(config).eval().requires_grad_(False)


class Scripted(LlamaForCausalLM):
    """Says the same tokens to everybody, whatever its weights would; a real model in all else."""

    script = ()
    poisoned_prompt = None
    pause_seconds = 0.0

    def forward(self, input_ids, position_ids, **settings):
        time.sleep(self.pause_seconds)
        first = settings["past_key_values"] is None
        self.step = 0 if first else self.step + 1
        out = super().forward(input_ids=input_ids, position_ids=position_ids, **settings)
        out.logits[:] = -5.0
        out.logits[:, -1, self.script[self.step % len(self.script)]] = 9.0
        if self.poisoned_prompt is not None and first:
            out.logits[(input_ids == self.poisoned_prompt).any(dim=1)] = float("nan")
        return out


def scripted(tokenizer, text, **settings):
    model = tiny(Scripted, size=len(tokenizer))
    model.script = tokens_of(text, tokenizer)
    for name, value in settings.items():
        setattr(model, name, value)
    return model


class Watched(list):
    """The batches that a model saw: their numbers of rows, prompt and continuation alike."""

    def __init__(self, model):
        self._hook = model.register_forward_pre_hook(self._see, with_kwargs=True)
        self.prompts = []

    def _see(self, _model, _args, settings):
        self.append(len(settings["input_ids"]))
        if settings["past_key_values"] is None:
            self.prompts += [
                tokens[mask.bool()].tolist()
                for tokens, mask in zip(settings["input_ids"], settings["attention_mask"], strict=True)
            ]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._hook.remove()


def question(text="Does aspirin lower fever?", **changes):
    sampling = {"temperature": 0.8, "max_tokens": 24, "repetition_penalty": 2.0, **changes.pop("sampling", {})}
    asked = TeacherRequest(
        endpoint="local:" + HASH[:16],
        model="tiny",
        prompt="rewrite.v1",
        prompt_sha256="0" * 64,
        messages=(Message(role="system", content="Speak."), Message(role="user", content=text)),
        sampling=Sampling(**sampling),
        form=ReplyForm.PROMPT,
        schema={"type": "object"},
        rollout=0,
    )
    return replace(asked, **changes)


def local(model, tokenizer, *, batch_size=8):
    return LocalTeacher(model, tokenizer, weights_sha256=HASH, batch_size=batch_size)


def ask(teacher, *requests):
    async def together():
        return await asyncio.gather(*(teacher.ask(one) for one in requests), return_exceptions=True)

    return asyncio.run(together())


def said(replies):
    return [(one.text, one.finish, one.tokens_in, one.tokens_out) for one in replies]


FIVE = (
    question(),
    question("No?", sampling={"temperature": 1.3, "top_p": 0.9, "repetition_penalty": None}),
    question("阿司匹林能退烧吗？ " * 6, rollout=3),
    question("Is a much longer question answered as it is alone? " * 3, sampling={"temperature": 0.0}),
    question("Yes.", sampling={"max_tokens": 5}),
)


@pytest.mark.parametrize("kind", ["model", "learned_positions"])
def test_a_reply_does_not_depend_on_the_batch_or_the_order(kind, tokenizer, request):
    model = request.getfixturevalue(kind)
    alone = [ask(local(model, tokenizer), one)[0] for one in FIVE]
    with Watched(model) as batches:
        together = ask(local(model, tokenizer), *FIVE)
    assert batches[0] == 5 and batches[-1] < 5, "five rows begin together, and finished rows leave"
    backwards = ask(local(model, tokenizer, batch_size=2), *reversed(FIVE))[::-1]
    assert said(alone) == said(together) == said(backwards)
    assert len({one.text for one in alone}) == 5


def test_the_rollout_changes_the_draw_and_nothing_else_does(model, tokenizer):
    first, again, other = ask(local(model, tokenizer), question(), question(), question(rollout=1))
    assert first.text == again.text != other.text


@pytest.mark.parametrize("penalty", [None, 2.0])
def test_greedy_replies_are_those_of_transformers_generate(model, tokenizer, penalty):
    asked = [
        question(text, sampling={"temperature": 0.0, "repetition_penalty": penalty, "max_tokens": 40})
        for text in ("Does it?", "Does aspirin lower fever in children and in adults?")
    ]
    with Watched(model) as batches:
        replies = ask(local(model, tokenizer), *asked)
    for reply, prompt in zip(replies, batches.prompts, strict=True):
        tokens = torch.tensor([prompt])
        expected = model.generate(
            tokens,
            attention_mask=torch.ones_like(tokens),
            do_sample=False,
            max_new_tokens=40,
            repetition_penalty=penalty,
            pad_token_id=0,
        )[0, len(prompt) :]
        assert object_end(tokenizer.decode(expected)) is None, "the comparison is of whole replies"
        assert reply.text == tokenizer.decode(expected, skip_special_tokens=True)
        assert (reply.tokens_in, reply.tokens_out) == (len(prompt), len(expected))


def test_a_repetition_penalty_changes_the_greedy_reply(model, tokenizer):
    plain, penalised = ask(
        local(model, tokenizer),
        question(sampling={"temperature": 0.0, "repetition_penalty": None}),
        question(sampling={"temperature": 0.0}),
    )
    assert plain.text != penalised.text


def test_words_are_drawn_as_often_as_the_warpers_of_transformers_say(model, tokenizer):
    rolls = 600
    sampling = {"temperature": 0.8, "top_p": 0.95, "max_tokens": 1}
    with Watched(model) as batches:
        replies = ask(
            local(model, tokenizer, batch_size=rolls), *(question(sampling=sampling, rollout=n) for n in range(rolls))
        )
    prompt = torch.tensor([batches.prompts[0]])
    scores = model(input_ids=prompt).logits[:, -1]
    for warper in (RepetitionPenaltyLogitsProcessor(2.0), TemperatureLogitsWarper(0.8), TopPLogitsWarper(0.95)):
        scores = warper(prompt, scores)
    expected = Counter()
    for token, share in enumerate(scores.softmax(dim=-1)[0].tolist()):
        expected[tokenizer.decode([token], skip_special_tokens=True)] += share
    drawn = Counter(reply.text for reply in replies)
    possible = {text for text, share in expected.items() if share > 0}
    assert set(drawn) <= possible and 1 < len(possible) < len(expected)
    for text, share in expected.items():
        deviation = (share * (1 - share) / rolls) ** 0.5
        assert abs(drawn[text] / rolls - share) <= 4 * deviation + 1e-9


def test_a_reply_ends_with_its_json_object(tokenizer):
    wanted = 'Here: {"question": "Is {it} \\"so\\"}?", "more": {"效果": "}"}}'
    model = scripted(tokenizer, wanted + ' And on it goes {"a": 1}')
    with Watched(model) as batches:
        (reply,) = ask(local(model, tokenizer), question(sampling={"max_tokens": 200}))
    assert reply.text == wanted
    assert reply.finish is Finish.STOP
    assert reply.tokens_out == len(batches) == len(tokens_of(wanted, tokenizer))
    assert (reply.tokens_in, reply.cost_usd) == (len(batches.prompts[0]), 0.0)


def test_words_behind_the_object_in_its_last_token_are_cut_off(tokenizer):
    model = scripted(tokenizer, '{"a": 1')
    joined = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    joined.add_tokens(["}!!"])
    wider = PreTrainedTokenizerFast(tokenizer_object=joined, eos_token="<end>")
    model.resize_token_embeddings(len(wider), mean_resizing=False)
    model.script = [*model.script, wider.convert_tokens_to_ids("}!!")]
    (reply,) = ask(local(model, wider), question())
    assert (reply.text, reply.finish) == ('{"a": 1}', Finish.STOP)


def test_a_reply_that_reaches_max_tokens_says_so(tokenizer):
    (reply,) = ask(local(scripted(tokenizer, '{"a": "b'), tokenizer), question(sampling={"max_tokens": 6}))
    assert (reply.finish, reply.tokens_out) == (Finish.LENGTH, 6)
    assert object_end(reply.text) is None


def test_an_object_that_closes_with_the_last_allowed_token_is_whole(tokenizer):
    text = '{"a": 1}'
    length = len(tokens_of(text, tokenizer))
    (reply,) = ask(local(scripted(tokenizer, text), tokenizer), question(sampling={"max_tokens": length}))
    assert (reply.text, reply.finish, reply.tokens_out) == (text, Finish.STOP, length)


def test_the_end_token_ends_a_reply_and_is_not_part_of_it(tokenizer):
    (reply,) = ask(local(scripted(tokenizer, "Yes.<end>No."), tokenizer), question())
    assert (reply.text, reply.finish) == ("Yes.", Finish.STOP)
    assert reply.tokens_out == len(tokens_of("Yes.<end>", tokenizer))


@pytest.mark.parametrize(
    ("template", "prompt"),
    [
        (None, "<start>Speak.\n\nWell?\n\n"),
        (TEMPLATE, "<|system|>Speak.<|user|>Well?<|assistant|>"),
        (NO_SYSTEM, "<|user|>Speak.\n\nWell?<|assistant|>"),
    ],
)
def test_the_prompt_is_written_by_the_chat_template_if_there_is_one(model, tokenizer, template, prompt, monkeypatch):
    monkeypatch.setattr(tokenizer, "chat_template", template)
    with Watched(model) as batches:
        ask(local(model, tokenizer), question("Well?", sampling={"max_tokens": 1}))
    assert [tokenizer.decode(tokens) for tokens in batches.prompts] == [prompt]


def test_a_form_that_cannot_be_held_to_and_a_prompt_that_does_not_fit_are_refused_alone(model, tokenizer):
    held, long, answered = ask(
        local(model, tokenizer), question(form=ReplyForm.SCHEMA), question("long " * WINDOW), question()
    )
    assert isinstance(held, TeacherFailure) and held.kind is FailureKind.BAD_REQUEST and "schema" in str(held)
    assert isinstance(long, TeacherFailure) and long.kind is FailureKind.BAD_REQUEST and str(WINDOW) in str(long)
    assert said([answered]) == said(ask(local(model, tokenizer), question()))


def test_scores_that_are_not_numbers_fail_their_own_request_only(tokenizer):
    (poison,) = tokens_of("#", tokenizer)
    model = scripted(tokenizer, '{"a": 1}', poisoned_prompt=poison)
    well, ill = ask(local(model, tokenizer), question(), question("#"))
    assert well.text == '{"a": 1}'
    assert isinstance(ill, TeacherFailure) and ill.kind is FailureKind.UNREADABLE


def test_the_event_loop_goes_on_while_the_model_speaks(tokenizer):
    model = scripted(tokenizer, "on and on ", pause_seconds=0.01)
    ticks = 0

    async def tick():
        nonlocal ticks
        while True:
            await asyncio.sleep(0.005)
            ticks += 1

    async def main():
        ticking = asyncio.create_task(tick())
        await local(model, tokenizer).ask(question(sampling={"max_tokens": 30}))
        ticking.cancel()

    asyncio.run(main())
    assert ticks >= 10


def test_whoever_stops_waiting_leaves_the_batch_and_the_others_get_their_replies(tokenizer):
    model = scripted(tokenizer, "on and on ", pause_seconds=0.01)
    teacher = local(model, tokenizer)
    long = question(sampling={"max_tokens": 150})

    async def main():
        leader = asyncio.create_task(teacher.ask(long))
        staying = asyncio.create_task(teacher.ask(question(sampling={"max_tokens": 40})))
        while not batches:
            await asyncio.sleep(0.005)
        leader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leader
        reply = await staying
        return reply, await teacher.ask(question(sampling={"max_tokens": 2}))

    with Watched(model) as batches:
        reply, later = asyncio.run(asyncio.wait_for(main(), 60))
    assert (reply.tokens_out, later.tokens_out) == (40, 2)
    assert batches[0] == 2 and batches.count(1) >= 35
    assert len(batches) == 42


def test_when_nobody_waits_any_more_the_model_falls_silent(tokenizer):
    model = scripted(tokenizer, "on and on ", pause_seconds=0.01)

    async def main():
        async with asyncio.timeout(0.2):
            await local(model, tokenizer).ask(question(sampling={"max_tokens": 200}))

    with Watched(model) as batches, pytest.raises(TimeoutError):
        asyncio.run(main())
    assert len(batches) < 100


def test_requests_that_reach_the_teacher_a_little_apart_share_a_batch(model, tokenizer):
    teacher = local(model, tokenizer)

    async def late(turns):
        for _ in range(turns):
            await asyncio.sleep(0)
        await teacher.ask(question(rollout=turns, sampling={"max_tokens": 2}))

    async def main():
        await asyncio.gather(*(late(turns) for turns in range(5)))

    with Watched(model) as batches:
        asyncio.run(main())
    assert batches[0] == 5


def test_more_requests_than_fit_a_batch_are_all_answered(model, tokenizer):
    asked = [question(rollout=n, sampling={"max_tokens": 3}) for n in range(11)]
    with Watched(model) as batches:
        replies = ask(local(model, tokenizer, batch_size=4), *asked)
    assert len(replies) == len(batches.prompts) == 11
    assert max(batches) == 4 and batches.count(4) >= 2


OBJECTS = (
    {},
    {"a": 1},
    {"a": {"b": {"c": []}}, "d": [{}, {"e": "}"}]},
    {"brace": "} { }}", "quote": 'she said "}"', "backslash": "\\", "both": '\\"}'},
    {"问题": "效果“很好”吗？｝", "答案": "是的，}。"},
    {"line\nbreak": "tab\t}", "unicode": "\u2028}\U0001f600"},
    {"": ""},
)


@pytest.mark.parametrize("ascii_only", [True, False])
@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("written", OBJECTS, ids=json.dumps)
def test_an_object_ends_where_it_ends_and_nowhere_before(written, ascii_only, indent):
    text = json.dumps(written, ensure_ascii=ascii_only, indent=indent)
    for before in ("", "Sure, here it is:\n```json\n", "The set {x} and \\frac{a}{b}, so }: ", '他说："好"。'):
        whole = before + text
        assert [object_end(whole[:length]) for length in range(len(whole))] == [None] * len(whole)
        for behind in ("", "}", '"', "\n```", ' {"b": 2}', "\\"):
            assert object_end(whole + behind) == len(whole)


@pytest.mark.parametrize(
    "text", ["", "no object", "{", "{ ", "}", '{"a": "}', '{"a": "\\"}', '{"a": "\\\\\\"}', "{x}", "｛}"]
)
def test_what_is_no_whole_object_has_no_end(text):
    assert object_end(text) is None


@pytest.mark.parametrize("text", ['{"a": "first\n} second"}', '{"a": "first\\\n} second"}'])
def test_a_raw_line_break_inside_a_string_does_not_end_it(text):
    assert object_end(text + " more") == len(text)


def test_a_long_reply_is_searched_quickly():
    text = '{"a": "' + "\\\\" * 50_000 + '{"b": ' * 1000
    before = time.process_time()
    assert object_end(text) is None
    assert time.process_time() - before < 1


def test_a_plan_calls_a_local_teacher_what_it_calls_itself(tiny_llama, tmp_path):
    raw = {"name": "x", "data": "pubmedqa-demo", "teacher": {"local": {"model": str(tiny_llama)}}}
    recipe = resolve(raw).recipe

    async def named_by_itself():
        with RequestStore(tmp_path / "replies.sqlite") as replies:
            limits = {"max_usd": None, "max_calls": None, "max_minutes": None}
            async with plugins.make_teacher(recipe, replies=replies, seed=1, **limits) as (teacher, _):
                return teacher.endpoint

    assert plugins.endpoint_of(recipe) == asyncio.run(named_by_itself())
