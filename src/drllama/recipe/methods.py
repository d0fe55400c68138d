"""What of the student is trained: one section for each fine-tuning method.

Each knows the learning rate that suits it: they differ a hundredfold.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, model_validator

from drllama.recipe.values import Real, Section, Whole, by_kind, named_kind

Targets = Literal["all-linear"] | tuple[str, ...]


class Lora(Section):
    """Low-rank adaptation (Hu et al. 2021)."""

    usual_learning_rate: ClassVar[float] = 1e-3

    kind: Literal["lora"] = Field("lora", exclude=True)
    rank: Whole = Field(4, ge=1)
    """Rank of each update; the paper's is 4."""
    alpha: Real = Field(64, gt=0)
    """How strong updates are; see ``scaling``."""
    dropout: Real = Field(0.0, ge=0, lt=1)
    """Share of an adapter's inputs set to zero in training."""
    targets: Targets = ("q_proj", "v_proj")
    """Names of the adapted modules, or ``all-linear``."""
    top_layers: Whole | None = Field(None, ge=1)
    """Adapt only so many layers, counted from the output; null: all. Fewer train faster."""
    scaling: Literal["plain", "rank-stabilized"] = "plain"
    """Updates are scaled by alpha / rank, or (rsLoRA) by alpha / square root of rank, which suits high ranks."""
    dora: bool = False
    """Train each weight column's length apart from its direction (DoRA); up to twice as slow."""

    @property
    def leaves_frozen_work(self) -> bool:
        """Return whether the layers below those adapted do the same work in every epoch and training."""
        return self.top_layers is not None


class Alora(Section):
    """Activated LoRA: adapts from the question on, so that the context's keys and values are those of the base."""

    usual_learning_rate: ClassVar[float] = 5e-4
    leaves_frozen_work: ClassVar[bool] = True

    kind: Literal["alora"] = Field("alora", exclude=True)
    rank: Whole = Field(8, ge=1)
    """Rank of each update; fewer words are adapted than by LoRA, so it wants a higher one."""
    alpha: Real = Field(16, gt=0)
    """Updates are scaled by alpha / rank."""
    dropout: Real = Field(0.0, ge=0, lt=1)
    """Share of an adapter's inputs set to zero in training."""
    targets: Targets = "all-linear"
    """Names of the adapted modules, or ``all-linear``."""


class Prefix(Section):
    """Prefix tuning (Li and Liang 2021): trained keys and values that every layer finds before the first word."""

    usual_learning_rate: ClassVar[float] = 5e-3
    leaves_frozen_work: ClassVar[bool] = False

    kind: Literal["prefix"] = Field("prefix", exclude=True)
    virtual_tokens: Whole = Field(64, ge=16, le=512)
    """Length of the prefix in tokens."""
    start: Literal["text", "zeros", "random"] = "text"
    """From what training starts: the base's keys and values of a text, zeros, or chance."""
    text: str | None = Field(None, min_length=1)
    """The text to start from, repeated to the prefix's length; null: the task's instruction and labels."""


class Ia3(Section):
    """(IA)3 (Liu et al. 2022): trained factors for keys, values and the feed-forward layer; the fewest parameters."""

    usual_learning_rate: ClassVar[float] = 5e-3
    leaves_frozen_work: ClassVar[bool] = False

    kind: Literal["ia3"] = Field("ia3", exclude=True)
    targets: tuple[str, ...] = Field(("k_proj", "v_proj", "down_proj"), min_length=1)
    """Names of the modules whose outputs get factors."""
    feedforward: tuple[str, ...] = ("down_proj",)
    """Those of the targets whose inputs get the factors instead."""

    @model_validator(mode="after")
    def _among_the_targets(self) -> "Ia3":
        if strangers := [name for name in self.feedforward if name not in self.targets]:
            raise ValueError(f"feedforward names '{strangers[0]}', which isn't among the targets; name it there too")
        return self


class Full(Section):
    """All weights are trained."""

    usual_learning_rate: ClassVar[float] = 1e-4
    leaves_frozen_work: ClassVar[bool] = False

    kind: Literal["full"] = Field("full", exclude=True)


AnyMethod = Annotated[
    Annotated[Lora | Alora | Prefix | Ia3 | Full, Field(discriminator="kind")],
    BeforeValidator(named_kind),
    PlainSerializer(by_kind),
]
