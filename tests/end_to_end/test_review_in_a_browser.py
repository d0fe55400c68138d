"""The review page as a person uses it: a real server process, a real Chromium, the keyboard alone."""

import csv
import io
import os
import shutil
import signal

import pytest
from commands import started

from drllama.reviews import ReviewStore
from reviewed_run import FORMULA, MARKUP, NO_QUESTION, NUM_ROWS, make_reviewed_run

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium in PATH; on Debian: apt-get install chromium"),
]


class Page:
    """One page of a browser; every key that opens another waits until it is there."""

    def __init__(self, tab):
        self.tab, self.errors = tab, []
        tab.on("pageerror", lambda error: self.errors.append(str(error)))
        tab.on("console", lambda said: self.errors.append(said.text) if said.type == "error" else None)

    def opens(self, key):
        with self.tab.expect_navigation():
            self.tab.keyboard.press(key)

    def says(self, selector):
        return " ".join(self.tab.locator(selector).inner_text().split())

    def has(self, selector):
        return self.tab.locator(selector).count() > 0

    @property
    def question(self):
        return self.says(".version:nth-of-type(2) .question")


@pytest.fixture(scope="module")
def reviewed(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        return make_reviewed_run(tmp_path_factory.mktemp("reviewed"), patch)


@pytest.fixture
def server(reviewed):
    """The command, running; its address; and how it ended once it is asked to."""
    run, store = reviewed
    for left in store.root.glob("reviews.sqlite*"):
        left.unlink()
    running = started("review", run.id, "--store", store.root, env={**os.environ, "PYTHONUNBUFFERED": "1"})
    running.stdout.readline()
    yield running, running.stdout.readline().strip()
    if running.poll() is None:
        running.kill()
    running.communicate()


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # No sandbox: it needs rights that a container rarely gives, and the only page is ours.
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


def introduced(browser, address, name, **settings):
    page = Page(browser.new_context(accept_downloads=True, **settings).new_page())
    page.tab.goto(address)
    page.tab.locator("[name=name]:focus").wait_for()  # a browser gives focus a moment after the page is there
    page.tab.keyboard.type(name)
    page.opens("Enter")
    return page


def decisions(store):
    with ReviewStore(store.root / "reviews.sqlite") as reviews:
        return [(one.ruling.verdict, one.ruling.reviewer, one.ruling.reason) for one in reviews.decisions()]


def test_a_person_decides_with_the_keyboard_alone(server, browser, reviewed):
    _, store = reviewed
    running, address = server
    page = introduced(browser, address, "李华")
    assert page.says("#decided") == f"0 of {NUM_ROWS}"

    page.opens("a")
    assert decisions(store) == [("accept", "李华", "")]
    assert "Saved (no. 1): accepted" in page.says("form.banner [role=status]")

    page.tab.keyboard.press("r")
    page.tab.keyboard.type("says nothing 2 me")
    page.opens("Enter")
    page.tab.keyboard.press("r")
    page.opens("1")
    assert decisions(store)[1:] == [("reject", "李华", "says nothing 2 me"), ("reject", "李华", "wrong label")]

    page.opens("u")
    assert page.says("#state") == "undecided"
    page.opens("j")
    page.opens("k")
    page.tab.reload()
    assert page.says("h1") == f"Row 3 of {NUM_ROWS}"
    assert page.says("#decided") == f"2 of {NUM_ROWS}"
    assert page.errors == []

    running.send_signal(signal.SIGINT)
    said, complained = running.communicate(timeout=20)
    assert (running.returncode, complained) == (0, "")
    assert "ended; 4 decisions were added" in said


def test_a_person_finds_edits_and_exports_with_the_keyboard_alone(server, browser, tmp_path):
    _, address = server
    page = introduced(browser, address, "Ann")
    page.tab.keyboard.press("/")
    page.tab.keyboard.type("cramps night")
    page.opens("Enter")
    assert page.says("h1") == "Row 1 of 2"
    assert page.question == NO_QUESTION
    assert page.says(".because").startswith("Dropped by form: ")

    page.tab.keyboard.press("e")
    page.tab.keyboard.press("ControlOrMeta+a")
    page.tab.keyboard.type("Does magnesium, given for cramps, help?")
    page.tab.keyboard.press("Tab")
    page.tab.keyboard.press("n")  # chooses "no": in a field, a letter is no command
    page.opens("Control+Enter")
    page.opens("k")
    page.tab.reload()
    assert page.says("#state") == "edited"
    assert page.says(".edited .question") == "Does magnesium, given for cramps, help?"
    assert page.says(".edited .label") == "no"

    page.tab.goto(address)
    page.tab.keyboard.press("/")
    page.tab.keyboard.press("Tab")
    page.opens("e")  # chooses "edited"
    assert page.says("#listed") == "1 row"

    with page.tab.expect_download() as download:
        page.tab.keyboard.press("Escape")
        page.tab.keyboard.press("x")
    download.value.save_as(tmp_path / "rows.csv")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "rows.csv").read_text("utf-8-sig"), newline="")))
    assert [row["question"] for row in rows if row["decision"]] == ["Does magnesium, given for cramps, help?"]
    assert f"'{FORMULA}" in [row["question"] for row in rows]
    assert page.errors == []


def test_two_people_at_one_row_lose_nothing(server, browser, reviewed):
    _, store = reviewed
    _, address = server
    ann, bob = (introduced(browser, address, name) for name in ("Ann", "Bob"))
    ann.opens("a")
    bob.tab.keyboard.press("r")
    bob.opens("2")
    assert bob.says("h1") == "Somebody decided while you were looking"
    assert decisions(store) == [("accept", "Ann", "")]
    bob.tab.locator("#save-mine").focus()
    bob.opens("Enter")
    assert decisions(store) == [("accept", "Ann", ""), ("reject", "Bob", "not answered by the context")]
    ann.opens("k")
    assert ann.says("#state") == "rejected"


def test_the_page_does_its_work_without_javascript_too(server, browser, reviewed):
    _, store = reviewed
    _, address = server
    page = introduced(browser, address, "Ann", java_script_enabled=False)
    page.tab.locator("#accept").click()
    page.tab.locator("summary.reject").click()
    page.tab.get_by_role("button", name="nothing new").click()
    page.tab.get_by_label("Method").select_option("rewrite")
    page.tab.get_by_role("button", name="Show").click()
    assert page.says("#listed") == f"{NUM_ROWS // 2} rows"
    page.tab.locator(".edit-panel summary").click()
    page.tab.get_by_label("Question").fill("Is this edited?")
    page.tab.get_by_role("button", name="Save the edit").click()
    assert [verdict for verdict, *_ in decisions(store)] == ["accept", "reject", "edit"]


def test_what_a_teacher_writes_runs_nothing(server, browser, reviewed):
    page = introduced(browser, server[1], "Ann")
    ran = []
    page.tab.on("dialog", lambda dialog: (ran.append(dialog.message), dialog.dismiss()))
    page.tab.goto(f"{server[1]}?text=yoga+ease")
    assert page.question == MARKUP
    assert (ran, page.errors) == ([], [])


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_can_be_read_against_their_ground(server, browser, scheme):
    """WCAG AA: a contrast of 4.5, measured on what Chromium computed."""
    page = introduced(browser, server[1], "Ann", color_scheme=scheme)
    page.opens("a")
    page.tab.keyboard.press("r")
    ratios = page.tab.evaluate(
        """() => {
          const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
          const rgb = (colour) => {
            canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
            return [...canvas.getImageData(0, 0, 1, 1).data];
          };
          const light = ([r, g, b]) => [r, g, b].map((c) => c / 255)
            .map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
            .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
          const ground = (element) => {
            for (let one = element; one; one = one.parentElement) {
              const found = rgb(getComputedStyle(one).backgroundColor);
              if (found[3] === 255) return found;
            }
          };
          const own = (element) => [...element.childNodes].some((one) => one.nodeType === 3 && one.data.trim());
          return [...document.querySelectorAll("body *")].filter((one) => own(one) && one.checkVisibility())
            .filter((one) => !one.closest("script, style, kbd, option, .hidden")).map((one) => {
              const [a, b] = [light(rgb(getComputedStyle(one).color)), light(ground(one))].sort((x, y) => y - x);
              return [(a + 0.05) / (b + 0.05), one.className + " " + one.textContent.trim().slice(0, 30)];
            });
        }"""
    )
    assert len(ratios) > 40
    assert [one for one in ratios if one[0] < 4.5] == []
