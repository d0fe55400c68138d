"""How well the committed students rank the official test questions, apart from where they draw the line.

1 is a perfect order and 0.5 is chance (area under the ROC curve): of "maybe" against the rest by its probability, and
of "no" against "yes" by the ratio of theirs.

    python experiments/pushed/ranking.py ORI_PQAL
"""

import json
import sys
from pathlib import Path

from sklearn.metrics import roc_auc_score

from drllama.recipe import PubMedQA
from drllama.sources.pubmedqa import PubMedQASource

EXPERIMENTS = ("strong", "weak", "gemma", "pushed")


def main() -> None:
    """Print a line for each arm of each experiment, with a number for each seed."""
    test = PubMedQASource(PubMedQA(path=Path(sys.argv[1]))).load().test
    print(f"{'':<36}{'maybe':<23}no or yes")
    for experiment in EXPERIMENTS:
        found: dict[str, list[tuple[float, float]]] = {}
        for path in sorted((Path(__file__).parents[1] / experiment / "cells").glob("*.json")):
            cell = json.loads(path.read_text(encoding="utf-8"))
            maybe, no, yes = (cell["labels"].index(label) for label in ("maybe", "no", "yes"))
            answers = [(one.label, scores) for one, (_, _, scores, *_) in zip(test, cell["answers"], strict=True)]
            decided = [pair for pair in answers if pair[0] != "maybe"]
            ranks = (
                roc_auc_score([gold == "maybe" for gold, _ in answers], [scores[maybe] for _, scores in answers]),
                roc_auc_score(
                    [gold == "no" for gold, _ in decided], [scores[no] - scores[yes] for _, scores in decided]
                ),
            )
            found.setdefault(cell["arm"], []).append(ranks)
        for arm, seeds in found.items():
            columns = ("  ".join(f"{one:.3f}" for one in ranks) for ranks in zip(*seeds, strict=True))
            print(f"{experiment + ': ' + arm:<36}" + "".join(f"{column:<23}" for column in columns).rstrip())


if __name__ == "__main__":
    main()
