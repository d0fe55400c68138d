"""How often the rule of the verdict finds what isn't there, and what is, in made-up experiments; and how fast it is.

PYTHONPATH=tests/unit python benchmarks/verdict.py [EXPERIMENTS]
"""

import sys
import time
from collections import Counter
from dataclasses import replace
from statistics import NormalDist

import numpy as np
from made_up import LABELS, World, answers_of, as_answers, effects_in

from drllama.recipe import Evaluate
from drllama.stats import conclude, effects_against, summarise_arms
from drllama.stats.significance import holm
from drllama.stats.tally import Tally
from drllama.types import Finding

BASELINES = ("none", "duplicate-real")
FULL = World(arms=(*BASELINES, "rewrite", "new", "combined"))
PLAIN = replace(FULL, arms=("none", "rewrite", "new", "combined"))
PAIR = replace(FULL, arms=("none", "combined"))

NULL = {
    "5 arms, 3 seeds, 500 items": FULL,
    "5 arms, 5 seeds, 500 items": replace(FULL, num_seeds=5),
    "5 arms, 2 seeds, 100 items": replace(FULL, num_seeds=2, num_items=100),
    "no copies, 3 seeds, 500 items": PLAIN,
    "no copies, 2 seeds, 500 items": replace(PLAIN, num_seeds=2),
    "2 arms, 3 seeds, 500 items": PAIR,
    "2 arms, 2 seeds, 500 items": replace(PAIR, num_seeds=2),
    "2 arms, 2 seeds, 100 items": replace(PAIR, num_seeds=2, num_items=100),
    "no copies, training twice as noisy": replace(PLAIN, training=0.2),
    "the same, one arm thrice as wild": replace(PLAIN, training=0.2, wildness=(1, 1, 1, 3)),
    "the same, 'none' thrice as wild": replace(PLAIN, training=0.2, wildness=(3, 1, 1, 1)),
}
GAIN = 0.45
"""On the logit scale: 8 points."""
TRUE = {
    "one arm of 3 gains, 3 seeds": replace(FULL, gains=(0, 0, 0, 0, GAIN)),
    "all 3 arms gain, 3 seeds": replace(FULL, gains=(0, 0, GAIN, GAIN, GAIN)),
    "one arm of 3 gains, 5 seeds": replace(FULL, num_seeds=5, gains=(0, 0, 0, 0, GAIN)),
    "copies gain as much, 3 seeds": replace(FULL, gains=(0, GAIN, GAIN, GAIN, GAIN)),
}


def main() -> None:
    """Print shares of experiments that end in each finding, and seconds for one of 7 arms."""
    experiments = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    print(f"{experiments} experiments each: helps, hurts, an effect would have shown above; items alone would find one")
    print(f"{'':36}{'accuracy':29}{'macro-F1':29}items alone")
    for name, world in {**NULL, **TRUE}.items():
        print(f"{name:36}{told(world, experiments)}", flush=True)
    arms = ("none", *(f"arm {number}" for number in range(1, 7)))
    answers = as_answers(answers_of(replace(FULL, arms=arms), np.random.default_rng(1)))
    start = time.perf_counter()
    summarise_arms(answers, LABELS, settings=Evaluate(bootstrap_samples=2000), seed=1)
    summarised = time.perf_counter() - start
    effects_against("none", arms[1:], answers, LABELS, level=0.95)
    both = time.perf_counter() - start
    spent = f"summaries {summarised:.2f} s (2,000 resamplings), effects {both - summarised:.2f} s"
    print(f"7 arms, 3 seeds, 500 items: {spent}")


def told(world: World, experiments: int) -> str:
    """Return how many of so many experiments end in what, and what a test that counts items alone would have found."""
    rng = np.random.default_rng(1)
    baselines = [arm for arm in BASELINES if arm in world.arms]
    found: dict[str, list[Finding]] = {"accuracy": [], "macro_f1": []}
    shown, naive = Counter[str](), 0
    for _ in range(experiments):
        tallied = answers_of(world, rng)
        effects = effects_in(tallied, baselines)
        for metric, findings in found.items():
            conclusion = conclude(effects, baselines=baselines, level=0.95, metric=metric)
            findings.append(conclusion.finding)
            shown[metric] += 100 * max(one.detectable for one in conclusion.arms) / experiments
        naive += finds_by_items_alone(tallied)
    parts = []
    for metric, findings in found.items():
        helps, hurts = (findings.count(one) / experiments for one in (Finding.HELPS, Finding.HURTS))
        parts.append(f"{helps:6.1%}  {hurts:6.1%}  {shown[metric]:5.1f} points")
    return f"{'      '.join(parts)}  {naive / experiments:6.1%}"


def finds_by_items_alone(tallied: Tally) -> bool:
    """Return whether any arm differs from the first by a paired test of the items' means over the seeds, with Holm."""
    right_AN = (tallied.chosen_ASN == tallied.gold_N).mean(axis=1)
    gains_AN = right_AN[sum(arm in BASELINES for arm in tallied.arms) :] - right_AN[0]
    errors_A = gains_AN.std(axis=1, ddof=1) / np.sqrt(gains_AN.shape[1])
    p_values = [2 * NormalDist().cdf(-abs(z)) for z in gains_AN.mean(axis=1) / errors_A]
    return min(holm(p_values)) < 0.05


if __name__ == "__main__":
    main()
