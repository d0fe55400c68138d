"""Published results: read from a file, and those of them that stand beside an arm or a setting."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from drllama.errors import DataError
from drllama.recipe import Report
from drllama.types import Published, PublishedRow

FORMAT = 1
_FORM = "experiments/paper/published.json shows the form"


def published_beside(settings: Report) -> Published | None:
    """Return the published results that a recipe wants beside ours; None: it wants none.

    Raises:
        DataError: the file can't be read, or has none of the student that is wanted.
    """
    if settings.reference is None:
        return None
    found, student = read_published(settings.reference), settings.reference_student
    if student is None:
        return found
    rows = tuple(row for row in found.rows if row.student == student)
    if not rows:
        there = ", ".join(dict.fromkeys(row.student for row in found.rows))
        raise DataError(f"{settings.reference}: nothing of report.reference_student '{student}'; there are {there}")
    return replace(found, rows=rows)


def read_published(path: Path) -> Published:
    """Return the results of a file such as ``experiments/paper/published.json``, percents as shares.

    Raises:
        DataError: it can't be read, or holds something else.
    """
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        number, unit = told.pop("format"), told.pop("unit")
        if (number, unit) != (FORMAT, "percent"):
            raise DataError(f"{path}: has format {number} in {unit}; this drllama reads format {FORMAT} in percent")
        rows = [
            {**row, "accuracy": row["accuracy"] / 100, "macro_f1": row["macro_f1"] / 100} for row in told.pop("rows")
        ]
        return _PUBLISHED.validate_python({**told, "source": told.pop("paper"), "rows": rows})
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; give report.reference a file of published results") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise DataError(f"{path}: {where}: {first['msg']}; {_FORM}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: no file of published results; {_FORM}") from error


def beside_arm(published: Published, arm: str, finetune: Mapping[str, object]) -> tuple[PublishedRow, ...]:
    """Return the results of arms like this one: of the same method, and of the same value of what was varied.

    Where none has the same value, or none the same method, those of all are returned. ``finetune`` is the recipe's
    section.
    """
    of_arm = [row for row in published.rows if row.arm == arm]
    alike = [row for row in of_arm if _value_at(finetune, f"finetune.method.{row.method}")]
    same = [row for row in alike if _value_at(finetune, row.setting) == row.value]
    return tuple(same or alike or of_arm)


def _value_at(finetune: Mapping[str, object], path: str) -> object:
    found: object = {"finetune": finetune}
    for part in path.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


_PUBLISHED: TypeAdapter[Published] = TypeAdapter(Published)
