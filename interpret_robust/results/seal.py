"""Seal files with checksums that are checked before HDF5 reads a byte of them.

HDF5 may loop for ever, or answer with other numbers, where bytes of a file are not what they were; so a sealed file is
known to be whole before it is opened. The seal of a finished file stands at its end: HDF5 reads nothing that follows
its own end, and every reader takes a sealed file. That of a file that grows stands in its user block, before all that
HDF5 reads, and covers all bytes but the rows: those have checksums of their own, and nothing else changes.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from interpret_robust.core.files import hash_file

_MARK = b"\ninterpret-robust sha256 "
_LENGTH = len(_MARK) + 2 * hashlib.sha256().digest_size

_WINDOW = 4096
"""Bytes at the end of a file in which a seal is looked for that is cut off, or that something follows."""

_PIECE = 1024 * 1024
"""Bytes in memory at a time."""


def append(path: Path) -> None:
    """Write the seal behind all that a closed file holds.

    Example:
        >>> append(Path("analyses/attention-rank-mine.h5"))
    """
    digest = hash_file(path)
    with open(path, "ab") as file:
        file.write(_MARK + digest.encode())


def holds(path: Path) -> bool | None:
    """Return whether a file is what was sealed; None where it has no seal, as files of before 2026-12 have none.

    A seal that is cut off in the middle, or that something follows, does not hold.

    Example:
        >>> holds(Path("analyses/attention-rank-mine.h5"))
        True
    """
    size = path.stat().st_size
    with open(path, "rb") as file:
        file.seek(max(0, size - _WINDOW))
        end = file.read()
    seal = end[-_LENGTH:]
    if not seal.startswith(_MARK):
        is_remnant = _MARK in end or end.endswith(tuple(_MARK[:length] for length in range(8, len(_MARK))))
        return False if is_remnant else None
    return seal[len(_MARK) :] == _sha256(path, [(0, size - _LENGTH)]).encode()


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
    text = json.dumps({"rows": rows, "sha256": _sha256(path, _stretches(path, rows))}).encode()
    if len(text) > BLOCK:
        raise ValueError(f"the seal of {path} takes {len(text)} bytes, and its user block has {BLOCK}")
    with open(path, "r+b") as file:
        file.write(text.ljust(BLOCK))


def block_holds(path: Path) -> bool:
    """Return whether all of a file that grows is what was sealed, but for its rows; False for one without a seal."""
    with open(path, "rb") as file:
        block = file.read(BLOCK)
    try:
        content = json.loads(block)
        return bool(_sha256(path, _stretches(path, content["rows"])) == content["sha256"])
    except (ValueError, KeyError, TypeError, IndexError, RecursionError, OverflowError):
        return False


def _stretches(path: Path, rows: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yield start and stop of each stretch after the user block without rows. Raises ValueError beyond the file."""
    start, size = BLOCK, path.stat().st_size
    for offset, length in sorted(rows):
        if not start <= offset <= offset + length <= size:
            raise ValueError(f"{path} has no {length} bytes at {offset}")
        yield start, offset
        start = offset + length
    yield start, size


def _sha256(path: Path, stretches: Iterable[tuple[int, int]]) -> str:
    """Return the SHA-256 over stretches of a file, from start to stop, a piece at a time."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for start, stop in stretches:
            file.seek(start)
            for place in range(start, stop, _PIECE):
                digest.update(file.read(min(_PIECE, stop - place)))
    return digest.hexdigest()
