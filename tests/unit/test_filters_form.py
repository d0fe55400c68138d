"""What a row shows by itself: each filter with rows that it must stop and rows that it must let pass."""

import json
from dataclasses import replace

import pytest
from candidates import CHINESE, LABELS, VITAMIN, candidate, many_rows

from drllama.filters.form import FormFilter, asking_objection
from drllama.filters.giveaway import label_objection, ordinary_labels
from drllama.filters.language import language_profile, script_objection
from drllama.filters.repetition import repetition
from drllama.recipe import Form
from drllama.types import Measured, Quoted

GOOD = "Does daily ascorbic acid lower the risk of regional pain syndrome after a broken wrist?"
RETOLD = (
    "Treatment of type I complex regional pain syndrome is only symptomatic. In this trial 416 patients with 427 "
    "broken wrists got placebo or vitamin C for fifty days. The syndrome developed in 8 of 328 fractures (2.4%) given "
    "vitamin C and in 10 of 99 (10.1%) given placebo (p=0.002)."
)


def reason(settings=None, parent=VITAMIN, train=(), **fields):
    """Why a row that is good but for these fields isn't kept; None: it is."""
    row = candidate(parent, **fields)
    (objection,) = FormFilter(settings or Form(), LABELS, (parent, *train)).check([row])
    return objection and objection.reason


def test_a_good_row_passes_in_english_and_in_chinese():
    assert reason(question=GOOD) is None
    assert reason(question=GOOD, context=RETOLD) is None
    assert reason(parent=CHINESE) is None
    assert reason(parent=CHINESE, question="慢性腰痛患者接受针灸后疼痛会减轻吗") is None
    assert reason(parent=CHINESE, question="针灸有效吗？") is None


@pytest.mark.parametrize(
    ("question", "why"),
    [
        ("Why?", "the question is too short"),
        ("有效？", "the question is too short"),
        (f"Does vitamin C {'and this and that other thing ' * 20}help?", "the question is too long"),
        ("Vitamin C lowers the risk of regional pain syndrome.", "the question asks nothing"),
        ("针灸减轻了慢性腰痛患者的疼痛。", "the question asks nothing"),
    ],
)
def test_questions_of_a_wrong_form_are_stopped(question, why):
    assert reason(question=question, parent=CHINESE if "针" in question or "效" in question else VITAMIN) == why


@pytest.mark.parametrize(
    "question",
    [
        "Does it work in practice?",
        "Does it work in practice",
        "Is it so? A randomised trial",
        "In older adults, is walking enough?",
        'Should one ask "why now?"',
        "Hilft Vitamin C gegen Schmerzen?",
        "هل يفيد فيتامين سي؟",
        "阿司匹林是否有效",
        "为什么要用阿司匹林",
        "ビタミンCは効きますか",
        "비타민 C가 도움이 됩니까",
    ],
)
def test_what_asks_is_a_question_with_or_without_a_mark(question):
    assert asking_objection(question) is None


@pytest.mark.parametrize("text", ["Hilft Vitamin C gegen Schmerzen", "See https://example.org/?q=1 for it", "有效。"])
def test_what_asks_nothing_is_no_question(text):
    assert asking_objection(text).reason == "the question asks nothing"


@pytest.mark.parametrize(
    "text",
    [
        "the patients were treated and " * 8,
        "pain pain pain pain pain pain pain pain pain",
        "ha" * 40,
        "疼痛减轻了疼痛减轻了疼痛减轻了疼痛减轻了疼痛减轻了疼痛减轻了",
        "การรักษาได้ผล" * 6,
    ],
)
def test_texts_that_go_in_circles_are_measured_and_stopped(text):
    assert repetition(text) > 0.5
    assert reason(long_answer=text, parent=CHINESE, settings=Form(same_script=False)) == "a text repeats itself"


@pytest.mark.parametrize("text", [VITAMIN.context, CHINESE.context, CHINESE.question, "", "?", "one two three four"])
def test_real_texts_hardly_repeat_themselves(text):
    assert repetition(text) < 0.1


def test_a_thousand_real_abstracts_stay_below_the_limit(shared_pubmedqa):
    rows = json.loads((shared_pubmedqa / "ori_pqal.json").read_text(encoding="utf-8"))
    most = max(repetition(" ".join(row["CONTEXTS"])) for row in rows.values())
    assert 0.2 < most < Form().max_repetition


@pytest.mark.parametrize(
    ("text", "source", "passes"),
    [
        ("维生素C能否预防疼痛综合征？", VITAMIN.context, False),
        ("Does acupuncture ease chronic low back pain?", CHINESE.context, False),
        ("Помогает ли витамин C?", VITAMIN.context, False),
        ("鍼治療は慢性腰痛の患者の痛みをやわらげますか", CHINESE.context, False),
        ("HIV会传染吗？", CHINESE.context, True),
        ("Is NF-κB raised in the β cells?", VITAMIN.context, True),
        ("Ist das so?", VITAMIN.context, True),
        ("123?", VITAMIN.context, True),
        ("", "", True),
    ],
)
def test_another_script_than_the_source_s_is_told(text, source, passes):
    assert (script_objection(text, source) is None) == passes


ENGLISH = [
    f"Was the treatment of the patients with drug {number} in the clinic better for the outcome than the other?"
    for number in range(30)
]


@pytest.mark.parametrize(
    ("text", "passes"),
    [
        (
            "Verbessert eine Behandlung mit Akupunktur die Schmerzen bei Patienten nach einer Fraktur der Hand?",
            False,
        ),
        ("La vitamina C reduce il rischio di dolore nei pazienti anziani dopo una frattura del polso sinistro?", False),
        ("Can the use of a daily dose of vitamin C lower the risk of pain after a fracture of the wrist?", True),
        ("Hilft Vitamin C?", True),  # too short to tell
    ],
)
def test_another_language_in_the_same_script_is_told_by_the_real_rows_own_words(text, passes):
    assert (language_profile(ENGLISH).objection(text) is None) == passes
    assert language_profile(ENGLISH[:19]).objection(text) is None  # too few rows to know a language by


def test_a_row_in_another_language_is_stopped_even_when_each_of_its_texts_is_short():
    german = {
        "question": "Hilft Akupunktur gegen Schmerzen im Rücken?",
        "long_answer": "Ja, deutlich weniger Schmerz nach vier Wochen.",
    }
    train = many_rows(ENGLISH)
    assert reason(**german, train=train) == "in another language than the real rows"
    assert reason(**german, train=train, settings=Form(same_script=False)) is None


@pytest.mark.parametrize(
    ("question", "label", "passes"),
    [
        ("Is the answer to whether it helps no?", "no", False),
        ("Does it help (yes) in older adults?", "yes", False),
        ("Would 'maybe' be said of the effect?", "maybe", False),
        ("Maybe it helps older adults, does it?", "maybe", False),
        ("Is there no difference between the groups?", "no", True),
        ("Is the effect known?", "no", True),
        ("Does it help, yes or no?", "yes", True),
        ("Does it help older adults?", "yes", True),
    ],
)
def test_a_question_that_names_its_label_is_stopped(question, label, passes):
    assert (label_objection(question, label, LABELS, ()) is None) == passes


def test_a_label_that_is_an_ordinary_word_of_real_questions_counts_only_where_it_stands_apart():
    labels = ("benign", "malignant")
    real = [replace(row, label="benign") for row in many_rows(["Is a malignant course likely?"])]
    ordinary = ordinary_labels(real, labels)
    assert ordinary == {"malignant"}
    assert label_objection("Is a malignant course seen?", "malignant", labels, ordinary) is None
    assert label_objection("Is a malignant course seen?", "malignant", labels, ()) is not None
    assert label_objection("Is the course malignant?", "malignant", labels, ordinary) is not None
    assert label_objection("Does vitamin A help?", "A", ("A", "B"), ()) is None


def test_the_label_may_stand_in_the_question_where_the_recipe_says_so():
    assert reason(question="Would one say yes to vitamin C after fractures?") == "the question names its label"
    assert reason(question="Would one say yes to vitamin C?", settings=Form(label_in_question=True)) is None


@pytest.mark.parametrize(
    "told",
    [
        VITAMIN.long_answer,
        "After wrist fractures, vitamin C reduced the prevalence of complex regional pain syndrome.",
        "Hence a daily dose of 500 mg for fifty days is to be recommended after wrist fractures.",
    ],
)
def test_a_retold_context_that_states_the_conclusion_is_stopped(told):
    stated = "a sentence of the retold context states the conclusion"
    assert reason(question=GOOD, context=f"{RETOLD} {told}") == stated
    assert reason(question=GOOD, context=RETOLD.replace(" The syndrome developed", f" {told} It developed")) == stated


def test_a_conclusion_word_for_word_is_found_wherever_it_stands():
    context = f"{VITAMIN.long_answer.split('. ')[0]}. {RETOLD} It was a trial. It was large. It was long."
    assert reason(question=GOOD, context=context) == "a sentence of the retold context states the conclusion"


def test_the_sentence_and_its_share_are_the_evidence():
    row = candidate(context=f"{RETOLD} {VITAMIN.long_answer}")
    (objection,) = FormFilter(Form(), LABELS, [VITAMIN]).check([row])
    assert objection.evidence == Quoted(
        text="Vitamin C reduces the prevalence of complex regional pain syndrome after wrist fractures.",
        measured=Measured(value=objection.evidence.measured.value, limit=0.4),
    )
    assert VITAMIN.long_answer not in objection.reason


def test_a_sentence_that_tells_the_aim_gives_nothing_away():
    aim = "The study asked what vitamin C does to the prevalence of pain syndromes after wrist fractures."
    assert reason(question=GOOD, context=f"{aim} {RETOLD} All were women. All were old.") is None


def test_a_chinese_context_that_states_the_conclusion_is_stopped():
    stated = "a sentence of the retold context states the conclusion"
    retold = "这项研究把240名慢性腰痛患者随机分成两组。八周后两组评分分别下降3.1分和2.9分（P=0.42）。"
    assert reason(parent=CHINESE, context=retold) is None
    assert (
        reason(parent=CHINESE, context=retold + "因此针灸不能进一步减轻慢性腰痛患者的疼痛，不推荐作为常规治疗。")
        == stated
    )


@pytest.mark.parametrize("told", ["Yes, it did.", "Yes.", "YES: fewer fell ill."])
def test_a_retold_context_that_gives_the_answer_is_stopped(told):
    assert reason(context=f"{RETOLD} {told}") == "a sentence of the retold context states the answer"


def test_a_context_that_the_source_has_is_never_looked_at():
    parent = replace(VITAMIN, context=f"{VITAMIN.long_answer} Yes.")
    assert reason(parent=parent, question=GOOD, method="new") is None
    assert reason(parent=replace(VITAMIN, context=""), question=GOOD) is None


def test_a_short_retold_context_is_stopped():
    assert reason(context="Told anew.") == "the retold context is too short"


def test_nothing_that_a_row_may_hold_breaks_the_filter_or_its_neighbours():
    poisons = ["", "\0", "?" * 5000, "\u202e", "a" * 100_000, "\ufffd" * 30, "(" * 300, "{{ 7 }}", "是" * 3000]
    rows = [candidate(question=GOOD)]
    rows += [candidate(question=one, context=one, long_answer=one or None) for one in poisons]
    rows += [candidate(question=GOOD)]
    objections = FormFilter(Form(), LABELS, [VITAMIN]).check(rows)
    assert (objections[0], objections[-1]) == (None, None)
    assert all(objections[1:-1])


def test_reasons_hold_none_of_the_row_s_words_so_that_equal_ones_can_be_counted():
    rows = [candidate(question=f"Vitamin {letter} lowers the risk of pain after fractures.") for letter in "CDE"]
    assert len({one.reason for one in FormFilter(Form(), LABELS, [VITAMIN]).check(rows)}) == 1
