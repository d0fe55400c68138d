import asyncio
import json
import logging
import time
import traceback
from collections import defaultdict
from copy import deepcopy
from datetime import UTC, datetime
from email.utils import format_datetime

import pytest

from drllama.errors import BudgetSpent, RecipeError, TeacherFailure
from drllama.recipe import Endpoint
from drllama.teachers import ChatEndpoint, Kept, Ledger, Replay, Stored, ask_all, http_teacher
from drllama.teachers.answers import LONGEST_RETRY_AFTER_SECONDS, Refusal, failure_of, retry_after_seconds
from drllama.types import FailureKind, Finish, Message, Reply, ReplyForm, Sampling, TeacherRequest
from faults.server import Fault, FaultServer, always, drawn, heard, scripted

KEY = "sk-quite-secret-0123456789"
SCHEMA = {"type": "object", "properties": {"heard": {"type": "string"}}, "required": ["heard"]}


class Shelf:
    """Replies in memory, every attempt in the order in which it came."""

    def __init__(self):
        self.attempts = defaultdict(list)

    def find(self, key):
        return next((one for one in self.attempts.get(key, ()) if isinstance(one, Reply)), None)

    def keep_many(self, attempts):
        for asked, outcome in attempts:
            self.attempts[asked.key].append(outcome)


def request(number=0, *, endpoint="http://127.0.0.1:1/v1", form=ReplyForm.SCHEMA, content="Is it so?", **sampling):
    return TeacherRequest(
        endpoint=endpoint,
        model="m",
        prompt="rewrite.v1",
        prompt_sha256="0" * 64,
        messages=(Message(role="system", content="Answer."), Message(role="user", content=f"{content} {number}")),
        sampling=Sampling(**({"temperature": 0.5, "max_tokens": 50} | sampling)),
        form=form,
        schema=SCHEMA,
        rollout=0,
    )


def settings(base_url, **more):
    return Endpoint(
        **({"base_url": base_url, "model": "m", "api_key_env": "TEACHER_KEY", "timeout_seconds": 20} | more)
    )


def fast_clock():
    return time.monotonic() * 1000


async def fast_sleep(seconds):
    await asyncio.sleep(seconds / 1000)


def ask_once(server, *, asked=None, **more):
    """Return the outcome of one attempt at one request."""

    async def main():
        async with ChatEndpoint(settings(server.base_url, **more)) as teacher:
            try:
                return await teacher.ask(asked or request(endpoint=teacher.endpoint))
            except TeacherFailure as failure:
                return failure

    return asyncio.run(main())


# ---------------------------------------------------------------------------------------------------- what is sent


def test_everything_that_makes_up_a_request_is_sent_as_it_is():
    content = 'Literal {{ braces }}, {format}, "quotes", \\ and ünïcödé 🦙' + "x" * 100_000
    with FaultServer() as server:
        asked = request(endpoint=server.base_url, content=content, top_p=0.9, temperature=0.8, max_tokens=77)
        reply = ask_once(server, asked=asked)
        (sent,) = server.book.bodies
    assert sent == {
        "model": "m",
        "messages": [{"role": "system", "content": "Answer."}, {"role": "user", "content": f"{content} 0"}],
        "temperature": 0.8,
        "top_p": 0.9,
        "max_tokens": 77,
        "response_format": {"type": "json_schema", "json_schema": {"name": "reply", "strict": True, "schema": SCHEMA}},
    }
    assert reply.text == heard(next(iter(server.book.received)))
    assert reply.finish is Finish.STOP
    assert reply.tokens_in > 25_000 and reply.tokens_out > 0 and reply.seconds > 0
    assert reply.cost_usd is None, "an unknown price is not 0"


@pytest.mark.parametrize(("form", "sent"), [(ReplyForm.JSON, {"type": "json_object"}), (ReplyForm.PROMPT, None)])
def test_a_weaker_form_asks_for_json_or_for_nothing(form, sent):
    with FaultServer() as server:
        ask_once(server, asked=request(endpoint=server.base_url, form=form))
        assert server.book.bodies[0].get("response_format") == sent


def test_a_known_price_gives_each_reply_its_cost():
    with FaultServer() as server:
        reply = ask_once(server, usd_per_million_tokens=(2.0, 8.0))
    assert reply.cost_usd == pytest.approx((reply.tokens_in * 2 + reply.tokens_out * 8) / 1e6)


PLAIN = {
    "vllm": {"top_k": -1, "min_p": 0, "top_p": 1, "repetition_penalty": 1},
    "llama.cpp": {
        "samplers": ["penalties", "temperature", "top_p"],
        "top_k": 0,
        "min_p": 0,
        "top_p": 1,
        "mirostat": 0,
        "repeat_penalty": 1,
    },
    "openai": {},
    "ollama": {},
}
PENALTY = {
    "vllm": {"repetition_penalty": 2.0},
    "llama.cpp": {"repeat_penalty": 2.0, "repeat_last_n": 131_072},
}


def sampling_sent(dialect, **sampling):
    with FaultServer() as server:
        ask_once(server, dialect=dialect, asked=request(endpoint=server.base_url, **sampling))
        (sent,) = server.book.bodies
    return {name: value for name, value in sent.items() if name not in {"model", "messages", "response_format"}}


@pytest.mark.parametrize("dialect", PLAIN)
def test_a_servers_own_cuts_are_switched_off_where_its_dialect_can_say_so(dialect):
    assert sampling_sent(dialect) == {"temperature": 0.5, "max_tokens": 50, **PLAIN[dialect]}
    assert sampling_sent(dialect, top_p=0.9) == {"temperature": 0.5, "max_tokens": 50, **PLAIN[dialect], "top_p": 0.9}


@pytest.mark.parametrize("dialect", PENALTY)
def test_a_repetition_penalty_is_said_in_the_dialect_of_the_server_and_reaches_over_all_that_was_said(dialect):
    sent = sampling_sent(dialect, repetition_penalty=2.0)
    assert sent == {"temperature": 0.5, "max_tokens": 50, **PLAIN[dialect], **PENALTY[dialect]}


@pytest.mark.parametrize(("dialect", "way_out"), [("openai", "teacher.dialect"), ("ollama", "Modelfile")])
def test_a_repetition_penalty_that_the_server_does_not_know_is_refused_before_anything_is_sent(dialect, way_out):
    with FaultServer() as server:
        with pytest.raises(RecipeError, match=f"dialect {dialect} .*repetition_penalty.*{way_out}"):
            ask_once(server, dialect=dialect, asked=request(endpoint=server.base_url, repetition_penalty=2.0))
        assert server.book.bodies == []


@pytest.mark.parametrize(
    "base_url",
    ["https://api.openai.com/v1", "http://10.0.0.7:8000/v1", "http://localhost.example/v1", "http://0.0.0.0:8000/v1"],
)
def test_another_machine_must_be_allowed_by_name(base_url):
    host = base_url.split("/")[2].split(":")[0]
    with pytest.raises(RecipeError, match=rf"nothing may be sent to {host}: .*allow_hosts \(b\.example\); add {host}"):
        ChatEndpoint(settings(base_url), allow_hosts=("b.example",))
    assert ChatEndpoint(settings(base_url), allow_hosts=(host.upper(),)).endpoint == base_url


@pytest.mark.parametrize("base_url", ["http://localhost:1/v1/", "http://127.8.9.1/v1", "http://[::1]:8080/v1"])
def test_this_machine_needs_no_mention(base_url):
    assert ChatEndpoint(settings(base_url)).endpoint == base_url.rstrip("/")


@pytest.mark.parametrize(
    "base_url", ["ftp://localhost/v1", "localhost:8000", "http:///v1", "http://localhost:80800/v1", "http://[::1/v1"]
)
def test_a_base_url_that_is_no_address_is_refused(base_url):
    with pytest.raises(RecipeError, match="is not an address such as"):
        ChatEndpoint(settings(base_url))


@pytest.mark.parametrize("base_url", [f"http://me:{KEY}@localhost/v1", f"http://localhost/v1?key={KEY}"])
def test_a_base_url_with_a_password_is_refused_without_repeating_it(base_url):
    with pytest.raises(RecipeError, match=r"teacher\.base_url must not hold") as raised:
        ChatEndpoint(settings(base_url))
    assert KEY not in str(raised.value)


def test_redirects_are_not_followed_and_proxies_of_the_environment_not_used(monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with FaultServer(scripted(Fault.REDIRECT)) as server:
        redirected = ask_once(server)
        answered = ask_once(server)
    assert redirected.kind == FailureKind.BAD_REQUEST
    assert "redirects (HTTP 307)" in str(redirected)
    assert isinstance(answered, Reply)


# ------------------------------------------------------------------------------------------------ what comes back


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault.RATE, FailureKind.RATE),
        (Fault.RATE_TOLD, FailureKind.RATE),
        (Fault.RATE_DATED, FailureKind.RATE),
        (Fault.QUOTA, FailureKind.QUOTA),
        (Fault.BROKEN, FailureKind.TRANSIENT),
        (Fault.GATEWAY, FailureKind.TRANSIENT),
        (Fault.HALF, FailureKind.TRANSIENT),
        (Fault.CLOSED, FailureKind.TRANSIENT),
        (Fault.SLOW, FailureKind.TIMEOUT),
        (Fault.WRONG_JSON, FailureKind.UNREADABLE),
        (Fault.HTML, FailureKind.UNREADABLE),
        (Fault.NO_CHOICES, FailureKind.UNREADABLE),
        (Fault.NULL_CONTENT, FailureKind.UNREADABLE),
        (Fault.FILTERED, FailureKind.CONTENT_FILTER),
        (Fault.FILTERED_400, FailureKind.CONTENT_FILTER),
        (Fault.REFUSED, FailureKind.CONTENT_FILTER),
        (Fault.TOO_LONG, FailureKind.BAD_REQUEST),
        (Fault.NO_SUCH_MODEL, FailureKind.BAD_REQUEST),
        (Fault.AUTH, FailureKind.AUTH),
    ],
)
def test_each_way_to_break_has_its_kind_and_is_sent_once(fault, kind):
    with FaultServer(always(fault), retry_after_seconds=7) as server:
        failure = ask_once(server, timeout_seconds=0.3 if fault is Fault.SLOW else 20)
        assert len(server.book.bodies) == 1
    assert isinstance(failure, TeacherFailure)
    assert failure.kind == kind
    assert server.base_url in str(failure) and "\n" not in str(failure)
    if fault is Fault.RATE_TOLD:
        assert failure.retry_after_seconds == 7
    elif fault is Fault.RATE_DATED:
        assert 5 <= failure.retry_after_seconds <= 7
    else:
        assert failure.retry_after_seconds is None


def test_a_reply_that_was_cut_off_is_a_reply_and_says_so():
    with FaultServer(always(Fault.CUT_OFF)) as server:
        reply = ask_once(server)
    assert (reply.text, reply.finish) == ('{"cut": "of', Finish.LENGTH)


def test_a_reply_in_pieces_is_read_whole():
    with FaultServer(always(Fault.CHUNKED)) as server:
        reply = ask_once(server)
        assert reply.text == heard(next(iter(server.book.received)))


def test_token_counts_that_the_server_does_not_tell_are_unknown_and_so_is_the_cost():
    with FaultServer(always(Fault.NO_USAGE)) as server:
        reply = ask_once(server, usd_per_million_tokens=(1.0, 1.0))
    assert (reply.tokens_in, reply.tokens_out, reply.cost_usd) == (None, None, None)


def test_a_server_that_is_not_there_is_a_failure_that_may_pass():
    with FaultServer() as server:
        pass
    assert ask_once(server).kind == FailureKind.TRANSIENT


def test_a_wait_of_hours_is_an_empty_account_not_a_burst():
    now = datetime(2026, 11, 22, tzinfo=UTC)

    def kind(seconds):
        refusal = Refusal(status=429, headers={"retry-after": str(seconds)}, body=None)
        return failure_of(refusal, who="w", key_env="K", now=now).kind

    assert (kind(LONGEST_RETRY_AFTER_SECONDS), kind(3600)) == (FailureKind.RATE, FailureKind.QUOTA)


@pytest.mark.parametrize(
    ("told", "seconds"),
    [
        ("2.5", 2.5),
        ("-3", 0.0),
        ("nan", None),
        ("soon", None),
        (format_datetime(datetime(2026, 11, 22, 0, 1, tzinfo=UTC), usegmt=True), 60.0),
        (format_datetime(datetime(2026, 11, 21, tzinfo=UTC), usegmt=True), 0.0),
    ],
)
def test_retry_after_is_read_as_seconds_or_as_a_date(told, seconds):
    assert retry_after_seconds({"retry-after": told}, datetime(2026, 11, 22, tzinfo=UTC)) == seconds


# ------------------------------------------------------------------------------------------------------- the key


def everything_about(error):
    """Return all text that an error, its causes and the frames it went through hold."""
    texts = ["".join(traceback.format_exception(error)), repr(error), repr(vars(error))]
    while error is not None:
        for frame, _ in traceback.walk_tb(error.__traceback__):
            if "drllama" in frame.f_code.co_filename:
                texts.append(repr(frame.f_locals))
        error = error.__cause__ or error.__context__
    return "\n".join(texts)


@pytest.mark.parametrize("fault", list(Fault))
def test_the_key_is_sent_and_stands_nowhere_else(fault, monkeypatch, caplog):
    monkeypatch.setenv("TEACHER_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    shelf, told = Shelf(), []

    async def main(base_url):
        async with ChatEndpoint(settings(base_url, timeout_seconds=0.3 if fault is Fault.SLOW else 20)) as teacher:
            try:
                await Kept(teacher, shelf).ask(request(endpoint=base_url))
            except TeacherFailure as failure:
                told.append(everything_about(failure))
                assert failure.__cause__ is None and failure.__context__ is None
            client = teacher._client
            told.extend(map(repr, [teacher, vars(teacher), client, vars(client), client._session.headers]))

    with FaultServer(always(fault)) as server:
        asyncio.run(main(server.base_url))
        assert server.book.headers[0]["authorization"] == f"Bearer {KEY}"
        assert KEY not in json.dumps(server.book.bodies)
    kept = [str(vars(one) if isinstance(one, TeacherFailure) else one) for one in shelf.attempts[request().key]]
    assert KEY not in "\n".join([*told, *kept, *map(str, shelf.attempts.values()), caplog.text])


def test_the_key_is_read_for_each_request_and_a_local_server_needs_none(monkeypatch):
    async def main(base_url):
        async with ChatEndpoint(settings(base_url)) as teacher:
            for key in (None, "first", "second\n"):
                monkeypatch.setenv("TEACHER_KEY", key) if key else monkeypatch.delenv("TEACHER_KEY", raising=False)
                await teacher.ask(request(endpoint=base_url))

    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_ORG_ID", "our-organisation")
    with FaultServer() as server:
        asyncio.run(main(server.base_url))
        headers = server.book.headers
    assert [one.get("authorization") for one in headers] == [None, "Bearer first", "Bearer second"]
    assert not any("openai-organization" in one for one in headers)


def test_openais_key_goes_to_openai_alone_unless_it_is_named(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with FaultServer() as server:
        assert isinstance(ask_once(server, api_key_env=None), Reply)
        assert "authorization" not in server.book.headers[0]
        ask_once(server, api_key_env="OPENAI_API_KEY")
        assert server.book.headers[1]["authorization"] == f"Bearer {KEY}"
    with pytest.raises(RecipeError, match=r"no key is named for a\.example: set teacher\.api_key_env"):
        ChatEndpoint(settings("https://a.example/v1", api_key_env=None), allow_hosts=["a.example"])
    ours = ChatEndpoint(settings("https://api.openai.com/v1", api_key_env=None), allow_hosts=["api.openai.com"])
    assert ours._client.key_variable == "OPENAI_API_KEY"


def test_a_server_of_this_machine_that_wants_a_key_after_all_is_told_how_to_get_one():
    with FaultServer(always(Fault.AUTH)) as server:
        failure = ask_once(server, api_key_env=None)
    assert failure.kind == FailureKind.AUTH
    assert "wants a key (HTTP 401); name the environment variable that holds it in teacher.api_key_env" in str(failure)


@pytest.mark.parametrize(("key", "cut_out"), [(KEY, "***"), ("none", "none")])
def test_a_key_is_cut_out_of_replies_however_json_spells_it_but_a_mere_word_is_not(key, cut_out, monkeypatch):
    monkeypatch.setenv("TEACHER_KEY", key)
    with FaultServer(always(Fault.ECHOED)) as server:
        assert ask_once(server).text == f"You sent Bearer {cut_out}."


@pytest.mark.parametrize(("key", "says"), [(None, "isn't set"), ("ключ", "characters that no key has")])
def test_a_key_that_is_missing_or_broken_stops_before_anything_is_sent(key, says, monkeypatch):
    monkeypatch.setenv("TEACHER_KEY", key) if key else monkeypatch.delenv("TEACHER_KEY", raising=False)

    async def main():
        async with ChatEndpoint(settings("https://a.example/v1"), allow_hosts=["a.example"]) as teacher:
            await teacher.ask(request(endpoint=teacher.endpoint))

    with pytest.raises(TeacherFailure, match=f"TEACHER_KEY.*{says}") as raised:
        asyncio.run(main())
    assert raised.value.kind == FailureKind.AUTH
    assert key is None or key not in str(raised.value)


# --------------------------------------------------------------------------------------------- stored and replayed


class Slow:
    endpoint = "http://127.0.0.1:1/v1"

    def __init__(self, *outcomes):
        self.outcomes = list(outcomes)
        self.asked = []

    async def ask(self, asked):
        self.asked.append(asked)
        await asyncio.sleep(0.01)
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


ANSWER = Reply(text="{}", finish=Finish.STOP, tokens_in=1, tokens_out=1, seconds=0.1, cost_usd=None)


def test_equal_requests_at_the_same_time_are_sent_once():
    async def main():
        shelf, slow = Shelf(), Slow(ANSWER)
        teacher = Stored(Kept(slow, shelf), shelf)
        replies = await asyncio.gather(*(teacher.ask(request()) for _ in range(20)))
        again = await teacher.ask(request())
        return replies, again, len(slow.asked), shelf

    replies, again, sent, shelf = asyncio.run(main())
    assert replies == [ANSWER] * 20 and again == ANSWER
    assert sent == 1
    assert shelf.attempts == {request().key: [ANSWER]}


def test_equal_requests_share_a_failure_but_a_later_one_tries_anew():
    async def main():
        shelf = Shelf()
        slow = Slow(TeacherFailure("no", kind=FailureKind.BAD_REQUEST), ANSWER)
        teacher = Stored(Kept(slow, shelf), shelf)
        together = await asyncio.gather(*(teacher.ask(request()) for _ in range(5)), return_exceptions=True)
        return together, await teacher.ask(request()), len(slow.asked), shelf

    together, later, sent, shelf = asyncio.run(main())
    assert [one.kind for one in together] == [FailureKind.BAD_REQUEST] * 5
    assert later == ANSWER and sent == 2
    assert [type(one) for one in shelf.attempts[request().key]] == [TeacherFailure, Reply]


def test_when_the_one_who_asked_is_cancelled_the_others_still_get_their_reply():
    async def main():
        slow = Slow(ANSWER, ANSWER)
        teacher = Stored(slow, Shelf())
        first, *others = [asyncio.ensure_future(teacher.ask(request())) for _ in range(3)]
        await asyncio.sleep(0.001)
        first.cancel()
        return await asyncio.gather(first, *others, return_exceptions=True), len(slow.asked)

    (first, *others), sent = asyncio.run(main())
    assert isinstance(first, asyncio.CancelledError)
    assert others == [ANSWER] * 2 and sent == 2


def test_replay_answers_what_was_recorded_and_names_what_was_not():
    shelf = Shelf()
    shelf.keep_many([(request(1), TeacherFailure("no", kind=FailureKind.TIMEOUT)), (request(2), ANSWER)])
    replay = Replay(shelf, endpoint="http://127.0.0.1:1/v1")
    assert asyncio.run(replay.ask(request(2))) == ANSWER
    with pytest.raises(TeacherFailure) as raised:
        asyncio.run(replay.ask(request(1)))
    line = str(raised.value)
    assert "rewrite.v1, rollout 0" in line and request(1).key[:12] in line and "drllama replies import" in line
    assert raised.value.kind == FailureKind.BAD_REQUEST


# ---------------------------------------------------------------------------------------------- everything at once

SHARES = {
    Fault.RATE: 0.04,
    Fault.RATE_TOLD: 0.03,
    Fault.RATE_DATED: 0.01,
    Fault.BROKEN: 0.03,
    Fault.GATEWAY: 0.01,
    Fault.HALF: 0.02,
    Fault.CLOSED: 0.02,
    Fault.WRONG_JSON: 0.01,
    Fault.HTML: 0.01,
    Fault.NO_CHOICES: 0.01,
    Fault.NULL_CONTENT: 0.01,
    Fault.SLOW: 0.003,
    Fault.CUT_OFF: 0.01,
    Fault.FILTERED: 0.01,
    Fault.FILTERED_400: 0.005,
    Fault.REFUSED: 0.005,
    Fault.TOO_LONG: 0.01,
}
FINAL = {
    Fault.FILTERED: FailureKind.CONTENT_FILTER,
    Fault.FILTERED_400: FailureKind.CONTENT_FILTER,
    Fault.REFUSED: FailureKind.CONTENT_FILTER,
    Fault.TOO_LONG: FailureKind.BAD_REQUEST,
}


def ask_many(server, shelf, ledger, count, *, timeout_seconds=60):
    async def main():
        outcomes = {}
        async with http_teacher(
            settings(server.base_url, timeout_seconds=timeout_seconds, max_in_flight=64),
            replies=shelf,
            ledger=ledger,
            seed=1,
            usd_per_million_tokens=(1.0, 2.0),
            clock=fast_clock,
            sleep=fast_sleep,
        ) as teacher:
            requests = (request(n, endpoint=teacher.endpoint) for n in range(count))
            async for asked, outcome in ask_all(teacher, requests, in_flight=64):
                assert asked.key not in outcomes
                outcomes[asked.key] = asked, outcome
        return outcomes

    return asyncio.run(main())


@pytest.mark.slow
def test_a_thousand_requests_through_a_breaking_server_lose_nothing_and_buy_nothing_twice():
    count = 1000
    shelf, ledger = Shelf(), Ledger(max_calls=2 * count)
    with FaultServer(drawn(4, SHARES), latency_seconds=0.005, slow_seconds=3.5) as server:
        outcomes = ask_many(server, shelf, ledger, count, timeout_seconds=3)
        book = deepcopy(server.book)
        kept = {key: list(attempts) for key, attempts in shelf.attempts.items()}
        again = ask_many(server, shelf, ledger, count, timeout_seconds=3)
        sent_again = {sha256 for sha256, times in server.book.received.items() if times > book.received[sha256]}
    key_of = {asked.messages[-1].content: key for key, (asked, _) in outcomes.items()}
    failed = {key for key, (_, outcome) in outcomes.items() if isinstance(outcome, TeacherFailure)}
    assert len(outcomes) == len(book.received) == count and 0 < len(failed) < 0.06 * count
    assert book.received.total() == sum(map(len, kept.values())) > 1.1 * count

    for sha256, faults in book.history.items():
        key = key_of[book.body_of[sha256]["messages"][-1]["content"]]
        *before, last = kept[key]
        assert len(kept[key]) == len(faults), "each attempt that the server saw is kept, and no other"
        assert all(isinstance(one, TeacherFailure) for one in before), "nothing is sent after a reply"
        if key in failed:
            assert last.kind == outcomes[key][1].kind == FINAL[faults[-1]]
        else:
            assert last == outcomes[key][1]
            assert last.text == ('{"cut": "of' if faults[-1] is Fault.CUT_OFF else heard(sha256)), (
                "replies got mixed up"
            )
        # A reply was paid for twice only where the first one was lost on its way, or came too late.
        late = sum(one.kind == FailureKind.TIMEOUT for one in before)
        assert book.answered[sha256] <= 1 + late

    assert ledger.calls <= 2 * count
    assert {key_of[book.body_of[sha256]["messages"][-1]["content"]] for sha256 in sent_again} == failed
    assert len(again) == count


def test_a_limit_in_the_middle_keeps_what_was_done_and_the_same_command_goes_on():
    shelf = Shelf()
    with FaultServer(scripted(Fault.RATE), latency_seconds=0.005) as server:
        with pytest.raises(BudgetSpent, match=r"max_calls 70 would be passed .*: 70 calls sent"):
            ask_many(server, shelf, Ledger(max_calls=70), 100)
        assert server.book.received.total() == 70
        outcomes = ask_many(server, shelf, Ledger(), 100)
        assert server.book.received.total() == 200, "each request needed two attempts, and got no third"
    assert all(isinstance(outcome, Reply) for _, outcome in outcomes.values())


@pytest.mark.parametrize(("fault", "kind"), [(Fault.AUTH, FailureKind.AUTH), (Fault.QUOTA, FailureKind.QUOTA)])
def test_a_refused_key_or_an_empty_account_ends_the_work_with_one_line(fault, kind):
    def plan(seen):
        return fault if seen.number > 40 else Fault.NONE

    with FaultServer(plan, latency_seconds=0.01) as server:
        with pytest.raises(TeacherFailure) as raised:
            ask_many(server, shelf := Shelf(), Ledger(), 1000)
        assert server.book.received.total() < 40 + 2 * 64
        # What was stopped in the queue is no attempt.
        assert server.book.received.total() == sum(map(len, shelf.attempts.values()))
    assert raised.value.kind == kind and "\n" not in str(raised.value)
    assert sum(isinstance(one, Reply) for kept in shelf.attempts.values() for one in kept) == 40


def test_a_server_with_few_places_is_not_stormed():
    def plan(seen):
        return Fault.RATE_TOLD if seen.in_flight > 8 else Fault.NONE

    with FaultServer(plan, latency_seconds=0.01) as server:
        outcomes = ask_many(server, Shelf(), Ledger(), 150)
        assert server.book.received.total() < 2 * 150
    assert all(isinstance(outcome, Reply) for _, outcome in outcomes.values())
