"""The ledger of a teacher's rows, what is counted from it, and how varied the rows are."""

import json
from dataclasses import replace

import pytest
from candidates import LABELS, VITAMIN, candidate, many_rows
from test_store import make_run

from drllama.errors import StoreError
from drllama.report.pictures import funnel_picture
from drllama.stages.augment import Augmented, FailedRequest, UnparsedReply
from drllama.stages.ledger import ledger_rows
from drllama.stats import diversity, drop_counts, funnel
from drllama.stats.diversity import distinct, self_similarity
from drllama.store import Store, ledger_lines
from drllama.types import (
    ArmName,
    Asking,
    Audit,
    Dropped,
    Filtered,
    FilterName,
    FunnelStep,
    Judgement,
    Measured,
    Neighbour,
    Quoted,
    Taught,
    Unparsed,
    Votes,
)

ARMS = (ArmName.NONE, ArmName.REWRITE, ArmName.COMBINED)
VOTES = Votes(counts={"yes": 0, "no": 1, "maybe": 0}, num_unparsed=0, num_failed=0)
ROWS = [candidate(method="new" if number > 2 else "rewrite", call=f"{number:064x}"[::-1]) for number in range(8)]
EVIDENCE = [
    ("form", "the question is too short", Measured(value=5, limit=12)),
    ("form", "the question names its label", Quoted(text="yes", measured=Measured(value=1, limit=0.5))),
    (
        "duplicates",
        "like a real row",
        Neighbour(source_id="1", split="train", question="Is it?", similarity=0.9, how="near"),
    ),
    ("label", "blind answers chose another label", VOTES),
    ("judge", "the judge would answer with another label", Judgement(supported=True, label="no", reason="So.")),
]


def asking(method="rewrite"):
    return Asking(method=method, parents=(VITAMIN.id,), call="f" * 64, prompt=f"{method}.v1", rollout=2)


AUGMENTED = Augmented(
    candidates=tuple(ROWS),
    unparsed=(
        UnparsedReply(asking=asking(), place=0, unparsed=Unparsed(text="Sure! \ud800\u2028", reason="no JSON object")),
    ),
    failed=(FailedRequest(asking=asking("new"), kind="timeout", message="no answer in 60 s"),),
    spare=4,
    duplicates=1,
    num_requests=10,
    short_of={},
)
FILTERED = Filtered(
    kept=tuple(ROWS[len(EVIDENCE) :]),
    dropped=tuple(
        Dropped(candidate=row, by=by, reason=why, evidence=shown)
        for row, (by, why, shown) in zip(ROWS, EVIDENCE, strict=False)
    ),
    votes={row.id: VOTES for row in ROWS[3:]},
    judgements={ROWS[4].id: EVIDENCE[4][2]},
)
FILTERS = (FilterName.FORM, FilterName.DUPLICATES, FilterName.LEAKS, FilterName.LABEL, FilterName.JUDGE)


@pytest.fixture
def run_of():
    """A finished run with a teacher, by id; its funnel is made up."""

    def run_of(run_id):
        run = make_run(run_id)
        asked = run.evaluations[0]
        audit = Audit(teacher=asked, majority=asked, student=None, failures={}, may_write_new=True, verdict="Good.")
        counts = dict.fromkeys(("num_requests", "num_spare", "num_unparsed", "num_failed", "num_short"), 0)
        taught = Taught(
            model="m", endpoint="e", audit=audit, bill=(), candidates={}, funnel=(), drops=(), diversity=(), **counts
        )
        return replace(run, taught=taught)

    return run_of


@pytest.fixture
def rows():
    return ledger_rows(AUGMENTED, FILTERED, ARMS)


def test_every_item_that_was_asked_for_has_a_row_with_what_became_of_it(rows):
    assert [row.kind for row in rows] == ["candidate"] * 8 + ["unparsed", "failed"]
    assert [row.id for row in rows] == [*(row.id for row in ROWS), f"{'f' * 16}:0", "f" * 16]
    assert [(row.dropped.by, row.dropped.reason, row.dropped.evidence) for row in rows[:5]] == EVIDENCE
    assert [row.dropped for row in rows[5:8]] == [None] * 3
    assert [row.arms for row in rows[:8]] == [()] * 5 + [(ArmName.COMBINED,)] * 3
    assert [row.votes for row in rows[:8]] == [None] * 3 + [VOTES] * 5
    assert (rows[8].reason, rows[9].failure) == ("no JSON object", "timeout")


def test_a_row_that_is_in_neither_half_is_an_error_of_ours():
    with pytest.raises(AssertionError):
        ledger_rows(AUGMENTED, replace(FILTERED, kept=FILTERED.kept[1:]), ARMS)


def test_the_ledger_is_read_back_as_it_was_written_whatever_characters_it_holds(rows, tmp_path, run_of):
    store = Store(tmp_path)
    lines = ledger_lines(rows)
    assert len(lines.splitlines()) == len(rows)
    assert {json.loads(line)["format"] for line in lines.splitlines()} == {1}
    store.save_run(run_of("a-1"), {"rows.jsonl": lines})
    assert store.ledger(store.run("a-1")) == rows


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{", "isn't a row of a ledger"),
        ("[]", "isn't a row of a ledger"),
        ('{"format": 1, "kind": "candidate"}', "isn't a row of a ledger"),
        ('{"format": 9}', "has format 9, this drllama reads 1"),
    ],
)
def test_a_line_that_is_no_row_is_named(rows, tmp_path, run_of, line, told):
    store = Store(tmp_path)
    store.save_run(run_of("a-1"), {"rows.jsonl": ledger_lines(rows[:1]) + line + "\n"})
    with pytest.raises(StoreError, match=rf"rows.jsonl line 2: {told}"):
        store.ledger(store.run("a-1"))


def test_a_run_without_a_ledger_says_so(tmp_path, run_of):
    store = Store(tmp_path)
    store.save_run(run_of("a-1"), {})
    with pytest.raises(StoreError, match=r"rows.jsonl: can't be read"):
        store.ledger(store.run("a-1"))
    store.save_run(replace(run_of("b-1"), taught=None), {})
    with pytest.raises(StoreError, match="run b-1 asked no teacher for rows"):
        store.ledger(store.run("b-1"))


def test_the_funnel_counts_what_got_how_far_by_method(rows):
    steps = funnel(rows, FILTERS)
    assert [(step.name, step.counts) for step in steps] == [
        ("asked", {"rewrite": 4, "new": 6}),
        ("parsed", {"rewrite": 3, "new": 5}),
        ("well formed", {"rewrite": 1, "new": 5}),
        ("unique", {"rewrite": 0, "new": 5}),
        ("clean", {"rewrite": 0, "new": 5}),
        ("label kept", {"rewrite": 0, "new": 4}),
        ("supported", {"rewrite": 0, "new": 3}),
        ("kept", {"rewrite": 0, "new": 3}),
    ]
    stopped = drop_counts(rows)
    assert sum(sum(one.counts.values()) for one in stopped) == 10 - 3
    assert {(one.by, one.reason) for one in stopped} == {
        *((by, why) for by, why, _ in EVIDENCE),
        ("unparsed", "no JSON object"),
        ("failed", "timeout"),
    }


def test_a_filter_that_the_funnel_doesn_t_know_of_is_an_error_of_ours(rows):
    with pytest.raises(AssertionError, match="isn't in the recipe"):
        funnel(rows, FILTERS[:-1])


def test_the_picture_of_a_funnel_narrows_and_stands_for_nothing_too():
    counts = {"asked": {"rewrite": 6, "new": 4}, "kept": {"rewrite": 1, "new": 4}}
    steps = [FunnelStep(name=name, counts=one) for name, one in counts.items()]
    picture = funnel_picture(steps)
    assert [bar.total for bar in picture.bars] == [10, 5]
    assert picture.bars[1].end - picture.left == pytest.approx((picture.bars[0].end - picture.left) / 2)
    assert [part.method for part in picture.key] == ["rewrite", "new"]
    assert funnel_picture([FunnelStep(name="asked", counts={})]).bars[0].end == picture.left
    assert funnel_picture([]).bars == ()


def test_distinct_n_is_the_share_of_different_words_in_any_script():
    assert distinct(["Does it help?", "Does it harm?"], 1) == 4 / 6
    assert distinct(["Does it help?", "Does it harm?"], 2) == 3 / 4
    assert distinct(["有效吗？", "有害吗？"], 1) == 4 / 6
    assert distinct([], 2) == distinct(["Why?"], 2) == 0


def test_copies_are_wholly_like_each_other_and_strangers_not_at_all():
    assert self_similarity(["Does it help older adults?"] * 3) == 1
    assert self_similarity(["Does it help older adults?", "Warum eigentlich?", "针灸有效吗？"]) == 0
    assert self_similarity(["Does it help older adults?"]) == self_similarity([]) == 0
    two = ["Does it help older adults?", "Does it help older people?"]
    assert 0.3 < self_similarity(two) < 0.9


def test_groups_are_compared_at_the_size_of_the_smallest_and_empty_ones_are_left_out():
    texts = [f"Is number {number} larger than {number * 7 % 5} in the {number % 3} groups?" for number in range(30)]
    real = many_rows(texts)
    found = diversity({"real": real, "written": real[:8] * 2, "kept": []}, LABELS)
    assert [(one.rows, one.num_rows, one.num_compared) for one in found] == [("real", 30, 16), ("written", 16, 16)]
    assert found[1].self_similarity == 1 > found[0].self_similarity
    assert found[1].distinct_2 < found[0].distinct_2
    assert found[0].label_shares == {"yes": 1, "no": 0, "maybe": 0}
    assert found[0].question_columns[0] <= found[0].question_columns[1] <= found[0].question_columns[2]
    assert diversity({"real": list(reversed(real))}, LABELS) == diversity({"real": real}, LABELS)
    assert diversity({"real": real[:1]}, LABELS)[0].question_columns == (len(texts[0]),) * 3
