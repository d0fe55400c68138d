"""Commands in processes of their own that needn't import torch again: each is forked from one that has."""

import multiprocessing
import os
import sys
import threading
from multiprocessing.forkserver import ensure_running

import pytest

COMMAND = "from drllama.cli import main; main()"
_CONTEXT = multiprocessing.get_context("forkserver")
# What a training imports takes longer than the training of a tiny student.
_CONTEXT.set_forkserver_preload(
    [
        "transformers.models.llama.modeling_llama",
        "peft.tuners.lora",
        "drllama.pipeline",
        "drllama.students.causal",
        "drllama.teachers",
        "drllama.cli.tables",
        "drllama.cli.app",
        "rich.live",
    ]
)


class Forked:
    """A command, or another script, that runs with one thread; ``out`` and ``err`` are what it has said so far."""

    def __init__(self, *words, script=COMMAND, **environment):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("OMP_NUM_THREADS", "1")  # torch asks once, when it is imported
            ensure_running()
        pipes = [_CONTEXT.Pipe(duplex=False) for _ in range(2)]
        told = (script, [str(word) for word in words], {**os.environ, "OMP_NUM_THREADS": "1", **environment})
        self._process = _CONTEXT.Process(target=_begin, args=(*told, *(writer for _, writer in pipes)))
        self._process.start()
        for _, writer in pipes:
            writer.close()
        self._out, self._err = (os.fdopen(os.dup(reader.fileno()), encoding="utf-8") for reader, _ in pipes)
        self.out = self.err = ""

    def wait_for(self, words):
        """Read the errors up to a line that has these words."""
        for line in self._err:
            self.err += line
            if words in line:
                return
        raise AssertionError(f"ended without '{words}': {self.err}")

    def is_alive(self):
        return self._process.is_alive()

    def send(self, sign):
        os.kill(self._process.pid, sign)

    def end(self, seconds=240):
        """Wait for the end and return the exit code, that of a signal below 0."""
        stop = threading.Timer(seconds, self._process.kill)
        stop.start()
        reading = threading.Thread(target=self._read_out)
        reading.start()
        self.err += self._err.read()
        reading.join()
        self._process.join()
        stop.cancel()
        self._out.close()
        self._err.close()
        return self._process.exitcode

    def _read_out(self):
        self.out += self._out.read()


def finished(*words, **environment):
    """Carry out a command, which succeeds."""
    done = Forked(*words, **environment)
    assert done.end() == 0, done.err
    return done


def _begin(script, words, environment, out, err):
    os.environ.clear()
    os.environ.update(environment)
    for name, number, writer in (("stdout", 1, out), ("stderr", 2, err)):
        os.dup2(writer.fileno(), number)
        writer.close()
        setattr(sys, name, os.fdopen(number, "w", encoding="utf-8", buffering=1, closefd=False))
    sys.argv = ["-c", *words]
    exec(compile(script, "<command>", "exec"), {"__name__": "__main__"})
