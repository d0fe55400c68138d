"""Versioned templates. A file is never edited after a result used it: copy it to the next version."""

import difflib
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Literal

from jinja2 import StrictUndefined, Template
from jinja2.sandbox import SandboxedEnvironment

from drllama.errors import RecipeError
from drllama.types import Label, Message

_ENVIRONMENT = SandboxedEnvironment(undefined=StrictUndefined, autoescape=False, keep_trailing_newline=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class StudentPrompt:
    """How a question is put to a small model; the text ends with the answer's opening words, no space behind them."""

    version: str
    """Such as ``context-first.v1``."""
    source: str
    """The template."""

    @property
    def sha256(self) -> str:
        """Return the hash of the template."""
        return _sha256(self.source)

    def render(self, *, question: str, context: str, options: Sequence[tuple[Label, str]] = ()) -> str:
        """Return the student's input; a long answer has no place in it."""
        return _compiled(self.source).render(question=question, context=context, options=options)


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherPrompt:
    """What a large model is told: a part for the system, a part for the user."""

    version: str
    """Such as ``rewrite.v1``."""
    source: str
    """The template's file."""

    @property
    def sha256(self) -> str:
        """Return the hash of the template."""
        return _sha256(self.source)

    def render(self, **values: object) -> tuple[Message, ...]:
        """Return the messages; a value that the template names and nobody gave is an error."""
        # Cut before rendering: a user's text that looks like a heading can't become a message of its own.
        system, user = self.source.removeprefix("[system]\n").split("\n[user]\n")
        told: tuple[tuple[Literal["system", "user"], str], ...] = (("system", system), ("user", user))
        return tuple(Message(role=role, content=_compiled(part).render(values).strip()) for role, part in told)


@cache
def _compiled(source: str) -> Template:
    return _ENVIRONMENT.from_string(source)


@cache
def _sha256(source: str) -> str:
    return hashlib.sha256(source.encode()).hexdigest()


def student_prompt(version: str) -> StudentPrompt:
    """Return a student's template.

    Raises:
        RecipeError: there is none of this version; the message names those that there are.
    """
    return StudentPrompt(version=version, source=_source("student", version))


def teacher_prompt(version: str) -> TeacherPrompt:
    """Return a teacher's template.

    Raises:
        RecipeError: there is none of this version; the message names those that there are.
    """
    return TeacherPrompt(version=version, source=_source("teacher", version))


def prompt_versions(reader: Literal["student", "teacher"]) -> list[str]:
    """Return the versions there are, sorted."""
    files = (resources.files(__name__) / reader).iterdir()
    return sorted(file.name.removesuffix(".jinja") for file in files if file.name.endswith(".jinja"))


@cache
def _source(reader: Literal["student", "teacher"], version: str) -> str:
    known = prompt_versions(reader)
    if version not in known:
        near = difflib.get_close_matches(version, known, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"choose one of {', '.join(known)}"
        where = "student.prompt" if reader == "student" else "a teacher's prompt"
        raise RecipeError(f"{where}: unknown template '{version}'; {hint}")
    return (resources.files(__name__) / reader / f"{version}.jinja").read_text(encoding="utf-8")
