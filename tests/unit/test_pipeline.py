import json
import subprocess
from dataclasses import dataclass, field, replace

import pytest
from made_up_run import make_run

import drllama.environment as environment_module
from drllama import afterwards, pipeline, plugins
from drllama.afterwards import WhichCell
from drllama.environment import environment
from drllama.errors import DataError, MissingExtra, OverlapError, RecipeError, StoreError
from drllama.recipe import Recipe, as_yaml, read_recipe
from drllama.replies import RequestStore
from drllama.sources import PUBMEDQA_TASK
from drllama.steps import Steps
from drllama.store import Store
from drllama.teaching import Limits
from drllama.types import Example, Original, Outcome, Splits
from scripted_student import POISON, Script, write_questions, write_recipe

FAST = "evaluate.bootstrap_samples=100"


@dataclass
class Heard:
    """A progress that remembers."""

    expected: list[float] = field(default_factory=list)
    units: float = 0
    activities: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    def expect(self, units):
        self.expected.append(units)

    def work(self, activity, units=0):
        self.units += units
        if activity not in self.activities:
            self.activities.append(activity)

    def tell(self, line):
        self.lines.append(line)


class Bench:
    """A folder with questions, a recipe, a store, and a script that the students follow."""

    def __init__(self, folder):
        self.questions, self.recipe = folder / "questions.jsonl", folder / "recipe.yaml"
        write_questions(self.questions)
        write_recipe(self.recipe, self.questions)
        self.store, self.script, self.heard = Store(folder / "runs"), Script(), Heard()

    def read(self, *assignments):
        return read_recipe(self.recipe, (FAST, *assignments)).recipe

    def run(self, *assignments):
        self.script.asked.clear()
        self.script.trainings, self.heard = 0, Heard()
        with RequestStore(self.store.root / "replies.sqlite") as replies:
            return pipeline.run(
                self.read(*assignments),
                kept=pipeline.Kept(store=self.store, replies=replies),
                limits=Limits(),
                progress=self.heard,
                command="drllama run it",
            )

    def evaluate(self, finished, *, split="test", on=None):
        self.script.asked.clear()
        self.heard = Heard()
        return afterwards.evaluate_run(
            finished, which=WhichCell(), split=split, on=on, store=self.store, progress=self.heard
        )

    def asked(self):
        """How many questions the untrained and the fine-tuned student were asked, and how often one was trained."""
        counts = [len(self.script.questions_asked_of(who)) for who in ("untrained", "fine-tuned")]
        return (*counts, self.script.trainings)


@pytest.fixture
def bench(tmp_path, monkeypatch):
    bench = Bench(tmp_path)
    monkeypatch.setattr(plugins, "make_student", bench.script.make_student)
    return bench


@pytest.fixture(scope="module")
def benched(tmp_path_factory):
    bench = Bench(tmp_path_factory.mktemp("finished"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plugins, "make_student", bench.script.make_student)
        return bench, bench.run(), bench.asked(), bench.heard


@pytest.fixture
def finished(benched, monkeypatch):
    """A bench with one finished run; tests may add runs, but none that another test asks for."""
    bench, bench.first, _, _ = benched
    monkeypatch.setattr(plugins, "make_student", bench.script.make_student)
    return bench


def accuracies(evaluations):
    return {one.system: one.metrics["accuracy"].value for one in evaluations}


def test_a_run_scores_the_baselines_the_untrained_and_the_fine_tuned_student_in_this_order(benched):
    _, run, asked, _ = benched
    assert list(accuracies(run.evaluations)) == ["majority", "prior", "untrained", "fine-tuned"]
    assert accuracies(run.evaluations) == {"majority": 4 / 12, "prior": 4 / 12, "untrained": 4 / 12, "fine-tuned": 1}
    assert {one.split for one in run.evaluations} == {"test"}
    assert run.split_sizes == {"train": 24, "dev": 6, "test": 12}
    assert asked == (12, 12, 1)


def test_a_run_says_before_training_what_time_and_memory_it_takes_and_only_then(benched, finished):
    *_, heard = benched
    # 24 questions three times at a second each; 12 of test asked twice.
    assert heard.lines == ["about 2 minutes ahead, about 1.0 GiB of memory"]
    finished.run()
    assert finished.heard.lines == []


def test_a_run_leaves_a_manifest_a_report_in_three_forms_and_its_whole_recipe(finished):
    run = finished.first
    folder = finished.store.root / run.id
    assert sorted(path.name for path in folder.iterdir()) == [
        "leaks.json",
        "manifest.json",
        "recipe.yaml",
        "report.html",
        "report.json",
        "report.md",
    ]
    assert finished.store.run(run.id) == run
    assert json.loads((folder / "report.json").read_text(encoding="utf-8"))["run_id"] == run.id
    assert read_recipe(folder / "recipe.yaml").recipe == finished.read()
    assert (folder / "recipe.yaml").read_text(encoding="utf-8") == as_yaml(finished.read())


def test_the_progress_that_is_announced_is_the_progress_that_is_made(benched):
    _, _, _, heard = benched
    (expected,) = heard.expected
    scripted_training = 3 * 24  # the scripted student counts an example as one unit, and dev as none
    assert heard.units == 12 + 12 + scripted_training
    assert expected == pytest.approx(12 + 12 + 3 * (24 * 2.3 + 6))


def test_the_same_recipe_again_repeats_nothing_and_gives_the_same_run(finished):
    assert finished.run() == finished.first
    assert finished.asked() == (0, 0, 0)


def test_a_run_whose_manifest_was_lost_is_made_again_without_the_student(bench):
    first = bench.run()
    (bench.store.root / first.id / "manifest.json").unlink()
    again = bench.run()
    assert bench.asked() == (0, 0, 0)
    assert bench.heard.expected == [0]
    assert replace(again, finished_at=first.finished_at) == first


@pytest.mark.parametrize(
    ("assignment", "asked"),
    [
        ("finetune.learning_rate=0.5", (0, 12, 1)),
        ("finetune.method.lora.rank=2", (0, 12, 1)),
        ("seed=7", (0, 12, 1)),
        ("evaluate.bootstrap_samples=150", (0, 0, 0)),
        ("evaluate.level=0.9", (0, 0, 0)),
        ("student.batch_size=2", (0, 0, 0)),
        ("report.worst_mistakes=0", (0, 0, 0)),
        ("finetune.micro_batch_size=2", (0, 0, 0)),
        ("name=other", (0, 0, 0)),
        ("student.max_tokens=64", (12, 12, 1)),
        ("student.keep_context=start", (12, 12, 1)),
        ("student.prompt=paper.v1", (12, 12, 1)),
        ("student.chat=yes", (12, 12, 1)),
        ("student.chat=no", (0, 0, 0)),
        ("task.verbalizers={maybe: unclear}", (12, 12, 1)),
        ("data.jsonl.limit={test: 5}", (5, 5, 0)),
        ("data.jsonl.limit={train: 9}", (0, 12, 1)),
        ("data.jsonl.limit={dev: 3}", (0, 12, 1)),
    ],
)
def test_a_changed_setting_repeats_what_depends_on_it_and_nothing_else(finished, assignment, asked):
    run = finished.run(assignment)
    assert finished.asked() == asked
    assert run.id != finished.first.id
    assert finished.store.run(finished.first.id) == finished.first


@pytest.mark.parametrize(
    ("old", "new", "asked"),
    [
        ("Does treatment 3 of test help?", "Does treatment 3 of test hurt?", (12, 12, 0)),
        ("Does treatment 3 of test help?", "DOES treatment 3 of test help?", (12, 12, 0)),
        ("In test, treatment 5 was given.", "In test, treatment 5 was withheld.", (12, 12, 0)),
        ("In train, treatment 5 was given.", "In train, treatment 5 was withheld.", (0, 12, 1)),
        ("In dev, treatment 5 was given.", "In dev, treatment 5 was withheld.", (0, 12, 1)),
    ],
)
def test_a_changed_text_repeats_what_depends_on_it_and_nothing_else(bench, old, new, asked):
    first = bench.run()
    text = bench.questions.read_text(encoding="utf-8")
    assert text.count(old) == 1
    bench.questions.write_text(text.replace(old, new), encoding="utf-8")
    assert bench.run().id != first.id
    assert bench.asked() == asked


def test_a_changed_gold_label_repeats_the_scoring(bench):
    first = bench.run()
    text = bench.questions.read_text(encoding="utf-8")
    bench.questions.write_text(
        text.replace('given.", "label": "yes", "split": "test"', 'given.", "label": "no", "split": "test"', 1)
    )
    second = bench.run()
    assert second.id != first.id
    assert sum(one.gold == "no" for one in second.evaluations[-1].predictions) == 5


def test_a_run_that_was_interrupted_goes_on_where_it_stopped(bench):
    bench.script.fail_after = 5  # in the middle of the fine-tuned student's answers
    with pytest.raises(KeyboardInterrupt):
        bench.run()
    assert bench.store.runs() == []
    bench.script.fail_after = None
    run = bench.run()
    assert bench.asked() == (12, 12, 0)
    assert accuracies(run.evaluations)["fine-tuned"] == 1


def test_a_question_that_can_t_be_asked_counts_as_failed_and_hurts_itself_only(bench):
    poison = {"id": "x", "question": f"{POISON}?", "context": "c", "label": "yes", "split": "test"}
    write_questions(bench.questions, extra=[poison])
    tuned = bench.run().evaluations[-1]
    assert tuned.counts == {Outcome.CORRECT: 12, Outcome.WRONG: 0, Outcome.UNPARSED: 0, Outcome.FAILED: 1}
    (failed,) = [one for one in tuned.predictions if one.outcome is Outcome.FAILED]
    assert (failed.source_id, failed.choice, failed.note) == ("x", None, "the question alone doesn't fit")
    assert tuned.metrics["accuracy"].value == 12 / 13
    assert tuned.metrics["nll"].n == 12


def test_answers_come_in_the_order_of_the_questions_whatever_order_they_were_given_in(finished):
    run = finished.first
    assert [one.source_id for one in run.evaluations[-1].predictions] == [f"test{number}" for number in range(12)]


def test_a_question_that_stands_twice_in_a_split_is_asked_and_counted_twice(bench):
    twice = {"id": "again", "question": "Does treatment 0 of test help?", "context": "In test, treatment 0 was given."}
    write_questions(bench.questions, extra=[{**twice, "label": "no", "split": "test"}])
    predictions = bench.run().evaluations[-1].predictions
    assert len(predictions) == 13
    assert {one.source_id: one.gold for one in predictions}["again"] == "no"
    assert all(one.outcome is Outcome.CORRECT for one in predictions)


def test_a_source_whose_test_questions_stand_in_train_is_refused_before_anything_is_asked(bench, monkeypatch):
    def example(split, source_id):
        origin = Original(source="leaky", source_id=source_id)
        return Example(question="Is it so?", context="It is.", label="yes", split=split, group=source_id, origin=origin)

    class Leaky:
        task = PUBMEDQA_TASK

        def load(self):
            return Splits(train=(example("train", "17"),), dev=(), test=(example("test", "99"),))

    monkeypatch.setattr(plugins, "make_source", lambda recipe: Leaky())
    with pytest.raises(OverlapError) as told:
        bench.run()
    assert str(told.value) == "leaky: the same question stands in test (99) and in train (17); delete one of them"
    assert bench.asked() == (0, 0, 0)


def test_evaluating_a_run_on_its_own_test_split_asks_nothing_again(finished):
    run = finished.first
    found = finished.evaluate(run)
    assert finished.asked()[:2] == (0, 0)
    assert finished.heard.expected == [0]
    assert found == tuple(one for one in run.evaluations if one.system != "untrained")


@pytest.mark.parametrize("split", ["train", "dev"])
def test_a_student_is_not_scored_on_what_it_was_trained_on(finished, split):
    run = finished.first
    with pytest.raises(OverlapError) as told:
        finished.evaluate(run, split=split)
    size = run.split_sizes[split]
    assert str(told.value).startswith(f"run {run.id}, split {split}: {size} of {size} questions were in")
    assert "\n" not in str(told.value)
    assert finished.asked()[:2] == (0, 0)


@pytest.fixture
def elsewhere(tmp_path):
    """Write a recipe about other questions, and return it."""

    def elsewhere(*, labels=("yes", "no", "maybe"), **settings):
        questions, recipe = tmp_path / "elsewhere.jsonl", tmp_path / "elsewhere.yaml"
        write_questions(questions, labels=labels, **settings)
        text = questions.read_text(encoding="utf-8").replace("treatment", "remedy")
        questions.write_text(text, encoding="utf-8")
        write_recipe(recipe, questions, labels=labels, more="student: another\nseed: 7\n")
        return read_recipe(recipe, [FAST]).recipe

    return elsewhere


def test_a_run_is_evaluated_on_another_recipe_s_questions_with_its_own_student_once(finished, elsewhere):
    run = finished.first
    found = finished.evaluate(run, split="dev", on=elsewhere(dev=9))
    assert accuracies(found) == {"majority": 3 / 9, "prior": 3 / 9, "fine-tuned": 1}
    assert finished.asked()[:2] == (0, 9)
    assert finished.heard.expected == [9]
    assert finished.evaluate(run, split="dev", on=elsewhere(dev=9)) == found
    assert finished.asked()[:2] == (0, 0)


def test_another_recipe_s_copy_of_a_training_question_is_refused(finished, elsewhere):
    run = finished.first
    copied = {"id": "c", "question": "DOES treatment 0 of train  help?", "context": "In train, treatment 0 was given."}
    other = elsewhere()
    with other.data.path.open("a", encoding="utf-8") as file:
        file.write(json.dumps({**copied, "label": "yes", "split": "test"}) + "\n")
    with pytest.raises(OverlapError, match=r"1 of 13 questions were in .* the first is c"):
        finished.evaluate(run, on=other)


def test_questions_with_other_labels_are_refused(finished, elsewhere):
    run = finished.first
    with pytest.raises(DataError) as told:
        finished.evaluate(run, on=elsewhere(labels=("true", "false")))
    assert str(told.value) == (
        f"run {run.id} answers yes, no, maybe, the questions want true, false; choose questions with the same labels"
    )


def test_one_question_can_be_asked_of_a_finished_run(finished):
    run = finished.first
    finished.script.asked.clear()
    answer = afterwards.ask(run, "Does it help?", "It does.", which=WhichCell(), store=finished.store)
    assert answer.choice == "yes"
    assert finished.script.asked == [("fine-tuned", "Does it help?")]


@pytest.mark.parametrize("question", ["", " \n"])
def test_an_empty_question_is_refused(finished, question):
    run = finished.first
    with pytest.raises(DataError, match="the question is empty"):
        afterwards.ask(run, question, "context", which=WhichCell(), store=finished.store)


def test_a_run_whose_adapter_is_gone_says_so(bench):
    run = bench.run()
    (folder,) = (bench.store.root / step.folder for step in run.steps if step.stage == "finetune")
    folder.rename(folder.with_name("elsewhere"))
    with pytest.raises(StoreError, match="no folder for its step 'finetune' any more; run its recipe again"):
        afterwards.ask(run, "Does it help?", "", which=WhichCell(), store=bench.store)


def test_own_questions_need_a_task(bench):
    with pytest.raises(RecipeError, match=r"data\.jsonl needs task\.labels"):
        bench.run("task=null")


@pytest.mark.parametrize("kind", plugins.SOURCES)
def test_every_kind_of_source_leads_to_a_class(kind):
    assert callable(plugins.load(plugins.SOURCES[kind]))


def test_a_part_whose_package_is_missing_is_told_with_the_command_that_brings_it(tmp_path, monkeypatch):
    (tmp_path / "a_part.py").write_text("import no_such_package\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingExtra, match=r"no_such_package isn't installed; pip install 'drllama\[train\]'"):
        plugins.load("a_part:Part")


def test_a_missing_module_of_our_own_is_a_bug_and_not_a_missing_package():
    with pytest.raises(ModuleNotFoundError, match=r"drllama\.no_such_part"):
        plugins.load("drllama.no_such_part:Part")


def test_the_environment_is_all_texts_and_names_what_numbers_depend_on():
    found = environment()
    assert {"commit", "python", "platform", "processor", "cores", "torch", "numpy"} <= set(found)
    assert all(isinstance(value, str) and value for value in found.values())


def test_the_commit_of_somebody_else_s_checkout_is_not_ours(tmp_path, monkeypatch):
    for command in (
        ["init", "-q"],
        ["-c", "user.name=x", "-c", "user.email=x", "commit", "-q", "--allow-empty", "-m", "x"],
    ):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    (tmp_path / "environment.py").write_text("")
    monkeypatch.setattr(environment_module, "__file__", str(tmp_path / "environment.py"))
    assert environment()["commit"] == "unknown"
    subprocess.run(["git", "add", "environment.py"], cwd=tmp_path, check=True)
    assert len(environment()["commit"].split()[0]) == 40


def test_the_untrained_student_s_answers_depend_on_the_cache_s_numbers_beside_alora_alone(bench):
    run, asked = make_run()

    def key(method, dtype):
        settings = {"student": {"model": "tiny", "frozen_cache": {"dtype": dtype}}, "finetune": {"method": method}}
        recipe = Recipe.model_validate({"name": "keys", "data": {"jsonl": {"path": "none.jsonl"}}, **settings})
        steps = Steps(recipe, Splits(train=(), dev=(), test=()), run.task, run.student, bench.store)
        return steps.score_key(list(asked.values()))

    assert key("alora", "float16") != key("alora", "float32")
    assert key("lora", "float16") == key("lora", "float32")
