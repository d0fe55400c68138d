"""How many questions a second LoRA learns from, beside what people use: TRL, transformers' Trainer, LLaMA-Factory.

The same model, questions, tokens, batches, adapter and number format for all; each way runs in a process of its own,
one after another, in rounds, so that a machine whose speed drifts slows all of them. Each round makes so many updates;
the first is thrown away. Batches hold questions of like length, which is our arrangement and spares the peers padding;
with ``--shuffled`` peers get batches of chance, as they make them. Time is counted for each token of a question, since
padding is nobody's merit; of all updates the middle one counts. On a machine that others use too, ask for one thread:
then CPU seconds are counted, which others lengthen little.

Ours is what a run does, with its checkpoints. Rows with a cache are measured once it is filled: what every epoch after
the first, and every further training on the same questions, takes. The share of the machine's measured rate of
matrix products counts 4 FLOP for each weight of the body and token: 2 forward, 2 backward through frozen weights.

    python benchmarks/finetune.py --peer trl=venvs/trl/bin/python --peer llamafactory=venvs/lf/bin/python --rounds 2

NAME of ``--peer`` is one of trl, trl-one-by-one (rows alone, gradients added up), transformers (Trainer and PEFT),
paper (padded to 512, the loss on all tokens) and llamafactory.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from packaged import STUDENT, encoder_for, weights_folder
from peers.clock import now, rss_mib

from drllama.ids import derive_seed
from drllama.recipe import Finetune, PubMedQADemo
from drllama.sources.pubmedqa_demo import PubMedQADemoSource
from drllama.students.encoding import Encoded
from drllama.types import Example, TrainingRow

SEED = 1
LORA = {"rank": 4, "alpha": 64, "targets": ["q_proj", "v_proj"]}
OURS: dict[str, dict[str, object]] = {
    "ours": {"method": {"lora": LORA}},
    "ours, many at once": {"method": {"lora": LORA}, "micro_batch_size": 8},
    "ours, top third, cache": {"method": {"lora": {**LORA, "top_layers": 10}}},
    "ours, aLoRA, cache": {"method": {"alora": {}}},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What one process took."""

    seconds: list[float]
    """Of each update, in their order."""
    rss_mib: float
    rate: float = 0.0
    """Measured matrix products in FLOP a second, of our own processes."""
    body: int = 0
    """Weights that a token passes through."""
    losses: list[float] = field(default_factory=list)


@dataclass(slots=True)
class Clock:
    """A progress that notes how long each update took."""

    last: float = 0.0
    seconds: list[float] = field(default_factory=list)

    def expect(self, units: float) -> None:
        """Not used."""

    def work(self, activity: str, units: float = 0) -> None:
        """Note an update; scoring dev only moves the clock on."""
        before, self.last = self.last, now()
        if activity.startswith("training"):
            self.seconds.append(self.last - before)


def questions(number: int) -> tuple[list[Example], Example]:
    splits = PubMedQADemoSource(PubMedQADemo(), None).load()
    return list(splits.train[:number]), splits.dev[0]


def settings_of(name: str, batch: int) -> Finetune:
    more = {"epochs": 2 if "cache" in name else 1, "learning_rate": 1e-4, "choose_epoch_by": "last"}
    return Finetune.model_validate({**OURS[name], **more, "batch_size": batch})


def order_of(updates: int, batch: int) -> tuple[list[Encoded], list[list[list[int]]]]:
    """Return the questions as the student reads them, and the batches of the first two passes."""
    from drllama.students.training import Lesson

    asked, _ = questions(updates * batch)
    encoder = encoder_for(PubMedQADemoSource(PubMedQADemo(), None).task)
    encoded = [one for one in map(encoder.encode, asked) if isinstance(one, Encoded)]
    lesson = Lesson(
        examples=encoded,
        rows=[TrainingRow(example=one.example) for one in encoded],
        label_tokens=encoder.label_tokens,
        settings=settings_of("ours", batch),
        seed=derive_seed(SEED, "training"),
        updates_per_epoch=updates,
    )
    return encoded, [lesson.batches(1), lesson.batches(2)]


def inside(name: str, updates: int, batch: int, dtype: str, folder: str) -> Measured:
    """Return what our own training takes, in this process."""
    import torch

    from drllama.students.causal import CausalStudent
    from drllama.students.machine import matrix_product_rate

    clock, rate = Clock(), matrix_product_rate(torch.device("cpu"), getattr(torch, dtype), clock=now)
    train, dev = questions(updates * batch)
    student = CausalStudent(STUDENT.model_copy(update={"dtype": dtype}), PubMedQADemoSource(PubMedQADemo(), None).task)
    student.finetune(
        [TrainingRow(example=one) for one in train],
        [dev],
        settings=settings_of(name, batch),
        seed=SEED,
        updates_per_epoch=updates,
        workspace=Path(folder),
        progress=clock,
    )
    weights = student._bare.named_parameters()
    body = sum(weight.numel() for name, weight in weights if "embed" not in name and "lora" not in name)
    return Measured(seconds=clock.seconds[-updates:], rss_mib=rss_mib(), rate=rate, body=body)


def apart(command: list[str], **more: str) -> Measured:
    """Return what a process of its own took."""
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", **more}
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | offline)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def one_round(options: argparse.Namespace, prepared: Path) -> Iterator[tuple[str, Measured]]:
    """Yield the name of each way and what it took."""
    for name in options.ours or OURS:
        with tempfile.TemporaryDirectory() as folder:
            told = [name, str(options.updates), str(options.batch), options.dtype, folder]
            command = [sys.executable, __file__, "--inside", *told]
            yield name, apart(command, OMP_NUM_THREADS=str(options.threads))
    for name, python in options.peer:
        with tempfile.TemporaryDirectory() as folder:
            for file in prepared.iterdir():
                (Path(folder) / file.name).write_bytes(file.read_bytes())
            script = Path(__file__).with_name("peers") / "tuners.py"
            # An empty home: no peer's telemetry, token or cache.
            own = {"HOME": folder, "PYTHONPATH": "", "OMP_NUM_THREADS": str(options.threads)}
            yield name, apart([python, str(script), name, folder], **own)


def prepare(options: argparse.Namespace, folder: Path) -> list[list[int]]:
    """Write what peers read, and return how many tokens each update has: of our first two passes, and of theirs."""
    encoded, passes = order_of(options.updates, options.batch)
    given = passes[0]
    if options.shuffled:
        places = random.Random(SEED).sample(range(len(encoded)), len(encoded))
        given = [places[at : at + options.batch] for at in range(0, len(places), options.batch)]
    tokenizer = encoder_for(PubMedQADemoSource(PubMedQADemo(), None).task).tokenizer
    with (folder / "rows.jsonl").open("w", encoding="utf-8") as file:
        for one in (encoded[index] for batch in given for index in batch):
            prompt, answer = list(one.tokens), tokenizer(f" {one.example.label}")["input_ids"]
            row = {"prompt": tokenizer.decode(prompt), "answer": f" {one.example.label}"}
            file.write(json.dumps({**row, "prompt_tokens": prompt, "answer_tokens": answer}) + "\n")
    settings = {"model": str(weights_folder()), **LORA, "batch": options.batch, "updates": options.updates}
    more = {"learning_rate": 1e-4, "dtype": options.dtype}
    (folder / "settings.json").write_text(json.dumps({**settings, **more}))
    return [[sum(len(encoded[index].tokens) for index in batch) for batch in batches] for batches in (*passes, given)]


def main() -> None:
    if sys.argv[1:2] == ["--inside"]:
        name, updates, batch, dtype, folder = sys.argv[2:]
        print(json.dumps(asdict(inside(name, int(updates), int(batch), dtype, folder))))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=4, help="in each round")
    parser.add_argument("--batch", type=int, default=8, help="questions an update")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--shuffled", action="store_true", help="batches of chance for peers, as they would make them")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32", help="of weights and products")
    parser.add_argument("--ours", choices=OURS, action="append", help="one of our own ways, the others not")
    parser.add_argument("--peer", type=lambda text: text.split("=", 1), action="append", default=[])
    options = parser.parse_args()
    taken: dict[str, list[Measured]] = {}
    with tempfile.TemporaryDirectory() as folder:
        tokens = prepare(options, Path(folder))
        for _ in range(options.rounds):
            for name, measured in one_round(options, Path(folder)):
                taken.setdefault(name, []).append(measured)
                print(f"{name}: {', '.join(f'{each:.1f}' for each in measured.seconds)} s", file=sys.stderr)
    show(taken, tokens, options)


def _pass_of(name: str) -> int:
    """Return which of the passes a way was measured in: our first or second, or the peers'."""
    return 2 if name not in OURS else 1 if "cache" in name else 0


def show(taken: dict[str, list[Measured]], tokens: list[list[int]], options: argparse.Namespace) -> None:
    mean = statistics.mean(tokens[0]) / options.batch
    a_token = {
        name: statistics.median(
            seconds / read
            for one in rounds
            for seconds, read in list(zip(one.seconds, tokens[_pass_of(name)], strict=True))[1:]
        )
        for name, rounds in taken.items()
    }
    print(
        f"{options.batch} questions an update, {mean:.0f} tokens each; {options.dtype}; {options.threads} threads; "
        f"load {os.getloadavg()[1]:.1f}"
    )
    print(f"{'':<24} {'s a question':>12} {'a second':>9} {'times ours':>10} {'MiB peak':>9} {'of the rate':>12}")
    for name, rounds in taken.items():
        seconds = a_token[name] * mean
        times = f"{seconds / (a_token['ours'] * mean):.2f}" if "ours" in taken else ""
        rate, body = statistics.median(one.rate for one in rounds), rounds[0].body
        share = f"{4 * body * mean / seconds / rate:.0%}" if name == "ours" else ""
        rss = statistics.median(one.rss_mib for one in rounds)
        print(f"{name:<24} {seconds:>12.2f} {1 / seconds:>9.2f} {times:>10} {rss:>9.0f} {share:>12}")
    if "ours" in taken:
        print(f"matrix products {taken['ours'][0].rate / 1e9:.0f} GFLOP/s")


if __name__ == "__main__":
    main()
