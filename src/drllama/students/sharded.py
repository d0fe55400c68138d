"""A student's frozen weights divided among several processes, each with a GPU of its own (FSDP).

Letters: B rows, K positions, V vocabulary.
The first process runs the whole program; the others hold their part of the weights, do what they are told on their
standard input, and end when it does. All read rows at the same time, each its own. Adapters are small: every process
has them whole, the first alone trains, saves and loads them.
"""

import json
import shutil
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from math import ceil
from pathlib import Path
from typing import Any

import peft
import torch
import torch.distributed

from drllama.errors import ModelError, RecipeError
from drllama.recipe import AnyMethod, Ia3, Lora, Student
from drllama.students.adapters import take_off
from drllama.students.loading import device_of, load_model
from drllama.students.methods import peft_warnings_off
from drllama.students.passes import PlainReader, decoder_layers
from drllama.students.rows import Row
from drllama.students.stacked import drops

_PATIENCE_SECONDS = 30.0


def refuse_unshardable(method: AnyMethod) -> None:
    """Refuse a method that isn't trained on divided weights.

    Raises:
        RecipeError: it isn't; the message says which are.
    """
    if isinstance(method, Lora) and not method.dora and method.dropout == 0:
        return
    if not isinstance(method, Ia3):
        raise RecipeError(
            f"finetune.method.{method.kind}: with student.processes above 1, only lora without dropout and dora, and "
            "ia3 can be trained; choose one of them, or student.processes 1"
        )


class Crew:
    """The processes among which a student's weights are divided, seen from the first of them."""

    def __init__(self, model: Any, settings: Student) -> None:  # noqa: ANN401
        """Divide the weights of this bare model; the other processes load them anew.

        Raises:
            ModelError: the student can't be divided so.
        """
        _refuse_undividable(model, settings)
        self._folder = Path(tempfile.mkdtemp(prefix="drllama-"))
        # In a session of their own: they don't hear of an interrupt, but end with this process.
        self._others = [
            subprocess.Popen([sys.executable, "-m", __name__], stdin=subprocess.PIPE, text=True, start_new_session=True)
            for _ in range(1, settings.processes)
        ]
        weakref.finalize(self, _end, self._others, self._folder)
        for rank, process in enumerate(self._others, start=1):
            _tell([process], {"student": settings.model_dump(mode="json"), "folder": str(self._folder), "rank": rank})
        self.part = _Part(model, settings, rank=0, folder=self._folder)
        self._told: list[tuple[torch.Tensor, int]] = []

    def reader(self, model: Any) -> "ShardedReader":  # noqa: ANN401
        """Return the reader for the bare model or what it wears now.

        Raises:
            ModelError: what it wears isn't read with divided weights.
        """
        if model is not self.part.worn:
            if model is not self.part.bare:
                _refuse_unreadable(model)
                model.active_peft_config.save_pretrained(self._folder)
            self.part.worn = model
            self.tell({"do": "undress" if model is self.part.bare else "wear"})
        return ShardedReader(self)

    def tell(self, order: Mapping[str, object]) -> None:
        """Tell the others what to do.

        Raises:
            ModelError: one of them has ended.
        """
        if any(process.poll() is not None for process in self._others):
            raise ModelError("student.processes: one of them has ended; what it said stands above; run again")
        _tell(self._others, order)

    def share_weights(self) -> None:
        """Give the others the adapter's weights, if they changed."""
        now = [(weight, weight._version) for weight in self.part.adapter()]
        same = len(now) == len(self._told) and all(
            weight is told and version == before
            for (weight, version), (told, before) in zip(now, self._told, strict=True)
        )
        if not same:
            self.tell({"do": "take weights"})
            self.part.take_weights()
            self._told = [(weight, weight._version) for weight in self.part.adapter()]


class ShardedReader:
    """Reads rows with all processes, each its share of them (see ``passes.Reader``)."""

    one_by_one = False

    def __init__(self, crew: Crew) -> None:
        """Read with what the crew wears."""
        self._crew, self.model = crew, crew.part.worn

    def train(self) -> None:
        """See ``Reader``; nothing drops anything here."""

    def logits(self, rows: Sequence[Row], asked_BK: torch.Tensor) -> torch.Tensor:
        """See ``Reader``."""
        self._crew.share_weights()
        trained = any(weight.requires_grad for weight in self._crew.part.adapter())
        asked: list[list[int]] = asked_BK.tolist()
        tokens = [row.tokens for row in rows]
        if not (torch.is_grad_enabled() and trained):
            self._crew.tell({"do": "read", "tokens": tokens, "asked": asked})
            return self._crew.part.read(tokens, asked)
        self._crew.tell({"do": "read and remember", "tokens": tokens, "asked": asked})
        # The way back of all processes begins here, after that of the loss: FSDP goes only one way at a time.
        self._logits_BKV = self._crew.part.read_and_remember(tokens, asked).requires_grad_()
        return self._logits_BKV

    def backward(self, loss: torch.Tensor) -> None:
        """See ``Reader``; the others' gradients are added to the first's."""
        loss.backward()  # type: ignore[no-untyped-call]
        self._crew.tell({"do": "go back"})
        part = self._crew.part
        trained = [weight for weight in part.adapter() if weight.requires_grad]
        for weight, gradient in zip(trained, part.go_back(self._logits_BKV.grad), strict=True):
            weight.grad = gradient if weight.grad is None else weight.grad + gradient


class _Part:
    """One process's part of the weights, and its share of the work; all processes do the same at the same time."""

    def __init__(self, model: Any, settings: Student, *, rank: int, folder: Path) -> None:  # noqa: ANN401
        # Imported here: it takes a second, which everyone with one process would wait.
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        device = device_of(settings.device)
        if device.type == "cuda":
            torch.cuda.set_device(rank)
        torch.distributed.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            init_method=f"file://{folder / 'meeting'}",
            rank=rank,
            world_size=settings.processes,
        )
        mesh = init_device_mesh(device.type, (settings.processes,))
        for layer in decoder_layers(model):
            fully_shard(layer, mesh=mesh)
        fully_shard(model, mesh=mesh)
        self._rank, self._processes = rank, settings.processes
        self._remembered: torch.Tensor | None = None
        self.bare = self.worn = model

    def adapter(self) -> list[torch.Tensor]:
        """Return the adapter's weights."""
        # Not all that is no DTensor: what FSDP has gathered for a pass isn't one either.
        worn = self.worn
        if not isinstance(worn, peft.PeftModel):
            return []
        return [weight for name, weight in worn.named_parameters() if worn.base_model.prefix in name]

    def take_weights(self) -> None:
        """Make the adapter the same everywhere: that of the first process."""
        for weight in self.adapter():
            torch.distributed.broadcast(weight.data, 0)

    def read(self, tokens: Sequence[Sequence[int]], asked: Sequence[Sequence[int]]) -> torch.Tensor:
        """Return the logits at these positions of all rows, [B, K, V]."""
        # What FSDP gathers in inference mode couldn't be used for training afterwards.
        with torch.inference_mode(mode=False), torch.no_grad():
            logits_BKV = self._gathered(self._own(tokens, asked), len(tokens))
        # Else the outermost weights would stay whole, until this process or that one looks at all weights.
        self.bare.reshard()
        return logits_BKV

    def read_and_remember(self, tokens: Sequence[Sequence[int]], asked: Sequence[Sequence[int]]) -> torch.Tensor:
        """Return what ``read`` does; ``go_back`` goes back from here."""
        with torch.enable_grad():
            self._remembered = self._own(tokens, asked)
        return self._gathered(self._remembered.detach(), len(tokens))

    def go_back(self, gradient_BKV: torch.Tensor | None = None) -> list[torch.Tensor]:
        """Return the adapter's gradients, added up over the rows of all processes; the first knows the logits'."""
        own_bKV, self._remembered = self._remembered, None
        assert own_bKV is not None, "nothing was read"
        whole_BKV = own_bKV.new_zeros(len(own_bKV) * self._processes, *own_bKV.shape[1:])
        if gradient_BKV is not None:
            whole_BKV[: len(gradient_BKV)] = gradient_BKV
        torch.distributed.broadcast(whole_BKV, 0)
        weights = [weight for weight in self.adapter() if weight.requires_grad]
        start = self._rank * len(own_bKV)
        found = torch.autograd.grad(own_bKV, weights, whole_BKV[start : start + len(own_bKV)], allow_unused=True)
        gradients = [
            torch.zeros_like(weight) if one is None else one.contiguous()
            for weight, one in zip(weights, found, strict=True)
        ]
        for gradient in gradients:
            torch.distributed.all_reduce(gradient)
        return gradients

    def _own(self, tokens: Sequence[Sequence[int]], asked: Sequence[Sequence[int]]) -> torch.Tensor:
        share = ceil(len(tokens) / self._processes)
        # All must read equally many; what is read beyond the last row is thrown away.
        places = [min(at, len(tokens) - 1) for at in range(self._rank * share, (self._rank + 1) * share)]
        rows = [Row(tokens=tuple(tokens[at]), context=0, shared=0) for at in places]
        return PlainReader(self.worn, []).whole(rows, torch.tensor([asked[at] for at in places]))

    def _gathered(self, own_bKV: torch.Tensor, num_rows: int) -> torch.Tensor:
        shares = [torch.empty_like(own_bKV) for _ in range(self._processes)]
        torch.distributed.all_gather(shares, own_bKV.contiguous())
        return torch.cat(shares)[:num_rows]


def _tell(processes: Sequence["subprocess.Popen[str]"], order: Mapping[str, object]) -> None:
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(json.dumps(order) + "\n")
        process.stdin.flush()


def _end(processes: Sequence["subprocess.Popen[str]"], folder: Path) -> None:
    for process in processes:
        assert process.stdin is not None
        with suppress(BrokenPipeError):
            process.stdin.close()
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    for process in processes:
        try:
            process.wait(_PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
    shutil.rmtree(folder, ignore_errors=True)


def _refuse_undividable(model: Any, settings: Student) -> None:  # noqa: ANN401
    number = settings.processes
    if torch.distributed.is_initialized():
        raise ModelError("student.processes: this program has divided another student already; use one at a time")
    if device_of(settings.device).type == "cuda":
        if settings.device not in ("auto", "cuda"):
            raise ModelError(f"student.device {settings.device}: with student.processes {number}, choose auto or cuda")
        if (there := torch.cuda.device_count()) < number:
            raise ModelError(f"student.processes is {number}, this machine has {there} GPUs; lower it")
    if not decoder_layers(model):
        raise ModelError(f"student.processes: it isn't clear which are the layers of {settings.model}; set it to 1")
    if drops(model):
        raise ModelError(
            f"student.processes: {settings.model} drops by chance in training, which isn't divided; set it to 1"
        )


def _refuse_unreadable(model: Any) -> None:  # noqa: ANN401
    config = model.active_peft_config if isinstance(model, peft.PeftModel) else None
    plain_lora = isinstance(config, peft.LoraConfig) and not (config.alora_invocation_tokens or config.use_dora)
    if not (plain_lora or isinstance(config, peft.IA3Config)):
        raise ModelError(
            "student.processes: divided weights wear only what lora without dora, or ia3, trained; set it to 1"
        )


def _follow() -> None:
    """Do what the first process says, until it says nothing more."""
    told = json.loads(sys.stdin.readline())
    settings, folder = Student.model_validate(told["student"]), Path(told["folder"])
    bare = load_model(settings).model
    part = _Part(bare, settings, rank=told["rank"], folder=folder)
    for line in sys.stdin:
        order = json.loads(line)
        match order["do"]:
            case "wear" | "undress" as what:
                take_off(part.worn)
                part.worn = bare
                if what == "wear":
                    with peft_warnings_off():
                        part.worn = peft.get_peft_model(bare, peft.PeftConfig.from_pretrained(folder)).eval()
                    for weight in part.adapter():
                        weight.requires_grad_(True)
            case "take weights":
                part.take_weights()
            case "read":
                part.read(order["tokens"], order["asked"])
            case "read and remember":
                part.read_and_remember(order["tokens"], order["asked"])
            case "go back":
                part.go_back()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    _follow()
