"""The file of a checkpoint without torch: where it comes from, and which tensors it holds, checked.

It is a safetensors file: eight bytes of length, a JSON header of that length, the tensors' bytes. What the
header's metadata hold is in `models.checkpoint`.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, deserialize

from interpret_robust.core.errors import UserError
from interpret_robust.core.files import check_present
from interpret_robust.core.spelling import translate_recipes

FORMAT = "interpret-robust-checkpoint"
FORMAT_VERSION = 2
OLD_VERSION = 1
"""Of files of before 2026-12, whose recipes and states have names in British spelling, see `core.spelling`."""

_TORCH = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "U8": "uint8", "BOOL": "bool"}
_TORCH |= {f"I{bits}": f"int{bits}" for bits in (8, 16, 32, 64)}
"""The names of types in safetensors and, without their `torch.`, in torch."""


class Raw(NamedTuple):
    """A tensor: its type as torch writes it, its shape, its bytes in C order."""

    kind: str
    shape: tuple[int, ...]
    data: bytes


@dataclass(frozen=True)
class StoredFile:
    """A verified file: `about` as in `models.checkpoint`, the tensors by name and their SHA-256, and all bytes."""

    about: dict[str, Any]
    tensors: dict[str, Raw]
    sha256: str
    data: bytes


def read(path: Path) -> StoredFile:
    """Read and verify. Raises UserError for a missing, damaged or foreign file, saying which."""
    check_checkpoint(path)
    return parse(path, path.read_bytes())


def check_checkpoint(path: Path) -> None:
    """Raise UserError where there is no file at `path` that may be read."""
    check_present(path, "checkpoint", "`irt train` makes them")


def is_safetensors(path: Path) -> bool:
    """Return whether a file, whatever its name, begins as safetensors do: a length, and JSON behind it."""
    try:
        with open(path, "rb") as file:
            return file.read(9)[8:] == b"{"
    except OSError:
        return False


def parse(path: Path, data: bytes) -> StoredFile:
    """Read as `read` does, from the bytes of the file at `path`."""
    try:
        entries = deserialize(data)  # type: ignore[no-untyped-call]
    except SafetensorError as error:
        if path.suffix != ".safetensors":
            raise UserError(
                f"{path} is no checkpoint: those are files that `irt train` writes, NAME.safetensors."
            ) from None
        raise UserError(f"{path} is damaged or no safetensors file ({error}): {_REMEDY}") from None
    metadata = _metadata(data)
    if metadata.get("format") != FORMAT:
        raise UserError(
            f"{path} is a safetensors file, but not one that `irt train` wrote: weights of another network go with "
            f"--model package.module:callable and --weights {path}, which names the file."
        )
    version = metadata.get("format_version")
    if version not in (str(OLD_VERSION), str(FORMAT_VERSION)):
        raise UserError(
            f"{path} has checkpoint format {version} and this irt reads up to {FORMAT_VERSION}: "
            "update interpret-robust."
        )
    tensors = {name: _raw(tensor["dtype"], tensor["shape"], tensor["data"]) for name, tensor in entries}
    sha256 = hash_raw(tensors)
    if sha256 != metadata.get("tensors_sha256"):
        raise UserError(f"{path} is damaged (its tensors differ from their checksum): {_REMEDY}")
    if hash_text(metadata.get("about", "")) != metadata.get("about_sha256"):
        raise UserError(f"{path} is damaged (its metadata differ from their checksum): {_REMEDY}")
    return StoredFile(translate_recipes(json.loads(metadata["about"])), tensors, sha256, data)


_REMEDY = "train again with --overwrite, or copy it anew from where it came."


def hash_raw(tensors: Mapping[str, Raw]) -> str:
    """Return the SHA-256 over the name, type, shape and bytes of each tensor, in the order of names."""
    digest = hashlib.sha256()
    for name, (kind, shape, data) in sorted(tensors.items()):
        digest.update(f"{name} {kind} {shape}".encode())
        digest.update(data)
    return digest.hexdigest()


def hash_text(text: str) -> str:
    """Return the SHA-256 of a text in UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()


def _raw(dtype: str, shape: Sequence[int], data: bytes) -> Raw:
    return Raw(f"torch.{_TORCH.get(dtype, dtype)}", tuple(shape), data)


def _metadata(data: bytes) -> dict[str, str]:
    """Return the metadata of a file that is known to be good."""
    length = int.from_bytes(data[:8], "little")
    metadata: dict[str, str] = json.loads(data[8 : 8 + length]).get("__metadata__", {})
    return metadata
