"""Reading text files into rows; every row knows its file and line, every error is one line that names both."""

import csv
import io
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from drllama.errors import DataError
from drllama.sources.tasks import shown

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row of a table."""

    path: Path
    line: int
    """The line that the row begins on, from 1."""
    cells: Mapping[str, object]

    @property
    def where(self) -> str:
        """Return file and line, as errors name them."""
        return f"{self.path} line {self.line}"


def read_text(path: Path) -> str:
    """Return a file's text, with or without a byte order mark.

    Raises:
        DataError: it can't be read, isn't UTF-8 or is empty.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; give the path of a file of questions") from error
    try:
        text = content.removeprefix(_BYTE_ORDER_MARK).decode()
    except UnicodeDecodeError as error:
        offset = error.start + (len(_BYTE_ORDER_MARK) if content.startswith(_BYTE_ORDER_MARK) else 0)
        line = content.count(b"\n", 0, offset) + 1
        raise DataError(f"{path} line {line}: not UTF-8 at byte {offset}; save the file as UTF-8") from error
    if not text.strip():
        raise DataError(f"{path}: empty; give a file with questions")
    return text


def read_json(text: str, where: str) -> object:
    """Return the value of a JSON text; a name that stands twice in one object is an error too.

    Raises:
        DataError: not JSON; the message begins with ``where``.
    """
    try:
        value: object = json.loads(text, object_pairs_hook=_once_each)
    except json.JSONDecodeError as error:
        at = f"line {error.lineno} column {error.colno}" if "\n" in text else f"column {error.colno}"
        raise DataError(f"{where}: not JSON at {at} ({error.msg}); mend it") from error
    except RecursionError as error:
        raise DataError(f"{where}: JSON nested too deeply; mend it") from error
    except ValueError as error:
        raise DataError(f"{where}: {error}; mend it") from error
    if "\\u" in text:
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise DataError(f"{where}: holds half a surrogate pair, which is no character; mend it") from error
    return value


def _once_each(pairs: list[tuple[str, object]]) -> dict[str, object]:
    cells = dict(pairs)
    if len(cells) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the name {shown(twice)} stands twice in one object")
    return cells


def read_jsonl(path: Path) -> Sequence[Row]:
    """Return the rows of a file with one JSON object a line; blank lines are passed over.

    Raises:
        DataError: a line isn't a JSON object.
    """
    rows = []
    # Not splitlines(): it cuts at U+2028 and its kin, which JSON allows inside strings.
    for line, text in enumerate(read_text(path).split("\n"), start=1):
        if not text.strip():
            continue
        row = Row(path=path, line=line, cells={})
        if line == 1 and text.lstrip().startswith("["):
            raise DataError(f"{row.where}: a JSON list, not an object; write one JSON object a line")
        cells = read_json(text, row.where)
        if not isinstance(cells, dict):
            raise DataError(f'{row.where}: {kind_of(cells)}, not a JSON object; write rows like {{"question": ...}}')
        rows.append(Row(path=path, line=line, cells=cells))
    return rows


def read_csv(path: Path) -> Sequence[Row]:
    """Return the rows of a comma-separated file under its header line; blank lines are passed over.

    Raises:
        DataError: the header is unusable, a row has more or fewer cells than it, or quotes don't close.
    """
    reader = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    records: list[tuple[int, list[str]]] = []
    line = 1
    with _long_cells_allowed():
        try:
            for cells in reader:
                if cells:
                    records.append((line, cells))
                line = reader.line_num + 1
        except csv.Error as error:
            raise DataError(f"{path} line {line}: {error}; mend the quotes of the row that begins there") from error
    (header_line, names), *rest = records
    header = _header(names, path, header_line)
    if not rest:
        raise DataError(f"{path}: a header and no rows; give a file with questions")
    return [_csv_row(header, cells, path, line) for line, cells in rest]


def _header(cells: list[str], path: Path, line: int) -> list[str]:
    names = [cell.strip() for cell in cells]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise DataError(f"{path} line {line}: the column {shown(twice)} stands twice in the header; rename one")
    return names


def _csv_row(header: list[str], cells: list[str], path: Path, line: int) -> Row:
    if len(cells) != len(header):
        raise DataError(
            f"{path} line {line}: cells: {len(cells)}, columns in the header: {len(header)}; "
            "put cells that hold commas or line breaks in quotes"
        )
    return Row(path=path, line=line, cells=dict(zip(header, cells, strict=True)))


@contextmanager
def _long_cells_allowed() -> Iterator[None]:
    # The limit is a C long, 32 bits wide on Windows, and belongs to the whole process: it is put back.
    before = csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    try:
        yield
    finally:
        csv.field_size_limit(before)


def kind_of(value: object) -> str:
    """Return what a JSON value is, in words."""
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case str():
            return "a text"
        case list():
            return "a list"
        case _:
            return "an object"
