"""What users write: one YAML file, every setting documented, unknown names refused."""

from drllama.recipe.reading import ResolvedRecipe, Setting, read_recipe, resolve
from drllama.recipe.sections import (
    Columns,
    CsvFiles,
    Evaluate,
    Finetune,
    JsonlFiles,
    Limit,
    Lora,
    PubMedQA,
    PubMedQADemo,
    Recipe,
    Report,
    Shares,
    SourceSection,
    Student,
    TableFiles,
    TaskSection,
)

__all__ = [
    "Columns",
    "CsvFiles",
    "Evaluate",
    "Finetune",
    "JsonlFiles",
    "Limit",
    "Lora",
    "PubMedQA",
    "PubMedQADemo",
    "Recipe",
    "Report",
    "ResolvedRecipe",
    "Setting",
    "Shares",
    "SourceSection",
    "Student",
    "TableFiles",
    "TaskSection",
    "read_recipe",
    "resolve",
]
