"""Questions of one's own: JSON lines and CSV, one file or one for each split."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from drllama.errors import DataError, RecipeError
from drllama.recipe import CsvFiles, JsonlFiles
from drllama.sources.cells import CellReader
from drllama.sources.rows import Row, read_csv, read_jsonl
from drllama.sources.splitting import by_split, limited, refuse_empty, split_of
from drllama.sources.tasks import shown
from drllama.types import Example, SplitName, Splits, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class _Placed:
    """An example and the row that it was read from."""

    row: Row
    example: Example


@dataclass(frozen=True, slots=True, init=False)
class TableSource:
    """Rows of the user's own files as examples."""

    settings: JsonlFiles | CsvFiles
    task: Task

    def __init__(self, settings: JsonlFiles | CsvFiles, task: Task | None) -> None:
        """Take the files' settings and the recipe's task.

        Raises:
            RecipeError: there is no task; a table doesn't say which labels it may hold.
        """
        if task is None:
            raise RecipeError(f"data.{settings.kind} needs task.labels; add e.g. task: {{labels: [yes, no, maybe]}}")
        object.__setattr__(self, "settings", settings)
        object.__setattr__(self, "task", task)

    def load(self) -> Splits:
        """Return the rows, split as the files say, or else by the hash of their document.

        Raises:
            DataError: a row can't be read, a question or a document stands in two splits, or a split is empty.
        """
        settings = self.settings
        files = [path for path in (settings.path, settings.train, settings.dev, settings.test) if path is not None]
        placed = self._whole(settings.path) if settings.path is not None else self._by_file()
        _refuse_overlap(placed, f"data.{settings.kind}.columns.group")
        splits = by_split([one.example for one in placed])
        way_out = f"add questions, or change data.{settings.kind}.shares or the questions' splits"
        refuse_empty(splits, ", ".join(map(str, files)), way_out)
        return limited(splits, settings.limit)

    def _whole(self, path: Path) -> list[_Placed]:
        """Return one file's examples, split by its split column, or by hash when no row has a mark."""
        shares = self.settings.shares
        read = self._read(path)
        marks = [self._cells.split_mark(one.row) for one in read]
        if not any(marks):
            return [_into(one, split_of(one.example.group, dev=shares.dev, test=shares.test)) for one in read]
        if None in marks:
            row = read[marks.index(None)].row
            raise DataError(f"{row.where}: no split, though other rows have one; write train, dev or test")
        return [_into(one, mark) for one, mark in zip(read, marks, strict=True) if mark is not None]

    def _by_file(self) -> list[_Placed]:
        """Return the examples of a file for each split; dev comes out of train when it has none."""
        settings = self.settings
        assert settings.train is not None, "the recipe refuses this"
        assert settings.test is not None, "the recipe refuses this"
        train = self._marked("train", settings.train)
        if settings.dev is None:
            share = settings.shares.dev
            return [
                *(_into(one, split_of(one.example.group, dev=share, test=0)) for one in train),
                *self._marked("test", settings.test),
            ]
        return [*train, *self._marked("dev", settings.dev), *self._marked("test", settings.test)]

    def _marked(self, split: SplitName, path: Path) -> list[_Placed]:
        read = self._read(path)
        for one in read:
            mark = self._cells.split_mark(one.row)
            if mark not in (None, split):
                raise DataError(
                    f"{one.row.where}: split {shown(mark)} in the file that data.{self.settings.kind}.{split} names; "
                    f"move the row, or give the one file as data.{self.settings.kind}.path"
                )
        return [_into(one, split) for one in read]

    def _read(self, path: Path) -> list[_Placed]:
        rows = read_jsonl(path) if isinstance(self.settings, JsonlFiles) else read_csv(path)
        cells = self._cells
        cells.refuse_unknown_columns(rows)
        placed = [_Placed(row=row, example=cells.example(row, "train")) for row in rows]
        first: dict[str, Row] = {}
        for one in placed:
            name = one.example.origin.source_id
            if (before := first.setdefault(name, one.row)) is not one.row:
                raise DataError(
                    f"{one.row.where}: id {shown(name)} stands on line {before.line} too; make the ids differ"
                )
        return placed

    @property
    def _cells(self) -> CellReader:
        section = f"data.{self.settings.kind}.columns"
        return CellReader(columns=self.settings.columns, section=section, task=self.task)


def _into(placed: _Placed, split: SplitName) -> _Placed:
    return replace(placed, example=replace(placed.example, split=split))


def _refuse_overlap(placed: Sequence[_Placed], group_setting: str) -> None:
    """Refuse a question or a document in two splits: a score on it would be memory, not skill."""
    questions: dict[str, _Placed] = {}
    documents: dict[str, _Placed] = {}
    for one in placed:
        before = questions.setdefault(one.example.id, one)
        if before.example.split != one.example.split:
            raise DataError(f"{_both(before, one, 'the same question')}; delete one of them")
    for one in placed:
        before = documents.setdefault(one.example.group, one)
        if before.example.split != one.example.split:
            raise DataError(
                f"{_both(before, one, 'the same document')} (by group, or else by context); put all its questions "
                f"into one split, or name in {group_setting} a column that tells documents apart"
            )


def _both(first: _Placed, second: _Placed, what: str) -> str:
    splits = f"{first.example.split} and {second.example.split}"
    return f"{first.row.where} and {second.row.where}: {what} stands in {splits}"
