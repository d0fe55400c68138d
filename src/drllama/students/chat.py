"""What stands around a question: nothing, or the turns of the conversation that an instruction-tuned model knows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from jinja2 import TemplateError

from drllama.errors import ModelError
from drllama.ids import fingerprint
from drllama.prompts import StudentPrompt, student_prompt
from drllama.recipe import Student
from drllama.types import Label, Task

_ASKED, _SAID = "ASKEDHERE", "SAIDHERE"
# Some templates name the date, which would make each day's results others; it is always this one.
_DAY = "26 Jul 2024"


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """The text around a prompt, the same for every question."""

    before: str = ""
    after: str = ""
    lead: str = " "
    """Between the input's end and the label's words: where tokens are cut, a space belongs to the word behind it."""
    end: str = ""
    """What ends the answer; empty: the tokenizer's end of text."""
    is_chat: bool = False
    """Whether the text holds all special tokens already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Phrasing:
    """How a question is put to one student: a template, and what stands around it."""

    prompt: StudentPrompt
    frame: Frame = Frame()

    @property
    def sha256(self) -> str:
        """Return the hash of all that a student reads beside the question."""
        if not self.frame.is_chat:
            return self.prompt.sha256
        return fingerprint([self.prompt.sha256, self.frame.before, self.frame.after, self.frame.lead, self.frame.end])

    def text(self, *, question: str, context: str, options: Sequence[tuple[Label, str]] = ()) -> str:
        """Return the student's input, up to the answer."""
        asked = self.prompt.render(question=question, context=context, options=options)
        return f"{self.frame.before}{asked}{self.frame.after}"


def phrasing_of(tokenizer: Any, settings: Student, task: Task) -> Phrasing:  # noqa: ANN401
    """Return how questions are put to the student of this tokenizer (see ``frame_of``)."""
    frame = frame_of(tokenizer, settings.chat, task.instruction)
    return Phrasing(prompt=student_prompt(settings.prompt), frame=frame)


def speaks_in_chat(tokenizer: Any, chat: Literal["auto", "yes", "no"]) -> bool:  # noqa: ANN401
    """Return whether questions are put to the student in its chat template.

    Raises:
        ModelError: they shall, and it has none.
    """
    if chat == "yes" and not tokenizer.chat_template:
        raise ModelError("student.chat is yes, but the student's tokenizer has no chat template; choose auto or no")
    return chat != "no" and bool(tokenizer.chat_template)


def frame_of(tokenizer: Any, chat: Literal["auto", "yes", "no"], instruction: str) -> Frame:  # noqa: ANN401
    """Return what stands around each question put to the student of this tokenizer.

    In a chat the user gives the task's instruction and the question, and the model's turn has begun.

    Raises:
        ModelError: the student has no chat template, or one that doesn't leave the texts as they are.
    """
    if not speaks_in_chat(tokenizer, chat):
        return Frame()
    turns = [{"role": "user", "content": f"{instruction}\n\n{_ASKED}"}, {"role": "assistant", "content": _SAID}]
    try:
        template = tokenizer.get_chat_template()
        if "strftime_now" in template:
            template = f"{{% macro strftime_now(form) %}}{_DAY}{{% endmacro %}}{template}"
        text = tokenizer.apply_chat_template(turns, chat_template=template, tokenize=False, date_string=_DAY)
    except (TemplateError, ValueError, TypeError) as error:
        told = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"student.chat: the chat template can't be used ({told}); choose no") from error
    before, asked, rest = text.partition(_ASKED)
    after, said, end = rest.partition(_SAID)
    if not asked or not said or instruction not in before:
        raise ModelError("student.chat: the chat template leaves out what is asked or said; choose no")
    # From a conversation whose answer is known: an opened turn may look otherwise than one that was spoken.
    kept = after.rstrip(" ")
    return Frame(before=before, after=kept, lead=after[len(kept) :], end=end.strip(), is_chat=True)
