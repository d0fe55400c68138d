"""Deduplicate rows and check them for leaks, at growing numbers of rows, and beside datasketch and semhash.

    python benchmarks/filters.py --rows 10000 100000 1000000 --peers PYTHON --peer-rows 100000

The rows are made up, from a vocabulary of 30,000 words whose ranks follow Zipf's law: questions, half of them with a
retold context of 60 words, and planted among them copies, copies with a word added, and held-out questions with a word
added. Each measurement is a process of its own, so that its peak memory is its own; making the rows isn't timed.
``--peers`` names a Python with datasketch and semhash; they drop near copies at the same threshold and check no leaks.
semhash's own model is a download, so it gets an encoder of hashed character 4-grams: its index is what is measured.
"""

import argparse
import dataclasses
import json
import resource
import subprocess
import sys
import time
from dataclasses import dataclass

import numpy as np

SEED = 7
VOCABULARY = 30_000
NUM_HELD_OUT = 10_000
CONTEXT_WORDS = 60
ONSETS = ",b,br,c,ch,cl,cr,d,dr,f,fl,g,gr,h,j,k,l,m,n,p,ph,pl,pr,qu,r,s,sc,sh,sp,st,str,t,th,tr,v,w,x,y,z"
VOWELS = "a,e,i,o,u,a,e,i,o,ae,ai,ea,ee,ia,io,oa,oi,ou,y"
CODAS = ",,,,,b,c,ck,d,f,g,l,ll,m,mp,n,nd,ng,nt,p,r,rd,rm,rt,s,ss,st,t,x"
NEAR = 0.8
FRAMES = (
    ("does", "reduce", "", "in patients with", "", "?"),
    ("is", "", "associated with", "", "after", "?"),
    ("can", "predict", "of", "", "in children with", "?"),
    ("", "", "in", ": is it a risk factor for", "", "?"),
    ("are", "and", "", "effective in the treatment of", "", "?"),
    ("what is the role of", "", "for", "during", "", "?"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Made-up rows."""

    questions: list[str]
    contexts: list[str]
    """Empty for a question on its parent's context."""
    kinds: list[str]
    """``fresh``, ``copy``, ``near`` or ``leak``."""
    held_out: list[str]
    held_out_contexts: list[str]


def make_rows(count: int) -> Rows:
    generator = np.random.default_rng(SEED)
    parts = [np.array(letters.split(",")) for letters in (ONSETS, VOWELS, CODAS)]
    spelled = {
        "".join(str(generator.choice(part)) for _ in range(generator.integers(1, 5)) for part in parts)
        for _ in range(VOCABULARY * 5 // 4)
    }
    words = np.array(sorted(spelled))
    generator.shuffle(words)
    assert len(words) >= VOCABULARY, len(words)
    odds = np.cumsum(1 / np.arange(1, VOCABULARY + 1) ** 0.8)

    def draw(*shape: int) -> list[list[str]]:
        drawn: list[list[str]] = words[np.searchsorted(odds, generator.random(shape) * odds[-1])].tolist()
        return drawn

    def questions(number: int) -> list[str]:
        frames = generator.integers(len(FRAMES), size=number).tolist()
        return [
            " ".join(part for pair in zip(FRAMES[frame], (*drawn, ""), strict=True) for part in pair if part)
            for frame, drawn in zip(frames, draw(number, 5), strict=True)
        ]

    held_out, fresh = questions(NUM_HELD_OUT), questions(count)
    extra = [one for (one,) in draw(count, 1)]
    kinds = generator.choice(["fresh", "copy", "near", "leak"], size=count, p=[0.89, 0.05, 0.05, 0.01]).tolist()
    earlier = (generator.random(count) * np.arange(count)).astype(int).tolist()
    for number, kind in enumerate(kinds):
        match kind:
            case "copy":
                fresh[number] = fresh[earlier[number]].upper()
            case "near":
                fresh[number] = f"{fresh[earlier[number]]} {extra[number][:5]}"
            case "leak":
                fresh[number] = f"{extra[number]} {held_out[number % NUM_HELD_OUT]}"
    contexts = [""] * count
    for start in range(0, count, 20_000):
        for place, drawn in zip(range(start, min(start + 20_000, count), 2), draw(10_000, CONTEXT_WORDS), strict=False):
            contexts[place] = " ".join(drawn)
    return Rows(
        questions=fresh,
        contexts=contexts,
        kinds=kinds,
        held_out=held_out,
        held_out_contexts=[" ".join(drawn) for drawn in draw(NUM_HELD_OUT, CONTEXT_WORDS)],
    )


def ours(rows: Rows) -> dict[str, object]:
    from drllama.filters.duplicates import DuplicatesFilter
    from drllama.filters.leaks import LeaksFilter
    from drllama.recipe import Duplicates, Leaks
    from drllama.types import Candidate, Example, Original, Synthetic

    candidates = [
        Candidate(
            example=Example(
                question=question,
                context=context,
                label="yes",
                split="train",
                group=f"document {number}",
                origin=Synthetic(
                    method="rewrite" if context else "new", parents=(f"{number}",), call=f"{number:016}", place=0
                ),
            ),
            prompt="rewrite.v1",
            rollout=0,
        )
        for number, (question, context) in enumerate(zip(rows.questions, rows.contexts, strict=True))
    ]
    held_out = [
        dataclasses.replace(
            candidates[0].example,
            question=question,
            context=context,
            split="test",
            group=f"held out {number}",
            origin=Original(source="made up", source_id=f"{number}"),
        )
        for number, (question, context) in enumerate(zip(rows.held_out, rows.held_out_contexts, strict=True))
    ]
    before = peak_gb()
    began, cpu = time.perf_counter(), time.process_time()
    duplicates = DuplicatesFilter(Duplicates(near=NEAR), train=()).check(candidates)
    between = time.perf_counter()
    leaks = LeaksFilter(Leaks(), held_out=held_out).check(candidates)
    ended = time.perf_counter()
    return {
        "duplicates_s": between - began,
        "leaks_s": ended - between,
        "cpu_s": time.process_time() - cpu,
        "rows_gb": before,
        "dropped": sum(one is not None for one in duplicates),
        "leaked": sum(one is not None for one in leaks),
        "copies_found": share([one is not None for one in duplicates], rows.kinds, "copy", "near"),
        "leaks_found": share([one is not None for one in leaks], rows.kinds, "leak"),
    }


def with_datasketch(rows: Rows) -> dict[str, object]:
    from datasketch import MinHash, MinHashLSH  # type: ignore[import-not-found]

    began, cpu = time.perf_counter(), time.process_time()
    index, dropped = MinHashLSH(threshold=NEAR, num_perm=128), []
    for number, question in enumerate(rows.questions):
        letters = question.lower().replace(" ", "")
        sketch = MinHash(num_perm=128)
        sketch.update_batch([letters[start : start + 5].encode() for start in range(max(1, len(letters) - 4))])
        found = bool(index.query(sketch))
        dropped.append(found)
        if not found:
            index.insert(number, sketch)
    return {
        "duplicates_s": time.perf_counter() - began,
        "cpu_s": time.process_time() - cpu,
        "dropped": sum(dropped),
        "copies_found": share(dropped, rows.kinds, "copy", "near"),
    }


class Hashed:
    """Encodes texts as hashed character 4-grams, in 256 dimensions."""

    def encode(self, inputs: list[str], **_: object) -> "np.ndarray[tuple[int, int], np.dtype[np.float32]]":
        """Return a row of length 1 for each text."""
        signs = np.random.default_rng(SEED).standard_normal((1 << 12, 256)).astype(np.float32)
        rows = np.zeros((len(inputs), 256), dtype=np.float32)
        for number, text in enumerate(inputs):
            codes = np.frombuffer(text.lower().encode("utf-32-le"), dtype="<u4").astype(np.uint64)
            grams = (codes[:-3] * 31**3 + codes[1:-2] * 31**2 + codes[2:-1] * 31 + codes[3:]) * 0x9E3779B1 >> 8
            rows[number] = signs[grams.astype(np.int64) & 0xFFF].sum(axis=0)
        return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)


def with_semhash(rows: Rows) -> dict[str, object]:
    from semhash import SemHash  # type: ignore[import-not-found]

    began, cpu = time.perf_counter(), time.process_time()
    result = SemHash.from_records(records=rows.questions, model=Hashed()).self_deduplicate(threshold=0.9)
    stayed = set(result.selected)
    return {
        "duplicates_s": time.perf_counter() - began,
        "cpu_s": time.process_time() - cpu,
        "dropped": len(rows.questions) - len(result.selected),
        "copies_found": share([question not in stayed for question in rows.questions], rows.kinds, "copy", "near"),
    }


def share(dropped: list[bool], kinds: list[str], *wanted: str) -> float:
    hits = [one for one, kind in zip(dropped, kinds, strict=True) if kind in wanted]
    return sum(hits) / max(1, len(hits))


def peak_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2


def measure(python: str, name: str, count: int) -> None:
    command = [python, __file__, "--one", name, "--rows", str(count)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    told = json.loads(answer.splitlines()[-1])

    def cell(key: str, form: str, width: int) -> str:
        return f"{told[key]:>{width}{form}}" if told.get(key) is not None else " " * (width - 1) + "-"

    total = told["duplicates_s"] + told.get("leaks_s", 0)
    print(
        f"{name:<12}{count:>9,}{cell('duplicates_s', '.1f', 12)}{cell('leaks_s', '.1f', 9)}"
        f"{1e6 * total / count:>9.0f}{cell('cpu_s', '.1f', 9)}{cell('rows_gb', '.2f', 9)}{cell('peak_gb', '.2f', 9)}"
        f"{cell('copies_found', '.4f', 9)}{cell('leaks_found', '.4f', 9)}{cell('dropped', ',', 10)}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--peers", help="a Python with datasketch and semhash")
    parser.add_argument("--peer-rows", type=int, default=100_000, help="the most rows that the peers get")
    parser.add_argument("--one", choices=["ours", "datasketch", "semhash"], help="measure this alone, and print JSON")
    options = parser.parse_args()
    if options.one:
        found = {"ours": ours, "datasketch": with_datasketch, "semhash": with_semhash}[options.one](
            make_rows(options.rows[0])
        )
        print(json.dumps({**found, "peak_gb": peak_gb()}))
        return
    print(f"{NUM_HELD_OUT:,} held-out questions with contexts of {CONTEXT_WORDS} words")
    print(
        f"{'':<12}{'rows':>9}{'dedupe s':>12}{'leaks s':>9}{'us/row':>9}{'CPU s':>9}{'rows GB':>9}{'peak GB':>9}"
        f"{'copies':>9}{'leaks':>9}{'dropped':>10}"
    )
    for count in options.rows:
        measure(sys.executable, "ours", count)
        for name in ("datasketch", "semhash") if options.peers and count <= options.peer_rows else ():
            measure(options.peers, name, count)


if __name__ == "__main__":
    main()
