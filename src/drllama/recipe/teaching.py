"""The settings of the large model and of what it is asked."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, PlainSerializer, field_validator, model_validator

from drllama.recipe.values import LabelText, Real, Section, Whole, by_kind, named_kind
from drllama.types import ArmName, Equality, FilterName

# Thirds written with two digits add up to 0.99.
_LARGEST_ROUNDING = 0.015
Dialect = Literal["openai", "vllm", "llama.cpp", "ollama"]


class Endpoint(Section):
    """A server that speaks OpenAI's chat completions: OpenAI, vLLM, llama.cpp, Ollama."""

    kind: Literal["openai-compatible"] = Field("openai-compatible", exclude=True)
    base_url: str = "https://api.openai.com/v1"
    """Where requests go; the host must stand in ``allow_hosts``, unless it is this machine."""
    model: str
    """The model's name at the server."""
    api_key_env: str | None = None
    """The environment variable that holds the key; null: OPENAI_API_KEY for api.openai.com, none for this machine."""
    dialect: Dialect = "openai"
    """Which settings beyond OpenAI's own the server knows. vllm and llama.cpp are sent a repetition penalty, and their
    own or the model's cuts (top_k, min_p) are switched off; ollama takes neither: those of its Modelfile hold."""
    timeout_seconds: Real = Field(120, gt=0)
    """One request's longest time."""
    max_in_flight: Whole = Field(16, ge=1)
    """Requests at the server at once; fewer when it says that they are too many."""
    requests_per_minute: Whole | None = Field(None, ge=1)
    """The allowed rate; null: whatever the server takes."""
    tokens_per_minute: Whole | None = Field(None, ge=1)
    """The allowed rate, prompts and replies together; null: whatever the server takes."""
    usd_per_million_tokens: tuple[Real, Real] | None = None
    """Price of prompt and reply tokens, asked live; null: the price table's, or unknown."""
    batch: bool = False
    """Audit and augment submit batches and end; run again, they take in what came. Not every server has batches."""
    batch_price_share: Real = Field(0.5, gt=0, le=1)
    """What a token in a batch costs, as a share of the live price; OpenAI's is a half (its FAQ, seen 2026-11-22)."""


class LocalTeacher(Section):
    """A causal language model in this process."""

    kind: Literal["local"] = Field("local", exclude=True)
    model: str
    """A name from ``drllama models``, a Hub id, a folder, or a .gguf file."""
    batch_size: Whole = Field(8, ge=1)
    """Requests answered at once."""


class Recorded(Section):
    """Recorded replies only: a request that isn't among them is an error."""

    kind: Literal["replay"] = Field("replay", exclude=True)
    endpoint: str
    """The endpoint that the recording names."""
    model: str
    """The model that the recording names."""
    recording: Path | None = None
    """Recorded answers by item that are taken into the store first; null: those that it holds."""


AnyTeacher = Annotated[
    Annotated[Endpoint | LocalTeacher | Recorded, Field(discriminator="kind")],
    BeforeValidator(named_kind),
    PlainSerializer(by_kind),
]


class Sampling(Section):
    """How the teacher draws its words."""

    temperature: Real = Field(0.8, ge=0)
    """0 is the likeliest word each time; the paper's is 0.8."""
    max_tokens: Whole = Field(1024, ge=16)
    """Longest reply."""
    top_p: Real | None = Field(None, gt=0, le=1)
    """Draw among the likeliest words that hold this share; null: all."""
    repetition_penalty: Real | None = Field(None, gt=0)
    """Divides the odds of words already said; the paper's is 2.0. Refused where the server doesn't know it."""


class Rewrite(Section):
    """The training questions in other words, each with the label it has."""

    prompt: str = "rewrite.v1"
    """The template."""
    per_item: Whole = Field(1, ge=1)
    """Rewrites of each training question."""
    retell_context: bool = True
    """Retell the context too, without its conclusion."""


class New(Section):
    """New questions on the training contexts."""

    prompt: str = "new.v1"
    """The template; questions with answer options have one of their own, ``new-options.v1``."""
    per_item: Whole = Field(2, ge=1)
    """New questions on each training context."""
    balance: dict[LabelText, Annotated[Real, Field(ge=0)]] | None = None
    """The wanted share of each label, 1 in all, told to the teacher; null: nothing is said."""

    @field_validator("balance")
    @classmethod
    def _shares(cls, balance: dict[str, float] | None) -> dict[str, float] | None:
        if balance is not None and abs(sum(balance.values()) - 1) > _LARGEST_ROUNDING:
            raise ValueError(f"the shares add up to {sum(balance.values()):g}, not 1; mend them, or write null")
        return balance


class Select(Section):
    """Which training questions the teacher works on, by the student's answers to those that it wasn't trained on."""

    by: Literal["all", "errors", "uncertain"] = "all"
    """``all``; ``errors``: those that the student gets wrong; ``uncertain``: those that it is least sure of."""
    share: Real = Field(0.5, gt=0, le=1)
    """``uncertain``: this share of the questions."""
    folds: Whole = Field(3, ge=2)
    """So many students are trained, each without a part of the training documents, and asked that part."""
    rounds: Whole = Field(1, ge=1)
    """Train, choose, augment, and again with what was written, until dev gets no better, at most so often."""

    @model_validator(mode="after")
    def _have_a_reason(self) -> Self:
        if self.rounds > 1 and self.by == "all":
            raise ValueError("rounds need something to choose by; set by to errors or uncertain")
        return self


class Augment(Section):
    """What the teacher writes for the training questions."""

    rewrite: Rewrite | None = Rewrite()
    """Rewrites; null: none."""
    new: New | None = New()
    """New questions; null: none."""
    select: Select = Select()
    """Which training questions the teacher works on."""
    sampling: Sampling = Sampling()
    """How the teacher draws its words."""
    max_attempts: Whole = Field(3, ge=1)
    """Replies asked for at most until a source item has what it should."""
    arms: tuple[ArmName, ...] = Field((ArmName.NONE, ArmName.COMBINED), min_length=1)
    """What students are trained on beside the real rows, to be compared: none, rewrite, new, combined; synthetic-only
    trains without the real rows; the controls duplicate-real (copies of real rows) and eda (real rows with some words
    swapped, left out or repeated) take as many as the largest arm takes of the teacher's."""
    doses: tuple[Annotated[Real, Field(gt=0, le=1)], ...] = Field((1.0,), min_length=1)
    """Shares of the teacher's rows, each of them an arm of its own; a smaller one lies within a larger one."""
    equal: tuple[Equality, ...] = Field((Equality.UPDATES,), min_length=1)
    """What arms have in common: updates (more rows don't mean more training), epochs (each row is seen as often); with
    both, all arms are trained both ways, and the first is what the conclusion is about."""
    without_filter: tuple[FilterName, ...] = ()
    """Filters to be switched off, each in an arm of its own, to see what each is worth: combined, or else the larger of
    rewrite and new, with the rows that this one filter stopped and those behind it let pass. They don't touch the
    verdict. ``label`` asks the teacher nothing more; ``form`` asks for blind answers to the rows that it stopped."""

    @model_validator(mode="after")
    def _agree(self) -> Self:
        for name in ("arms", "doses", "equal", "without_filter"):
            if len(set(getattr(self, name))) < len(getattr(self, name)):
                raise ValueError(f"{name} must differ from each other")
        wanted = {method for method in ("rewrite", "new") if getattr(self, method)}
        if not wanted:
            raise ValueError("rewrite and new are both null; write 'augment: null' if the teacher is to write nothing")
        if missing := {str(arm) for arm in self.arms} & {"rewrite", "new"} - wanted:
            raise ValueError(f"arms has {' and '.join(sorted(missing))}, which is null; take it out or set it")
        return self

    @model_validator(mode="after")
    def _have_an_arm_to_unfilter(self) -> Self:
        if not self.without_filter:
            return self
        if FilterName.LEAKS in self.without_filter:
            raise ValueError("without_filter has leaks, which can't be turned off; take it out")
        if not {ArmName.REWRITE, ArmName.NEW, ArmName.COMBINED} & set(self.arms) or 1.0 not in self.doses:
            raise ValueError("without_filter needs rewrite, new or combined among arms, and 1.0 among doses")
        return self


class Audit(Section):
    """Whether the teacher knows the domain: it answers the dev questions blind."""

    prompt: str = "answer.v1"
    """The template."""
    sampling: Sampling = Sampling(temperature=0, max_tokens=64)
    """How the teacher draws its words."""
