import asyncio
import hashlib
import json
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from drllama import plugins, teachers, teaching
from drllama.cli import main
from drllama.errors import BatchPending, BudgetSpent, StoreError, TeacherFailure
from drllama.recipe import Endpoint, read_recipe
from drllama.replies import BATCH, BatchBook, RequestStore
from drllama.replies import store as replies_store
from drllama.replies.format import REPLIES
from drllama.teachers import batches as teachers_batches
from drllama.types import FailureKind, Message, Reply, ReplyForm, Sampling, TeacherRequest
from faults.batches import AtCreation, Desk, Ending
from faults.server import Fault, FaultServer, drawn, faultless
from scripted_student import Script, write_questions, write_recipe

MARKER = "sk-marker-77b1d2f0aa"
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
PRICES = (2.0, 8.0)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty folder to stand in, with a key in the environment that must turn up nowhere in it."""
    for name in ("DRLLAMA_STORE", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TEACHER_KEY", MARKER)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plugins, "make_token_counter", lambda recipe: lambda text: len(text.split()))
    monkeypatch.setattr(plugins, "make_student", Script().make_student)
    write_questions(tmp_path / "questions.jsonl", train=4, dev=6, test=60)
    yield tmp_path
    holding = [path for path in tmp_path.rglob("*") if path.is_file() and MARKER.encode() in path.read_bytes()]
    assert holding == []


@pytest.fixture
def desk():
    return Desk()


@pytest.fixture
def server(desk):
    """A server that answers a body the same way each time, live or in a batch, in the form asked for."""
    with FaultServer(says=answer_in_form, desk=desk) as server:
        yield server


def answer_in_form(body):
    name = hashlib.sha256(json.dumps(body).encode()).hexdigest()[:8]
    if "response_format" not in body:
        return f"Text {name}."
    return json.dumps(filled(body["response_format"]["json_schema"]["schema"], name))


def filled(schema, name):
    """Return a value that a schema allows."""
    match schema:
        case {"enum": labels}:
            return labels[int(name, 16) % len(labels)]
        case {"properties": fields}:
            return {field: filled(inner, name) for field, inner in fields.items()}
        case {"items": item, "minItems": count}:
            return [filled(item, f"{name}{place}") for place in range(count)]
        case _:
            return f"Text {name}?"


@pytest.fixture
def drllama(monkeypatch, capsys):
    """Call the command line as a shell would, and return exit code, standard output and the last line of the error."""

    def drllama(*words):
        monkeypatch.setattr(sys, "argv", ["drllama", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        out, err = capsys.readouterr()
        assert MARKER not in out + err
        return SimpleNamespace(code=end.value.code or 0, out=out, err=(err.splitlines() or [""])[-1])

    return drllama


def recipe_for(server, *, batch=True, more="augment: {}\n", **settings):
    shown = "".join(f", {name}: {value}" for name, value in settings.items())
    teacher = f"base_url: '{server.base_url}', model: m, api_key_env: TEACHER_KEY, batch: {str(batch).lower()}{shown}"
    write_recipe(
        Path("recipe.yaml"),
        "questions.jsonl",
        more=f"teacher: {{openai-compatible: {{{teacher}}}}}\nevaluate: {{bootstrap_samples: 100}}\n{more}",
    )


def bought(server):
    """Return how often each body was carried out, live or in a batch."""
    return server.book.received


# ----------------------------------------------------------------------------------------- submit, leave, come back


def test_submit_leave_and_come_back(drllama, server, desk):
    desk.endings = [Ending(polls=2)]
    recipe_for(server)
    submitted = drllama("audit", "recipe.yaml")
    assert submitted.code == 1
    assert submitted.err == (
        f"BatchPending: 6 requests are out at {server.base_url} (batch batch_1: validating, 0 of 6 done, 0 failed); "
        "a batch takes up to 24 hours, then the same command comes back for it: drllama audit recipe.yaml"
    )
    for _ in range(2):
        waiting = drllama("audit", "recipe.yaml")
        assert "(batch batch_1: in progress, 0 of 6 done, 0 failed)" in waiting.err
    assert sum(bought(server).values()) == 1  # the probe, asked live

    done = drllama("audit", "recipe.yaml")
    assert done.code == 0
    assert "on 6 dev questions" in done.out
    assert (len(desk.batches), sum(bought(server).values())) == (1, 7)

    asked = list(desk.asked)
    assert drllama("audit", "recipe.yaml").out == done.out
    assert desk.asked == asked, "what is kept asks nobody"


def test_with_and_without_batches_the_same_bodies_are_sent_and_the_same_candidates_come(drllama, server, desk, folder):
    recipe_for(server, batch=False)
    assert drllama("augment", "recipe.yaml", "--out", "live.jsonl", "--store", "live").code == 0
    live = Counter(bought(server))
    server.book.received.clear()
    server.book.history.clear()

    recipe_for(server)
    assert drllama("augment", "recipe.yaml", "--out", "batch.jsonl").err.startswith("BatchPending: 8 requests")
    assert not (folder / "batch.jsonl").exists()
    assert drllama("augment", "recipe.yaml", "--out", "batch.jsonl").code == 0
    assert (folder / "batch.jsonl").read_bytes() == (folder / "live.jsonl").read_bytes()
    assert bought(server) == live
    assert len(desk.batches) == 1


def test_a_reply_from_a_batch_answers_live_and_the_other_way_round(drllama, server, desk):
    recipe_for(server)
    drllama("audit", "recipe.yaml")
    done = drllama("audit", "recipe.yaml")
    live = "teacher.openai-compatible.batch=false"
    before = sum(bought(server).values())
    assert drllama("audit", "recipe.yaml", "--set", live).out == done.out
    assert drllama("augment", "recipe.yaml", "--out", "c.jsonl", "--set", live).code == 0
    assert drllama("augment", "recipe.yaml", "--out", "c.jsonl").code == 0
    assert sum(bought(server).values()) == before + 8
    assert len(desk.batches) == 1


def test_each_round_of_an_augmentation_is_a_batch(drllama, server, desk, folder):
    recipe_for(server, more="augment: {max_attempts: 3}\n")
    server.plan = lambda seen: Fault.CUT_OFF if seen.number in {2, 5} else Fault.NONE
    words = ["augment", "recipe.yaml", "--out", "c.jsonl"]
    assert "8 requests are out" in drllama(*words).err
    assert "(batch batch_2: validating, 0 of 2 done" in drllama(*words).err
    done = drllama(*words)
    assert done.out.startswith("12 candidates from 10 requests: c.jsonl\nunreadable: 2;")
    assert [len(lines) for lines in desk.inputs()] == [8, 2]
    assert sum(bought(server).values()) == 1 + 8 + 2


def test_what_a_run_needs_of_its_teacher_goes_out_at_one_visit(server, desk, folder):
    recipe_for(server)
    lesson = teaching.read_lesson(read_recipe(folder / "recipe.yaml").recipe)
    silent = SimpleNamespace(expect=lambda units: None, work=lambda activity, units=0: None, tell=lambda line: None)
    told = {"limits": teaching.Limits(), "progress": silent}
    with RequestStore(folder / "replies.sqlite") as replies:
        with pytest.raises(BatchPending):
            teaching.teach(lesson, replies=replies, **told)
        assert [len(lines) for lines in desk.inputs()] == [6, 8]
        taught, sifted = teaching.teach(lesson, replies=replies, **told)
    assert (taught.num_requests, len(sifted.augmented.candidates)) == (8, 12)
    assert len(desk.batches) == 2


def test_a_preview_is_asked_live_and_nothing_out_is_asked_twice(drllama, server, desk):
    recipe_for(server)
    assert drllama("preview", "recipe.yaml").out.count("--- reply (stop)") == 3
    assert desk.batches == {}
    drllama("audit", "recipe.yaml")
    before = sum(bought(server).values())
    refused = drllama("audit", "recipe.yaml", "--set", "teacher.openai-compatible.batch=false")
    assert refused.code == 1
    assert "is out at" in refused.err and "it would be paid twice" in refused.err
    assert sum(bought(server).values()) == before

    (named,) = [word for word in refused.err.split() if len(word.rstrip(":")) == 32]
    forgotten = drllama("replies", "forget", named.rstrip(":"))
    assert forgotten.out.endswith("forgotten, with 6 requests\n")
    assert "no batch" in drllama("replies", "forget", named.rstrip(":")).err
    assert drllama("audit", "recipe.yaml", "--set", "teacher.openai-compatible.batch=false").code == 0


def test_what_came_by_batch_is_marked_and_costs_half(drllama, server, desk):
    recipe_for(server, usd_per_million_tokens="[2, 8]")
    assert "no reply was kept" in drllama("replies", "batches").err
    drllama("audit", "recipe.yaml", "--max-calls", "1")
    assert drllama("replies", "batches").out == "no batches were submitted from here yet\n"
    drllama("audit", "recipe.yaml")
    assert " out " in drllama("replies", "batches").out
    drllama("audit", "recipe.yaml")
    (line,) = [line for line in drllama("replies", "stats").out.splitlines() if " batch " in line]
    assert " 6 " in line
    (line,) = [line for line in drllama("replies", "batches").out.splitlines() if "batch_1" in line]
    assert "completed" in line and line.split()[-4:] == ["6", "6", "0", "0"]
    with RequestStore(Path("runs/replies.sqlite")) as store:
        lines = [json.loads(line) for line in store.export_lines()]
    by_source = {source: [one["reply"] for one in lines if one["source"] == source] for source in ("live", BATCH)}
    for source, share in (("live", 1.0), (BATCH, 0.5)):
        for reply in by_source[source]:
            full = (reply["tokens_in"] * 2 + reply["tokens_out"] * 8) / 1e6
            assert reply["cost_usd"] == pytest.approx(share * full)
    assert (len(by_source["live"]), len(by_source[BATCH])) == (1, 6)

    drllama("replies", "export", "out.jsonl")
    drllama("replies", "import", "out.jsonl", "--store", "there")
    assert "import of out.jsonl" in drllama("replies", "stats", "--store", "there").out


def test_a_plan_counts_with_the_price_of_batches(drllama, server):
    recipe_for(server, usd_per_million_tokens="[0, 100]")
    planned = drllama("plan", "recipe.yaml").out
    assert f"cost: ${(6 * 64 + 8 * 1024) / 2e4:.4f} (the recipe, times 0.5 in batches)" in planned
    assert "time: each batch takes up to 24 hours" in planned


def test_nothing_is_submitted_to_a_host_that_isn_t_allowed(drllama):
    write_recipe(Path("recipe.yaml"), "questions.jsonl", more="teacher: {openai-compatible: {model: m, batch: true}}\n")
    assert "nothing may be sent to api.openai.com" in drllama("audit", "recipe.yaml").err


# ---------------------------------------------------------------------------------- what comes back, and what doesn't


def test_of_an_expired_batch_only_the_rest_is_submitted_again(drllama, server, desk):
    desk.endings = [Ending(state="expired", done=2)]
    recipe_for(server)
    drllama("audit", "recipe.yaml")
    again = drllama("audit", "recipe.yaml")
    assert "4 requests are out" in again.err and "batch_2" in again.err
    first, second = ([line["custom_id"] for line in lines] for lines in desk.inputs())
    assert second == first[2:]
    assert drllama("audit", "recipe.yaml").code == 0
    assert set(bought(server).values()) == {1}
    assert "4 rate" in drllama("replies", "stats").out


@pytest.mark.parametrize("state", ["cancelled", "expired", "completed"])
def test_what_no_file_tells_of_is_asked_again_whatever_the_batch_ended_as(drllama, server, desk, state):
    desk.endings = [Ending(state=state, forgotten=1)]
    recipe_for(server)
    drllama("audit", "recipe.yaml")
    assert "1 request is out" in drllama("audit", "recipe.yaml").err
    assert drllama("audit", "recipe.yaml").code == 0
    assert [len(lines) for lines in desk.inputs()] == [6, 1]


def test_lines_out_of_order_unreadable_or_unknown_hurt_nobody_else(drllama, server, desk):
    desk.strays = [
        b'{"custom_id": "nobody", "response": {"status_code": 200, "body": {}}, "error": null}\n',
        b"[1, 2]\n",
        b"\n",
        b"\xff\xfe not JSON\n",
        b'{"custom_id": 7}\n',
    ]
    recipe_for(server)
    drllama("audit", "recipe.yaml")
    server.plan = lambda seen: Fault.WRONG_JSON if seen.number == 4 else Fault.NONE
    assert "1 request is out" in drllama("audit", "recipe.yaml").err
    # Five stray lines with the poisoned one, which nobody can tell whose it was.
    (line,) = [line for line in drllama("replies", "batches").out.splitlines() if "batch_1" in line]
    assert line.split()[-4:] == ["6", "5", "1", "5"]
    assert "1 unreadable" in drllama("replies", "stats").out
    assert drllama("audit", "recipe.yaml").code == 0
    assert sorted(bought(server).values()) == [1, 1, 1, 1, 1, 1, 2]


def test_each_kind_of_failure_is_repeated_as_often_as_live_and_then_given_up(drllama, server, desk):
    recipe_for(server)
    drllama("audit", "recipe.yaml")
    met = [Fault.NONE, Fault.TOO_LONG, Fault.FILTERED, Fault.NO_CHOICES, Fault.BROKEN, Fault.NONE]
    fault_of = {}

    def plan(seen):
        return met[fault_of.setdefault(seen.sha256, len(fault_of))]

    server.plan = plan
    for _ in range(6):
        last = drllama("audit", "recipe.yaml")
        if last.code == 0:
            break
    assert last.code == 0, last.err
    # An unreadable answer is asked for three times, a broken server five times, a refusal once.
    assert sorted(bought(server).values()) == [1, 1, 1, 1, 1, 3, 5]
    assert [len(lines) for lines in desk.inputs()] == [6, 2, 2, 1, 1]
    for reason in ("maximum context length", "filtered the reply", "without a choice", "the server broke"):
        assert reason in last.out
    assert "(given up after 5 attempts in batches; without batches it is asked anew)" in last.out
    assert drllama("audit", "recipe.yaml").out == last.out
    assert len(desk.batches) == 5, "what was given up stays given up"


def test_an_account_that_runs_empty_in_a_batch_stops_the_work_and_counts_against_nobody(drllama, server, desk):
    recipe_for(server)
    drllama("audit", "recipe.yaml")
    server.plan = lambda seen: Fault.QUOTA if seen.number > 4 else Fault.NONE
    stopped = drllama("audit", "recipe.yaml")
    assert stopped.code == 1
    assert stopped.err.startswith("TeacherFailure: ") and "top up the account" in stopped.err
    assert len(desk.batches) == 1
    server.plan = faultless
    assert "3 requests are out" in drllama("audit", "recipe.yaml").err
    assert drllama("audit", "recipe.yaml").code == 0


def test_an_input_that_fails_validation_costs_nothing_and_names_its_lines(drllama, server, desk):
    desk.endings = [
        Ending(state="failed", errors=({"code": "invalid_json_line", "message": "too long", "line": 2},)),
    ]
    recipe_for(server)
    drllama("audit", "recipe.yaml")
    assert "5 requests are out" in drllama("audit", "recipe.yaml").err
    done = drllama("audit", "recipe.yaml")
    assert "1 x http" in done.out and "refused this line of a batch: too long (invalid_json_line)" in done.out
    assert sum(bought(server).values()) == 1 + 5


def test_a_full_queue_at_the_server_is_told_and_the_batch_comes_again(drllama, server, desk):
    full = {"code": "token_limit_exceeded", "message": f"Queue of m is full for {MARKER}.", "line": None}
    desk.endings = [Ending(state="failed", errors=(full,))]
    recipe_for(server)
    drllama("audit", "recipe.yaml")
    refused = drllama("audit", "recipe.yaml")
    assert refused.err == (
        f"TeacherFailure: {server.base_url} refused batch batch_1: Queue of m is full for ***. "
        "(token_limit_exceeded); nothing of it was carried out, and the same command submits it again"
    )
    assert "6 requests are out" in drllama("audit", "recipe.yaml").err
    assert drllama("audit", "recipe.yaml").code == 0
    assert set(bought(server).values()) == {1}


def test_a_server_without_batches_says_so(drllama, server, desk):
    desk.is_there = False
    recipe_for(server)
    refused = drllama("audit", "recipe.yaml")
    assert refused.code == 1
    assert "/files answered 404: " in refused.err
    assert refused.err.endswith("if this server has no batches, set teacher.openai-compatible.batch to false")
    assert batch_records() == []


def test_a_batch_that_the_server_lost_is_named_with_the_way_out(drllama, server, desk):
    recipe_for(server)
    drllama("audit", "recipe.yaml")
    desk.batches.clear()
    lost = drllama("audit", "recipe.yaml")
    assert "(batch batch_1: http" in lost.err and "404" in lost.err
    assert "give it up with drllama replies forget " in lost.err


# ----------------------------------------------------------------------------------------------- one batch, never two


def batch_records(store="runs"):
    with RequestStore(Path(f"{store}/replies.sqlite")) as replies:
        return BatchBook(replies).records()


def test_after_a_kill_between_creating_and_noting_the_batch_is_found_by_its_name(drllama, server, desk):
    desk.creations = [AtCreation.SILENT]
    desk.page = 1
    recipe_for(server)
    command = [sys.executable, "-c", "from drllama.cli import main; main()", "audit", "recipe.yaml"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        while not desk.batches and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=60)
    (intent,) = batch_records()
    assert (intent.server_id, intent.num_requests, intent.state) == (None, 6, "out")
    # Batches of others, listed before ours, on pages of one.
    others = {f"batch_x{number}": {**desk.batches["batch_1"], "id": f"batch_x{number}"} for number in range(3)}
    for other in others.values():
        other["metadata"] = {}
    desk.batches.update(others)

    assert "(batch batch_1: validating" in drllama("audit", "recipe.yaml").err
    assert sum(call.startswith("GET /v1/batches?") for call in desk.asked) == 4
    assert drllama("audit", "recipe.yaml").code == 0
    assert [record.server_id for record in batch_records()] == ["batch_1"]
    assert set(bought(server).values()) == {1}


def test_a_connection_that_breaks_after_creating_makes_no_second_batch(drllama, server, desk):
    desk.creations = [AtCreation.CLOSED]
    recipe_for(server)
    assert "(batch batch_1: validating" in drllama("audit", "recipe.yaml").err
    assert drllama("audit", "recipe.yaml").code == 0
    assert (len(desk.batches), set(bought(server).values())) == (1, {1})


def test_a_refused_creation_leaves_nothing_behind(drllama, server, desk):
    desk.creations = [AtCreation.REFUSED]
    recipe_for(server)
    refused = drllama("audit", "recipe.yaml")
    assert refused.err.endswith("/batches answered 400: no batches for this model")
    assert batch_records() == []
    assert "6 requests are out" in drllama("audit", "recipe.yaml").err


class Bench:
    """A store, a clock that is set by hand, and batches asked for without a command."""

    def __init__(self, path, server, **more):
        self.now = NOON
        self.path = path / "bench.sqlite"
        self.settings = Endpoint(base_url=server.base_url, model="m", api_key_env="TEACHER_KEY", **more)
        self.requests = [asked(server.base_url, number) for number in range(6)]
        self.waits = []

    async def _sleep(self, seconds):
        self.waits.append(seconds)

    def ask(self, *, requests=None, prices=None, **limits):
        """Return the outcomes by key, what stopped it, and the ledger."""
        ledger = teachers.Ledger(**limits)

        async def main():
            outcomes = {}
            with RequestStore(self.path, clock=lambda: self.now) as store:
                wiring = {"replies": store, "ledger": ledger, "seed": 1, "usd_per_million_tokens": prices}
                async with (
                    teachers.http_teacher(self.settings, **wiring) as teacher,
                    teachers.batched(self.settings, batches=BatchBook(store), sleep=self._sleep, **wiring) as ask_all,
                ):
                    try:
                        async for request, outcome in ask_all(teacher, requests or self.requests):
                            outcomes[request.key] = outcome
                    except (BatchPending, BudgetSpent, TeacherFailure) as error:
                        return outcomes, error
            return outcomes, None

        outcomes, stopped_by = asyncio.run(main())
        return outcomes, stopped_by, ledger


def asked(endpoint, number):
    return TeacherRequest(
        endpoint=endpoint,
        model="m",
        prompt="answer.v1",
        prompt_sha256="0" * 64,
        messages=(Message(role="user", content=f"Is it so? {number} \u2028 ünïcödé 🦙"),),
        sampling=Sampling(temperature=0.5, max_tokens=50),
        form=ReplyForm.PROMPT,
        schema={},
        rollout=0,
    )


@pytest.fixture
def bench(tmp_path, server):
    return Bench(tmp_path, server)


def test_a_creation_of_unknown_outcome_is_repeated_only_after_a_while(bench, server, desk):
    desk.creations = [AtCreation.BROKEN]
    _, stopped_by, _ = bench.ask()
    assert "it isn't known whether the server has the last 6" in str(stopped_by)
    assert "the server broke" in str(stopped_by)
    bench.now += timedelta(seconds=119)
    _, stopped_by, _ = bench.ask()
    assert "the server doesn't list it yet: run again in two minutes" in str(stopped_by)
    assert desk.batches == {}
    bench.now += timedelta(seconds=2)
    _, stopped_by, _ = bench.ask()
    assert "batch batch_1: validating" in str(stopped_by)
    outcomes, stopped_by, _ = bench.ask()
    assert (len(outcomes), stopped_by) == (6, None)


def test_a_batch_that_was_begun_and_never_sent_is_begun_anew(bench, server, desk):
    with RequestStore(bench.path) as store:
        BatchBook(store).begin(server.base_url, bench.requests)
    _, stopped_by, _ = bench.ask()
    assert "6 requests are out" in str(stopped_by)
    assert bench.ask()[1] is None
    assert (len(desk.batches), set(bought(server).values())) == (1, {1})


def test_too_many_batches_are_tried_again_as_told(bench, desk):
    desk.creations = [AtCreation.RATE, AtCreation.RATE]
    _, stopped_by, _ = bench.ask()
    assert "batch_1" in str(stopped_by)
    assert len(bench.waits) == 2
    assert [call for call in desk.asked if call.startswith("POST")] == ["POST /v1/files", *["POST /v1/batches"] * 3]


def test_many_requests_are_several_batches_of_one_size_each(bench, desk, monkeypatch):
    monkeypatch.setattr(teachers_batches, "MOST_REQUESTS", 4)
    _, stopped_by, _ = bench.ask()
    assert "6 requests are out" in str(stopped_by) and "batch_2: validating, 0 of 2" in str(stopped_by)
    assert [len(lines) for lines in desk.inputs()] == [4, 2]
    monkeypatch.setattr(teachers_batches, "MOST_REQUESTS", 50_000)
    monkeypatch.setattr(teachers_batches, "MOST_BYTES", 1000)
    more = [asked(bench.settings.base_url, number) for number in range(10, 20)]
    bench.ask(requests=more)
    sizes = [len(desk.files[str(batch["input_file_id"])]) for batch in desk.batches.values()][2:]
    assert len(sizes) == 4 and max(sizes) <= 1000
    assert sum(map(len, desk.inputs())) == 16


def test_a_faulty_server_loses_nothing_and_sells_nothing_twice(bench, server, desk):
    shares = {Fault.BROKEN: 0.1, Fault.WRONG_JSON: 0.1, Fault.NO_CHOICES: 0.1, Fault.RATE: 0.1}
    server.plan = drawn(7, shares)
    desk.endings = [Ending(state="expired", done=100), Ending(polls=1), Ending(state="cancelled", done=20)]
    requests = [asked(server.base_url, number) for number in range(300)]
    for _ in range(12):
        outcomes, stopped_by, _ = bench.ask(requests=requests)
        if stopped_by is None:
            break
    assert stopped_by is None
    assert len(outcomes) == 300 and all(isinstance(one, Reply) for one in outcomes.values())
    assert set(server.book.answered.values()) <= {0, 1}
    assert sum(server.book.answered.values()) == 300


# ------------------------------------------------------------------------------------------------------------- money


def worst_usd(request, prices):
    return teachers.budget.worst_nano_usd(request, prices) / 1e9


def test_only_what_fits_is_submitted_and_what_is_out_counts_too(bench, server, desk):
    each = worst_usd(bench.requests[0], PRICES)
    limit = {"max_usd": 2.5 * each, "prices": PRICES}
    _, stopped_by, ledger = bench.ask(**limit)
    assert isinstance(stopped_by, BatchPending)
    assert "2 requests are out" in str(stopped_by) and "not everything is submitted: max_usd" in str(stopped_by)
    assert ledger.reserved_usd == pytest.approx(2 * each)

    desk.endings = []
    first = next(iter(desk.batches))
    desk._ending_of[first] = Ending(polls=1)
    _, stopped_by, ledger = bench.ask(**limit)
    assert [len(lines) for lines in desk.inputs()] == [2], "two are out already: a third would pass the limit"

    outcomes, stopped_by, ledger = bench.ask(**limit)
    assert len(outcomes) == 2
    spent = sum(one.cost_usd for one in outcomes.values())
    assert ledger.spent_usd == pytest.approx(spent, abs=1e-8)
    assert ledger.spent_usd + ledger.reserved_usd <= limit["max_usd"]
    for _ in range(8):
        outcomes, stopped_by, ledger = bench.ask(**limit)
        assert ledger.spent_usd + ledger.reserved_usd <= limit["max_usd"]
        if stopped_by is None:
            break
    assert len(outcomes) == 6
    assert set(bought(server).values()) == {1}


def test_a_limit_that_no_request_fits_submits_nothing(bench, desk):
    _, stopped_by, _ = bench.ask(max_usd=1e-6, prices=PRICES)
    assert isinstance(stopped_by, BudgetSpent)
    assert desk.asked == []
    _, stopped_by, _ = bench.ask(max_calls=0)
    assert isinstance(stopped_by, BudgetSpent)


def test_a_failed_request_counts_as_what_it_may_have_cost(bench, server, desk):
    bench.ask(prices=PRICES)
    server.plan = lambda seen: [Fault.NONE, Fault.NO_CHOICES, Fault.TOO_LONG, Fault.RATE][min(seen.number - 1, 3)]
    _, _, ledger = bench.ask(prices=PRICES, max_calls=6)
    assert ledger.uncertain_usd == pytest.approx(worst_usd(bench.requests[1], PRICES))


def test_a_limit_of_calls_holds_in_batches(drllama, server, desk):
    recipe_for(server)
    words = ["audit", "recipe.yaml", "--max-calls", "4"]
    stopped = drllama(*words)
    assert "3 requests are out" in stopped.err  # and the probe
    assert "max_calls 4 would be passed" in stopped.err
    while drllama(*words).code:
        pass
    assert set(bought(server).values()) == {1}


# --------------------------------------------------------------------------------------------------------- the store


def test_a_store_of_the_first_format_takes_batches_and_keeps_its_replies(tmp_path, monkeypatch):
    path = tmp_path / "old.sqlite"
    reply = Reply(text="x", finish="stop", tokens_in=1, tokens_out=1, seconds=0.0, cost_usd=None)
    one = asked("http://127.0.0.1:1/v1", 1)
    with monkeypatch.context() as patched:
        patched.setattr(replies_store, "REPLIES", replace(REPLIES, migrations=REPLIES.migrations[:1]))
        with RequestStore(path) as store:
            store.keep_many([(one, reply)])
    with RequestStore(path) as store:
        assert BatchBook(store).records() == []
        assert store.find(one.key).text == "x"
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (2,)
    connection.close()


def test_a_request_is_in_one_batch_at_a_time_and_a_batch_ends_whole(tmp_path):
    one, other = (asked("http://127.0.0.1:1/v1", number) for number in (1, 2))
    with RequestStore(tmp_path / "replies.sqlite") as store:
        book = BatchBook(store)
        batch = book.begin(one.endpoint, [one, other])
        assert book.requests(batch.id) == [one, other]
        with pytest.raises(sqlite3.IntegrityError):
            book.begin(one.endpoint, [other])
        assert [record.id for record in book.records()] == [batch.id]
        failure = TeacherFailure("broke", kind=FailureKind.TRANSIENT)
        book.settle(batch.id, {one.key: failure}, state="expired", num_strays=1)
        assert book.open_batches(one.endpoint) == []
        assert [str(found) for found in book.failures(one.key)] == ["broke"]
        assert store.attempts(other.key) == []
        assert book.begin(one.endpoint, [one, other]).id != batch.id


def test_one_process_at_a_time_is_at_the_batches(tmp_path):
    with RequestStore(tmp_path / "replies.sqlite") as store, RequestStore(tmp_path / "replies.sqlite") as same:
        with (
            BatchBook(store).alone(),
            pytest.raises(StoreError, match="another process submits or harvests"),
            BatchBook(same, patience_seconds=0.05).alone(),
        ):
            pass
        with BatchBook(same).alone():
            pass


def test_two_commands_at_once_submit_once(server, desk):
    desk.endings = [Ending(polls=10)]
    recipe_for(server)
    command = [sys.executable, "-c", "from drllama.cli import main; main()", "audit", "recipe.yaml"]
    started = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    told = [one.communicate(timeout=60)[1].splitlines()[-1] for one in started]
    assert all(line.startswith("BatchPending: 6 requests are out") for line in told)
    assert len(desk.batches) == 1
