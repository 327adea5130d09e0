"""A CSV file that lists pictures: their paths, labels, and perhaps splits and masks.

    file,label,split,mask
    images/1.jpg,cat,train,masks/1.png
    images/2.jpg,dog,test,masks/2.png

Paths are relative to the folder of the CSV file. Labels are names of classes, or whole numbers from 0 on.
"""

import csv
from collections.abc import Sequence
from pathlib import Path

from interpret_robust.core.errors import UserError
from interpret_robust.datasets.image_folder import check_masks
from interpret_robust.datasets.listing import SPLITS, LabeledPictures, Listings, listings_of, split_words
from interpret_robust.datasets.pictures import Files

COLUMNS = {
    "file": ("file", "path", "image", "filename", "file_name"),
    "label": ("label", "class", "target"),
    "split": ("split",),
    "mask": ("mask",),
}
"""Names of each column, of which one is there; `split` and `mask` may be missing."""

Row = dict[str, str]


def list_csv(path: Path) -> Listings:
    """Return what a CSV file lists. Raises UserError for a file that is no such list, or files that are missing."""
    rows = _rows(path)
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.get("split", "test"), []).append(row)
    words = split_words(lambda word: word in groups)
    return listings_of(path, {part: _listing(path, groups[word]) for part, word in words.items()})


def _rows(path: Path) -> list[Row]:
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            lines = csv.DictReader(file, strict=True)
            names = _columns(path, lines.fieldnames or ())
            rows = [{column: (line[name] or "").strip() for column, name in names.items()} for line in lines]
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{path} cannot be read as CSV ({error}).") from error
    known_words = {word for words in SPLITS.values() for word in words}
    for number, row in enumerate(rows, 2):
        if not row["file"] or not row["label"]:
            raise UserError(f"{path}, line {number}: a file and a label are needed.")
        if row.get("split", "test") not in known_words:
            raise UserError(f"{path}, line {number}: the split is '{row['split']}', and must be train, test or val.")
    return rows


def _columns(path: Path, header: Sequence[str]) -> Row:
    """Return the name that each column of COLUMNS has in a header. Raises UserError where one is missing."""
    names = {
        column: name for column, choices in COLUMNS.items() if (name := next((n for n in header if n in choices), None))
    }
    if not {"file", "label"} <= names.keys():
        raise UserError(
            f"{path} begins with the columns {', '.join(header) or 'of nothing'}: a first line such as file,label is "
            "needed, and split and mask may follow."
        )
    return names


def _listing(path: Path, rows: Sequence[Row]) -> LabeledPictures:
    files = Files.list(path.parent, [row["file"] for row in rows])
    if absent := files.absent_names:
        raise UserError(f"{path}: {len(absent)} of {len(rows)} files are missing, the first is {absent[0]}.")
    masks = [row.get("mask", "") for row in rows]
    if any(masks) and not all(masks):
        raise UserError(f"{path}: {masks.count('')} of {len(rows)} pictures have no mask: give all of them or none.")
    return (
        files,
        [row["label"] for row in rows],
        check_masks(files, Files.list(path.parent, masks)) if masks[0] else None,
    )
