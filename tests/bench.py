"""A folder with a recipe, a store of its own, and students that follow a script."""

from drllama import pipeline
from drllama.recipe import read_recipe
from drllama.replies import RequestStore
from drllama.store import Store
from drllama.teaching import Limits
from scripted_student import Script


class Silent:
    """A progress that tells nobody."""

    def expect(self, units):
        """Hear nothing."""

    def work(self, activity, units=0):
        """Hear nothing."""


class Bench:
    """Runs the folder's ``recipe.yaml``; whoever uses it writes that, and puts the script in the student's place."""

    def __init__(self, folder):
        self.folder, self.script, self.store = folder, Script(), Store(folder / "runs")

    def run(self, *assignments, cells=None, minutes=None, progress=None):
        with RequestStore(self.store.root / "replies.sqlite") as replies:
            return pipeline.run(
                read_recipe(self.folder / "recipe.yaml", assignments).recipe,
                store=self.store,
                replies=replies,
                limits=Limits(max_minutes=minutes),
                progress=progress or Silent(),
                command="drllama run recipe.yaml",
                cells=cells,
            )
