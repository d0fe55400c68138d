"""A folder with a recipe, a store of its own, and students that follow a script."""

import json

from drllama import pipeline
from drllama.recipe import read_recipe
from drllama.replies import RequestStore
from drllama.store import Store
from drllama.teaching import Limits
from scripted_student import Script, write_questions, write_recipe

TEACHER = "teacher: {replay: {endpoint: recorded, model: large, recording: RECORDING}}\n"
ALL_ARMS = "augment: {new: {per_item: 2}, arms: [none, rewrite, new, combined]}\nevaluate: {bootstrap_samples: 100}\n"
DRUGS = ("aspirin", "warfarin", "insulin", "morphine")
RETOLD = "Told anew: the patients were given it twice a day for a month."


class Silent:
    """A progress that tells nobody."""

    def expect(self, units):
        """Hear nothing."""

    def work(self, activity, units=0):
        """Hear nothing."""

    def tell(self, line):
        """Hear nothing."""


class Bench:
    """Runs the folder's ``recipe.yaml``; whoever uses it writes that, and puts the script in the student's place."""

    def __init__(self, folder):
        self.folder, self.script, self.store = folder, Script(), Store(folder / "runs")

    def run(self, *assignments, cells=None, minutes=None, progress=None):
        with RequestStore(self.store.root / "replies.sqlite") as replies:
            return pipeline.run(
                read_recipe(self.folder / "recipe.yaml", assignments).recipe,
                kept=pipeline.Kept(store=self.store, replies=replies, cells=cells),
                limits=Limits(max_minutes=minutes),
                progress=progress or Silent(),
                command="drllama run recipe.yaml",
            )


class RecordedBench(Bench):
    """Four training questions, and a recorded teacher who writes twelve rows for them."""

    def __init__(self, folder):
        super().__init__(folder)
        write_questions(folder / "questions.jsonl", train=4, dev=3)
        self.record(
            {
                "id": f"{split}{number}",
                "rewrite": {
                    "question": f"Would doctors recommend {DRUGS[number]}?",
                    "long_answer": "So.",
                    "context": RETOLD,
                },
                "new": [
                    {"question": asked.format(DRUGS[number]), "label": "no", "long_answer": "No."}
                    for asked in ("Was the price of {} higher then?", "Will the price of {} fall soon?")
                ],
                "answer": "yes",
            }
            for split, size in (("train", 4), ("dev", 3))
            for number in range(size)
        )
        self.write(ALL_ARMS)

    def record(self, rows):
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (self.folder / "recorded.jsonl").write_text(lines, encoding="utf-8")

    def write(self, more):
        teacher = TEACHER.replace("RECORDING", str(self.folder / "recorded.jsonl"))
        write_recipe(self.folder / "recipe.yaml", self.folder / "questions.jsonl", more=teacher + more)
