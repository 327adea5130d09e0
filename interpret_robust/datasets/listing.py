"""What a source of pictures lists before any is decoded, and how listings become a dataset."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from interpret_robust.core.errors import UserError
from interpret_robust.datasets.base import LONGEST_NUMBER, Dataset, Labels, LazyDataset, Split, number_classes
from interpret_robust.datasets.damage import list_damages
from interpret_robust.datasets.framing import Framing
from interpret_robust.datasets.picture_files import Pictures
from interpret_robust.datasets.pictures import MaskArray, PictureArray
from interpret_robust.datasets.reference import Reference

MOST_NAMED = 3
"""Damaged pictures that a sentence names."""


VALIDATION = ("val", "valid", "validation")
TEST = ("test", "testing")
TRAIN = ("train", "training")
SPLITS = {"train": TRAIN, "test": (*TEST, *VALIDATION), "val": VALIDATION}
"""What each split is called in folders and files, in either case, of which the first that is there is taken."""


@dataclass(frozen=True)
class Listing:
    """The pictures of one split, their labels (N,), and the masks beside them or None."""

    pictures: Pictures
    labels: Labels
    masks: Pictures | None = None


@dataclass(frozen=True)
class Listings:
    """What a source holds: names of classes, and a function for each split, `test`, and `train` and `val` if there."""

    class_names: tuple[str, ...]
    splits: Mapping[str, Callable[[], Listing]] = field(repr=False)


LabeledPictures = tuple[Pictures, Sequence[str | int], Pictures | None]
"""Pictures, what each is said to show, and masks or None."""


def make_listings(
    source: Path, splits: Mapping[str, LabeledPictures], class_names: Sequence[str] | None = None
) -> Listings:
    """Return listings of pictures with labels that are text or numbers.

    Names of classes are `class_names`, of which a number is a place and a text a name; else the texts in sorted order,
    or `class 0` and so on where all are whole numbers. Raises UserError for a label that has no name, for numbers that
    are not whole, for splits without a class in common, and without test pictures.
    """
    if "test" not in splits:
        raise UserError(f"{source} has training pictures but no test or validation pictures: add some.")
    labels: LabelColumns = {part: [_strip(label) for label in column] for part, (_, column, _) in splits.items()}
    if class_names is None:
        labels, class_names = _name_classes(source, splits, labels)
    numbers = {label: number for number, name in enumerate(class_names) for label in (number, name)}
    right = f"a number from 0 to {len(class_names) - 1} or the name of a class is needed"
    _check_labels(source, splits, labels, lambda label: label in numbers, right)
    columns = {part: np.array([numbers[label] for label in labels[part]], np.int64) for part in splits}
    listings = {part: partial(Listing, pictures, columns[part], masks) for part, (pictures, _, masks) in splits.items()}
    return Listings(tuple(class_names), listings)


LabelColumns = Mapping[str, Sequence[str | int]]
"""The label of each picture, by split."""


def _strip(label: str | int) -> str | int:
    return label.strip() if isinstance(label, str) else label


def _name_classes(
    source: Path, splits: Mapping[str, LabeledPictures], labels: LabelColumns
) -> tuple[LabelColumns, Sequence[str]]:
    """Return labels, numbers where all are, and the names of the classes.

    Raises UserError for numbers that are not whole, from 0 on, also among names, and for splits without a class
    in common.
    """
    texts = {part: [str(label) for label in column] for part, column in labels.items()}
    every_text = {text for column in texts.values() for text in column}
    right = f"numbers of classes are whole, from 0 to {10**LONGEST_NUMBER - 1}, such as 1, and names are text"
    is_numbered = all(map(_is_digits, every_text))
    _check_labels(source, splits, texts, _is_whole if is_numbered else _is_name, right)
    if is_numbered:
        numbers = {part: [int(text) for text in column] for part, column in texts.items()}
        return numbers, number_classes(max(map(int, every_text), default=0) + 1)
    for column in texts.values():
        if column and set(column).isdisjoint(texts.get("train") or column):
            raise UserError(
                f"{source}: training pictures have labels such as '{texts['train'][0]}', others such as '{column[0]}', "
                "and none in common: label all in one way."
            )
    return texts, sorted(every_text)


def _check_labels(
    source: Path,
    splits: Mapping[str, LabeledPictures],
    labels: LabelColumns,
    is_right: Callable[[Any], bool],
    right: str,
) -> None:
    """Raise UserError with the first picture whose label is not right."""
    for part, column in labels.items():
        if wrong := {label for label in set(column) if not is_right(label)}:
            place = next(place for place, label in enumerate(column) if label in wrong)
            raise UserError(f"{source}: {splits[part][0].name(place)} has the label '{column[place]}': {right}.")


def _is_digits(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _is_whole(text: str) -> bool:
    return _is_digits(text) and len(text.lstrip("0")) <= LONGEST_NUMBER


def _is_name(text: str) -> bool:
    """Return whether a label among names is one: digits are, such as a product's; other numbers are a mistake."""
    if _is_digits(text) or not text.isascii() or "_" in text:  # Python reads 20_30, an age group, as 2030
        return True
    try:
        float(text)
    except ValueError:
        return True
    return False


def split_words(source: Path, is_there: Callable[[str], bool]) -> dict[str, str]:
    """Return the word of each split, the first of SPLITS that is there; no entry for a split without one.

    Validation pictures are the test split where there is no other, and only else a split of their own. Raises UserError
    where two words for the same split are there.
    """
    for synonyms in (TRAIN, TEST, VALIDATION):
        if len(names := [word for word in synonyms if is_there(word)]) > 1:
            raise UserError(f"{source} has both '{names[0]}' and '{names[1]}', which name one split: call both alike.")
    words = {part: word for part, words in SPLITS.items() if (word := next(filter(is_there, words), None))}
    return words if words.get("test") in TEST else {part: word for part, word in words.items() if part != "val"}


def find_files(source: Path, endings: Sequence[str]) -> list[Path]:
    """Return the files below a folder with one of these endings, in either case, by name; of a file, itself."""
    if not source.is_dir():
        return [source]
    return sorted(path for path in source.rglob("*") if path.suffix.lower() in endings)


def group_by_split(source: Path, paths: Sequence[Path]) -> dict[str, list[Path]]:
    """Return files by the split that they name; all are for tests if none does.

    The split is what a name begins with, else that of the folder, else the only one that the name has, such as
    digits-val-0000.tar. Validation files are test files where there are no others. Raises UserError where only some
    name a split.
    """
    words = {
        path: split_word(path.name) or split_word(path.parent.name) or find_split_word(path.stem) for path in paths
    }
    if not any(words.values()):
        return {"test": list(paths)}
    if strange := [path for path, word in words.items() if word is None]:
        raise UserError(
            f"{source}: {strange[0].name} names no split, and other files do: call it train-..., or test-..."
        )
    chosen_words = split_words(source, lambda word: word in words.values())
    return {part: [path for path in paths if words[path] == word] for part, word in chosen_words.items()}


def split_word(name: str) -> str | None:
    """Return the word of SPLITS that a name begins with, in either case, None for another name.

    Example:
        >>> split_word("Test_set"), split_word("tests")
        ('test', None)
    """
    return _known_words(name)[0]


def find_split_word(name: str) -> str | None:
    """Return the word of SPLITS that stands anywhere in a name, None where there are none or several.

    Example:
        >>> find_split_word("seg_train"), find_split_word("train-test")
        ('train', None)
    """
    words = {word for word in _known_words(name) if word}
    return words.pop() if len(words) == 1 else None


def _known_words(name: str) -> list[str | None]:
    """Return the words of a name in lower case, None in the place of each that names no split."""
    known_words = {word for words in SPLITS.values() for word in words}
    return [word if word in known_words else None for word in re.split(r"[-_. \d]+", name.lower())]


_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""Characters that break lines or control a terminal, and what stands in names of folders for what is no UTF-8."""


def make_listed_dataset(name: str, reference: Reference, listings: Listings) -> Dataset:
    """Return the dataset of a source's listings; each split is listed and looked over when it is asked for.

    Raises UserError for a class whose name cannot stand in a table; then, for a split without pictures, and for damaged
    ones unless they may be left out.
    """
    if bad := next(filter(_UNPRINTABLE.search, listings.class_names), None):
        raise UserError(f"{name} has the class {bad!r}: call it by a name of one line, in UTF-8.")
    framing = None if reference.size is None else Framing.square(reference.size)

    def make(part: str) -> Callable[[], Split]:
        return lambda: _split(f"the {part} split of {name}", listings.splits[part](), framing, reference)

    label = name if reference.size is None else f"{name}-{reference.size}"
    return LazyDataset(label, {part: make(part) for part in listings.splits}, listings.class_names)


def _split(name: str, listing: Listing, framing: Framing | None, reference: Reference) -> Split:
    if len(listing.labels) == 0:
        raise UserError(f"{name} has no pictures.")
    damage = list_damages(listing.pictures, decodes=reference.skips_damaged)
    if damage and not reference.skips_damaged:
        raise UserError(_refusal(name, damage, len(listing.labels)))
    places = np.setdiff1d(np.arange(len(listing.labels)), list(damage)).astype(np.int64)
    if len(places) == 0:
        raise UserError(f"{name}: all {len(damage)} pictures are damaged, the first is {next(iter(damage.values()))}.")
    images: Any = PictureArray(listing.pictures, places, name, framing, tuple(damage.values()))
    masks: Any = None if listing.masks is None else MaskArray(listing.masks, places, f"the masks of {name}", framing)
    return Split(images, listing.labels[places], masks)


def _refusal(name: str, damage: Mapping[int, str], count: int) -> str:
    first = ", ".join(list(damage.values())[:MOST_NAMED])
    rest = f" and {len(damage) - MOST_NAMED} more" if len(damage) > MOST_NAMED else ""
    return (
        f"{name}: {len(damage)} of {count} pictures are damaged, {first}{rest}: mend or delete them, or leave them "
        "out, counted, with --skip-damaged."
    )
