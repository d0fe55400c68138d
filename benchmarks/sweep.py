"""The same sweep with and without the cache of frozen work: alphas x seeds of the packaged student, both in one run.

Both sweeps train the same adapters of the same method on the same questions, in a store and a cache of their own: the
cache is cold at the start, and filling it counts. The ratio is that of the wall clock.

    python benchmarks/sweep.py [--method alora|lora] [--alphas 6] [--seeds 3] [--train 24] [--dev 8] [--max-tokens 512]
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

from drllama.cli.progress import ShownProgress
from drllama.pipeline import Kept
from drllama.replies import RequestStore
from drllama.store import Store
from drllama.students.catalogue import cache_folder
from drllama.sweeps import SweepRequest, checked, sweep

RECIPE = """
name: sweep-benchmark
data: {{pubmedqa-demo: {{limit: {{train: {train}, dev: {dev}, test: 2}}}}}}
student: {{model: smollm2-135m, max_tokens: {max_tokens}}}
finetune: {{epochs: 3, method: {method}}}
evaluate: {{bootstrap_samples: 100}}
"""
METHODS = {"alora": "{alora: {}}", "lora": "{lora: {top_layers: 10}}"}
WAYS = {"without cache": "student.frozen_cache.dtype=null", "with cache": "student.frozen_cache.dtype=float16"}


def main() -> None:
    """Print seconds of both and their ratio."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--method", choices=METHODS, default="alora")
    for name, usual in (("alphas", 6), ("seeds", 3), ("train", 24), ("dev", 8), ("max-tokens", 512)):
        parser.add_argument(f"--{name}", type=int, default=usual)
    asked = parser.parse_args()
    text = RECIPE.format(train=asked.train, dev=asked.dev, max_tokens=asked.max_tokens, method=METHODS[asked.method])
    alphas = ",".join(str(16 * 2**power) for power in range(asked.alphas))
    seconds = {}
    print(f"{asked.method}, {asked.alphas} alphas x {asked.seeds} seeds, {asked.train} questions, 3 epochs")
    for way, setting in WAYS.items():
        models = cache_folder() / "models"
        with tempfile.TemporaryDirectory() as folder, ShownProgress() as progress:
            fresh = Path(folder) / "cache"
            fresh.mkdir()
            (fresh / "models").symlink_to(models)
            request = SweepRequest(
                path=Path("sweep-benchmark.yaml"),
                text=text,
                assignments=(setting,),
                grid=(f"finetune.method.{asked.method}.alpha={alphas}",),
                seeds=asked.seeds,
            )
            before = os.environ.get("DRLLAMA_CACHE")
            os.environ["DRLLAMA_CACHE"] = str(fresh)
            began = time.monotonic()
            with RequestStore(Path(folder) / "replies.sqlite") as replies:
                kept = Kept(store=Store(Path(folder) / "runs"), replies=replies)
                found = sweep(checked(request), kept=kept, progress=progress)
            seconds[way] = time.monotonic() - began
            if before is None:
                del os.environ["DRLLAMA_CACHE"]
            else:
                os.environ["DRLLAMA_CACHE"] = before
            best = found.points[found.best]
        print(f"{way:<14} {seconds[way]:8.1f} s   best {dict(best.settings)}, dev NLL {best.nll.value:.3f}", flush=True)
    print(f"ratio {seconds['without cache'] / seconds['with cache']:.2f}")


if __name__ == "__main__":
    main()
