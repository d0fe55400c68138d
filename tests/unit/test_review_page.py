import csv
import io
import json
import re
import socket
import sys
from html.parser import HTMLParser

import pytest
from fastapi.testclient import TestClient

from drllama.cli import main
from drllama.replies import RequestStore
from drllama.reviews import ReviewStore
from drllama.stats import wilson
from drllama.types import Verdict
from drllama.web.app import make_app
from drllama.web.desk import read_desk
from reviewed_run import CHINESE, FORMULA, MARKUP, NO_QUESTION, NUM_ROWS, make_reviewed_run

TOKEN, HOST = "the-token", "127.0.0.1:8765"
BASE = f"/{TOKEN}/"


@pytest.fixture(scope="module")
def reviewed(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        return make_reviewed_run(tmp_path_factory.mktemp("reviewed"), patch)


class Bench:
    """The page over one run, with decisions of its own, and any number of browsers."""

    def __init__(self, reviewed, folder, *, sample_size=None, reviewer=None):
        self.run, self.kept = reviewed
        self.desk = read_desk(self.run, store=self.kept, sample_size=sample_size)
        self.reviews = ReviewStore(folder / "reviews.sqlite")
        self.replies = RequestStore(self.kept.root / "replies.sqlite")
        self.app = make_app(
            self.desk, reviews=self.reviews, replies=self.replies, token=TOKEN, hosts=[HOST], reviewer=reviewer
        )

    def browser(self, name=None):
        client = TestClient(self.app, base_url=f"http://{HOST}")
        if name:
            client.post(f"{BASE}name", data={"name": name, "onward": BASE})
        return client

    def asking(self, question):
        (row,) = [row for row in self.desk.rows if row.question == question]
        return row

    def verdicts(self):
        return [(one.ruling.candidate_id, one.ruling.verdict, one.ruling.reviewer) for one in self.reviews.decisions()]


@pytest.fixture
def bench(reviewed, tmp_path):
    bench = Bench(reviewed, tmp_path)
    yield bench
    bench.reviews.close()
    bench.replies.close()


@pytest.fixture
def ann(bench):
    return bench.browser("Ann")


def address(row, query=""):
    return f"{BASE}row/{row.id}{query}"


def posted(browser, row, verdict, seen=0, query="", **fields):
    data = {"verdict": verdict, "seen": seen, **fields}
    return browser.post(address(row, query), data=data, follow_redirects=False)


def form_of(row, **changed):
    texts = {
        "question": row.question,
        "context": row.context,
        "label": row.label,
        "long_answer": row.long_answer or "",
    }
    return texts | changed


def text_of(html):
    """What a page says, without its style and script."""
    shown = re.sub(r"(?s)<(style|script).*?</\1>", "", html)
    return " ".join(re.sub(r"<[^>]*>", "", re.sub(r"</(th|td|dt|dd|h2|p|span)>", " ", shown)).split())


class TestDoor:
    @pytest.mark.parametrize(
        "path", ["/", "/wrong/", "/the-toke/", "/the-tokenx/", "/favicon.ico", "/docs", "/openapi.json"]
    )
    def test_without_the_token_nothing_is_shown(self, bench, path):
        answer = bench.browser().get(path)
        assert answer.status_code == 403
        assert "token" in answer.text

    def test_without_the_token_nothing_is_decided(self, bench):
        row = bench.desk.rows[0]
        answer = bench.browser("Ann").post(f"/wrong/row/{row.id}", data={"verdict": "accept", "seen": 0})
        assert answer.status_code == 403
        assert bench.verdicts() == []

    @pytest.mark.parametrize("host", ["evil.example:8765", "127.0.0.1", "127.0.0.1:1", "0.0.0.0:8765", ""])
    def test_another_name_for_this_machine_is_refused(self, bench, host):
        assert bench.browser().get(BASE, headers={"host": host}).status_code == 403

    @pytest.mark.parametrize("origin", ["http://evil.example", "null", f"https://{HOST}", "http://127.0.0.1:1"])
    def test_a_form_of_another_site_is_refused(self, bench, ann, origin):
        row = bench.desk.rows[0]
        answer = ann.post(address(row), data={"verdict": "accept", "seen": 0}, headers={"origin": origin})
        assert answer.status_code == 403
        assert bench.verdicts() == []

    def test_our_own_forms_come_in(self, bench, ann):
        row = bench.desk.rows[0]
        ann.post(address(row), data={"verdict": "accept", "seen": 0}, headers={"origin": f"http://{HOST}"})
        assert bench.verdicts() == [(row.id, "accept", "Ann")]

    def test_the_page_may_run_its_own_script_and_nothing_else(self, ann):
        first, second = (ann.get(BASE) for _ in range(2))
        policy = first.headers["content-security-policy"]
        nonce = re.search("script-src 'nonce-([^']+)'", policy).group(1)
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert first.text.count(f'nonce="{nonce}"') == 2
        assert nonce not in second.headers["content-security-policy"]

    def test_the_page_loads_nothing_and_points_nowhere_else(self, ann):
        found = []

        class Addresses(HTMLParser):
            def handle_starttag(self, tag, attrs):
                found.extend(value for name, value in attrs if name in ("src", "href", "action", "srcset"))
                assert not [name for name, _ in attrs if name.startswith("on") or name == "style"]

        Addresses().feed(ann.get(BASE).text)
        assert {one for one in found if not one.startswith((BASE, "#"))} == {"data:,"}


class TestPage:
    def test_who_reviews_is_asked_first_and_remembered_in_any_script(self, bench):
        browser = bench.browser()
        assert "Who reviews?" in browser.get(BASE).text
        assert posted(browser, bench.desk.rows[0], "accept").status_code == 200
        assert bench.verdicts() == []
        browser.post(f"{BASE}name", data={"name": " 李  华 ", "onward": BASE})
        posted(browser, bench.desk.rows[0], "accept")
        assert bench.verdicts() == [(bench.desk.rows[0].id, "accept", "李 华")]

    @pytest.mark.parametrize("name", ["", "  ", "x" * 61, "a\0b"])
    def test_a_name_that_is_none_is_refused(self, bench, name):
        browser = bench.browser()
        assert "Write a name" in browser.post(f"{BASE}name", data={"name": name, "onward": BASE}).text

    def test_the_way_onward_stays_here(self, bench):
        answer = bench.browser().post(
            f"{BASE}name", data={"name": "Ann", "onward": "http://evil.example/"}, follow_redirects=False
        )
        assert answer.headers["location"] == BASE

    def test_a_row_shows_both_questions_marked_and_all_that_is_known(self, bench, ann):
        (row,) = [one for one in bench.desk.rows if "reliably" in one.question]
        page = ann.get(address(row)).text
        assert "Does aspirin <ins>reliably</ins> lower fever in adults?" in page
        told = text_of(page)
        for words in (
            "train0 of",
            "The trial of aspirin says yes.",
            "form passed",
            "leaks passed",
            "It wasn’t voted on",
            "rewrite.v1, rollout 0",
            "Model m",
            "Cost unknown",
            row.id,
        ):
            assert words in told

    def test_a_dropped_row_says_by_whom_and_why(self, bench, ann):
        told = text_of(ann.get(address(bench.asking(NO_QUESTION))).text)
        assert "Dropped by form: the question asks nothing" in told
        assert "leaks not asked" in told

    def test_markup_in_a_row_stays_text(self, bench, ann):
        page = ann.get(address(bench.asking(MARKUP))).text
        assert "<script>alert" not in page
        assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; &lt;b&gt;" in re.sub("</?(ins|del)>", "", page)

    def test_chinese_is_compared_letter_by_letter(self, bench, ann):
        assert "针灸<ins>是否</ins>能<ins>够安全地</ins>减轻偏头痛" in ann.get(address(bench.asking(CHINESE))).text

    @pytest.mark.parametrize(
        ("query", "shown"),
        [
            ("", NUM_ROWS),
            ("?method=rewrite", NUM_ROWS // 2),
            ("?outcome=kept", NUM_ROWS - 1),
            ("?outcome=by-form", 1),
            ("?outcome=dropped&method=new", 0),
            ("?label=maybe", 2),
            ("?text=ZINC+trial", 1),
            ("?text=偏头痛", 2),
            ("?state=accept", 1),
            ("?state=undecided&method=new", NUM_ROWS // 2 - 1),
        ],
    )
    def test_filters_and_search_show_what_they_say(self, bench, ann, query, shown):
        posted(ann, next(row for row in bench.desk.rows if row.asking.method == "new"), "accept")
        page = ann.get(BASE + query).text
        assert ("No row fits" in page) if shown == 0 else (f'id="listed">{shown} row' in page)

    def test_a_row_that_is_not_there_is_told(self, ann):
        answer = ann.get(f"{BASE}row/nobody")
        assert answer.status_code == 400
        assert "no row &#39;nobody&#39;" in answer.text


class TestDeciding:
    def test_a_decision_is_kept_before_the_page_goes_on_and_says_so(self, bench, ann):
        row, following = bench.desk.rows[:2]
        answer = posted(ann, row, "accept")
        assert (answer.status_code, answer.headers["location"]) == (303, address(following, "?done=1"))
        with ReviewStore(bench.reviews.path) as other:
            assert other.decisions()[0].ruling.candidate_id == row.id
        told = text_of(ann.get(answer.headers["location"]).text)
        assert "Saved (no. 1): accepted" in told
        assert f"1 of {NUM_ROWS} decided: 1 accepted" in told

    def test_the_next_row_is_the_next_undecided_one_of_the_view(self, bench, ann):
        rows = [row for row in bench.desk.rows if row.asking.method == "new"]
        posted(ann, rows[1], "accept")
        answer = posted(ann, rows[0], "reject", query="?method=new")
        assert answer.headers["location"].startswith(address(rows[2], "?method=new&done="))
        answer = posted(ann, rows[-1], "reject", query="?method=new")
        assert answer.headers["location"].startswith(address(rows[2]))

    def test_a_reason_is_a_quick_one_or_free(self, bench, ann):
        posted(ann, bench.desk.rows[0], "reject", quick="wrong label", reason="")
        posted(ann, bench.desk.rows[1], "reject", reason="  因为\n不对 ")
        assert [one.ruling.reason for one in bench.reviews.decisions()] == ["wrong label", "因为 不对"]

    def test_an_edit_changes_what_was_changed_and_nothing_else(self, bench, ann):
        row = next(row for row in bench.desk.rows if "\n" in row.long_answer)
        changed = form_of(row, label="no", long_answer=row.long_answer.replace("\n", "\r\n"))
        assert posted(ann, row, "edit", **changed).status_code == 303
        edited = bench.reviews.decisions()[0].ruling.edited
        assert (edited.label, edited.long_answer, edited.question) == ("no", row.long_answer, row.question)
        assert "<ins>no</ins>" in ann.get(address(row)).text

    @pytest.mark.parametrize(
        ("changed", "told"),
        [
            ({}, "Nothing differs"),
            ({"question": " "}, "The question is empty"),
            ({"label": "unsure"}, "label &#39;unsure&#39; is not one of yes, no, maybe"),
        ],
    )
    def test_an_edit_that_cannot_be_kept_is_told_and_what_was_typed_stays(self, bench, ann, changed, told):
        row = bench.desk.rows[0]
        answer = posted(ann, row, "edit", **form_of(row, **changed))
        assert answer.status_code == 422
        assert told in answer.text
        assert bench.verdicts() == []
        typed = posted(ann, row, "edit", **form_of(row, label="unsure", context="typed for an hour"))
        assert "typed for an hour" in typed.text

    @pytest.mark.parametrize(
        "data", [{}, {"verdict": "perhaps", "seen": "0"}, {"verdict": "accept"}, {"verdict": "edit", "seen": "0"}]
    )
    def test_a_form_that_is_not_ours_decides_nothing(self, bench, ann, data):
        assert ann.post(address(bench.desk.rows[0]), data=data).status_code == 422
        assert bench.verdicts() == []

    def test_a_form_without_end_is_not_read(self, bench, ann):
        answer = ann.post(address(bench.desk.rows[0]), content=b"verdict=accept&seen=0&reason=" + b"x" * 5_000_000)
        assert answer.status_code == 400
        assert bench.verdicts() == []

    def test_an_undone_row_is_undecided_again(self, bench, ann):
        row = bench.desk.rows[0]
        posted(ann, row, "accept")
        answer = posted(ann, row, "undo", seen=1)
        assert answer.headers["location"] == address(row, "?done=2")
        told = text_of(ann.get(answer.headers["location"]).text)
        assert f"0 of {NUM_ROWS} decided" in told
        assert "the decision doesn’t count any more" in told

    def test_a_decision_about_other_texts_is_shown_as_none(self, bench, ann):
        row = bench.desk.rows[0]
        posted(ann, row, "accept")
        (kept,) = bench.reviews.decisions()
        from dataclasses import replace

        bench.reviews.decide(replace(kept.ruling, written="another", verdict=Verdict.REJECT), seen=1)
        told = text_of(ann.get(address(row)).text)
        assert "about other texts" in told
        assert f"0 of {NUM_ROWS} decided" in told


class TestTwoAtOnce:
    def test_both_are_shown_and_nothing_is_lost(self, bench, ann):
        bob, row = bench.browser("Bob"), bench.desk.rows[0]
        posted(ann, row, "accept")
        crossed = posted(bob, row, "edit", **form_of(row, question="Bob’s own?", context="a\nb"))
        assert crossed.status_code == 409
        told = text_of(crossed.text)
        assert "Saved Ann" in told
        assert "Yours Bob" in told
        assert bench.verdicts() == [(row.id, "accept", "Ann")]
        again = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', crossed.text))
        areas = dict(re.findall(r'(?s)<textarea hidden name="(\w+)">\n(.*?)</textarea>', crossed.text))
        assert bob.post(address(row), data={**again, **areas}, follow_redirects=False).status_code == 303
        assert bench.verdicts() == [(row.id, "accept", "Ann"), (row.id, "edit", "Bob")]
        assert bench.reviews.decisions()[1].ruling.edited.question == "Bob’s own?"

    def test_people_at_different_rows_do_not_meet(self, bench, ann):
        bob = bench.browser("Bob")
        for number, row in enumerate(bench.desk.rows):
            assert posted(ann if number % 2 else bob, row, "accept").status_code == 303
        assert len(bench.verdicts()) == NUM_ROWS
        assert "that was the last undecided row" in text_of(ann.get(address(row, f"?done={NUM_ROWS}")).text)


class TestSample:
    def test_only_the_sample_is_shown_and_a_larger_one_contains_it(self, reviewed, tmp_path):
        drawn = [{row.id for row in Bench(reviewed, tmp_path, sample_size=size).desk.rows} for size in (4, 8, 10_000)]
        assert [len(one) for one in drawn] == [4, 8, NUM_ROWS - 1]
        assert drawn[0] < drawn[1] < drawn[2]

    def test_the_precision_comes_when_all_are_decided(self, reviewed, tmp_path):
        bench = Bench(reviewed, tmp_path, sample_size=4, reviewer="Ann")
        browser, rows = bench.browser(), bench.desk.rows
        for row in rows[:3]:
            posted(browser, row, "accept")
        assert "Precision" not in browser.get(BASE).text
        posted(browser, rows[3], "reject")
        told = text_of(browser.get(BASE).text)
        assert "Precision of the kept rows: 0.750, 95 % Wilson interval" in told
        assert f"{wilson(3, 4).low:.3f} to {wilson(3, 4).high:.3f}: 4 read, drawn from {NUM_ROWS - 1}" in told


@pytest.fixture
def drllama(monkeypatch, capsys, reviewed, tmp_path):
    """Call the command line over the run, with decisions of the test's own."""
    run, kept = reviewed
    (kept.root / "reviews.sqlite").unlink(missing_ok=True)

    def drllama(*words):
        monkeypatch.setattr(sys, "argv", ["drllama", "review", run.id, "--store", str(kept.root), *map(str, words)])
        with pytest.raises(SystemExit) as end:
            main()
        return end.value.code or 0, *capsys.readouterr()

    return drllama


class TestCommand:
    def test_a_table_goes_out_and_comes_back(self, drllama, tmp_path):
        path = tmp_path / "rows.csv"
        assert drllama("--export", path)[0] == 0
        rows = list(csv.DictReader(io.StringIO(path.read_text("utf-8-sig"), newline="")))
        assert len(rows) == NUM_ROWS
        assert [row["question"] for row in rows if "HYPERLINK" in row["question"]] == [f"'{FORMULA}"]
        for row in rows[:3]:
            row["decision"] = "accept"
        with path.open("w", encoding="utf-8-sig", newline="") as file:
            writer = csv.DictWriter(file, rows[0].keys())
            writer.writeheader()
            writer.writerows(rows)
        told = [drllama("--import", path, "--reviewer", "Ann")[1] for _ in range(2)]
        assert [re.search(r"(\d+) rows read, (\d+) decisions", one).groups() for one in told] == [
            ("12", "3"),
            ("12", "0"),
        ]

    def test_the_page_offers_the_same_table(self, bench, ann, drllama, tmp_path):
        drllama("--export", tmp_path / "rows.csv")
        answer = ann.get(f"{BASE}export.csv")
        assert answer.content == (tmp_path / "rows.csv").read_bytes()
        assert answer.headers["content-disposition"].startswith("attachment")

    def test_precision_is_of_the_random_order_as_far_as_it_was_read(self, drllama, reviewed):
        _, kept = reviewed
        assert "--sample N" in drllama("--precision")[1]
        bench = Bench(reviewed, kept.root, sample_size=NUM_ROWS, reviewer="Ann")
        browser, rows = bench.browser(), bench.desk.rows
        for row, verdict in zip((*rows[:3], rows[5]), ("accept", "reject", "accept", "accept"), strict=True):
            posted(browser, row, verdict)
        code, told, _ = drllama("--precision")
        assert code == 0
        assert f"precision of the {NUM_ROWS - 1} kept rows: {wilson(2, 3)}" in told
        assert "read 3, drawn at random: 1 rejected, 0 needed an edit" in told
        assert str(wilson(1, 2)) in drllama("--precision", "--sample", "2")[1]

    def test_a_missing_extra_is_told_in_one_line(self, drllama, monkeypatch):
        for name in [
            name for name in sys.modules if name.startswith(("fastapi", "drllama.web.app", "drllama.web.server"))
        ]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, "fastapi", None)
        code, _, told = drllama()
        assert code == 1
        assert told == "MissingExtra: the review page needs fastapi; pip install 'drllama[web]'\n"

    def test_a_taken_port_is_told_in_one_line(self, drllama):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            code, _, told = drllama("--port", taken.getsockname()[1])
        assert code == 1
        assert re.fullmatch(r"DataError: --port \d+: .*; choose another, or 0 for any that is free\n", told)

    @pytest.mark.parametrize(
        ("words", "told"),
        [
            (["--export", "a", "--precision"], "RecipeError: --export, --import and --precision are three commands"),
            (["--import", "nowhere.csv", "--reviewer", "Ann"], "DataError: --import nowhere.csv: No such file"),
        ],
    )
    def test_what_a_person_can_mend_is_one_line(self, drllama, words, told):
        code, _, said = drllama(*words)
        assert code == 1
        assert said.startswith(told)
        assert said.count("\n") == 1


def test_the_next_run_respects_what_people_decided(tmp_path, monkeypatch):
    first = make_reviewed_run(tmp_path, monkeypatch)
    bench = Bench(first, first[1].root, reviewer="Ann")
    browser, brought_back = bench.browser(), bench.asking(NO_QUESTION)
    edited, rejected = bench.desk.rows[:2]
    posted(browser, edited, "edit", **form_of(edited, question="Does aspirin cool?", label="no"))
    posted(browser, rejected, "reject", reason="dull")
    posted(browser, brought_back, "accept")

    second, store = make_reviewed_run(tmp_path, monkeypatch, decisions=bench.reviews.decisions())
    assert second.id != first[0].id
    assert second.arm("combined").num_extra == NUM_ROWS - 1
    rows = {row.id: row for row in store.ledger(second)}
    assert (rows[rejected.id].dropped.by, rows[rejected.id].review.ruling.reason) == ("review", "dull")
    assert rows[brought_back.id].dropped is None
    assert (rows[edited.id].question, rows[edited.id].label) == ("Does aspirin cool?", "no")
    assert rows[edited.id].written.question == edited.question

    later = Bench((second, store), store.root, reviewer="Bob")
    told = text_of(later.browser().get(address(edited)).text)
    assert "Edited by Ann" in told
    assert "3 of 12 decided" in told
    again, _ = make_reviewed_run(tmp_path, monkeypatch, decisions=later.reviews.decisions())
    assert again.id == second.id


def test_the_ledger_of_a_later_run_remembers_edits(reviewed):
    """What a run writes of people's decisions is read back as it was."""
    from dataclasses import replace

    from drllama.store import ledger_lines

    run, kept = reviewed
    row = kept.ledger(run)[0]
    with ReviewStore(kept.root / "none.sqlite") as none:
        assert none.decisions() == ()
    edited = replace(row, question="Edited?", written=row.teachers_texts)
    line = json.loads(ledger_lines([edited]))
    assert line["written"]["question"] == row.question
    assert edited.teachers_texts == row.teachers_texts
