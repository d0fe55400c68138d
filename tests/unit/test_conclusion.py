import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from made_up import LABELS, World, answers_of, as_answers, effects_in

from drllama.recipe import Evaluate
from drllama.stats import (
    FilterArms,
    by_filter,
    by_method,
    by_teacher,
    conclude,
    cost_per_point,
    effects_against,
    marginal_curve,
    summarise_arms,
)
from drllama.types import ArmName, Finding, RowsTaken

ARMS = ("none", "duplicate-real", "rewrite", "new", "combined")
BASELINES = ARMS[:2]
_INTERVAL = r"\[[+-]\d+\.\d, [+-]\d+\.\d\]"
CALM = World(arms=ARMS, num_seeds=4, training=0.02, seed_item=0.2, arm_item=0.2)


def concluded(world, seed=1, baselines=BASELINES, metric="accuracy"):
    tallied = answers_of(world, np.random.default_rng(seed))
    return conclude(effects_in(tallied, baselines), baselines=baselines, level=0.95, metric=metric)


def test_an_arm_that_beats_both_baselines_helps():
    found = concluded(replace(CALM, gains=(0, 0, 0, 0, 0.7)))
    assert found.finding is Finding.HELPS
    assert [one.finding for one in found.arms] == [Finding.NO_EVIDENCE, Finding.NO_EVIDENCE, Finding.HELPS]
    assert re.fullmatch(
        rf"Generated data helps: 'combined' \+1\d\.\d points {_INTERVAL} against 'none' and \+1\d\.\d points "
        rf"{_INTERVAL} against 'duplicate-real', p = \S+ after Holm \(accuracy, 4 seeds, 500 questions\)\.",
        found.sentence,
    )
    assert found.arms[2].p_adjusted < 0.05 < found.arms[0].p_adjusted


def test_an_arm_that_is_no_better_than_copies_of_the_real_rows_does_not_help():
    found = concluded(replace(CALM, gains=(0, 0.7, 0.7, 0.7, 0.7)))
    assert found.finding is Finding.NO_EVIDENCE
    assert "'combined' beats 'none' by +1" in found.sentence
    assert "but isn't shown to beat 'duplicate-real', whose extra rows need no teacher" in found.sentence
    # Whoever trained no such control hears of help, and against whom.
    alone = concluded(replace(CALM, arms=("none", *ARMS[2:]), gains=(0, 0.7, 0.7, 0.7)), baselines=("none",))
    assert alone.finding is Finding.HELPS
    assert alone.baselines == ("none",)


def test_a_gain_without_a_control_says_what_was_not_tried():
    world = replace(CALM, gains=(0, 0, 0.7, 0, 0))
    assert "copies of real rows weren't tried" in concluded(world, baselines=BASELINES[:1]).sentence
    assert "weren't tried" not in concluded(world).sentence
    assert "weren't tried" not in concluded(replace(CALM, gains=(0, 0, 0, -0.7, 0)), baselines=BASELINES[:1]).sentence


def test_an_arm_hurts_against_the_arm_without_extra_rows_alone():
    found = concluded(replace(CALM, gains=(0, 0, 0, -0.7, 0)))
    assert (found.finding, found.arms[1].finding) == (Finding.HURTS, Finding.HURTS)
    assert re.match(
        r"Generated data hurts: 'new' -1\d\.\d points \[-\d+\.\d, -\d+\.\d\] against 'none', p = ", found.sentence
    )
    # Worse than copies, but no worse than nothing.
    assert concluded(replace(CALM, gains=(0, 0.7, 0, 0, 0))).finding is Finding.NO_EVIDENCE


def test_what_helps_is_named_before_what_hurts():
    found = concluded(replace(CALM, gains=(0, 0, 0.7, -0.7, 0)))
    assert found.finding is Finding.HELPS
    assert re.match(r"Generated data helps: 'rewrite' .*, and also hurts: 'new' .*\.", found.sentence)


def test_no_evidence_tells_what_would_have_shown():
    found = concluded(CALM, metric="macro_f1")
    assert found.finding is Finding.NO_EVIDENCE
    largest = max(one.detectable for one in found.arms)
    wanted = f"No evidence either way: an effect on macro-F1 above {100 * largest:.1f} points would have shown"
    assert found.sentence == f"{wanted} (4 seeds, 500 questions)."
    assert all(one.p_adjusted == 1 for one in found.arms)


def test_one_seed_is_no_evidence_however_large_the_difference():
    found = concluded(replace(CALM, num_seeds=1, gains=(0, 0, 0, 0, 3)))
    assert found.finding is Finding.NO_EVIDENCE
    assert "one seed can't tell" in found.sentence


def test_every_arm_must_be_held_against_every_baseline():
    effects = effects_in(answers_of(CALM, np.random.default_rng(1)), BASELINES)
    with pytest.raises(ValueError, match="no effect of combined against duplicate-real"):
        conclude(effects[:-1], baselines=BASELINES, level=0.95)
    with pytest.raises(ValueError, match="no effects"):
        conclude([], baselines=BASELINES, level=0.95)


def test_a_point_has_a_price_only_where_there_is_a_gain():
    tallied = answers_of(replace(CALM, gains=(0, 0, 0, 0, 0.7)), np.random.default_rng(1))
    new, combined = (one.accuracy for one in effects_in(tallied, ["none"])[2:])
    price = cost_per_point(combined, 30.0)
    gain = combined.estimate
    assert price.value == pytest.approx(30 / (100 * gain.value))
    assert (price.low, price.high) == pytest.approx((0.3 / gain.high, 0.3 / gain.low))
    assert cost_per_point(new, 30.0) is None
    assert cost_per_point(combined, 0.0).high == 0
    with pytest.raises(ValueError, match="-1"):
        cost_per_point(combined, -1)


def test_the_curve_goes_from_dose_to_dose():
    doses = {"all": 1.0, "none": 0.0, "half": 0.5}
    world = replace(CALM, arms=("none", "half", "all"), gains=(0, 0.7, 0.8))
    answers = as_answers(answers_of(world, np.random.default_rng(1)))
    summaries = summarise_arms(answers, LABELS, settings=Evaluate(), seed=1)
    curve = marginal_curve(doses, answers, summaries, LABELS, level=0.95)
    assert [(one.arm, one.share) for one in curve] == [("none", 0), ("half", 0.5), ("all", 1)]
    assert [one.value for one in curve] == [one.metrics["accuracy"] for one in summaries]
    assert curve[0].step is None
    assert curve[1].step.low > 0.05
    assert curve[1].value.value + curve[2].step.value == pytest.approx(curve[2].value.value)


def test_gains_are_attributed_to_methods_teachers_and_filters():
    answers = as_answers(answers_of(replace(CALM, gains=(0, 0, 0, 0, 0.7)), np.random.default_rng(1)))
    names = {ArmName.NONE: "none", ArmName.NEW: "new", ArmName.COMBINED: "combined"}
    found = by_method(names, answers, LABELS, level=0.95)
    assert [(one.arm, one.without) for one in found] == [("new", "none"), ("combined", "none"), ("combined", "new")]
    (effect,) = effects_against("new", ["combined"], answers, LABELS, level=0.95)
    assert found[2].difference == effect.accuracy
    assert found[2].macro_f1 == effect.differences["macro_f1"]
    (strong,) = by_teacher({"weak-1": "new", "strong-1": "combined"}, answers, LABELS, where="both", level=0.95)
    assert strong.sentence.startswith("'both' with rows of strong-1 instead of weak-1 changed accuracy by +1")
    (checked,) = by_filter([LABEL_CHECK], answers, LABELS, level=0.95)
    assert checked.share_dropped == 0.31
    change = r"\+1\d\.\d points \[\+\d+\.\d, \+\d+\.\d\]"
    told = rf"the label check took 1,116 of 3,600 rows \(31 %\) and changed accuracy by {change}, macro-F1 by {change}"
    assert re.fullmatch(told, checked.sentence)
    assert (checked.difference, checked.macro_f1) == (effect.accuracy, effect.differences["macro_f1"])
    with pytest.raises(ValueError, match="0 dropped of 0 rows"):
        by_filter([replace(LABEL_CHECK, rows=rows_taken(0, 0))], answers, LABELS, level=0.95)


def rows_taken(num_before, num_dropped, num_instead=0, num_unanswered=0):
    return RowsTaken(
        num_before=num_before, num_dropped=num_dropped, num_instead=num_instead, num_unanswered=num_unanswered
    )


LABEL_CHECK = FilterArms(
    name="label", told="the label check", arm="combined", without="new", rows=rows_taken(3600, 1116)
)


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (rows_taken(1350, 0), r"the label check took none of 1,350 rows, so it changed nothing"),
        (rows_taken(1350, 94, 3), r"the label check took 94 of 1,350 rows \(7 %\), let in 3 others and changed .*\]"),
        (rows_taken(90, 9, 0, 5), r".*\]; 5 more that it stopped are in neither arm, for want of the teacher's reply"),
    ],
)
def test_what_a_filter_took_is_told_whatever_it_was(rows, told):
    answers = as_answers(answers_of(CALM, np.random.default_rng(1)))
    (found,) = by_filter([replace(LABEL_CHECK, rows=rows)], answers, LABELS, level=0.95)
    assert re.fullmatch(told, found.sentence)


def test_what_a_filter_is_worth_doesn_t_hang_on_which_others_were_switched_off():
    answers = as_answers(answers_of(CALM, np.random.default_rng(1)))
    form = replace(LABEL_CHECK, name="form", told="the form check", without="rewrite")
    rest = [one for one in answers if one.arm != "rewrite"]
    assert by_filter([form, LABEL_CHECK], answers, LABELS, level=0.95)[1:] == by_filter(
        [LABEL_CHECK], rest, LABELS, level=0.95
    )


def findings(world, *, experiments=200, metric="accuracy", seed=1):
    """Return how many of so many experiments ended in what."""
    rng = np.random.default_rng(seed)
    baselines = [arm for arm in BASELINES if arm in world.arms]
    return Counter(
        conclude(effects_in(answers_of(world, rng), baselines), baselines=baselines, level=0.95, metric=metric).finding
        for _ in range(experiments)
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "world",
    [World(arms=ARMS), World(arms=ARMS, num_seeds=2, num_items=100), World(arms=("none", *ARMS[2:]))],
    ids=["full", "small", "without copies"],
)
def test_of_200_experiments_without_an_effect_fewer_than_5_in_100_find_one(world):
    assert 200 - findings(world)[Finding.NO_EVIDENCE] < 10


@pytest.mark.slow
@pytest.mark.parametrize(
    "world",
    [
        World(arms=("none", "combined"), num_seeds=2),
        World(arms=("none", *ARMS[2:]), training=0.2, wildness=(1, 1, 1, 3)),
    ],
    ids=["two arms", "one wild arm"],
)
def test_nor_do_more_where_the_luck_of_training_is_hardest_to_tell(world):
    # These come close to 5 in 100, so 200 experiments wouldn't tell on which side.
    assert 1000 - findings(world, experiments=1000)[Finding.NO_EVIDENCE] < 50


@pytest.mark.slow
def test_macro_f1_finds_nothing_where_nothing_is_either():
    assert 200 - findings(World(arms=ARMS), metric="macro_f1")[Finding.NO_EVIDENCE] < 10


@pytest.mark.slow
def test_eight_points_help_most_times_with_three_seeds_and_nearly_always_with_five():
    eight_points = World(arms=ARMS, gains=(0, 0, 0, 0, 0.45))
    assert findings(eight_points)[Finding.HELPS] > 100
    assert findings(replace(eight_points, num_seeds=5))[Finding.HELPS] > 180


@pytest.mark.slow
def test_intervals_cover_the_truth_as_often_as_they_say():
    """An arm's interval and its effect's; without an effect the truth is 0, and the arm's that of endless questions."""
    world = World(arms=("none", "new", "combined"))
    endless = answers_of(replace(world, num_seeds=40, num_items=20_000), np.random.default_rng(9))
    truth = (endless.chosen_ASN == endless.gold_N).mean()
    rng = np.random.default_rng(1)
    covered = Counter()
    for _ in range(100):
        answers = as_answers(answers_of(world, rng))
        arm = summarise_arms(answers, LABELS, settings=Evaluate(bootstrap_samples=400), seed=1)[0].metrics["accuracy"]
        effect = effects_against("none", ["new"], answers, LABELS, level=0.95)[0].accuracy.estimate
        covered["arm"] += arm.low <= truth <= arm.high
        covered["effect"] += effect.low <= 0 <= effect.high
    assert covered["arm"] >= 92
    assert covered["effect"] >= 92
