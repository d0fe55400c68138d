import json
import math
import os
import random
import time
from collections import Counter
from pathlib import Path

import pytest

from drllama.recipe import Evaluate
from drllama.stats import evaluate_predictions, majority_predictions, prior_predictions, wilson
from drllama.types import Example, Original, Outcome, Prediction

LABELS = ("yes", "no", "maybe")
SETTINGS = Evaluate(bootstrap_samples=400)
SHARED = Path(os.environ.get("DRLLAMA_SHARED", Path(__file__).parents[2].parent / "shared"))
OFFICIAL_COUNTS = {"yes": 276, "no": 169, "maybe": 55}


def predict(gold, choice, scores_nats=None, outcome=None):
    if outcome is None:
        outcome = Outcome.CORRECT if choice == gold else Outcome.WRONG
    return Prediction(
        example_id=f"{gold}-{choice}",
        source_id="1",
        gold=gold,
        choice=choice,
        outcome=outcome,
        scores_nats=scores_nats,
        num_tokens=10,
        truncated_tokens=0,
    )


def confident(gold, **shares):
    """A prediction whose scores are the logs of these shares; the largest is chosen."""
    return predict(gold, max(shares, key=shares.get), {label: math.log(share) for label, share in shares.items()})


def no_answer(gold, outcome=Outcome.FAILED):
    return predict(gold, None, outcome=outcome)


def evaluate(predictions, *, labels=LABELS, settings=SETTINGS, seed=7):
    return evaluate_predictions(
        predictions, system="fine-tuned", split="test", labels=labels, settings=settings, seed=seed
    )


def example(label, number=0, split="train"):
    return Example(
        question=f"Question {number}?",
        context="Text.",
        label=label,
        split=split,
        group=str(number),
        origin=Original(source="here", source_id=str(number)),
    )


def examples(labels, split="train"):
    return [example(label, number, split) for number, label in enumerate(labels)]


def random_predictions(seed, n=60, labels=LABELS, no_answers=0.0):
    rng = random.Random(seed)
    golds = [*labels, *rng.choices(labels, weights=range(len(labels), 0, -1), k=n - len(labels))]
    made = []
    for gold in golds:
        if rng.random() < no_answers:
            made.append(no_answer(gold, rng.choice([Outcome.FAILED, Outcome.UNPARSED])))
        else:
            scores = {label: rng.gauss(0, 2) for label in labels}
            made.append(predict(gold, max(scores, key=scores.get), scores))
    return made


def test_wilson_gives_the_published_interval_of_370_in_500():
    assert str(wilson(370, 500)) == "0.740 [0.700, 0.777] (n=500, wilson 95%)"


@pytest.mark.parametrize(("successes", "n"), [(0, 1), (1, 1), (0, 55), (55, 55), (1, 3), (370, 500)])
def test_wilson_agrees_with_scipy_and_contains_its_value(successes, n):
    from scipy.stats import binomtest

    for level in (0.8, 0.95, 0.99):
        ours = wilson(successes, n, level=level)
        theirs = binomtest(successes, n).proportion_ci(level, method="wilson")
        assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
        assert 0 <= ours.low <= ours.value <= ours.high <= 1
        assert ours.low < ours.high


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (-1, 5), (6, 5), (0, -3)])
def test_wilson_refuses_an_interval_of_nothing(successes, n):
    with pytest.raises(ValueError, match="observations"):
        wilson(successes, n)


def official_labels():
    path = SHARED / "data" / "pubmedqa" / "test_ground_truth.json"
    if not path.exists():
        pytest.skip("the official PubMedQA test labels aren't here")
    return list(json.loads(path.read_text(encoding="utf-8")).values())


@pytest.mark.parametrize("golds", [lambda: list(Counter(OFFICIAL_COUNTS).elements()), official_labels])
def test_always_yes_scores_what_the_pubmedqa_paper_says(golds):
    asked = examples(golds(), split="test")
    evaluation = evaluate(majority_predictions(asked, asked, LABELS))
    assert round(evaluation.metrics["accuracy"].value, 3) == 0.552
    assert round(evaluation.metrics["macro_f1"].value, 3) == 0.237
    assert evaluation.confusion == ((276, 0, 0, 0), (169, 0, 0, 0), (55, 0, 0, 0))


def test_metrics_are_those_of_the_pubmedqa_authors_script():
    from sklearn.metrics import accuracy_score, f1_score, precision_recall_fscore_support

    for seed in range(50):
        predictions = random_predictions(seed)
        truth = [prediction.gold for prediction in predictions]
        chosen = [prediction.choice for prediction in predictions]
        evaluation = evaluate(predictions, settings=Evaluate(bootstrap_samples=100))
        assert evaluation.metrics["accuracy"].value == pytest.approx(accuracy_score(truth, chosen))
        assert evaluation.metrics["macro_f1"].value == pytest.approx(f1_score(truth, chosen, average="macro"))
        ours = [[s.precision.value, s.recall.value, s.f1.value, s.support] for s in evaluation.per_class]
        theirs = precision_recall_fscore_support(truth, chosen, labels=LABELS, zero_division=0)
        assert ours == [pytest.approx(row) for row in zip(*theirs, strict=True)]


def test_metrics_agree_with_sklearn_where_questions_have_no_answer():
    from sklearn.metrics import accuracy_score, confusion_matrix, f1_score

    for seed in range(20):
        predictions = random_predictions(seed, no_answers=0.3)
        truth = [prediction.gold for prediction in predictions]
        chosen = [prediction.choice or "no answer" for prediction in predictions]
        evaluation = evaluate(predictions, settings=Evaluate(bootstrap_samples=100))
        assert evaluation.metrics["accuracy"].value == pytest.approx(accuracy_score(truth, chosen))
        assert evaluation.metrics["macro_f1"].value == pytest.approx(
            f1_score(truth, chosen, labels=LABELS, average="macro", zero_division=0)
        )
        theirs = confusion_matrix(truth, chosen, labels=[*LABELS, "no answer"])
        assert [list(row) for row in evaluation.confusion] == theirs[:3].tolist()


def test_calibration_numbers_are_those_computed_by_hand():
    predictions = [
        confident("yes", yes=0.75, no=0.15, maybe=0.1),
        confident("no", yes=0.75, no=0.15, maybe=0.1),
        confident("maybe", yes=0.25, no=0.2, maybe=0.55),
    ]
    evaluation = evaluate(predictions)
    nll = -(math.log(0.75) + math.log(0.15) + math.log(0.55)) / 3
    brier = ((0.0625 + 0.0225 + 0.01) + (0.5625 + 0.7225 + 0.01) + (0.0625 + 0.04 + 0.2025)) / 3
    ece = 2 / 3 * abs(0.5 - 0.75) + 1 / 3 * abs(1 - 0.55)
    values = {name: evaluation.metrics[name].value for name in ("nll", "brier", "ece")}
    assert values == pytest.approx({"nll": nll, "brier": brier, "ece": ece})
    filled = [(bin.low, bin.high, bin.n, bin.mean_confidence, bin.accuracy) for bin in evaluation.reliability if bin.n]
    assert filled == [pytest.approx((0.5, 0.6, 1, 0.55, 1.0)), pytest.approx((0.7, 0.8, 2, 0.75, 0.5))]
    assert len(evaluation.reliability) == 10


def test_a_confidence_on_an_edge_lies_in_the_bin_below():
    # Powers of two and a certain answer: these probabilities are exact, so no rounding decides.
    predictions = [
        predict("a", "a", {"a": 0.0, "b": 0.0}),
        predict("a", "a", {"a": 0.0, "b": -1e4}),
    ]
    evaluation = evaluate(predictions, labels=("a", "b"), settings=Evaluate(bootstrap_samples=100, reliability_bins=4))
    assert [bin.n for bin in evaluation.reliability] == [0, 1, 0, 1]


def test_scores_are_normalised_over_the_labels_and_never_overflow():
    low, lower = -5000.0, -5000.0 + math.log(0.25)
    evaluation = evaluate([predict("no", "yes", {"yes": low, "no": lower, "maybe": -9000.0})])
    assert evaluation.metrics["nll"].value == pytest.approx(-math.log(0.2))
    far = evaluate([predict("maybe", "yes", {"yes": low, "no": lower, "maybe": -9000.0})])
    assert far.metrics["nll"].value == pytest.approx(4000 + math.log(1.25))


def test_questions_without_an_answer_are_not_correct_and_have_a_column_of_their_own():
    answered = random_predictions(1, n=20)
    missing = [no_answer("yes"), no_answer("no", Outcome.UNPARSED), no_answer("no")]
    evaluation = evaluate([*answered, *missing])
    assert evaluation.counts[Outcome.FAILED] == 2
    assert evaluation.counts[Outcome.UNPARSED] == 1
    assert sum(evaluation.counts.values()) == 23
    assert [row[-1] for row in evaluation.confusion] == [1, 2, 0]
    assert evaluation.metrics["accuracy"].n == evaluation.metrics["macro_f1"].n == 23
    assert evaluation.metrics["accuracy"].value == sum(p.outcome == "correct" for p in answered) / 23
    assert {evaluation.metrics[name].n for name in ("nll", "brier", "ece")} == {20}
    alone = evaluate(answered)
    assert all(evaluation.metrics[name] == alone.metrics[name] for name in ("nll", "brier", "ece"))


@pytest.mark.parametrize(
    "predictions",
    [
        [predict("yes", "yes"), predict("no", "yes")],
        [confident("yes", yes=0.8, no=0.1, maybe=0.1), predict("no", "yes")],
        [no_answer("yes"), no_answer("no")],
    ],
    ids=["bare labels", "one bare label", "no answers"],
)
def test_without_scores_there_is_no_calibration(predictions):
    evaluation = evaluate(predictions)
    assert set(evaluation.metrics) == {"accuracy", "macro_f1"}
    assert evaluation.reliability == ()


def test_a_label_that_nobody_names_is_unknown_and_not_surely_zero():
    evaluation = evaluate([predict("yes", "yes"), predict("no", "yes")])
    maybe = evaluation.per_class[2]
    for estimate in (maybe.precision, maybe.recall, maybe.f1):
        assert (estimate.value, estimate.low, estimate.high, estimate.n) == (0.0, 0.0, 1.0, 0)
    assert evaluation.metrics["macro_f1"].value == pytest.approx((2 / 3 + 0 + 0) / 3)


def test_a_label_never_found_may_still_be_found_next_time():
    evaluation = evaluate([predict("yes", "yes")] * 20 + [predict("maybe", "yes")] * 10)
    recall = evaluation.per_class[2].recall
    assert recall.value == recall.low == 0
    assert recall.high == pytest.approx(0.278, abs=5e-4)


def test_every_interval_contains_its_value():
    for seed in range(20):
        evaluation = evaluate(random_predictions(seed, no_answers=0.1), settings=Evaluate(bootstrap_samples=100))
        estimates = list(evaluation.metrics.values())
        estimates += [e for s in evaluation.per_class for e in (s.precision, s.recall, s.f1)]
        assert all(estimate.low <= estimate.value <= estimate.high for estimate in estimates)


def test_the_bootstrap_of_a_mean_has_the_width_that_theory_gives():
    # Brier of a half-half answer pair: 0.02 or 1.62 an item, so the mean's standard error is known.
    predictions = [confident("a", a=0.9, b=0.1)] * 300 + [confident("b", a=0.9, b=0.1)] * 100
    brier = evaluate(predictions, labels=("a", "b"), settings=Evaluate(bootstrap_samples=4000)).metrics["brier"]
    error = (1.62 - 0.02) * math.sqrt(0.25 * 0.75 / 400)
    assert brier.value == pytest.approx(0.42)
    assert (brier.high - brier.low) == pytest.approx(2 * 1.96 * error, rel=0.05)


def test_the_seed_decides_the_intervals_and_nothing_else():
    predictions = random_predictions(3)
    one, same, other = evaluate(predictions, seed=1), evaluate(predictions, seed=1), evaluate(predictions, seed=2)
    assert one == same
    assert one.metrics["macro_f1"] != other.metrics["macro_f1"]
    assert {name: e.value for name, e in one.metrics.items()} == {name: e.value for name, e in other.metrics.items()}
    assert one.reliability == other.reliability


def test_500_questions_with_2000_resamplings_take_less_than_a_second():
    predictions = random_predictions(5, n=500)
    settings = Evaluate()
    evaluate(predictions[:10], settings=settings)
    begin = time.process_time()
    evaluate(predictions, settings=settings)
    assert time.process_time() - begin < 1


@pytest.mark.parametrize(
    ("prediction", "complaint"),
    [
        (predict("perhaps", "yes"), "gold 'perhaps' is not one of yes, no, maybe"),
        (predict("yes", "perhaps"), "outcome wrong, but choice 'perhaps'"),
        (predict("yes", None), "outcome wrong, but choice None"),
        (predict("yes", "no", outcome=Outcome.CORRECT), "outcome correct, but choice 'no'"),
        (predict("yes", "yes", outcome=Outcome.FAILED), "outcome failed, but choice 'yes'"),
        (predict("yes", "yes", {"yes": -1.0, "no": -2.0}), "no score for label 'maybe'"),
        (predict("yes", "yes", {"yes": -1.0, "no": math.nan, "maybe": -3.0}), "score of label 'no' is nan"),
    ],
)
def test_a_prediction_that_contradicts_itself_is_refused(prediction, complaint):
    with pytest.raises(ValueError, match=complaint):
        evaluate([prediction])


def test_no_predictions_are_refused():
    with pytest.raises(ValueError, match="no predictions"):
        evaluate([])


def test_the_majority_is_the_most_frequent_training_label_and_ties_go_by_label_order():
    asked = examples(["no", "maybe"], split="test")
    assert {p.choice for p in majority_predictions(examples(["no", "yes", "no"]), asked, LABELS)} == {"no"}
    tied = majority_predictions(examples(["maybe", "no", "no", "maybe"]), asked, LABELS)
    assert [(p.choice, p.outcome.value, p.scores_nats) for p in tied] == [
        ("no", "correct", None),
        ("no", "wrong", None),
    ]


def test_the_prior_is_sklearns_dummy_with_one_more_of_each_label():
    from sklearn.dummy import DummyClassifier

    train = ["yes"] * 5 + ["no"] * 2
    predictions = prior_predictions(examples(train), examples(["no", "yes"], split="test"), LABELS)
    dummy = DummyClassifier(strategy="prior").fit([[0]] * 10, [*train, *LABELS])
    theirs = dict(zip(dummy.classes_, dummy.predict_proba([[0]])[0], strict=True))
    for prediction in predictions:
        assert prediction.choice == "yes"
        assert {label: math.exp(score) for label, score in prediction.scores_nats.items()} == pytest.approx(theirs)
    assert evaluate(predictions).metrics["nll"].value == pytest.approx(-(math.log(0.3) + math.log(0.6)) / 2)


@pytest.mark.parametrize("baseline", [majority_predictions, prior_predictions])
def test_baselines_refuse_to_guess_what_they_were_not_given(baseline):
    with pytest.raises(ValueError, match="no training examples"):
        baseline([], examples(["yes"]), LABELS)
    with pytest.raises(ValueError, match="label None"):
        baseline(examples([None]), examples(["yes"]), LABELS)
    with pytest.raises(ValueError, match="label 'unsure'"):
        baseline(examples(["yes"]), examples(["unsure"]), LABELS)
