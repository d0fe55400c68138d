"""Filtering with a teacher: who is asked, what is asked, and that no threshold asks anything again."""

import asyncio
import json
from dataclasses import replace

import pytest
from candidates import LABELS, TASK, VITAMIN, candidate

from drllama import teachers
from drllama.errors import RecipeError, TeacherFailure
from drllama.filters.review import review
from drllama.parsing import parse_judgement
from drllama.recipe import Filters
from drllama.replies import RequestStore
from drllama.stages.correspond import Correspondent
from drllama.stages.filter import FilterBench, filter_candidates
from drllama.types import (
    FailureKind,
    Finish,
    Judgement,
    Original,
    Reply,
    ReplyForm,
    Splits,
    Unparsed,
    Votes,
)

WRITER = Correspondent(endpoint="scripted", model="m", form=ReplyForm.SCHEMA)
DEV = replace(
    VITAMIN,
    question="Is walking good for the heart?",
    split="dev",
    group="d",
    context="Walkers were followed up.",
    origin=Original(source="s", source_id="dev"),
)
SPLITS = Splits(train=(VITAMIN,), dev=(DEV,), test=())
TOPICS = ("pain", "swelling", "stiffness", "fever", "fatigue", "insomnia")
ROWS = [
    candidate(
        method="new", call=f"{number:016x}{'0' * 48}", label=LABELS[number % 3],
        question=f"Was {topic} after wrist fractures rarer with vitamin C than with placebo?",
        long_answer=f"As far as {topic} goes, nothing else is told.",
    )
    for number, topic in enumerate(TOPICS)
]  # fmt: skip


class Silent:
    def expect(self, units):
        """Hear nothing."""

    def work(self, activity, units=0):
        """Hear nothing."""

    def tell(self, line):
        """Hear nothing."""


class Scripted:
    """A teacher in memory behind a store; ``answer`` gives a text or a failure."""

    endpoint = "scripted"

    def __init__(self, answer):
        self._answer, self.asked = answer, []

    async def ask(self, request):
        self.asked.append(request)
        answer = self._answer(request)
        if isinstance(answer, TeacherFailure):
            raise answer
        return Reply(text=answer, finish=Finish.STOP, tokens_in=5, tokens_out=7, seconds=0, cost_usd=None)


async def ask_all(teacher, requests):
    async for one in teachers.ask_all(teacher, requests, in_flight=3):
        yield one


def bench_of(teacher, settings, splits=SPLITS):
    return FilterBench(
        teacher=teacher,
        ask_all=ask_all,
        correspondent=WRITER,
        splits=splits,
        task=TASK,
        settings=Filters.model_validate(settings),
        progress=Silent(),
    )


def sift(teacher, settings, rows=ROWS, splits=SPLITS):
    return asyncio.run(filter_candidates(bench_of(teacher, settings, splits), review(rows, ())))


def failure(kind=FailureKind.BAD_REQUEST):
    return TeacherFailure(f"scripted {kind}", kind=kind)


def text_of(request):
    return request.messages[-1].content


LABEL = {"duplicates": None, "label": {"votes": 1}}


def test_the_question_is_asked_blind_from_the_row_s_own_context():
    retold = "Four hundred and sixteen patients with broken wrists got either placebo or the vitamin."
    row = replace(ROWS[0], example=replace(ROWS[0].example, context=retold, long_answer="A telling long answer."))
    teacher = Scripted(lambda request: '{"label": "yes"}')
    found = sift(teacher, LABEL, [row])
    (request,) = teacher.asked
    assert (request.prompt, request.rollout) == ("answer.v1", 0)
    assert row.example.question in text_of(request)
    assert retold in text_of(request)
    assert "A telling long answer." not in text_of(request)
    assert VITAMIN.context not in text_of(request)
    assert (found.kept, found.dropped) == ((row,), ())


def test_votes_stay_with_every_row_that_was_voted_on_and_only_those_are_asked_about_that_got_so_far():
    short = candidate(call="f" * 64, question="Why so?")
    teacher = Scripted(lambda request: json.dumps({"label": "yes"}))
    found = sift(teacher, LABEL, [*ROWS, short])
    assert len(teacher.asked) == len(ROWS)
    assert set(found.votes) == {row.id for row in ROWS}
    assert [row.example.label for row in found.kept] == ["yes", "yes"]
    assert {one.candidate.id: one.by for one in found.dropped} == {
        short.id: "form",
        **{row.id: "label" for row in ROWS if row.example.label != "yes"},
    }
    assert len(found.kept) + len(found.dropped) == len(ROWS) + 1


def test_several_votes_are_several_draws_and_silent_ones_count_as_no_agreement():
    answers = ['{"label": "yes"}', "Well, it depends.", failure()]
    teacher = Scripted(lambda request: answers[request.rollout])
    several = {"votes": 3, "agreement": 0.3, "sampling": {"temperature": 0.8}}
    found = sift(teacher, {"duplicates": None, "label": several}, ROWS[:1])
    assert sorted(request.rollout for request in teacher.asked) == [0, 1, 2]
    assert found.votes[ROWS[0].id] == Votes(counts={"yes": 1, "no": 0, "maybe": 0}, num_unparsed=1, num_failed=1)
    assert found.kept == (ROWS[0],)


def test_rows_that_read_alike_are_asked_once():
    twins = [ROWS[0], replace(ROWS[0], example=replace(ROWS[0].example, origin=ROWS[1].example.origin))]
    teacher = Scripted(lambda request: '{"label": "yes"}')
    assert len(sift(teacher, LABEL, twins).votes) == 2
    assert len(teacher.asked) == 1


def test_a_teacher_that_answers_nothing_at_all_stops_the_work_and_one_lost_answer_doesn_t():
    with pytest.raises(TeacherFailure, match="no request got a reply; the first: scripted bad request"):
        sift(Scripted(lambda request: failure()), LABEL)
    found = sift(Scripted(lambda request: failure() if "fever" in text_of(request) else '{"label": "yes"}'), LABEL)
    (lost,) = [one for one in found.dropped if one.reason == "no blind answer could be read"]
    assert "fever" in lost.candidate.example.question


@pytest.mark.parametrize(
    "change",
    [
        {"label": {"votes": 3, "agreement": 0.3, "sampling": {"temperature": 0.8}}},
        {"label": {"votes": 2, "agreement": 0.9, "sampling": {"temperature": 0.8}}},
        {"form": {"max_repetition": 0.2}},
        {"form": {"max_question_characters": 60}},
        {"balance": {"at_most": 2}},
        {"label": None},
        {"order": ["label", "judge", "form", "leaks", "duplicates", "balance"]},
    ],
)
def test_other_thresholds_and_another_order_send_no_request(tmp_path, change):
    settings = {
        "duplicates": None,
        "label": {"votes": 3, "agreement": 0.9, "sampling": {"temperature": 0.8}},
        "judge": {},
    }
    answer = json.dumps({"reason": "It is said.", "supported": "yes", "label": "yes"})
    teacher = Scripted(lambda request: answer)
    with RequestStore(tmp_path / "replies.sqlite") as replies:
        kept = teachers.Stored(teachers.Kept(teacher, replies), replies)
        first = sift(kept, settings, ROWS)
        sent = len(teacher.asked)
        assert sent >= 3 * len(ROWS)
        again = sift(kept, settings | change, ROWS)
        judged_anew = len(set(again.judgements) - set(first.judgements))
    assert len(teacher.asked) == sent + judged_anew  # only rows that get further than before are asked about


def test_the_judge_sees_the_source_s_context_and_the_proposed_answer():
    row = replace(ROWS[0], example=replace(ROWS[0].example, context="Told anew: the patients got it every day."))
    teacher = Scripted(lambda request: json.dumps({"reason": "So.", "supported": "yes", "label": "yes"}))
    found = sift(teacher, {"duplicates": None, "judge": {}}, [row])
    (request,) = teacher.asked
    assert request.prompt == "judge.v1"
    for part in (VITAMIN.context, row.example.question, "Proposed answer: yes", row.example.long_answer):
        assert part in text_of(request)
    assert row.example.context not in text_of(request)
    assert found.judgements == {row.id: Judgement(supported=True, label="yes", reason="So.")}
    assert (found.kept, found.unjudged) == ((row,), ())


def test_one_poisoned_verdict_hurts_its_own_row_only_and_is_neither_a_pass_nor_a_fail():
    def answer(request):
        if "fever" in text_of(request):
            return failure()
        clear = '{"reason": "-", "supported": "yes", "label": "yes"}'
        return "\ud800 {" if "pain after" in text_of(request) else clear

    rows = [replace(row, example=replace(row.example, label="yes")) for row in ROWS]
    found = sift(Scripted(answer), {"duplicates": None, "judge": {}}, rows)
    assert set(found.unjudged) == {rows[0].id, rows[3].id}
    assert {one.candidate.id: (one.by, one.reason) for one in found.dropped} == dict.fromkeys(
        found.unjudged, ("judge", "unjudged")
    )
    assert set(found.judgements) == {row.id for row in rows} - set(found.unjudged)
    assert len(found.kept) == 4


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("no", "no JSON object"),
        ('{"supported": "yes", "label": "yes"}', "no text 'reason'"),
        ('{"reason": "r", "supported": "partly", "label": "yes"}', "'supported' is neither yes nor no"),
        ('{"reason": "r", "supported": true, "label": "yes"}', "'supported' is empty or no text"),
        ('{"reason": "r", "supported": "yes", "label": "unsure"}', "label not one of yes, no, maybe"),
        ('{"reason": "r", "supported": "yes"', "a JSON object that doesn't end or is broken"),
    ],
)
def test_a_verdict_that_isn_t_clear_is_unparsed(text, reason):
    found = parse_judgement(text, TASK)
    assert isinstance(found, Unparsed)
    assert found.reason == reason


def test_a_share_for_a_label_that_isn_t_there_is_refused_before_anything_is_asked():
    teacher = Scripted(lambda request: '{"label": "yes"}')
    with pytest.raises(RecipeError, match="the task has no label 'ja'; its labels are yes, no, maybe"):
        sift(teacher, {"label": {"votes": 1}, "balance": {"shares": {"ja": 1.0}}})
    assert teacher.asked == []
