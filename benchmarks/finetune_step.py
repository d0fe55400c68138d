"""One LoRA update on real questions, three ways in one run: ours one by one, ours batched, and the paper's scheme.

The paper's scheme pads every row to 512 tokens and takes the loss on all of them. The ways take turns, so that a
machine whose speed drifts slows all of them; what counts is the ratio. Our own step is also set against the measured
rate of fp32 matrix products, counting 4 FLOP for each weight of the body and token: 2 forward, 2 backward through
frozen weights.

    python benchmarks/finetune_step.py [ROUNDS]
"""

import statistics
import sys
import time

import torch

from drllama.prompts import student_prompt
from drllama.recipe import FrozenCache, Lora, PubMedQADemo, Student
from drllama.sources.pubmedqa_demo import PubMedQADemoSource
from drllama.students.chat import Phrasing
from drllama.students.encoding import Encoded, make_encoder
from drllama.students.frozen import FrozenWork
from drllama.students.loading import load_model
from drllama.students.machine import matrix_product_rate
from drllama.students.methods import with_new_adapter
from drllama.students.passes import make_reader
from drllama.students.training import label_nats

BATCH, LONGEST = 8, 512


def main() -> None:
    """Print seconds an example, ratios, and the share of the machine's matrix-product rate."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    source, settings = PubMedQADemoSource(PubMedQADemo(), None), Student()
    loaded = load_model(settings)
    encoder = make_encoder(loaded.tokenizer, Phrasing(prompt=student_prompt(settings.prompt)), source.task, settings)
    model = with_new_adapter(loaded.model, Lora(), encoder, seed=1).train()
    reader = make_reader(model, FrozenWork({}, FrozenCache(dtype=None)))
    encoded = [encoder.encode(example) for example in source.load().train[: BATCH * rounds]]
    examples = [one for one in encoded if isinstance(one, Encoded)]

    def one_by_one(batch: list[Encoded]) -> None:
        for example in batch:
            (label_nats(reader, [example], encoder.label_tokens).sum() / BATCH).backward()

    def together(batch: list[Encoded]) -> None:
        label_nats(reader, batch, encoder.label_tokens).mean().backward()

    def paper(batch: list[Encoded]) -> None:
        rows = [[*one.tokens, *encoder.label_tokens[str(one.example.label)]] for one in batch]
        tokens = torch.tensor([[*row[:LONGEST], *[0] * (LONGEST - len(row))] for row in rows])
        model(input_ids=tokens, labels=tokens, use_cache=False).loss.backward()

    ways = {"one by one": one_by_one, "batches of 8": together, "padded to 512, all tokens": paper}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for start in range(0, len(examples), BATCH):
        batch = examples[start : start + BATCH]
        for name, way in ways.items():
            began = time.perf_counter()
            way(batch)
            seconds[name].append((time.perf_counter() - began) / len(batch))
            model.zero_grad(set_to_none=True)
    body = sum(
        weight.numel() for name, weight in model.named_parameters() if "embed" not in name and "lora" not in name
    )
    tokens = statistics.mean(len(one.tokens) for one in examples)
    rate = matrix_product_rate(torch.device("cpu"))
    fastest = statistics.median(seconds["one by one"])
    print(f"{len(examples)} examples, {tokens:.0f} tokens on average; fp32 matrix products {rate / 1e9:.0f} GFLOP/s")
    for name, each in seconds.items():
        middle = statistics.median(each)
        print(f"{name:<26} {middle:6.2f} s an example   {middle / fastest:5.2f} x")
    share = 4 * body * tokens / fastest / rate
    print(f"one by one uses {share:.0%} of the matrix-product rate (4 FLOP a weight and token: forward and backward)")


if __name__ == "__main__":
    main()
