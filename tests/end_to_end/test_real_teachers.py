"""Commands with a real language model behind them, too small to teach: it must be found out, and break nothing."""

import json
import re
from collections import Counter

import pytest
from llama_server import llama_server

from drllama.parsing import parse_new
from drllama.replies import RequestStore
from drllama.students.catalogue import find_model
from drllama.types import Task
from forked import finished
from scripted_student import write_questions, write_recipe

pytestmark = pytest.mark.slow

LABELS = ("yes", "no", "maybe")
TASK = Task(name="t", instruction="Answer.", labels=LABELS, verbalizers={label: label for label in LABELS})
DEV, TRAIN = 8, 2
SETTINGS = """
audit: {{sampling: {{temperature: 0, max_tokens: 16}}}}
augment:
  max_attempts: {attempts}
  sampling: {{temperature: 0.8, repetition_penalty: 2.0, max_tokens: {max_tokens}}}
evaluate: {{bootstrap_samples: 100}}
"""
COMMANDS = {
    "audit": ["audit", "recipe.yaml", "--no-student"],
    "augment": ["augment", "recipe.yaml", "--out", "candidates.jsonl"],
}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DRLLAMA_STORE", raising=False)
    write_questions(tmp_path / "questions.jsonl", train=TRAIN, dev=DEV, test=3)
    return tmp_path


def carried_out(command):
    done = finished(*COMMANDS[command])
    assert "Traceback" not in done.err
    return done.out


def asked(folder):
    """Return the attempts that the store has, as an export tells them."""
    with RequestStore(folder / "runs" / "replies.sqlite") as replies:
        return [json.loads(line) for line in replies.export_lines()]


def items_of(attempt):
    if "failure" in attempt or attempt["request"]["prompt"] != "new.v1":
        return 1
    items = parse_new(attempt["reply"]["text"], TASK, with_options=False)
    return len(items) if isinstance(items, list) else 1


def assert_a_weak_teacher_is_found_out(told):
    assert "The teacher isn't clearly better than the majority answer (accuracy 0." in told
    assert f"on {DEV} dev questions, majority 0.375)" in told
    assert "should not write new ones" in told


def assert_all_items_are_told(folder, told):
    pattern = (
        r"(\d+) candidates from (\d+) requests: candidates\.jsonl\nunreadable: (\d+); without a reply: (\d+); "
        r"spare: (\d+); the same question again: (\d+); sources short of what was wanted: (\d+)"
    )
    candidates, requests, *others, short = map(int, re.match(pattern, told).groups())
    written = [json.loads(line) for line in (folder / "candidates.jsonl").read_text().splitlines()]
    assert len(written) == candidates
    attempts = [one for one in asked(folder) if one["request"]["prompt"] != "answer.v1"]
    assert len(attempts) == requests
    assert candidates + sum(others) == sum(map(items_of, attempts))
    given = Counter((row["parents"][0], row["method"]) for row in written)
    assert all(count <= {"rewrite": 1, "new": 2}[method] for (_, method), count in given.items())
    complete = sum(count == {"rewrite": 1, "new": 2}[method] for (_, method), count in given.items())
    assert complete + short == 2 * TRAIN
    for one in attempts:
        assert one["request"]["sampling"]["repetition_penalty"] == 2.0
        assert one["request"]["sampling"]["temperature"] == 0.8


def test_a_weak_teacher_behind_a_llama_cpp_server_is_asked_once_and_found_out(folder):
    (gguf,) = find_model("smollm2-135m").files
    with llama_server(gguf, folder / "server.log") as server:
        teacher = f"base_url: '{server.base_url}', model: {server.model}, dialect: llama.cpp, max_in_flight: 2"
        more = f"teacher: {{openai-compatible: {{{teacher}}}}}\n" + SETTINGS.format(attempts=2, max_tokens=48)
        write_recipe(folder / "recipe.yaml", "questions.jsonl", more=more)
        told = {command: carried_out(command) for command in COMMANDS}
        server.die()
    assert_a_weak_teacher_is_found_out(told["audit"])
    assert_all_items_are_told(folder, told["augment"])
    before, written = asked(folder), (folder / "candidates.jsonl").read_bytes()
    assert {one["request"]["form"] for one in before} == {"schema"}

    # Nobody is there to ask any more: what comes now was kept.
    assert {command: carried_out(command) for command in COMMANDS} == told
    assert asked(folder) == before
    assert (folder / "candidates.jsonl").read_bytes() == written


def test_a_weak_teacher_in_this_process_is_asked_once_and_found_out(folder):
    more = "teacher: {local: {model: smollm2-135m}}\n" + SETTINGS.format(attempts=1, max_tokens=48)
    write_recipe(folder / "recipe.yaml", "questions.jsonl", more=more)
    told = {command: carried_out(command) for command in COMMANDS}
    assert_a_weak_teacher_is_found_out(told["audit"])
    assert_all_items_are_told(folder, told["augment"])
    before, written = asked(folder), (folder / "candidates.jsonl").read_bytes()
    assert len(before) == DEV + 2 * TRAIN

    assert {command: carried_out(command) for command in COMMANDS} == told
    assert asked(folder) == before
    assert (folder / "candidates.jsonl").read_bytes() == written
