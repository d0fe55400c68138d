"""Work on frozen weights, done once: tensors that follow from base weights and tokens alone, kept on disk.

Epochs, seeds, arms, sweep cells and scoring share them, in this process and the next. An entry is a file named by the
hash of all that it depends on; it appears whole or not at all, so that processes need no locks. What the disk doesn't
take, or gives back damaged, is worked out again: the cache can make a run faster, never fail.
"""

import hashlib
import os
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import safetensors.torch
import torch
import transformers
from safetensors import SafetensorError, safe_open

from drllama.errors import StoreError
from drllama.files import write_whole
from drllama.ids import fingerprint
from drllama.recipe import FrozenCache
from drllama.students.catalogue import cache_folder

# A change of what an entry holds changes this number.
_FORMAT = 1
_GIB = 1 << 30
# Other files, checkpoints above all, need the disk more than a cache does.
_SPARE_BYTES = _GIB
# The folder is looked through whenever so large a share of its bound was written; with the margin, the bound holds.
_LOOKED_AFTER, _FILLED_TO, _EMPTIED_TO = 0.05, 0.95, 0.9
_ABANDONED_SECONDS = 3600.0


class FrozenWork:
    """Remembers what frozen weights make of tokens."""

    def __init__(self, base: Mapping[str, object], settings: FrozenCache) -> None:
        """Keep entries of the base model that ``base`` describes; it names all that its numbers depend on."""
        self._dtype = None if settings.dtype is None else getattr(torch, settings.dtype)
        versions = [torch.__version__, transformers.__version__, _FORMAT]
        self._base = fingerprint([dict(base), versions, settings.dtype])
        self._shelf = _Shelf(cache_folder() / "frozen", max_bytes=int(settings.max_gib * _GIB))
        self._trusted: set[Path] = set()

    @property
    def remembers(self) -> bool:
        """Return whether anything is kept."""
        return self._dtype is not None

    def recall(
        self, kind: str, tokens: Sequence[int], work: Callable[[], Sequence[torch.Tensor]]
    ) -> list[torch.Tensor]:
        """Return what ``work`` returns for these tokens, worked out now or before, on the CPU.

        The numbers are rounded to the cache's number format, whether or not they come from the disk: results don't
        depend on what it holds. Tensors too large for 16 bits stay in 32. Without a cache nothing is rounded or moved.
        """
        if self._dtype is None:
            return list(work())
        digest = hashlib.sha256(f"{self._base} {kind} {' '.join(map(str, tokens))}".encode()).hexdigest()
        path = self._shelf.folder / self._base[:16] / f"{digest}.safetensors"
        found = self._read(path)
        if found is None:
            found = [_rounded(tensor.cpu(), self._dtype) for tensor in work()]
            self._keep(path, found)
        return found

    def _read(self, path: Path) -> list[torch.Tensor] | None:
        try:
            with safe_open(path, framework="pt", device="cpu") as file:
                # They are views of the mapped file: nothing is copied, and the system drops what it has no room for.
                tensors = [file.get_tensor(str(number)) for number in range(len(file.keys()))]
                if path not in self._trusted:
                    if (file.metadata() or {}).get("crc32") != _checksum(tensors):
                        return None
                    os.utime(path)
        except (OSError, SafetensorError):
            return None
        self._trusted.add(path)
        return tensors

    def _keep(self, path: Path, tensors: Sequence[torch.Tensor]) -> None:
        size = sum(tensor.nbytes for tensor in tensors)
        try:
            if self._shelf.has_room(size):
                named = {str(number): tensor.contiguous() for number, tensor in enumerate(tensors)}
                write_whole(path, safetensors.torch.save(named, metadata={"crc32": _checksum(tensors)}))
                self._trusted.add(path)
        except (OSError, StoreError):
            self._shelf.close()


def _rounded(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    rounded = tensor.to(dtype)
    return rounded if bool(rounded.isfinite().all()) else tensor.float()


def _checksum(tensors: Sequence[torch.Tensor]) -> str:
    crc = 0
    for tensor in tensors:
        crc = zlib.crc32(tensor.contiguous().flatten().view(torch.uint8).numpy().data, crc)
    return str(crc)


class _Shelf:
    """A folder of entries of all base models, bounded in size; the oldest go out, but none used since we began."""

    def __init__(self, folder: Path, *, max_bytes: int) -> None:
        self.folder, self._max_bytes = folder, max_bytes
        self._began = time.time()
        self._unseen_bytes: int | None = None
        """Written since the folder was looked through; None: never looked."""
        self._full = False

    def has_room(self, size: int) -> bool:
        """Return whether an entry of this size may be added, after making room if need be.

        Raises:
            OSError: the folder can't be read.
        """
        if self._unseen_bytes is None or self._unseen_bytes + size > self._max_bytes * _LOOKED_AFTER:
            self._look_through(size)
        if self._full:
            return False
        self._unseen_bytes = (self._unseen_bytes or 0) + size
        return True

    def close(self) -> None:
        """Take no more entries in this process."""
        self._full = True

    def _look_through(self, size: int) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        entries = sorted(self._entries())
        total = sum(taken for _, taken, _ in entries)
        if total + size > self._max_bytes * _FILLED_TO:
            for used, taken, path in entries:
                # Rows come round again and again: to throw one out for the next would leave none when they do.
                if used >= self._began or total + size <= self._max_bytes * _EMPTIED_TO:
                    break
                path.unlink(missing_ok=True)
                total -= taken
        disk = os.statvfs(self.folder)
        self._full = total + size > self._max_bytes * _FILLED_TO or disk.f_bavail * disk.f_frsize < size + _SPARE_BYTES
        self._unseen_bytes = 0

    def _entries(self) -> Iterator[tuple[float, int, Path]]:
        """Yield when each entry was last used, its bytes and its path; what killed writers left is removed."""
        for path in self.folder.glob("*/*"):
            try:
                status = path.stat()
            except FileNotFoundError:
                continue
            if path.suffix == ".partial" and time.time() - status.st_mtime > _ABANDONED_SECONDS:
                path.unlink(missing_ok=True)
            else:
                yield status.st_mtime, status.st_size, path
