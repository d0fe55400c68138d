import json
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

import faults.server as fault_server
from drllama import planning, plugins, teaching
from drllama.cli import main
from drllama.recipe import JsonlFiles, read_recipe
from drllama.replies import RequestStore
from faults.server import Fault, FaultServer, always
from scripted_student import Script, write_questions, write_recipe

LABELS = {"yes", "no", "maybe"}
MARKER = "sk-marker-5f1e7c0a9d"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty folder to stand in, with a key in the environment that must turn up nowhere in it."""
    for name in ("DRLLAMA_STORE", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", MARKER)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plugins, "make_token_counter", lambda recipe: lambda text: len(text.split()))
    write_questions(tmp_path / "questions.jsonl", train=4, dev=3, test=60)
    yield tmp_path
    holding = [path for path in tmp_path.rglob("*") if path.is_file() and MARKER.encode() in path.read_bytes()]
    assert holding == []


@pytest.fixture
def drllama(monkeypatch, capsys):
    """Call the command line as a shell would, and return exit code, standard output and standard error."""

    def drllama(*words):
        monkeypatch.setattr(sys, "argv", ["drllama", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        out, err = capsys.readouterr()
        assert MARKER not in out + err
        return SimpleNamespace(code=end.value.code or 0, out=out, err=err)

    return drllama


@pytest.fixture
def server(monkeypatch):
    """A server on this machine that answers in the form asked for."""
    answer_to = fault_server._answer_to

    def taught(fault, seen):
        if fault is not Fault.NONE:
            return answer_to(fault, seen)
        schema = seen.body["response_format"]["json_schema"]["schema"]
        return fault_server.completion(seen, content=json.dumps(filled(schema, seen.number)))

    monkeypatch.setattr(fault_server, "_answer_to", taught)
    with FaultServer() as server:
        yield server


def filled(schema, number):
    """Return a value that a schema allows."""
    match schema:
        case {"enum": [first, *_]}:
            return first
        case {"properties": fields}:
            return {name: filled(field, number) for name, field in fields.items()}
        case {"items": item, "minItems": count}:
            return [filled(item, f"{number}.{place}") for place in range(count)]
        case _:
            return f"Text {number}?"


AUGMENT = "augment: {}\n"


def recipe_for(teacher, more=""):
    write_recipe(
        teaching.Path("recipe.yaml"),
        "questions.jsonl",
        more=f"teacher: {teacher}\nevaluate: {{bootstrap_samples: 100}}\n{more or AUGMENT}",
    )


def live(server, more="", **settings):
    shown = "".join(f", {name}: {value}" for name, value in settings.items())
    recipe_for(
        f"{{openai-compatible: {{base_url: '{server.base_url}', model: m, api_key_env: OPENAI_API_KEY{shown}}}}}", more
    )


def sent(server):
    return sum(server.book.received.values())


REPLAY = "{replay: {endpoint: recorded, model: large}}"
REMOTE = "{openai-compatible: {model: gpt-4o-mini}}"


def recording(ids):
    told = {"question": "In other words?", "long_answer": "So.", "context": "Told anew."}
    made = [{"question": f"New {number}?", "label": "no", "long_answer": "No."} for number in (0, 1)]
    return [{"id": one, "rewrite": told, "new": made, "answer": "yes"} for one in ids]


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


EVERYONE = [f"train{number}" for number in range(4)] + [f"dev{number}" for number in range(3)]


def test_the_whole_way_with_a_live_teacher(drllama, server, folder):
    live(server)

    preview = drllama("preview", "recipe.yaml")
    assert (preview.code, preview.out.count("--- reply (stop)")) == (0, 3)
    assert "[system] You prepare training questions" in preview.out
    assert sent(server) == 1 + 3  # the probe, once

    audit = drllama("audit", "recipe.yaml", "--no-student")
    assert audit.code == 0
    assert "isn't clearly better than the majority answer" in audit.out
    assert sent(server) == 4 + 3

    augment = drllama("augment", "recipe.yaml", "--out", "candidates.jsonl")
    assert augment.code == 0
    assert augment.out.startswith("12 candidates from 8 requests: candidates.jsonl\nunreadable: 0; without a reply: 0;")
    assert sent(server) == 7 + 8 - 3
    assert max(server.book.received.values()) == 1
    written = (folder / "candidates.jsonl").read_bytes()
    rows = [json.loads(line) for line in written.splitlines()]
    assert Counter(row["method"] for row in rows) == {"rewrite": 4, "new": 8}
    assert all(row["parents"] and row["group"] for row in rows)

    for words in (["preview", "recipe.yaml"], ["audit", "recipe.yaml", "--no-student"]):
        assert drllama(*words).code == 0
    assert drllama("augment", "recipe.yaml", "--out", "again.jsonl").code == 0
    assert sent(server) == 12
    assert (folder / "again.jsonl").read_bytes() == written
    assert {headers["authorization"] for headers in server.book.headers} == {f"Bearer {MARKER}"}


def test_no_test_question_is_ever_sent(drllama, server):
    live(server)
    drllama("preview", "recipe.yaml")
    drllama("audit", "recipe.yaml", "--no-student")
    drllama("augment", "recipe.yaml", "--out", "candidates.jsonl")
    assert "of train help" in json.dumps(server.book.bodies)
    assert "of test help" not in json.dumps(server.book.bodies)


def test_candidates_are_questions_that_the_jsonl_source_reads(drllama, server, folder):
    live(server)
    drllama("augment", "recipe.yaml", "--out", "candidates.jsonl")
    recipe = read_recipe(folder / "recipe.yaml").recipe
    originals = {one.group: one for one in plugins.make_source(recipe).load().train}
    for name in ("dev", "test"):
        write_lines(folder / f"{name}.jsonl", [{"question": f"Is it {name}?", "context": name, "label": "no"}])
    files = JsonlFiles(train=folder / "candidates.jsonl", dev=folder / "dev.jsonl", test=folder / "test.jsonl")
    read = plugins.make_source(recipe.model_copy(update={"data": files})).load().train
    assert len(read) == 12
    assert {one.group for one in read} == set(originals)
    assert all(one.label in LABELS and one.long_answer for one in read)


def test_a_limit_of_calls_stops_with_the_command_to_go_on(drllama, server, folder):
    live(server, max_in_flight=1)
    words = ["augment", "recipe.yaml", "--out", "a b.jsonl", "--max-calls", "5"]
    stopped = drllama(*words)
    (line,) = [line for line in stopped.err.splitlines() if line.startswith("BudgetSpent")]
    assert stopped.code == 1
    assert line.startswith("BudgetSpent: max_calls 5 would be passed by the next request: 5 calls sent")
    assert line.endswith(": drllama augment recipe.yaml --out 'a b.jsonl' --max-calls 5")
    assert sent(server) == 5
    assert not (folder / "a b.jsonl").exists()

    assert drllama(*words).code == 0
    assert sent(server) == 1 + 8
    assert max(server.book.received.values()) == 1


def test_money_can_t_be_limited_where_the_price_is_unknown(drllama, server):
    live(server)
    refused = drllama("audit", "recipe.yaml", "--no-student", "--max-usd", "1")
    assert refused.code == 1
    assert "RecipeError: max_usd 1 can't be held: the price of" in refused.err
    assert sent(server) == 0


def test_a_refused_key_is_one_line_without_the_key(drllama, server):
    live(server)
    server.plan = always(Fault.AUTH)
    refused = drllama("audit", "recipe.yaml", "--no-student")
    assert refused.code == 1
    assert refused.err.splitlines()[-1].startswith(f"TeacherFailure: {server.base_url} refused the key")
    assert sent(server) == 1


def test_the_form_of_reply_that_a_server_knows_is_found_out_once(drllama, server):
    live(server)
    server.plan = lambda seen: Fault.NO_SUCH_MODEL if "json_schema" in json.dumps(seen.body) else Fault.NO_USAGE
    assert drllama("audit", "recipe.yaml", "--no-student").code == 0
    assert sent(server) == 2 + 3
    forms = [body.get("response_format", {}).get("type") for body in server.book.bodies]
    assert forms == ["json_schema"] + ["json_object"] * 4
    assert re.search("^answer.v1 +3 +3 +0 +0 ", drllama("plan", "recipe.yaml").out, re.MULTILINE)
    drllama("audit", "recipe.yaml", "--no-student")
    assert sent(server) == 5


def test_a_server_that_refuses_every_form_is_told_in_its_own_words(drllama, server):
    live(server)
    server.plan = always(Fault.NO_SUCH_MODEL)
    refused = drllama("audit", "recipe.yaml", "--no-student")
    assert "no such model" in refused.err
    assert "even a plain request to m is refused; check teacher.model" in refused.err


@pytest.mark.slow
def test_an_interrupted_audit_goes_on_where_it_stopped(folder, server):
    write_questions(folder / "questions.jsonl", train=4, dev=40)
    live(server, max_in_flight=2)
    server.latency_seconds = 0.05
    command = [sys.executable, "-c", "from drllama.cli import main; main()", "audit", "recipe.yaml", "--no-student"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 60
        while sent(server) < 8 and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "interrupted; run the same command again: it goes on where it stopped"
    assert "Traceback" not in err
    before = sent(server)
    assert before < 41

    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert MARKER not in done.stdout + done.stderr + err
    assert len(server.book.received) == 41
    assert sent(server) <= 41 + 2  # those on their way when it was interrupted


def test_recorded_answers_replay_offline_and_importing_them_twice_adds_nothing(drllama, folder):
    recipe_for(REPLAY)
    write_lines(folder / "recorded.jsonl", recording(EVERYONE))
    words = ["replies", "import", "recorded.jsonl", "--recipe", "recipe.yaml"]
    assert drllama(*words).out == "recorded.jsonl: 21 read, 21 added, 0 there already\n"
    assert drllama(*words).out == "recorded.jsonl: 21 read, 0 added, 21 there already\n"

    assert "majority 0.333" in drllama("audit", "recipe.yaml", "--no-student").out
    assert drllama("augment", "recipe.yaml", "--out", "candidates.jsonl").out.startswith("12 candidates")
    rows = [json.loads(line) for line in (folder / "candidates.jsonl").read_text().splitlines()]
    assert {row["context"] for row in rows if row["method"] == "rewrite"} == {"Told anew."}
    assert "recorded recorded.jsonl" in drllama("replies", "stats").out


def test_a_request_that_wasn_t_recorded_is_named(drllama, folder):
    recipe_for(REPLAY)
    write_lines(folder / "recorded.jsonl", recording(EVERYONE[:-1]))
    drllama("replies", "import", "recorded.jsonl", "--recipe", "recipe.yaml")
    assert (
        "1 x no recorded reply to answer.v1, rollout 0, of large (key "
        in drllama("audit", "recipe.yaml", "--no-student").out
    )
    missed = drllama("augment", "recipe.yaml", "--out", "c.jsonl", "--set", "augment.sampling.temperature=0.7")
    assert missed.code == 1
    assert "no request got a reply; the first: no recorded reply to rewrite.v1, rollout 0, of large" in missed.err
    assert not (folder / "c.jsonl").exists()


def test_a_bad_line_of_a_recording_is_named_and_nothing_is_kept(drllama, folder):
    recipe_for(REPLAY)
    (folder / "recorded.jsonl").write_text(json.dumps(recording(["train0"])[0]) + "\n[]\n")
    refused = drllama("replies", "import", "recorded.jsonl", "--recipe", "recipe.yaml")
    assert refused.err == ("DataError: recorded.jsonl line 2: not a JSON object with an id; mend or remove the line\n")
    assert not (folder / "runs").exists()
    assert drllama("replies", "import", "gone.jsonl", "--recipe", "recipe.yaml").code == 1


@pytest.mark.parametrize("words", [["stats"], ["export", "out.jsonl"]])
def test_a_store_that_isn_t_there_is_told_and_not_made(drllama, folder, words):
    before = sorted(folder.rglob("*"))
    told = drllama("replies", *words, "--store", "nowhere")
    assert (told.code, told.out) == (1, "")
    assert told.err == (
        "StoreError: nowhere/replies.sqlite: isn't there, no reply was kept; name the folder that has it with --store\n"
    )
    assert sorted(folder.rglob("*")) == before


def test_lines_of_a_recording_that_name_no_question_are_counted(drllama, folder):
    recipe_for(REPLAY)
    write_lines(folder / "recorded.jsonl", recording([*EVERYONE, "elsewhere", "test0"]))
    told = drllama("replies", "import", "recorded.jsonl", "--recipe", "recipe.yaml").out
    assert told == (
        "recorded.jsonl: 21 read, 21 added, 0 there already; 2 lines name no question of the recipe's train or dev\n"
    )


@pytest.mark.parametrize("command", [["plan"], ["preview"], ["augment", "--out", "c.jsonl"]])
def test_shares_of_a_label_that_there_isn_t_are_refused_before_anything_is_asked(drllama, server, command):
    live(server, more="augment: {new: {balance: {yes: 0.5, unsure: 0.5}}}\n")
    name, *options = command
    refused = drllama(name, "recipe.yaml", *options)
    assert refused.code == 1
    assert refused.err.splitlines()[-1] == (
        "RecipeError: augment.new.balance names unsure, not among the labels yes, no, maybe; "
        "name labels as the task does"
    )
    assert all("Is ice frozen water?" in json.dumps(body) for body in server.book.bodies)  # the probe at most


def test_replies_move_to_another_machine(drllama, folder):
    recipe_for(REPLAY)
    write_lines(folder / "recorded.jsonl", recording(EVERYONE))
    drllama("replies", "import", "recorded.jsonl", "--recipe", "recipe.yaml")
    assert drllama("replies", "export", "out.jsonl").out == "out.jsonl: written\n"
    assert "" not in (folder / "out.jsonl").read_text().splitlines()
    there = ["--store", "there"]
    assert drllama("replies", "import", "out.jsonl", *there).out == "out.jsonl: 21 read, 21 added, 0 there already\n"
    assert drllama("replies", "import", "out.jsonl", *there).out == "out.jsonl: 21 read, 0 added, 21 there already\n"
    for store in ([], there):
        drllama("augment", "recipe.yaml", "--out", f"candidates{len(store)}.jsonl", *store)
    assert (folder / "candidates0.jsonl").read_bytes() == (folder / "candidates2.jsonl").read_bytes()


def plan_of(drllama, monkeypatch, *words):
    def refuse(*_, **__):
        raise AssertionError("a plan makes no teacher")

    monkeypatch.setattr(plugins, "make_teacher", refuse)
    return drllama("plan", "recipe.yaml", *words)


def test_a_plan_names_the_host_and_whether_it_is_allowed(drllama, monkeypatch):
    recipe_for(REMOTE)
    planned = plan_of(drllama, monkeypatch).out
    assert (
        "what leaves this machine for api.openai.com: questions and contexts of dev; questions, contexts, labels"
        in planned
    )
    assert "not allowed yet: add api.openai.com to allow_hosts, or nothing is sent" in planned
    recipe_for(REMOTE, "allow_hosts: [API.openai.com]\naugment: {rewrite: null}\n")
    planned = plan_of(drllama, monkeypatch).out
    assert "questions and contexts of dev; questions and contexts of train; no test question" in planned
    assert "api.openai.com stands in allow_hosts" in planned


@pytest.mark.parametrize(
    "teacher",
    [REPLAY, "{local: {model: smollm2-135m}}", "{openai-compatible: {base_url: 'http://localhost:1/v1/', model: m}}"],
)
def test_a_plan_says_where_nothing_leaves(drllama, monkeypatch, teacher):
    recipe_for(teacher)
    assert "\nnothing leaves this machine\n" in plan_of(drllama, monkeypatch).out


def test_a_plan_prices_by_the_dated_table_or_the_recipe_or_not_at_all(drllama, monkeypatch):
    recipe_for(REMOTE)
    planned = plan_of(drllama, monkeypatch)
    assert "(price table, seen 2024-07-18)" in planned.out
    assert "assumed: every reply as long as allowed" in planned.out
    own = "teacher.openai-compatible.usd_per_million_tokens=[0, 100]"
    planned = plan_of(drllama, monkeypatch, "--set", own)
    # Three answers of at most 64 tokens, eight other replies of at most 1024.
    assert f"cost: ${(3 * 64 + 8 * 1024) / 1e4:.4f} (the recipe)" in planned.out
    planned = plan_of(drllama, monkeypatch, "--set", "teacher.openai-compatible.model=gpt-99")
    assert "cost: unknown (no price known; set usd_per_million_tokens)" in planned.out


def test_a_plan_tells_the_time_at_the_allowed_rate_and_what_the_test_set_shows(drllama, monkeypatch):
    recipe_for(REMOTE)
    planned = plan_of(drllama, monkeypatch).out
    assert "time at the allowed rate: no rate is set" in planned
    assert "the 60 test questions show a difference in accuracy of 13.7% or more (80 % power" in planned
    assert "one seed, which tells nothing of the luck of training)" in planned
    several = plan_of(drllama, monkeypatch, "--set", "seeds=5").out
    assert "show a difference in accuracy of 11.5% or more" in several
    assert "half of them with every seed, and a point of luck in training; 5 seeds)" in several
    too_few = plan_of(drllama, monkeypatch, "--set", "seeds=2").out
    assert "2 seeds are too few to show any difference in accuracy on the 60 test questions; 3 show 15.0%" in too_few
    too_few = plan_of(drllama, monkeypatch, "--set", "data.jsonl.limit.test=48").out
    assert "one seed is too few to show any difference in accuracy on the 48 test questions; " in too_few
    planned = plan_of(drllama, monkeypatch, "--set", "teacher.openai-compatible.requests_per_minute=2").out
    assert "time at the allowed rate: 5.5 minutes" in planned
    planned = plan_of(drllama, monkeypatch, "--set", "data.jsonl.limit.test=20").out
    assert "the 20 test questions are too few to show any difference in accuracy" in planned


def test_a_plan_tells_of_the_training_only_if_asked_to(drllama, monkeypatch):
    script = Script()
    asked = "augment: {arms: [none, new, duplicate-real], equal: [updates, epochs], without_filter: [duplicates]}\n"
    recipe_for(REPLAY, f"{asked}seeds: 2\n")
    monkeypatch.setattr(plugins, "make_student", None)
    assert "training: --training tells its time and memory" in plan_of(drllama, monkeypatch).out.splitlines()[-1]
    monkeypatch.setattr(plugins, "make_student", script.make_student)
    planned = plan_of(drllama, monkeypatch, "--training")
    assert planned.out.startswith("teacher large at recorded\n")
    arms = "none, new, duplicate-real, new-epochs, duplicate-real-epochs, new-without-duplicates"
    assert planned.out.splitlines()[-1].startswith(f"students to train: 12 (arms: {arms}; seeds: 2); about ")
    assert planned.out.endswith(" ahead, about 1.0 GiB of memory (measured on a few rows just now)\n")
    assert "loading student smollm2-135m" in planned.err
    assert (script.trainings, script.asked) == (0, [])


def test_a_plan_counts_the_students_that_choose_what_the_teacher_works_on(drllama, monkeypatch):
    recipe_for(REPLAY, "augment: {arms: [none, new], select: {by: errors, folds: 4, rounds: 2}}\n")
    monkeypatch.setattr(plugins, "make_student", Script().make_student)

    def told(*settings):
        line = plan_of(drllama, monkeypatch, "--training", *settings).out.splitlines()[-1]
        students, minutes = line.split("; about ")
        return students.split(")")[1], int(minutes.split()[0])

    found = [told(), told("--set", "augment.select.rounds=1"), told("--set", "augment.select={}")]
    assert [students for students, _ in found] == [
        ", and at most 10 more that choose what the teacher works on",
        ", and at most 4 more that choose what the teacher works on",
        "",
    ]
    (two_rounds, one_round, none) = (minutes for _, minutes in found)
    assert two_rounds > one_round > none


def test_a_plan_of_a_recipe_without_a_teacher_tells_of_the_training_alone(drllama, monkeypatch):
    write_recipe(Path("recipe.yaml"), "questions.jsonl")
    assert "the recipe names no teacher" in drllama("plan", "recipe.yaml").err
    monkeypatch.setattr(plugins, "make_student", (script := Script()).make_student)
    assert drllama("plan", "recipe.yaml", "--training").out == (
        "students to train: 1 (arms: none; seeds: 1); about 2 minutes ahead, about 1.0 GiB of memory "
        "(measured on a few rows just now)\n"
    )
    drllama("run", "recipe.yaml")
    assert script.trainings == 1
    assert "nothing ahead: all of them are trained" in drllama("plan", "recipe.yaml", "--training").out


def test_ten_replies_are_a_pilot(folder, server):
    write_questions(folder / "questions.jsonl", train=4, dev=10)
    live(server)
    silent = SimpleNamespace(expect=lambda units: None, work=lambda activity, units=0: None, tell=lambda line: None)
    lesson = teaching.read_lesson(read_recipe(folder / "recipe.yaml").recipe)
    with RequestStore(folder / "replies.sqlite") as replies:
        teaching.audit(lesson, replies=replies, limits=teaching.Limits(), progress=silent)
        planned = planning.plan(lesson, replies=replies, count_tokens=len)
    answers = next(part for part in planned.parts if part.prompt == "answer.v1")
    assert (answers.num_requests, answers.num_kept, answers.tokens_in, answers.tokens_out) == (10, 10, 0, 0)
    assert answers.tokens_out_from == "mean of 11 replies"  # the probe is one


def test_a_recipe_without_a_teacher_is_told_how_to_name_one(drllama, folder):
    write_recipe(folder / "recipe.yaml", "questions.jsonl")
    for command in ("plan", "audit", "preview"):
        assert drllama(command, "recipe.yaml").err.startswith("RecipeError: the recipe names no teacher; add one")


def test_an_address_with_a_password_is_refused_and_not_repeated(drllama):
    recipe_for("{openai-compatible: {base_url: 'https://me:hunter2@host.example/v1', model: m}}")
    for command in ("plan", "audit"):
        refused = drllama(command, "recipe.yaml")
        assert refused.code == 1
        assert "hunter2" not in refused.err + refused.out


def test_nothing_is_sent_to_a_host_that_isn_t_allowed(drllama):
    recipe_for(REMOTE)
    refused = drllama("audit", "recipe.yaml", "--no-student")
    assert refused.code == 1
    assert "nothing may be sent to api.openai.com: it isn't in allow_hosts" in refused.err


@pytest.mark.slow
def test_the_frontier_recording_replays_as_candidates_audit_and_blind_answers(drllama, folder, shared_pubmedqa):
    (folder / "recipe.yaml").write_text(
        f"name: frontier\ndata:\n  pubmedqa: {{path: '{shared_pubmedqa / 'ori_pqal.json'}'}}\nteacher: {REPLAY}\n"
        "augment: {}\nevaluate: {bootstrap_samples: 100}\n"
    )
    words = ["replies", "import", "--recipe", "recipe.yaml"]
    early = drllama(*words, shared_pubmedqa / "votes_frontier.jsonl")
    assert "line 1: answers to what rewrite.v1 asked for, which isn't kept here" in early.err
    assert "900 read, 900 added" in drllama(*words, shared_pubmedqa / "teacher_frontier.jsonl").out
    assert "1400 read, 1400 added" in drllama(*words, shared_pubmedqa / "votes_frontier.jsonl").out

    audit = drllama("audit", "recipe.yaml", "--no-student").out
    assert "The teacher is clearly better than the majority answer (accuracy 0.840 [" in audit
    augment = drllama("augment", "recipe.yaml", "--out", "candidates.jsonl").out
    assert augment.startswith("1350 candidates from 900 requests: candidates.jsonl\nunreadable: 0;")


def test_answers_that_can_t_be_read_are_told_with_their_reasons(drllama, server):
    live(server)
    server.plan = lambda seen: Fault.CUT_OFF if "of dev help" in json.dumps(seen.body) else Fault.NONE
    told = drllama("audit", "recipe.yaml", "--no-student").out
    assert "teacher: 3 of 3 questions got no answer and count as wrong" in told
    assert "\n  3 x a JSON object that doesn't end or is broken\n" in told
