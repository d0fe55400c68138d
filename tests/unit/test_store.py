import os
import re
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace

import pytest

from drllama.errors import StoreError
from drllama.store import Store
from drllama.types import (
    Arm,
    ArmName,
    Cell,
    Choice,
    ClassScores,
    Equality,
    Estimate,
    Evaluation,
    Finetuned,
    LeakAudit,
    Outcome,
    Prediction,
    Ran,
    Reading,
    ReliabilityBin,
    Run,
    StepRecord,
    StudentCard,
    Task,
)

PREDICTIONS = tuple[Prediction, ...]
ANSWER = Prediction(
    example_id="e1",
    source_id="1001",
    gold="是",
    choice="是",
    outcome=Outcome.CORRECT,
    scores_nats={"是": -0.1, "否": -2.5},
    num_tokens=7,
    truncated_tokens=0,
)
SILENCE = replace(ANSWER, example_id="e2", choice=None, outcome=Outcome.FAILED, scores_nats=None, note="it doesn't fit")
HALF = Estimate(value=0.5, low=0.1, high=0.9, n=2, level=0.95, method="wilson")


def not_expected(*_):
    raise AssertionError("this must not be called")


def finish(store, depends_on="it", result=7):
    return store.step("score", depends_on, int, lambda _: result, on_wait=not_expected)


ADAPTER = StepRecord(
    stage="finetune", key="k", folder="steps/finetune-k", seconds=1.5, finished_at="2025-01-01T00:00:00+00:00"
)


NO_LEAKS = LeakAudit(num_real=8, num_synthetic=0, num_dev=2, num_test=10, counts=(), nearest=(), num_clean=8)


CELL = Cell(
    arm="none",
    seed=1,
    fingerprint="f" * 64,
    finetuned=Finetuned(
        epochs=(),
        chosen_epoch=1,
        num_steps=3,
        num_examples=2,
        left_out=("1002: too long",),
        truncated_examples=0,
        trainable_parameters=3,
    ),
    synthetic_weight=1.0,
    on_dev=-0.5,
    weights_on_dev={},
    evaluation=Evaluation(
        system="fine-tuned",
        split="test",
        labels=("是", "否"),
        predictions=(ANSWER, SILENCE),
        counts={Outcome.CORRECT: 1, Outcome.WRONG: 0, Outcome.UNPARSED: 0, Outcome.FAILED: 1},
        metrics={"accuracy": HALF},
        per_class=(ClassScores(label="是", support=2, precision=HALF, recall=HALF, f1=HALF),),
        confusion=((1, 0, 1), (0, 0, 0)),
        reliability=(ReliabilityBin(low=0.9, high=1, n=1, mean_confidence=0.9, accuracy=1),),
    ),
    adapter=ADAPTER,
    scoring=replace(ADAPTER, stage="score"),
    ran=Ran(device="cpu, 2 threads", dtype="float32", processor="a processor", torch="2.12", commit="unknown"),
)


def make_run(run_id, *, finished_at="2025-01-01T00:00:00+00:00"):
    return Run(
        id=run_id,
        finished_at=finished_at,
        command="drllama run recipe.yaml --set 'name=a b'",
        recipe={"name": "scripted", "seed": 1, "data": {"pubmedqa": {"path": None}}, "rate": 1e-3, "labels": ["yes"]},
        task=Task(name="t", instruction="Answer.", labels=("是", "否"), verbalizers={"是": "yes", "否": "no"}),
        environment={"python": "3.11"},
        student=StudentCard(
            model="m", weights_sha256="0", tokenizer_sha256="1", num_parameters=7, device="cpu, 2", dtype="float32"
        ),
        split_sizes={"train": 2, "dev": 1, "test": 2},
        steps=(ADAPTER,),
        taught=None,
        leaks=NO_LEAKS,
        baselines=(),
        arms=(
            Arm(
                id="none",
                name=ArmName.NONE,
                dose=1.0,
                equality=Equality.UPDATES,
                system="fine-tuned",
                num_real=2,
                num_extra=0,
            ),
        ),
        cells=(CELL,),
        num_unfinished=0,
        chosen_arm="none",
        choices=(Choice(what="arm", split="dev", by="nll", among={"none": -0.5}, chosen="none"),),
        readings=(Reading(system="fine-tuned", step="k", at="2025-01-01T00:00:00+00:00", num_questions=2),),
    )


def test_a_finished_step_is_read_and_not_repeated(tmp_path):
    store = Store(tmp_path)
    worked = store.step("score", ["it"], PREDICTIONS, lambda _: (ANSWER, SILENCE), on_wait=not_expected)
    read = Store(tmp_path).step("score", ["it"], PREDICTIONS, not_expected, on_wait=not_expected)
    assert worked == read
    assert read.result == (ANSWER, SILENCE)


def test_a_step_depends_on_all_that_it_is_given_and_on_its_stage(tmp_path):
    store = Store(tmp_path)
    finish(store, {"a": 1, "b": 2})
    assert store.has("score", {"b": 2, "a": 1})
    assert not store.has("score", {"a": 1})
    assert not store.has("score", {"a": 1, "b": 3})
    assert not store.has("finetune", {"a": 1, "b": 2})


def test_a_step_keeps_what_its_work_left_in_the_folder(tmp_path):
    def work(folder):
        (folder / "adapter").mkdir()
        (folder / "adapter" / "weights").write_bytes(b"\x00\x01")
        return 7

    step = Store(tmp_path).step("finetune", "it", int, work, on_wait=not_expected)
    assert (step.folder / "adapter" / "weights").read_bytes() == b"\x00\x01"
    assert tmp_path / step.record.folder == step.folder


def test_a_step_that_failed_is_not_there_and_its_folder_is_given_again(tmp_path):
    store = Store(tmp_path)

    def interrupted(folder):
        (folder / "checkpoint").write_text("half way")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.step("finetune", "it", str, interrupted, on_wait=not_expected)
    assert not store.has("finetune", "it")
    step = store.step("finetune", "it", str, lambda it: (it / "checkpoint").read_text(), on_wait=not_expected)
    assert step.result == "half way"


def python(code, *arguments, **options):
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stdin=subprocess.PIPE,
        text=True,
        **options,
    )


A_WORKER = """
import os, sys
from pathlib import Path
from drllama.store import Store

def work(folder):
    with (folder / "sittings").open("a") as file:
        file.write(f"{os.getpid()}\\n")
    print("working", flush=True)
    sys.stdin.readline()
    return os.getpid()

def waiting(message):
    print(message, flush=True)

print(Store(Path(sys.argv[1])).step("finetune", "it", int, work, on_wait=waiting).result, flush=True)
"""


def test_a_process_killed_in_the_middle_of_a_step_leaves_nothing_finished_and_the_next_one_goes_on(tmp_path):
    with python(A_WORKER, tmp_path) as worker:
        assert worker.stdout.readline() == "working\n"
        worker.send_signal(signal.SIGKILL)
    store = Store(tmp_path)
    assert not store.has("finetune", "it")
    step = store.step(
        "finetune", "it", int, lambda folder: int((folder / "sittings").read_text()), on_wait=not_expected
    )
    assert step.result == worker.pid


def test_two_processes_that_want_the_same_step_work_once(tmp_path):
    with python(A_WORKER, tmp_path) as first:
        assert first.stdout.readline() == "working\n"
        with python(A_WORKER, tmp_path) as second:
            assert second.stdout.readline().startswith("another process is working on finetune-")
            first.communicate("go on\n")
            assert second.stdout.readline() == f"{first.pid}\n"
            second.stdin.close()
    (sittings,) = (tmp_path / "steps").glob("finetune-*/sittings")
    assert sittings.read_text() == f"{first.pid}\n"


def test_parts_of_several_steps_are_done_at_once_in_their_own_folders_but_for_what_is_finished(tmp_path):
    store = Store(tmp_path)
    finish(store, "two")

    def work(folders):
        assert list(folders) == [0, 2]
        for place, folder in folders.items():
            (folder / "checkpoint").write_text(f"place {place}")

    store.parts("score", ["one", "two", "three"], work, on_wait=not_expected)
    assert not store.has("score", "one")
    for name, place in (("three", 2), ("one", 0)):
        step = store.step("score", name, str, lambda it: (it / "checkpoint").read_text(), on_wait=not_expected)
        assert step.result == f"place {place}"


def test_a_step_that_is_asked_for_twice_is_done_once_among_parts(tmp_path):
    asked = []
    Store(tmp_path).parts("score", ["one", "one"], asked.append, on_wait=not_expected)
    assert [len(folders) for folders in asked] == [1]


@pytest.mark.parametrize("content", ["", "{", '"seven"', "[7]", "\x00\xff"])
def test_a_result_that_can_t_be_read_is_told_in_one_line(tmp_path, content):
    step = finish(Store(tmp_path))
    (step.folder / "result.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(StoreError) as told:
        finish(Store(tmp_path))
    assert str(told.value) == f"{step.folder}: the step's result can't be read; delete the folder and run again"


def test_a_step_without_its_record_is_worked_again(tmp_path):
    step = finish(Store(tmp_path), result=7)
    (step.folder / "step.json").unlink()
    assert finish(Store(tmp_path), result=8).result == 8


@contextmanager
def mounted(folder, options):
    """Mount a small file system, where this process may; a test that needs one is left out elsewhere."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if sys.platform != "linux" or os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("only root on Linux can mount the small disk that this test fills")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_told_in_one_line_and_what_was_finished_is_kept(tmp_path):
    with mounted(tmp_path / "small", "size=64k,nr_inodes=64") as folder:
        store = Store(folder)
        kept = store.step("score", "first", str, lambda _: "x" * 8_000, on_wait=not_expected)
        with pytest.raises(StoreError) as told:
            store.step("score", "second", str, lambda _: "x" * 80_000, on_wait=not_expected)
        assert "No space left on device; free some space and run the same command again" in str(told.value)
        assert "\n" not in str(told.value)
        assert not store.has("score", "second")
        assert list(folder.rglob("*.partial")) == []
        assert store.step("score", "first", str, not_expected, on_wait=not_expected) == kept

        with pytest.raises(StoreError, match="No space left"):
            store.save_run(make_run("scripted-1"), {"report.html": "x" * 80_000})
        assert store.runs() == []

        with pytest.raises(StoreError, match="No space left"):
            store.step("finetune", "its own file", str, lambda it: fill(it / "weights"), on_wait=not_expected)
        (weights,) = folder.glob("steps/finetune-*.work/weights")
        weights.unlink()
        assert store.step("score", "second", str, lambda _: "shorter", on_wait=not_expected).result == "shorter"


def fill(path):
    path.write_bytes(bytes(100_000))
    return "written"


def test_a_folder_that_can_t_be_written_to_is_told_and_read_all_the_same(tmp_path):
    with mounted(tmp_path / "small", "size=64k") as folder:
        store = Store(folder)
        kept = finish(store)
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        with pytest.raises(StoreError, match="Read-only file system; choose a folder that you may write to"):
            finish(store, "another")
        with pytest.raises(StoreError, match="Read-only file system"):
            store.save_run(make_run("scripted-1"), {})
        assert finish(store, result=None) == kept


def test_a_file_in_the_place_of_the_results_folder_is_told(tmp_path):
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(StoreError, match="a file stands where a folder belongs"):
        finish(Store(tmp_path / "runs"))
    assert Store(tmp_path / "runs").runs() == []


def test_a_run_is_read_as_it_was_written(tmp_path):
    run = make_run("scripted-1234abcd")
    folder = Store(tmp_path).save_run(run, {"report.md": "# It", "recipe.yaml": "name: 是\n"})
    assert Store(tmp_path).run("scripted-1234abcd") == run
    assert Store(tmp_path).runs() == [run]
    assert (folder / "recipe.yaml").read_text(encoding="utf-8") == "name: 是\n"


def test_a_run_s_manifest_is_written_last(tmp_path):
    (tmp_path / "scripted-1" / "report.html").mkdir(parents=True)  # so that the second file can't be written
    with pytest.raises(StoreError):
        Store(tmp_path).save_run(make_run("scripted-1"), {"report.md": "text", "report.html": "text"})
    assert (tmp_path / "scripted-1" / "report.md").is_file()
    assert not Store(tmp_path).has_run("scripted-1")


def test_runs_come_the_oldest_first(tmp_path):
    store = Store(tmp_path)
    for run_id, day in (("b-2", 3), ("a-1", 2), ("c-3", 1)):
        store.save_run(make_run(run_id, finished_at=f"2025-01-0{day}T00:00:00+00:00"), {})
    assert [run.id for run in store.runs()] == ["c-3", "a-1", "b-2"]


def test_a_run_is_found_by_how_its_id_begins_the_newest_first_and_exactly_before_all(tmp_path):
    store = Store(tmp_path)
    for run_id, day in (("demo-1f", 2), ("demo-1f00", 3), ("demo-77", 1)):
        store.save_run(make_run(run_id, finished_at=f"2025-01-0{day}T00:00:00+00:00"), {})
    assert store.run("demo-1f").id == "demo-1f"
    assert store.run("demo-1").id == "demo-1f00"
    assert store.run("demo-7").id == "demo-77"


def test_one_run_that_can_t_be_read_is_no_hindrance_to_finding_another(tmp_path):
    store = Store(tmp_path)
    store.save_run(make_run("good-1"), {})
    store.save_run(make_run("bad-1"), {})
    (tmp_path / "bad-1" / "manifest.json").write_text("{}")
    assert store.run("good").id == "good-1"
    with pytest.raises(StoreError, match=re.escape(f"{tmp_path}/bad-1/manifest.json: can't be read as a run")):
        store.run("bad")


@pytest.mark.parametrize("name", ["", ".", "..", "../other", "steps", "demo-2"])
def test_what_is_no_run_is_refused_with_a_way_out(tmp_path, name):
    store = Store(tmp_path / "runs")
    with pytest.raises(StoreError, match="no finished runs here; make one with drllama run RECIPE"):
        store.run(name)
    Store(tmp_path).save_run(make_run("other"), {})
    store.save_run(make_run("demo-1"), {})
    finish(store)
    hint = "did you mean 'demo-1'" if name == "demo-2" else "drllama runs lists those that there are"
    with pytest.raises(StoreError, match=re.escape(f"no finished run '{name}'; {hint}")):
        store.run(name)


def test_a_step_of_a_run_whose_folder_is_gone_is_told(tmp_path):
    store = Store(tmp_path)
    run = make_run("demo-1")
    (tmp_path / "steps" / "finetune-k").mkdir(parents=True)
    assert store.step_folder(run, ADAPTER) == tmp_path / "steps" / "finetune-k"
    (tmp_path / "steps" / "finetune-k").rmdir()
    with pytest.raises(StoreError, match="run demo-1 has no folder for its step 'finetune' any more"):
        store.step_folder(run, ADAPTER)


def test_a_file_beside_a_run_lies_in_its_folder(tmp_path):
    path = Store(tmp_path).save_beside_run("demo-1", "more.json", "{}")
    assert path == tmp_path / "demo-1" / "more.json"
    assert path.read_text() == "{}"
