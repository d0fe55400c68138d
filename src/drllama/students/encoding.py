"""From an example to tokens: the prompt rendered, a long context cut at a sentence, label words tokenised once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import dropwhile, takewhile
from typing import Any, Literal

from drllama.errors import ModelError
from drllama.recipe import Student
from drllama.students.chat import Phrasing
from drllama.text import sentences
from drllama.types import Example, Label, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """A question as the student reads it."""

    example: Example
    tokens: tuple[int, ...]
    """The whole input; the answer's first token would come next."""
    split: int
    """How many of the tokens stand before the question's part: the context's, and what stands before it. 0 where no
    question stands behind the context, or there is none."""
    truncated_tokens: int
    """Tokens of the context that were cut off."""


def by_context(questions: Sequence[Encoded]) -> list[list[int]]:
    """Return the questions as indices, those that begin with the same context together; each group by its first."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for at, question in enumerate(questions):
        # A question that doesn't begin with a context has nothing to share: its place keeps it apart.
        groups.setdefault(question.tokens[: question.split] or (-1, at), []).append(at)
    return list(groups.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfit:
    """A question that doesn't fit the student even with an empty context."""

    example: Example
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoder:
    """Turns examples into tokens for one tokenizer, template and task."""

    tokenizer: Any
    phrasing: Phrasing
    task: Task
    max_tokens: int
    """Longest input, the longest label's words included."""
    keep_context: Literal["start", "end"]
    label_tokens: Mapping[Label, tuple[int, ...]]
    """The tokens of each label's words as they follow the prompt."""
    opening: tuple[int, ...]
    """The tokens with which the question's part begins, whatever context and question; none where no question stands
    behind the context."""

    def encode(self, example: Example) -> Encoded | Unfit:
        """Return the example's tokens, the context cut at a sentence boundary where it is too long.

        A sentence that is too long by itself is cut between two characters: half of it says more than nothing.
        """
        room = self.max_tokens - max(map(len, self.label_tokens.values()))
        whole = self._tokens(example, example.context)
        if len(whole) <= room:
            return self._encoded(example, whole, truncated_tokens=0)
        bare = self._tokens(example, "")
        if len(bare) > room:
            reason = f"the question alone has {len(bare)} tokens, student.max_tokens is {self.max_tokens}"
            return Unfit(example=example, reason=reason)
        pieces = sentences(example.context)
        kept = self._most_that_fit(example, pieces, room)
        if not kept:
            kept = self._most_that_fit(example, list(pieces[0 if self.keep_context == "start" else -1]), room)
        tokens = self._tokens(example, kept)
        return self._encoded(example, tokens, truncated_tokens=len(whole) - len(tokens))

    def _encoded(self, example: Example, tokens: tuple[int, ...], *, truncated_tokens: int) -> Encoded:
        # The last of several places, as PEFT looks for it: a context may hold the opening words too.
        size = len(self.opening)
        places = [at for at in range(len(tokens) - size + 1) if size and tokens[at : at + size] == self.opening]
        split = places[-1] if places else 0
        return Encoded(example=example, tokens=tokens, split=split, truncated_tokens=truncated_tokens)

    def token_ids(self, text: str) -> tuple[int, ...]:
        """Return the tokens of any text as the student reads it."""
        return _token_ids(self.tokenizer, text, self.phrasing)

    def _most_that_fit(self, example: Example, pieces: Sequence[str], room: int) -> str:
        """Return as many pieces, joined, as leave the input within ``room`` tokens, found by bisection."""
        fits, too_many, best = 0, len(pieces) + 1, ""
        while too_many - fits > 1:
            count = (fits + too_many) // 2
            joined = "".join(pieces[:count] if self.keep_context == "start" else pieces[-count:]).strip()
            if len(self._tokens(example, joined)) <= room:
                fits, best = count, joined
            else:
                too_many = count
        return best

    def _tokens(self, example: Example, context: str) -> tuple[int, ...]:
        options = list(zip(self.task.labels, example.options, strict=True)) if example.options else []
        text = self.phrasing.text(question=example.question, context=context, options=options)
        return self.token_ids(text)


def make_encoder(tokenizer: Any, phrasing: Phrasing, task: Task, settings: Student) -> Encoder:  # noqa: ANN401
    """Return the encoder for a task.

    Raises:
        ModelError: two labels can't be told apart by their tokens, or a label's words merge with the prompt's end.
    """
    return Encoder(
        tokenizer=tokenizer,
        phrasing=phrasing,
        task=task,
        max_tokens=settings.max_tokens,
        keep_context=settings.keep_context,
        label_tokens=_label_tokens(tokenizer, phrasing, task),
        opening=_opening(tokenizer, phrasing),
    )


def _label_tokens(tokenizer: Any, phrasing: Phrasing, task: Task) -> dict[Label, tuple[int, ...]]:  # noqa: ANN401
    # Every prompt ends with the same opening words, so how label words follow them is the same for every question.
    text = phrasing.text(question="?", context="")
    before = _token_ids(tokenizer, text, phrasing)
    words: dict[Label, tuple[int, ...]] = {}
    for label in task.labels:
        together = _token_ids(tokenizer, f"{text}{phrasing.frame.lead}{task.verbalizers[label].strip()}", phrasing)
        if together[: len(before)] != before or together == before:
            raise ModelError(
                f"label '{label}': its words merge with the prompt's last token; choose another verbalizer"
            )
        words[label] = together[len(before) :]
    if len(set(words.values())) < len(words):
        raise ModelError(f"task.verbalizers: two of {', '.join(words)} have the same tokens; choose other words")
    begun = [
        (one, other)
        for one in words
        for other in words
        if one != other and words[other][: len(words[one])] == words[one]
    ]
    if begun:
        # "no" against "no effect": the shorter would win by being shorter, so all are closed by the end of text.
        end = _end_of_answer(tokenizer, phrasing)
        if end is None:
            raise ModelError(
                f"label '{begun[0][0]}' begins '{begun[0][1]}', and the student's tokenizer has no end of text to tell "
                "them apart; choose other task.verbalizers"
            )
        words = {label: (*tokens, end) for label, tokens in words.items()}
    return words


def _end_of_answer(tokenizer: Any, phrasing: Phrasing) -> int | None:  # noqa: ANN401
    marks = tokenizer(phrasing.frame.end, add_special_tokens=False)["input_ids"] if phrasing.frame.end else []
    end = marks[0] if marks else tokenizer.eos_token_id
    return None if end is None else int(end)


def _opening(tokenizer: Any, phrasing: Phrasing) -> tuple[int, ...]:  # noqa: ANN401
    # Found by comparing: slow tokenizers don't tell which token stands for which letters, and what stands between
    # context and question may merge with the end of the one or the start of the other.
    contexts, asked = ("It rose.", "Nobody knows", "No (0)", "很小。"), ("Did it?", "what for?", "(1) fell", "有效吗？")

    def tokens_of(*, question: str, context: str) -> tuple[int, ...]:
        return _token_ids(tokenizer, phrasing.text(question=question, context=context), phrasing)

    tails = []
    for one in asked:
        backwards = [tokens_of(question=one, context=context)[::-1] for context in contexts]
        tails.append(backwards[0][: _num_alike(backwards)][::-1])
    if len(set(tails)) == 1:
        return ()  # No question stands behind the context.
    # Without the line's end: a question that has no context begins the input.
    return tuple(dropwhile(lambda token: not tokenizer.decode([token]).strip(), tails[0][: _num_alike(tails)]))


def _num_alike(rows: Sequence[Sequence[int]]) -> int:
    """Return how many first tokens all rows share."""
    return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, zip(*rows, strict=False)))


def _token_ids(tokenizer: Any, text: str, phrasing: Phrasing) -> tuple[int, ...]:  # noqa: ANN401
    own = not phrasing.frame.is_chat
    ids = tokenizer(text, truncation=False, verbose=False, add_special_tokens=own)["input_ids"]
    if len(ids) > 1 and ids[-1] == tokenizer.eos_token_id:
        ids = ids[:-1]
    return tuple(ids)
