"""Whole runs as a person starts them, with a tiny real student, and once with the packaged one."""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import commands
import pytest
import torch

import tiny_student
from drllama import cli
from forked import Forked, finished

SYSTEMS = ("majority", "untrained", "fine-tuned")
EPOCHS = 40
RECIPE = """
name: tiny
data:
  jsonl: {{path: {questions}}}
task:
  labels: ["yes", "no"]
student: {{model: {model}, device: cpu, max_tokens: 128}}
finetune:
  method: {{lora: {{rank: 2, alpha: 4, dropout: 0.2}}}}
  epochs: {epochs}
  batch_size: 4
  learning_rate: 0.01
evaluate: {{bootstrap_samples: 100}}
"""


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory):
    return tiny_student.save_tiny("llama", tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def recipes(tiny_model, tmp_path_factory):
    """A folder with 18 questions, a recipe of two epochs (short) and one of many (long)."""
    folder = tmp_path_factory.mktemp("recipes")
    with (folder / "questions.jsonl").open("w") as file:
        for number in range(18):
            word, label = (("rose", "yes"), ("fell", "no"))[number % 2]
            row = {
                "id": f"q{number}",
                "question": f"Did the pain of patient {number} rise?",
                "context": f"Patient {number} was asked. " * (1 + number % 4) + f"It {word}.",
                "label": label,
                "split": "train" if number < 10 else "dev" if number < 13 else "test",
            }
            file.write(json.dumps(row) + "\n")
    for name, epochs in (("short", 2), ("long", EPOCHS)):
        text = RECIPE.format(questions=folder / "questions.jsonl", model=tiny_model, epochs=epochs)
        (folder / f"{name}.yaml").write_text(text)
    return folder


@pytest.fixture
def here(monkeypatch, capsys):
    """Carry out a command in this process and return its exit code, its output and its errors."""

    def carry_out(*words):
        monkeypatch.setattr(sys, "argv", ["drllama", *map(str, words)])
        capsys.readouterr()
        try:
            cli.main()
        except SystemExit as end:
            code = end.code or 0
        else:
            code = 0
        told = capsys.readouterr()
        return code, told.out, told.err

    return carry_out


def adapter_files(store):
    (folder,) = store.glob("steps/finetune-*/adapter")
    return tiny_student.files_of(folder)


def written(store):
    return {path: path.stat().st_mtime_ns for path in store.rglob("*") if path.is_file() and path.suffix != ".lock"}


def assert_table(text):
    """Check that each system has its metrics with intervals, and that the report and the adapter are there."""
    for system in SYSTEMS:
        (row,) = (line for line in text.splitlines() if re.match(rf"{system} +\d", line))
        estimates = re.findall(r"([\d.]+) \[([\d.]+), ([\d.]+)\]", row)
        assert len(estimates) >= 2
        assert all(float(low) <= float(value) <= float(high) for value, low, high in estimates[:2])
    (report,), (adapter,) = re.findall(r"^report: +(.+)$", text, re.M), re.findall(r"^adapter: +(.+)$", text, re.M)
    html = Path(report).read_text()
    assert all(system in html for system in SYSTEMS)
    assert (Path(adapter) / "adapter_model.safetensors").is_file()


def test_a_run_trains_scores_and_reports_and_is_not_repeated(recipes, tmp_path, here):
    recipe, store = recipes / "short.yaml", tmp_path / "runs"
    code, table, told = here("run", recipe, "--store", store)
    assert (code, "Traceback" in told) == (0, False)
    assert_table(table)
    assert "training, epoch 2 of 2" in told
    before = written(store)

    code, again, told = here("run", recipe, "--store", store)
    assert (code, again, written(store)) == (0, table, before)
    assert not re.search("training|scoring", told)

    # Another report is another run; its steps are the same.
    code, other, told = here("run", recipe, "--store", store, "--set", "report.worst_mistakes=1")
    assert code == 0
    assert other != again
    assert not re.search("training|scoring", told)
    assert before.items() <= written(store).items()

    name = re.search(r"^run (\S+):", table, re.M)[1]
    code, _, told = here("eval", name, "--split", "dev", "--store", store)
    assert code == 1
    assert re.fullmatch(r"OverlapError: run \S+, split dev: 3 of 3 questions .*\n", told.splitlines(keepends=True)[-1])
    code, answer, _ = here("ask", name, "Did the pain rise?", "--store", store)
    assert code == 0
    assert answer.split()[0] in ("yes", "no")


def test_a_training_that_cannot_go_on_is_told_in_one_line(recipes, tmp_path, here):
    recipe, store = recipes / "short.yaml", tmp_path / "runs"
    code, _, told = here("run", recipe, "--store", store, "--set", "finetune.learning_rate=1e30")
    assert code == 1
    assert told.splitlines()[-1].startswith("ModelError: after epoch ")
    assert "Traceback" not in told


@pytest.fixture(scope="module")
def undisturbed(recipes, tmp_path_factory):
    store = tmp_path_factory.mktemp("undisturbed")
    finished("run", recipes / "long.yaml", "--store", store)
    return adapter_files(store)


@pytest.mark.slow
@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGINT], ids=["kill -9", "Ctrl-C"])
def test_a_stopped_run_goes_on_and_ends_with_the_same_adapter(recipes, tmp_path, undisturbed, sign):
    command = ("run", recipes / "long.yaml", "--store", tmp_path)
    stopped = Forked(*command)
    stopped.wait_for(f"training, epoch 6 of {EPOCHS}")
    stopped.send(sign)
    code = stopped.end()
    assert f"training, epoch {EPOCHS} of" not in stopped.err, "stopped in training"
    if sign == signal.SIGINT:
        assert code == 130
        assert stopped.err.splitlines()[-1] == "interrupted; run the same command again: it goes on where it stopped"
        assert "Traceback" not in stopped.err
    else:
        assert code == -sign
    assert not list(tmp_path.glob("*/manifest.json"))
    again = finished(*command)
    assert_table(again.out)
    assert "training, epoch 1 of" not in again.err
    assert adapter_files(tmp_path) == undisturbed


@pytest.mark.slow
def test_of_two_runs_at_once_one_trains_and_both_end_well(recipes, tmp_path, undisturbed):
    both = [Forked("run", recipes / "long.yaml", "--store", tmp_path) for _ in range(2)]
    assert [one.end() for one in both] == [0, 0], [one.err for one in both]
    assert both[0].out == both[1].out
    assert sorted(f"training, epoch {EPOCHS} of" in one.err for one in both) == [False, True]
    assert adapter_files(tmp_path) == undisturbed


@pytest.fixture
def small_disk(tmp_path):
    """A disk whose size in kilobytes can be set."""
    disk = tmp_path / "disk"
    disk.mkdir()

    def resize(kilobytes):
        options = f"size={kilobytes}k" if not disk.is_mount() else f"remount,size={kilobytes}k"
        if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", disk], capture_output=True).returncode:
            pytest.skip("only root can mount a small disk")
        return disk

    yield resize
    if disk.is_mount():
        subprocess.run(["umount", disk], check=True)


@pytest.mark.slow
def test_a_full_disk_is_told_in_one_line_and_with_more_space_the_run_goes_on(recipes, tmp_path, small_disk, here):
    recipe, refused, trained = recipes / "short.yaml", 0, False
    for kilobytes in (4, 8, 16, 24, 32, 48, 64, 80, 96, 128, 160, 200, 256, 320, 512, 1024):
        disk = small_disk(kilobytes)
        code, table, told = here("run", recipe, "--store", disk)
        assert not (trained and "training" in told), "a finished step is not repeated"
        trained = any(disk.glob("steps/finetune-*/step.json"))
        assert "Traceback" not in told
        if code == 0:
            break
        refused += 1
        line = told.splitlines()[-1]
        assert re.fullmatch(
            rf"StoreError: {disk}\S+: No space left on device; "
            "free some space and run the same command again: finished steps are kept",
            line,
        )
    assert_table(table)
    assert refused >= 4
    here("run", recipe, "--store", tmp_path / "roomy")
    assert adapter_files(disk) == adapter_files(tmp_path / "roomy")


DEMO = """
name: demo
data:
  pubmedqa-demo: {{limit: {limit}}}
student: {{model: {model}, device: cpu, max_tokens: {max_tokens}}}
finetune: {{method: {{lora: {{targets: [q_proj, v_proj], top_layers: 2}}}}, epochs: 1}}
evaluate: {{bootstrap_samples: 100}}
"""
OFFICIAL = """
name: official
data:
  pubmedqa: {{path: {path}, limit: {{test: {test}}}}}
"""


@pytest.mark.slow
def test_a_student_trained_on_the_demo_is_refused_on_the_official_test(tiny_model, tmp_path, shared_pubmedqa, here):
    store = tmp_path / "runs"
    (tmp_path / "demo.yaml").write_text(
        DEMO.format(limit="{train: 8, dev: 4, test: 6}", model=tiny_model, max_tokens=512)
    )
    code, table, told = here("run", tmp_path / "demo.yaml", "--store", store)
    assert code == 0, told
    name = re.search(r"^run (\S+):", table, re.M)[1]
    (tmp_path / "official.yaml").write_text(OFFICIAL.format(path=shared_pubmedqa / "ori_pqal.json", test="null"))
    code, out, told = here("eval", name, "--on", tmp_path / "official.yaml", "--store", store)
    assert (code, out) == (1, "")
    assert re.match(rf"OverlapError: run {name}, split test: 12 of 500 questions ", told.splitlines()[-1])
    # The demo holds the official test half only: the other half is fair.
    code, out, told = here(
        "eval", name, "--on", tmp_path / "official.yaml", "--set", "data.pubmedqa.limit.train=5",
        "--split", "train", "--store", store,
    )  # fmt: skip
    assert code == 0, told
    assert "fine-tuned" in out


@pytest.mark.slow
def test_the_packaged_student_runs_from_its_name(tmp_path):
    text = DEMO.format(limit="{train: 3, dev: 2, test: 3}", model="smollm2-135m", max_tokens=128)
    (tmp_path / "demo.yaml").write_text(text)
    first = commands.finished("run", tmp_path / "demo.yaml", "--store", tmp_path / "runs", OMP_NUM_THREADS="1")
    assert first.returncode == 0, first.stderr
    assert_table(first.stdout)
    assert first.stdout.startswith("run demo-")
    assert "smollm2-135m on pubmedqa (3 train, 2 dev, 3 test)" in first.stdout.splitlines()[0]
    before = written(tmp_path / "runs")
    again = finished("run", tmp_path / "demo.yaml", "--store", tmp_path / "runs")
    assert (again.out, written(tmp_path / "runs")) == (first.stdout, before)
    assert not re.search("training|scoring", again.err)
