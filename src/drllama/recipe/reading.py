"""Reading a recipe: YAML, then ``--set`` assignments, then defaults; each value remembers where it came from."""

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from drllama.errors import RecipeError
from drllama.recipe.sections import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One resolved value."""

    path: str
    """Dotted, such as ``finetune.method.lora.rank``."""
    value: object
    came_from: str
    """``FILE line N``, ``--set`` or ``default``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedRecipe:
    """A recipe with the origin of each of its values."""

    recipe: Recipe
    settings: tuple[Setting, ...]


_BARE_NAMES = ("student", "data", "method")
"""Sections that may be written as a bare name, such as ``student: smollm2-135m``."""


class _Loader(yaml.SafeLoader):
    """YAML where only true and false are booleans: yes and no are labels here."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _word in ("true", "false"):
    _Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(true|false)$"), [_word[0]])
# 1e-3 is a number in YAML 1.2 and in everybody's recipes, a text in YAML 1.1.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


class _Dumper(yaml.SafeDumper):
    """Quotes what our loader or a plain YAML 1.1 reader would take for something else than a text."""


_Dumper.yaml_implicit_resolvers = {
    first: [*yaml.SafeLoader.yaml_implicit_resolvers.get(first, ()), *_Loader.yaml_implicit_resolvers.get(first, ())]
    for first in (*yaml.SafeLoader.yaml_implicit_resolvers, *_Loader.yaml_implicit_resolvers)
}


def read_recipe(path: Path, assignments: Sequence[str] = ()) -> ResolvedRecipe:
    """Return the recipe of a YAML file with ``A.B=VALUE`` assignments laid over it.

    Raises:
        RecipeError: the file can't be read, or a setting is unknown, missing or out of range.
    """
    return recipe_of(recipe_text(path), assignments, where=str(path))


def recipe_text(path: Path) -> str:
    """Return the text of a recipe's file.

    Raises:
        RecipeError: it can't be read.
    """
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise RecipeError(
            f"{path}: {error.strerror}; give the path of a recipe, such as experiments/demo/recipe.yaml"
        ) from error
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: not UTF-8 at byte {error.start}; save the recipe as UTF-8") from error


def recipe_of(text: str, assignments: Sequence[str] = (), *, where: str) -> ResolvedRecipe:
    """Return the recipe of a YAML text with ``A.B=VALUE`` assignments laid over it; ``where`` is the text's name.

    Raises:
        RecipeError: a setting is unknown, missing or out of range.
    """
    try:
        node = yaml.compose(text, _Loader)
        origins: dict[str, str] = {}
        if isinstance(node, yaml.MappingNode):
            _note_origins(node, "", where, origins)
        raw = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        raise RecipeError(f"{where}{line}: {getattr(error, 'problem', None) or 'not YAML'}; mend the line") from error
    except RecursionError as error:
        raise RecipeError(f"{where}: nested too deeply, or an alias inside itself; mend it") from error
    if not isinstance(raw, dict):
        raise RecipeError(f"{where}: {_kind_of(raw)}, not settings; a recipe begins like 'name: my-run'")
    for assignment in assignments:
        _assign(raw, assignment, origins)
    return resolve(raw, origins=origins, where=where)


def values_of(text: str) -> list[object]:
    """Return the values of a text such as ``16, 32, [q_proj, v_proj]``, read as a recipe reads them.

    Raises:
        RecipeError: the text isn't YAML.
    """
    try:
        values = yaml.load(f"[{text}]", _Loader)
    except yaml.YAMLError as error:
        raise RecipeError(f"{text}: not a list of values; write them like 16,32,64") from error
    return list(values)


def value_text(value: object) -> str:
    """Return a value as ``--set`` takes it.

    >>> value_text(0.001), value_text("all-linear"), value_text(["q_proj", "v_proj"]), value_text(None)
    ('0.001', 'all-linear', '[q_proj, v_proj]', 'null')
    """
    text = yaml.dump(value, Dumper=_Dumper, default_flow_style=True, width=10**6, allow_unicode=True)
    return text.removesuffix("...\n").strip()


def resolve(
    raw: Mapping[str, object], *, origins: Mapping[str, str] | None = None, where: str = "recipe"
) -> ResolvedRecipe:
    """Return the recipe of plain settings, every default filled in.

    Raises:
        RecipeError: a setting is unknown, missing or out of range; all of them in one line.
    """
    origins = origins or {}
    try:
        recipe = Recipe.model_validate(raw)
    except ValidationError as error:
        # Beside the file's own name "FILE line 3" is just "line 3".
        lines = {path: origin.removeprefix(f"{where} ") for path, origin in origins.items()}
        found = error.errors()
        told = [_told(one, lines) for one in found if not _follows(one, found)]
        raise RecipeError(f"{where}: {'; '.join(dict.fromkeys(told))}") from error
    settings = [
        Setting(path=path, value=value, came_from=origins.get(path, "default"))
        for path, value in _leaves(recipe.model_dump(mode="json"), "")
    ]
    return ResolvedRecipe(recipe=recipe, settings=tuple(settings))


def _follows(one: ErrorDetails, found: Sequence[ErrorDetails]) -> bool:
    """Return whether a mistake is none of its own: a default of a wrong section, or a list short of its wrong items."""
    inside = any(
        len(other["loc"]) > len(one["loc"]) and other["loc"][: len(one["loc"])] == one["loc"] for other in found
    )
    return one["type"] == "default_factory_not_called" or (one["type"] == "too_short" and inside)


def as_yaml(recipe: Recipe) -> str:
    """Return the recipe with every setting written out, as a file that reads as the same recipe."""
    return yaml.dump(recipe.model_dump(mode="json"), Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def _note_origins(node: yaml.MappingNode, prefix: str, where: str, origins: dict[str, str]) -> None:
    for key, value in node.value:
        if key.value == "<<":
            raise RecipeError(
                f"{where} line {key.start_mark.line + 1}: a recipe can't merge settings with <<; write them"
            )
        dotted = f"{prefix}{key.value}"
        if dotted in origins:
            raise RecipeError(f"{where} line {key.start_mark.line + 1}: '{dotted}' stands twice; keep one of them")
        origins[dotted] = f"{where} line {key.start_mark.line + 1}"
        if dotted == "student" and isinstance(value, yaml.ScalarNode):
            origins["student.model"] = origins.pop(dotted)
        if isinstance(value, yaml.MappingNode):
            _note_origins(value, f"{dotted}.", where, origins)


def _assign(raw: dict[str, Any], assignment: str, origins: dict[str, str]) -> None:
    dotted, equals, text = assignment.partition("=")
    if not equals or not dotted.strip():
        raise RecipeError(f"--set {assignment}: write it as SETTING=VALUE, such as --set finetune.epochs=2")
    try:
        value = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise RecipeError(f"--set {assignment}: the value isn't YAML; put it in quotes") from error
    dotted = dotted.strip()
    if dotted == "student" and isinstance(value, str):
        dotted = "student.model"
    here = raw
    *parents, last = dotted.split(".")
    for depth, parent in enumerate(parents):
        inner = here.get(parent)
        if isinstance(inner, str) and parent in _BARE_NAMES:
            inner = {"model": inner} if parent == "student" else {inner: {}}
        if not isinstance(inner, dict | None):
            section = ".".join(parents[: depth + 1])
            raise RecipeError(
                f"--set {assignment}: '{section}' is {inner!r}, it has no settings inside; {_nearest(dotted)}"
            )
        here[parent] = dict(inner or {})
        here = here[parent]
    here[last] = value
    for path in [known for known in origins if f"{known}.".startswith(f"{dotted}.")]:
        del origins[path]
    origins[dotted] = "--set"
    origins.update({path: "--set" for path, _ in _leaves(value, dotted)})


def _leaves(value: object, prefix: str) -> Iterator[tuple[str, object]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            name = str(key).lower() if isinstance(key, bool) else str(key)  # the labels true and false
            yield from _leaves(inner, f"{prefix}.{name}" if prefix else name)
    else:
        yield prefix, value


def known_settings(section: type[BaseModel] = Recipe, prefix: str = "") -> Iterator[str]:
    """Yield the dotted path of every setting there is."""
    for name, field in section.model_fields.items():
        if name == "kind":
            continue
        yield f"{prefix}{name}"
        for inner in _sections_in(field.annotation):
            if kind := inner.model_fields.get("kind"):
                yield f"{prefix}{name}.{kind.default}"
            yield from known_settings(inner, f"{prefix}{name}.{kind.default}." if kind else f"{prefix}{name}.")


def _sections_in(annotation: Any) -> Iterator[type[BaseModel]]:  # noqa: ANN401  typing's own objects
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) is not None and (get_origin(annotation) is Union or hasattr(annotation, "__args__")):
        for inner in get_args(annotation):
            yield from _sections_in(inner)


def _told(error: ErrorDetails, lines: Mapping[str, str]) -> str:
    path, value, details = _dotted(error["loc"]), error["input"], error.get("ctx", {})
    at = f" ({found})" if (found := _line_of(path, lines)) else ""
    match error["type"]:
        case "extra_forbidden":
            return f"unknown setting '{path}'{at}; {_nearest(path)}"
        case "missing":
            return f"'{path}' is missing; add it"
        case "union_tag_invalid":
            return _unknown_kind(path, details["tag"], details["expected_tags"], at)
        case "literal_error" if path.endswith(".kind"):
            return _unknown_kind(path.removesuffix(".kind"), value, details["expected"], at)
        case "union_tag_not_found":
            return f"{path}{at}: name one kind and its settings, such as {path}: {{NAME: {{SETTING: VALUE}}}}"
        case "model_type" | "model_attributes_type" | "dict_type":
            return f"{path}{at}: {_kind_of(value)}, not settings; write them below it, or leave the name out"
        case "string_type" | "path_type":
            return f"{path} is {value!r}{at}: not a text; put it in quotes"
        case "string_pattern_mismatch":
            return f"{path} is {value!r}{at}: write letters, digits, dots, dashes and underscores, at most 64"
        case "too_short":
            return f"{path}{at}: needs at least {details['min_length']}, has {details['actual_length']}"
        case _:
            ours = error["type"] == "value_error"
            shown = "" if ours and isinstance(value, dict | BaseModel) else f" is {value!r}"
            told = str(error["msg"]).removeprefix("Value error, ").removeprefix("Input ").partition(", unable to")[0]
            # What sections make only together has no place of its own.
            place = f"{path}{shown}{at}: " if path else ""
            return place + told.replace("valid tuple", "list")


def _dotted(location: Sequence[str | int]) -> str:
    """Return a place as recipes name it; pydantic also names the members of unions, and a kind only among several."""
    member = r"str|constrained-float|(literal|tuple)\[.*\]"
    parts = [str(part) for part in location if not re.fullmatch(member, str(part))]
    return ".".join(parts)


def _line_of(path: str, lines: Mapping[str, str]) -> str | None:
    """Return the line of a setting, or of the nearest section around it that was written down."""
    while path and path not in lines:
        path = path.rpartition(".")[0]
    return lines.get(path)


def _unknown_kind(path: str, kind: object, expected: str, at: str) -> str:
    there = re.findall("'([^']+)'", expected)
    near = difflib.get_close_matches(str(kind), there, n=1)
    return f"{path}: unknown kind '{kind}'{at}; " + (
        f"did you mean '{near[0]}'?" if near else f"choose one of {', '.join(there)}"
    )


def _kind_of(value: object) -> str:
    match value:
        case None:
            return "empty"
        case str():
            return "a text"
        case list():
            return "a list"
        case _:
            return repr(value)


def _nearest(path: str) -> str:
    parent, _, name = path.rpartition(".")
    everything = list(dict.fromkeys(known_settings()))
    siblings = [known for known in everything if known.rpartition(".")[0] == parent]
    by_name = {known.rpartition(".")[2]: known for known in reversed([*siblings, *everything])}
    initials = {
        "".join(word[0] for word in known.split("_")): by_name[known] for known in reversed(by_name) if "_" in known
    }
    here = {known.rpartition(".")[2]: known for known in siblings}
    close = difflib.get_close_matches(name, here, n=1, cutoff=0.6) or difflib.get_close_matches(
        name, by_name, n=1, cutoff=0.75
    )
    if close:
        return f"did you mean '{here.get(close[0]) or by_name[close[0]]}'?"
    if name in initials:
        return f"did you mean '{initials[name]}'?"
    return f"{parent or 'a recipe'} has {', '.join(here)}" if here else "see `drllama explain RECIPE` for all settings"
