"""Questions and where they come from."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from drllama.ids import content_id
from drllama.text import normalise

Label: TypeAlias = str
SplitName: TypeAlias = Literal["train", "dev", "test"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A kind of question with a closed set of answers."""

    name: str
    instruction: str
    """One sentence that tells a reader, or a large model, what is asked."""
    labels: tuple[Label, ...]
    """The allowed answers; their order breaks ties and orders every table."""
    verbalizers: Mapping[Label, str]
    """The words that stand for each label at the answer position, without the space before them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Original:
    """An example that a person wrote and labelled."""

    source: str
    """The name of the source, or the file."""
    source_id: str
    """The row's own name there: a PubMed id, an ``id`` column, or the line number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Synthetic:
    """An example that a large model wrote."""

    method: Literal["rewrite", "new"]
    parents: tuple[str, ...]
    """Ids of the training examples that it was made from."""
    call: str
    """Key of the request whose reply holds it."""
    place: int
    """Which of the reply's items it is, from 0."""

    @property
    def source(self) -> str:
        """Return where the row comes from."""
        return f"teacher ({self.method})"

    @property
    def source_id(self) -> str:
        """Return a name for the row: the call and the place in its reply."""
        return f"{self.call[:16]}:{self.place}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Derived:
    """An example that a rule made from one that a person wrote: some words swapped, left out or repeated."""

    source_id: str
    """The parent's own name, and a number."""
    parent: str
    """Id of the example that it was made from."""
    source: Literal["edits"] = "edits"


Origin: TypeAlias = Original | Synthetic | Derived


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One question of the domain, with its gold label where it has one."""

    question: str
    context: str
    """The text to answer from; paragraphs are parted by line breaks. Empty: the question stands alone."""
    options: tuple[str, ...] = ()
    """The answers to choose from, in the order of the task's labels; empty when the labels speak for themselves."""
    long_answer: str | None = None
    """The conclusion in words. It never enters a student's input: it would give the label away."""
    label: Label | None
    split: SplitName
    group: str
    """The document that the example was made from; a group never spans two splits."""
    origin: Origin

    @property
    def id(self) -> str:
        """Return the hash of what is asked; letter case and white space don't matter, label and long answer neither."""
        return content_id(normalise(self.question), normalise(self.context), *map(normalise, self.options))


@dataclass(frozen=True, slots=True, kw_only=True)
class Splits:
    """The examples of a source, by split."""

    train: tuple[Example, ...]
    dev: tuple[Example, ...]
    test: tuple[Example, ...]

    def named(self, split: SplitName) -> tuple[Example, ...]:
        """Return the examples of one split."""
        return {"train": self.train, "dev": self.dev, "test": self.test}[split]
