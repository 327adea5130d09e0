"""The words that name a dataset: a name or a path, and how its pictures are to be read.

    photos                                     a name, or a path
    photos?size=224                            the shorter side resized to 224, the center cropped
    photos?damaged=skip&classes=names.json     damaged pictures left out; classes numbered as in a file

One text says it all, so that a checkpoint and an answer can keep it and find the same images again.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import parse_qsl, urlencode

from interpret_robust.core.errors import UserError, unknown

KEYS = ("size", "damaged", "classes")
LARGEST_SIZE = 4096


@dataclass(frozen=True)
class Reference:
    """A dataset's name or path, and how it is read.

    Attributes:
        location: name or path.
        size: side of the square that pictures are resized and cropped to, None for what the model takes.
        skips_damaged: whether damaged pictures are left out, and counted.
        classes: file of the names of the classes in the order of a model's outputs, None for the data's own order.

    Example:
        >>> Reference.parse("photos?size=64").size
        64
        >>> Reference("photos", classes="names.json").text
        'photos?classes=names.json'
    """

    location: str
    size: int | None = None
    skips_damaged: bool = False
    classes: str | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return what a text says. Raises UserError for a word behind the question mark that means nothing."""
        location, _, query = text.partition("?")
        if not query or Path(text).exists():
            return cls(text)
        options = dict(parse_qsl(query, keep_blank_values=True))
        for key in options:
            if key not in KEYS:
                raise unknown("option of a dataset", key, KEYS)
        size, way = options.get("size"), options.get("damaged", "refuse")
        if size is not None and not (size.isascii() and size.isdigit() and 0 < int(size) <= LARGEST_SIZE):
            raise UserError(f"{text}: size is '{size}' where a whole number from 1 to {LARGEST_SIZE} is needed.")
        if way not in ("refuse", "skip"):
            raise unknown("way with damaged pictures", way, ("refuse", "skip"))
        return cls(location, None if size is None else int(size), way == "skip", options.get("classes"))

    @property
    def text(self) -> str:
        """Return the text that `parse` reads."""
        options = {"size": self.size, "damaged": "skip" if self.skips_damaged else None, "classes": self.classes}
        query = urlencode({key: value for key, value in options.items() if value is not None}, safe="/")
        return f"{self.location}?{query}" if query else self.location

    def check_arrays(self) -> None:
        """Raise UserError where something is said that is for pictures alone, of a location that holds arrays."""
        if self.size is not None or self.skips_damaged:
            raise UserError(f"{self.location} holds arrays: --size and --skip-damaged are for files of pictures.")


def merge(dataset: str | None, size: int | None, *, skips_damaged: bool, classes: str | None) -> str | None:
    """Return the text of a dataset with what options say of its pictures; None where nothing is said of it.

    Raises UserError for options without a dataset.
    """
    if size is None and not skips_damaged and classes is None:
        return dataset
    if dataset is None:
        raise UserError("--size, --skip-damaged and --classes say how pictures are read: name them with --dataset.")
    reference = Reference.parse(dataset)
    return Reference(
        reference.location,
        size or reference.size,
        skips_damaged or reference.skips_damaged,
        classes or reference.classes,
    ).text
