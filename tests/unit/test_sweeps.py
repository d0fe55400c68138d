"""Many settings of one recipe: what is tried, what is kept, how it is judged, and what is shown of it."""

import json
import math
from pathlib import Path

import pytest
from scipy.stats import t as students_t

from drllama import pipeline, plugins, sweeps
from drllama.errors import DataError, RecipeError
from drllama.replies import RequestStore
from drllama.report.sensitivity import sensitivities, sensitivity_picture
from drllama.stats import over_seeds
from drllama.store import Store
from drllama.sweeps.trainings import parts_of
from drllama.teaching import Limits
from drllama.types import Example, Original, Splits
from scripted_student import Script, write_questions, write_recipe

ALPHA = "finetune.method.lora.alpha"
RATE = "finetune.learning_rate"


class Silent:
    def expect(self, units):
        """Hear nothing."""

    def work(self, activity, units=0):
        """Hear nothing."""

    def __init__(self):
        self.lines = []

    def tell(self, line):
        self.lines.append(line)


def nats(settings, seed, epoch):
    """Alpha 64 is best, more so from epoch to epoch; seeds differ a little."""
    return abs(math.log2(settings.method.alpha / 64)) + 1 / epoch + seed % 7 / 100


class Bench:
    def __init__(self, folder):
        write_questions(folder / "questions.jsonl")
        write_recipe(folder / "recipe.yaml", folder / "questions.jsonl", more="evaluate: {bootstrap_samples: 100}\n")
        self.folder, self.store, self.script, self.students = folder, Store(folder / "runs"), Script(dev_of=nats), 0

    def make_student(self, recipe, task):
        self.students += 1
        return self.script.make_student(recipe, task)

    def request(self, **asked):
        path = self.folder / "recipe.yaml"
        return sweeps.checked(sweeps.SweepRequest(path=path, text=path.read_text(), **asked))

    def sweep(self, **asked):
        self.script.taught.clear()
        return self.carried_out(self.request(**asked), Silent())

    def carried_out(self, request, progress):
        with RequestStore(self.store.root / "replies.sqlite") as replies:
            kept = pipeline.Kept(store=self.store, replies=replies)
            return sweeps.sweep(request, kept=kept, progress=progress)


@pytest.fixture
def bench(tmp_path, monkeypatch):
    bench = Bench(tmp_path)
    monkeypatch.setattr(plugins, "make_student", bench.make_student)
    return bench


def alphas(sweep):
    return [point.settings[ALPHA] for point in sweep.points]


# What is tried


def test_several_grids_make_a_product_each_point_trained_with_each_seed_by_one_student(bench):
    sweep = bench.sweep(grid=(f"{ALPHA}=16,64,256", "finetune.class_weights=none,balanced"), seeds=3)
    assert [tuple(point.settings.values()) for point in sweep.points] == [
        (alpha, weights) for alpha in (16, 64, 256) for weights in ("none", "balanced")
    ]
    assert len(bench.script.taught) == 6 * 3
    assert bench.students == 1
    best = sweep.points[sweep.best]
    assert best.settings == {ALPHA: 64, "finetune.class_weights": "none"}
    assert [one.seed for one in best.trainings] == [1, 2, 3]
    assert best.nll.value == pytest.approx(sum(best.nll.each) / 3)
    assert best.nll.low < best.nll.value < best.nll.high


def test_a_setting_of_the_student_makes_each_student_once(bench):
    sweep = bench.sweep(grid=(f"{ALPHA}=16,64", "student.max_tokens=64,128"), seeds=2)
    assert bench.students == 2
    assert [tuple(point.settings.values()) for point in sweep.points] == [(16, 64), (16, 128), (64, 64), (64, 128)]


def test_what_another_process_trains_is_waited_for_when_nothing_else_is_left(bench, monkeypatch):
    shared, taken, heard = Store.shared, [], []

    def with_another(store, what, keys, *, on_wait):
        taken[:] = taken or keys[:1]
        return (at for at in shared(store, what, keys, on_wait=on_wait) if on_wait or keys[at] not in taken)

    monkeypatch.setattr(Store, "shared", with_another)
    monkeypatch.setattr(Silent, "work", lambda self, activity, units=0: heard.append(activity))
    sweep = bench.sweep(grid=("student.max_tokens=64,128",), seeds=2)
    told = dict.fromkeys(activity.partition(":")[0] for activity in heard if activity.startswith("setting"))
    assert list(told) == [
        "setting 1 of 2, seed 2 of 2",
        "setting 2 of 2, seed 1 of 2",
        "setting 2 of 2, seed 2 of 2",
        "setting 1 of 2, seed 1 of 2",
    ]
    assert [len(point.trainings) for point in sweep.points] == [2, 2]


def test_what_is_finished_is_not_trained_again_and_a_stopped_sweep_goes_on(bench):
    def stop_at_the_fourth(settings, seed, epoch):
        if len(bench.script.taught) == 4:
            raise KeyboardInterrupt
        return nats(settings, seed, epoch)

    grid = (f"{ALPHA}=16,64,256",)
    bench.script.dev_of = stop_at_the_fourth
    with pytest.raises(KeyboardInterrupt):
        bench.sweep(grid=grid, seeds=2)
    bench.script.dev_of = nats
    whole = bench.sweep(grid=grid, seeds=2)
    assert len(bench.script.taught) == 6 - 3
    again = bench.sweep(grid=grid, seeds=2)
    assert bench.script.taught == []
    assert again.points == whole.points
    more = bench.sweep(grid=(f"{ALPHA}=16,64,256,512",), seeds=3)
    assert len(bench.script.taught) == 3 + 3, "a third seed of three points, and all of the fourth"
    assert more.points[1].trainings[:2] == whole.points[1].trainings


def test_the_command_for_the_best_point_finds_its_training_done(bench):
    sweep = bench.sweep(grid=(f"{ALPHA}=16,64",), seeds=2, assignments=("finetune.epochs=2",))
    path = bench.folder / "recipe.yaml"
    assert sweep.run_best == f"drllama run {path} --set finetune.epochs=2 --set seeds=2 --set {ALPHA}=64"
    recipe = bench.request(grid=(f"{ALPHA}=16,64",), seeds=2, assignments=("finetune.epochs=2",)).recipe({ALPHA: 64})
    bench.script.taught.clear()
    with RequestStore(bench.store.root / "replies.sqlite") as replies:
        kept = pipeline.Kept(store=bench.store, replies=replies)
        pipeline.run(recipe, kept=kept, limits=Limits(), progress=Silent(), command=sweep.run_best)
    assert bench.script.taught == []


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({}, "varies settings by --grid or by --search"),
        ({"grid": (f"{ALPHA}=1",), "search": (f"{RATE}=1e-4..1e-2",)}, "one of the two"),
        ({"grid": (ALPHA,)}, "write it as SETTING=VALUES"),
        ({"grid": (f"{ALPHA}=16,16",)}, "16 stands there twice"),
        ({"grid": (f"{ALPHA}=16", f"{ALPHA}=64")}, "is swept twice"),
        ({"grid": (f"{ALPHA}=16,-1",)}, f"{ALPHA} is -1"),
        ({"grid": ("finetune.lr=1e-3,1e-2",)}, "did you mean 'finetune.learning_rate'"),
        ({"grid": ("data.jsonl.limit.train=10,20",)}, "'data.jsonl.limit.train' can't be swept"),
        ({"grid": ("seed=1,2",)}, "for several seeds give --seeds N"),
        ({"search": (f"{RATE}=1e-2..1e-4",)}, "write a range as LOW..HIGH"),
        ({"search": (f"{RATE}=0..1e-4",)}, f"{RATE} is 0"),
        ({"grid": (f"{ALPHA}=16,64",), "trials": 5}, "--trials is for --search"),
        ({"grid": (f"{ALPHA}=16,64",), "halving": True, "assignments": ("finetune.epochs=1",)}, "finetune.epochs is 1"),
    ],
)
def test_what_cannot_be_swept_is_refused_in_one_line_before_anything_is_read(bench, asked, told):
    with pytest.raises(RecipeError) as error:
        bench.request(**asked)
    assert told in str(error.value)
    assert len(str(error.value).splitlines()) == 1
    assert bench.students == 0


# How it is judged


def test_no_test_question_reaches_a_sweep(bench):
    bench.sweep(grid=(f"{ALPHA}=16,64",))
    assert bench.script.asked == []
    assert not [question for taught in bench.script.taught for question in taught if "of test" in question]
    bench.sweep(grid=(f"{ALPHA}=16,64",), folds=3)
    assert not [question for taught in bench.script.taught for question in taught if "of test" in question]


def split_of(sizes, split):
    """Return as many examples for each document as its size says."""
    origin = Original(source="s", source_id="i")
    return tuple(
        Example(question=f"{split} {group} {at}?", context="", label="yes", split=split, group=group, origin=origin)
        for group, size in sizes.items()
        for at in range(size)
    )


def test_folds_leave_each_example_of_train_and_dev_out_once_documents_whole():
    train, dev = split_of({"a": 3, "b": 2, "c": 1}, "train"), split_of({"d": 2, "e": 1}, "dev")
    parts = parts_of(Splits(train=train, dev=dev, test=split_of({"f": 4}, "test")), folds=3)
    judged = [one for part in parts for one in part.splits.dev]
    assert sorted(one.question for one in judged) == sorted(one.question for one in (*train, *dev))
    for part in parts:
        assert part.splits.test == ()
        assert {one.group for one in part.splits.train}.isdisjoint(one.group for one in part.splits.dev)
        assert len(part.splits.train) + len(part.splits.dev) == 9
    with pytest.raises(DataError, match="--folds 6: 5 documents"):
        parts_of(Splits(train=train, dev=dev, test=()), folds=6)
    with pytest.raises(DataError, match="give --folds 5"):
        parts_of(Splits(train=train, dev=(), test=()), folds=None)


def test_folds_count_by_their_size_and_seeds_make_the_interval(bench):
    sweep = bench.sweep(grid=(f"{ALPHA}=16,64",), folds=4, seeds=2)
    assert len(bench.script.taught) == 2 * 2 * 4
    point = sweep.points[0]
    first = [one for one in point.trainings if one.seed == 1]
    assert sum(one.num_judged for one in first) == 24 + 6
    wanted = sum(one.epochs[one.chosen_epoch - 1].dev_nll_nats * one.num_judged for one in first) / 30
    assert point.nll.each[0] == pytest.approx(wanted)
    assert len(point.nll.each) == 2


@pytest.mark.parametrize("each", [(0.6, 0.7), (0.61, 0.6, 0.64), (0.2, 0.3, 0.25, 0.21, 0.35)])
def test_the_interval_over_seeds_is_student_s(each):
    found = over_seeds(each, level=0.9, lowest=-math.inf)
    mean, error = sum(each) / len(each), students_t.ppf(0.95, len(each) - 1)
    error *= (sum((one - mean) ** 2 for one in each) / (len(each) - 1) / len(each)) ** 0.5
    assert (found.value, found.low, found.high) == pytest.approx((mean, mean - error, mean + error))


def test_one_seed_has_no_interval_and_a_share_ends_at_1():
    assert (over_seeds([0.5], level=0.95).low, over_seeds([0.5], level=0.95).high) == (None, None)
    assert over_seeds([0.9, 1.0], level=0.95, highest=1.0).high == 1.0


# Halving


def test_halving_gives_up_the_worse_half_after_each_epoch(bench):
    sweep = bench.sweep(grid=(f"{ALPHA}=1,16,64,256,1024",), halving=True, seeds=2)
    assert dict(zip(alphas(sweep), [point.stopped_after for point in sweep.points], strict=True)) == {
        1: 1,
        16: None,
        64: None,
        256: 2,
        1024: 1,
    }, "of equals the first goes on"
    assert [len(point.trainings[0].epochs) for point in sweep.points] == [1, 3, 3, 2, 1]
    assert sweep.points[sweep.best].settings == {ALPHA: 64}
    told = (bench.store.sweep_folder(sweep.id) / "sweep.md").read_text()
    assert told.count("given up after epoch 1") == 2
    again = bench.sweep(grid=(f"{ALPHA}=1,16,64,256,1024",), halving=True, seeds=2)
    assert (again.points, bench.script.taught) == (sweep.points, [])


def test_a_student_that_stacks_trains_all_points_and_seeds_at_once_and_what_goes_on_after_halving(bench, tmp_path):
    asked = {"grid": (f"{ALPHA}=16,32,64,128",), "seeds": 2, "halving": True}
    alone = bench.sweep(**asked)
    bench.store, bench.script.together = Store(tmp_path / "other runs"), []
    together = bench.sweep(**asked)
    assert [len(stack) for stack in bench.script.together] == [8, 4, 2]
    assert set(bench.script.together[2]) < set(bench.script.together[1]) < set(bench.script.together[0])
    assert [point.nll for point in together.points] == [point.nll for point in alone.points]


def test_a_halved_sweep_that_is_stopped_gives_up_the_same_points(bench):
    grid = (f"{ALPHA}=1,16,64,256",)
    wanted = bench.sweep(grid=grid, halving=True)
    bench.store = Store(bench.folder / "again")
    for stop in (2, 3):

        def interrupted(settings, seed, epoch, stop=stop):
            if len(bench.script.taught) == stop:
                raise KeyboardInterrupt
            return nats(settings, seed, epoch)

        bench.script.dev_of = interrupted
        with pytest.raises(KeyboardInterrupt):
            bench.sweep(grid=grid, halving=True)
    bench.script.dev_of = nats
    found = bench.sweep(grid=grid, halving=True)
    assert [(one.settings, one.stopped_after, one.nll) for one in found.points] == [
        (one.settings, one.stopped_after, one.nll) for one in wanted.points
    ]


# Searching


def test_a_search_draws_within_its_ranges_whole_where_the_setting_is_whole(bench):
    search = (f"{ALPHA}=1..1024", "finetune.method.lora.rank=1..4", "finetune.class_weights=none,balanced")
    sweep = bench.sweep(search=search, trials=12)
    assert 2 <= len(sweep.points) <= 12
    drawn = [tuple(point.settings.values()) for point in sweep.points]
    assert all(1 <= alpha <= 1024 and float(f"{alpha:.4g}") == alpha for alpha, _, _ in drawn)
    assert {type(rank) for _, rank, _ in drawn} == {int}
    assert {rank for _, rank, _ in drawn} <= {1, 2, 3, 4}
    assert {weights for _, _, weights in drawn} == {"none", "balanced"}
    assert sum(alpha < 32 for alpha, _, _ in drawn) >= 2, "evenly over the logarithm"


def test_a_search_is_made_again_from_what_is_finished(bench):
    search = (f"{ALPHA}=1..1024",)
    first = bench.sweep(search=search, trials=4)
    more = bench.sweep(search=search, trials=6)
    assert len(bench.script.taught) == 2
    assert more.points[:4] == first.points
    assert alphas(bench.sweep(search=search, trials=4, assignments=("seed=1",))) != alphas(first)


def test_a_search_with_halving_stops_points_that_are_behind(bench):
    sweep = bench.sweep(search=(f"{ALPHA}=1..1024",), trials=10, halving=True)
    stopped = [point.stopped_after for point in sweep.points]
    assert 0 < sum(after is not None for after in stopped) < len(stopped)
    assert stopped[sweep.best] is None
    again = bench.sweep(search=(f"{ALPHA}=1..1024",), trials=10, halving=True)
    assert (again.points, bench.script.taught) == (sweep.points, [])


# What is shown


def test_the_report_has_a_figure_for_each_metric_and_the_numbers_for_programs(bench):
    sweep = bench.sweep(grid=(f"{ALPHA}=16,64,256",), seeds=2)
    folder = bench.store.sweep_folder(sweep.id)
    html, stored = (folder / "sweep.html").read_text(), json.loads((folder / "sweep.json").read_text())
    assert html.count("<svg") == 2
    assert "<script" not in html
    assert (stored["format"], stored["best"], len(stored["points"])) == (1, 1, 3)
    assert stored["points"][0]["settings"] == {ALPHA: 16}
    assert sweep.run_best in (folder / "sweep.md").read_text()
    assert "The test split wasn&#39;t read" in html


def test_factors_stand_evenly_on_the_axis_and_whiskers_span_the_intervals(bench):
    sweep = bench.sweep(grid=(f"{ALPHA}=256,16,64",), seeds=3)
    accuracy, _ = map(sensitivity_picture, sensitivities(sweep))
    (line,) = accuracy.lines
    assert [tick.text for tick in accuracy.x_ticks] == ["16", "64", "256"]
    left, middle, right = (mark.x for mark in line.marks)
    assert middle - left == pytest.approx(right - middle)
    for mark in line.marks:
        assert accuracy.top <= mark.high_y <= mark.y <= mark.low_y <= accuracy.bottom
        assert len(mark.seeds_y) == 3


def test_a_second_setting_makes_a_line_for_each_of_its_values(bench):
    sweep = bench.sweep(grid=(f"{ALPHA}=16,64", "finetune.class_weights=none,balanced"))
    pictures = [sensitivity_picture(one) for one in sensitivities(sweep)]
    assert [(one.y_title, one.x_title) for one in pictures] == [
        (metric, path) for path in (ALPHA, "finetune.class_weights") for metric in ("accuracy", "macro-F1")
    ]
    assert [line.name for line in pictures[0].lines] == ["class_weights none", "class_weights balanced"]
    assert all(len(line.marks) == 2 and line.points for line in pictures[0].lines)
    names = [line.name_y for line in pictures[0].lines]
    assert abs(names[0] - names[1]) >= 14, "names don't stand on each other"


@pytest.mark.parametrize(
    ("more", "share"), [({}, 1), ({"halving": True}, (4 + 2 + 1) / (4 * 3))], ids=["whole", "halved"]
)
def test_a_sweep_says_once_what_it_takes(bench, more, share):
    progress, request = Silent(), bench.request(grid=(f"{ALPHA}=1,16,64,256",), seeds=5, **more)
    bench.carried_out(request, progress)
    minutes = round(4 * 5 * 24 * 3 * share / 60)
    assert progress.lines == [f"about {minutes} minutes ahead, about 1.0 GiB of memory"]


def test_the_recipe_is_read_once(bench):
    request = bench.request(grid=(f"{ALPHA}=16,64",))
    Path(request.path).write_text("not: a recipe")
    assert bench.carried_out(request, Silent()).points[0].settings == {ALPHA: 16}


def test_published_results_over_the_same_setting_are_drawn_as_diamonds_of_their_own(bench):
    paper = Path(__file__).parents[2] / "experiments" / "paper" / "published.json"
    wanted = (f"report.reference={paper}", "report.reference_student=BioGPT-Large")
    found = bench.sweep(grid=(f"{ALPHA}=32,64",), assignments=wanted)
    page = (bench.store.sweep_folder(found.id) / "sweep.html").read_text(encoding="utf-8")
    assert page.count('class="published"') == 2 * 6  # accuracy and macro-F1 over six values of alpha
    assert "BioGPT-Large, published: 0.550" in page
    assert "arXiv 2305.07804" in page
    assert "published" not in json.loads((bench.store.sweep_folder(found.id) / "sweep.json").read_text())
