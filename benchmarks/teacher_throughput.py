"""How fast, with how much CPU and memory, requests go through an HTTP teacher, beside its peers.

A local server answers each request after 200 ms; 256 are in flight. The ideal rate is 256 / 0.2 s; 2,000 requests are
eight waves, not 7.8, so 0.977 of it is the most that anybody could reach. Measured in one run, each in a process of its
own, one after another, the same server and prompts:

- a client that only writes and reads bytes, which shows what the machine and the server allow;
- the whole teacher as a run uses it, without a store and with every reply durable before it is used;
- peers, each in its own environment: ``--peer NAME=PYTHON``, with NAME a script ``peers/NAME_peer.py``.

Connections are opened within the measured time; imports are not. Of several rounds the middle one by rate is shown.
CPU is that of the client and its child processes. Peers write their results to disk, as they always do, but none syncs.

    python benchmarks/teacher_throughput.py --peer curator=venvs/curator/bin/python --rounds 3
    python benchmarks/teacher_throughput.py --client stored --requests 100000 --latency 0.01
"""

import argparse
import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from slow_server import slow_server

from drllama.errors import TeacherFailure
from drllama.protocols import Replies
from drllama.recipe import Endpoint
from drllama.replies import RequestStore
from drllama.teachers import Ledger, ask_all, asked_at_once, http_teacher
from drllama.types import Message, Reply, ReplyForm, Sampling, TeacherRequest

SYSTEM = "You rewrite questions of a medical data set. Keep the meaning. " * 8
USER = "Rewrite question {number}. Context: " + "In 120 patients the rate fell from 30 % to 22 % (p = 0.03). " * 25
EARLY = 1000
"""Replies after which memory is read the first time."""
CLIENTS = {
    "bytes": "bytes in, bytes out",
    "teacher": "drllama, nothing stored",
    "stored": "drllama, every reply stored",
}


class Forgetful:
    """Keeps nothing: what the teacher itself costs, without a disk."""

    def find(self, key: str) -> Reply | None:
        """Return nothing."""
        return None

    def keep_many(self, attempts: Iterable[tuple[TeacherRequest, Reply | TeacherFailure]]) -> None:
        """Forget them."""


def requests(endpoint: str, count: int) -> Iterator[TeacherRequest]:
    for number in range(count):
        yield TeacherRequest(
            endpoint=endpoint,
            model="m",
            prompt="rewrite.v1",
            prompt_sha256="0" * 64,
            messages=(
                Message(role="system", content=SYSTEM),
                Message(role="user", content=USER.format(number=number)),
            ),
            sampling=Sampling(temperature=0.8, max_tokens=256),
            form=ReplyForm.PROMPT,
            schema={"type": "object"},
            rollout=0,
        )


Run = Callable[[str, int, int], AsyncIterator[object]]


def through_teacher(replies: Replies) -> Run:
    async def run(url: str, count: int, in_flight: int) -> AsyncIterator[object]:
        settings = Endpoint(base_url=url, model="m", max_in_flight=in_flight)
        async with http_teacher(settings, replies=replies, ledger=Ledger(), seed=1) as teacher:
            asked = requests(teacher.endpoint, count)
            async for _, outcome in ask_all(teacher, asked, in_flight=asked_at_once(settings)):
                assert isinstance(outcome, Reply), outcome
                yield outcome

    return run


async def through_bytes(url: str, count: int, in_flight: int) -> AsyncIterator[object]:
    port = int(url.split(":")[2].split("/")[0])
    waiting, finished = requests(url, count), asyncio.Queue[object]()

    async def work() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for request in waiting:
            body = json.dumps({"messages": [[each.role, each.content] for each in request.messages]}).encode()
            writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            answer = json.loads(await reader.readexactly(length))
            finished.put_nowait(answer["choices"][0]["message"]["content"])
        writer.close()

    workers = [asyncio.create_task(work()) for _ in range(in_flight)]
    for _ in range(count):
        yield await finished.get()
    await asyncio.gather(*workers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What one client took for all requests."""

    seconds: float
    cpu_seconds: float
    rss_mib: float
    replies: int
    early_rss_mib: float | None = None


def max_rss_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


async def measure(run: Run, warm: Run, url: str, count: int, in_flight: int) -> Measured:
    async for _ in warm(url, in_flight, in_flight):
        pass  # Imports are there before the clock starts.
    early, wall, cpu, answered = None, time.perf_counter(), time.process_time(), 0
    async for _ in run(url, count, in_flight):
        answered += 1
        if answered == EARLY:
            early = max_rss_mib()
    return Measured(
        seconds=time.perf_counter() - wall,
        cpu_seconds=time.process_time() - cpu,
        rss_mib=max_rss_mib(),
        replies=answered,
        early_rss_mib=early,
    )


def inside(client: str, url: str, count: int, in_flight: int, folder: str) -> Measured:
    """Return what one of our own clients takes, in this process."""
    forgetful = through_teacher(Forgetful())
    if client == "bytes":
        return asyncio.run(measure(through_bytes, through_bytes, url, count, in_flight))
    if client == "teacher":
        return asyncio.run(measure(forgetful, forgetful, url, count, in_flight))
    # On the disk, where a run keeps its replies: /tmp may be memory, which takes no time to sync.
    with RequestStore(Path(folder) / "replies.sqlite") as store:
        return asyncio.run(measure(through_teacher(store), forgetful, url, count, in_flight))


def apart(command: list[str], folder: str) -> Measured:
    """Return what a client takes in a process of its own, its home an empty folder."""
    environment = os.environ | {"HOME": folder}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def one_round(options: argparse.Namespace, url: str, prompts: Path) -> Iterator[tuple[str, Measured]]:
    """Yield the name of each client and what it took."""
    ours = [options.client] if options.client else list(CLIENTS)
    numbers = [str(options.requests), str(options.in_flight)]
    for client in ours:
        with tempfile.TemporaryDirectory(dir=options.disk) as folder:
            command = [sys.executable, __file__, "--inside", client, url, *numbers, folder]
            yield CLIENTS[client], apart(command, folder)
    for name, python in options.peer:
        with tempfile.TemporaryDirectory(dir=options.disk) as folder:
            script = Path(__file__).with_name("peers") / f"{name}_peer.py"
            command = [python, str(script), url, str(prompts), str(options.in_flight), folder]
            yield name, apart(command, folder)


def line(name: str, rounds: list[Measured], options: argparse.Namespace) -> str:
    for one in rounds:
        assert one.replies == options.requests, f"{name}: {one.replies} of {options.requests} answered"
    middle = sorted(rounds, key=lambda one: one.seconds)[len(rounds) // 2]
    ideal = options.requests / (options.in_flight / options.latency)
    rates = [ideal / one.seconds for one in rounds]
    early = f"{middle.early_rss_mib:.1f}" if middle.early_rss_mib else ""
    return (
        f"{name:<28} {ideal / middle.seconds:>10.3f} {f'{min(rates):.3f}-{max(rates):.3f}':>13}"
        f" {1000 * middle.cpu_seconds / options.requests:>11.2f} {early:>9} {middle.rss_mib:>9.1f}"
    )


def main() -> None:
    if sys.argv[1:2] == ["--inside"]:
        client, url, count, in_flight, folder = sys.argv[2:]
        print(json.dumps(asdict(inside(client, url, int(count), int(in_flight), folder))))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--in-flight", type=int, default=256)
    parser.add_argument("--latency", type=float, default=0.2, help="seconds before each reply")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--client", choices=CLIENTS, help="one of our own clients, the others not")
    parser.add_argument("--peer", type=lambda text: text.split("=", 1), action="append", default=[])
    parser.add_argument("--disk", default=".", help="where the store is written; a real disk")
    options = parser.parse_args()
    with slow_server(options.latency) as url, tempfile.TemporaryDirectory(dir=options.disk) as folder:
        prompts = Path(folder) / "prompts.jsonl"
        with prompts.open("w", encoding="utf-8") as file:
            for number in range(options.requests if options.peer else 0):
                file.write(json.dumps({"system": SYSTEM, "user": USER.format(number=number)}) + "\n")
        taken: dict[str, list[Measured]] = {}
        for _ in range(options.rounds):
            for name, measured in one_round(options, url, prompts):
                taken.setdefault(name, []).append(measured)
    print(f"{options.requests} requests, {options.in_flight} in flight, {options.latency} s at the server")
    print(f"{'':<28} {'rate/ideal':>10} {'rounds':>13} {'CPU ms/req':>11} {'MiB@1000':>9} {'MiB peak':>9}")
    for name, rounds in taken.items():
        print(line(name, rounds, options))


if __name__ == "__main__":
    main()
