"""What ``drllama data`` reads and prints, and what ``drllama explain`` says of the student's input."""

import difflib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from drllama import plugins
from drllama.cli.tables import table
from drllama.errors import MissingExtra, ModelError, RecipeError
from drllama.filters.duplicates import DuplicatePair
from drllama.prompts import student_prompt
from drllama.recipe import Columns, Recipe, read_recipe, resolve
from drllama.sources.rows import Row, read_csv, read_jsonl
from drllama.stages.describe import Lengths, SourceDescription, SplitDescription
from drllama.students.catalogue import folder_at_hand
from drllama.types import Label

_SHOWN_PAIRS = 5
_MOST_LABELS = 20
_QUESTION, _CONTEXT = "QUESTION?", "CONTEXT."
_NAMED = ("pubmedqa", "pubmedqa-demo")


def recipe_for(source: str, labels: str | None, assignments: Sequence[str]) -> Recipe:
    """Return a recipe whose data are this source: a recipe's own, a name, or a file by its ending.

    Raises:
        RecipeError: the text names no source.
    """
    path = Path(source)
    ending = path.suffix.lower()
    if labels is not None and ending not in (".jsonl", ".csv"):
        raise RecipeError(f"--labels {labels}: {source} brings its own labels; leave the option out")
    if ending in (".yaml", ".yml"):
        return read_recipe(path, assignments).recipe
    if assignments:
        raise RecipeError("--set changes a recipe; give a recipe as SOURCE")
    raw: dict[str, object] = {"name": "data"}
    match ending:
        case ".json" | ".parquet":
            raw["data"] = {"pubmedqa": {"path": source}}
        case ".jsonl" | ".csv":
            raw["data"] = {ending[1:]: {"path": source}}
            raw["task"] = _task(path, read_jsonl if ending == ".jsonl" else read_csv, labels)
        case _ if source in _NAMED:
            raw["data"] = source
        case _:
            near = difflib.get_close_matches(source, _NAMED, n=1)
            hint = f"did you mean '{near[0]}'? else " if near else ""
            raise RecipeError(
                f"{source}: not a source; {hint}give a recipe (.yaml), pubmedqa-demo, or a .json, .jsonl or .csv file"
            )
    return resolve(raw, where=source).recipe


def reading_text(recipe: Recipe) -> str:
    """Return what the student reads of an example question, and whether in its chat template or plain, and why."""
    prompt, student = student_prompt(recipe.student.prompt), recipe.student
    text, why = prompt.render(question=_QUESTION, context=_CONTEXT), "as plain text: student.chat is no"
    if student.chat != "no":
        try:
            here = folder_at_hand(student.model, revision=student.revision)
        except (ModelError, MissingExtra):
            here = None
        if here is None:
            why = f"student.chat is {student.chat}: in the student's chat template if it has one; it isn't here to tell"
        else:
            from drllama.students.chat import phrasing_of
            from drllama.students.loading import load_tokenizer

            phrasing = phrasing_of(load_tokenizer(student), student, plugins.make_source(recipe).task)
            text = phrasing.text(question=_QUESTION, context=_CONTEXT)
            why = "in its chat template" if phrasing.frame.is_chat else "as plain text: it has no chat template"
    return f"The student reads ({prompt.version}, sha256 {prompt.sha256[:12]}; {why}):\n{text}"


def _task(path: Path, read: Callable[[Path], Sequence[Row]], labels: str | None) -> dict[str, object]:
    """Return the task of a file that doesn't say which labels it may hold: those given, else those that it holds."""
    if labels is not None:
        return {"name": path.name, "labels": [label.strip() for label in labels.split(",")]}
    rows = read(path)
    column = Columns().label
    if not any(column in row.cells for row in rows):
        raise RecipeError(
            f"{path}: no column '{column}' to take the labels from; write a recipe that names yours in "
            f"data.{path.suffix.lower()[1:]}.columns.label, and give that"
        )
    cells = [row.cells.get(column) for row in rows]
    texts = [str(cell).lower() if isinstance(cell, bool) else str(cell).strip() for cell in cells if cell is not None]
    found = list(dict.fromkeys(filter(None, texts)))
    if not 2 <= len(found) <= _MOST_LABELS:
        raise RecipeError(
            f"{path}: holds {len(found)} different labels; say which are allowed, such as --labels yes,no,maybe"
        )
    return {"name": f"{path.name} (labels as found in the file; --labels checks them)", "labels": found}


def description_text(found: SourceDescription) -> str:
    """Return a description as aligned plain text."""
    labels = found.task.labels
    header = ["split", "questions", "documents", *labels, "question characters", "context characters"]
    lines = [
        f"task: {found.task.name}; labels: {', '.join(labels)}",
        "",
        table(header, [_split_row(one, labels) for one in found.splits]),
        "characters: shortest / median / 95 % / longest",
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
    return "\n".join([*lines, *_pair_lines(found.pairs), *_contradiction_lines(found)])


def _split_row(one: SplitDescription, labels: Sequence[Label]) -> list[str]:
    shares = [
        f"{one.label_counts[label]} ({one.label_counts[label] / max(1, one.num_examples):.0%})" for label in labels
    ]
    lengths = [_lengths(one.question_lengths), _lengths(one.context_lengths)]
    return [one.split, str(one.num_examples), str(one.num_groups), *shares, *lengths]


def _pair_lines(pairs: Sequence[DuplicatePair]) -> Iterator[str]:
    for pair in pairs[:_SHOWN_PAIRS]:
        first, second = pair.first.origin.source_id, pair.second.origin.source_id
        yield f"  {pair.kind} ({pair.similarity:.2f}): {first} ({pair.first.split}) and {second} ({pair.second.split})"
    if len(pairs) > _SHOWN_PAIRS:
        yield f"  and {len(pairs) - _SHOWN_PAIRS} more pairs"


def _contradiction_lines(found: SourceDescription) -> Iterator[str]:
    for contradiction in found.contradictions:
        told = ", ".join(f"{one.origin.source_id} says {one.label}" for one in contradiction.examples)
        yield f"  contradiction: {told}"


def _lengths(lengths: Lengths | None) -> str:
    if lengths is None:
        return "-"
    return f"{lengths.shortest} / {lengths.median:.0f} / {lengths.p95} / {lengths.longest}"
