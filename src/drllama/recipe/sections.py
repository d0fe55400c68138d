"""The settings of the small model, its training and its scores, and the recipe that holds all sections.

The text under a field is its documentation everywhere.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from drllama.recipe.filtering import Filters
from drllama.recipe.methods import Alora, AnyMethod, Lora
from drllama.recipe.questions import AnySource, TaskSection
from drllama.recipe.teaching import AnyTeacher, Audit, Augment
from drllama.recipe.values import Real, Section, Whole, as_text
from drllama.types import FilterName


class FrozenCache(Section):
    """What frozen weights make of a text: worked out once, kept on disk, shared by epochs, seeds, arms and runs."""

    dtype: Literal["float16", "float32"] | None = "float16"
    """Number format; null: keep nothing. Half the disk for a rounding that changes scores in the fourth digit."""
    max_gib: Real = Field(20, gt=0)
    """Disk space under ``$DRLLAMA_CACHE/frozen``; what was unused for longest is thrown out, at no loss but time."""


class Student(Section):
    """The small model, and how a question is put to it."""

    model: str = "smollm2-135m"
    """A name from ``drllama models``, a Hugging Face Hub id, a folder, or a .gguf file."""
    revision: str | None = None
    """A Hub model's branch, tag or commit."""
    prompt: str = "context-first.v1"
    """The template: ``context-first.v1``; ``question-twice.v1``, with the question before the context too;
    ``paper.v1``, with it there alone; or ``alpaca.v1`` for models that were trained like Alpaca."""
    chat: Literal["auto", "yes", "no"] = "auto"
    """Whether the prompt stands in the model's chat template, behind the task's instruction; ``auto``: where the model
    has one, as instruction-tuned models do."""
    max_tokens: Whole = Field(512, ge=32)
    """Longest input; a longer one loses sentences of its context, never of the question."""
    keep_context: Literal["start", "end"] = "end"
    """Which end of a too long context stays; an abstract's results stand at its end."""
    batch_size: Whole | None = Field(None, ge=1)
    """Questions scored at once; scores don't depend on it. Null: one by one on a CPU, which is fastest where rows are
    run whole, but those about one context together; else 8."""
    device: str = "auto"
    """``auto`` (a GPU where there is one), ``cpu``, ``cuda`` or ``cuda:0``."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """``auto``: bfloat16 on GPUs that have it, float32 elsewhere."""
    processes: Whole = Field(1, ge=1)
    """So many share the weights between them (FSDP), each with a GPU of its own, for a student too large for one; then
    LoRA and (IA)3 can be trained."""
    frozen_cache: FrozenCache = FrozenCache()
    """For methods that leave a part of the work to frozen weights: aLoRA, and LoRA in the top layers."""

    @model_validator(mode="before")
    @classmethod
    def _bare_name(cls, value: object) -> object:
        return {"model": value} if isinstance(value, str) else value


def _usual_learning_rate(settings: Mapping[str, Any]) -> float:
    return float(settings["method"].usual_learning_rate)


class Finetune(Section):
    """How the student is trained."""

    method: AnyMethod = Lora()
    """What is trained."""
    epochs: Whole = Field(3, ge=1)
    """Passes over the real training examples, and how often dev is asked: after each."""
    updates: Whole | None = Field(None, ge=1)
    """Updates in all, rounded up to a multiple of ``epochs``; null: as many as those passes take. More rows need more
    to be learnt: choose on dev what is enough for the largest arm, all arms get the same."""
    learning_rate: Real = Field(default_factory=_usual_learning_rate, gt=0)
    """Highest learning rate of AdamW, reached after the warm-up; left out: the usual one of the method."""
    batch_size: Whole = Field(8, ge=1)
    """Examples behind each update."""
    micro_batch_size: Whole | None = Field(None, ge=1)
    """Examples in memory at once; the update is the same whatever it is. Null: 1 on a CPU, where one by one needs no
    padding and is fastest; the whole batch on a GPU, and with aLoRA, whose rows are short."""
    share_contexts: bool = False
    """Let questions about one context meet in a batch and run it once: faster where a teacher wrote questions about the
    real contexts, but batches hold fewer of them. Where nothing is dropped, an update is that of rows by themselves."""
    warmup_share: Real = Field(0.06, ge=0, lt=1)
    """Share of the steps in which the learning rate rises; then it falls linearly to 0."""
    weight_decay: Real = Field(0.0, ge=0)
    """AdamW's weight decay."""
    max_grad_norm: Real = Field(1.0, gt=0)
    """Longer gradients are shortened to this norm."""
    class_weights: Literal["none", "balanced"] = "none"
    """``balanced``: an example weighs inversely to how frequent its label is in training."""
    synthetic_weight: Annotated[Real, Field(gt=0, le=1)] | Literal["learned"] = 1.0
    """What a row beside the real ones weighs in the loss, where a real one weighs 1; ``learned``: 0.25, 0.5 or 1, each
    tried and the one best on dev kept, which trains three times."""
    soft_labels: Literal["none", "votes"] = "none"
    """``votes``: a row that was answered blind (``filters.label``) is to be learnt with the shares of those answers
    instead of its label; a row without blind answers keeps its label."""
    choose_epoch_by: Literal["nll", "accuracy", "macro_f1", "last"] = "nll"
    """What the dev split must be best in for an epoch's weights to be kept; ``last`` keeps the last epoch's."""

    @property
    def reads_contexts_apart(self) -> bool:
        """Return whether the base alone reads contexts: what is kept of them then serves the untrained student too."""
        return isinstance(self.method, Alora)


class Evaluate(Section):
    """How predictions are counted."""

    bootstrap_samples: Whole = Field(2000, ge=100)
    """Resamplings behind each bootstrap interval."""
    level: Real = Field(0.95, gt=0.5, lt=1)
    """Coverage of the intervals."""
    reliability_bins: Whole = Field(10, ge=2)
    """Equal-width bins of confidence for the calibration error."""
    generate: bool = False
    """Let the untrained student and each arm's first student write their answers to the test questions too, and count
    them as the paper's two parsers and a strict one read them. It takes 3 to 10 times as long as scoring labels."""


class Report(Section):
    """What the report shows."""

    worst_mistakes: Whole = Field(10, ge=0)
    """How many of the surest wrong answers are shown with their text."""
    flipped_questions: Whole = Field(10, ge=0)
    """How many questions that change sides between two arms are shown with their text."""
    reference: Path | None = None
    """A file of published results to draw beside ours, such as experiments/paper/published.json."""
    reference_student: str | None = None
    """Whose of them; null: those of all students in the file."""


class Recipe(Section):
    """One run."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    """The run's name: letters, digits, dots, dashes and underscores."""
    seed: Whole = Field(42, ge=0)
    """The root from which every use of randomness derives its own seed by name."""
    seeds: Whole = Field(1, ge=1)
    """Students trained of each arm, each from another start and in another order; one tells nothing of luck."""
    cells: Path | None = None
    """A folder of finished students' results: those there are taken as done, on whatever machine they were worked out,
    and new ones are added; null: the folder ``cells`` beside the recipe, if there is one."""
    task: TaskSection | None = None
    """What is asked; null: the source's own task."""
    data: AnySource
    """Where the labelled questions come from."""
    student: Student = Student()
    """The small model."""
    teacher: AnyTeacher | None = None
    """The large model; null: none is asked."""
    allow_hosts: tuple[str, ...] = ()
    """Hosts that text may be sent to, by name; this machine needs no mention."""
    audit: Audit = Audit()
    """Whether the teacher knows the domain."""
    augment: Augment | None = None
    """What the teacher writes; null: nothing."""
    filters: Filters = Filters()
    """Which of the teacher's rows reach the student."""
    finetune: Finetune = Finetune()
    """How it is trained."""
    evaluate: Evaluate = Evaluate()
    """How its answers are counted."""
    report: Report = Report()
    """What the report shows."""

    @model_validator(mode="after")
    def _switch_off_what_looks(self) -> Self:
        wanted = self.augment.without_filter if self.augment else ()
        if idle := [name for name in wanted if name not in self.filters.active]:
            raise ValueError(
                f"augment.without_filter has {' and '.join(idle)}, but filters hasn't; set it, or take it out"
            )
        return self

    @model_validator(mode="after")
    def _have_shares_to_teach(self) -> Self:
        label = self.filters.label
        lets_all_pass = self.augment is not None and FilterName.LABEL in self.augment.without_filter
        divided = label is not None and (label.keeps_divided_answers or lets_all_pass)
        if self.finetune.soft_labels == "votes" and not divided:
            raise ValueError(
                "finetune.soft_labels=votes would change nothing: a kept row has no blind answers, or all of them "
                "chose its label; set filters.label with votes 3 or more, agreement at most 0.66 and "
                "sampling.temperature above 0"
            )
        return self

    @field_validator("name", mode="before")
    @classmethod
    def _name_text(cls, value: object) -> object:
        return as_text(value)
