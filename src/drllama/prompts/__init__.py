"""Versioned templates. A file is never edited after a result used it: copy it to the next version."""

import difflib
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

from jinja2 import StrictUndefined
from jinja2.sandbox import SandboxedEnvironment

from drllama.errors import RecipeError
from drllama.types import Label

_ENVIRONMENT = SandboxedEnvironment(undefined=StrictUndefined, autoescape=False, keep_trailing_newline=False)
_STUDENT_TEMPLATES = resources.files(__name__) / "student"


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
        return hashlib.sha256(self.source.encode()).hexdigest()

    def render(self, *, question: str, context: str, options: Sequence[tuple[Label, str]] = ()) -> str:
        """Return the student's input; a long answer has no place in it."""
        return _ENVIRONMENT.from_string(self.source).render(question=question, context=context, options=options)


def student_prompt(version: str) -> StudentPrompt:
    """Return the template of this version.

    Raises:
        RecipeError: there is none; the message names those that there are.
    """
    known = student_prompt_versions()
    if version not in known:
        near = difflib.get_close_matches(version, known, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"choose one of {', '.join(known)}"
        raise RecipeError(f"student.prompt: unknown template '{version}'; {hint}")
    source = (_STUDENT_TEMPLATES / f"{version}.jinja").read_text(encoding="utf-8")
    return StudentPrompt(version=version, source=source)


def student_prompt_versions() -> list[str]:
    """Return the versions there are, sorted."""
    return sorted(
        file.name.removesuffix(".jinja") for file in _STUDENT_TEMPLATES.iterdir() if file.name.endswith(".jinja")
    )
