"""Arms: what a student is trained on beside the real rows, and which of them is the one to use."""

from collections.abc import Sequence
from typing import assert_never

from drllama.recipe import Finetune
from drllama.types import Arm, ArmName, Candidate, Example, Finetuned, Synthetic

SYSTEMS = {
    ArmName.NONE: "fine-tuned",
    ArmName.REWRITE: "fine-tuned + rewrites",
    ArmName.NEW: "fine-tuned + new questions",
    ArmName.COMBINED: "fine-tuned + both",
}
"""An arm's name among evaluations and in reports."""


def methods_of(arm: ArmName) -> tuple[str, ...]:
    """Return how the teacher's rows that an arm trains on were made."""
    match arm:
        case ArmName.NONE:
            return ()
        case ArmName.REWRITE | ArmName.NEW:
            return (arm.value,)
        case ArmName.COMBINED:
            return ("rewrite", "new")
        case _ as other:
            assert_never(other)


def rows_of(arm: ArmName, train: Sequence[Example], candidates: Sequence[Candidate]) -> tuple[Example, ...]:
    """Return the training rows of an arm: the real ones, then the teacher's."""
    return (*train, *(one.example for one in candidates if _method(one) in methods_of(arm)))


def chosen_arm(arms: Sequence[Arm], settings: Finetune) -> ArmName:
    """Return the arm whose chosen epoch is best on dev, by what chooses epochs; of equals the first."""
    return max(arms, key=lambda arm: worth_on_dev(arm.finetuned, settings)).name


def worth_on_dev(finetuned: Finetuned, settings: Finetune) -> float:
    """Return how good the chosen epoch is on dev, by what chooses epochs; more is better."""
    epoch = finetuned.epochs[finetuned.chosen_epoch - 1]
    match settings.choose_epoch_by:
        case "accuracy":
            return epoch.dev_accuracy
        case "macro_f1":
            return epoch.dev_macro_f1
        case "nll" | "last":
            return -epoch.dev_nll_nats


def _method(candidate: Candidate) -> str:
    assert isinstance(candidate.example.origin, Synthetic), candidate
    return candidate.example.origin.method
