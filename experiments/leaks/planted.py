"""Plant test questions of PubMedQA among training rows, word for word, edited and paraphrased, and count what is found.

    python experiments/leaks/planted.py ori_pqal.json teacher_frontier.jsonl --encoder tfidf

Prints recall by kind with Wilson intervals, and false alarms on rows that are no leaks: the real training questions,
and the rewrites and new questions that a teacher wrote for them. Each plant is a new question on the context of a
training row, so that the context can't give it away; ``--with-context`` plants the context too. The paraphrases beside
this file were written by a large language model, in other words and other syntax on purpose.
"""

import argparse
import dataclasses
import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from drllama.filters.leaks import find_leaks
from drllama.ids import derive_seed
from drllama.recipe import Leaks, PubMedQA
from drllama.sources import PubMedQASource
from drllama.stats import wilson
from drllama.types import Example, Splits, Synthetic

NUM_PLANTS = 60
SEED = 20261122
SYNONYMS = {
    "patients": "individuals",
    "patient": "individual",
    "children": "youngsters",
    "infants": "babies",
    "women": "females",
    "men": "males",
    "people": "persons",
    "older": "elderly",
    "effective": "useful",
    "useful": "helpful",
    "feasible": "practicable",
    "necessary": "needed",
    "important": "relevant",
    "accurate": "precise",
    "beneficial": "advantageous",
    "associated": "linked",
    "predict": "forecast",
    "improve": "enhance",
    "reduce": "lower",
    "reducing": "lowering",
    "increased": "raised",
    "affect": "influence",
    "influence": "affect",
    "change": "alter",
    "cancer": "carcinoma",
    "disease": "disorder",
    "surgery": "operation",
    "treatment": "therapy",
    "therapy": "treatment",
    "evaluation": "assessment",
    "outcome": "result",
    "outcomes": "results",
    "risk": "hazard",
    "rates": "frequencies",
    "mortality": "death",
    "diagnosis": "detection",
    "screening": "testing",
    "use": "application",
    "using": "employing",
    "during": "in",
    "after": "following",
    "following": "after",
    "between": "among",
    "does": "will",
    "do": "will",
    "is": "was",
    "are": "were",
    "can": "could",
    "should": "must",
    "a": "one",
    "the": "this",
    "in": "within",
    "of": "for",
    "with": "having",
    "for": "in",
    "there": "here",
}
FILLERS = ("possibly", "overall", "currently", "actually", "generally")


def edited(question: str, num_words: int, generator: random.Random) -> str:
    """Return the question with so many words exchanged: content words first, then others, then additions."""
    words = question.split()
    places = [
        (len(bare), place)
        for place, word in enumerate(words)
        if (bare := word.strip("?:.,()\"'")).lower() in SYNONYMS or bare.isdecimal()
    ]
    generator.shuffle(places)
    chosen = [place for _, place in sorted(places, key=lambda one: -one[0])[:num_words]]
    for place in chosen:
        bare = words[place].strip("?:.,()\"'")
        other = str(int(bare) + 1) if bare.isdecimal() else SYNONYMS[bare.lower()]
        words[place] = words[place].replace(bare, other.capitalize() if bare[0].isupper() else other)
    for filler in generator.sample(FILLERS, num_words - len(chosen)):
        words.insert(generator.randrange(1, len(words)), filler)
    return " ".join(words)


def reordered(question: str, generator: random.Random) -> str:
    """Return the question with its clauses in another order: cut at a comma or colon, or else before a preposition."""
    words = question.rstrip("?. ").split()
    cuts = [place + 1 for place, word in enumerate(words[:-1]) if word[-1] in ",:."]
    cuts = cuts or [
        n for n, word in enumerate(words) if n > 1 and word in {"in", "after", "with", "for", "among", "on"}
    ]
    cut = generator.choice(cuts or [len(words) // 2])
    return " ".join([*words[cut:], *words[:cut]]) + "?"


def planted(question: str, host: Example, context: str) -> Example:
    origin = Synthetic(method="new", parents=(host.id,), call="planted" * 3, place=0)
    return dataclasses.replace(host, question=question, context=context, origin=origin)


def recall(
    name: str, rows: Sequence[Example], of: Sequence[Example], held_out: Sequence[Example], settings: Leaks
) -> None:
    found = find_leaks(rows, held_out, settings)
    right = [one for one, gold in zip(found, of, strict=True) if one is not None and one.question == gold.question]
    kinds = Counter(one.how for one in right)
    missed = [row.question for row, one in zip(rows, found, strict=True) if one is None]
    print(f"{name:<22} {wilson(len(right), len(rows))!s:<48} {dict(kinds)}")
    for question in missed if name.endswith("changed") or name == "reordered" else ():
        print(f"    missed: {question}")


def false_alarms(name: str, rows: Sequence[Example], held_out: Sequence[Example], settings: Leaks) -> None:
    found = [(row, one) for row, one in zip(rows, find_leaks(rows, held_out, settings), strict=True) if one is not None]
    print(f"{name:<22} {wilson(len(found), len(rows))!s:<48} {dict(Counter(one.how for _, one in found))}")
    for row, one in found[:5]:
        print(f"    {one.how} {one.similarity:.2f}: {row.question}\n        ~ {one.question}")


def teacher_rows(path: Path, train: Sequence[Example]) -> tuple[list[Example], list[Example]]:
    """Return the rewrites and the new questions."""
    parents = {row.origin.source_id: row for row in train}
    rewrites, others = [], []
    for line in path.read_text(encoding="utf-8").splitlines():
        told = json.loads(line)
        parent = parents[told["id"]]
        origin = Synthetic(method="rewrite", parents=(parent.id,), call=told["id"] * 2, place=0)
        rewrite = told["rewrite"]
        rewrites.append(
            dataclasses.replace(parent, question=rewrite["question"], context=rewrite["context"], origin=origin)
        )
        others += [planted(new["question"], parent, parent.context) for new in told["new"]]
    return rewrites, others


def plants(splits: Splits, with_context: bool) -> dict[str, tuple[list[Example], list[Example]]]:
    """Return by kind the planted rows and the test questions that they are of."""
    test = {row.origin.source_id: row for row in splits.test}
    chosen = [test[name] for name in random.Random(SEED).sample(sorted(test), NUM_PLANTS)]
    hosts = random.Random(SEED + 1).sample(splits.train, NUM_PLANTS)
    edits: dict[str, Callable[[str, random.Random], str]] = {
        "verbatim": lambda text, _: text,
        "case and spaces": lambda text, _: text.upper().replace(" ", "  "),
        "one word changed": lambda text, generator: edited(text, 1, generator),
        "two words changed": lambda text, generator: edited(text, 2, generator),
        "three words changed": lambda text, generator: edited(text, 3, generator),
        "reordered": reordered,
    }
    found = {}
    for name, edit in edits.items():
        rows = []
        for row, host in zip(chosen, hosts, strict=True):
            generator = random.Random(derive_seed(SEED, name, row.id))
            rows.append(planted(edit(row.question, generator), host, row.context if with_context else host.context))
        found[name] = (rows, chosen)
    paraphrases = [
        json.loads(line) for line in Path(__file__).with_name("paraphrases.jsonl").read_text("utf-8").splitlines()
    ]
    golds = [test[one["id"]] for one in paraphrases]
    found["paraphrased"] = (
        [planted(one["question"], host, host.context) for one, host in zip(paraphrases, hosts, strict=False)],
        golds,
    )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pubmedqa", type=Path, help="ori_pqal.json of the dataset's repository")
    parser.add_argument("replies", type=Path, help="JSONL: id, rewrite {question, context}, new [{question}]")
    parser.add_argument("--encoder", choices=["tfidf", "minilm"], default="tfidf")
    parser.add_argument("--semantic", type=float, help="another threshold than the encoder's own")
    parser.add_argument("--near", type=float, default=Leaks().near)
    parser.add_argument("--with-context", action="store_true")
    options = parser.parse_args()
    splits = PubMedQASource(PubMedQA(path=options.pubmedqa)).load()
    held_out = [*splits.dev, *splits.test]
    settings = Leaks(encoder=options.encoder, semantic=options.semantic, near=options.near)
    print(f"{len(held_out)} held-out rows; near {settings.near}, semantic {settings.cosine} ({settings.encoder})\n")
    print("found of what was planted")
    for name, (rows, golds) in plants(splits, options.with_context).items():
        recall(name, rows, golds, held_out, settings)
    rewrites, others = teacher_rows(options.replies, splits.train)
    # A teacher's rewrites of training questions, with these held out: how its paraphrases would be found.
    by_id = {row.id: row for row in splits.train}
    parents = [by_id[parent] for row in rewrites if isinstance(row.origin, Synthetic) for parent in row.origin.parents]
    orphan = Synthetic(method="new", parents=(), call="stranger" * 2, place=0)
    strangers = [
        dataclasses.replace(row, context="", group=f"stranger {number}", origin=orphan)
        for number, row in enumerate(rewrites)
    ]
    recall("teacher's rewrites", strangers, parents, splits.train, settings)
    print("\nfalse alarms")
    false_alarms("real training rows", splits.train, held_out, settings)
    false_alarms("teacher's rewrites", rewrites, held_out, settings)
    false_alarms("teacher's questions", others, held_out, settings)


if __name__ == "__main__":
    main()
