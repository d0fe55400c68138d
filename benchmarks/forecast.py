"""What a training was said to take, and what it took: seconds and peak memory of the packaged student, by method.

Each method is told and trained in a process of its own, on real questions, on Linux and a CPU. A ratio of 1 is a
forecast that came true; speed is that of the machine at the moment, so other work beside it moves the seconds.

    python benchmarks/forecast.py [NUM_QUESTIONS [METHOD ...]]
"""

import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

METHODS = {
    "lora": {"lora": {}},
    "lora, top 10": {"lora": {"top_layers": 10}},
    "alora": {"alora": {}},
    "prefix": {"prefix": {}},
    "full": {"full": {}},
}
EPOCHS = 2
PEAK, STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


def main() -> None:
    """Print what was told, what happened, and the ratios."""
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(told_and_taken(sys.argv[2], int(sys.argv[3]))))
        return
    questions = int(sys.argv[1]) if len(sys.argv) > 1 else 24
    print(f"{questions} questions, {EPOCHS} epochs, 8 dev questions")
    print("method          forecast took   told     took     ratio   told     took     ratio")
    for name in sys.argv[2:] or METHODS:
        done = subprocess.run(
            [sys.executable, __file__, "--one", name, str(questions)], capture_output=True, text=True, check=True
        )
        found = json.loads(done.stdout.splitlines()[-1])
        seconds, gib = (found["told_seconds"], found["took_seconds"]), (found["told_gib"], found["took_gib"])
        print(
            f"{name:<15} {found['forecast_seconds']:8.1f} s {seconds[0]:8.1f} s {seconds[1]:6.1f} s "
            f"{seconds[0] / seconds[1]:7.2f} {gib[0]:6.2f} GiB {gib[1]:4.2f} GiB {gib[0] / gib[1]:6.2f}"
        )


def told_and_taken(name: str, questions: int) -> dict[str, float]:
    """Return what a method's training was said to take and what it took."""
    from drllama.cli.progress import ShownProgress
    from drllama.recipe import Finetune, PubMedQADemo, Student
    from drllama.sources.pubmedqa_demo import PubMedQADemoSource
    from drllama.students.causal import CausalStudent
    from drllama.types import TrainingRow

    source = PubMedQADemoSource(PubMedQADemo(), None)
    splits = source.load()
    student = CausalStudent(Student(), source.task)
    rows = [TrainingRow(example=one) for one in splits.train[:questions]]
    settings, dev = Finetune(method=METHODS[name], epochs=EPOCHS), splits.dev[:8]
    began = time.monotonic()
    told = student.forecast(rows, dev, settings=settings, seed=1)
    forecast_seconds, began = time.monotonic() - began, time.monotonic()
    PEAK.write_text("5")  # proc(5): forget the highest resident size so far
    with tempfile.TemporaryDirectory() as folder, ShownProgress() as progress:
        student.finetune(rows, dev, settings=settings, seed=1, workspace=Path(folder), progress=progress)
    (found,) = re.findall(r"VmHWM:\s+(\d+) kB", STATUS.read_text())
    assert told.durations, told.way_out
    return {
        "forecast_seconds": forecast_seconds,
        "told_seconds": told.durations.training + told.durations.once,
        "took_seconds": time.monotonic() - began,
        "told_gib": told.peak_bytes / 2**30,
        "took_gib": int(found) / 2**20,
    }


if __name__ == "__main__":
    main()
