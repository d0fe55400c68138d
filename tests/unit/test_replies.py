import asyncio
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import tracemalloc
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from drllama.errors import DataError, StoreError, TeacherFailure
from drllama.replies import LIVE, Failure, ImportCount, RequestStore
from drllama.types import FailureKind, Finish, Message, Reply, ReplyForm, Sampling, TeacherCall, TeacherRequest

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
SAMPLING = Sampling(temperature=0.8, max_tokens=400, repetition_penalty=2.0)
SCHEMA = {"type": "object", "properties": {"question": {"type": "string"}, "answer": {"type": "string"}}}


def request_number(number=0, **changes):
    fields = {
        "endpoint": "http://localhost:8080/v1",
        "model": "large",
        "prompt": "rewrite.v1",
        "prompt_sha256": "ab" * 32,
        "messages": (Message(role="system", content="Rewrite."), Message(role="user", content=f"Question {number}?")),
        "sampling": SAMPLING,
        "form": ReplyForm.SCHEMA,
        "schema": SCHEMA,
        "rollout": 0,
    }
    return TeacherRequest(**fields | changes)


def reply_saying(text, **changes):
    fields = {"finish": Finish.STOP, "tokens_in": 210, "tokens_out": 42, "seconds": 1.25, "cost_usd": 0.001}
    return Reply(text=text, **fields | changes)


def write_many(path, name, num_batches, batch_size):
    """Run in a process of its own: tell each batch once it is kept."""
    with RequestStore(Path(path)) as store:
        for batch in range(int(num_batches)):
            numbers = range(batch * int(batch_size), (batch + 1) * int(batch_size))
            asked = [request_number(number, model=name if number % 2 else "both") for number in numbers]
            store.keep_many(
                [(one, reply_saying(f"{name} {number}")) for number, one in zip(numbers, asked, strict=True)]
            )
            sys.stdout.write(" ".join(one.key for one in asked) + "\n")
            sys.stdout.flush()


def writer(path, name, num_batches, batch_size):
    command = [sys.executable, __file__, str(path), name, str(num_batches), str(batch_size)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.fixture
def store(tmp_path):
    with RequestStore(tmp_path / "deep" / "folder" / "replies.sqlite", clock=lambda: NOON) as opened:
        yield opened


@pytest.fixture
def varied(store):
    """A store with all that can be in one: replies, second replies, failures, recordings, strange texts."""
    for number, text in enumerate(STRANGE_TEXTS):
        store.keep_many([(request_number(number), reply_saying(text, cost_usd=None, tokens_in=None))])
    for number, kind in enumerate(FailureKind):
        store.keep_many(
            [(request_number(number), TeacherFailure(f"no: {kind}", kind=kind, retry_after_seconds=number or None))]
        )
    store.keep_many([(request_number(0), reply_saying("a second answer"))])
    calls = [TeacherCall(request=request_number(n, model="written"), reply=reply_saying("{}")) for n in range(3)]
    store.record(calls, source="by hand", created_at=NOON - timedelta(days=3))
    return store


STRANGE_TEXTS = [
    '{"question": "plain"}',
    "",
    "{{ braces }} {0} %s \\ \"quotes\" 'single' `ticks` ; DROP TABLE attempts; --",
    "line\nbreaks\r\n\ttabs \u2028 \u2029 \x85 \x0b \x0c and \x00 NUL",
    "中文 हिन्दी العربية 👩‍⚕️ \U0010ffff",
    "half of a pair \ud83d, and the other \ude00",
    "long " * 20_000,
]


def every_attempt(store):
    return [one for key in dict.fromkeys(request_number(n).key for n in range(20)) for one in store.attempts(key)]


def lines_of(store):
    return list(store.export_lines())


def test_a_kept_reply_is_found_by_another_process_that_opens_the_file(store):
    store.keep_many([(request_number(1), reply_saying("yes"))])
    with RequestStore(store.path) as other:
        assert other.find(request_number(1).key) == reply_saying("yes")
        assert other.find_call(request_number(1).key) == TeacherCall(
            request=request_number(1), reply=reply_saying("yes")
        )


def test_a_request_that_was_never_answered_isnt_found(store):
    assert store.find(request_number(1).key) is None
    assert store.find_call(request_number(1).key) is None
    assert store.attempts(request_number(1).key) == []
    store.keep_many([(request_number(1), TeacherFailure("too many requests", kind="rate"))])
    assert store.find(request_number(1).key) is None
    assert store.find_call(request_number(1).key) is None


@pytest.mark.parametrize("text", STRANGE_TEXTS, ids=range(len(STRANGE_TEXTS)))
def test_any_text_comes_back_as_it_was(store, text):
    whole = text.encode(errors="replace").decode()
    request = request_number(messages=(Message(role="user", content=whole),), schema={"description": whole})
    store.keep_many([(request, reply_saying(text))])
    store.keep_many([(request, TeacherFailure(text, kind="unreadable"))])
    assert store.find_call(request.key) == TeacherCall(request=request, reply=reply_saying(text))
    assert store.attempts(request.key)[1].outcome == Failure(
        kind=FailureKind.UNREADABLE, message=text, retry_after_seconds=None
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"messages": (Message(role="system", content="Half \ud83d"),)},
        {"model": "\ude00"},
        {"schema": {"\ud83d": 1}},
        {"prompt": "rewrite.\ud83d"},
    ],
)
def test_half_a_character_in_a_request_is_refused_in_one_line(store, changes):
    with pytest.raises(DataError, match="half of a surrogate pair") as told:
        store.keep_many([(request_number(**changes), reply_saying("yes"))])
    assert "\n" not in str(told.value)
    assert lines_of(store) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"messages": (Message(role="system", content="Rewrite it."), Message(role="user", content="Question 0?"))},
        {"messages": (Message(role="user", content="Rewrite."), Message(role="user", content="Question 0?"))},
        {"endpoint": "http://localhost:8081/v1"},
        {"model": "larger"},
        {"sampling": replace(SAMPLING, temperature=0.7)},
        {"sampling": replace(SAMPLING, top_p=0.9)},
        {"sampling": replace(SAMPLING, repetition_penalty=None)},
        {"sampling": replace(SAMPLING, max_tokens=401)},
        {"schema": {**SCHEMA, "additionalProperties": False}},
        {"form": ReplyForm.JSON},
        {"rollout": 1},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_whatever_changes_in_what_is_sent_is_asked_anew(store, changes):
    store.keep_many([(request_number(), reply_saying("yes"))])
    assert store.find(request_number(**changes).key) is None


def test_the_version_of_a_prompt_alone_asks_nothing_anew(store):
    store.keep_many([(request_number(), reply_saying("yes"))])
    assert store.find(request_number(prompt="rewrite.v2", prompt_sha256="cd" * 32).key) == reply_saying("yes")


def test_the_same_messages_may_be_asked_several_times(store):
    for rollout in range(4):
        store.keep_many([(request_number(rollout=rollout), reply_saying(f"draw {rollout}"))])
    assert [store.find(request_number(rollout=rollout).key).text for rollout in range(4)] == [
        "draw 0",
        "draw 1",
        "draw 2",
        "draw 3",
    ]


def test_the_first_reply_stays_and_every_attempt_is_kept_in_order(store):
    outcomes = [TeacherFailure("slow down", kind="rate", retry_after_seconds=2.5), reply_saying("1"), reply_saying("2")]
    for outcome in outcomes:
        store.keep_many([(request_number(), outcome)])
    assert store.find(request_number().key) == reply_saying("1")
    kept = store.attempts(request_number().key)
    assert [one.outcome for one in kept] == [
        Failure(kind=FailureKind.RATE, message="slow down", retry_after_seconds=2.5),
        reply_saying("1"),
        reply_saying("2"),
    ]
    assert [one.chosen for one in kept] == [False, True, False]
    assert {(one.source, one.created_at) for one in kept} == {(LIVE, "2026-11-22T12:00:00.000000+00:00")}
    assert len({one.id for one in kept}) == 3


@pytest.mark.parametrize(
    ("changes", "twins"),
    [
        ({"temperature": 1}, {"temperature": 1.0}),
        ({"temperature": 0}, {"temperature": -0.0}),
        ({"top_p": 1}, {"top_p": 1.0}),
        ({"repetition_penalty": 2}, {"repetition_penalty": 2.0}),
    ],
)
def test_a_whole_number_and_its_decimal_twin_are_the_same_request(store, changes, twins):
    store.keep_many([(request_number(sampling=replace(SAMPLING, **changes)), reply_saying("yes"))])
    assert store.find(request_number(sampling=replace(SAMPLING, **twins)).key) == reply_saying("yes")


def test_a_request_comes_back_with_its_key_whatever_kind_its_numbers_are(store):
    for temperature in (0, 0.0, 1, 1.0):
        request = request_number(sampling=Sampling(temperature=temperature, max_tokens=9))
        store.keep_many([(request, reply_saying("yes"))])
        assert store.find_call(request.key).request.key == request.key
    with RequestStore(store.path.with_name("other.sqlite")) as other:
        assert other.import_lines(store.export_lines(), source="elsewhere").added == 4


def test_a_schema_keeps_the_order_of_its_fields(store):
    backwards = {"properties": {"z": {}, "a": {}}, "type": "object"}
    store.keep_many([(request_number(schema=backwards), reply_saying("yes"))])
    schema = store.find_call(request_number(schema=backwards).key).request.schema
    assert [list(schema), list(schema["properties"])] == [["properties", "type"], ["z", "a"]]


def test_a_number_that_is_none_is_refused_and_nothing_is_kept(store):
    for outcome in (reply_saying("yes", cost_usd=-1.0), reply_saying("yes", seconds=float("nan"))):
        with pytest.raises(DataError):
            store.keep_many([(request_number(), outcome)])
    with pytest.raises(DataError, match="rollout"):
        store.keep_many([(request_number(rollout=2**63), reply_saying("yes"))])
    assert lines_of(store) == []


def test_every_commit_is_on_the_disk_before_keep_returns(store, monkeypatch):
    opened = []
    connect = sqlite3.connect
    monkeypatch.setattr(
        sqlite3, "connect", lambda *args, **kwargs: opened.append(connect(*args, **kwargs)) or opened[-1]
    )
    store.keep_many([(request_number(), reply_saying("yes"))])
    (connection,) = opened
    full, write_ahead = 2, "wal"
    assert connection.execute("PRAGMA synchronous").fetchone()[0] == full
    assert connection.execute("PRAGMA journal_mode").fetchone()[0] == write_ahead
    assert not connection.in_transaction


def test_several_attempts_are_kept_wholly_or_not_at_all(store):
    good, bad = (request_number(1), reply_saying("yes")), (request_number(model="\ud83d"), reply_saying("no"))
    with pytest.raises(DataError):
        store.keep_many([good, bad])
    assert store.find(good[0].key) is None
    store.keep_many([good, (request_number(2), TeacherFailure("gone", kind="transient")), good])
    assert [len(store.attempts(request_number(n).key)) for n in (1, 2)] == [2, 1]


@pytest.mark.parametrize("num_told", [1, 13])
def test_kill_9_loses_nothing_that_was_kept(tmp_path, num_told):
    process = writer(tmp_path / "replies.sqlite", "one", 10_000, 1)
    told = [process.stdout.readline() for _ in range(num_told)]
    process.send_signal(signal.SIGKILL)
    told += process.stdout.readlines()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    with RequestStore(tmp_path / "replies.sqlite") as store:
        whole = [line.strip() for line in told if line.endswith("\n")]
        assert all(store.find(key) is not None for key in whole)
        # The one that was being kept may be there or not, but not in part.
        assert len(lines_of(store)) - len(whole) in (0, 1)
        assert_sound(store)
        store.keep_many([(request_number(-1), reply_saying("it goes on"))])
        assert store.find(request_number(-1).key) is not None


def test_kill_9_amid_many_keeps_leaves_no_part_of_a_batch(tmp_path):
    num_told = 3
    process = writer(tmp_path / "replies.sqlite", "one", 10_000, 50)
    for _ in range(num_told):
        process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    with RequestStore(tmp_path / "replies.sqlite") as store:
        num_rows = len(lines_of(store))
        assert num_rows >= 50 * num_told
        assert num_rows % 50 == 0
        assert_sound(store)


def assert_sound(store):
    with sqlite3.connect(store.path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()
    with RequestStore(store.path.with_name("copy.sqlite")) as copy:
        assert copy.import_lines(store.export_lines(), source="copy").already_there == 0


def test_two_processes_write_five_hundred_rows_each(tmp_path):
    path = tmp_path / "deep" / "replies.sqlite"
    processes = [writer(path, name, 25, 20) for name in ("one", "two")]
    told = [process.communicate()[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    with RequestStore(path) as store:
        rows = [json.loads(line) for line in store.export_lines()]
        assert len({row["id"] for row in rows}) == 1_000
        assert Counter(row["key"] for row in rows) == Counter(told[0] + told[1])
        chosen = [one for key in set(told[0] + told[1]) for one in store.attempts(key) if one.chosen]
        assert len(chosen) == len(set(told[0] + told[1])) == 750


def test_threads_and_tasks_share_one_store(store):
    threads = [
        threading.Thread(target=store.keep_many, args=([(request_number(number), reply_saying("thread"))],))
        for number in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    async def ask_all():
        async def ask(number):
            await asyncio.to_thread(store.keep_many, [(request_number(number), reply_saying("task"))])
            return store.find(request_number(number).key)

        return await asyncio.gather(*map(ask, range(16)))

    assert [reply.text for reply in asyncio.run(ask_all())] == ["thread"] * 8 + ["task"] * 8


def test_an_export_imported_elsewhere_is_the_same_store(varied, tmp_path):
    with RequestStore(tmp_path / "copy.sqlite") as copy:
        lines = lines_of(varied)
        assert copy.import_lines(lines, source="laptop, 2026-11-22") == ImportCount(
            read=len(lines), added=len(lines), already_there=0
        )
        assert every_attempt(copy) == [
            replace(one, source="laptop, 2026-11-22" if one.source == LIVE else one.source)
            for one in every_attempt(varied)
        ]
        assert [line.replace("laptop, 2026-11-22", LIVE) for line in lines_of(copy)] == lines
        assert [one.source for one in copy.attempts(request_number(model="written").key)] == ["by hand"]
        with RequestStore(tmp_path / "third.sqlite") as third:
            third.import_lines(copy.export_lines(), source="not used: these rows have a label")
            assert lines_of(third) == lines_of(copy)
        assert varied.import_lines(copy.export_lines(), source="back again").added == 0


def test_importing_twice_adds_nothing(varied, tmp_path):
    lines = lines_of(varied)
    with RequestStore(tmp_path / "copy.sqlite") as copy:
        copy.import_lines(lines, source="first")
        once = lines_of(copy)
        assert copy.import_lines(lines, source="second") == ImportCount(
            read=len(lines), added=0, already_there=len(lines)
        )
        assert lines_of(copy) == once


def test_an_import_never_replaces_the_reply_that_is_used(store, tmp_path):
    with RequestStore(tmp_path / "other.sqlite") as other:
        other.keep_many([(request_number(), reply_saying("theirs"))])
        store.keep_many([(request_number(), reply_saying("ours"))])
        store.import_lines(other.export_lines(), source="other")
    assert store.find(request_number().key) == reply_saying("ours")
    assert [(one.source, one.chosen) for one in store.attempts(request_number().key)] == [
        (LIVE, True),
        ("other", False),
    ]


def test_an_export_is_a_text_file_of_one_line_an_attempt(varied, tmp_path):
    with (tmp_path / "replies.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(varied.export_lines())
    text = (tmp_path / "replies.jsonl").read_text(encoding="utf-8")
    assert text.splitlines(keepends=True) == lines_of(varied)
    assert {json.loads(line)["format"] for line in text.splitlines()} == {1}
    with (tmp_path / "replies.jsonl").open(encoding="utf-8") as file, RequestStore(tmp_path / "copy.sqlite") as copy:
        assert copy.import_lines(file, source="replies.jsonl").already_there == 0


def test_an_export_can_be_of_one_model_or_endpoint(varied):
    varied.keep_many([(request_number(endpoint="local:abc"), reply_saying("yes"))])
    lines = lines_of(varied)
    written = list(varied.export_lines(model="written"))
    local = list(varied.export_lines(endpoint="local:abc"))
    assert [len(written), len(local)] == [3, 1]
    assert set(written + local) < set(lines)
    assert list(varied.export_lines(endpoint="local:abc", model="written")) == []


def test_what_is_kept_during_an_export_isnt_in_it_and_doesnt_wait_for_it(store):
    for number in range(3):
        store.keep_many([(request_number(number), reply_saying("before"))])
    export = store.export_lines()
    first = next(export)
    store.keep_many([(request_number(9), reply_saying("meanwhile"))])
    assert len([first, *export]) == 3
    assert store.find(request_number(9).key) == reply_saying("meanwhile")


def spoilt(line, **changes):
    fields = json.loads(line)
    for place, value in changes.items():
        *outer, last = place.split("__")
        inner = fields
        for name in outer:
            inner = inner[name]
        inner.pop(last, None)
        if value is not None:
            inner[last] = value
    return json.dumps(fields)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda line: line[:-20], "isn't JSON"),
        (lambda line: "[" * 100_000, "isn't JSON"),
        (lambda line: "[1, 2]", "isn't an attempt"),
        (lambda line: '{"id": "18251357", "rewrite": {}}', "isn't an attempt"),
        (lambda line: spoilt(line, format=None), "isn't an attempt"),
        (lambda line: spoilt(line, format=2), "format 2, .*upgrade drllama"),
        (lambda line: spoilt(line, id="7"), "isn't an attempt"),
        (lambda line: spoilt(line, source=""), "isn't an attempt"),
        (lambda line: spoilt(line, source="\ud83d"), "half of a surrogate pair"),
        (lambda line: spoilt(line, key="0" * 64), "isn't that of its request"),
        (lambda line: spoilt(line, request__model="another"), "isn't that of its request"),
        (lambda line: spoilt(line, request__model=None), r"TeacherRequest\.model"),
        (lambda line: spoilt(line, request__rollout="0"), r"TeacherRequest\.rollout"),
        (lambda line: spoilt(line, request__tools=[]), "TeacherRequest has no field 'tools'"),
        (lambda line: spoilt(line, request__sampling__seed=1), "Sampling has no field 'seed'"),
        (lambda line: spoilt(line, request__messages=[{"role": "tool", "content": ""}]), r"messages\.0\.role"),
        (lambda line: spoilt(line, request__sampling__temperature=float("nan")), "JSON"),
        (lambda line: spoilt(line, reply=None), "needs a reply or a failure"),
        (lambda line: spoilt(line, failure={"kind": "rate"}), "needs a reply or a failure"),
        (lambda line: spoilt(line, reply=None, failure={"kind": "bored", "message": ""}), r"Failure\.kind"),
        (lambda line: spoilt(line, reply__finish="done"), r"Reply\.finish"),
        (lambda line: spoilt(line, reply__text=7), r"Reply\.text"),
        (lambda line: spoilt(line, reply__cost_usd="cheap"), r"Reply\.cost_usd"),
        (lambda line: spoilt(line, reply__tokens_out=-1), "tokens_out"),
        (lambda line: spoilt(line, reply__tokens_out=2**63), "tokens_out"),
        (lambda line: spoilt(line, created_at="yesterday"), "created_at 'yesterday'"),
        (lambda line: spoilt(line, created_at="2026-11-22T12:00:00"), "no time zone"),
    ],
)
def test_a_bad_line_is_named_and_the_good_ones_can_be_imported_again(store, tmp_path, spoil, told):
    for number in range(3):
        store.keep_many([(request_number(number), reply_saying("yes"))])
    lines = lines_of(store)
    bad = [lines[0], "\n", spoil(lines[1]), lines[2]]
    with RequestStore(tmp_path / "copy.sqlite") as copy:
        with pytest.raises(DataError, match=rf"^replies\.jsonl line 3: .*{told}.*import again") as error:
            copy.import_lines(bad, source="replies.jsonl")
        assert "\n" not in str(error.value)
        assert len(str(error.value)) < 500
        copy.import_lines([lines[0], lines[2]], source="replies.jsonl")
        assert copy.import_lines(lines, source="replies.jsonl") == ImportCount(read=3, added=1, already_there=2)


def test_a_file_that_isnt_text_is_told(store, tmp_path):
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    with (tmp_path / "photo.jpg").open(encoding="utf-8") as file, pytest.raises(DataError, match=r"photo.*UTF-8"):
        store.import_lines(file, source="photo.jpg")


def test_recorded_replies_are_labelled_with_source_and_date_and_come_once(store):
    calls = [TeacherCall(request=request_number(n), reply=reply_saying("{}", cost_usd=None)) for n in range(450)]
    written = datetime(2026, 11, 20, 1, tzinfo=timezone(timedelta(hours=2)))
    assert store.record(calls, source="by a large model", created_at=written).added == 450
    assert store.record(calls, source="by a large model", created_at=NOON) == ImportCount(
        read=450, added=0, already_there=450
    )
    (kept,) = store.attempts(request_number(7).key)
    assert (kept.source, kept.created_at, kept.chosen) == (
        "by a large model",
        "2026-11-19T23:00:00.000000+00:00",
        True,
    )


@pytest.mark.parametrize("source", [LIVE, ""])
def test_recorded_replies_cant_pass_for_live_ones(store, source):
    with pytest.raises(StoreError, match="can't be labelled"):
        store.record([], source=source, created_at=NOON)
    with pytest.raises(StoreError, match="can't be labelled"):
        store.import_lines([], source=source)


def test_statistics_add_up_and_an_unknown_cost_is_never_nothing(tmp_path):
    moments = iter(NOON + timedelta(minutes=minute) for minute in range(99))
    with RequestStore(tmp_path / "replies.sqlite", clock=lambda: next(moments)) as store:
        assert store.stats().rows == ()
        store.keep_many([(request_number(1), TeacherFailure("slow down", kind="rate"))])
        store.keep_many([(request_number(1), TeacherFailure("slow down", kind="rate"))])
        store.keep_many([(request_number(2), TeacherFailure("broke", kind="transient"))])
        store.keep_many([(request_number(1), reply_saying("1", cost_usd=0.25))])
        store.keep_many([(request_number(1), reply_saying("paid twice", cost_usd=0.5))])
        store.keep_many([(request_number(2), reply_saying("2", cost_usd=None, tokens_out=None))])
        store.keep_many([(request_number(3, model="other"), reply_saying("3", cost_usd=0.0))])
        large, other = store.stats().rows
    assert (large.model, large.prompt, large.source) == ("large", "rewrite.v1", LIVE)
    assert (large.attempts, large.replies) == (6, 3)
    assert large.failures == {FailureKind.RATE: 2, FailureKind.TRANSIENT: 1}
    assert (large.tokens_in, large.tokens_out, large.unknown_tokens) == (630, 84, 1)
    assert (large.known_cost_usd, large.unknown_costs) == (0.75, 1)
    assert (large.first_at, large.last_at) == ("2026-11-22T12:00:00.000000+00:00", "2026-11-22T12:05:00.000000+00:00")
    assert (other.attempts, other.failures, other.known_cost_usd, other.unknown_costs) == (1, {}, 0.0, 0)


def test_statistics_part_endpoints_models_prompts_and_sources(varied):
    varied.keep_many([(request_number(prompt="new.v1"), reply_saying("yes"))])
    varied.keep_many([(request_number(endpoint="local:abc"), reply_saying("yes"))])
    rows = varied.stats().rows
    assert [(one.endpoint, one.model, one.prompt, one.source) for one in rows] == [
        ("http://localhost:8080/v1", "large", "new.v1", LIVE),
        ("http://localhost:8080/v1", "large", "rewrite.v1", LIVE),
        ("http://localhost:8080/v1", "written", "rewrite.v1", "by hand"),
        ("local:abc", "large", "rewrite.v1", LIVE),
    ]
    assert sum(one.attempts for one in rows) == len(lines_of(varied))
    assert all(one.attempts == one.replies + sum(one.failures.values()) for one in rows)


@pytest.mark.slow
def test_memory_is_flat_while_twenty_thousand_rows_are_exported(store):
    store.keep_many([(request_number(), reply_saying("words " * 100))])
    connection = sqlite3.connect(store.path)
    columns = [name for _, name, *_ in connection.execute("PRAGMA table_info(attempts)")]
    copied = {"number": "NULL", "id": "lower(hex(randomblob(16)))", "chosen": "0"}
    connection.execute(
        f"""WITH RECURSIVE counted(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counted WHERE n < 19999)
        INSERT INTO attempts SELECT {", ".join(copied.get(name, name) for name in columns)}
        FROM attempts, counted"""
    )
    connection.commit()
    connection.close()
    next(store.export_lines())
    tracemalloc.start()
    num_characters = num_lines = 0
    for line in store.export_lines():
        num_lines += 1
        num_characters += len(line)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert num_lines == 20_000
    assert num_characters > 20_000_000
    assert peak_bytes < 500_000


# What a person can get wrong


@contextmanager
def ordinary_user():
    """Permissions don't bind the superuser, so that one becomes nobody for a while."""
    was_root = os.geteuid() == 0
    if was_root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if was_root:
            os.seteuid(0)


def assert_told(path, match, *, busy_seconds=0.05):
    """Each use says in one line what is wrong, where, and the way out."""
    with RequestStore(path, busy_seconds=busy_seconds) as store:
        uses = (
            lambda: store.find("0" * 64),
            lambda: store.keep_many([(request_number(), reply_saying("yes"))]),
            lambda: store.stats(),
            lambda: lines_of(store),
        )
        for use in uses:
            with pytest.raises(StoreError, match=match) as told:
                use()
            assert "\n" not in str(told.value)
            assert str(path.parent) in str(told.value)
            assert "; " in str(told.value)


def test_a_file_that_isnt_a_database_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "replies.jsonl"
    path.write_text('{"id": 1}\n' * 500)
    assert_told(path, "isn't a store of replies")
    assert path.read_text() == '{"id": 1}\n' * 500


def test_another_programs_database_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "browser.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE history (url)")
    connection.close()
    before = path.read_bytes()
    assert_told(path, "another program's database")
    assert path.read_bytes() == before


def test_a_newer_format_is_refused_and_left_alone(store):
    store.keep_many([(request_number(), reply_saying("yes"))])
    store.close()
    with sqlite3.connect(store.path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    assert_told(store.path, "has format 99.*upgrade drllama")


def test_an_empty_file_becomes_a_store(tmp_path):
    (tmp_path / "replies.sqlite").touch()
    with RequestStore(tmp_path / "replies.sqlite") as store:
        store.keep_many([(request_number(), reply_saying("yes"))])
        assert store.find(request_number().key) == reply_saying("yes")


def test_a_folder_or_a_file_in_the_way_is_told(tmp_path):
    (tmp_path / "file").touch()
    assert_told(tmp_path / "file" / "deep" / "replies.sqlite", "file stands where a folder is needed")
    assert_told(tmp_path, "can't be opened")


def test_a_damaged_file_is_told(store):
    store.keep_many([(request_number(number), reply_saying("words " * 1000)) for number in range(20)])
    store.close()
    size = store.path.stat().st_size
    with store.path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * (size - 4096))
    assert_told(store.path, "is damaged")


def test_a_row_that_was_edited_by_hand_is_told(store):
    store.keep_many([(request_number(), reply_saying("yes"))])
    with sqlite3.connect(store.path) as connection:
        connection.execute("UPDATE attempts SET reply = replace(reply, 'stop', 'done')")
    connection.close()
    with pytest.raises(StoreError, match=r"replies\.sqlite: a row can't be read: Reply\.finish"):
        store.find(request_number().key)


def test_a_locked_file_is_told_after_a_while_and_can_still_be_read(store):
    store.keep_many([(request_number(), reply_saying("yes"))])
    other = sqlite3.connect(store.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with RequestStore(store.path, busy_seconds=0.05) as waiting:
        with pytest.raises(StoreError, match=r"replies\.sqlite: another process keeps it locked; wait"):
            waiting.keep_many([(request_number(1), reply_saying("no"))])
        assert waiting.find(request_number().key) == reply_saying("yes")
        other.execute("ROLLBACK")
        waiting.keep_many([(request_number(1), reply_saying("now"))])
        assert waiting.find(request_number(1).key) == reply_saying("now")
    other.close()


def test_a_file_locked_as_a_whole_is_told(store):
    store.keep_many([(request_number(), reply_saying("yes"))])
    store.close()
    other = sqlite3.connect(store.path, isolation_level=None)
    other.execute("PRAGMA locking_mode = EXCLUSIVE")
    other.execute("BEGIN EXCLUSIVE")
    assert_told(store.path, "another process keeps it locked")
    other.close()


def test_a_full_disk_is_told_and_what_was_kept_stays(store, monkeypatch):
    connect = sqlite3.connect

    def connect_to_small_disk(*args, **kwargs):
        connection = connect(*args, **kwargs)
        connection.execute("PRAGMA max_page_count = 40")
        return connection

    monkeypatch.setattr(sqlite3, "connect", connect_to_small_disk)
    num_kept = 0
    with pytest.raises(StoreError, match=r"replies\.sqlite: the disk is full; free some space"):
        while True:
            store.keep_many([(request_number(num_kept), reply_saying("words " * 500))])
            num_kept += 1
    assert num_kept > 5
    assert all(store.find(request_number(number).key) is not None for number in range(num_kept))
    assert store.find(request_number(num_kept).key) is None
    store.close()
    monkeypatch.undo()
    store.keep_many([(request_number(num_kept), reply_saying("there is space again"))])
    assert len(lines_of(store)) == num_kept + 1


def test_a_place_that_one_may_not_write_to_is_told():
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        with RequestStore(Path(folder) / "there.sqlite") as store:
            store.keep_many([(request_number(), reply_saying("yes"))])
        open_folder = Path(folder) / "open"
        open_folder.mkdir()
        shutil.copyfile(store.path, open_folder / "read-only.sqlite")
        (open_folder / "read-only.sqlite").chmod(0o444)
        open_folder.chmod(0o777)
        Path(folder).chmod(0o555)
        names = ("there.sqlite", "not-there.sqlite", "deep/folder/replies.sqlite", "open/read-only.sqlite")
        for name in names:
            with ordinary_user(), RequestStore(Path(folder) / name) as store:
                with pytest.raises(StoreError, match="that you may write to") as told:
                    store.keep_many([(request_number(1), reply_saying("no"))])
                assert folder in str(told.value)
                assert "\n" not in str(told.value)
        Path(folder).chmod(0o755)


if __name__ == "__main__":
    write_many(*sys.argv[1:])
