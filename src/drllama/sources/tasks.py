"""Tasks out of recipes, and gold labels checked against them."""

from drllama.errors import DataError
from drllama.recipe import TaskSection
from drllama.types import Label, Task

PUBMEDQA_TASK = Task(
    name="pubmedqa",
    instruction="Answer the question from the context with yes, no or maybe.",
    labels=("yes", "no", "maybe"),
    verbalizers={"yes": "yes", "no": "no", "maybe": "maybe"},
)


def task_of(section: TaskSection) -> Task:
    """Return the task that a recipe describes; a label without a verbalizer stands for itself."""
    words = {label: section.verbalizers.get(label, label).strip() for label in section.labels}
    return Task(name=section.name, instruction=section.instruction, labels=section.labels, verbalizers=words)


def gold_label(value: object, task: Task, where: str) -> Label:
    """Return the task's label that a cell names: the same text, or the only one that differs just in letter case.

    JSON's true, false and whole numbers are read as the texts that their author meant.

    Raises:
        DataError: the cell is empty, or names no label of the task; ``where`` says which cell.
    """
    allowed = ", ".join(task.labels)
    if value is None or (isinstance(value, str) and not value.strip()):
        raise DataError(f"{where}: no label; write one of {allowed}")
    text = str(value).lower() if isinstance(value, bool) else str(value).strip()
    if not isinstance(value, str | int):
        raise DataError(f"{where}: label {shown(value)} is not a text; write one of {allowed}")
    if text in task.labels:
        return text
    alike = [label for label in task.labels if label.casefold() == text.casefold()]
    if len(alike) == 1:
        return alike[0]
    raise DataError(f"{where}: label {shown(text)} is not one of {allowed}; correct the label or add it to task.labels")


def shown(value: object) -> str:
    r"""Return a value as an error message shows it: on one line, and not longer than it helps.

    >>> print(shown("un\nsure"))
    'un\nsure'
    """
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:40]}... ({len(text)} characters)"
