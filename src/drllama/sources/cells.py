"""What the cells of one row mean: question, context, options, label and the names that the row gives itself."""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from drllama.errors import DataError
from drllama.recipe import Columns
from drllama.sources.rows import Row, kind_of
from drllama.sources.splitting import SPLIT_NAMES, document_id
from drllama.sources.tasks import gold_label, shown
from drllama.types import Example, Original, SplitName, Task

_OPTIONAL = ("context", "options", "long_answer", "id", "group", "split")


@dataclass(frozen=True, slots=True, kw_only=True)
class CellReader:
    """Reads rows by the column names of a recipe."""

    columns: Columns
    section: str
    """Where the recipe names the columns, for errors: ``data.jsonl.columns``."""
    task: Task

    def refuse_unknown_columns(self, rows: Sequence[Row]) -> None:
        """Do nothing when each optional column that the recipe renames is there: a typo would lose it in silence.

        Raises:
            DataError: no row has the column.
        """
        for field in _OPTIONAL:
            chosen = getattr(self.columns, field)
            if chosen == Columns.model_fields[field].default:
                continue
            for name in [chosen] if isinstance(chosen, str) else chosen:
                if not any(name in row.cells for row in rows):
                    raise self._no_column(rows[0], field, name)

    def example(self, row: Row, split: SplitName) -> Example:
        """Return a row as an example.

        Raises:
            DataError: a cell is missing, empty or not what its column holds.
        """
        question = (_text(row, self._required(row, "question", self.columns.question)) or "").strip()
        if not question:
            raise DataError(f"{row.where}: the question is empty; write one or delete the row")
        context = self._context(row)
        label = row.cells[self._required(row, "label", self.columns.label)]
        return Example(
            question=question,
            context=context,
            options=self._options(row),
            long_answer=_text(row, self.columns.long_answer),
            label=gold_label(label, self.task, row.where),
            split=split,
            group=_name(row, self.columns.group) or document_id(question, context),
            origin=Original(source=row.path.name, source_id=_name(row, self.columns.id) or str(row.line)),
        )

    def split_mark(self, row: Row) -> SplitName | None:
        """Return what the row's split cell says; None when there is none or it is empty.

        Raises:
            DataError: it names no split.
        """
        mark = _name(row, self.columns.split)
        for name in SPLIT_NAMES:
            if mark == name:
                return name
        if mark is None:
            return None
        raise DataError(f"{row.where}: split {shown(mark)} is not one of {', '.join(SPLIT_NAMES)}; correct it")

    def _context(self, row: Row) -> str:
        name = self.columns.context
        value = row.cells.get(name)
        if not isinstance(value, list):
            return _text(row, name) or ""
        for paragraph in value:
            if not isinstance(paragraph, str):
                raise DataError(f"{row.where}: {name} holds {kind_of(paragraph)} among its paragraphs; write texts")
        return "\n".join(value)

    def _options(self, row: Row) -> tuple[str, ...]:
        name = self.columns.options
        match name, None if isinstance(name, tuple) else row.cells.get(name):
            case tuple(), _:
                found = [_option(row.cells[self._required(row, "options", one)], row) for one in name]
            case _, None | "":
                found = []
            case _, list() as several:
                found = [_option(one, row) for one in several]
            case _, str() as text:
                found = [_option(one, row) for one in text.split("|")]
            case _, other:
                raise DataError(f"{row.where}: {name} is {kind_of(other)}; write a list, or texts parted by |")
        labels = self.task.labels
        if found and len(found) != len(labels):
            raise DataError(
                f"{row.where}: options: {len(found)}, labels: {len(labels)} ({', '.join(labels)}); "
                "write one option for each label, in the labels' order"
            )
        return tuple(found)

    def _required(self, row: Row, field: str, name: str) -> str:
        if name not in row.cells:
            raise self._no_column(row, field, name)
        return name

    def _no_column(self, row: Row, field: str, name: str) -> DataError:
        there = [column for column in row.cells if column]
        listed = ", ".join(there) if len(there) <= 20 else f"{', '.join(there[:20])} and {len(there) - 20} more"
        near = _nearest(name, there)
        guess = f"did you mean {shown(near)}? " if near else ""
        return DataError(
            f"{row.where}: no column {shown(name)}; there are {' '.join(listed.split()) or 'none'}; "
            f"{guess}name yours in {self.section}.{field}"
        )


def _nearest(name: str, columns: Iterable[str]) -> str | None:
    by_lower = {column.casefold(): column for column in columns}
    close = difflib.get_close_matches(name.casefold(), by_lower, n=1, cutoff=0.6)
    return by_lower[close[0]] if close else None


def _text(row: Row, name: str) -> str | None:
    value = row.cells.get(name)
    if value is None or isinstance(value, str):
        return value or None
    raise DataError(f"{row.where}: {name} is {kind_of(value)}, not a text; put it in quotes")


def _name(row: Row, name: str) -> str | None:
    value = row.cells.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise DataError(f"{row.where}: {name} is {kind_of(value)}, not a name; write a text or a number")
    return str(value).strip() or None


def _option(value: object, row: Row) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    text = str(value).strip() if isinstance(value, str | int | float) else ""
    if not text:
        raise DataError(
            f"{row.where}: an option is {'empty' if isinstance(value, str) else kind_of(value)}; write a text"
        )
    return text
