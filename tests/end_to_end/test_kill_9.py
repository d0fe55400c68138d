"""An augmentation that is killed again and again: nothing is lost, nothing that came is asked for again."""

import json
import random
import signal
import time
from collections import Counter
from itertools import pairwise

import pytest

from drllama.recipe import Endpoint
from drllama.replies import RequestStore
from drllama.teachers import asked_at_once
from faults.server import apart, messages_name
from forked import Forked, finished
from scripted_student import write_questions, write_recipe

pytestmark = pytest.mark.slow

KILLS, TRAIN, IN_FLIGHT = 20, 40, 4
AT_ONCE = asked_at_once(Endpoint(base_url="http://127.0.0.1", model="m", max_in_flight=IN_FLIGHT))
REQUESTS = 1 + 2 * TRAIN  # the probe; a rewrite and new questions for each


class Notes:
    """What the server wrote down: the name of each request, in the order in which they came."""

    def __init__(self, path):
        self._path = path
        path.touch()

    def since(self, start=0):
        return self._path.read_text().splitlines()[start:]


def kept_in(path):
    """Return the names of the requests whose replies a store has, as its export tells them."""
    with RequestStore(path) as replies:
        rows = [json.loads(line) for line in replies.export_lines()]
    assert all("reply" in row for row in rows)
    return Counter(messages_name(row["request"]["messages"]) for row in rows)


def kill_once(command, notes, *, begin, until, pause):
    """Kill the command when requests are under way and the server has seen so many different ones since ``begin``."""
    born = len(notes.since())
    running = Forked(*command)
    while len(set(notes.since(begin))) < until or len(notes.since()) == born:
        assert running.is_alive(), running.end()
        time.sleep(0.001)
    time.sleep(pause)
    running.send(signal.SIGKILL)
    assert running.end() == -signal.SIGKILL
    return born


def test_an_augmentation_killed_twenty_times_ends_as_if_nothing_had_been(tmp_path):
    write_questions(tmp_path / "questions.jsonl", train=TRAIN, dev=3, test=3)
    notes = Notes(tmp_path / "notes.txt")
    with apart(0.004, jitter_seconds=0.008, notes=tmp_path / "notes.txt") as url:
        write_recipe(
            tmp_path / "recipe.yaml",
            tmp_path / "questions.jsonl",
            more="augment: {}\n"
            f"teacher: {{openai-compatible: {{base_url: '{url}', model: m, max_in_flight: {IN_FLIGHT}}}}}\n",
        )
        undisturbed = [
            "augment", tmp_path / "recipe.yaml", "--out", tmp_path / "whole.jsonl", "--store", tmp_path / "whole",
        ]  # fmt: skip
        finished(*undisturbed)
        begin = len(notes.since())
        assert len(set(notes.since())) == begin == REQUESTS

        drawn, killed = random.Random(11), [*undisturbed[:3], tmp_path / "killed.jsonl", "--store", tmp_path / "killed"]
        kept, caught = [], []
        for until in sorted(drawn.sample(range(1, REQUESTS - 12), KILLS)):
            born = kill_once(killed, notes, begin=begin, until=until, pause=drawn.uniform(0, 0.01))
            kept.append((len(notes.since()), kept_in(tmp_path / "killed" / "replies.sqlite")))
            caught.append(len(set(notes.since(born)) - set(kept[-1][1])))
            assert not (tmp_path / "killed.jsonl").exists()
        finished(*killed)

    assert (tmp_path / "killed.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    for sent_before, had in kept:
        assert set(had).isdisjoint(notes.since(sent_before)), "what was kept at a kill is never sent again"
    for (_, earlier), (_, later) in pairwise(kept):
        assert earlier <= later, "what was kept is never lost"
    everything = kept_in(tmp_path / "killed" / "replies.sqlite")
    assert everything == kept_in(tmp_path / "whole" / "replies.sqlite") == Counter(set(notes.since()))
    sent = len(notes.since(begin))
    # A kill loses what is at the server and what is just being written, which a slow disk makes more of.
    assert REQUESTS < sent <= REQUESTS + KILLS * AT_ONCE
    assert sum(count > 0 for count in caught) > KILLS / 2, f"kills while requests were under way: {caught}"
