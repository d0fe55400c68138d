"""What ``drllama doctor`` prints."""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from drllama import plugins
from drllama.environment import package_versions, processor
from drllama.errors import DrLlamaError, MissingExtra
from drllama.students.catalogue import cache_folder, student_states

_GIB = 2**30


def checkup() -> Iterator[str]:
    """Yield one line for each fact, and one for each thing that is missing, with the command that brings it."""
    wants = []
    yield f"python                {sys.version.split()[0]}"
    for package, version in package_versions().items():
        yield f"{package:<21} {version}"
    yield f"processor             {processor()}, {os.cpu_count()} cores"
    yield from _memory()
    free = shutil.disk_usage(_existing(cache_folder())).free / _GIB
    yield f"cache                 {cache_folder()}, {free:.0f} GiB free"
    try:
        for name, value in plugins.load(plugins.MACHINE)():
            yield f"{name:<21} {value}"
    except MissingExtra as error:
        wants.append(str(error))
    for one in student_states():
        yield f"student {one.student.name:<13} {one.state}"
        if one.state == "missing":
            wants.append(f"{one.student.name}: {one.place}")
    try:
        plugins.find_demo_questions()
        yield "pubmedqa-demo         ready"
    except DrLlamaError as error:
        wants.append(str(error))
    yield "nothing is missing" if not wants else "missing:"
    yield from (f"  {want}" for want in wants)


def _memory() -> Iterator[str]:
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        page = os.sysconf("SC_PAGE_SIZE")
        free = os.sysconf("SC_AVPHYS_PAGES") * page / _GIB
        yield f"memory                {os.sysconf('SC_PHYS_PAGES') * page / _GIB:.1f} GiB, {free:.1f} GiB unused"


def _existing(folder: Path) -> Path:
    while not folder.is_dir():
        folder = folder.parent
    return folder
