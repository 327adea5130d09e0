"""Seal files with checksums that are checked before HDF5 reads a byte of them.

HDF5 may loop for ever, or answer with other numbers, where bytes of a file are not what they were; so a sealed file is
known to be whole before it is opened. The seal of a finished file stands at its end: HDF5 reads nothing that follows
its own end, and every reader takes a sealed file. That of a file that grows stands in its user block, before all that
HDF5 reads, and covers all bytes but the rows: those have checksums of their own, and nothing else changes.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from interpret_robust.core.files import file_sha256

_MARK = b"\ninterpret-robust sha256 "
_LENGTH = len(_MARK) + 2 * hashlib.sha256().digest_size


def append(path: Path) -> None:
    """Write the seal behind all that a closed file holds.

    Example:
        >>> append(Path("analyses/attention-rank-mine.h5"))
    """
    digest = file_sha256(path)
    with open(path, "ab") as file:
        file.write(_MARK + digest.encode())


def holds(path: Path) -> bool | None:
    """Return whether a file is what was sealed; None where it has no seal, as files of before 2026-12 have none.

    A seal that is cut off in the middle, or that something follows, does not hold.

    Example:
        >>> holds(Path("analyses/attention-rank-mine.h5"))
        True
    """
    with open(path, "rb") as file:
        content = file.read()
    seal = content[-_LENGTH:]
    if not seal.startswith(_MARK):
        is_remnant = _MARK in content or content.endswith(tuple(_MARK[:length] for length in range(8, len(_MARK))))
        return False if is_remnant else None
    return seal[len(_MARK) :] == hashlib.sha256(memoryview(content)[:-_LENGTH]).hexdigest().encode()


BLOCK = 16384
"""Bytes of the user block of a file that grows, a power of two."""


_OPEN_FLAGS = (BLOCK + 20, 4)
"""Where HDF5 notes that a file is open for writing, which a kill leaves as it is."""


def write_block(path: Path, rows: Iterable[tuple[int, int]]) -> None:
    """Write the seal of a closed file that grows into its user block of BLOCK bytes.

    Args:
        path: the file.
        rows: offset and length in bytes of each stretch that changes while it grows.

    Raises ValueError where the block has no room for them.
    """
    rows = [_OPEN_FLAGS, *rows]
    text = json.dumps({"rows": rows, "sha256": _sha256_beside(path.read_bytes(), rows)}).encode()
    if len(text) > BLOCK:
        raise ValueError(f"the seal of {path} takes {len(text)} bytes, and its user block has {BLOCK}")
    with open(path, "r+b") as file:
        file.write(text.ljust(BLOCK))


def block_holds(path: Path) -> bool:
    """Return whether all of a file that grows is what was sealed, but for its rows; False for one without a seal."""
    content = path.read_bytes()
    try:
        content_of_block = json.loads(content[:BLOCK])
        return bool(_sha256_beside(content, content_of_block["rows"]) == content_of_block["sha256"])
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        return False


def _sha256_beside(content: bytes, rows: Sequence[tuple[int, int]]) -> str:
    """Return the SHA-256 of the length of a file, and of its bytes after the user block but for these stretches."""
    digest, start, view = hashlib.sha256(str(len(content)).encode()), BLOCK, memoryview(content)
    for offset, length in sorted(rows):
        digest.update(view[start:offset])
        start = offset + length
    digest.update(view[start:])
    return digest.hexdigest()
