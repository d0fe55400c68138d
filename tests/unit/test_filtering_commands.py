"""The commands `filter` and `why`, and what a run tells of its teacher's rows."""

import json
import re
import sys
from types import SimpleNamespace

import pytest

from drllama import plugins
from drllama.cli import main
from drllama.store import Store
from drllama.types import CandidateRow
from scripted_student import Script, write_recipe

TEACHER = "teacher: {replay: {endpoint: recorded, model: large, recording: recorded.jsonl}}\n"
MORE = "augment: {arms: [none, rewrite, combined]}\nfilters: {label: {votes: 1}}\nevaluate: {bootstrap_samples: 100}\n"
DRUGS = ("aspirin", "ibuprofen", "warfarin", "insulin")
PLACES = ("children", "athletes", "nurses", "smokers")


def question_row(number, split):
    drug, place = DRUGS[number], PLACES[number]
    return {
        "id": f"{split}{number}",
        "question": f"Does {drug} keep {split} patients in hospital {number} from falling ill?",
        "context": f"In hospital {number} {drug} was given to {split} {place} for {number + 2} weeks, and it was seen.",
        "long_answer": f"Giving {drug} to {place} had the outcome that was hoped for in hospital number {number}.",
        "label": ("yes", "no", "maybe")[number % 3],
        "split": split,
    }


def recorded_row(number):
    drug, place = DRUGS[number], PLACES[number]
    return {
        "id": f"train{number}",
        "rewrite": {
            "question": f"Are {place} less often ill while they are taking {drug}?",
            "long_answer": f"{drug.title()} did for {place} what was hoped for.",
            "context": f"Some {place} were handed {drug} over a period of {number + 2} weeks and then looked at again.",
        },
        "new": [
            {"question": f"Was {drug} given for more than {number} weeks?", "label": "yes", "long_answer": "It was."},
            {"question": "Why?", "label": "no", "long_answer": "Nobody knows."},
        ],
    }


@pytest.fixture
def drllama(tmp_path, monkeypatch, capsys):
    """Call the command line in a folder with questions, a recorded teacher and its blind answers."""
    for name in ("DRLLAMA_STORE", "FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plugins, "make_student", Script().make_student)
    rows = [question_row(number, split) for split in ("train", "dev", "test") for number in range(4)]
    write_lines(tmp_path / "questions.jsonl", rows)
    votes = [{"id": f"train{number}", "rewrite": "yes", "new": ["yes", "no"]} for number in range(4)]
    answers = [{"id": f"dev{number}", "answer": "yes"} for number in range(4)]
    write_lines(tmp_path / "recorded.jsonl", [*map(recorded_row, range(4)), *votes, *answers])
    write_recipe(tmp_path / "recipe.yaml", "questions.jsonl", more=TEACHER + MORE)

    def drllama(*words):
        monkeypatch.setattr(sys, "argv", ["drllama", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        out, err = capsys.readouterr()
        return SimpleNamespace(code=end.value.code or 0, out=out, err=err)

    return drllama


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def cells(text, name):
    """The numbers of the first table row that begins with this name."""
    line = next(line for line in text.splitlines() if line.startswith(f"{name} "))
    return re.findall(r"\d+", line.removeprefix(name))


def test_filter_prints_the_funnel_the_reasons_and_the_diversity_and_trains_nothing(drllama, tmp_path):
    done = drllama("filter", "recipe.yaml", "--out", "rows.jsonl")
    assert (done.code, done.out.split("\n")[0].split()) == (0, ["rows", "rewrite", "new", "all"])
    assert cells(done.out, "asked") == cells(done.out, "parsed") == ["4", "8", "12"]
    assert cells(done.out, "well formed") == ["4", "4", "8"]
    # Blind answers are all yes; the rewrites' labels are yes, no, maybe, yes.
    assert cells(done.out, "label kept") == cells(done.out, "kept") == ["2", "4", "6"]
    assert re.search(r"form +the question is too short +0 +4 +4", done.out)
    assert re.search(r"label +blind answers chose another label +2 +0 +2", done.out)
    assert [line.split()[:2] for line in done.out.splitlines() if re.match("(real|written|kept) .*%", line)] == [
        ["real", "4"],
        ["written", "12"],
        ["kept", "6"],
    ]
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert len(rows) == 12
    assert sum(row["dropped"] is None for row in rows) == 6
    assert [path.name for path in (tmp_path / "runs").iterdir() if path.is_dir()] == []


def test_other_filters_need_nothing_that_isn_t_kept(drllama, tmp_path):
    drllama("filter", "recipe.yaml")
    write_recipe(
        tmp_path / "recipe.yaml", "questions.jsonl", more=TEACHER.replace(", recording: recorded.jsonl", "") + MORE
    )
    looser = drllama("filter", "recipe.yaml", "--set", "filters.label=null", "--set", "filters.form=null")
    assert (looser.code, cells(looser.out, "kept")[0]) == (0, "4")
    assert "well formed" not in looser.out
    fewer = drllama("filter", "recipe.yaml", "--set", "filters.balance.at_most=3")
    assert cells(fewer.out, "balanced")[-1] == cells(fewer.out, "kept")[-1] == "3"


def test_a_run_trains_on_what_is_kept_and_tells_what_became_of_the_rest(drllama, tmp_path):
    done = drllama("run", "recipe.yaml")
    assert done.code == 0, done.err
    assert "its rows: asked 12 -> parsed 12 -> well formed 8 ->" in done.out
    assert "-> kept 6" in done.out
    store = Store(tmp_path / "runs")
    (run,) = store.runs()
    assert {arm.name: arm.num_extra for arm in run.arms} == {"none": 0, "rewrite": 2, "combined": 6}
    assert [step.name for step in run.taught.funnel][-1] == "kept"
    assert sum(run.taught.funnel[-1].counts.values()) == 6
    folder = store.root / run.id
    page, text = ((folder / name).read_text(encoding="utf-8") for name in ("report.html", "report.md"))
    for report in (page, text):
        assert "What became of its rows" in report
        assert "blind answers chose another label" in report
        assert "Self-similarity" in report
    assert re.search(r"\| kept \| 2 \| 4 \| 6 \|", text)
    assert page.count('class="right" x=') >= 2 * len(run.taught.funnel)
    teacher = json.loads((folder / "report.json").read_text(encoding="utf-8"))["teacher"]
    assert teacher["funnel"][0] == {"name": "asked", "counts": {"rewrite": 4, "new": 8}}


def test_a_teacher_none_of_whose_rows_stays_is_told_in_the_report(drllama, tmp_path):
    done = drllama("run", "recipe.yaml", "--set", "filters.form.min_question_characters=300")
    assert (done.code, "-> kept 0" in done.out) == (0, True)
    (run,) = Store(tmp_path / "runs").runs()
    assert {arm.num_extra for arm in run.arms} == {0}
    text = (tmp_path / "runs" / run.id / "report.md").read_text(encoding="utf-8")
    assert "The filters kept none of the teacher's rows" in text


def test_why_tells_the_whole_life_of_a_row(drllama, tmp_path):
    drllama("run", "recipe.yaml")
    store = Store(tmp_path / "runs")
    (run,) = store.runs()
    rows = [row for row in store.ledger(run) if isinstance(row, CandidateRow)]
    kept = next(row for row in rows if row.dropped is None and row.asking.method == "rewrite")
    told = drllama("why", kept.id).out
    parent, made = question_row(0, "train"), recorded_row(0)["rewrite"]
    assert told.startswith(f"row {kept.id} of run {run.id}: kept\n")
    flat = " ".join(told.split())
    for text in (parent["question"], parent["context"], made["question"], made["context"], made["long_answer"]):
        assert text in flat
    assert f"asked with rewrite.v1, rollout 0, key {kept.asking.call}" in told
    assert "recorded recorded.jsonl: replied (stop), tokens unknown, cost unknown" in told
    assert "  form: passed\n" in told
    assert "  label: passed (blind answers: yes 1, no 0, maybe 0, silent 0)" in told
    assert told.rstrip().endswith("trained on in: rewrite, combined")

    voted = next(row for row in rows if row.dropped and row.dropped.by == "label")
    told = drllama("why", voted.id[:12], "--run", run.id[:3]).out
    assert "dropped by label: blind answers chose another label" in told
    assert "trained on in: no arm" in told
    short = next(row for row in rows if row.dropped and row.dropped.by == "form")
    told = drllama("why", short.id).out
    assert "  form: the question is too short (4, the limit is 12)\n" in told
    assert "label: passed" not in told


@pytest.mark.parametrize(
    ("row", "told"),
    [("nowhere", "has no row with an id that begins 'nowhere'"), ("", "has no row with an id that begins ''")],
)
def test_why_of_no_row_says_where_they_are_listed(drllama, row, told):
    drllama("run", "recipe.yaml")
    done = drllama("why", row)
    assert (done.code, told in done.err, "rows.jsonl lists them all" in done.err) == (1, True, True)


def test_why_without_a_run_says_how_to_make_one(drllama):
    assert "no finished runs here; make one with drllama run RECIPE" in drllama("why", "x").err


def test_why_of_a_beginning_that_several_rows_share_names_some(drllama, tmp_path):
    drllama("run", "recipe.yaml")
    (run,) = Store(tmp_path / "runs").runs()
    new = next(row for row in Store(tmp_path / "runs").ledger(run) if row.asking.method == "new")
    done = drllama("why", new.id.partition(":")[0])
    assert f"has 2 rows: {new.id}," in done.err


def test_why_tells_of_replies_that_couldn_t_be_read(drllama, tmp_path):
    lines = (tmp_path / "recorded.jsonl").read_text(encoding="utf-8").splitlines()
    broken = json.loads(lines[0])
    del broken["rewrite"]["long_answer"]
    kept = [json.loads(line) for line in lines[1:]]
    del kept[3]["rewrite"]
    write_lines(tmp_path / "recorded.jsonl", [broken, *kept])
    drllama("run", "recipe.yaml", "--set", "augment.max_attempts=1")
    (run,) = Store(tmp_path / "runs").runs()
    (row,) = [row for row in Store(tmp_path / "runs").ledger(run) if row.kind == "unparsed"]
    told = drllama("why", row.id).out
    assert f"row {row.id} of run {run.id}: couldn't be read: no text 'long_answer'" in told
    assert '{"question": "Are children less often ill' in told


def test_a_plan_counts_what_votes_and_judge_may_take(drllama, monkeypatch):
    monkeypatch.setattr(plugins, "make_token_counter", lambda recipe: lambda text: len(text.split()))
    several = "filters.label={votes: 3, sampling: {temperature: 0.5}}"
    plan = drllama("plan", "recipe.yaml", "--set", several, "--set", "filters.judge={}").out
    assert re.search(r"answer\.v1 on the rows, at most +36 +0 ", plan)  # 4 questions, 3 rows of each, 3 votes
    assert re.search(r"judge\.v1 on the rows, at most +12 +0 ", plan)
    assert "on the rows" not in drllama("plan", "recipe.yaml", "--set", "filters.label=null").out


@pytest.mark.slow
def test_the_funnel_of_the_frontier_recording(drllama, tmp_path, shared_pubmedqa):
    teacher = "teacher: {replay: {endpoint: recorded, model: large}}"
    (tmp_path / "frontier.yaml").write_text(
        f"name: frontier\ndata:\n  pubmedqa: {{path: '{shared_pubmedqa / 'ori_pqal.json'}'}}\n{teacher}\n"
        "augment: {}\nfilters: {label: {votes: 1}}\n"
    )
    for name in ("teacher_frontier.jsonl", "votes_frontier.jsonl"):
        assert drllama("replies", "import", "--recipe", "frontier.yaml", shared_pubmedqa / name).code == 0
    done = drllama("filter", "frontier.yaml")
    assert cells(done.out, "asked") == cells(done.out, "parsed") == ["450", "900", "1350"]
    assert cells(done.out, "well formed") == ["442", "900", "1342"]
    assert cells(done.out, "kept") == ["372", "884", "1256"]
    assert re.search(r"label +blind answers chose another label +70 +16 +86", done.out)
