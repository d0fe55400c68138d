import numpy as np
import pytest
from scipy.stats import binom

from drllama.stats.power import detectable_difference


@pytest.mark.parametrize(("n", "share"), [(200, 0.15), (500, 0.15), (500, 0.3), (2000, 0.1)])
def test_mcnemar_s_test_finds_the_difference_four_times_in_five(n, share):
    difference = detectable_difference(n, discordant_share=share)
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
