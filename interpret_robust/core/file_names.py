"""Names of files made from text that comes from outside: labels, names of datasets and of plug-ins."""

import hashlib
import re

LONGEST = 200
"""Of a name, without its ending: systems allow 255 bytes."""

_UNSAFE = re.compile(r'[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff/\\<>:"|?*]')
"""Characters that separate folders, control a terminal, or that a common file system refuses."""


def file_part(text: str) -> str:
    """Return `text` as a single part of a path, unchanged where it already is one.

    Any other text has its unsafe characters replaced and ends in a digest of the original, so that two texts never
    share a name by the replacement. The result is not empty, is no hidden file, and has at most `LONGEST` bytes.

    >>> file_part("cifar10-resnet")
    'cifar10-resnet'
    >>> file_part("../elsewhere")
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


def is_printable_label(text: str) -> bool:
    """Return whether a text can stand in a table: not blank, and without line breaks or other control characters."""
    return bool(text.strip()) and text.isprintable()
