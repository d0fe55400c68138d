import csv
import io
import os
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from candidates import candidate

from drllama.errors import DataError, StoreError
from drllama.filters.review import ReviewFilter, current, review, sparing
from drllama.filters.runner import run_filters
from drllama.reviews import Conflict, Reviewable, ReviewStore, exported, read_sheet, rulings_of
from drllama.types import Candidate, Decision, Measured, Objection, Ruling, Texts, Verdict, texts_of

LABELS = ("yes", "no", "maybe")
WRITTEN = Texts(question="Does it help?", context="It was given.", label="yes", long_answer="It does.")


def ruling(verdict, row="row:0", *, written=WRITTEN, reason="", by="Ann", **changed):
    edited = replace(written, **changed) if verdict == "edit" else None
    return Ruling(
        candidate_id=row,
        written=written.id,
        verdict=Verdict(verdict),
        reason=reason,
        edited=edited,
        reviewer=by,
    )


@pytest.fixture
def store(tmp_path):
    with ReviewStore(tmp_path / "runs" / "reviews.sqlite") as store:
        yield store


class TestStore:
    def test_what_was_decided_is_read_back_as_it_was_by_another_process(self, store):
        said = ruling("edit", reason="因为", question="有效吗？\r\n\t", long_answer=None)
        kept = store.decide(said, seen=0)
        with ReviewStore(store.path) as other:
            assert other.decisions() == (kept,)
        assert kept == Decision(number=1, ruling=said, at=kept.at)
        assert kept.at.endswith("+00:00")

    def test_a_folder_without_decisions_has_none_and_reading_makes_no_file(self, store):
        assert store.decisions() == ()
        assert not store.path.exists()

    def test_a_decision_over_one_that_its_writer_has_not_seen_is_not_kept(self, store):
        first = store.decide(ruling("accept"), seen=0)
        mine = ruling("reject", by="Bob")
        assert store.decide(mine, seen=0) == Conflict(mine=mine, theirs=first)
        assert store.decisions() == (first,)
        second = store.decide(mine, seen=first.number)
        assert isinstance(second, Decision)
        assert [one.ruling.verdict for one in store.decisions()] == ["accept", "reject"]

    def test_two_people_who_agree_are_both_kept_and_a_form_sent_twice_is_kept_once(self, store):
        kept = store.decide(ruling("accept"), seen=0)
        assert store.decide(ruling("accept"), seen=0) == kept
        assert isinstance(store.decide(ruling("accept", by="Bob"), seen=0), Decision)
        assert [one.ruling.reviewer for one in store.decisions()] == ["Ann", "Bob"]

    def test_of_many_at_once_exactly_one_is_kept_and_the_others_hear_of_it(self, store):
        def decide(number):
            with ReviewStore(store.path) as mine:
                return mine.decide(ruling("reject", reason=f"{number}", by=f"{number}"), seen=0)

        with ThreadPoolExecutor(8) as pool:
            outcomes = list(pool.map(decide, range(24)))
        (kept,) = [one for one in outcomes if isinstance(one, Decision)]
        assert [one.theirs for one in outcomes if isinstance(one, Conflict)] == [kept] * 23
        assert store.decisions() == (kept,)

    def test_of_several_with_one_conflict_none_is_kept(self, store):
        store.decide(ruling("accept", "row:1"), seen=0)
        found = store.decide_all([(ruling("accept", "row:0"), 0), (ruling("reject", "row:1"), 0)])
        assert isinstance(found, Conflict)
        assert len(store.decisions()) == 1

    def test_a_decision_survives_a_process_that_is_killed_right_after_it(self, store):
        code = f"""
import os, signal, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from test_reviews import ReviewStore, ruling
ReviewStore(Path({str(store.path)!r})).decide(ruling("accept"), seen=0)
os.kill(os.getpid(), signal.SIGKILL)
"""
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == -9
        assert [one.ruling for one in store.decisions()] == [ruling("accept")]

    def test_decisions_can_neither_be_changed_nor_deleted(self, store):
        store.decide(ruling("accept"), seen=0)
        with sqlite3.connect(store.path) as connection:
            for statement in ("UPDATE decisions SET verdict = 'reject'", "DELETE FROM decisions"):
                with pytest.raises(sqlite3.IntegrityError, match="only ever added"):
                    connection.execute(statement)
        connection.close()

    def test_a_store_of_replies_is_no_store_of_reviews(self, tmp_path):
        from drllama.replies import RequestStore

        with RequestStore(tmp_path / "replies.sqlite") as replies:
            replies.stats()
        with pytest.raises(StoreError, match="not a store of reviews"), ReviewStore(replies.path) as reviews:
            reviews.decisions()


KEPT, LEAKED, BAD, PLAIN = (
    candidate(call=letter * 64, question=question)
    for letter, question in (("1", "Kept?"), ("2", "Leaked?"), ("3", "Bad?"), ("4", "Plain?"))
)
ALL = (KEPT, LEAKED, BAD, PLAIN)


@dataclass(frozen=True)
class Against:
    """A filter that objects to questions that hold a word."""

    name: str
    word: str

    def check(self, candidates: Sequence[Candidate]) -> list[Objection | None]:
        objection = Objection(reason="holds the word", evidence=Measured(value=1, limit=0))
        return [objection if self.word in one.example.question else None for one in candidates]


def decided(*rulings):
    return [Decision(number=number, ruling=one, at="") for number, one in enumerate(rulings, start=1)]


def about(one, verdict, **fields):
    return ruling(verdict, one.id, written=texts_of(one.example), **fields)


def filtered(decisions, *filters):
    reviewed = review(ALL, decisions)
    return run_filters(reviewed.candidates, [ReviewFilter(reviewed), *(sparing(one, reviewed) for one in filters)])


class TestFilter:
    FILTERS = (Against("form", "Bad"), Against("leaks", "Leaked"))

    def test_a_rejected_row_is_dropped_by_review_and_the_evidence_is_the_decision(self):
        decisions = decided(about(KEPT, "reject", reason="dull"))
        dropped = filtered(decisions, *self.FILTERS).dropped[0]
        assert (dropped.candidate, dropped.by, dropped.evidence) == (KEPT, "review", decisions[0])

    def test_an_accepted_row_comes_back_but_a_leak_never_does(self):
        found = filtered(decided(about(BAD, "accept"), about(LEAKED, "accept")), *self.FILTERS)
        assert found.kept == (KEPT, BAD, PLAIN)
        assert [(one.candidate, one.by) for one in found.dropped] == [(LEAKED, "leaks")]

    def test_an_edited_row_is_kept_with_the_new_texts_and_its_origin(self):
        found = filtered(decided(about(BAD, "edit", question="Bad, still?", label="no")), *self.FILTERS)
        (edited,) = [one for one in found.kept if one.id == BAD.id]
        assert edited == replace(BAD, example=replace(BAD.example, question="Bad, still?", label="no"))

    def test_an_edit_can_make_a_leak_and_is_caught(self):
        found = filtered(decided(about(KEPT, "edit", question="Leaked now?")), *self.FILTERS)
        assert (KEPT.id, "leaks") in [(one.candidate.id, one.by) for one in found.dropped]

    def test_an_undone_decision_leaves_the_row_to_the_filters(self):
        decisions = decided(about(BAD, "accept"), about(BAD, "undo"))
        assert filtered(decisions, *self.FILTERS) == filtered([], *self.FILTERS)
        assert current(decisions) == {}

    def test_a_decision_about_other_texts_under_the_same_id_is_not_applied(self):
        stale = replace(about(KEPT, "reject"), written="another text's")
        reviewed = review(ALL, decided(stale))
        assert reviewed.decisions == {}
        assert [one.ruling for one in reviewed.outdated] == [stale]
        assert reviewed.candidates == ALL

    def test_filters_that_compare_rows_see_the_approved_ones_too(self):
        seen = []

        class Comparing(Against):
            def check(self, candidates):
                seen.append(tuple(candidates))
                return super().check(candidates)

        reviewed = review(ALL, decided(about(BAD, "accept")))
        for name in ("duplicates", "balance", "form", "label"):
            assert sparing(Comparing(name, "Bad"), reviewed).check(ALL) == [None] * 4
        assert [BAD in rows for rows in seen] == [True, True, False, False]


def reviewable(row="row:0", **changed):
    written = replace(WRITTEN, **changed)
    return Reviewable(id=row, written=written, method="rewrite", outcome="kept", original=WRITTEN)


def changed_csv(content, row, **cells):
    """The table after somebody changed cells of one row in a spreadsheet."""
    text = io.StringIO(content.decode("utf-8-sig"), newline="")
    rows = list(csv.DictReader(text))
    rows[row].update(cells)
    out = io.StringIO()
    writer = csv.DictWriter(out, rows[0].keys(), lineterminator="\r\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode("utf-8-sig")


def imported(store, content, rows, reviewer="Bob"):
    sheet = read_sheet(content, where="t.csv")
    found = rulings_of(sheet, rows, store.decisions(), labels=LABELS, reviewer=reviewer)
    assert not isinstance(store.decide_all(found), Conflict)
    return len(found)


ODD = (
    "=1+1",
    "+1",
    "-1",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "\n=1",
    "'=1",
    "''=1",
    "＝1",
    "'quoted'",
    'say "so", and; so',
    "两\n行",
    " =1",
    "é\u2028x",
)


class TestSpreadsheet:
    @pytest.mark.parametrize("text", ODD)
    def test_no_cell_acts_and_every_text_comes_back_as_it_was(self, store, text):
        rows = [reviewable(question=text, context=text, long_answer=text)]
        content = exported(rows, ())
        cells = list(csv.reader(io.StringIO(content.decode("utf-8-sig"), newline="")))
        assert all(not cell or cell[0] not in "=+-@\t\r\n＝＋－＠" for row in cells for cell in row)
        assert imported(store, changed_csv(content, 0, decision="accept"), rows) == 1
        assert store.decisions()[0].ruling == ruling("accept", written=rows[0].written, by="Bob")

    def test_it_begins_with_the_mark_that_spreadsheets_know_utf_8_by(self):
        assert exported([reviewable()], ()).startswith(b"\xef\xbb\xbfid,")

    @pytest.mark.parametrize("delimiter", ["\t", ";"])
    def test_a_table_saved_with_another_delimiter_and_plain_line_ends_is_read(self, store, delimiter):
        rows = [reviewable(context="one\r\ntwo, =3")]
        text = changed_csv(exported(rows, ()), 0, decision="reject").decode("utf-8-sig")
        out = io.StringIO()
        csv.writer(out, delimiter=delimiter, lineterminator="\n").writerows(csv.reader(io.StringIO(text, newline="")))
        imported(store, out.getvalue().encode(), rows)
        assert store.decisions()[0].ruling.verdict == "reject"

    def test_importing_twice_adds_nothing(self, store):
        rows = [reviewable("row:0"), reviewable("row:1")]
        content = changed_csv(exported(rows, ()), 1, decision="edit", label="No", reason="seen")
        assert [imported(store, content, rows) for _ in range(3)] == [1, 0, 0]
        assert store.decisions()[0].ruling == ruling("edit", "row:1", label="no", reason="seen", by="Bob")

    def test_an_export_that_nobody_touched_adds_nothing_whatever_was_decided_since(self, store):
        rows = [reviewable()]
        store.decide(ruling("edit", question="Does it, really?"), seen=0)
        content = exported(rows, store.decisions())
        assert b"Does it, really?" in content
        assert imported(store, content, rows) == 0
        store.decide(ruling("reject"), seen=1)
        assert imported(store, content, rows) == 0

    def test_an_emptied_decision_is_undone(self, store):
        rows = [reviewable()]
        store.decide(ruling("edit", question="Does it, really?", reason="better"), seen=0)
        content = changed_csv(exported(rows, store.decisions()), 0, decision="", reason="")
        assert [imported(store, content, rows) for _ in range(2)] == [1, 0]
        assert current(store.decisions()) == {}

    def test_a_cell_that_a_spreadsheet_cut_counts_as_unchanged(self, store):
        rows = [reviewable(context="long " * 10_000)]
        content = changed_csv(exported(rows, ()), 0, decision="accept", context=("long " * 10_000)[:32_767])
        imported(store, content, rows)
        assert store.decisions()[0].ruling.verdict == "accept"

    @pytest.mark.parametrize(
        ("cells", "told"),
        [
            ({"label": "unsure", "decision": "edit"}, "label 'unsure' is not one of yes, no, maybe"),
            ({"id": "row:9"}, "id 'row:9' is no candidate of this run"),
            ({"decision": "perhaps"}, "decision 'perhaps' is none of accept, reject, edit, undo"),
            ({"question": "Other?"}, "a text was changed, but the decision is empty"),
            ({"question": "Other?", "decision": "reject"}, "a text was changed, but the decision is 'reject'"),
            ({"decision": "edit"}, "no text differs"),
            ({"decision": "edit", "question": " "}, "the question is empty"),
            ({"decision": "accept", "seen": "x"}, "seen 'x' is no number"),
            ({"decision": "accept", "seen": "7"}, "seen 7 is no decision about row:0"),
            ({"id": "row:1"}, "id 'row:1' stands here twice"),
        ],
    )
    def test_a_row_that_cannot_be_taken_is_told_in_one_line_and_nothing_is_imported(self, store, cells, told):
        rows = [reviewable("row:1"), reviewable("row:0")]
        content = changed_csv(changed_csv(exported(rows, ()), 0, decision="accept"), 1, **cells)
        with pytest.raises(DataError, match=r"^t\.csv row 3: ") as error:
            imported(store, content, rows)
        assert told in str(error.value)
        assert "\n" not in str(error.value)
        assert store.decisions() == ()

    def test_a_decision_needs_a_name(self, store):
        rows = [reviewable()]
        content = changed_csv(exported(rows, ()), 0, decision="accept")
        with pytest.raises(DataError, match=r"row 2: nobody's name.*--reviewer"):
            imported(store, content, rows, reviewer=None)
        imported(store, changed_csv(content, 0, reviewer="Cem"), rows, reviewer=None)
        assert store.decisions()[0].ruling.reviewer == "Cem"

    def test_what_was_decided_since_the_export_is_not_overwritten(self, store):
        rows = [reviewable()]
        content = changed_csv(exported(rows, ()), 0, decision="accept")
        store.decide(ruling("reject"), seen=0)
        with pytest.raises(DataError, match=r"row 2: row:0 was decided since the export \(reject by Ann"):
            imported(store, content, rows)

    @pytest.mark.parametrize(
        ("content", "told"),
        [
            ("id,question\n".encode("utf-16"), "isn't UTF-8"),
            (b"id,question\n", "has no column context"),
            (b"", "has no column id"),
            (exported([reviewable()], ()) + b'row:1,"never closed', "can't be read as CSV"),
        ],
    )
    def test_a_file_that_is_no_such_table_is_told(self, content, told):
        with pytest.raises(DataError, match=told):
            read_sheet(content, where="t.csv")
