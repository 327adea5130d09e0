"""Names of files made from text that comes from outside: labels, names of datasets and of plug-ins."""

import difflib
import hashlib
import re
from collections.abc import Iterable, Sequence
from os.path import commonprefix
from pathlib import Path

from interpret_robust.core.errors import MOST_LISTED, UserError

LONGEST = 200
"""Of a name, without its ending: systems allow 255 bytes."""

_UNSAFE = re.compile(r'[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff/\\<>:"|?*]')
"""Characters that separate folders, control a terminal, or that a common file system refuses."""


def make_file_part(text: str) -> str:
    """Return `text` as a single part of a path, unchanged where it already is one.

    Any other text has its unsafe characters replaced and ends in a digest of the original, so that two texts never
    share a name by the replacement. The result is not empty, is no hidden file, and has at most `LONGEST` bytes.

    >>> make_file_part("cifar10-resnet")
    'cifar10-resnet'
    >>> make_file_part("../elsewhere")
    '_._elsewhere-b8543627'
    """
    safe = _UNSAFE.sub("_", text)
    safe = re.sub(r"^\.|[. ]$", "_", safe)
    if safe == text and 0 < len(_encode(text)) <= LONGEST:
        return text
    digest = hashlib.sha256(_encode(text)).hexdigest()[:8]
    return f"{_encode(safe)[: LONGEST - 9].decode(errors='ignore')}-{digest}"


def _encode(text: str) -> bytes:
    """Return the bytes of a text; a surrogate, as in a path that is not UTF-8, is written as its code."""
    return text.encode(errors="backslashreplace")


def is_printable_label(text: object) -> bool:
    """Return whether this is text that can stand in a table: not blank, without line breaks or control characters."""
    return isinstance(text, str) and bool(text.strip()) and text.isprintable()


def find_shared_prefix(names: Sequence[str]) -> str:
    """Return what all of several names begin with, up to a hyphen; nothing for one name.

    Example:
        >>> find_shared_prefix(["cifar10-small-at-seed0", "cifar10-small-at-att-seed0"])
        'cifar10-small-at-'
    """
    prefix = commonprefix(names) if len(names) > 1 else ""  # noqa: RUF071 - names are no paths
    return prefix[: prefix.rfind("-") + 1]


def resolve(text: str, paths: Iterable[Path], kind: str = "file") -> Path:
    """Return the file that a text names: itself, or the one of `paths` whose name it is short for.

    A name is short for another where it is that without what all others begin with too, or is its end or its beginning,
    up to a hyphen; its ending, such as .h5, may be left out. A text that names no file is returned as a path.

    Raises UserError for a name that is short for several files, and for one that is nearly that of a file.

    Example:
        >>> resolve("at-seed0", [Path("checkpoints/cifar10-small-at-seed0.safetensors")])
        PosixPath('checkpoints/cifar10-small-at-seed0.safetensors')
    """
    path, candidates = Path(text), list(paths)
    if path.exists():
        return path
    if path.suffix in {entry.suffix for entry in candidates}:
        candidates = [entry for entry in candidates if entry.suffix == path.suffix]
        stem = path.stem
    else:
        stem = path.name
    by_stem = {entry.stem: entry for entry in candidates}
    if path.name == text:
        matches = _matches(stem, [*by_stem])
        if len(matches) > 1:
            listing = ", ".join(matches[:MOST_LISTED]) + (", ..." if len(matches) > MOST_LISTED else "")
            raise UserError(f"'{text}' is short for {len(matches)} files: give more of the name, {listing}.")
        if matches:
            return by_stem[matches[0]]
    prefix = find_shared_prefix([*by_stem])
    by_name = {name.removeprefix(prefix): entry for name, entry in by_stem.items()} | by_stem
    if nearest := difflib.get_close_matches(stem, by_name, n=1, cutoff=0.8):
        raise UserError(f"there is no {kind} {text}: did you mean {by_name[nearest[0]]}?")
    return path


def _matches(short: str, names: Sequence[str]) -> list[str]:
    """Return the names that one is short for: a single one where it is that as tables print it."""
    if printed_names := [name for name in (short, find_shared_prefix(names) + short) if name in names]:
        return printed_names[:1]
    ends = [name for name in names if name.endswith(f"-{short}")]
    return ends or [name for name in names if name.startswith(f"{short}-")]
