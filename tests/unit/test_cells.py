"""Many students from one recipe: arms, doses and seeds; each a cell whose file another machine takes as done."""

import json

import pytest

from bench import RecordedBench
from drllama import afterwards, plugins
from drllama.afterwards import WhichCell
from drllama.errors import DataError, StoreError, TimeUp
from drllama.recipe import Augment, Finetune
from drllama.stages.arms import Stock, arms_of, rows_of
from drllama.types import ArmName, Candidate, Example, Original, Synthetic, Votes

ARMS = "augment.arms=[none, rewrite, new, combined, synthetic-only, duplicate-real, eda]"
TWO_ARMS = "augment.arms=[none, combined]"


def make_bench(folder, monkeypatch):
    folder.mkdir(exist_ok=True)
    bench = RecordedBench(folder)
    monkeypatch.setattr(plugins, "make_student", bench.script.make_student)
    return bench


@pytest.fixture
def bench(tmp_path, monkeypatch):
    return make_bench(tmp_path / "here", monkeypatch)


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """Return a bench with the same questions and replies, and nothing in its store."""

    def elsewhere():
        return make_bench(tmp_path / "elsewhere", monkeypatch)

    return elsewhere


# Which rows


def test_one_recipe_makes_all_arms_and_controls_of_equal_length(bench):
    run = bench.run(ARMS)
    assert [(arm.id, arm.num_real, arm.num_extra) for arm in run.arms] == [
        ("none", 4, 0),
        ("rewrite", 4, 4),
        ("new", 4, 8),
        ("combined", 4, 12),
        ("synthetic-only", 0, 12),
        ("duplicate-real", 4, 12),
        ("eda", 4, 12),
    ]
    trained = dict(zip((arm.id for arm in run.arms), bench.script.lessons, strict=True))
    real = {row.example.id for row in trained["none"]}
    assert {row.example.id for row in trained["duplicate-real"]} == real
    assert not real & {row.example.id for row in trained["synthetic-only"]}
    assert real < {row.example.id for row in trained["eda"]}
    assert {row.weight for rows in trained.values() for row in rows} == {1.0}
    assert len({cell.finetuned.num_steps for cell in run.cells}) == 1
    assert run.leaks.num_synthetic == 12


def test_seeds_pair_the_arms_and_a_seed_is_whole_before_the_next_begins(bench):
    run = bench.run("seeds=3", TWO_ARMS)
    assert [(cell.seed, cell.arm) for cell in run.cells] == [
        (seed, arm) for seed in (1, 2, 3) for arm in ("none", "combined")
    ]
    first, second, *_ = pairs = list(zip(bench.script.seeds[::2], bench.script.seeds[1::2], strict=True))
    assert all(one == other for one, other in pairs)
    assert first != second
    assert len(set(pairs)) == 3
    assert [one.seeds for one in run.summaries] == [(1, 2, 3)] * 2
    (effect,) = run.effects
    assert (effect.arm, effect.baseline) == ("fine-tuned + both", "fine-tuned")
    assert run.conclusion.finding == "no evidence either way"
    assert run.conclusion.sentence in (bench.store.root / run.id / "report.md").read_text(encoding="utf-8")


def stock_of(number=20, *, votes=None):
    def example(name, origin, label="yes"):
        return Example(question=f"{name}?", context="", label=label, split="train", group=name, origin=origin)

    written = [
        Candidate(
            example=example(f"w{at}", Synthetic(method="new", parents=(), call=f"{at:016}", place=0)),
            prompt="new.v1",
            rollout=0,
        )
        for at in range(number)
    ]
    train = tuple(example(f"t{at}", Original(source="s", source_id=f"t{at}")) for at in range(10))
    return Stock(train=train, kept=tuple(written), seed=1, votes={one.id: votes for one in written} if votes else {})


def test_a_smaller_dose_lies_within_a_larger_one_whatever_the_seed():
    stock = stock_of()
    arms = arms_of(Augment(arms=("new",), doses=(0.25, 0.5, 1.0)), Finetune(), stock)
    assert [(arm.id, arm.num_extra) for arm in arms] == [("new-0.25", 5), ("new-0.5", 10), ("new", 20)]
    drawn = []
    for seed in (1, 2):
        small, middle, whole = (
            {row.example.id for row in rows_of(arm, stock, Finetune(), seed=seed)[1.0]} for arm in arms
        )
        assert small < middle < whole
        drawn.append(small)
    assert drawn[0] != drawn[1], "the luck of the draw is part of what the seeds differ in"


def test_equal_epochs_stand_beside_equal_updates(bench):
    run = bench.run("augment.equal=[updates, epochs]", TWO_ARMS, "finetune.batch_size=2")
    assert [(cell.arm, cell.finetuned.num_steps) for cell in run.cells] == [
        ("none", 3 * 2),
        ("combined", 3 * 2),
        ("combined-epochs", 3 * 8),
    ]
    assert [(one.arm, one.baseline) for one in run.effects] == [
        ("fine-tuned + both", "fine-tuned"),
        ("fine-tuned + both, equal epochs", "fine-tuned"),
    ]


def test_updates_are_those_that_the_recipe_names_for_every_arm(bench):
    run = bench.run("finetune.updates=10", "augment.equal=[updates, epochs]", TWO_ARMS, "finetune.batch_size=4")
    assert {cell.arm: cell.finetuned.num_steps for cell in run.cells} == {
        "none": 12,
        "combined": 12,
        "none-epochs": 3,
        "combined-epochs": 12,
    }


def test_an_arm_with_nothing_to_train_on_is_refused(bench):
    bench.record([{"id": "dev0", "answer": "yes"}, {"id": "train0", "rewrite": {"question": "", "long_answer": "a"}}])
    with pytest.raises(DataError, match="arm synthetic-only has nothing to train on"):
        bench.run("augment.arms=[none, synthetic-only]")
    assert bench.script.trainings == 0


# What rows weigh


def test_rows_beside_the_real_ones_weigh_what_the_recipe_says(bench):
    run = bench.run("finetune.synthetic_weight=0.25", "augment.arms=[none, combined, duplicate-real]")
    for rows in bench.script.lessons[1:]:
        assert [row.weight for row in rows] == [1.0] * 4 + [0.25] * 12
    assert [cell.synthetic_weight for cell in run.cells] == [1.0, 0.25, 0.25]
    assert all(cell.weights_on_dev == {} for cell in run.cells)


def test_a_weight_is_learned_on_dev_by_training_with_each(bench):
    bench.script.dev_nats = [0.5, 0.4, 0.2, 0.3]
    run = bench.run("finetune.synthetic_weight=learned", TWO_ARMS)
    none, combined = run.cells
    assert (none.synthetic_weight, none.weights_on_dev) == (1.0, {})
    assert combined.weights_on_dev == {"1": -0.4, "0.5": -0.2, "0.25": -0.3}
    assert (combined.synthetic_weight, combined.on_dev) == (0.5, -0.2)
    assert "synthetic_weight of combined, seed 1" in {choice.what for choice in run.choices}
    assert len(bench.script.questions_asked_of("fine-tuned")) == 2 * 12, (
        "those that weren't chosen saw no test question"
    )


def test_votes_become_soft_labels_where_there_are_some():
    asked = stock_of(votes=Votes(counts={"yes": 2, "no": 1, "maybe": 0}, num_unparsed=3, num_failed=0))
    silent = stock_of(votes=Votes(counts={"yes": 0, "no": 0}, num_unparsed=3, num_failed=0))
    soft = Finetune(soft_labels="votes")
    for stock, settings, target in [
        (asked, soft, {"yes": pytest.approx(2 / 3), "no": pytest.approx(1 / 3)}),
        (asked, Finetune(), None),
        (silent, soft, None),
        (stock_of(), soft, None),
    ]:
        (arm,) = arms_of(Augment(arms=(ArmName.NEW,)), settings, stock)
        rows = rows_of(arm, stock, settings, seed=1)[1.0]
        assert [row.target for row in rows] == [None] * 10 + [target] * 20


# Files that outlive a machine


def test_cells_of_another_machine_are_taken_as_done_and_give_the_same_numbers(bench, elsewhere, tmp_path):
    cells = tmp_path / "cells"
    first = bench.run("seeds=2", TWO_ARMS, cells=cells)
    files = sorted(path.name.rpartition("-")[0] for path in cells.iterdir())
    assert files == ["combined-seed1", "combined-seed2", "none-seed1", "none-seed2"]
    there = elsewhere()
    there.script.device = "cuda, some GPU"
    second = there.run("seeds=2", TWO_ARMS, cells=cells)
    assert there.script.trainings == 0
    assert set(there.script.questions_asked_of("fine-tuned")) == set()
    assert all(cell.brought for cell in second.cells)
    assert [cell.evaluation for cell in second.cells] == [cell.evaluation for cell in first.cells]
    assert (second.effects, second.summaries) == (first.effects, first.summaries)
    assert {cell.ran.device for cell in second.cells} == {"cpu, 2 threads"}
    report = (there.store.root / second.id / "report.md").read_text(encoding="utf-8")
    assert "4 of 4 students" in report
    with pytest.raises(StoreError, match=r"trained elsewhere .* its adapter isn't on this machine"):
        afterwards.ask(second, "Does it help?", "", which=WhichCell(), store=there.store)


def test_a_machine_goes_on_with_the_cells_that_are_missing(bench, elsewhere, tmp_path):
    cells = tmp_path / "cells"
    bench.run(TWO_ARMS, cells=cells)
    next(cells.glob("combined-*")).unlink()
    there = elsewhere()
    run = there.run(TWO_ARMS, cells=cells)
    assert there.script.trainings == 1
    assert [(cell.arm, cell.brought) for cell in run.cells] == [("none", True), ("combined", False)]
    assert len(list(cells.iterdir())) == 2
    answer = afterwards.ask(run, "Does it help?", "", which=WhichCell(arm="combined"), store=there.store)
    assert answer.choice == "yes"


@pytest.mark.parametrize("assignment", ["finetune.learning_rate=0.5", "student.max_tokens=64", "seed=7"])
def test_cells_of_other_settings_are_not_taken(bench, elsewhere, tmp_path, assignment):
    bench.run(TWO_ARMS, cells=tmp_path / "cells")
    there = elsewhere()
    there.run(TWO_ARMS, assignment, cells=tmp_path / "cells")
    assert there.script.trainings == 2


def test_a_finished_run_writes_the_cells_that_its_folder_lacks(bench, tmp_path):
    first = bench.run(TWO_ARMS)
    assert bench.run(TWO_ARMS, cells=tmp_path / "cells").cells == first.cells
    assert len(list((tmp_path / "cells").iterdir())) == 2
    assert bench.script.trainings == 2


@pytest.mark.parametrize(
    "spoil", [lambda told: told[:-40], lambda told: "[]", lambda told: told.replace('"no"', '"nope"', 1)]
)
def test_a_spoilt_cell_is_told_in_one_line(bench, elsewhere, tmp_path, spoil):
    bench.run(TWO_ARMS, cells=tmp_path / "cells")
    path = next((tmp_path / "cells").glob("none-*"))
    path.write_text(spoil(path.read_text(encoding="utf-8")), encoding="utf-8")
    with pytest.raises(StoreError, match="can't be read as a finished cell; delete it") as told:
        elsewhere().run(TWO_ARMS, cells=tmp_path / "cells")
    assert str(path) in str(told.value)


def test_a_cell_of_another_format_names_both(bench, elsewhere, tmp_path):
    bench.run(TWO_ARMS, cells=tmp_path / "cells")
    path = next((tmp_path / "cells").glob("none-*"))
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), "format": 99}), encoding="utf-8")
    with pytest.raises(StoreError, match="has format 99, this drllama reads 1"):
        elsewhere().run(TWO_ARMS, cells=tmp_path / "cells")


# A sitting that ends before the work


class Hours:
    """A clock that is an hour later after so many trainings; it stands for ``time`` in a module."""

    def __init__(self, script, trainings):
        self._script, self._trainings = script, trainings

    def monotonic(self):
        return 3600.0 * (self._script.trainings > self._trainings)


def test_when_the_time_is_up_the_run_holds_what_is_finished_and_the_next_call_goes_on(bench, monkeypatch, tmp_path):
    monkeypatch.setattr("drllama.progress.time", Hours(bench.script, 2))
    part = bench.run("seeds=2", TWO_ARMS, minutes=30, cells=tmp_path / "cells")
    assert ([(cell.arm, cell.seed) for cell in part.cells], part.num_unfinished) == ([("none", 1), ("combined", 1)], 2)
    assert [one.seeds for one in part.summaries] == [(1,), (1,)]
    assert "2 students of 4 are still to be trained" in (bench.store.root / part.id / "report.md").read_text()
    monkeypatch.undo()
    monkeypatch.setattr(plugins, "make_student", bench.script.make_student)
    whole = bench.run("seeds=2", TWO_ARMS, cells=tmp_path / "cells")
    assert (whole.id, len(whole.cells), whole.num_unfinished) == (part.id, 4, 0)
    assert bench.script.trainings == 5, "the training that was cut short begins again"


def test_when_the_time_is_up_before_anything_is_finished_it_is_told(bench, monkeypatch):
    monkeypatch.setattr("drllama.progress.time", Hours(bench.script, 0))
    with pytest.raises(TimeUp, match=r"30 minutes are over .* the same command goes on from here"):
        bench.run(minutes=30)
    assert bench.store.runs() == []


# What was looked at


def test_the_manifest_tells_who_read_the_test_questions_and_that_choices_are_dev_s(bench):
    run = bench.run("seeds=2", TWO_ARMS)
    assert [one.system for one in run.readings] == [
        "untrained",
        *(cell.evaluation.system for cell in run.cells),
    ]
    assert len({one.step for one in run.readings}) == 5, "each is one step, worked out once"
    assert {one.num_questions for one in run.readings} == {12}
    steps = {step.key: step for step in run.steps}
    assert all(one.at == steps[one.step].finished_at for one in run.readings)
    assert {choice.split for choice in run.choices} == {"dev"}
    assert [choice.what for choice in run.choices] == [
        *(f"epoch of {cell.arm}, seed {cell.seed}" for cell in run.cells),
        "arm",
    ]
    for cell in run.cells:
        depends_on = json.loads((bench.store.root / cell.adapter.folder / "depends_on.json").read_text())
        assert set(depends_on) >= {"train", "dev"}
        assert "asked" not in depends_on, "training depends on no test question"
    assert bench.script.questions_asked_of("fine-tuned").count("Does treatment 0 of test help?") == 4


def test_a_student_is_named_by_arm_and_seed(bench):
    run = bench.run("seeds=2", TWO_ARMS)
    answer = afterwards.ask(run, "Does it help?", "", which=WhichCell(arm="none", seed=2), store=bench.store)
    assert answer.choice == "yes"
    with pytest.raises(DataError, match="arm none has no such seed; there are: 1, 2"):
        afterwards.ask(run, "Does it help?", "", which=WhichCell(arm="none", seed=3), store=bench.store)
