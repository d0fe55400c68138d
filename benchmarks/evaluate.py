"""How fast, and how alike, the labels of questions are scored beside lm-evaluation-harness.

Both score the same questions with the same student, prompt and labels, in fp32. The harness gets a YAML task of its own
on a file with our prompts' texts; each way runs in a process of its own, one after another, in rounds of other
questions, so that a machine whose speed drifts slows both. Loading isn't counted, tokenising is. On a machine that
others use too, ask for one thread: then CPU seconds are counted, which others lengthen little.

    python benchmarks/evaluate.py --harness venvs/lm-eval/bin/python --pubmedqa ori_pqal.json --rounds 5

Without ``--pubmedqa`` the questions are the test half of the packaged ones.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from packaged import STUDENT, encoder_for, weights_folder
from peers.clock import now, rss_mib

from drllama.protocols import Source
from drllama.recipe import PubMedQA, PubMedQADemo
from drllama.sources.pubmedqa import PubMedQASource
from drllama.sources.pubmedqa_demo import PubMedQADemoSource
from drllama.students.encoding import Encoded

BATCHES = {"ours": 8, "ours, one by one": 1, "lm-eval": 8, "lm-eval, one by one": 1}
"""Questions at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What one process took for a round's questions."""

    seconds: float
    rss_mib: float
    scores: Mapping[str, Mapping[str, float]]
    """By question and label, in nats."""


def source_of(path: str) -> Source:
    return PubMedQASource(PubMedQA(path=Path(path))) if path else PubMedQADemoSource(PubMedQADemo(), None)


def inside(batch_size: int, path: str, places: Sequence[int]) -> Measured:
    """Return what our own scoring takes for the test questions at these places, in this process."""
    from drllama.students.causal import CausalStudent

    source = source_of(path)
    test = source.load().test
    asked = [test[place] for place in places]
    student = CausalStudent(STUDENT.model_copy(update={"batch_size": batch_size}), source.task)
    list(student.score(asked[:1]))
    began = now()
    scores = {one.example_id: dict(one.scores_nats or {}) for one in student.score(asked)}
    return Measured(seconds=now() - began, rss_mib=rss_mib(), scores=scores)


def apart(command: list[str], **more: str) -> Measured:
    """Return what a process of its own took."""
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | more)
    if done.returncode:
        raise SystemExit(f"{' '.join(command[:3])} failed:\n{done.stderr[-2000:]}")
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def prepare(path: str, places: Sequence[int], folder: Path) -> None:
    """Write the questions as the harness reads them, the same tokens as ours.

    Raises:
        SystemExit: a prompt's text doesn't give the tokens that our student reads.
    """
    source = source_of(path)
    encoder = encoder_for(source.task)
    tokenizer = encoder.tokenizer
    test = source.load().test
    with (folder / "rows.jsonl").open("w", encoding="utf-8") as file:
        for example in (test[place] for place in places):
            encoded = encoder.encode(example)
            assert isinstance(encoded, Encoded), encoded
            text = tokenizer.decode(encoded.tokens)
            if tuple(tokenizer(text)["input_ids"]) != encoded.tokens:
                raise SystemExit(f"question {example.origin.source_id}: its text gives other tokens")
            row = {"id": example.id, "prompt": text, "label": example.label, "labels": list(source.task.labels)}
            file.write(json.dumps(row) + "\n")


def one_round(options: argparse.Namespace, places: Sequence[int]) -> dict[str, Measured]:
    """Return what each way took for the questions at these places."""
    own = {"OMP_NUM_THREADS": str(options.threads)}
    found = {}
    for name in options.way or BATCHES:
        size = str(BATCHES[name])
        if name.startswith("ours"):
            command = [sys.executable, __file__, "--inside", size, options.pubmedqa, json.dumps(places)]
            found[name] = apart(command, **own)
            continue
        with tempfile.TemporaryDirectory() as folder:
            prepare(options.pubmedqa, places, Path(folder))
            script = Path(__file__).with_name("peers") / "harness_peer.py"
            alone = {"HOME": folder, "PYTHONPATH": "", "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
            found[name] = apart([options.harness, str(script), str(weights_folder()), folder, size], **own, **alone)
    return found


def main() -> None:
    if sys.argv[1:2] == ["--inside"]:
        size, path, places = sys.argv[2:]
        print(json.dumps(asdict(inside(int(size), path, json.loads(places)))))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--harness", required=True, help="the Python of an environment with lm-eval")
    parser.add_argument("--pubmedqa", default="", help="ori_pqal.json")
    parser.add_argument("--items", type=int, help="so many test questions; else all")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--way", choices=BATCHES, action="append", help="one of the ways, the others not")
    options = parser.parse_args()
    places = range(len(source_of(options.pubmedqa).load().test))[: options.items]
    rounds = []
    for start in range(options.rounds):
        rounds.append(one_round(options, list(places[start :: options.rounds])))
        print(", ".join(f"{name} {one.seconds:.0f} s" for name, one in rounds[-1].items()), file=sys.stderr)
    show(rounds, options.threads)


def show(rounds: Sequence[Mapping[str, Measured]], threads: int) -> None:
    first = next(iter(rounds[0]))
    total = sum(len(one[first].scores) for one in rounds)
    print(f"{total} questions in {len(rounds)} rounds; {threads} threads; load {os.getloadavg()[1]:.1f}")
    print(f"{'':<22} {'s a question':>12} {'times':>6} {'MiB peak':>9} {'other label':>12} {'largest gap, nats':>18}")
    for name in rounds[0]:
        seconds = sum(one[name].seconds for one in rounds)
        times = statistics.median(one[name].seconds / one[first].seconds for one in rounds)
        rss = max(one[name].rss_mib for one in rounds)
        pairs = [(one[first].scores[key], one[name].scores[key]) for one in rounds for key in one[first].scores]
        others = sum(max(ours, key=ours.__getitem__) != max(its, key=its.__getitem__) for ours, its in pairs)
        gap = max(abs(ours[label] - its[label]) for ours, its in pairs for label in ours)
        print(f"{name:<22} {seconds / total:>12.3f} {times:>6.2f} {rss:>9.0f} {others:>12} {gap:>18.1e}")


if __name__ == "__main__":
    main()
