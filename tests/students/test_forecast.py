"""What a training will take, told before it."""

import re
import sys
from pathlib import Path

import pytest
import torch

from drllama.recipe import Finetune, PubMedQADemo, Student
from drllama.sources import PUBMEDQA_TASK
from drllama.sources.pubmedqa_demo import PubMedQADemoSource
from drllama.students import forecast as forecasting
from drllama.students.causal import CausalStudent
from drllama.students.memory import LiveBytes, free_bytes, used_bytes
from drllama.types import TrainingRow
from tiny_student import Told, files_of, finetune_of, questions, rows_of, student_of

CPU = torch.device("cpu")


def told(student, settings):
    return student.forecast(rows_of(questions()), questions(count=3), settings=settings, seed=7)


def trained(student, workspace):
    student.finetune(
        rows_of(questions()),
        questions(count=3),
        settings=finetune_of(lora={"dropout": 0.3}, epochs=1),
        seed=7,
        workspace=workspace,
        progress=Told(),
    )
    return files_of(workspace / "adapter")


@pytest.mark.parametrize("method", ["lora", "alora", "prefix", "ia3", "full"])
def test_a_forecast_leaves_no_trace(tiny_llama, tmp_path, method):
    untouched = trained(student_of(tiny_llama), tmp_path / "untouched")
    student = student_of(tiny_llama)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    found = told(student, Finetune(method=method, epochs=2, batch_size=4, micro_batch_size=4))
    assert torch.equal(torch.get_rng_state(), before)
    assert found.fits
    assert (found.seconds > 0, found.question_seconds > 0, found.way_out) == (True, True, "")
    assert trained(student, tmp_path / "after") == untouched


def test_what_does_not_fit_is_told_with_a_setting_that_would(tiny_llama, monkeypatch):
    student = student_of(tiny_llama)
    needed = told(student, finetune_of(batch_size=8, micro_batch_size=8)).peak_bytes
    assert needed > used_bytes(CPU)
    monkeypatch.setattr(forecasting, "free_bytes", lambda device: 0)
    monkeypatch.setattr(forecasting, "used_bytes", lambda device: needed - 300_000)
    found = told(student, finetune_of(batch_size=8, micro_batch_size=8))
    assert not found.fits
    assert found.way_out.startswith(("set finetune.micro_batch_size=", "set student.max_tokens=", "choose a smaller"))


def test_live_bytes_are_those_of_tensors_that_are_made_and_not_dropped():
    there = torch.ones(1000)
    with LiveBytes() as live:
        live.note([there])
        there.view(10, 100).t()
        assert live.peak == 0
        kept = there * 2
        for _ in range(5):
            _ = kept + 1
            del _
    assert live.peak == 2 * 4000
    assert free_bytes(CPU) is None or free_bytes(CPU) > 1 << 20


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the peak of a block")
def test_the_packaged_student_takes_the_memory_that_was_told(tmp_path):
    splits = PubMedQADemoSource(PubMedQADemo(), None).load()
    student = CausalStudent(Student(device="cpu"), PUBMEDQA_TASK)
    rows, dev = [TrainingRow(example=one) for one in splits.train[:4]], splits.dev[:1]
    settings = finetune_of(lora={"rank": 4}, epochs=1, batch_size=4, micro_batch_size=1)
    found = student.forecast(rows, dev, settings=settings, seed=1)
    Path("/proc/self/clear_refs").write_text("5")  # proc(5): forget the highest resident size so far
    student.finetune(rows, dev, settings=settings, seed=1, workspace=tmp_path, progress=Told())
    (peak,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found.peak_bytes == pytest.approx(int(peak) * 1024, rel=0.25)
