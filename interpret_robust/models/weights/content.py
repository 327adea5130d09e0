"""Everything that a file of weights holds, safetensors or what `torch.save` wrote; nothing is unpickled."""

import json
import warnings
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from interpret_robust.core.errors import UserError
from interpret_robust.core.plugins import quote_error
from interpret_robust.datasets.npz import CHUNK
from interpret_robust.models.card import check_weights

LFS = b"version https://git-lfs"


def read_content(path: Path) -> Any:
    """Return what a file holds. Raises UserError for a file that is missing, damaged, or of another kind."""
    check_weights(path)
    check_archive(path)
    try:
        if _is_safetensors(path):
            return _read_metadata(path) | load_file(path)
        with open(path, "rb") as file:  # not by its name, by which torch tells safetensors
            return read_tensors(file)
    except Exception as error:  # torch's unpickler raises what it likes
        if reason := _describe_kind(path):
            raise UserError(f"{path} {reason}") from None
        if isinstance(error, SafetensorError | OSError | RuntimeError | ValueError | EOFError | KeyError):
            raise UserError(
                f"{path} is damaged or holds no weights ({quote_error(error)}): save model.state_dict() anew."
            ) from None
        raise UserError(
            f"{path} is no state dict that torch reads with weights_only, and nothing else is unpickled: save "
            "model.state_dict(), or better a safetensors file."
        ) from error


def _read_metadata(path: Path) -> dict[str, Any]:
    """Return what a safetensors file says beside its tensors, with what its texts hold where they are JSON."""
    with safe_open(path, "pt") as file:
        metadata: dict[str, Any] = dict(file.metadata() or {})
    for name, text in metadata.items():
        with suppress(ValueError, RecursionError):
            metadata[name] = json.loads(text)
    return metadata


def check_archive(path: Path) -> None:
    """Raise UserError where a part of a zip archive, as `torch.save` writes it, has not its checksum.

    Torch does not look at them. It keeps none, but zero, where `torch.serialization.set_crc32_options` says so.

    Example:
        >>> check_archive(Path("weights.pt"))
    """
    if not zipfile.is_zipfile(path):
        return
    part = "its directory"  # what zipfile reads first
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                part = repr(entry.filename)
                if entry.CRC:
                    with archive.open(entry) as member:
                        while member.read(CHUNK):  # zipfile checks the CRC-32 at the end
                            pass
    except Exception as error:  # zipfile raises what it likes for a directory that is damaged
        raise UserError(f"{path} is damaged, at {part} ({quote_error(error)}): save or download it anew.") from error


def read_tensors(path: Path | IO[bytes], *, mmap: bool = False) -> Any:
    """Return what `torch.save` wrote: tensors, numbers, texts and what contains them, on the CPU; nothing is unpickled.

    Raises whatever torch raises for another file, without its warnings.

    Example:
        >>> read_tensors(Path("weights.pt"))["classifier.bias"].shape
        torch.Size([10])
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)


def _is_safetensors(path: Path) -> bool:
    """Return whether a file is of safetensors, whatever its name ends with: a length, and a header in braces."""
    with open(path, "rb") as file:
        start = file.read(9)
    is_archive = start.startswith(b"PK")
    return start[8:9] == b"{" or (path.suffix == ".safetensors" and not is_archive)


def _describe_kind(path: Path) -> str | None:
    """Return what a file is that holds no weights, in words after its name; None where that cannot be told."""
    with open(path, "rb") as file:
        start = file.read(len(LFS))
    if start == LFS:
        return "is a pointer that Git LFS left in place of the file: `git lfs pull` fetches that."
    if path.name.endswith(".index.json"):
        return "lists the parts of weights in several files: save them as one."
    if zipfile.is_zipfile(path):  # whole, see `check_archive`
        with zipfile.ZipFile(path) as archive:
            names = [name.rpartition("/")[2] for name in archive.namelist()]
        if any(name.endswith(".npy") for name in names):
            return "holds arrays of NumPy, and weights are read from tensors: save them as safetensors."
        if "constants.pkl" in names or "data.pkl" not in names:
            return "is a program of torch (jit or export), and none is run: save model.state_dict()."
    return None
