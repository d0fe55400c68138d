"""What keeping frozen work in 16 bits does to students: each method is trained and tested with both number formats.

The same rows, seed and order; only the cache's number format differs. Entries lie in a folder of their own.

    python experiments/frozen/rounding.py [TRAIN] [TEST]
"""

import sys
import tempfile
from os import environ
from pathlib import Path

from drllama.recipe import Evaluate, Finetune, PubMedQADemo, Student
from drllama.sources.pubmedqa_demo import PubMedQADemoSource
from drllama.stats import evaluate_predictions
from drllama.students.causal import CausalStudent
from drllama.types import Prediction, TrainingRow

METHODS = {
    "aLoRA": {"alora": {}},
    "LoRA, top 10": {"lora": {"targets": "all-linear", "top_layers": 10}},
}


class Silent:
    """A progress that nobody watches."""

    def expect(self, units: float) -> None:
        """See ``protocols.Progress``."""

    def work(self, activity: str, units: float = 0) -> None:
        """See ``protocols.Progress``."""


def main() -> None:
    """Print what both number formats come to, and how far their scores lie apart."""
    num_train, num_test = (int(argument) for argument in (*sys.argv[1:3], *("48", "48")[len(sys.argv) - 1 :]))
    source = PubMedQADemoSource(PubMedQADemo(), None)
    splits = source.load()
    train = [TrainingRow(example=one) for one in splits.train[:num_train]]
    found: dict[tuple[str, str], dict[str, Prediction]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, method in METHODS.items():
            for dtype in ("float32", "float16"):
                student = CausalStudent(Student(frozen_cache={"dtype": dtype}), source.task)
                # The converted weights stay where they are; what is worked out here doesn't.
                environ["DRLLAMA_CACHE"] = folder
                settings = Finetune(method=method, epochs=2, choose_epoch_by="last")
                workspace = Path(folder) / name / dtype
                workspace.mkdir(parents=True)
                student.finetune(
                    train, splits.dev[:4], settings=settings, seed=1, workspace=workspace, progress=Silent()
                )
                asked = list(student.score(splits.test[:num_test]))
                del environ["DRLLAMA_CACHE"]
                found[name, dtype] = {one.example_id: one for one in asked}
                metrics = evaluate_predictions(
                    asked, system=name, split="test", labels=source.task.labels, settings=Evaluate(), seed=1
                ).metrics
                told = ", ".join(f"{metric} {metrics[metric].value:.4f}" for metric in ("accuracy", "macro_f1", "nll"))
                print(f"{name:<14} {dtype}: {told}", flush=True)
            pairs = [(one, found[name, "float16"][key]) for key, one in found[name, "float32"].items()]
            apart = [
                abs(one.scores_nats[label] - other.scores_nats[label])
                for one, other in pairs
                for label in one.scores_nats
            ]
            changed = sum(one.choice != other.choice for one, other in pairs)
            print(
                f"{name:<14} {changed} of {len(pairs)} choices differ; scores are {max(apart):.4f} nats apart at most, "
                f"{sum(apart) / len(apart):.4f} in the mean",
                flush=True,
            )


if __name__ == "__main__":
    main()
