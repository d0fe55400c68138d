"""Which part answers to which name, and the wiring of a recipe: the only place that knows both sides of an edge."""

from importlib import import_module
from typing import Any

from drllama.errors import MissingExtra
from drllama.protocols import Source, Student
from drllama.recipe import PubMedQADemo, Recipe
from drllama.sources.tasks import task_of
from drllama.types import Task

SOURCES = {
    "pubmedqa": "drllama.sources.pubmedqa:PubMedQASource",
    "pubmedqa-demo": "drllama.sources.pubmedqa_demo:PubMedQADemoSource",
    "jsonl": "drllama.sources.tables:TableSource",
    "csv": "drllama.sources.tables:TableSource",
}
CAUSAL_STUDENT = "drllama.students.causal:CausalStudent"
MACHINE = "drllama.students.machine:measure_machine"


def load(place: str) -> Any:  # noqa: ANN401  whatever the module keeps under this name
    """Return what ``module:attribute`` names, imported now and not before.

    Raises:
        MissingExtra: a package that the module needs isn't installed.
    """
    module, _, attribute = place.partition(":")
    try:
        return getattr(import_module(module), attribute)
    except ModuleNotFoundError as error:
        if str(error.name).startswith("drllama"):
            raise
        raise MissingExtra(f"{error.name} isn't installed; pip install 'drllama[train]'") from error


def find_demo_questions() -> None:
    """Read the demo's questions once.

    Raises:
        DrLlamaError: their package is missing or changed; the message has the command that brings it.
    """
    load(SOURCES["pubmedqa-demo"])(settings=PubMedQADemo()).load()


def make_source(recipe: Recipe) -> Source:
    """Return the recipe's source of questions."""
    task = task_of(recipe.task) if recipe.task else None
    source: Source = load(SOURCES[recipe.data.kind])(settings=recipe.data, task=task)
    return source


def make_student(recipe: Recipe, task: Task) -> Student:
    """Return the recipe's student, its weights in memory."""
    student: Student = load(CAUSAL_STUDENT)(recipe.student, task)
    return student
