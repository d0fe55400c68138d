import io
import json
import re
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
import typer

from drllama import pipeline, plugins
from drllama.cli import main
from drllama.cli import progress as progress_module
from drllama.cli import teacher as _teacher  # noqa: F401  its commands join the others
from drllama.cli.app import app
from drllama.cli.progress import ShownProgress
from drllama.cli.tables import table
from drllama.errors import DataError
from drllama.recipe import read_recipe
from drllama.replies import RequestStore
from drllama.store import Store
from drllama.students.catalogue import STUDENTS
from drllama.teaching import Limits
from scripted_student import POISON, Script, ScriptedStudent, write_questions, write_recipe

COMMANDS = sorted(name for name, command in typer.main.get_command(app).commands.items() if not command.hidden)
FAST = "evaluate: {bootstrap_samples: 100}\n"
ESCAPE = "\x1b"
QUESTION = {"question": "Is it so?", "context": "It is.", "label": "yes"}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty folder to stand in, where no setting of the person who runs the tests reaches."""
    for name in ("DRLLAMA_STORE", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DRLLAMA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def drllama(monkeypatch, capsys):
    """Call the command line as a shell would, and return exit code, standard output and standard error."""

    def drllama(*words):
        monkeypatch.setattr(sys, "argv", ["drllama", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        out, err = capsys.readouterr()
        return SimpleNamespace(code=end.value.code or 0, out=out, err=err)

    return drllama


@pytest.fixture
def script(monkeypatch, folder):
    """A recipe and its questions in the folder, and a scripted student that answers them."""
    script = Script()
    monkeypatch.setattr(plugins, "make_student", script.make_student)
    write_questions(folder / "questions.jsonl")
    write_recipe(folder / "recipe.yaml", "questions.jsonl", more=FAST)
    return script


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    write_questions(folder / "questions.jsonl")
    write_recipe(folder / "recipe.yaml", folder / "questions.jsonl", more=FAST)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plugins, "make_student", Script().make_student)
        silent = SimpleNamespace(expect=lambda units: None, work=lambda activity, units=0: None, tell=lambda line: None)
        with RequestStore(folder / "runs" / "replies.sqlite") as replies:
            return folder / "runs", pipeline.run(
                read_recipe(folder / "recipe.yaml").recipe,
                kept=pipeline.Kept(store=Store(folder / "runs"), replies=replies),
                limits=Limits(),
                progress=silent,
                command="drllama run recipe.yaml",
            )


@pytest.fixture
def finished(finished_run, script, monkeypatch):
    """The id of a finished run in the folder that DRLLAMA_STORE names."""
    store, run = finished_run
    monkeypatch.setenv("DRLLAMA_STORE", str(store))
    return run


def write_lines(path, *rows):
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")


def test_without_a_command_the_commands_are_listed(drllama):
    for shown in (drllama(), drllama("--help")):
        assert all(re.search(rf"\b{command}\b", shown.out + shown.err) for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_says_what_it_does_and_what_each_option_means(drllama, command):
    shown = drllama(command, "--help")
    assert (shown.code, shown.err) == (0, "")
    assert shown.out.split()[:3] == ["Usage:", "drllama", command]
    for parameter in typer.main.get_command(app).commands[command].params:
        assert getattr(parameter, "help", None) or parameter.name == "question"


def test_a_run_is_carried_out_and_shown(drllama, script, folder):
    shown = drllama("run", "recipe.yaml", "--set", "finetune.epochs=2")
    assert shown.code == 0
    (run,) = Store(folder / "runs").runs()
    lines = shown.out.splitlines()
    assert lines[0] == f"run {run.id}: smollm2-135m on questions (24 train, 6 dev, 12 test)"
    assert "student: fine-tuned, best on dev, epoch 1 of 2" in lines
    systems = [line.split()[:2] for line in lines if re.match("majority|prior|untrained|fine-tuned", line)]
    assert systems == [["majority", "33.3"], ["untrained", "33.3"], ["fine-tuned", "100.0"]]
    paths = [line.partition(" ")[2].strip() for line in lines if line.startswith(("report:", "adapter:"))]
    assert len(paths) == 2
    assert all((folder / path).exists() for path in paths)
    assert run.command == "drllama run recipe.yaml --set finetune.epochs=2"
    again = drllama("run", "recipe.yaml", "--set", "finetune.epochs=2")
    assert again.out == shown.out


def test_questions_without_an_answer_are_told_below_the_table(drllama, script, folder):
    write_questions(folder / "questions.jsonl", extra=[{**QUESTION, "question": POISON, "split": "test"}])
    shown = drllama("run", "recipe.yaml")
    assert "fine-tuned: 1 of 13 questions got no answer and count as wrong" in shown.out


def test_without_a_terminal_progress_is_plain_lines_on_standard_error(drllama, script, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # as on many build servers, whose logs are no terminals either
    shown = drllama("run", "recipe.yaml")
    assert ESCAPE not in shown.out + shown.err
    activities = [re.sub(r"^ *\d+ ?%(, \S+ left)? +", "", line) for line in shown.err.splitlines()]
    assert activities[:1] + activities[-1:] == ["reading the questions", "counting and writing the report"]
    assert len(activities) == len(set(activities)), "a line only when the activity changes"
    assert {"scoring the untrained student", "scoring the fine-tuned student"} < set(activities)


class Clock:
    seconds = 0.0

    def monotonic(self):
        return self.seconds


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_on_a_terminal_one_live_line_tells_the_share_done_and_the_time_left(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setattr(progress_module, "time", clock := Clock())
    monkeypatch.setenv("TERM", "xterm-256color")
    with ShownProgress() as progress:
        progress.expect(4)
        clock.seconds = 30
        progress.work("scoring", 1)
    assert " 25%, 1:30 left  scoring" in sys.stderr.getvalue()
    assert ESCAPE in sys.stderr.getvalue()


def test_a_terminal_that_can_t_move_its_cursor_gets_plain_lines(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", "dumb")
    with ShownProgress() as progress:
        progress.work("scoring", 1)
    assert sys.stderr.getvalue() == "scoring\n"


def test_plain_lines_come_again_after_a_while(monkeypatch, capsys):
    monkeypatch.setattr(progress_module, "time", clock := Clock())
    with ShownProgress() as progress:
        progress.expect(10)
        for _ in range(5):
            clock.seconds += 10
            progress.work("scoring", 1)
    assert capsys.readouterr().err.splitlines() == [
        " 10%, 1:30 left  scoring",
        " 30%, 1:10 left  scoring",
        " 50%, 0:50 left  scoring",
    ]


def test_an_interrupted_run_says_how_to_go_on_and_does(drllama, script):
    script.fail_after = 15
    shown = drllama("run", "recipe.yaml")
    assert shown.code == 130
    assert shown.err.splitlines()[-1] == "interrupted; run the same command again: it goes on where it stopped"
    assert "Traceback" not in shown.err
    script.fail_after = None
    assert drllama("run", "recipe.yaml").code == 0
    assert len(script.questions_asked_of("fine-tuned")) == 12
    assert script.trainings == 1


def test_an_error_of_several_lines_is_told_on_one(drllama, script):
    script.fail_after, script.failure = 0, DataError("one line\nand\tanother; mend it")
    shown = drllama("run", "recipe.yaml")
    assert shown.code == 1
    assert shown.err.splitlines()[-1] == "DataError: one line and another; mend it"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("run none.yaml", "RecipeError: none.yaml: No such file or directory; give the path of a recipe, such as"),
        ("explain none.yaml", "RecipeError: none.yaml: No such file or directory"),
        ("explain .", "RecipeError: .: Is a directory"),
        ("run recipe.yaml --set finetune.lr=1", "RecipeError: recipe.yaml: unknown setting 'finetune.lr' (--set); did"),
        ("run recipe.yaml --set x", "RecipeError: --set x: write it as SETTING=VALUE"),
        ("run recipe.yaml --store recipe.yaml", "StoreError: recipe.yaml/scripted-"),
        ("explain recipe.yaml --set student.prompt=zzz", "RecipeError: student.prompt: unknown template 'zzz'; choose"),
        ("show none", "StoreError: runs: no finished runs here; make one with drllama run RECIPE, or give --store"),
        ("eval none", "StoreError: runs: no finished runs here"),
        ("ask none what?", "StoreError: runs: no finished runs here"),
        ("eval none --split tset", "RecipeError: --split tset: choose train, dev or test"),
        ("eval none --set seed=1", "RecipeError: --set changes the recipe given by --on; give --on RECIPE too"),
        ("eval none --on none.yaml", "RecipeError: none.yaml: No such file or directory"),
        ("data zzz", "RecipeError: zzz: not a source; give a recipe (.yaml), pubmedqa-demo, or a .json, .jsonl or"),
        ("data pubmedqa-dmo", "RecipeError: pubmedqa-dmo: not a source; did you mean 'pubmedqa-demo'? else give"),
        ("data none.csv", "DataError: none.csv: No such file or directory; give the path of a file of questions"),
        ("data none.jsonl --labels yes,no", "DataError: none.jsonl: No such file or directory"),
        ("data none.json", "DataError: none.json: No such file or directory"),
        ("data questions.jsonl --labels yes", "RecipeError: questions.jsonl: task.labels: needs at least 2, has 1"),
        ("data questions.jsonl --labels yes,no", "DataError: questions.jsonl line 3: label 'maybe' is not one of yes"),
        ("data questions.jsonl --set seed=1", "RecipeError: --set changes a recipe; give a recipe as SOURCE"),
        ("data recipe.yaml --labels a,b", "RecipeError: --labels a,b: recipe.yaml brings its own labels; leave the"),
        ("data pubmedqa-demo --labels a,b", "RecipeError: --labels a,b: pubmedqa-demo brings its own labels"),
    ],
)
def test_what_a_person_gets_wrong_is_one_line_and_exit_code_1(drllama, script, words, line):
    shown = drllama(*words.split())
    assert (shown.code, shown.out) == (1, "")
    assert shown.err.splitlines()[-1].startswith(line)
    assert "Traceback" not in shown.err


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["show", "none"], "no finished run 'none'; drllama runs lists those that there are"),
        (["show", "scripted-zzz"], "no finished run 'scripted-zzz'; did you mean 'scripted-"),
        (["eval", "scripted", "--split", "train"], "split train: 24 of 24 questions were in"),
        (["ask", "scripted", ""], "the question is empty"),
        (["ask", "scripted", "What?", "--option", "rest"], "options 'rest': run scripted-"),
        (["ask", "scripted", "What?", *(f"--option={text}" for text in ("a", " ", "b"))], "options 'a', ' ', 'b': run"),
        (["ask", "scripted", "What?", *(f"--option={text}" for text in ("a", "b", "c", ""))], "has 3 labels (yes, no,"),
        (["ask", "scripted", "What?", "--context", "none.txt"], "--context none.txt: No such file or directory; check"),
        (["ask", "scripted", "What?", "--context", "latin.txt"], "--context latin.txt: not UTF-8 at byte 3; save"),
    ],
)
def test_what_a_person_gets_wrong_about_a_finished_run_is_one_line_too(drllama, finished, folder, words, line):
    (folder / "latin.txt").write_bytes(b"caf\xe9")
    shown = drllama(*words)
    assert (shown.code, shown.out) == (1, "")
    assert line in shown.err.splitlines()[-1]
    assert "Traceback" not in shown.err


@pytest.mark.parametrize("words", [["bogus"], ["run"], ["show", "a", "b"], ["run", "x", "--lr", "1"], ["--bogus"]])
def test_wrong_usage_is_exit_code_2_and_says_where_help_is(drllama, words):
    shown = drllama(*words)
    assert (shown.code, shown.out) == (2, "")
    assert "Usage: drllama" in shown.err
    assert "--help" in shown.err


def test_explain_shows_each_value_where_it_came_from_and_what_the_student_reads(drllama, script):
    shown = drllama("explain", "recipe.yaml", "--set", "finetune.epochs=2", "--set", "student.chat=no")
    rows = dict(re.split(" {2,}", line, maxsplit=1) for line in shown.out.splitlines() if "  " in line)
    assert rows["finetune.epochs"].split() == ["2", "--set"]
    assert re.split(" {2,}", rows["task.labels"]) == ["yes, no, maybe", "recipe.yaml line 5"]
    assert rows["seed"].split() == ["42", "default"]
    assert shown.out.endswith("Context: CONTEXT.\nQuestion: QUESTION?\nAnswer:\n")


def test_explain_says_when_the_student_isn_t_here_to_tell_of_its_chat_template(drllama, script):
    shown = drllama("explain", "recipe.yaml", "--set", "student.model=nobody/nothing")
    assert "; student.chat is auto: in the student's chat template if it has one; it isn't here to tell):" in shown.out
    assert shown.out.endswith("Context: CONTEXT.\nQuestion: QUESTION?\nAnswer:\n")


def test_runs_are_listed_with_their_scores(drllama, finished):
    header, _, row = drllama("runs").out.splitlines()
    assert header.split() == ["run", "finished", "(UTC)", "student", "accuracy", "macro-F1"]
    assert row.split() == [finished.id, finished.finished_at, "smollm2-135m", "1.000", "1.000"]


def test_without_runs_the_list_says_how_to_make_one(drllama, folder):
    (folder / "empty").mkdir()
    assert drllama("runs", "--store", "empty").out == "empty: no finished runs; make one with: drllama run RECIPE\n"
    assert drllama("runs").out == "runs: no such folder; make one with: drllama run RECIPE\n"


def test_show_tells_what_came_out_where_the_steps_lie_and_what_made_the_run(drllama, finished, finished_run):
    store, _ = finished_run
    shown = drllama("show", "scripted").out
    assert shown.startswith(f"run {finished.id}: ")
    for step in finished.steps:
        assert str(store / step.folder) in shown
    assert shown.endswith(f"finished {finished.finished_at} by: drllama run recipe.yaml\n")


def test_eval_shows_the_whole_id_and_the_table(drllama, finished, folder):
    shown = drllama("eval", "scripted")
    assert shown.out.startswith(f"{finished.id} on test of its own data, 12 questions\n")
    assert "fine-tuned  1.000 [" in shown.out
    write_questions(folder / "other.jsonl", train=5, dev=4, test=3)
    text = (folder / "other.jsonl").read_text(encoding="utf-8").replace("treatment", "remedy")
    (folder / "other.jsonl").write_text(text, encoding="utf-8")
    write_recipe(folder / "other.yaml", "other.jsonl")
    shown = drllama("eval", "scripted", "--on", "other.yaml", "--split", "dev", "--set", "data.jsonl.limit.dev=2")
    assert shown.out.startswith(f"{finished.id} on dev of other.yaml, 2 questions\n")


def test_a_folder_cells_beside_the_recipe_keeps_each_student_and_runs_over_seeds_are_told(drllama, script, folder):
    (folder / "cells").mkdir()
    first = drllama("run", "recipe.yaml", "--set", "seeds=2")
    assert first.code == 0, first.err
    assert sorted(path.name.rpartition("-")[0] for path in (folder / "cells").iterdir()) == ["none-seed1", "none-seed2"]
    assert re.search(r"^mean of 2 seeds +accuracy", first.out, re.MULTILINE)
    elsewhere = drllama("run", "recipe.yaml", "--set", "seeds=2", "--store", "elsewhere")
    assert script.trainings == 2
    assert "(not on this machine: trained on cpu, 2 threads, 20" in elsewhere.out
    run = first.out.split()[1].rstrip(":")
    assert drllama("ask", run, "Is it?", "--arm", "none", "--seed", "2").code == 0
    assert "arm none has no such seed; there are: 1, 2" in drllama("ask", run, "Is it?", "--seed", "3").err
    told = drllama("ask", run, "Is it?", "--store", "elsewhere").err
    assert "was trained elsewhere (cpu, 2 threads, 20" in told
    assert told.count("\n") == 1


def test_ask_answers_with_each_label_s_share(drllama, finished, folder, monkeypatch):
    (folder / "context.txt").write_text("It does.", encoding="utf-8")
    monkeypatch.setattr(sys, "stdin", io.StringIO("It does."))
    for context in (["--context", "context.txt"], ["--context", "-"], []):
        shown = drllama("ask", "scripted", "Does it help?", *context)
        assert [line.split() for line in shown.out.splitlines()] == [
            ["yes"],
            ["yes", "0.800"],
            ["no", "0.100"],
            ["maybe", "0.100"],
        ]


def test_ask_shows_the_student_the_answer_options(drllama, finished, monkeypatch):
    shown, score = [], ScriptedStudent.score
    monkeypatch.setattr(ScriptedStudent, "score", lambda self, asked: shown.extend(asked) or score(self, asked))
    options = ("rest", "tea", "none")
    assert drllama("ask", "scripted", "What helps?", *(f"--option={text}" for text in options)).code == 0
    assert [one.options for one in shown] == [options]


def test_ask_says_why_there_is_no_answer(drllama, finished):
    assert drllama("ask", "scripted", POISON).out == "no answer: the question alone doesn't fit\n"


def test_a_jsonl_file_is_described_with_the_labels_given(drllama, script):
    lines = drllama("data", "questions.jsonl", "--labels", "yes, no,maybe").out.splitlines()
    assert lines[0] == "task: questions.jsonl; labels: yes, no, maybe"
    rows = {line.split()[0]: line.split()[1:9] for line in lines[4:7]}
    assert rows["train"] == ["24", "24", "8", "(33%)", "8", "(33%)", "8", "(33%)"]
    assert rows["test"] == ["12", "12", "4", "(33%)", "4", "(33%)", "4", "(33%)"]


def test_a_file_is_described_with_the_labels_it_holds_when_none_are_given_and_says_so(drllama, script):
    told = drllama("data", "questions.jsonl").out.splitlines()
    given = drllama("data", "questions.jsonl", "--labels", "yes,no,maybe").out.splitlines()
    assert told[0] == (
        "task: questions.jsonl (labels as found in the file; --labels checks them); labels: yes, no, maybe"
    )
    assert told[1:] == given[1:]


def test_a_csv_file_is_described_whatever_the_case_of_its_ending(drllama, folder):
    rows = [f"Is {number} so?,c{number},{number % 2 == 0},{split}" for number, split in enumerate(SPLITS)]
    (folder / "mine.CSV").write_text("\n".join(["question,context,label,split", *rows]), encoding="utf-8")
    assert drllama("data", "mine.CSV").out.startswith("task: mine.CSV (labels as found in the file; ")
    assert "labels: True, False" in drllama("data", "mine.CSV").out


SPLITS = ["train", "train", "dev", "test", "train", "test"]


def test_json_labels_that_are_no_texts_are_read_as_texts(drllama, folder):
    rows = [
        {"question": f"Is {number} so?", "label": number % 2 == 0, "split": split}
        for number, split in enumerate(SPLITS)
    ]
    write_lines(folder / "mine.jsonl", *rows)
    assert "labels: true, false" in drllama("data", "mine.jsonl").out.splitlines()[0]


@pytest.mark.parametrize(
    ("rows", "line"),
    [
        (
            [{"question": "Is it so?", "answer": "yes"}],
            "mine.jsonl: no column 'label' to take the labels from; write a",
        ),
        ([QUESTION], "mine.jsonl: holds 1 different labels; say which are allowed, such as --labels yes,no,maybe"),
        ([{**QUESTION, "label": str(n)} for n in range(21)], "mine.jsonl: holds 21 different labels; say which are"),
    ],
)
def test_a_file_whose_labels_can_t_be_taken_from_it_is_told(drllama, folder, rows, line):
    write_lines(folder / "mine.jsonl", *rows)
    shown = drllama("data", "mine.jsonl")
    assert shown.code == 1
    assert shown.err.startswith(f"RecipeError: {line}")


def test_a_recipe_s_questions_are_described_with_their_duplicates_and_contradictions(drllama, script, folder):
    again = {
        "id": "again",
        "question": "does TREATMENT 0 of train help?",
        "context": "In train, treatment 0 was given.",
    }
    write_questions(folder / "questions.jsonl", extra=[{**again, "label": "no", "split": "train"}])
    shown = drllama("data", "recipe.yaml").out
    assert re.search(r"^within train +1 +0 +0$", shown, re.MULTILINE)
    assert "  exact (1.00): train0 (train) and again (train)\n" in shown
    assert "  contradiction: train0 says yes, again says no\n" in shown


def test_columns_align_for_wide_characters_and_for_marks_that_take_no_room():
    assert table(["标签", "n"], [["是", "1"], ["maybe", "22"], ["हाँ", "3"]]).splitlines() == [
        "标签   n",
        "-----  --",
        "是     1",
        "maybe  22",
        "हाँ     3",
    ]


def test_wide_labels_don_t_shift_the_columns_of_a_description(drllama, folder):
    rows = [
        {"question": f"问题{number}？", "context": f"上下文{number}", "label": "是否"[number % 2], "split": split}
        for number, split in enumerate(SPLITS)
    ]
    write_lines(folder / "mine.jsonl", *rows)
    lines = drllama("data", "mine.jsonl", "--labels", "是,否").out.splitlines()[2:6]
    # In GBK a wide character is two bytes, so columns of one width on the screen begin at one byte.
    header, rule, *splits = (line.encode("gbk") for line in lines)
    starts = [match.start() for match in re.finditer(rb"(?<= )-", rule)]
    for line in (header, *splits):
        assert all(line[start - 2 : start] == b"  " and line[start : start + 1].strip() for start in starts)


def test_an_output_that_can_t_show_a_letter_shows_its_number(drllama, folder, monkeypatch):
    rows = [{"question": f"{n}?", "label": "是否"[n % 2], "split": split} for n, split in enumerate(SPLITS)]
    write_lines(folder / "mine.jsonl", *rows)
    out = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "argv", ["drllama", "data", "mine.jsonl"])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    out.flush()
    assert b"labels: \\u662f, \\u5426" in out.buffer.getvalue()


def test_models_lists_each_student_with_its_licence_and_the_way_to_get_it(drllama, monkeypatch):
    monkeypatch.setattr("drllama.students.catalogue.distribution", missing)
    shown = drllama("models").out
    for student in STUDENTS:
        (line,) = [line for line in shown.splitlines() if line.startswith(f"{student.name} ")]
        assert " missing " in line
        assert student.licence in line
        assert line.endswith(student.install_command)


def missing(name):
    from importlib.metadata import PackageNotFoundError

    raise PackageNotFoundError(name)


def test_doctor_lists_what_is_there_and_what_is_missing_with_the_way_to_get_it(drllama, monkeypatch):
    monkeypatch.setattr("drllama.students.catalogue.distribution", missing)
    monkeypatch.setattr(plugins, "MACHINE", "no_such_package:measure")

    def no_questions():
        raise DataError("the questions' package is missing; pip install it")

    monkeypatch.setattr(plugins, "find_demo_questions", no_questions)
    shown = drllama("doctor")
    assert shown.code == 0
    facts, _, wants = shown.out.partition("missing:\n")
    assert facts.startswith(f"python                {sys.version.split()[0]}\n")
    assert wants.splitlines() == [
        "  no_such_package isn't installed; pip install 'drllama[train]'",
        *(f"  {student.name}: {student.install_command}" for student in STUDENTS),
        "  the questions' package is missing; pip install it",
    ]


def start(*words, **options):
    """Start the command line in a process of its own."""
    code = "from drllama.cli import main; main()"
    return subprocess.Popen([sys.executable, "-c", code, *words], stderr=subprocess.PIPE, text=True, **options)


def test_a_reader_that_goes_away_early_is_no_error():
    with start("models", stdout=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 1


def test_ctrl_c_ends_a_command_with_one_line():
    code = (
        "import sys, time; from drllama import plugins; from drllama.cli import main\n"
        "def slow(recipe):\n    print('reading', flush=True)\n    time.sleep(60)\n"
        "plugins.make_source = slow; sys.argv = ['drllama', 'data', 'pubmedqa-demo']; main()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "reading\n"
        process.send_signal(signal.SIGINT)
        assert process.stderr.read() == "interrupted; run the same command again: it goes on where it stopped\n"
    assert process.returncode == 130
