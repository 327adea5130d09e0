"""Seal a finished file: its SHA-256 stands at its end, and is checked before HDF5 reads a byte of it.

HDF5 may loop for ever, or answer with other numbers, where bytes of a file are not what they were; so a sealed file is
known to be whole before it is opened. HDF5 reads nothing that follows its own end: every reader takes a sealed file.
"""

import hashlib
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

    Example:
        >>> holds(Path("analyses/attention-rank-mine.h5"))
        True
    """
    with open(path, "rb") as file:
        content = file.read()
    seal = content[-_LENGTH:]
    if not seal.startswith(_MARK):
        return None
    return seal[len(_MARK) :] == hashlib.sha256(memoryview(content)[:-_LENGTH]).hexdigest().encode()
