from dataclasses import replace

import numpy as np
import pytest
from made_up import LABELS, World, answers_of, as_answers
from scipy.stats import binom

from drllama.stats.effects import effects_against, paired_differences
from drllama.stats.power import Variation, detectable_difference, variation_of


@pytest.mark.parametrize(("n", "share"), [(200, 0.15), (500, 0.15), (500, 0.3), (2000, 0.1)])
def test_mcnemar_s_test_finds_the_difference_four_times_in_five(n, share):
    difference = detectable_difference(n, variation=Variation(discordant_share=share))
    better, worse = (share + difference) / 2, (share - difference) / 2
    draws = np.random.default_rng(1).multinomial(n, [better, worse, 1 - share], size=20_000)
    wins, losses = draws[:, 0], draws[:, 1]
    # The exact test without its conservatism: half of the observed outcome's probability (mid-p).
    fewer = np.minimum(wins, losses)
    p = 2 * binom.cdf(fewer, wins + losses, 0.5) - binom.pmf(fewer, wins + losses, 0.5)
    assert (p < 0.05).mean() == pytest.approx(0.8, abs=0.02)


def test_more_questions_show_smaller_differences():
    found = [detectable_difference(n) for n in (50, 100, 500, 5000)]
    assert found == sorted(found, reverse=True)
    assert detectable_difference(500, power=0.9) > detectable_difference(500)
    assert detectable_difference(500, level=0.99) > detectable_difference(500)


def test_too_few_questions_show_nothing_even_where_one_system_wins_every_time():
    assert detectable_difference(49) is None
    assert detectable_difference(1) is None


def test_no_questions_are_no_test_set():
    with pytest.raises(ValueError, match="no questions"):
        detectable_difference(0)


def test_more_seeds_show_smaller_differences_and_more_arms_larger_ones():
    assert detectable_difference(500, num_seeds=2) is None
    by_seeds = [detectable_difference(500, num_seeds=number, num_arms=3) for number in (2, 3, 5, 10)]
    assert by_seeds == sorted(by_seeds, reverse=True)
    assert detectable_difference(500, num_arms=3) > detectable_difference(500)
    wilder = detectable_difference(500, num_seeds=5, num_arms=3, variation=Variation(training_sd=0.02))
    assert wilder > detectable_difference(500, num_seeds=5, num_arms=3)


def test_a_pilot_with_one_seed_tells_the_share_of_discordant_questions_alone():
    tallied = answers_of(World(arms=("none", "new"), num_seeds=1), np.random.default_rng(2))
    (effect,) = effects_against("none", ["new"], as_answers(tallied), LABELS, level=0.95)
    share = (effect.vote.gained + effect.vote.lost) / 500
    assert variation_of(effect) == Variation(discordant_share=share)


@pytest.mark.slow
def test_what_a_pilot_forecasts_is_found_four_times_in_five():
    world = World(arms=("none", "rewrite", "new"), num_seeds=5, gains=(0.0, 0.0, 0.35))
    large = answers_of(replace(world, num_seeds=30, num_items=2000, gains=()), np.random.default_rng(2))
    (effect,) = effects_against("none", ["new"], as_answers(large), LABELS, level=0.95)
    forecast = detectable_difference(500, num_seeds=5, num_arms=2, variation=variation_of(effect))
    rng = np.random.default_rng(3)
    found, gains = 0, []
    for _ in range(200):
        one = paired_differences("none", ["rewrite", "new"], answers_of(world, rng), level=0.95)[1]["accuracy"]
        found += one.p_adjusted < 0.05
        gains.append(one.estimate.value)
    assert np.mean(gains) == pytest.approx(forecast, abs=0.005)
    assert 0.7 < found / 200 < 0.9
