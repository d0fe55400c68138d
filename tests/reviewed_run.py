"""A finished run whose teacher's rows somebody can review: rewrites and new questions, some dropped, in two scripts."""

import json
from pathlib import Path

from drllama import pipeline, plugins
from drllama.recipe import read_recipe
from drllama.replies import RequestStore
from drllama.store import Store
from drllama.teaching import Limits
from scripted_student import Script, write_recipe

FORMULA = '=HYPERLINK("http://evil.example") Does zinc shorten colds?'
MARKUP = "Does <script>alert(1)</script> & <b>yoga</b> ease pain in the lower back?"
CHINESE = "针灸是否能够安全地减轻偏头痛？"
NO_QUESTION = "Magnesium was given for cramps at night."
_CONTEXT = "Forty adults took part for eight weeks; half of them were given {}, the others a placebo."

# What is treated, the real question, its label, and what the teacher makes of it.
_TRAIN = (
    ("aspirin", "Does aspirin lower fever in adults?", "yes", "Does aspirin reliably lower fever in adults?"),
    ("a statin", "Are statins of use after a stroke?", "no", "Do people who survived strokes profit from a statin?"),
    ("zinc", "Does zinc shorten the common cold?", "maybe", FORMULA),
    ("magnesium", "Does magnesium stop cramps at night?", "yes", NO_QUESTION),
    ("针灸", "针灸能减轻偏头痛吗？", "no", CHINESE),
    ("yoga", "Does yoga ease low back pain?", "maybe", MARKUP),
)
_DEV = ("Is chess taught in most schools?", "Do bees sleep through the winter?", "Has Venice more bridges than Rome?")
_TEST = ("Will robots fold laundry soon?", "Can parrots count to seven?", "Was the tower finished by 1889?")
NUM_ROWS = 2 * len(_TRAIN)


def _question_rows():
    for number, (given, question, label, _) in enumerate(_TRAIN):
        yield {
            "id": f"train{number}",
            "question": question,
            "context": _CONTEXT.format(given),
            "label": label,
            "long_answer": f"The group that was given {given} fared differently.",
            "split": "train",
        }
    for split, questions in (("dev", _DEV), ("test", _TEST)):
        for number, question in enumerate(questions):
            row = {"id": f"{split}{number}", "question": question, "context": f"Someone asked: {question}"}
            yield {**row, "label": "yes", "long_answer": None, "split": split}


def _recorded_rows():
    for number, (given, _, label, rewrite) in enumerate(_TRAIN):
        invented = {
            "question": f"Were forty adults treated, and half of them with {given}?",
            "label": "yes",
            "long_answer": f"Forty took part.\nHalf of them got {given}.",
        }
        retold = {"question": rewrite, "long_answer": f"- The trial of {given} says {label}."}
        yield {"id": f"train{number}", "rewrite": retold, "new": [invented]}
    for number in range(len(_DEV)):
        yield {"id": f"dev{number}", "answer": "yes"}


def _write_lines(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


class Silent:
    """A progress that shows nothing."""

    def expect(self, units):
        pass

    def work(self, activity, units=0):
        pass

    def tell(self, line):
        """Hear nothing."""


def make_reviewed_run(folder: Path, monkeypatch, *assignments, decisions=()):
    """Carry out a recipe with a scripted student and a recorded teacher; return the run and its store."""
    questions, recipe, recording = folder / "questions.jsonl", folder / "recipe.yaml", folder / "recorded.jsonl"
    _write_lines(questions, _question_rows())
    _write_lines(recording, _recorded_rows())
    write_recipe(
        recipe,
        questions,
        more=f"""
teacher: {{replay: {{endpoint: recorded, model: m, recording: '{recording}'}}}}
augment: {{rewrite: {{per_item: 1, retell_context: false}}, new: {{per_item: 1}}, arms: [none, combined]}}
filters: {{form: {{same_script: false}}, duplicates: null}}
evaluate: {{bootstrap_samples: 100}}
""",
    )
    monkeypatch.setattr(plugins, "make_student", Script().make_student)
    store = Store(folder / "runs")
    with RequestStore(store.root / "replies.sqlite") as replies:
        run = pipeline.run(
            read_recipe(recipe, assignments).recipe,
            kept=pipeline.Kept(store=store, replies=replies, decisions=decisions),
            limits=Limits(),
            progress=Silent(),
            command="drllama run recipe.yaml",
        )
    return run, store
