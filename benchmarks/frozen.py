"""One training step with and without frozen work recalled, on the packaged student and questions, in one run.

Told are CPU seconds: what else runs on the machine changes them least. The ways take turns, batch by batch, so that a
machine whose speed drifts slows all of them; what counts is the ratio.
The first is LoRA in all layers, which has no frozen work; all but the
second have the same rank and targets. Entries are made by a first scoring, whose
time is told too. Scoring is measured with the adapters worn, in batches of 8.

    python benchmarks/frozen.py [ROUNDS]
"""

import copy
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from os import environ
from typing import Any

import torch

from drllama.recipe import Alora, FrozenCache, Lora, PubMedQADemo, Student
from drllama.sources.pubmedqa_demo import PubMedQADemoSource
from drllama.students.chat import phrasing_of
from drllama.students.encoding import Encoded, make_encoder
from drllama.students.frozen import FrozenWork
from drllama.students.loading import load_model
from drllama.students.methods import with_new_adapter
from drllama.students.passes import Reader, make_reader
from drllama.students.scoring import label_scores
from drllama.students.training import label_nats

BATCH = 8


def main() -> None:
    """Print seconds an example for each way, and how many times as fast it is as LoRA in all layers."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    source, settings = PubMedQADemoSource(PubMedQADemo(), None), Student()
    loaded = load_model(settings)
    encoder = make_encoder(
        loaded.tokenizer, phrasing_of(loaded.tokenizer, settings, source.task), source.task, settings
    )
    encoded = [encoder.encode(example) for example in source.load().train[: BATCH * rounds]]
    examples = sorted((one for one in encoded if isinstance(one, Encoded)), key=lambda one: len(one.tokens))
    same = {"rank": 8, "alpha": 16, "targets": "all-linear"}
    methods = {
        "LoRA": Lora(**same),
        "LoRA, rank 4 on q and v": Lora(),
        "aLoRA": Alora(**same),
        "LoRA, top 10 of 30": Lora(**same, top_layers=10),
    }
    worn = {
        name: with_new_adapter(copy.deepcopy(loaded.model), method, encoder, seed=1) for name, method in methods.items()
    }
    with tempfile.TemporaryDirectory() as folder:
        environ["DRLLAMA_CACHE"] = folder
        ways = {
            f"{name}, {dtype or 'no cache'}": make_reader(model, FrozenWork({}, FrozenCache(dtype=dtype)))
            for name, model in worn.items()
            for dtype in ((None, "float16") if methods[name].leaves_frozen_work else (None,))
        }
        filling = _turns(ways, examples, lambda reader, batch: label_scores(reader, batch, encoder.label_tokens))
        steps = _turns(ways, examples, lambda reader, batch: _step(reader, batch, encoder.label_tokens))
        scoring = _turns(ways, examples, lambda reader, batch: label_scores(reader, batch, encoder.label_tokens))
    tokens = statistics.mean(len(one.tokens) for one in examples)
    rest = statistics.mean(len(one.tokens) - one.split for one in examples)
    print(f"{len(examples)} examples of {tokens:.0f} tokens, {rest:.0f} of them behind the context")
    print(f"CPU seconds an example, {torch.get_num_threads()} threads")
    print(f"{'':<32}    step          scoring        first time")
    plain = next(iter(ways))
    for name in ways:
        told = [f"{each[name]:7.3f} {each[plain] / each[name]:5.2f} x" for each in (steps, scoring)]
        print(f"{name:<32} {told[0]}  {told[1]}  {filling[name]:7.3f}")


def _turns(
    ways: dict[str, Reader], examples: list[Encoded], work: Callable[[Reader, list[Encoded]], object]
) -> dict[str, float]:
    """Return the median seconds an example of each way."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for start in range(0, len(examples), BATCH):
        batch = examples[start : start + BATCH]
        for name, reader in ways.items():
            began = time.process_time()
            work(reader, batch)
            seconds[name].append((time.process_time() - began) / len(batch))
    return {name: statistics.median(each) for name, each in seconds.items()}


def _step(reader: Reader, batch: list[Encoded], label_tokens: Any) -> None:  # noqa: ANN401
    reader.train()
    at_once = 1 if reader.one_by_one else len(batch)
    for start in range(0, len(batch), at_once):
        (label_nats(reader, batch[start : start + at_once], label_tokens).sum() / len(batch)).backward()
    reader.model.zero_grad(set_to_none=True)
    reader.model.eval()


if __name__ == "__main__":
    main()
