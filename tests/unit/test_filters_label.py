"""Votes, judgements, balance, and the runner: nothing vanishes, whatever the order."""

import random
from collections import Counter
from dataclasses import dataclass

import pytest
from candidates import candidate

from drllama.errors import RecipeError
from drllama.filters.balance import BalanceFilter, label_quotas
from drllama.filters.label import JudgeFilter, LabelFilter
from drllama.filters.runner import run_filters
from drllama.recipe import Balance, LabelKept, Sampling, resolve
from drllama.types import Judgement, Measured, Objection, Quoted, Unparsed, Votes


def votes(yes=0, no=0, maybe=0, unparsed=0, failed=0):
    return Votes(counts={"yes": yes, "no": no, "maybe": maybe}, num_unparsed=unparsed, num_failed=failed)


WARM = Sampling(temperature=0.8, max_tokens=64)


@pytest.mark.parametrize(
    ("found", "agreement", "reason"),
    [
        (votes(yes=1), 1.0, None),
        (votes(yes=2, no=1), 0.6, None),
        (votes(yes=2, no=1), 1.0, "too few blind answers chose the label"),
        (votes(yes=2, unparsed=1), 0.7, "too few blind answers chose the label"),
        (votes(yes=2, failed=1), 0.7, "too few blind answers chose the label"),
        (votes(yes=1, no=2), 0.5, "blind answers chose another label"),
        (votes(no=1), 1.0, "blind answers chose another label"),
        (votes(unparsed=1), 1.0, "no blind answer could be read"),
        (votes(failed=3), 0.1, "no blind answer could be read"),
        (votes(), 0.1, "no blind answer could be read"),
    ],
)
def test_a_label_stays_where_enough_of_all_blind_answers_chose_it_and_silence_is_no_agreement(found, agreement, reason):
    row = candidate(label="yes")
    settings = LabelKept(votes=3, agreement=agreement, sampling=WARM)
    (objection,) = LabelFilter(settings, {row.id: found}).check([row])
    assert (objection and objection.reason) == reason
    assert objection is None or objection.evidence == found


@pytest.mark.parametrize(
    ("judgement", "reason"),
    [
        (Judgement(supported=True, label="yes", reason="It says so."), None),
        (Judgement(supported=False, label="yes", reason="-"), "the judge finds no support in the source's context"),
        (Judgement(supported=True, label="no", reason="-"), "the judge would answer with another label"),
        (Unparsed(text="Well...", reason="no JSON object"), "unjudged"),
    ],
)
def test_a_judge_must_support_the_answer_and_give_it_and_one_that_can_t_be_read_is_no_pass(judgement, reason):
    row = candidate(label="yes")
    (objection,) = JudgeFilter({row.id: judgement}).check([row])
    assert (objection and objection.reason) == reason
    if reason == "unjudged":
        assert objection.evidence == Quoted(text="no JSON object")


def rows_of(**counts):
    labels = [label for label, number in counts.items() for _ in range(number)]
    return [candidate(label=label, call=f"{number:016x}{'0' * 48}") for number, label in enumerate(labels)]


def kept(settings, rows, found=None):
    objections = BalanceFilter(settings, found or {}).check(rows)
    return [row for row, objection in zip(rows, objections, strict=True) if objection is None]


@pytest.mark.parametrize(
    ("there", "shares", "at_most", "stay"),
    [
        ({"yes": 50, "no": 10}, {"yes": 0.5, "no": 0.5}, None, {"yes": 11, "no": 10}),
        ({"yes": 50, "no": 10}, {"yes": 0.5, "no": 0.5}, 7, {"yes": 4, "no": 3}),
        (
            {"yes": 50, "no": 30, "maybe": 20},
            {"yes": 0.6, "no": 0.3, "maybe": 0.1},
            10,
            {"yes": 6, "no": 3, "maybe": 1},
        ),
        ({"yes": 5, "no": 5, "maybe": 3}, {"yes": 0.5, "no": 0.5}, None, {"yes": 5, "no": 5}),
        ({"yes": 5}, {"yes": 0.5, "no": 0.5}, None, {"yes": 1}),
        ({"yes": 5, "no": 5}, None, 4, None),
        ({"yes": 5, "no": 5}, None, 40, {"yes": 5, "no": 5}),
    ],
)
def test_balance_keeps_as_many_rows_as_shares_and_limit_allow(there, shares, at_most, stay):
    found = kept(Balance(shares=shares, at_most=at_most), rows_of(**there))
    if stay is None:
        assert len(found) == at_most
    else:
        assert Counter(row.example.label for row in found) == stay


def test_exactly_as_many_stay_as_were_asked_for_where_there_are_enough():
    shares = {"yes": 0.55, "no": 0.34, "maybe": 0.11}
    rows = rows_of(yes=60, no=60, maybe=60)
    assert [len(kept(Balance(shares=shares, at_most=number), rows)) for number in range(1, 90)] == [*range(1, 90)]


def test_quotas_are_the_largest_that_the_rows_allow():
    drawn = random.Random(3)
    for _ in range(200):
        there = {label: drawn.randrange(30) for label in ("yes", "no", "maybe")}
        parts = [drawn.random() for _ in there]
        shares = {label: part / sum(parts) for label, part in zip(there, parts, strict=True)}
        quotas = label_quotas(there, shares, at_most=None)
        assert all(quotas[label] <= there[label] for label in there)
        assert all(abs(quotas[label] - shares[label] * sum(quotas.values())) < 1 for label in there)
        assert any(quotas[label] + 1 >= there[label] for label in there)


def test_which_rows_go_depends_on_the_rows_alone_and_the_least_agreed_go_first():
    rows = rows_of(yes=20, no=20)
    settings = Balance(shares={"yes": 0.5, "no": 0.5}, at_most=10)
    shuffled = random.Random(1).sample(rows, len(rows))
    assert {row.id for row in kept(settings, rows)} == {row.id for row in kept(settings, shuffled)}
    doubted = {row.id: votes(yes=1, no=1) for row in rows}
    sure = {row.id: votes(**{row.example.label: 2}) for row in [*rows[:5], *rows[20:25]]}
    assert kept(settings, rows, {**doubted, **sure}) == [*rows[:5], *rows[20:25]]


def test_what_goes_says_how_many_there_were_and_how_many_may_stay():
    rows = rows_of(yes=3, no=1)
    objections = [one for one in BalanceFilter(Balance(shares={"yes": 0.5, "no": 0.5}), {}).check(rows) if one]
    evidence = Measured(value=3, limit=2)
    assert objections == [Objection(reason="more rows of its label than its share", evidence=evidence)]


@pytest.mark.parametrize("shares", ["{yes: 0.5}", "{yes: 1.5, no: -0.5}", "{}"])
def test_shares_that_don_t_add_up_are_refused(shares):
    import yaml

    with pytest.raises(RecipeError, match="shares must be at least 0 and add up to 1"):
        resolve({"name": "x", "data": "pubmedqa-demo", "filters": {"balance": {"shares": yaml.safe_load(shares)}}})


@dataclass
class Chance:
    """A filter that objects to some rows by chance, and remembers which it was shown."""

    name: str
    drawn: random.Random
    share: float

    def check(self, candidates):
        self.shown = [one.id for one in candidates]
        objection = Objection(reason=f"{self.name} says so", evidence=Measured(value=1, limit=0))
        return [objection if self.drawn.random() < self.share else None for _ in candidates]


@pytest.mark.parametrize("seed", range(30))
def test_given_is_kept_and_dropped_each_row_once_by_the_first_that_objects_in_any_order(seed):
    drawn = random.Random(seed)
    rows = rows_of(yes=drawn.randrange(12), no=drawn.randrange(12))
    filters = [Chance(f"filter {number}", random.Random(seed + number), drawn.random()) for number in range(5)]
    drawn.shuffle(filters)
    found = run_filters(rows, filters)
    told = [*(one.id for one in found.kept), *(one.candidate.id for one in found.dropped)]
    assert sorted(told) == sorted(row.id for row in rows)
    assert [row for row in rows if row in found.kept] == list(found.kept)
    dropped_by = {one.candidate.id: one.by for one in found.dropped}
    gone = set()
    for one in filters:
        assert one.shown == [row.id for row in rows if row.id not in gone]
        gone |= {name for name, by in dropped_by.items() if by == one.name}


def test_without_filters_all_stay():
    rows = rows_of(yes=2)
    assert run_filters(rows, []).kept == tuple(rows)
