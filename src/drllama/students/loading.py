"""From a model's name to its weights in memory; GGUF files are converted once to safetensors in the cache."""

import errno
import hashlib
import io
import logging
import re
import shutil
import struct
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from safetensors import SafetensorError

from drllama.errors import MissingExtra, ModelError, RecipeError
from drllama.files import disk_errors_told, folder_whole
from drllama.ids import file_sha256
from drllama.recipe import Student
from drllama.students.catalogue import STUDENTS, GgufParts, HubModel, ModelFolder, converted_folder, find_model
from drllama.students.chat import speaks_in_chat
from drllama.students.memory import room_bytes
from drllama.types import StudentCard

_GIB = 2**30
_CPU = torch.device("cpu")
_WEIGHTS = ("*.safetensors", "*.bin")
_TOKENIZER = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
    "tokenizer_config.json",
    "*.jinja",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """A causal language model in memory with its tokenizer."""

    model: Any
    tokenizer: Any
    card: StudentCard


def load_model(settings: Student) -> LoadedModel:
    """Return the model of the recipe's student section, in evaluation mode, its weights frozen.

    Raises:
        ModelError: the weights are missing, changed, or not a causal language model.
        RecipeError: the student can't read inputs of ``max_tokens``.
        MissingExtra: transformers, or the package that carries the weights, isn't installed.
    """
    device = device_of(settings.device)
    dtype = _dtype(settings.dtype, device)
    folder = _folder_of(settings)
    model, tokenizer = _from_folder(folder, settings, device, dtype)
    # Weights that are to be divided may be too large for one device.
    model = model.to(device if settings.processes == 1 else "cpu").eval().requires_grad_(False)
    _refuse_reading_backwards(model, settings.model)
    card = StudentCard(
        model=settings.model,
        weights_sha256=_hash_of(folder, _WEIGHTS),
        tokenizer_sha256=_hash_of(folder, _TOKENIZER),
        num_parameters=sum(weight.numel() for weight in model.parameters()),
        device=_device_name(device),
        dtype=str(dtype).removeprefix("torch."),
        is_chat=speaks_in_chat(tokenizer, settings.chat),
    )
    return LoadedModel(model=model, tokenizer=tokenizer, card=card)


def load_tokenizer(settings: Student) -> Any:  # noqa: ANN401  transformers' tokenizers have no common type
    """Return the tokenizer of the recipe's student without its weights (see ``load_model``)."""
    with _quiet_transformers() as transformers:
        return transformers.AutoTokenizer.from_pretrained(_folder_of(settings), local_files_only=True)


def weights_sha256(settings: Student) -> str:
    """Return the hash of the model's weights without loading them (see ``load_model``)."""
    return _hash_of(_folder_of(settings), _WEIGHTS)


def _folder_of(settings: Student) -> Path:
    place = find_model(settings.model, revision=settings.revision)
    match place:
        case GgufParts():
            return _converted(place)
        case ModelFolder(path=path):
            return path
        case HubModel():
            return _downloaded(place)


def _from_folder(folder: Path, settings: Student, device: torch.device, dtype: torch.dtype) -> tuple[Any, Any]:
    with _quiet_transformers() as transformers:
        from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CAUSAL

        try:
            config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
            if config.model_type not in CAUSAL:
                raise ValueError(f"a model of type {config.model_type}")
            _refuse_too_long(config, settings)
            # Weights come by way of the CPU; those that are to be divided don't go on to one device as a whole.
            places = {_CPU, device} if settings.processes == 1 else {_CPU}
            _refuse_too_large(config, settings.model, dtype, places, halved_by="student.dtype=bfloat16")
            model = saved_model(folder, dtype)
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
            raise ModelError(
                f"student.model {settings.model}: {_first_line(error)}; give a causal language model"
            ) from error
    return model, tokenizer


def saved_model(folder: Path, dtype: torch.dtype) -> Any:  # noqa: ANN401
    """Return the causal language model that a folder of transformers holds.

    Raises:
        OSError, ValueError, SafetensorError: a file is missing or broken, or the weights don't fit the configuration.
    """
    with _quiet_transformers() as transformers:
        model, found = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, local_files_only=True, output_loading_info=True, ignore_mismatched_sizes=True
        )
    # What the file lacks, transformers fills with chance and a warning.
    if lacking := sorted([*found["missing_keys"], *(name for name, *_ in found["mismatched_keys"])]):
        shown = ", ".join(lacking[:3]) + (", ..." if len(lacking) > 3 else "")
        raise ValueError(f"the weights don't have {shown} in the shape that config.json asks for")
    return model


def _refuse_too_long(config: Any, settings: Student) -> None:  # noqa: ANN401
    longest = getattr(config.get_text_config(), "max_position_embeddings", None)
    if longest is not None and settings.max_tokens > longest:
        raise RecipeError(
            f"student.max_tokens is {settings.max_tokens}, {settings.model} reads at most {longest}; lower it"
        )


def _refuse_too_large(
    config: Any,  # noqa: ANN401
    name: str,
    dtype: torch.dtype,
    places: Iterable[torch.device],
    *,
    halved_by: str = "",
) -> None:
    """Refuse weights that won't fit: loaded in spite of it, they'd have the system kill the program without a word."""
    room = min((found for place in places if (found := room_bytes(place)) is not None), default=None)
    needed = (number := _num_parameters(config)) * dtype.itemsize
    if room is None or needed <= room:
        return
    way_out = f"choose a student of at most {room / dtype.itemsize / 1e6:,.0f} million parameters"
    if halved_by and dtype == torch.float32 and needed / 2 <= room:
        way_out = f"set {halved_by}, or {way_out}"
    raise ModelError(
        f"student.model {name}: {number / 1e6:,.0f} million parameters take {needed / _GIB:.1f} GiB of memory as "
        f"{str(dtype).removeprefix('torch.')}, there are {room / _GIB:.1f}; {way_out}"
    )


def _num_parameters(config: Any) -> int:  # noqa: ANN401
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):  # Shapes alone, no memory.
        model = AutoModelForCausalLM.from_config(config)
    return sum(weight.numel() for weight in model.parameters())


def _refuse_reading_backwards(model: Any, name: str) -> None:  # noqa: ANN401
    """Refuse a model whose scores depend on what stands behind a word: padding would change its answers."""
    with torch.inference_mode():
        first, other = model(input_ids=torch.tensor([[0, 0], [0, 1]], device=model.device)).logits[:, 0].float()
    if not torch.allclose(first, other, rtol=1e-2, atol=1e-2):
        raise ModelError(
            f"student.model {name}: what it says of a word depends on the words behind it; give a causal language model"
        )


def device_of(wanted: str) -> torch.device:
    """Return the device that the setting names.

    Raises:
        ModelError: there is none; the message says which there are.
    """
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:\d+)?", wanted):
        raise ModelError(f"student.device: unknown device '{wanted}'; choose auto, cpu, cuda or cuda:N")
    device = torch.device(wanted)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ModelError(f"student.device {wanted}: this machine has no CUDA device; choose auto or cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ModelError(
            f"student.device {wanted}: this machine's CUDA devices end with cuda:{torch.cuda.device_count() - 1}; "
            "choose one of them, auto or cpu"
        )
    return device


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return f"cuda, {torch.cuda.get_device_name(device)}"
    return f"{device.type}, {torch.get_num_threads()} threads"


def _dtype(wanted: str, device: torch.device) -> torch.dtype:
    if wanted == "auto":
        # bf16 without AMX or a GPU falls back to reference code, tens of times slower than fp32.
        on_gpu = device.type == "cuda" and torch.cuda.is_bf16_supported()
        return torch.bfloat16 if on_gpu else torch.float32
    return torch.float32 if wanted == "float32" else torch.bfloat16


def _hash_of(folder: Path, patterns: tuple[str, ...]) -> str:
    digest = hashlib.sha256()
    for path in sorted({path for pattern in patterns for path in folder.glob(pattern)}):
        digest.update(f"{path.name} {file_sha256(path)}\n".encode())
    return digest.hexdigest()


def _converted(parts: GgufParts) -> Path:
    digest = hashlib.sha256()
    for path in parts.files:
        with path.open("rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
    found = digest.hexdigest()
    if parts.sha256 not in (None, found):
        again = " or ".join(student.install_command for student in STUDENTS if student.name == parts.name)
        raise ModelError(
            f"student {parts.name}: {parts.files[0]} hashes to {found[:16]}..., not {str(parts.sha256)[:16]}...; "
            f"the file was changed or cut: {again} --force-reinstall"
        )
    folder = converted_folder(found)
    if not folder.is_dir():
        with disk_errors_told(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(folder.with_suffix(".lock")):
                if not folder.is_dir():
                    _convert(parts, folder)
    return folder


def _convert(parts: GgufParts, folder: Path) -> None:
    for leftover in folder.parent.glob(f"{folder.name}.*.partial"):
        shutil.rmtree(leftover)  # of a conversion that was killed; the lock says that nobody works on it
    with (
        folder_whole(folder) as partial,
        tempfile.TemporaryDirectory(dir=folder.parent, prefix=f"{folder.name}.", suffix=".partial") as joined,
        _quiet_transformers() as transformers,
    ):
        gguf = Path(joined) / "joined.gguf"
        if len(parts.files) == 1:
            gguf.symlink_to(parts.files[0].resolve())
        else:
            with gguf.open("wb") as whole:
                for part in parts.files:
                    with part.open("rb") as file:
                        shutil.copyfileobj(file, whole)
        try:
            config = transformers.AutoConfig.from_pretrained(joined, gguf_file=gguf.name)
            _refuse_too_large(config, parts.name, torch.float32, [_CPU])
            model = transformers.AutoModelForCausalLM.from_pretrained(joined, gguf_file=gguf.name, dtype=torch.float32)
            tokenizer = transformers.AutoTokenizer.from_pretrained(joined, gguf_file=gguf.name)
        except ImportError as error:
            raise MissingExtra("reading a GGUF file needs the package gguf; pip install 'drllama[train]'") from error
        except (OSError, ValueError, LookupError, NotImplementedError, struct.error) as error:
            raise ModelError(
                f"student {parts.name}: {_first_line(error)}; not a GGUF file that transformers reads"
            ) from error
        # transformers marks a model from GGUF as quantized and refuses to save it, though its weights are plain fp32.
        model.hf_quantizer = None
        for mark in ("quantization_config", "_pre_quantization_dtype"):
            if hasattr(model.config, mark):
                delattr(model.config, mark)
        save_model(model, tokenizer, partial)


def save_model(model: Any, tokenizer: Any, folder: Path) -> None:  # noqa: ANN401
    """Write a model and its tokenizer as transformers reads them, the same bytes for the same weights."""
    try:
        with _quiet_transformers():
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
    except SafetensorError as error:
        # safetensors tells the system's errors, a full disk too, in words of its own.
        number = re.search(r"os error (\d+)", str(error))
        raise OSError(int(number[1]) if number else errno.EIO, str(error)) from error


def _downloaded(hub: HubModel) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    wanted = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]
    try:
        return Path(snapshot_download(hub.name, revision=hub.revision, allow_patterns=wanted))
    except RepositoryNotFoundError as error:
        raise ModelError(
            f"student.model {hub.name}: the Hub has no such model (or it needs a token); check the id"
        ) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise ModelError(
            f"student.model {hub.name}: the Hugging Face Hub can't be reached and the model isn't in its cache; "
            "connect, or give a local folder or .gguf file"
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__


@contextmanager
def _quiet_transformers() -> Iterator[Any]:
    """Give transformers with its progress bars, hints and load reports off: our own progress speaks."""
    try:
        import transformers
    except ImportError as error:
        raise MissingExtra("a student needs torch and transformers; pip install 'drllama[train]'") from error
    transformers.utils.logging.disable_progress_bar()
    before = transformers.utils.logging.get_verbosity()
    transformers.utils.logging.set_verbosity(logging.ERROR)
    try:
        # The GGUF reader draws a bar of its own that no setting turns off.
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield transformers
    finally:
        transformers.utils.logging.set_verbosity(before)
