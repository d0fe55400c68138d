import asyncio
import itertools
import math
from collections import deque
from dataclasses import replace
from random import Random

import pytest

from drllama.errors import BudgetSpent, RecipeError, TeacherFailure
from drllama.teachers import Budgeted, Latched, Ledger, Limited, Retried, ask_all
from drllama.teachers.budget import UNBILLED, most_tokens_in
from drllama.teachers.limits import SUCCESSES_TO_INCREASE, Window, estimated_tokens
from drllama.teachers.retry import policy_for
from drllama.types import FailureKind, Finish, Message, Reply, ReplyForm, Sampling, TeacherRequest
from faults.clock import run_on_virtual_time

ANSWER = Reply(text="{}", finish=Finish.STOP, tokens_in=10, tokens_out=5, seconds=0.0, cost_usd=None)


def request(number=0, *, content="Is it so?", max_tokens=20):
    return TeacherRequest(
        endpoint="http://127.0.0.1/v1",
        model="m",
        prompt="rewrite.v1",
        prompt_sha256="0" * 64,
        messages=(Message(role="user", content=f"{content} {number}"),),
        sampling=Sampling(temperature=0.5, max_tokens=max_tokens),
        form=ReplyForm.SCHEMA,
        schema={"type": "object"},
        rollout=0,
    )


def failure(kind, retry_after_seconds=None):
    return TeacherFailure(f"a {kind} failure", kind=kind, retry_after_seconds=retry_after_seconds)


class Scripted:
    """Answers each request after ``seconds`` with the next outcome of the script, then always with the last one."""

    endpoint = "http://127.0.0.1/v1"

    def __init__(self, *outcomes, seconds=1.0, clock=None, judge=None):
        self.outcomes = deque(outcomes or [ANSWER])
        self.seconds = seconds
        self.clock = clock
        self.judge = judge
        self.sent_at = []
        self.in_flight = self.most_in_flight = 0

    async def ask(self, asked):
        self.sent_at.append(self.clock() if self.clock else 0.0)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        refused = self.judge and self.judge(self)
        try:
            await asyncio.sleep(self.seconds if not refused else 0.01)
        finally:
            self.in_flight -= 1
        outcome = refused or (self.outcomes.popleft() if len(self.outcomes) > 1 else self.outcomes[0])
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome


async def gather_all(teacher, count, **more):
    return await asyncio.gather(*(teacher.ask(request(n, **more)) for n in range(count)), return_exceptions=True)


def busiest_minute(times):
    return max(sum(start <= other < start + 60 for other in times) for start in times)


def test_no_more_are_in_flight_than_allowed_and_all_are_answered():
    async def main(clock):
        server = Scripted(clock=clock)
        limited = Limited(server, max_in_flight=7, clock=clock)
        replies = await gather_all(limited, 50)
        return server.most_in_flight, replies, clock(), limited.in_flight

    most, replies, seconds, left = run_on_virtual_time(main)
    assert (most, left) == (7, 0)
    assert replies == [ANSWER] * 50
    assert seconds == pytest.approx(math.ceil(50 / 7))


@pytest.mark.parametrize("requests_per_minute", [1, 10, 33])
def test_no_minute_holds_more_requests_than_the_rate_allows(requests_per_minute):
    async def main(clock):
        server = Scripted(clock=clock, seconds=3.0)
        await gather_all(Limited(server, max_in_flight=50, requests_per_minute=requests_per_minute, clock=clock), 100)
        return server.sent_at

    sent_at = run_on_virtual_time(main)
    assert busiest_minute(sent_at) == requests_per_minute
    assert sent_at[-1] == pytest.approx(60 * ((100 - 1) // requests_per_minute))


def test_tokens_a_minute_are_reserved_as_a_guess_and_refunded_when_the_truth_is_known():
    guess = estimated_tokens(request(content="x" * 400, max_tokens=1000))
    small = replace(ANSWER, tokens_in=100, tokens_out=50)

    def seconds_for(outcome):
        async def main(clock):
            server = Scripted(outcome, clock=clock)
            limited = Limited(server, max_in_flight=100, tokens_per_minute=2 * guess, clock=clock)
            await gather_all(limited, 8, content="x" * 400, max_tokens=1000)
            return clock()

        return run_on_virtual_time(main)

    assert seconds_for(replace(ANSWER, tokens_in=None, tokens_out=None)) == pytest.approx(3 * 60 + 1)
    # Two guesses fill a minute; eight replies are shorter than one guess.
    assert seconds_for(small) < 60


def test_a_window_never_holds_more_than_its_limit_whatever_is_booked_and_corrected():
    random = Random(5)
    window, now, booked = Window(1000), 0.0, []
    for _ in range(500):
        amount = random.randint(1, 400)
        now += window.wait_seconds(amount, now)
        assert window.wait_seconds(amount, now) == 0
        booking = window.book(amount, now)
        booked.append(booking)
        if random.random() < 0.5:
            window.correct(booking, random.randint(0, amount))
        assert sum(one.amount for one in booked if one.at + 60 > now) <= 1000
        now += random.random() * 5


def test_a_request_above_the_limit_goes_alone_instead_of_waiting_for_ever():
    window = Window(100)
    assert window.wait_seconds(500, 0.0) == 0
    window.book(500, 0.0)
    assert window.wait_seconds(1, 30.0) == 30
    assert window.wait_seconds(500, 60.0) == 0


def test_one_burst_of_refusals_lowers_the_number_in_flight_once():
    async def main(clock):
        server = Scripted(failure(FailureKind.RATE), clock=clock)
        limited = Limited(server, max_in_flight=100, clock=clock)
        await gather_all(limited, 100)
        first = limited.allowed_in_flight
        await gather_all(limited, first)
        return first, limited.allowed_in_flight

    assert run_on_virtual_time(main) == (60, 36)


def test_the_number_in_flight_rises_with_success_and_never_above_the_setting():
    async def main(clock):
        server = Scripted(failure(FailureKind.TIMEOUT), ANSWER, clock=clock)
        limited = Limited(server, max_in_flight=10, clock=clock)
        await gather_all(limited, 1)
        seen = [limited.allowed_in_flight]
        for _ in range(5):
            await gather_all(limited, SUCCESSES_TO_INCREASE)
            seen.append(limited.allowed_in_flight)
        return seen

    assert run_on_virtual_time(main) == [6, 7, 8, 9, 10, 10]


def test_a_server_with_fewer_places_is_found_out_and_kept_busy():
    places = 12

    def refuse(server):
        return failure(FailureKind.RATE) if server.in_flight > places else None

    async def main(clock):
        server = Scripted(clock=clock, judge=refuse)
        teacher = Retried(Limited(server, max_in_flight=64, clock=clock), seed=1)
        replies = await gather_all(teacher, 600)
        return replies, len(server.sent_at), clock()

    replies, sent, seconds = run_on_virtual_time(main)
    assert replies == [ANSWER] * 600
    assert sent < 1.5 * 600, "refused requests came back in storms"
    assert seconds < 2.5 * 600 / places


def test_retry_after_stops_everybody_until_then():
    async def main(clock):
        server = Scripted(failure(FailureKind.RATE, 30.0), ANSWER, clock=clock)
        limited = Limited(server, max_in_flight=1, clock=clock)
        outcomes = await gather_all(limited, 3)
        return [type(one) for one in outcomes], server.sent_at

    kinds, sent_at = run_on_virtual_time(main)
    assert kinds == [TeacherFailure, Reply, Reply]
    assert sent_at == pytest.approx([0.0, 31.0, 32.0])


def test_places_are_given_in_the_order_of_asking():
    async def main(clock):
        order = []

        class Noting(Scripted):
            async def ask(self, asked):
                order.append(asked.messages[0].content)
                return await super().ask(asked)

        await gather_all(Limited(Noting(clock=clock), max_in_flight=3, requests_per_minute=20, clock=clock), 50)
        return order

    assert run_on_virtual_time(main) == [f"Is it so? {n}" for n in range(50)]


@pytest.mark.parametrize("requests_per_minute", [None, 5])
def test_cancelled_requests_leave_their_places_to_others(requests_per_minute):
    async def main(clock):
        server = Scripted(clock=clock)
        limited = Limited(server, max_in_flight=2, requests_per_minute=requests_per_minute, clock=clock)
        asked = [asyncio.ensure_future(limited.ask(request(n))) for n in range(40)]
        random = Random(3)
        for task in random.sample(asked, 30):
            await asyncio.sleep(random.random() / 10)
            task.cancel()
        done = await asyncio.gather(*asked, return_exceptions=True)
        after = await gather_all(limited, 4)
        return done, after, limited.in_flight, limited.allowed_in_flight

    done, after, in_flight, allowed = run_on_virtual_time(main)
    answered = [one for one in done if not isinstance(one, asyncio.CancelledError)]
    assert 10 <= len(answered) < 20 and set(answered) == {ANSWER}
    assert after == [ANSWER] * 4
    assert (in_flight, allowed) == (0, 2)


# ---------------------------------------------------------------------------------------------------------- retries


@pytest.mark.parametrize("kind", list(FailureKind))
def test_each_kind_of_failure_is_tried_as_often_as_its_policy_says(kind):
    async def main(clock):
        server = Scripted(failure(kind), clock=clock)
        with pytest.raises(TeacherFailure) as raised:
            await Retried(server, seed=1).ask(request())
        return len(server.sent_at), raised.value, clock()

    sent, last, seconds = run_on_virtual_time(main)
    policy = policy_for(kind)
    assert sent == policy.attempts
    assert last.kind == kind
    assert (f"given up after {sent} attempts" in str(last)) == (sent > 1)
    assert seconds <= sent + policy.attempts * policy.longest_wait_seconds


def test_waits_are_spread_differ_between_requests_and_repeat_with_the_seed():
    def first_wait(number, seed):
        async def main(clock):
            server = Scripted(failure(FailureKind.TRANSIENT), ANSWER, clock=clock, seconds=0.0)
            await Retried(server, seed=seed).ask(request(number))
            return server.sent_at[1]

        return run_on_virtual_time(main)

    waits = [first_wait(n, 7) for n in range(60)]
    assert waits == [first_wait(n, 7) for n in range(60)]
    assert waits[:5] != [first_wait(n, 8) for n in range(5)]
    assert 0 <= min(waits) < 0.1 and 0.4 < max(waits) <= 0.5


def test_a_retry_waits_at_least_as_long_as_the_server_says():
    async def main(clock):
        server = Scripted(failure(FailureKind.RATE, 17.0), ANSWER, clock=clock, seconds=0.0)
        await Retried(server, seed=1).ask(request())
        return server.sent_at[1]

    assert 17.0 <= run_on_virtual_time(main) <= 18.0


@pytest.mark.parametrize("kind", [FailureKind.AUTH, FailureKind.QUOTA])
def test_after_a_refused_key_or_an_empty_account_nothing_more_is_sent(kind):
    async def main(clock):
        server = Scripted(failure(kind), clock=clock)
        teacher = Retried(Limited(Latched(server), max_in_flight=3, clock=clock), seed=1)
        yielded = []
        with pytest.raises(TeacherFailure, match=f"a {kind} failure"):
            async for one in ask_all(teacher, (request(n) for n in range(1000)), in_flight=50):
                yielded.append(one)
        return len(server.sent_at), yielded

    assert run_on_virtual_time(main) == (3, [])


# ----------------------------------------------------------------------------------------------------------- budget

PRICES = (2.5, 10.0)


def true_cost(reply):
    return (reply.tokens_in * PRICES[0] + reply.tokens_out * PRICES[1]) / 1e6


class Costly:
    """Answers with random lengths within what the request allows, or fails; adds up what it would charge."""

    endpoint = "http://127.0.0.1/v1"

    def __init__(self, seed):
        self.random = Random(seed)
        self.charged_usd = 0.0
        self.calls = 0

    async def ask(self, asked):
        self.calls += 1
        fate = self.random.random()
        await asyncio.sleep(self.random.random() * 10)
        tokens_in = self.random.randint(1, len(asked.messages[0].content.encode()))
        reply = replace(ANSWER, tokens_in=tokens_in, tokens_out=self.random.randint(0, asked.sampling.max_tokens))
        if fate < 0.1:
            raise failure(FailureKind.RATE)
        self.charged_usd += true_cost(reply)
        if fate < 0.2:
            raise failure(self.random.choice([FailureKind.TIMEOUT, FailureKind.TRANSIENT, FailureKind.UNREADABLE]))
        return reply


@pytest.mark.parametrize("max_usd", [0.0005, 0.01, 0.03])
def test_money_is_never_exceeded_with_256_in_flight_and_most_of_it_is_used(max_usd):
    async def main(clock):
        server = Costly(seed=1)
        ledger = Ledger(max_usd=max_usd, clock=clock)
        teacher = Retried(
            Limited(Latched(Budgeted(server, ledger, usd_per_million_tokens=PRICES)), max_in_flight=256, clock=clock),
            seed=1,
        )
        answered = []
        requests = (request(n, content="y" * 200, max_tokens=100) for n in itertools.count())
        with pytest.raises(BudgetSpent) as spent:
            async for asked, outcome in ask_all(teacher, requests, in_flight=256):
                answered.append((asked, outcome))
                assert ledger.spent_usd + ledger.reserved_usd <= max_usd
        return server, ledger, answered, str(spent.value)

    server, ledger, answered, line = run_on_virtual_time(main)
    assert server.charged_usd <= ledger.spent_usd <= max_usd
    assert ledger.reserved_usd == 0
    assert ledger.calls == server.calls
    one_more = (most_tokens_in(request(content="y" * 200)) + 10) * 2.5e-6 + 100 * 10e-6
    assert ledger.spent_usd > max_usd - one_more
    assert sum(isinstance(outcome, Reply) for _, outcome in answered) <= server.calls
    assert f"max_usd {max_usd:g}" in line and "higher --max-usd" in line and f"{server.calls} calls sent" in line
    assert "\n" not in line


def test_calls_are_never_exceeded_and_each_attempt_counts():
    async def main(clock):
        server = Costly(seed=2)
        ledger = Ledger(max_calls=137, clock=clock)
        teacher = Retried(Limited(Budgeted(server, ledger), max_in_flight=64, clock=clock), seed=1)
        with pytest.raises(BudgetSpent, match=r"max_calls 137 .*higher --max-calls"):
            async for _ in ask_all(teacher, (request(n) for n in itertools.count()), in_flight=64):
                pass
        return server.calls, ledger.calls

    assert run_on_virtual_time(main) == (137, 137)


def test_nothing_is_sent_after_the_minutes_are_over():
    async def main(clock):
        server = Scripted(clock=clock, seconds=7.0)
        teacher = Limited(Budgeted(server, Ledger(max_minutes=2, clock=clock)), max_in_flight=4, clock=clock)
        answered = 0
        with pytest.raises(BudgetSpent, match="max_minutes 2 "):
            async for _ in ask_all(teacher, (request(n) for n in itertools.count()), in_flight=4):
                answered += 1
        return server.sent_at, answered

    sent_at, answered = run_on_virtual_time(main)
    assert max(sent_at) < 120
    assert answered == len(sent_at), "replies on their way when time was over are kept"


def test_an_unknown_price_is_refused_at_the_start_when_money_is_limited():
    with pytest.raises(RecipeError, match=r"teacher\.usd_per_million_tokens or drop --max-usd"):
        Budgeted(Scripted(), Ledger(max_usd=1.0))
    Budgeted(Scripted(), Ledger(max_calls=1))


@pytest.mark.parametrize("kind", list(FailureKind))
def test_a_failed_attempt_stays_charged_unless_the_server_turned_it_away(kind):
    async def main(clock):
        ledger = Ledger(max_usd=1.0, clock=clock)
        with pytest.raises(TeacherFailure):
            await Budgeted(Scripted(failure(kind)), ledger, usd_per_million_tokens=PRICES).ask(request())
        return ledger

    ledger = run_on_virtual_time(main)
    worst = (most_tokens_in(request()) * 2.5 + 20 * 10) / 1e6
    assert ledger.spent_usd == pytest.approx(0 if kind in UNBILLED else worst)
    assert ledger.uncertain_usd == ledger.spent_usd
    assert (ledger.reserved_usd, ledger.calls) == (0, 1)


def test_a_cancelled_attempt_stays_charged_and_one_that_was_never_sent_does_not():
    async def main(clock):
        ledger = Ledger(max_usd=1.0, clock=clock)
        asked = asyncio.ensure_future(Budgeted(Scripted(), ledger, usd_per_million_tokens=PRICES).ask(request()))
        await asyncio.sleep(0.5)
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        after_cancel = ledger.calls, ledger.spent_usd
        with pytest.raises(RecipeError):
            await Budgeted(Scripted(RecipeError("no")), ledger, usd_per_million_tokens=PRICES).ask(request())
        return after_cancel, (ledger.calls, ledger.spent_usd), ledger.reserved_usd

    after_cancel, at_the_end, reserved = run_on_virtual_time(main)
    assert after_cancel[0] == 1 and after_cancel[1] > 0
    assert at_the_end == after_cancel
    assert reserved == 0


@pytest.mark.parametrize("content", ["plain", "効果はありますか", "🦙" * 50, "", "{{ braces }} \" ' \\"])
def test_a_prompt_is_bounded_by_its_bytes(content):
    asked = request(content=content)
    assert most_tokens_in(asked) > len(asked.messages[0].content.encode()) + len('{"type":"object"}')


# ------------------------------------------------------------------------------------------------------------- many


def test_requests_are_taken_only_as_places_become_free():
    taken = 0

    def requests():
        nonlocal taken
        for number in range(500):
            taken += 1
            yield request(number)

    async def main(clock):
        answered = 0
        async for _ in ask_all(Scripted(clock=clock), requests(), in_flight=10):
            answered += 1
            assert taken - answered <= 10
        return answered

    assert run_on_virtual_time(main) == 500


def test_one_poisoned_request_hurts_itself_only():
    class Picky(Scripted):
        async def ask(self, asked):
            if asked.messages[0].content.endswith(" 77"):
                raise failure(FailureKind.BAD_REQUEST)
            return await super().ask(asked)

    async def main(clock):
        return [one async for one in ask_all(Picky(), (request(n) for n in range(200)), in_flight=20)]

    outcomes = run_on_virtual_time(main)
    failed = [(asked, one) for asked, one in outcomes if isinstance(one, TeacherFailure)]
    assert len({asked.key for asked, _ in outcomes}) == 200
    assert [(asked.key, one.kind) for asked, one in failed] == [(request(77).key, FailureKind.BAD_REQUEST)]


def test_leaving_early_cancels_what_is_on_its_way():
    async def main(clock):
        server = Scripted(clock=clock)
        stream = ask_all(server, (request(n) for n in itertools.count()), in_flight=10)
        async for _ in stream:
            break
        await stream.aclose()
        return server.in_flight, len(asyncio.all_tasks())

    assert run_on_virtual_time(main) == (0, 1)


def test_a_bug_in_a_teacher_is_not_swallowed():
    async def main(clock):
        async for _ in ask_all(Scripted(ZeroDivisionError("bug")), [request()], in_flight=3):
            pass

    with pytest.raises(ZeroDivisionError):
        run_on_virtual_time(main)
