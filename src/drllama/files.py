"""Files and folders that appear whole or not at all."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from drllama.errors import StoreError


@contextmanager
def disk_errors_told(path: Path) -> Iterator[None]:
    """Turn a full disk or a refused write into one line that names the path and the way out."""
    try:
        yield
    except OSError as error:
        match error.errno:
            case errno.ENOSPC | errno.EDQUOT:
                way_out = "free some space and run the same command again: finished steps are kept"
            case errno.EACCES | errno.EPERM | errno.EROFS:
                way_out = "choose a folder that you may write to"
            case errno.EEXIST | errno.ENOTDIR | errno.EISDIR:
                way_out = "a file stands where a folder belongs, or a folder where a file does; choose another place"
            case _:
                raise
        raise StoreError(f"{path}: {os.strerror(error.errno)}; {way_out}") from error


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file so that readers see the old content or the new, never a part, even after a power cut."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    with disk_errors_told(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                file.write(content.encode() if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


@contextmanager
def folder_whole(path: Path) -> Iterator[Path]:
    """Give an empty folder to fill; it takes the name ``path`` when the block ends without an error.

    A folder that already has this name is replaced.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    with disk_errors_told(path):
        shutil.rmtree(partial, ignore_errors=True)
        try:
            partial.mkdir(parents=True)
            yield partial
            shutil.rmtree(path, ignore_errors=True)
            partial.rename(path)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
