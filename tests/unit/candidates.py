"""Candidates for the tests of filters: rows that a teacher might have written for a few real ones."""

from dataclasses import replace

from drllama.types import Candidate, Example, Original, Synthetic, Task

LABELS = ("yes", "no", "maybe")
TASK = Task(name="t", instruction="Answer.", labels=LABELS, verbalizers={label: label for label in LABELS})

VITAMIN = Example(
    question="Can vitamin C prevent complex regional pain syndrome in patients with wrist fractures?",
    context=(
        "Complex regional pain syndrome type I is treated symptomatically.\n"
        "Four hundred and sixteen patients with 427 wrist fractures were randomly allocated to treatment with placebo "
        "or to treatment with 200, 500, or 1500 mg of vitamin C daily for fifty days. The effect of gender, age, "
        "fracture type, and cast-related complaints on the occurrence of complex regional pain syndrome was analyzed.\n"
        "The prevalence of complex regional pain syndrome was 2.4% in the vitamin C group and 10.1% in the placebo "
        "group (p=0.002); all of the affected patients were elderly women."
    ),
    long_answer=(
        "Vitamin C reduces the prevalence of complex regional pain syndrome after wrist fractures. A daily dose of "
        "500 mg for fifty days is recommended."
    ),
    label="yes",
    split="train",
    group="17606778",
    origin=Original(source="pubmedqa", source_id="17606778"),
)
CHINESE = Example(
    question="针灸能否减轻慢性腰痛患者的疼痛？",
    context=(
        "慢性腰痛是常见的健康问题。研究纳入了240名患者，随机分为针灸组与对照组，治疗持续八周。"
        "八周后针灸组的疼痛评分下降了3.1分，对照组下降了2.9分，两组之间的差别没有统计学意义（P=0.42）。"
    ),
    long_answer="针灸与对照治疗相比不能进一步减轻慢性腰痛患者的疼痛，不推荐作为常规治疗手段。",
    label="no",
    split="train",
    group="cn1",
    origin=Original(source="cn", source_id="cn1"),
)


def candidate(parent=VITAMIN, *, method="rewrite", call="c" * 64, place=0, **fields):
    """A candidate that was made from a real row, alike in all that isn't named."""
    origin = Synthetic(method=method, parents=(parent.id,), call=call, place=place)
    return Candidate(example=replace(parent, origin=origin, **fields), prompt=f"{method}.v1", rollout=0)


def many_rows(texts):
    """Real rows with these questions."""
    return [
        replace(VITAMIN, question=text, group=f"g{number}", origin=Original(source="s", source_id=f"r{number}"))
        for number, text in enumerate(texts)
    ]
