"""A training's checkpoint: all that it needs to go on where it was killed, in one file that is whole or not there."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from pydantic import TypeAdapter
from safetensors import SafetensorError

from drllama.errors import StoreError
from drllama.files import write_whole
from drllama.types import Epoch

CHECKPOINT = "checkpoint.safetensors"


@dataclass(slots=True)
class Story:
    """How far training has come; all that isn't a tensor."""

    step: int
    loss_sum: float
    """Over the steps of the running epoch."""
    epochs: list[Epoch]


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """All that training needs to go on: weights, moments, the best weights so far and the story."""

    path: Path
    lesson: str
    """Fingerprint of the lesson; a checkpoint of another one would go on in the middle of something else."""

    def content(
        self,
        weights: Mapping[str, torch.Tensor],
        optimizer: torch.optim.Optimizer,
        best: Mapping[str, torch.Tensor],
        story: Story,
    ) -> bytes:
        """Return what is to be written down."""
        tensors = {f"best/{name}": weight for name, weight in best.items()}
        for name, weight in weights.items():
            tensors[f"weight/{name}"] = weight.detach()
            for moment, value in optimizer.state[weight].items():
                tensors[f"adam/{name}/{moment}"] = value
        plain = {name: tensor.contiguous() for name, tensor in tensors.items()}
        told = {"lesson": self.lesson, "story": json.dumps(asdict(story))}
        return bytes(safetensors.torch.save(plain, metadata=told))

    def load(
        self,
        weights: Mapping[str, torch.Tensor],
        optimizer: torch.optim.Optimizer,
        best: dict[str, torch.Tensor],
    ) -> Story | None:
        """Put what is written down into these, and return the story; None: nothing was written yet.

        Raises:
            StoreError: the file can't be read, or belongs to another lesson.
        """
        if not self.path.exists():
            return None
        try:
            with safetensors.safe_open(self.path, framework="pt", device="cpu") as file:
                told = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  no mapping
        except (OSError, SafetensorError) as error:
            raise StoreError(
                f"{self.path}: can't be read as a checkpoint; delete it and run again: training starts anew"
            ) from error
        if told.get("lesson") != self.lesson:
            raise StoreError(
                f"{self.path}: not a checkpoint of this training; delete it and run again: training starts anew"
            )
        with torch.no_grad():
            for name, weight in weights.items():
                weight.copy_(tensors[f"weight/{name}"])
                prefix = f"adam/{name}/"
                optimizer.state[weight] = {
                    key.removeprefix(prefix): tensor.to("cpu" if key.endswith("/step") else weight.device)
                    for key, tensor in tensors.items()
                    if key.startswith(prefix)
                }
                if f"best/{name}" in tensors:
                    best[name] = tensors[f"best/{name}"].to(weight.device)
        story = json.loads(told["story"])
        epochs = TypeAdapter(list[Epoch]).validate_python(story["epochs"])
        return Story(step=story["step"], loss_sum=story["loss_sum"], epochs=epochs)


def write_together(contents: Mapping[Path, bytes]) -> None:
    """Write several checkpoints so that ``settle``, after a kill, finds all of them old or all of them new."""
    for path, content in contents.items():
        write_whole(_next(path), content)
    for path in contents:
        _next(path).replace(path)


def settle(paths: Sequence[Path]) -> None:
    """Bring the checkpoints that ``write_together`` was killed among to the same moment."""
    first, *others = paths
    # The first is both written and put in its place before the others: where it waits no more, all were written.
    all_written = not _next(first).exists()
    for path in others:
        if all_written and _next(path).exists():
            _next(path).replace(path)
        _next(path).unlink(missing_ok=True)
    _next(first).unlink(missing_ok=True)


def _next(path: Path) -> Path:
    return path.with_name(f"{path.name}.next")
