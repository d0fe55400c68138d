"""JSON schemas of what programs read, made from the types behind it; ``*.schema.json`` beside this module hold them.

After a wanted change write them anew: ``python -m drllama.report.schema``.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from pydantic import TypeAdapter

from drllama.report import comparing
from drllama.report.contents import ComparisonContents, ReportContents
from drllama.report.rendering import FORMAT


def report_schema() -> str:
    """Return the JSON schema of ``report.json``."""
    return _schema(TypeAdapter(ReportContents).json_schema(mode="serialization"), number=FORMAT)


def comparison_schema() -> str:
    """Return the JSON schema of ``comparison.json``."""
    return _schema(TypeAdapter(ComparisonContents).json_schema(mode="serialization"), number=comparing.FORMAT)


SCHEMAS: Mapping[str, Callable[[], str]] = {
    "report.schema.json": report_schema,
    "comparison.schema.json": comparison_schema,
}
"""How each file beside this module is made."""


def _schema(told: dict[str, object], *, number: int) -> str:
    """Return a schema in which every field is there, and no others."""
    properties = told["properties"]
    assert isinstance(properties, dict)
    told["properties"] = {"format": {"const": number}, **properties}
    shapes = told["$defs"]
    assert isinstance(shapes, dict)
    for shape in (told, *shapes.values()):
        if "properties" in shape:
            shape |= {"required": list(shape["properties"]), "additionalProperties": False}
    draft = {"$schema": "https://json-schema.org/draft/2020-12/schema", **told}
    return json.dumps(draft, ensure_ascii=False, indent=1) + "\n"


if __name__ == "__main__":
    for _name, _made in SCHEMAS.items():
        Path(__file__).with_name(_name).write_text(_made(), encoding="utf-8")
