"""Decisions as a table for people in spreadsheets, and back: what they didn't touch stays as it was."""

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from drllama.errors import DataError
from drllama.filters.review import current
from drllama.report.wording import visible
from drllama.types import Decision, Label, Ruling, Texts, Verdict

_TEXTS = ("question", "context", "label", "long_answer")
_READ_ONLY = ("method", "outcome", "original_question", "original_context", "original_label")
_NEEDED = ("id", *_TEXTS, "decision", "reason", "reviewer", "seen")
_COLUMNS = ("id", *_READ_ONLY, *_TEXTS, "decision", "reason", "reviewer", "decided_at", "seen")

# A spreadsheet takes a cell that starts with one of these, or with its wide form, for a formula or worse.
_ACTIVE = re.compile(r"'*[=+\-@\t\r\n＝＋－＠]")
_LONGEST_CELL = 32_767
"""Characters; spreadsheets cut what is longer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reviewable:
    """A candidate as somebody reviews it."""

    id: str
    written: Texts
    """By the teacher."""
    method: str
    outcome: str
    """What the filters made of it, in a few words."""
    original: Texts | None
    """Of the example that it was made from; None: the data don't hold it any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """A table as it came back."""

    where: str
    rows: tuple[Mapping[str, str], ...]
    """Cells by column, the header left out; formulas' guards are taken off."""


def exported(rows: Iterable[Reviewable], decisions: Sequence[Decision]) -> bytes:
    """Return the table as CSV in UTF-8, with the mark that spreadsheets know it by; no cell can act as a formula."""
    last, standing = _last_numbers(decisions), current(decisions)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(_COLUMNS)
    for row in rows:
        decision = standing.get(row.id)
        if decision and decision.ruling.written != row.written.id:
            decision = None
        cells = _cells(row, decision) | {"seen": str(last.get(row.id, 0))}
        writer.writerow([_guarded(visible(cells[name])) for name in _COLUMNS])
    return text.getvalue().encode("utf-8-sig")


def read_sheet(content: bytes, *, where: str) -> Sheet:
    """Return the table in a CSV file, as ``exported`` wrote it or a spreadsheet saved it: with , ; or tabs.

    Raises:
        DataError: it isn't UTF-8 text, or a needed column isn't there.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: isn't UTF-8 at byte {error.start}; save it as CSV in UTF-8") from error
    header = text.partition("\n")[0]
    # Python's own limit, 131,072, is below what a context may be, and is there for nothing but broken files.
    csv.field_size_limit(max(csv.field_size_limit(), len(text) + 1))
    reader = csv.DictReader(
        io.StringIO(text, newline=""), delimiter=max(",;\t", key=header.count), restkey="", restval="", strict=True
    )
    try:
        missing = [name for name in _NEEDED if name not in (reader.fieldnames or ())]
        if missing:
            raise DataError(f"{where}: has no column {', '.join(missing)}; import a file that --export wrote")
        rows = tuple({name: _unguarded(str(row[name])) for name in _NEEDED} for row in reader)
    except csv.Error as error:
        raise DataError(f"{where} line {reader.line_num}: can't be read as CSV ({error}); save it as CSV") from error
    return Sheet(where=where, rows=rows)


def rulings_of(
    sheet: Sheet,
    rows: Sequence[Reviewable],
    decisions: Sequence[Decision],
    *,
    labels: Sequence[Label],
    reviewer: str | None,
) -> list[tuple[Ruling, int]]:
    """Return what the table says anew, each with the decision that its writer had seen; the same table again: nothing.

    ``reviewer`` goes before the names in the table.

    Raises:
        DataError: a row names no candidate or a wrong label, its decision can't be read, it says nobody's name, or
            somebody decided otherwise since the export; the message names the row as a spreadsheet counts it.
    """
    known, by_number = {row.id: row for row in rows}, {one.number: one for one in decisions}
    last = _last_numbers(decisions)
    found: dict[str, tuple[Ruling, int] | None] = {}
    # Row 1 is the header.
    for number, cells in enumerate(sheet.rows, start=2):
        if not any(cell.strip() for cell in cells.values()):
            continue
        try:
            row = _row_named(cells["id"], known, found)
            seen = _seen(cells["seen"], row, by_number)
            before, now = by_number.get(seen), by_number.get(last.get(row.id, 0))
            ruling = _ruling(cells, row, before, labels)
            found[row.id] = None
            if not ruling.says_the_same(_standing(row, before)) and not ruling.says_the_same(_standing(row, now)):
                found[row.id] = _unopposed(ruling, seen, now), seen
                _check_name(reviewer or ruling.reviewer)
        except DataError as error:
            raise DataError(f"{sheet.where} row {number}: {error}; nothing was imported") from error
    made = [one for one in found.values() if one]
    return [(_by(ruling, reviewer), seen) for ruling, seen in made]


def restored(text: str, written: str) -> str:
    """Return a text that went through a form or a cell: as it was written, if nobody changed it there.

    Forms and spreadsheets change line ends, and what no file may hold came as a replacement mark.
    """
    lines = _with_plain_line_ends(text)
    shown = _with_plain_line_ends(visible(written))
    is_cut = len(text) >= _LONGEST_CELL - 1 and shown.startswith(lines)
    return written if lines == shown or is_cut else lines


def restored_texts(cells: Mapping[str, str], written: Texts) -> Texts:
    """Return four texts that went through a form or a row of cells; an empty long answer is none."""
    long_answer = restored(cells["long_answer"], written.said)
    return Texts(
        question=restored(cells["question"], written.question),
        context=restored(cells["context"], written.context),
        label=cells["label"],
        long_answer=written.long_answer if long_answer == written.said else long_answer or None,
    )


def _cells(row: Reviewable, decision: Decision | None) -> dict[str, str]:
    ruling = decision.ruling if decision else None
    texts = ruling.edited if ruling and ruling.edited else row.written
    original = row.original
    return {
        "id": row.id,
        "method": row.method,
        "outcome": row.outcome,
        "original_question": original.question if original else "",
        "original_context": original.context if original else "",
        "original_label": original.label if original else "",
        "question": texts.question,
        "context": texts.context,
        "label": texts.label,
        "long_answer": texts.said,
        "decision": ruling.verdict if ruling else "",
        "reason": ruling.reason if ruling else "",
        "reviewer": ruling.reviewer if ruling else "",
        "decided_at": decision.at if decision else "",
    }


def _guarded(cell: str) -> str:
    return f"'{cell}" if _ACTIVE.match(cell) else cell


def _unguarded(cell: str) -> str:
    return cell[1:] if cell.startswith("'") and _ACTIVE.match(cell) else cell


def _last_numbers(decisions: Iterable[Decision]) -> dict[str, int]:
    return {one.ruling.candidate_id: one.number for one in sorted(decisions, key=lambda one: one.number)}


def _row_named(name: str, known: Mapping[str, Reviewable], found: Mapping[str, object]) -> Reviewable:
    if name in found:
        raise DataError(f"id '{name}' stands here twice; delete one of the rows")
    if name not in known:
        raise DataError(f"id '{name}' is no candidate of this run; leave the column id as it was exported")
    return known[name]


def _seen(cell: str, row: Reviewable, by_number: Mapping[int, Decision]) -> int:
    try:
        seen = int(cell)
    except ValueError as error:
        raise DataError(f"seen '{cell}' is no number; leave the column seen as it was exported") from error
    if seen and (seen not in by_number or by_number[seen].ruling.candidate_id != row.id):
        raise DataError(f"seen {seen} is no decision about {row.id} here; leave the column seen as it was exported")
    return seen


def _standing(row: Reviewable, decision: Decision | None) -> Ruling:
    """Return what a decision comes to for the texts as they are now; none, or one about others, is an undo."""
    if decision is None or decision.ruling.written != row.written.id or decision.ruling.verdict == Verdict.UNDO:
        return _nothing(row, decision.ruling.reviewer if decision else "")
    return decision.ruling


def _nothing(row: Reviewable, reviewer: str) -> Ruling:
    return Ruling(
        candidate_id=row.id,
        written=row.written.id,
        verdict=Verdict.UNDO,
        reason="",
        edited=None,
        reviewer=reviewer,
    )


def _ruling(cells: Mapping[str, str], row: Reviewable, before: Decision | None, labels: Sequence[Label]) -> Ruling:
    verdict, texts = _verdict(cells["decision"]), restored_texts(_with_known_label(cells, labels), row.written)
    reason = cells["reason"].strip()
    is_changed = texts != row.written
    match verdict:
        case Verdict.EDIT if not is_changed:
            raise DataError("decision 'edit', but no text differs; change one, or write accept")
        case Verdict.EDIT if not texts.question.strip():
            raise DataError("the question is empty; write one, or write reject")
        case Verdict.EDIT:
            pass
        case _ if is_changed and texts != _standing(row, before).edited:
            said = f"'{cells['decision'].strip()}'" if cells["decision"].strip() else "empty"
            raise DataError(f"a text was changed, but the decision is {said}; write edit, or put the text back")
        case Verdict.ACCEPT if is_changed:
            raise DataError("decision 'accept', but the texts are edited ones; write edit, or put the teacher's back")
        case Verdict.UNDO:
            # What was said of a decision that isn't one any more goes with it.
            return _nothing(row, cells["reviewer"].strip())
        case _:
            pass
    return Ruling(
        candidate_id=row.id,
        written=row.written.id,
        verdict=verdict,
        reason=reason,
        edited=texts if verdict == Verdict.EDIT else None,
        reviewer=cells["reviewer"].strip(),
    )


def _verdict(cell: str) -> Verdict:
    name = cell.strip().casefold()
    if not name:
        return Verdict.UNDO
    if name not in list(Verdict):
        raise DataError(f"decision '{cell}' is none of {', '.join(Verdict)}; write one of them, or nothing")
    return Verdict(name)


def _with_known_label(cells: Mapping[str, str], labels: Sequence[Label]) -> Mapping[str, str]:
    label = cells["label"].strip()
    # A spreadsheet writes true as TRUE.
    alike = [label] if label in labels else [one for one in labels if one.casefold() == label.casefold()]
    if len(alike) != 1:
        raise DataError(f"label '{label}' is not one of {', '.join(labels)}; write one of them")
    return {**cells, "label": alike[0]}


def _unopposed(ruling: Ruling, seen: int, now: Decision | None) -> Ruling:
    if now is not None and now.number != seen:
        raise DataError(
            f"{ruling.candidate_id} was decided since the export ({now.ruling.verdict} by {now.ruling.reviewer}, "
            f"{now.at}); export again and decide there"
        )
    return ruling


def _check_name(name: str) -> None:
    if not name:
        raise DataError("nobody's name stands in reviewer; fill it in, or give --reviewer NAME")


def _by(ruling: Ruling, reviewer: str | None) -> Ruling:
    return Ruling(
        candidate_id=ruling.candidate_id,
        written=ruling.written,
        verdict=ruling.verdict,
        reason=ruling.reason,
        edited=ruling.edited,
        reviewer=reviewer or ruling.reviewer,
    )


def _with_plain_line_ends(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")
