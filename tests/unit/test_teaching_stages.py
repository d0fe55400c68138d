import asyncio
import json
import random
from dataclasses import replace
from types import SimpleNamespace

import pytest

from drllama import teachers
from drllama.errors import DataError, TeacherFailure
from drllama.recipe import Augment, New, Recipe, Rewrite
from drllama.replies import RequestStore
from drllama.stages.audit import audit_teacher
from drllama.stages.augment import augment_examples, first_requests
from drllama.stages.bill import Bill
from drllama.stages.correspond import Correspondent
from drllama.stages.plan import Pilot, Price, minutes_needed, plan_part
from drllama.stages.recordings import recorded_calls
from drllama.types import Example, FailureKind, Finish, Original, Outcome, Reply, ReplyForm, Synthetic, Task

LABELS = ("yes", "no", "maybe")
TASK = Task(name="t", instruction="Answer.", labels=LABELS, verbalizers={label: label for label in LABELS})
WRITER = Correspondent(endpoint="scripted", model="m", form=ReplyForm.SCHEMA)
SILENT = SimpleNamespace(expect=lambda units: None, work=lambda activity, units=0: None, tell=lambda line: None)
RECIPE = Recipe.model_validate(
    {"name": "r", "data": {"jsonl": {"path": "q.jsonl"}}, "evaluate": {"bootstrap_samples": 100}}
)
REWRITE_ONLY = Augment(rewrite=Rewrite(per_item=2), new=None)
NEW_ONLY = Augment(rewrite=None, new=New(per_item=2))


def example(number, *, split="train", label=None, options=()):
    return Example(
        question=f"Does treatment {number} of {split} help?",
        context=f"Treatment {number} was given.",
        options=options,
        long_answer="It was seen.",
        label=label or LABELS[number % 3],
        split=split,
        group=f"document {number}",
        origin=Original(source="s", source_id=f"{split}{number}"),
    )


TRAIN = [example(number) for number in range(4)]


class Scripted:
    """A teacher in memory; ``answer`` gives a text, or a failure, for a request."""

    endpoint = "scripted"

    def __init__(self, answer):
        self._answer = answer
        self.asked = []

    async def ask(self, request):
        self.asked.append(request)
        await asyncio.sleep(0)
        answer = self._answer(request)
        if isinstance(answer, TeacherFailure):
            raise answer
        return Reply(text=answer, finish=Finish.STOP, tokens_in=5, tokens_out=7, seconds=0, cost_usd=None)


async def ask_in_order(teacher, requests):
    async for one in teachers.ask_all(teacher, requests, in_flight=3):
        yield one


async def ask_shuffled(teacher, requests):
    """Give the outcomes in another order than that of asking."""
    found = [one async for one in ask_in_order(teacher, requests)]
    random.Random(5).shuffle(found)
    for one in found:
        yield one


def failure(kind=FailureKind.BAD_REQUEST):
    return TeacherFailure(f"scripted {kind}", kind=kind)


def user_text(request):
    return request.messages[-1].content


def good(request):
    """Answer what was asked for."""
    if request.prompt == "rewrite.v1":
        return json.dumps({"question": f"In other words {request.rollout}?", "long_answer": "So.", "context": "Told."})
    if request.prompt == "new.v1":
        items = [
            {"question": f"New {request.rollout} {place}?", "label": "no", "long_answer": "No."} for place in (0, 1)
        ]
        return json.dumps({"items": items})
    return '{"label": "yes"}'


def audited(answer, dev, train=TRAIN, ask_all=ask_in_order):
    teacher = Scripted(answer)
    found = asyncio.run(
        audit_teacher(
            teacher, ask_all, correspondent=WRITER, train=train, dev=dev, task=TASK, recipe=RECIPE, progress=SILENT
        )
    )
    return found, teacher


def augmented(answer, settings, train=TRAIN, ask_all=ask_in_order):
    teacher = answer if hasattr(answer, "ask") else Scripted(answer)
    found = asyncio.run(
        augment_examples(
            teacher, ask_all, correspondent=WRITER, train=train, task=TASK, settings=settings, progress=SILENT
        )
    )
    return found, teacher


def test_answers_that_can_t_be_read_and_questions_without_a_reply_are_counted_apart():
    dev = [example(number, split="dev", label="yes") for number in range(6)]
    script = {0: '{"label": "yes"}', 1: "Yes!", 2: '{"label": "no"}', 3: "perhaps", 4: '{"label": "ye', 5: failure()}

    found, _ = audited(lambda request: script[int(user_text(request).split("treatment ")[1][0])], dev)

    assert found.teacher.counts == {
        Outcome.CORRECT: 2,
        Outcome.WRONG: 1,
        Outcome.UNPARSED: 2,
        Outcome.FAILED: 1,
    }
    assert found.teacher.metrics["accuracy"].value == pytest.approx(2 / 6)
    assert found.failures == {"scripted bad request": 1}
    assert "dev questions, 1 of which got no reply and count as wrong, majority" in found.verdict
    assert [one.source_id for one in found.teacher.predictions] == [f"dev{number}" for number in range(6)]
    assert [one.choice for one in found.teacher.predictions] == ["yes", "yes", "no", None, None, None]


def test_a_teacher_that_knows_the_domain_may_write_new_questions():
    dev = [example(number, split="dev") for number in range(60)]
    label_of = {one.question: one.label for one in dev}

    def knows(request):
        return json.dumps(
            {"label": next(label for question, label in label_of.items() if question in user_text(request))}
        )

    found, _ = audited(knows, dev)
    assert found.may_write_new
    assert found.verdict.startswith("The teacher is clearly better than the majority answer (accuracy 1.000 [")


def test_a_teacher_that_always_says_yes_should_not_write_new_questions():
    found, _ = audited(good, [example(number, split="dev") for number in range(60)])
    assert not found.may_write_new
    assert "isn't clearly better" in found.verdict
    assert "majority 0.333" in found.verdict


def test_two_dev_questions_that_read_alike_are_asked_once_and_counted_for_both():
    twin = replace(example(0, split="dev", label="no"), origin=Original(source="s", source_id="twin"))
    dev = [example(0, split="dev", label="yes"), twin, example(2, split="dev", label="yes")]
    found, teacher = audited(good, dev)
    assert len(teacher.asked) == 2
    assert [(one.source_id, one.gold, one.outcome) for one in found.teacher.predictions] == [
        ("dev0", "yes", Outcome.CORRECT),
        ("twin", "no", Outcome.WRONG),
        ("dev2", "yes", Outcome.CORRECT),
    ]


def test_the_order_of_replies_changes_no_audit():
    dev = [example(number, split="dev") for number in range(9)]
    assert audited(good, dev)[0] == audited(good, dev, ask_all=ask_shuffled)[0]


def test_an_audit_without_any_reply_is_an_error_and_no_verdict():
    with pytest.raises(TeacherFailure, match="no dev question got a reply; the first: scripted bad request"):
        audited(lambda _: failure(), [example(0, split="dev")])


def test_each_source_gets_exactly_what_was_wanted_of_it():
    found, teacher = augmented(good, Augment(rewrite=Rewrite(per_item=3), new=New(per_item=2)))
    assert len(teacher.asked) == found.num_requests == 4 * (3 + 1)
    assert (found.spare, found.short_of, found.unparsed, found.failed) == (0, {}, (), ())
    for parent in TRAIN:
        methods = [one.example.origin.method for one in found.candidates if one.example.group == parent.group]
        assert methods == ["rewrite"] * 3 + ["new"] * 2


def test_a_candidate_tells_where_it_comes_from():
    found, teacher = augmented(good, Augment(rewrite=Rewrite(), new=New()), train=TRAIN[1:2])
    (parent,) = TRAIN[1:2]
    rewritten, *invented = found.candidates
    keys = {request.prompt: request.key for request in teacher.asked}
    assert rewritten.example == replace(
        parent,
        question="In other words 0?",
        long_answer="So.",
        context="Told.",
        origin=Synthetic(method="rewrite", parents=(parent.id,), call=keys["rewrite.v1"], place=0),
    )
    assert (rewritten.prompt, rewritten.rollout) == ("rewrite.v1", 0)
    assert [one.example.origin.place for one in invented] == [0, 1]
    for one in invented:
        assert (one.example.context, one.example.label, one.example.split) == (parent.context, "no", "train")
        assert (one.example.origin.parents, one.example.origin.call) == ((parent.id,), keys["new.v1"])


def test_a_second_round_asks_only_for_what_is_short_and_draws_anew():
    def forgetful(request):
        short = "treatment 2" in user_text(request) and request.rollout == 1
        return "I can't." if short else good(request)

    found, teacher = augmented(forgetful, REWRITE_ONLY)
    assert [("treatment 2" in user_text(one), one.rollout) for one in teacher.asked[8:]] == [(True, 2)]
    assert len(found.candidates) == 8
    assert [(one.asking.parents[0], one.asking.prompt, one.unparsed.text) for one in found.unparsed] == [
        (TRAIN[2].id, "rewrite.v1", "I can't.")
    ]
    assert found.unparsed[0].asking.call in {one.key for one in teacher.asked}


def test_a_second_round_of_new_questions_asks_only_for_the_short_sources():
    def half(request):
        first = "treatment 0" in user_text(request).lower() and request.rollout == 0
        items = json.loads(good(request))["items"]
        return json.dumps({"items": items[:1] if first else items})

    found, teacher = augmented(half, NEW_ONLY)
    assert len(teacher.asked) == 5
    assert len(found.candidates) == 8
    assert found.spare == 1


def test_the_same_question_again_is_no_second_item_of_its_source():
    """The twin of a rewrite is asked for again; the one of a new question is made up for by another reply."""

    def repeating(request):
        if request.prompt == "rewrite.v1":
            asked = "Does it  HELP?" if request.rollout == 1 else f"Does it help{'?' * (1 + request.rollout)}"
            return json.dumps({"question": asked, "long_answer": str(request.rollout), "context": "Told."})
        items = [{"question": f"New {request.rollout}?", "label": "no", "long_answer": "No."}] * 2
        return json.dumps({"items": items})

    settings = Augment(rewrite=Rewrite(per_item=2), new=New(per_item=2))
    found, teacher = augmented(repeating, settings, train=TRAIN[:1])
    assert [one.example.question for one in found.candidates] == [
        "Does it help?",
        "Does it help???",
        "New 0?",
        "New 1?",
    ]
    assert (found.duplicates, found.spare, found.short_of) == (1 + 2, 0, {})
    assert len(teacher.asked) == (2 + 1) + (1 + 1)


def test_two_sources_may_give_the_same_question():
    found, _ = augmented(good, NEW_ONLY)
    assert (len(found.candidates), found.duplicates) == (8, 0)


def test_a_teacher_that_only_repeats_itself_leaves_its_sources_short():
    same = json.dumps({"question": "Again?", "long_answer": "So.", "context": "Told."})
    found, teacher = augmented(lambda _: same, REWRITE_ONLY)
    assert found.short_of == {f"{one.id} rewrite": 1 for one in TRAIN}
    assert (len(found.candidates), found.duplicates) == (4, 4 * (2 + 1 + 1) - 4)
    assert len(teacher.asked) == found.num_requests == 16


def test_the_number_of_rounds_is_bounded_and_what_is_short_is_told():
    def stubborn(request):
        if "treatment 1" in user_text(request).lower():
            return failure(FailureKind.CONTENT_FILTER)
        return "no" if "treatment 3" in user_text(request).lower() else good(request)

    found, teacher = augmented(stubborn, REWRITE_ONLY.model_copy(update={"max_attempts": 2}))
    assert len(teacher.asked) == found.num_requests == 8 + 4
    assert len({one.key for one in teacher.asked}) == 12
    assert len(found.candidates) == 4
    assert found.short_of == {f"{TRAIN[1].id} rewrite": 2, f"{TRAIN[3].id} rewrite": 2}
    assert [(one.asking.parents, one.kind) for one in found.failed] == [((TRAIN[1].id,), "content filter")] * 4
    assert {one.asking.parents for one in found.unparsed} == {(TRAIN[3].id,)}
    assert len(found.candidates) + len(found.unparsed) + len(found.failed) + found.spare == found.num_requests


def test_the_order_of_replies_changes_no_candidate():
    def moody(request):
        return "?" if request.rollout == 1 else good(request)

    settings = Augment(rewrite=Rewrite(per_item=2), new=New())
    assert augmented(moody, settings)[0] == augmented(moody, settings, ask_all=ask_shuffled)[0]


@pytest.mark.parametrize("settings", [REWRITE_ONLY, NEW_ONLY])
def test_rows_that_read_alike_get_candidates_of_their_own(settings):
    twin = replace(TRAIN[0], origin=Original(source="s", source_id="twin"))
    found, teacher = augmented(good, settings.model_copy(update={"max_attempts": 1}), train=[TRAIN[0], twin])
    assert found.short_of == {}
    assert len({one.key for one in teacher.asked}) == len(teacher.asked) == found.num_requests
    assert len({one.example.question for one in found.candidates}) == len(found.candidates) == 4


def test_new_questions_have_answer_options_where_their_source_has_them():
    def asked(request):
        if request.prompt != "new-options.v1":
            return good(request)
        items = [
            {
                "question": "Which helps?",
                "options": [f"rest {place}", "tea", "nothing"],
                "label": "no",
                "long_answer": "So.",
            }
            for place in (0, 1)
        ]
        return json.dumps({"items": items})

    train = [example(0, label="yes", options=("so", "not so", "both")), example(1)]
    found, _ = augmented(asked, Augment(rewrite=Rewrite(), new=New(per_item=2)), train=train)
    assert [(one.example.origin.method, one.prompt, one.example.options) for one in found.candidates] == [
        ("rewrite", "rewrite.v1", ("so", "not so", "both")),
        ("new", "new-options.v1", ("rest 0", "tea", "nothing")),
        ("new", "new-options.v1", ("rest 1", "tea", "nothing")),
        ("rewrite", "rewrite.v1", ()),
        ("new", "new.v1", ()),
        ("new", "new.v1", ()),
    ]
    assert (found.duplicates, found.unparsed) == (0, ())


def test_an_augmentation_without_any_reply_is_an_error():
    with pytest.raises(TeacherFailure, match="no request got a reply; the first: scripted bad request"):
        augmented(lambda _: failure(), REWRITE_ONLY)


def test_a_refused_key_stops_the_stage_and_the_next_call_sends_only_the_rest(tmp_path):
    answered = []

    def until_the_key_expires(request):
        answered.append(request.key)
        return good(request) if len(answered) <= 4 else failure(FailureKind.AUTH)

    with RequestStore(tmp_path / "replies.sqlite") as replies:

        def wrapped(teacher):
            return teachers.Stored(teachers.Kept(teacher, replies), replies)

        with pytest.raises(TeacherFailure, match="scripted auth"):
            augmented(wrapped(Scripted(until_the_key_expires)), REWRITE_ONLY)
        assert len(answered) <= 4 + 3  # those on their way

        fresh = Scripted(good)
        found, _ = augmented(wrapped(fresh), REWRITE_ONLY)
        assert {one.key for one in fresh.asked}.isdisjoint(answered[:4])
        assert len(fresh.asked) == 8 - 4
        assert found == augmented(good, REWRITE_ONLY)[0]

        idle = Scripted(lambda _: failure())
        assert augmented(wrapped(idle), REWRITE_ONLY)[0] == found
        assert idle.asked == []


def planned(*, kept=(), pilot=None, price=None):
    requests = first_requests(WRITER, TRAIN, TASK, REWRITE_ONLY)
    return plan_part(
        "rewrite.v1",
        requests,
        is_kept=lambda key: key in {requests[place].key for place in kept},
        count_tokens=lambda text: 10,
        pilot=pilot,
        price=price,
    )


PRICE = Price(usd_per_million_in=1, usd_per_million_out=100, source="test")


def test_a_bill_adds_up_each_reply_once_and_a_price_that_nobody_told_stays_unknown():
    bill = Bill()
    audited(good, [example(0, split="dev")] * 2, ask_all=bill.noting(ask_in_order))
    for _ in range(2):  # Asked again, kept replies are no new expense.
        augmented(good, REWRITE_ONLY, ask_all=bill.noting(ask_shuffled))
    told = [(one.prompt, one.num_replies, one.tokens_in, one.tokens_out, one.num_untold) for one in bill.lines]
    assert told == [("answer.v1", 1, 5, 7, 0), ("rewrite.v1", 8, 40, 56, 0)]
    assert [(one.usd, one.num_unpriced) for one in bill.lines] == [(0.0, 1), (0.0, 8)]


def test_a_plan_counts_what_is_still_to_be_sent():
    part = planned(kept=(0, 5), price=PRICE)
    assert (part.num_requests, part.num_kept) == (8, 2)
    assert part.tokens_in == 6 * 2 * 10
    assert part.tokens_out == 6 * 1024
    assert part.tokens_out_from == "assumed: every reply as long as allowed"
    assert part.cost_usd == pytest.approx((120 * 1 + 6144 * 100) / 1e6)


def test_a_pilot_tells_the_length_of_replies():
    part = planned(pilot=Pilot(num_replies=12, mean_tokens_out=50.5), price=PRICE)
    assert (part.tokens_out, part.tokens_out_from) == (404, "mean of 12 replies")


def test_an_unknown_price_is_an_unknown_cost_unless_nothing_is_sent():
    assert planned().cost_usd is None
    assert planned(kept=range(8)).cost_usd == 0


def test_the_slower_rate_decides_how_long_it_takes():
    part = planned()
    assert minutes_needed([part], requests_per_minute=None, tokens_per_minute=None) is None
    assert minutes_needed([part], requests_per_minute=4, tokens_per_minute=None) == 2
    assert minutes_needed([part], requests_per_minute=4, tokens_per_minute=80) == (160 + 8192) / 80


RECORDED = {
    "id": "train0",
    "rewrite": {"question": "Anew?", "long_answer": "So.", "context": "Told."},
    "new": [
        {"question": "Else?", "label": "no", "long_answer": "No."},
        {"question": "?!", "label": "yes", "long_answer": "Y."},
    ],
    "answer": "maybe",
}


def recorded(*items, find=lambda key: None, examples=TRAIN, unknown=()):
    lines = [one if isinstance(one, str) else json.dumps(one) for one in items]
    recipe = RECIPE.model_copy(update={"augment": Augment()})
    found = recorded_calls(
        lines, where="r.jsonl", correspondent=WRITER, examples=examples, find=find, task=TASK, recipe=recipe
    )
    assert found.unknown_ids == tuple(unknown)
    return [(call.request, call.reply) for call in found.calls]


def test_a_recording_answers_exactly_the_requests_that_the_stages_make():
    kept = {request.key: reply.text for request, reply in recorded(RECORDED)}
    asked = first_requests(WRITER, TRAIN[:1], TASK, Augment())
    assert set(kept) == {one.key for one in asked} | {WRITER.answer(TRAIN[0], TASK, RECIPE.audit).key}
    found, _ = augmented(lambda request: kept[request.key], Augment(), train=TRAIN[:1])
    assert [one.example.question for one in found.candidates] == ["Anew?", "Else?", "?!"]


def test_blind_answers_to_candidates_are_told_with_the_candidate_they_answer():
    kept = {request.key: reply for request, reply in recorded(RECORDED)}
    found, _ = augmented(lambda request: kept[request.key].text, Augment(), train=TRAIN[:1])
    votes = recorded({"id": "train0", "rewrite": "yes", "new": ["no", "maybe"]}, find=kept.get)
    assert {request.key: json.loads(reply.text)["label"] for request, reply in votes} == {
        WRITER.answer(one.example, TASK, RECIPE.audit).key: label
        for one, label in zip(found.candidates, ["yes", "no", "maybe"], strict=True)
    }


def test_several_rewrites_of_an_item_are_several_draws():
    two = [RECORDED["rewrite"], {**RECORDED["rewrite"], "question": "Again?"}]
    assert [request.rollout for request, _ in recorded({"id": "train0", "rewrite": two})] == [0, 1]


def test_an_item_that_the_recipe_doesn_t_have_is_passed_over_and_told():
    assert recorded({**RECORDED, "id": "elsewhere"}, "", "  ", {"id": 7}, unknown=["elsewhere", "7"]) == []


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "not a JSON object with an id"),
        ("[1]", "not a JSON object with an id"),
        ('"train0"', "not a JSON object with an id"),
        ('{"rewrite": {}}', "not a JSON object with an id"),
        ({"id": "train0", "new": {"question": "?"}}, "'new' isn't a list"),
        ({"id": "train0", "answer": 1}, "a blind answer is a label's text, not 1"),
        ({"id": "train0", "rewrite": 7}, "a blind answer is a label's text, not 7"),
        ({"id": "train1", "rewrite": 7}, "isn't kept here"),
        ({"id": "train1", "rewrite": "yes"}, "import the recording that holds it first"),
        ({"id": "train1", "new": ["yes", "no"]}, "import the recording that holds it first"),
    ],
)
def test_a_bad_line_is_named(line, said):
    with pytest.raises(DataError) as told:
        recorded(RECORDED, line)
    assert str(told.value).startswith("r.jsonl line 2: ")
    assert said in str(told.value)
    assert "\n" not in str(told.value)


def test_an_id_of_two_questions_is_no_name():
    twins = [example(0), replace(example(1), origin=Original(source="s", source_id="train0"))]
    with pytest.raises(DataError, match="line 1: 2 questions have the id train0"):
        recorded(RECORDED, examples=twins)
