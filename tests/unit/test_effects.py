from dataclasses import replace
from math import atan, log, sqrt

import numpy as np
import pytest
from made_up import LABELS, World, answers_of, as_answers, prediction
from scipy import stats as scipy_stats
from sklearn.metrics import accuracy_score, f1_score, recall_score

from drllama.recipe import Evaluate
from drllama.stats import effects_against, evaluate_predictions, summarise_arms
from drllama.stats.effects import majority_vote, paired_differences
from drllama.stats.significance import Errors, holm, mcnemar
from drllama.stats.student_t import t_quantile, t_tails

SETTINGS = Evaluate()


@pytest.fixture
def answers():
    """Five arms, three seeds, 60 questions; some got no answer."""
    rng = np.random.default_rng(7)
    tallied = answers_of(World(arms=("none", "rewrite", "new", "combined", "duplicate-real"), num_items=60), rng)
    chosen = np.where(rng.random(tallied.chosen_ASN.shape) < 0.03, -1, tallied.chosen_ASN)
    return as_answers(replace(tallied, chosen_ASN=chosen))


def test_each_seed_s_metrics_are_sklearn_s_and_the_arm_s_are_their_mean(answers):
    for summary, arm in zip(summarise_arms(answers, LABELS, settings=SETTINGS, seed=1), answers, strict=True):
        for s, given in enumerate(arm.answers):
            gold, said = [one.gold for one in given], [one.choice or "" for one in given]
            asked = {"labels": list(LABELS), "zero_division": 0}
            assert summary.by_seed["accuracy"][s] == pytest.approx(accuracy_score(gold, said))
            assert summary.by_seed["macro_f1"][s] == pytest.approx(f1_score(gold, said, average="macro", **asked))
            for k, label in enumerate(LABELS):
                f1s, recalls = (
                    f1_score(gold, said, average=None, **asked),
                    recall_score(gold, said, average=None, **asked),
                )
                assert summary.by_seed[f"f1:{label}"][s] == pytest.approx(f1s[k])
                assert summary.by_seed[f"recall:{label}"][s] == pytest.approx(recalls[k])
        for name, estimate in summary.metrics.items():
            assert estimate.value == pytest.approx(np.mean(summary.by_seed[name]))
            assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1


def test_with_one_seed_an_arm_s_interval_is_the_item_bootstrap_s_and_says_so(answers):
    alone = replace(answers[0], seeds=(1,), answers=answers[0].answers[:1])
    (summary,) = summarise_arms([alone], LABELS, settings=SETTINGS, seed=5)
    known = evaluate_predictions(
        alone.answers[0], system="x", split="test", labels=LABELS, settings=SETTINGS, seed=5
    ).metrics["macro_f1"]
    found = summary.metrics["macro_f1"]
    assert (found.method, known.method) == ("bootstrap", "bootstrap")
    # Other resamples of the same items.
    assert (found.low, found.high) == pytest.approx((known.low, known.high), abs=0.01)
    (several,) = summarise_arms(answers[:1], LABELS, settings=SETTINGS, seed=5)
    assert several.metrics["accuracy"].method == "hierarchical bootstrap"


def test_seeds_that_differ_widen_an_arm_s_interval(answers):
    same = replace(answers[0], answers=answers[0].answers[:1] * 3)
    (narrow,) = summarise_arms([same], LABELS, settings=SETTINGS, seed=5)
    wrong = tuple(prediction(n, 0, 1) for n in range(60))
    gold = tuple(prediction(n, 0, 0) for n in range(60))
    (wide,) = summarise_arms([replace(same, answers=(wrong, gold, gold))], LABELS, settings=SETTINGS, seed=5)
    assert narrow.metrics["accuracy"].high - narrow.metrics["accuracy"].low < 0.3
    assert (wide.metrics["accuracy"].low, wide.metrics["accuracy"].high) == (0, 1)


def test_arms_with_the_same_answers_differ_by_nothing_and_the_interval_is_no_point(answers):
    (effect,) = effects_against("none", ["copy"], [answers[0], replace(answers[0], arm="copy")], LABELS, level=0.95)
    found = effect.accuracy
    assert (found.estimate.value, found.p_value, effect.vote.p_value) == (0, 1, 1)
    assert found.estimate.low < 0 < found.estimate.high


def test_an_effect_turned_over_is_the_same_with_the_other_sign(answers):
    (there,) = effects_against("none", ["new"], answers, LABELS, level=0.95)
    (back,) = effects_against("new", ["none"], answers, LABELS, level=0.95)
    for name, found in there.differences.items():
        assert back.differences[name].estimate.low == pytest.approx(-found.estimate.high)
        assert back.differences[name].p_value == pytest.approx(found.p_value)
    assert (there.vote.gained, there.vote.lost) == (back.vote.lost, back.vote.gained)


def test_with_one_seed_the_item_error_is_that_of_the_bootstrap():
    tallied = answers_of(World(arms=("none", "new"), num_seeds=1, gains=(0.0, 0.4)), np.random.default_rng(3))
    (found,) = paired_differences("none", ["new"], tallied, level=0.95)
    rng = np.random.default_rng(4)
    drawn = []
    for _ in range(1000):
        picked = rng.integers(500, size=500)
        again = replace(tallied, gold_N=tallied.gold_N[picked], chosen_ASN=tallied.chosen_ASN[:, :, picked])
        (same,) = paired_differences("none", ["new"], again, level=0.95)
        drawn.append([one.estimate.value for one in same.values()])
    for one, spread in zip(found.values(), np.std(drawn, axis=0), strict=True):
        assert one.item_error == pytest.approx(spread, rel=0.1)
        assert one.seed_error is None


@pytest.mark.parametrize("seed", [None, 0.0, 0.004, 0.02])
@pytest.mark.parametrize("df", [1, 2, 3, 12])
def test_the_p_value_is_where_the_interval_touches_nothing(seed, df):
    errors = Errors(item=0.015, seed=seed, seed_df=df)
    for p in (0.5, 0.05, 0.003):
        assert errors.p_value(errors.reach(p)) == pytest.approx(p, rel=1e-6)
        assert errors.p_value(-errors.reach(p)) == pytest.approx(p, rel=1e-6)


def test_errors_of_one_kind_alone_give_the_known_tests():
    assert Errors(item=0.01, seed=None, seed_df=0).p_value(0.025) == pytest.approx(2 * scipy_stats.norm.sf(2.5))
    assert Errors(item=1e-9, seed=0.01, seed_df=4).p_value(0.025) == pytest.approx(2 * scipy_stats.t.sf(2.5, 4))


@pytest.mark.parametrize("df", [1, 2, 3, 4, 11, 12, 121])
def test_student_s_t_is_scipy_s(df):
    for t in (0, 0.3, 2, 12):
        assert t_tails(atan(t / sqrt(df)), df) == pytest.approx(2 * scipy_stats.t.sf(t, df), abs=1e-12)
    for p in (0.5, 0.05, 1e-6):
        assert t_quantile(p, df) == pytest.approx(scipy_stats.t.isf(p / 2, df), rel=1e-8)


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (5, 0), (3, 3), (12, 5), (5, 12), (900, 1100), (3000, 2000)])
def test_mcnemar_agrees_with_scipy_s_binomial_test(gained, lost):
    wanted = scipy_stats.binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    assert mcnemar(gained, lost) == pytest.approx(wanted, rel=1e-9)


def test_holm_by_hand():
    # 4 x 0.005; 3 x 0.01; 2 x 0.03 = 0.06; 0.04 is raised to the one before it.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx((0.03, 0.06, 0.06, 0.02))
    assert holm([0.6, 0.7]) == (1.0, 1.0)
    assert holm([]) == ()


def test_mcnemar_is_counted_for_each_seed_and_for_the_vote(answers):
    effects = effects_against("none", ["rewrite", "new"], answers, LABELS, level=0.95)
    none, new = answers[0].answers, answers[2].answers
    for s in range(3):
        pairs = [(a.choice == a.gold, b.choice == b.gold) for a, b in zip(new[s], none[s], strict=True)]
        found = effects[1].discordance[s]
        assert (found.gained, found.lost) == (pairs.count((True, False)), pairs.count((False, True)))
        assert found.p_value == scipy_stats.binomtest(found.gained, found.gained + found.lost).pvalue
        assert found.p_adjusted == holm([one.discordance[s].p_value for one in effects])[1]
    votes = [
        [majority_vote(same, LABELS) == same[0].gold for same in zip(*given, strict=True)] for given in (new, none)
    ]
    gained = sum(mine and not theirs for mine, theirs in zip(*votes, strict=True))
    assert effects[1].vote.gained == gained


def test_a_tied_vote_goes_by_mean_probability_and_silence_has_no_vote():
    def said(choice, *shares):
        scores = {label: log(share) for label, share in zip(LABELS, shares, strict=True)} if shares else None
        return prediction(0, 0, choice, scores)

    assert majority_vote([said(0), said(1), said(1)], LABELS) == "no"
    # One each: "no" has 0.9 + 0.3, "yes" 0.6 + 0.05.
    assert majority_vote([said(0, 0.6, 0.3, 0.1), said(1, 0.05, 0.9, 0.05)], LABELS) == "no"
    assert majority_vote([said(-1), said(-1), said(2)], LABELS) == "maybe"
    assert majority_vote([said(1), said(0)], LABELS) == "yes"
    assert majority_vote([said(-1), said(-1)], LABELS) is None


def test_arms_that_can_t_be_paired_are_refused(answers):
    with pytest.raises(ValueError, match=r"arm new has seeds \(1, 2\), not \(1, 2, 3\)"):
        less = replace(answers[2], seeds=(1, 2), answers=answers[2].answers[:2])
        effects_against("none", ["new"], [answers[0], less], LABELS, level=0.95)
    with pytest.raises(ValueError, match="arm new, seed 2 answered different questions"):
        turned = (answers[2].answers[0], answers[2].answers[1][::-1], answers[2].answers[2])
        effects_against("none", ["new"], [answers[0], replace(answers[2], answers=turned)], LABELS, level=0.95)
    with pytest.raises(ValueError, match="no answers of eda"):
        effects_against("none", ["eda"], answers, LABELS, level=0.95)
    with pytest.raises(ValueError, match="two have one name"):
        summarise_arms([answers[0], answers[0]], LABELS, settings=SETTINGS, seed=1)
    with pytest.raises(ValueError, match="no answers"):
        summarise_arms([], LABELS, settings=SETTINGS, seed=1)


def test_a_label_that_is_nobody_s_gold_label_has_no_metrics_of_its_own_but_counts_in_the_mean():
    given = tuple(prediction(n, n % 2, n % 2) for n in range(10))
    arms = as_answers(answers_of(World(arms=("a",), num_seeds=1, num_items=1), np.random.default_rng(1)))
    (summary,) = summarise_arms([replace(arms[0], answers=(given,))], LABELS, settings=SETTINGS, seed=1)
    assert set(summary.metrics) == {"accuracy", "macro_f1", "f1:yes", "f1:no", "recall:yes", "recall:no"}
    assert summary.metrics["macro_f1"].value == pytest.approx(2 / 3)
