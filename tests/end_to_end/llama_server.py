"""A real llama.cpp server for tests, out of the PyPI wheel ``xllamacpp``; run as a script, it is the server."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

READY = "listening on "
START_SECONDS = 300
CONTEXT_TOKENS = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class LlamaServer:
    """A server that is up."""

    base_url: str
    """What a recipe takes as ``base_url``."""
    model: str
    """The name that the server gives the model in its replies."""
    process: subprocess.Popen[str]

    def die(self) -> None:
        """Kill the server as a crash would, and wait until it is gone."""
        self.process.kill()
        self.process.wait()


@contextmanager
def llama_server(
    gguf: Path, log: Path, *, model: str = "smollm2-135m", slots: int = 2, threads: int = 1
) -> Iterator[LlamaServer]:
    """Give a server of this model on a free port of the loopback device; it is gone at the end.

    ``log`` takes what the server says. Each of ``slots`` requests at once has a context of its own.

    Raises:
        RuntimeError: it didn't come up; the message has the end of its log.
    """
    command = [sys.executable, __file__, str(gguf), model, str(slots), str(threads)]
    with (
        log.open("w") as said,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, text=True) as process,
    ):
        watchdog = threading.Timer(START_SECONDS, process.kill)
        watchdog.start()
        try:
            assert process.stdout is not None
            ready = next((line for line in process.stdout if line.startswith(READY)), None)
            watchdog.cancel()
            if ready is None:
                raise RuntimeError(f"the llama.cpp server didn't come up: {log.read_text()[-1000:]}")
            yield LlamaServer(base_url=ready.removeprefix(READY).strip() + "/v1", model=model, process=process)
        finally:
            watchdog.cancel()
            process.kill()


def serve(gguf: str, model: str, slots: int, threads: int) -> None:
    """Serve until standard input ends: a server never outlives the test that started it."""
    import xllamacpp

    settings = xllamacpp.CommonParams()
    settings.model.path = gguf
    # Without an alias, every reply carries the path of the file.
    settings.model_alias = {model}
    settings.hostnames = ["127.0.0.1"]
    # The server takes any free port and tells which; one chosen before could be gone when it starts.
    settings.port = 0
    settings.n_ctx = CONTEXT_TOKENS * slots
    settings.n_parallel = slots
    # Its threads wait for each other by spinning: two on a busy machine are slower than one.
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = threads
    settings.warmup = False
    settings.ui = False
    server = xllamacpp.Server(settings)
    print(READY + server.listening_address, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
