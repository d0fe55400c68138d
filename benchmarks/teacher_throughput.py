"""How fast, with how much CPU and memory, requests go through an HTTP teacher.

A local server answers each request after 200 ms; 256 are in flight. The ideal rate is 256 / 0.2 s. Measured side by
side on the same server and prompts: the whole teacher as a run uses it, the bare ``openai`` client, and a client that
only writes and reads bytes, which shows what the machine and the server allow.

    python benchmarks/teacher_throughput.py
    python benchmarks/teacher_throughput.py --only teacher --requests 100000 --latency 0.01
"""

import argparse
import asyncio
import importlib.util
import json
import resource
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from drllama.errors import TeacherFailure
from drllama.protocols import Replies
from drllama.recipe import Endpoint
from drllama.replies import RequestStore
from drllama.teachers import Ledger, ask_all, http_teacher
from drllama.types import Message, Reply, ReplyForm, Sampling, TeacherRequest

SYSTEM = "You rewrite questions of a medical data set. Keep the meaning. " * 8
USER = "Rewrite question {number}. Context: " + "In 120 patients the rate fell from 30 % to 22 % (p = 0.03). " * 25
EARLY = 1000
"""Where memory is read the first time."""


def the_server() -> ModuleType:
    path = Path(__file__).parents[1] / "tests" / "faults" / "server.py"
    spec = importlib.util.spec_from_file_location("fault_server", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)

    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


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
            form=ReplyForm.JSON,
            schema={"type": "object"},
            rollout=0,
        )


Run = Callable[[str, int, int], AsyncIterator[object]]


def through_teacher(replies: Replies) -> Run:
    async def run(url: str, count: int, in_flight: int) -> AsyncIterator[object]:
        settings = Endpoint(base_url=url, model="m", max_in_flight=in_flight)
        async with http_teacher(settings, replies=replies, ledger=Ledger(), seed=1) as teacher:
            async for _, outcome in ask_all(teacher, requests(teacher.endpoint, count), in_flight=in_flight):
                assert isinstance(outcome, Reply), outcome
                yield outcome

    return run


async def drain(count: int, in_flight: int, one: Callable[[TeacherRequest], object], url: str) -> AsyncIterator[object]:
    """Yield the outcomes of ``one`` over all requests from a fixed number of workers."""
    waiting, finished = requests(url, count), asyncio.Queue[object]()

    async def work() -> None:
        for request in waiting:
            finished.put_nowait(await one(request))  # type: ignore[misc]

    workers = [asyncio.create_task(work()) for _ in range(in_flight)]
    for _ in range(count):
        yield await finished.get()
    await asyncio.gather(*workers)


async def through_openai(url: str, count: int, in_flight: int) -> AsyncIterator[object]:
    import openai

    async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:

        async def one(request: TeacherRequest) -> object:
            answer = await client.chat.completions.create(
                model="m",
                messages=[{"role": each.role, "content": each.content} for each in request.messages],  # type: ignore[misc]
                temperature=0.8,
                max_tokens=256,
                response_format={"type": "json_object"},
            )
            return answer.choices[0].message.content

        async for outcome in drain(count, in_flight, one, url):
            yield outcome


async def through_bytes(url: str, count: int, in_flight: int) -> AsyncIterator[object]:
    port = int(url.split(":")[2].split("/")[0])
    idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def one(request: TeacherRequest) -> object:
        reader, writer = idle.pop() if idle else await asyncio.open_connection("127.0.0.1", port)
        body = json.dumps({"messages": [[each.role, each.content] for each in request.messages]}).encode()
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        answer = json.loads(await reader.readexactly(length))
        idle.append((reader, writer))
        return answer["choices"][0]["message"]["content"]

    async for outcome in drain(count, in_flight, one, url):
        yield outcome
    for _, writer in idle:
        writer.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One line of the table."""

    name: str
    rate_over_ideal: float
    cpu_ms_per_request: float
    cpu_share: float
    """CPU seconds over wall seconds: near 1, the client's own CPU is the limit."""
    early_rss_mib: float
    rss_mib: float

    def __str__(self) -> str:
        return (
            f"{self.name:<28} {self.rate_over_ideal:>10.3f} {self.cpu_ms_per_request:>12.3f} {self.cpu_share:>10.2f}"
            f" {self.early_rss_mib:>10.1f} {self.rss_mib:>10.1f}"
        )


def max_rss_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


async def measure(name: str, run: Run, url: str, options: argparse.Namespace) -> Measured:
    async for _ in run(url, options.in_flight, options.in_flight):
        pass  # Imports, connections and caches are there before the clock starts.
    early = max_rss_mib()
    wall, cpu, answered = time.perf_counter(), time.process_time(), 0
    async for _ in run(url, options.requests, options.in_flight):
        answered += 1
        if answered == EARLY:
            early = max_rss_mib()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    assert answered == options.requests, f"{answered} of {options.requests} answered"
    return Measured(
        name=name,
        rate_over_ideal=answered / wall / (options.in_flight / options.latency),
        cpu_ms_per_request=1000 * cpu / answered,
        cpu_share=cpu / wall,
        early_rss_mib=early,
        rss_mib=max_rss_mib(),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--in-flight", type=int, default=256)
    parser.add_argument("--latency", type=float, default=0.2, help="seconds before each reply")
    parser.add_argument("--only", choices=["bytes", "openai", "teacher", "stored"], help="one of the clients")
    options = parser.parse_args()
    with the_server().apart(options.latency) as url, tempfile.TemporaryDirectory() as folder:
        runs: dict[str, tuple[str, Run]] = {
            "bytes": ("bytes in, bytes out", through_bytes),
            "openai": ("bare openai client", through_openai),
            "teacher": ("teacher, nothing stored", through_teacher(Forgetful())),
        }
        with RequestStore(Path(folder) / "replies.sqlite") as store:
            runs["stored"] = ("teacher, every reply stored", through_teacher(store))
            print(f"{options.requests} requests, {options.in_flight} in flight, {options.latency} s at the server")
            print(f"{'':<28} {'rate/ideal':>10} {'CPU ms/req':>12} {'CPU/wall':>10} {'MiB@1000':>10} {'MiB@end':>10}")
            for key, (name, run) in runs.items():
                if options.only in {None, key}:
                    print(asyncio.run(measure(name, run, url, options)), flush=True)


if __name__ == "__main__":
    main()
