"""Times a peer's run in its own environment; only the standard library is needed.

    PEER/bin/python benchmarks/peers/NAME.py URL PROMPTS.jsonl IN_FLIGHT FOLDER

The last line printed is JSON: seconds, CPU seconds (of child processes too), the highest resident memory, replies.
"""

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

Peer = Callable[[str, list[dict[str, str]], int, Path], int]
"""Takes the server's URL, prompts with ``system`` and ``user``, the requests in flight, and an empty folder; returns
how many replies there are."""


def cpu_seconds() -> float:
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in both)


def main(peer: Peer) -> None:
    url, prompts_file, in_flight, folder = sys.argv[1:]
    prompts = [json.loads(line) for line in Path(prompts_file).read_text(encoding="utf-8").splitlines()]
    # Imports, connections and caches are there before the clock starts.
    peer(url, prompts[: int(in_flight)], int(in_flight), Path(folder) / "warm")
    wall, cpu = time.perf_counter(), cpu_seconds()
    replies = peer(url, prompts, int(in_flight), Path(folder) / "measured")
    wall, cpu = time.perf_counter() - wall, cpu_seconds() - cpu
    rss = sum(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / 1024
    print(json.dumps({"seconds": wall, "cpu_seconds": cpu, "rss_mib": rss, "replies": replies}))
