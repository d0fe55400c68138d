"""What a teacher answered is on the disk before anybody uses it, whoever was cancelled, and for few commits."""

import asyncio
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from drllama.errors import StoreError, TeacherFailure
from drllama.recipe import Endpoint
from drllama.replies import RequestStore
from drllama.teachers import Kept, Ledger, ask_all, asked_at_once, http_teacher
from drllama.types import FailureKind, Finish, Message, Reply, ReplyForm, Sampling, TeacherRequest
from faults.server import FaultServer

ENDPOINT = "http://127.0.0.1:1/v1"


def request(number):
    return TeacherRequest(
        endpoint=ENDPOINT,
        model="m",
        prompt="rewrite.v1",
        prompt_sha256="0" * 64,
        messages=(Message(role="user", content=f"Is it so? {number}"),),
        sampling=Sampling(temperature=0.5, max_tokens=50),
        form=ReplyForm.PROMPT,
        schema={"type": "object"},
        rollout=0,
    )


def reply(number, tokens_out=1):
    return Reply(
        text=f"reply {number}", finish=Finish.STOP, tokens_in=1, tokens_out=tokens_out, seconds=0.1, cost_usd=None
    )


class Waves:
    """A teacher whose requests are all answered at the same moment, a third of them with a failure."""

    endpoint = ENDPOINT

    def __init__(self):
        self.asked = 0
        self.go = asyncio.Event()

    async def ask(self, asked):
        self.asked += 1
        number = int(asked.messages[0].content.split()[-1])
        await self.go.wait()
        if number % 3 == 2:
            raise TeacherFailure(f"failure {number}", kind=FailureKind.TRANSIENT)
        return reply(number, tokens_out=-1 if number == 1000 else 1)


class Watched:
    """A store whose commits are counted, slow and, if wanted, broken."""

    def __init__(self, store, *, breaks_after=None):
        self._store = store
        self._breaks_after = breaks_after
        self.commits = []
        self.threads = set()
        self.started = threading.Event()
        self.may_end = threading.Event()
        self.may_end.set()

    def find(self, key):
        return self._store.find(key)

    def keep_many(self, attempts):
        attempts = list(attempts)
        self.started.set()
        assert self.may_end.wait(30)
        self.threads.add(threading.get_ident())
        if self._breaks_after is not None and len(self.commits) >= self._breaks_after:
            raise StoreError("the disk is full")
        self._store.keep_many(attempts)
        self.commits.append(len(attempts))


def rows_on_disk(path):
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT request, coalesce(reply, failure) FROM attempts").fetchall()


async def started_at_once(kept, teacher, numbers):
    tasks = [asyncio.create_task(kept.ask(request(number))) for number in numbers]
    while teacher.asked < len(tasks):
        await asyncio.sleep(0)
    return tasks


@pytest.fixture
def store(tmp_path):
    with RequestStore(tmp_path / "replies.sqlite") as store:
        yield store


def test_an_outcome_is_used_only_after_another_connection_can_read_it(store):
    async def main():
        teacher = Waves()
        async with Kept(teacher, store) as kept:

            async def use(number):
                try:
                    text = (await kept.ask(request(number))).text
                except TeacherFailure as failure:
                    text = str(failure)
                assert any(text in outcome for _, outcome in rows_on_disk(store.path)), text

            asking = [asyncio.create_task(use(number)) for number in range(30)]
            for _ in range(3):
                await asyncio.sleep(0)
            teacher.go.set()
            await asyncio.gather(*asking)

    asyncio.run(main())
    assert len(rows_on_disk(store.path)) == 30


def test_what_ends_together_or_during_a_commit_is_kept_by_one_commit_off_the_loop(store):
    watched = Watched(store)

    async def main():
        teacher = Waves()
        async with Kept(teacher, watched) as kept:
            first = await started_at_once(kept, teacher, range(50))
            watched.may_end.clear()
            teacher.go.set()
            await asyncio.to_thread(watched.started.wait, 30)
            # The first commit hangs, and the loop goes on: forty more requests are answered meanwhile.
            second = await started_at_once(kept, teacher, range(100, 140))
            for _ in range(5):
                await asyncio.sleep(0)
            assert not any(task.done() for task in first + second)
            watched.may_end.set()
            await asyncio.gather(*first, *second, return_exceptions=True)

    teacher_asked = asyncio.run(main())
    assert teacher_asked is None
    assert watched.commits == [50, 40]
    assert threading.get_ident() not in watched.threads
    assert len(rows_on_disk(store.path)) == 90


def test_a_store_that_breaks_reaches_everyone_whose_outcome_it_had_and_all_later_ones(store):
    watched = Watched(store, breaks_after=1)

    async def main():
        teacher = Waves()
        teacher.go.set()
        async with Kept(teacher, watched) as kept:
            good = await kept.ask(request(0))
            many = await asyncio.gather(*(kept.ask(request(n)) for n in range(1, 20)), return_exceptions=True)
        return good, many

    good, many = asyncio.run(main())
    assert good == reply(0)
    assert [str(one) for one in many] == ["the disk is full"] * 19
    assert all(isinstance(one, StoreError) for one in many)
    assert len(rows_on_disk(store.path)) == 1


def test_an_outcome_that_cannot_be_written_takes_none_of_the_others_with_it(store):
    async def main():
        teacher = Waves()
        teacher.go.set()
        async with Kept(teacher, store) as kept:
            numbers = [0, 1, 1000, 3, 4]
            return await asyncio.gather(*(kept.ask(request(n)) for n in numbers), return_exceptions=True)

    first, second, poisoned, *others = asyncio.run(main())
    assert [first, second, *others] == [reply(n) for n in (0, 1, 3, 4)]
    assert "tokens_out -1" in str(poisoned)
    assert len(rows_on_disk(store.path)) == 4


def test_who_is_cancelled_while_its_reply_is_written_loses_nothing_that_was_paid_for(store):
    watched = Watched(store)

    async def main():
        teacher = Waves()
        async with Kept(teacher, watched) as kept:
            first = await started_at_once(kept, teacher, range(3))
            watched.may_end.clear()
            teacher.go.set()
            await asyncio.to_thread(watched.started.wait, 30)
            second = await started_at_once(kept, teacher, range(100, 104))
            for _ in range(5):
                await asyncio.sleep(0)
            for task in first + second:
                task.cancel()
            await asyncio.gather(*first, *second, return_exceptions=True)
            watched.may_end.set()

    asyncio.run(main())
    assert watched.commits == [3, 4]


def test_when_the_loop_ends_in_the_middle_what_was_answered_is_still_written(store):
    watched = Watched(store)

    async def main():
        teacher = Waves()
        kept = Kept(teacher, watched)
        await started_at_once(kept, teacher, range(3))
        watched.may_end.clear()
        teacher.go.set()
        await asyncio.to_thread(watched.started.wait, 30)
        await started_at_once(kept, teacher, range(100, 104))
        for _ in range(5):
            await asyncio.sleep(0)
        watched.may_end.set()
        # No farewell: the loop cancels what still runs, as after a second Ctrl-C.

    asyncio.run(main())
    assert sorted(watched.commits) == [3, 4]


def test_while_a_reply_is_written_the_next_request_has_its_place_at_the_server(store):
    watched = Watched(store)
    watched.may_end.clear()

    async def main(server):
        settings = Endpoint(base_url=server.base_url, model="m", max_in_flight=16)
        async with http_teacher(settings, replies=watched, ledger=Ledger(), seed=1) as teacher:
            asked = (replace(request(number), endpoint=teacher.endpoint) for number in range(100))
            outcomes = ask_all(teacher, asked, in_flight=asked_at_once(settings))
            first = asyncio.ensure_future(anext(outcomes))
            await asyncio.to_thread(watched.started.wait, 30)
            while server.book.received.total() < asked_at_once(settings):
                await asyncio.sleep(0.001)
            assert not first.done()
            watched.may_end.set()
            await first
            assert len([outcome async for _, outcome in outcomes]) == 99

    with FaultServer() as server:
        asyncio.run(asyncio.wait_for(main(server), 30))
        assert server.book.most_in_flight <= 16


KILLED = """
import asyncio, sys
sys.path[:0] = sys.argv[2:]
import test_kept
from pathlib import Path

async def main():
    teacher = test_kept.Waves()
    teacher.go.set()
    with test_kept.RequestStore(Path(sys.argv[1])) as store:
        async with test_kept.Kept(teacher, store) as kept:
            async def one(number):
                print((await kept.ask(test_kept.request(number))).text, flush=True)
            for start in range(0, 10_000, 30):
                await asyncio.gather(*(one(number) for number in range(start, start + 30, 3)))

asyncio.run(main())
"""


def test_kill_9_between_answer_and_use_loses_nothing_that_was_used(tmp_path):
    path = tmp_path / "replies.sqlite"
    here = Path(__file__).parent
    command = [sys.executable, "-c", KILLED, str(path), str(here), str(here.parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        used = [process.stdout.readline().strip() for _ in range(47)]
        process.kill()
        used += [line.strip() for line in process.stdout if line.endswith("\n")]
    kept = "".join(outcome for _, outcome in rows_on_disk(path))
    assert len(used) >= 47 and all(f'"{text}"' in kept for text in used)
