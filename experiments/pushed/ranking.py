"""How well the committed students rank the official test questions, and how far other lines between labels bring them.

Ranking is the area under the ROC curve, 1 a perfect order and 0.5 chance: of "maybe" against the rest by its
probability, and of "no" against "yes" by the ratio of theirs. The third number is a bound and no result: the macro-F1
in percent where constants are added to the scores of "no" and of "maybe", of many those that suit these very questions
best.

    python experiments/pushed/ranking.py ORI_PQAL
"""

import json
import sys
from itertools import product
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

from drllama.recipe import PubMedQA
from drllama.sources.pubmedqa import PubMedQASource

EXPERIMENTS = ("strong", "weak", "gemma", "pushed")
ORDER = ("yes", "no", "maybe")
NO_NATS, MAYBE_NATS = np.arange(-2, 2.05, 0.1), np.arange(-2, 6.05, 0.1)


def main() -> None:
    """Print a line for each arm of each experiment, with a number for each seed."""
    test = PubMedQASource(PubMedQA(path=Path(sys.argv[1]))).load().test
    gold = np.array([ORDER.index(str(one.label)) for one in test])
    print(f"{'':<36}{'maybe':<23}{'no or yes':<23}macro-F1 at most")
    for experiment in EXPERIMENTS:
        found: dict[str, list[tuple[str, str, str]]] = {}
        for path in sorted((Path(__file__).parents[1] / experiment / "cells").glob("*.json")):
            cell = json.loads(path.read_text(encoding="utf-8"))
            columns = [cell["labels"].index(label) for label in ORDER]
            scores = np.array([answer[2] for answer in cell["answers"]])[:, columns]
            found.setdefault(cell["arm"], []).append(
                (
                    f"{roc_auc_score(gold == 2, scores[:, 2]):.3f}",
                    f"{roc_auc_score(gold[gold < 2], (scores[:, 1] - scores[:, 0])[gold < 2]):.3f}",
                    f"{100 * most_macro_f1(gold, scores):.1f}",
                )
            )
        for arm, seeds in found.items():
            told = "".join(f"{'  '.join(column):<23}" for column in zip(*seeds, strict=True))
            print(f"{experiment + ': ' + arm:<36}{told.rstrip()}")


def most_macro_f1(gold: np.ndarray, scores: np.ndarray) -> float:
    """Return the best macro-F1 that two constants added to the scores make."""
    worths = []
    for added in product([0.0], NO_NATS, MAYBE_NATS):
        chosen = (scores + added).argmax(axis=1)
        right = np.bincount(gold[chosen == gold], minlength=3)
        worths.append((2 * right / (np.bincount(chosen, minlength=3) + np.bincount(gold, minlength=3))).mean())
    return float(max(worths))


if __name__ == "__main__":
    main()
