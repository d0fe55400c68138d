"""Reading a recipe: YAML, then ``--set`` assignments, then defaults; each value remembers where it came from."""

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

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
    """Quotes what our loader would read as something else; that is less than YAML 1.1 would."""


_Dumper.yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers


def read_recipe(path: Path, assignments: Sequence[str] = ()) -> ResolvedRecipe:
    """Return the recipe of a YAML file with ``A.B=VALUE`` assignments laid over it.

    Raises:
        RecipeError: the file can't be read, or a setting is unknown, missing or out of range.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise RecipeError(
            f"{path}: {error.strerror}; give the path of a recipe, such as experiments/demo/recipe.yaml"
        ) from error
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: not UTF-8 at byte {error.start}; save the recipe as UTF-8") from error
    try:
        node = yaml.compose(text, _Loader)
        origins: dict[str, str] = {}
        if isinstance(node, yaml.MappingNode):
            _note_origins(node, "", path, origins)
        raw = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        raise RecipeError(f"{path}{where}: {getattr(error, 'problem', None) or 'not YAML'}; mend the line") from error
    if not isinstance(raw, dict):
        raise RecipeError(f"{path}: holds {type(raw).__name__}, not settings; a recipe begins like 'name: my-run'")
    for assignment in assignments:
        _assign(raw, assignment, origins)
    return resolve(raw, origins=origins, where=str(path))


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
        told = [_told(one, origins) for one in error.errors()]
        raise RecipeError(f"{where}: {'; '.join(dict.fromkeys(told))}") from error
    settings = [
        Setting(path=path, value=value, came_from=_origin(path, origins))
        for path, value in _leaves(recipe.model_dump(mode="json"), "")
    ]
    return ResolvedRecipe(recipe=recipe, settings=tuple(settings))


def as_yaml(recipe: Recipe) -> str:
    """Return the recipe with every setting written out, as a file that reads as the same recipe."""
    return yaml.dump(recipe.model_dump(mode="json"), Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def _note_origins(node: yaml.MappingNode, prefix: str, path: Path, origins: dict[str, str]) -> None:
    for key, value in node.value:
        dotted = f"{prefix}{key.value}"
        if dotted in origins:
            raise RecipeError(f"{path} line {key.start_mark.line + 1}: '{dotted}' stands twice; keep one of them")
        origins[dotted] = f"{path} line {key.start_mark.line + 1}"
        if dotted == "student" and isinstance(value, yaml.ScalarNode):
            origins["student.model"] = origins.pop(dotted)
        if isinstance(value, yaml.MappingNode):
            _note_origins(value, f"{dotted}.", path, origins)


def _assign(raw: dict[str, Any], assignment: str, origins: dict[str, str]) -> None:
    dotted, equals, text = assignment.partition("=")
    if not equals or not dotted.strip():
        raise RecipeError(f"--set {assignment}: write it as SETTING=VALUE, such as --set finetune.epochs=2")
    try:
        value = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise RecipeError(f"--set {assignment}: the value isn't YAML; put it in quotes") from error
    dotted = (
        {"student": "student.model"}.get(dotted.strip(), dotted.strip()) if isinstance(value, str) else dotted.strip()
    )
    here = raw
    *parents, last = dotted.split(".")
    for parent in parents:
        inner = here.get(parent)
        if isinstance(inner, str):  # a bare name such as `data: pubmedqa-demo` or `student: smollm2-135m`
            inner = {"model": inner} if parent == "student" else {inner: {}}
        here[parent] = dict(inner) if isinstance(inner, dict) else {}
        here = here[parent]
    here[last] = value
    origins[dotted] = "--set"


def _origin(path: str, origins: Mapping[str, str]) -> str:
    parts = path.split(".")
    for length in range(len(parts), 0, -1):
        if found := origins.get(".".join(parts[:length])):
            # A section named in the file doesn't make the defaults inside it the file's.
            written_below = any(other.startswith(".".join(parts[:length]) + ".") for other in origins)
            return "default" if written_below and length < len(parts) else found
    return "default"


def _leaves(value: object, prefix: str) -> Iterator[tuple[str, object]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves(inner, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, value


def known_settings(section: type[BaseModel] = Recipe, prefix: str = "") -> Iterator[str]:
    """Yield the dotted path of every setting there is."""
    for name, field in section.model_fields.items():
        if name == "kind":
            continue
        yield f"{prefix}{name}"
        for inner in _sections_in(field.annotation):
            kind = inner.model_fields.get("kind")
            yield from known_settings(inner, f"{prefix}{name}.{kind.default}." if kind else f"{prefix}{name}.")


def _sections_in(annotation: Any) -> Iterator[type[BaseModel]]:  # noqa: ANN401  typing's own objects
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) is not None and (get_origin(annotation) is Union or hasattr(annotation, "__args__")):
        for inner in get_args(annotation):
            yield from _sections_in(inner)


def _told(error: Any, origins: Mapping[str, str]) -> str:  # noqa: ANN401  pydantic's ErrorDetails
    path = ".".join(str(part) for part in error["loc"])
    at = f" ({found})" if (found := origins.get(path)) else ""
    message = str(error["msg"]).removeprefix("Value error, ")
    match error["type"]:
        case "extra_forbidden":
            return f"unknown setting '{path}'{at}; {_nearest(path)}"
        case "missing":
            return f"'{path}' is missing; add it"
        case "union_tag_invalid":
            return f"{path}: unknown kind '{error['ctx']['tag']}'{at}; choose one of {error['ctx']['expected_tags']}"
        case "union_tag_not_found":
            return f"{path}: say which kind{at}, such as {path}: {{NAME: {{...}}}}"
        case _:
            value = error["input"]
            shown = "" if isinstance(value, dict | list | BaseModel) else f" is {value!r}{at}"
            return f"{path}{shown}: {message[:1].lower()}{message[1:]}" if path else message


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
