"""How much memory the process or the GPU has, and how much work takes at its peak."""

import resource
import sys
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_CGROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def used_bytes(device: torch.device) -> int:
    """Return the memory of this process, or of its tensors on a GPU."""
    if device.type == "cuda":
        return int(torch.cuda.memory_allocated(device))
    statm = Path("/proc/self/statm")
    if statm.is_file():
        return int(statm.read_text(encoding="ascii").split()[1]) * resource.getpagesize()
    # Elsewhere only the peak so far is told, in bytes on a Mac and in KiB on others.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def free_bytes(device: torch.device) -> int | None:
    """Return the memory that may still be taken; None where the system doesn't tell."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))
    found = []
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        lines = (line.split() for line in meminfo.read_text(encoding="ascii").splitlines())
        found += [int(line[1]) * 1024 for line in lines if line[0] == "MemAvailable:"]
    for limit, usage in _CGROUPS:
        allowed = Path(limit).read_text(encoding="ascii").strip() if Path(limit).is_file() else "max"
        if allowed != "max" and Path(usage).is_file():
            found.append(int(allowed) - int(Path(usage).read_text(encoding="ascii")))
    return max(0, min(found)) if found else None


def room_bytes(device: torch.device) -> int | None:
    """Return the most memory that the process could take now; None where the system doesn't tell.

    What it has counts as room: an allocator keeps what earlier work gave back.
    """
    free = free_bytes(device)
    return None if free is None else used_bytes(device) + free


class LiveBytes(TorchDispatchMode):
    """Counts, while it is entered, the bytes of the tensors that work makes and hasn't dropped yet.

    Unlike the resident size of the process, this doesn't hang on what an allocator kept of earlier work.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak: int = 0
        self._live: int = 0
        self._known: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        """Carry out an operation and count what it made."""
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor.untyped_storage())
        return made

    def note(self, tensors: Iterable[torch.Tensor]) -> None:
        """Hear of tensors that were there before: what only shows them in another shape made nothing."""
        for tensor in tensors:
            self._known.add(tensor.untyped_storage())

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage in self._known:
            return
        self._known.add(storage)
        size = storage.nbytes()
        self._live += size
        self.peak = max(self.peak, self._live)
        weakref.finalize(storage, self._drop, size)

    def _drop(self, size: int) -> None:
        self._live -= size
