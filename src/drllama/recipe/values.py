"""What all settings are made of: frozen sections, strict numbers, label texts, and kinds chosen by name."""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, Strict


class Section(BaseModel):
    """A frozen group of settings; a name that it doesn't know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


def named_kind(value: object) -> object:
    """Read ``{lora: {rank: 4}}`` or ``lora`` as the union member of that name."""
    if isinstance(value, str):
        return {"kind": value}
    if isinstance(value, dict):
        if len(value) != 1:
            raise ValueError(f"name exactly one kind, not {', '.join(map(str, value)) or 'none'}")
        ((kind, settings),) = value.items()
        if settings is None or isinstance(settings, dict):
            return {"kind": kind, **(settings or {})}
    return value


def by_kind(section: Any) -> dict[str, object]:  # noqa: ANN401  any member of a union of sections
    """Write a union's member as it is read: its kind, then its settings."""
    return {section.kind: section.model_dump(mode="json")}


def as_text(value: object) -> object:
    """Read YAML's true, false and numbers as the label texts that their author meant."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int) else value


# Strict: pydantic would read true as 1.
Whole = Annotated[int, Strict()]
Real = Annotated[float, Strict()]
LabelText = Annotated[str, BeforeValidator(as_text), Field(min_length=1)]
