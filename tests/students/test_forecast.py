"""What a training will take, told before it."""

import re
import sys
from pathlib import Path

import pytest
import torch

from drllama.errors import RecipeError
from drllama.recipe import Finetune, PubMedQADemo, Student
from drllama.sources import PUBMEDQA_TASK
from drllama.sources.pubmedqa_demo import PubMedQADemoSource
from drllama.stages.forecast import Asked, forecast_line
from drllama.students import forecast as forecasting
from drllama.students import methods
from drllama.students.causal import CausalStudent
from drllama.students.memory import LiveBytes, free_bytes
from drllama.students.passes import PlainReader
from drllama.types import Durations, Forecast, TrainingRow
from tiny_student import Told, files_of, finetune_of, questions, rows_of, student_of

CPU = torch.device("cpu")


def told(student, settings):
    return student.forecast(rows_of(questions()), questions(count=3), settings=settings, seed=7)


class Clock:
    """Time that passes by what is worked on, and by a little whenever it is read."""

    now = 0.0

    def __call__(self):
        self.now += 0.05
        return self.now


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
    assert min(found.durations.training, found.durations.question) > 0
    assert found.way_out == ""
    assert trained(student, tmp_path / "after") == untouched


@pytest.mark.parametrize(("method", "ratio"), [("lora", 1), ("alora", 5)], ids=["lora", "alora"])
def test_the_bare_student_s_questions_are_told_by_its_own_way_of_reading(tiny_llama, monkeypatch, method, ratio):
    clock = Clock()

    def label_scores(reader, batch, label_tokens):
        clock.now += 0.45 if isinstance(reader, PlainReader) else 0.05

    monkeypatch.setattr(forecasting, "label_scores", label_scores)
    monkeypatch.setattr(forecasting.time, "perf_counter", clock)
    durations = told(student_of(tiny_llama), Finetune(method=method)).durations
    assert durations.bare_question / durations.question == pytest.approx(ratio)


def test_what_one_student_s_questions_leave_behind_is_told_once():
    durations = Durations(training=0, once=60, question=1, question_once=3, bare_question=10)
    found = Forecast(durations=durations, peak_bytes=2**30, room_bytes=None, way_out="")
    asked = {"questions": 60, "of_bare": 12}
    assert "about 13 minutes" in forecast_line(found, trainings=1, asked=Asked(students=7, **asked))
    assert "about 3 minutes" in forecast_line(found, trainings=1, asked=Asked(students=0, **asked))


@pytest.mark.parametrize(
    ("settings", "share", "way_out"),
    [
        (finetune_of(batch_size=8, micro_batch_size=8), 0.6, "set finetune.micro_batch_size=[1-5]$"),
        (
            finetune_of(micro_batch_size=1),
            0.8,
            r"set student.max_tokens=\d+ or \S+top_layers to \d+% of",
        ),
        (finetune_of(micro_batch_size=1), 0.01, "choose a smaller student.model"),
        (Finetune(method="full", micro_batch_size=1), 0.1, "set finetune.method=lora"),
    ],
)
def test_what_does_not_fit_is_told_with_a_setting_that_would_and_not_tried(
    tiny_llama, monkeypatch, settings, share, way_out
):
    student = student_of(tiny_llama, batch_size=None)
    monkeypatch.setattr(forecasting, "used_bytes", lambda device: 0)
    needed = told(student, settings).peak_bytes
    monkeypatch.setattr(forecasting, "room_bytes", lambda device: int(share * needed))
    monkeypatch.setattr(forecasting, "backward", None)
    found = told(student, settings)
    assert found.durations is None
    assert re.match(way_out, found.way_out), found.way_out
    assert "more memory ahead than there is" in forecast_line(found, trainings=1, asked=Asked(questions=1, students=1))


def test_full_fine_tuning_of_too_many_weights_is_refused_before_they_are_copied(tiny_llama, tmp_path, monkeypatch):
    student, settings = student_of(tiny_llama), Finetune(method="full")
    needed = 6 * 4 * student.card.num_parameters  # The base, its copy, gradients, two moments, the best epoch.
    monkeypatch.setattr(methods, "room_bytes", lambda device: needed)
    assert told(student, settings).durations
    monkeypatch.setattr(methods, "room_bytes", lambda device: needed - 1)
    monkeypatch.setattr(methods, "_in_float32", None)
    with pytest.raises(RecipeError, match=r"^finetune.method full: .*set finetune.method=lora$"):
        told(student, settings)
    with pytest.raises(RecipeError, match=r"set finetune.method=lora"):
        student.finetune(rows_of(questions()), [], settings=settings, seed=7, workspace=tmp_path, progress=Told())
    assert told(student, finetune_of()).durations


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
    rows, dev = [TrainingRow(example=one) for one in splits.train[:2]], splits.dev[:1]
    settings = finetune_of(lora={"rank": 4}, epochs=1, batch_size=2, micro_batch_size=1)
    found = student.forecast(rows, dev, settings=settings, seed=1)
    Path("/proc/self/clear_refs").write_text("5")  # proc(5): forget the highest resident size so far
    student.finetune(rows, dev, settings=settings, seed=1, workspace=tmp_path, progress=Told())
    (peak,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found.peak_bytes == pytest.approx(int(peak) * 1024, rel=0.25)
