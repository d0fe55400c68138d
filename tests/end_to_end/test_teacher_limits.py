"""Limits of a command that asks a teacher, by the server's own count; and the command that goes on afterwards."""

import json
import re
import shlex
import signal
import sys
import time

import pytest
from commands import finished, started

from drllama.cli import main
from drllama.replies import RequestStore
from faults.server import FaultServer, what_was_asked_for
from scripted_student import write_questions, write_recipe

QUESTIONS, MAX_TOKENS = 12, 256
PRICES = (1, 100)
"""USD per million tokens of prompts and replies."""
SETTINGS = f"""
audit: {{sampling: {{temperature: 0, max_tokens: {MAX_TOKENS}}}}}
augment: {{new: null, sampling: {{max_tokens: {MAX_TOKENS}}}}}
evaluate: {{bootstrap_samples: 100}}
"""
COMMANDS = {"audit": ["--no-student"], "augment": ["--out", "the candidates.jsonl"]}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DRLLAMA_STORE", raising=False)
    write_questions(tmp_path / "questions.jsonl", train=QUESTIONS, dev=QUESTIONS, test=3)
    return tmp_path


@pytest.fixture
def server(folder):
    with FaultServer(says=what_was_asked_for) as server:
        write_recipe_for(folder, server)
        yield server


def write_recipe_for(folder, server, max_in_flight=4):
    teacher = (
        f"{{openai-compatible: {{base_url: '{server.base_url}', model: m, max_in_flight: {max_in_flight}, "
        f"usd_per_million_tokens: {list(PRICES)}}}}}"
    )
    write_recipe(folder / "recipe.yaml", "questions.jsonl", more=f"teacher: {teacher}\n{SETTINGS}")


@pytest.fixture
def drllama(monkeypatch, capsys):
    """Call the command line as a shell would, and return exit code, standard output and standard error."""

    def drllama(*words):
        monkeypatch.setattr(sys, "argv", ["drllama", *words])
        with pytest.raises(SystemExit) as end:
            main()
        return end.value.code or 0, *capsys.readouterr()

    return drllama


def sent(server):
    return sum(server.book.received.values())


def cost_usd(bodies):
    """Return what the server charges for these requests, by the token counts that it tells."""
    tokens_in = sum(len(json.dumps(body["messages"])) // 4 for body in bodies)
    tokens_out = sum(len(what_was_asked_for(body)) // 4 for body in bodies)
    return (tokens_in * PRICES[0] + tokens_out * PRICES[1]) / 1e6


def kept(folder):
    with RequestStore(folder / "runs" / "replies.sqlite") as replies:
        return sum(row.replies for row in replies.stats().rows)


def goes_on(drllama, server, folder, words, stopped, check_one):
    """Carry out the command, then each command that a limit names, until the end; return how many it took."""
    for number in range(1, 30):
        before = sent(server)
        code, out, err = drllama(*words)
        check_one(server.book.bodies[before:])
        assert "Traceback" not in err
        assert max(server.book.received.values()) == 1, "nothing is asked twice"
        assert kept(folder) == sent(server), "what was done is kept"
        if code == 0:
            return number, out
        assert sent(server) > before
        (line,) = [line for line in err.splitlines() if line.startswith("BudgetSpent: ")]
        assert re.match(stopped, line)
        assert not (folder / "the candidates.jsonl").exists()
        program, *words = shlex.split(line.rpartition(": ")[2])
        assert program == "drllama"
    raise AssertionError("it never ends")


def and_is_the_same_as_without_a_limit(drllama, server, folder, command, out):
    written = {path.name: path.read_bytes() for path in folder.glob("*candidates.jsonl")}
    before = sent(server)
    assert drllama(command, "recipe.yaml", *COMMANDS[command])[:2] == (0, out)
    assert sent(server) == before
    assert drllama(command, "recipe.yaml", *COMMANDS[command], "--store", "without")[:2] == (0, out)
    assert {path.name: path.read_bytes() for path in folder.glob("*candidates.jsonl")} == written
    assert len(written) == (command == "augment")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_limit_of_calls_holds_and_the_command_it_names_goes_on(drllama, server, folder, command):
    def check_one(bodies):
        assert len(bodies) <= 5

    words = [command, "recipe.yaml", *COMMANDS[command], "--max-calls", "5"]
    stopped = "BudgetSpent: max_calls 5 would be passed by the next request: 5 calls sent"
    rounds, out = goes_on(drllama, server, folder, words, stopped, check_one)
    assert (rounds, sent(server)) == (3, 1 + QUESTIONS)
    and_is_the_same_as_without_a_limit(drllama, server, folder, command, out)


# Little more than what one request may cost at worst, so that several commands are needed.
@pytest.mark.parametrize(("command", "limit"), [("audit", 0.029), ("augment", 0.035)])
def test_a_limit_of_money_holds_and_the_command_it_names_goes_on(drllama, server, folder, command, limit):
    def check_one(bodies):
        assert 0 < cost_usd(bodies) <= limit

    server.latency_seconds = 0.005
    words = [command, "recipe.yaml", *COMMANDS[command], "--max-usd", str(limit)]
    stopped = (
        rf"BudgetSpent: max_usd {limit} \(the next request may cost 0\.02\d+\) would be passed by the next request"
    )
    rounds, out = goes_on(drllama, server, folder, words, stopped, check_one)
    assert rounds >= 2
    and_is_the_same_as_without_a_limit(drllama, server, folder, command, out)


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_a_limit_of_time_holds_and_the_command_it_names_goes_on(drllama, server, folder, command):
    """However slow the machine: within 1.2 s, each of two places takes a reply of 0.3 s four times at most."""

    def check_one(bodies):
        assert 0 < len(bodies) <= 2 * 4

    write_recipe_for(folder, server, max_in_flight=2)
    server.latency_seconds = 0.3
    words = [command, "recipe.yaml", *COMMANDS[command], "--max-minutes", "0.02"]
    stopped = "BudgetSpent: max_minutes 0.02 would be passed by the next request"
    rounds, out = goes_on(drllama, server, folder, words, stopped, check_one)
    assert rounds >= 2
    server.latency_seconds = 0
    and_is_the_same_as_without_a_limit(drllama, server, folder, command, out)


@pytest.mark.slow
def test_ctrl_c_amid_an_augmentation_is_one_line_and_the_same_command_goes_on(drllama, server, folder):
    server.latency_seconds = 0.1
    words = ["augment", "recipe.yaml", *COMMANDS["augment"]]
    with started(*words) as process:
        while sent(server) < 6:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert err.splitlines()[-1] == "interrupted; run the same command again: it goes on where it stopped"
    assert "Traceback" not in err
    assert not (folder / "the candidates.jsonl").exists()
    before, had = sent(server), kept(folder)
    assert 0 < had < 1 + QUESTIONS
    assert before - had <= 4  # those on their way

    done = finished(*words)
    assert done.returncode == 0, done.stderr
    assert sent(server) == before + 1 + QUESTIONS - had
    assert len(server.book.received) == 1 + QUESTIONS
    and_is_the_same_as_without_a_limit(drllama, server, folder, "augment", done.stdout)
