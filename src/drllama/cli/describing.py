"""What ``drllama data`` reads and prints."""

from collections.abc import Sequence
from pathlib import Path

from drllama.cli.tables import table
from drllama.errors import RecipeError
from drllama.recipe import Recipe, read_recipe, resolve
from drllama.stages.describe import Lengths, SourceDescription

_SHOWN_PAIRS = 5


def recipe_for(source: str, labels: str | None, assignments: Sequence[str]) -> Recipe:
    """Return a recipe whose data are this source: a recipe's own, a name, or a file by its ending.

    Raises:
        RecipeError: the text names no source.
    """
    path = Path(source)
    if path.suffix in (".yaml", ".yml"):
        return read_recipe(path, assignments).recipe
    if assignments:
        raise RecipeError("--set changes a recipe; give a recipe as SOURCE")
    raw: dict[str, object] = {"name": "data"}
    match path.suffix:
        case ".json" | ".parquet":
            raw["data"] = {"pubmedqa": {"path": source}}
        case ".jsonl" | ".csv" as ending:
            if labels is None:
                raise RecipeError(f"{source}: say which labels are allowed, such as --labels yes,no,maybe")
            raw["data"] = {ending[1:]: {"path": source}}
            raw["task"] = {"labels": [label.strip() for label in labels.split(",")]}
        case _ if source in ("pubmedqa", "pubmedqa-demo"):
            raw["data"] = source
        case _:
            raise RecipeError(
                f"{source}: not a source; give a recipe (.yaml), pubmedqa-demo, or a .json, .jsonl or .csv file"
            )
    return resolve(raw, where=source).recipe


def description_text(found: SourceDescription) -> str:
    """Return a description as aligned plain text."""
    labels = found.task.labels
    rows = [
        [
            one.split,
            str(one.num_examples),
            str(one.num_groups),
            *(
                f"{one.label_counts[label]} ({one.label_counts[label] / max(1, one.num_examples):.0%})"
                for label in labels
            ),
            _lengths(one.question_lengths),
            _lengths(one.context_lengths),
        ]
        for one in found.splits
    ]
    lengths = "shortest / median / 95 % / longest"
    lines = [
        table(["split", "questions", "documents", *labels, "question characters", "context characters"], rows),
        f"characters: {lengths}",
        "",
        table(
            ["duplicates", "exact", "near", "of these from one document"],
            [
                [
                    f"within {one.first}" if one.first == one.second else f"{one.first} and {one.second}",
                    str(one.exact),
                    str(one.near),
                    str(one.near_same_document),
                ]
                for one in found.duplicates
            ],
        ),
    ]
    for pair in found.pairs[:_SHOWN_PAIRS]:
        first, second = pair.first.origin.source_id, pair.second.origin.source_id
        lines.append(
            f"  {pair.kind} ({pair.similarity:.2f}): {first} ({pair.first.split}) and {second} ({pair.second.split})"
        )
    if len(found.pairs) > _SHOWN_PAIRS:
        lines.append(f"  and {len(found.pairs) - _SHOWN_PAIRS} more pairs")
    for contradiction in found.contradictions:
        told = ", ".join(f"{one.origin.source_id} says {one.label}" for one in contradiction.examples)
        lines.append(f"  contradiction: {told}")
    return "\n".join(lines)


def _lengths(lengths: Lengths | None) -> str:
    if lengths is None:
        return "-"
    return f"{lengths.shortest} / {lengths.median:.0f} / {lengths.p95} / {lengths.longest}"
