"""A CSV file, or .tsv with tabs, that lists pictures: their paths, labels, and perhaps splits, and masks or boxes.

    file,label,split,mask
    images/1.jpg,cat,train,masks/1.png
    images/2.jpg,dog,test,masks/2.png

Columns x0, y0, x1, y1 in the place of `mask` are a box around the object: pixels from x0 up to x1, without x1, and from
y0 up to y1. Paths are relative to the folder of the CSV file, and each is listed once. Labels are names of classes, or
whole numbers from 0 on.
"""

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from interpret_robust.core.errors import UserError
from interpret_robust.datasets.base import Labels
from interpret_robust.datasets.decoding import read_size
from interpret_robust.datasets.image_folder import check_masks
from interpret_robust.datasets.listing import SPLITS, LabeledPictures, Listings, make_listings, split_words
from interpret_robust.datasets.picture_files import ENDINGS, Files, Pictures

CORNERS = ("x0", "y0", "x1", "y1")

COLUMNS = {
    "file": ("file", "path", "image", "filename", "file_name"),
    "label": ("label", "class", "target"),
    "split": ("split",),
    "mask": ("mask",),
    **{corner: (corner,) for corner in CORNERS},
}
"""Names of each column, of which one is there; all but `file` and `label` may be missing."""

Row = dict[str, str]


def list_csv(path: Path) -> Listings:
    """Return what a CSV file lists. Raises UserError for a file that is no such list, or files that are missing."""
    rows = _rows(path)
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.get("split", "test"), []).append(row)
    words = split_words(path, lambda word: word in groups)
    return make_listings(path, {part: _listing(path, groups[word]) for part, word in words.items()})


def _rows(path: Path) -> list[Row]:
    delimiter, word = ("\t", "tab") if path.suffix.lower() == ".tsv" else (",", "comma")
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(file, strict=True, skipinitialspace=True, delimiter=delimiter)
            columns = _columns(path, header := next(lines, []))
            rows: dict[str, Row] = {}
            for cells in filter(None, lines):
                if any(cells[len(header) :]):
                    raise UserError(
                        f"{path}, line {lines.line_num}: {len(cells)} cells, and {len(header)} columns: put quotes "
                        f"around a name with a {word}."
                    )
                row = {column: "".join(cells[place : place + 1]).strip() for column, place in columns.items()}
                _check_row(f"{path}, line {lines.line_num}", row)
                if (name := os.path.normpath(row["file"])) in rows:
                    raise UserError(
                        f"{path}, line {lines.line_num}: {row['file']} is listed a second time: a picture has one line."
                    )
                rows[name] = row
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{path} cannot be read as CSV ({error}): save it as {word}-separated UTF-8.") from error
    if not rows:
        raise UserError(f"{path} lists no pictures: a line for each is needed below the first.")
    return list(rows.values())


def _check_row(line: str, row: Row) -> None:
    """Write the split in lower case.

    Raises UserError for a row without file or label, with a list of labels, or with a strange split.
    """
    if not row["file"] or not row["label"]:
        raise UserError(f"{line}: a file and a label are needed.")
    if row["label"].startswith(("[", "{")):
        raise UserError(f"{line}: the label is {row['label']}, and a picture has one class: give its name or number.")
    if "split" in row:
        row["split"] = row["split"].lower()
        if not any(row["split"] in words for words in SPLITS.values()):
            raise UserError(f"{line}: the split is '{row['split']}', and must be train, test or val.")


def _columns(path: Path, header: Sequence[str]) -> dict[str, int]:
    """Return the place of each column of COLUMNS in a header. Raises UserError where one is missing or there twice."""
    own_names = [name.strip().lower() for name in header]
    places = {
        column: own_names.index(name)
        for column, choices in COLUMNS.items()
        if (name := next((n for n in own_names if n in choices), None))
    }
    if twice := [own_names[place] for place in places.values() if own_names.count(own_names[place]) > 1]:
        raise UserError(f"{path} has the column {twice[0]} more than once: leave one.")
    labels = [name for name in own_names if name in COLUMNS["label"]]
    if len(labels) > 1:
        raise UserError(f"{path} has the columns {' and '.join(labels)}, which may both be the labels: leave one.")
    if not {"file", "label"} <= places.keys():
        needs = "a first line such as file,label is needed, and split and mask may follow"
        if len(header) == 1 and (strange := next((mark for mark in ";\t|" if mark in header[0]), None)):
            needs = f"put another mark between them than {strange!r}, a comma in .csv and a tab in .tsv"
        raise UserError(f"{path} begins with the columns {', '.join(header) or 'of nothing'}: {needs}.")
    corners = [corner for corner in CORNERS if corner in places]
    if corners and (len(corners) < len(CORNERS) or "mask" in places):
        raise UserError(
            f"{path} has the columns {', '.join(header)}: a box needs all of {', '.join(CORNERS)}, and no mask."
        )
    return places


def _listing(path: Path, rows: Sequence[Row]) -> LabeledPictures:
    files = Files.list(path.parent, [row["file"] for row in rows])
    if absent := files.absent_names:
        first = f"{absent[0]}{_remedy(path, absent[0])}"
        raise UserError(f"{path}: {len(absent)} of {len(rows)} files are missing, the first is {first}.")
    labels = [row["label"] for row in rows]
    if CORNERS[0] in rows[0]:
        return files, labels, _boxes(path, rows, files)
    masks = [row.get("mask", "") for row in rows]
    if any(masks) and not all(masks):
        raise UserError(f"{path}: {masks.count('')} of {len(rows)} pictures have no mask: give all of them or none.")
    return files, labels, check_masks(files, Files.list(path.parent, masks)) if masks[0] else None


def _remedy(path: Path, name: str) -> str:
    """Return what may be wrong with the name of a file that is missing."""
    if "\\" in name:
        return ": write / in the place of \\"
    if ending := next((ending for ending in ENDINGS if (path.parent / f"{name}{ending}").is_file()), None):
        return f", where {name}{ending} is: write names with their ending"
    return f": paths are relative to {path.parent}"


@dataclass(frozen=True)
class Boxes:
    """Masks that are boxes in pictures: `corners` (N, 4) are x0, y0, x1, y1, pixels from x0 to x1 without x1."""

    pictures: Pictures
    corners: Labels

    def __len__(self) -> int:
        return len(self.corners)

    def name(self, place: int) -> str:
        """Return what a sentence calls a box."""
        return f"the box of {self.pictures.name(place)}"

    def length(self, place: int) -> int:  # noqa: ARG002
        """Return 0: a box is no file."""
        return 0

    def open(self, place: int) -> Image.Image:
        """Return a picture that is white in the box and black outside. Raises UserError for a damaged picture."""
        height, width = read_size(self.pictures, place)
        mask = Image.new("L", (width, height))
        x0, y0, x1, y1 = self.corners[place].tolist()
        mask.paste(255, (x0, y0, x1, y1))
        return mask


def _boxes(path: Path, rows: Sequence[Row], files: Files) -> Boxes:
    """Return the boxes of rows. Raises UserError for one that is no box in its picture."""
    corners = np.zeros((len(rows), 4), np.int64)
    for place, row in enumerate(rows):
        texts = [row[corner] for corner in CORNERS]
        try:
            height, width = read_size(files, place)
        except UserError:
            continue  # a damaged picture is reported with all others
        x0, y0, x1, y1 = (int(text) if text.isascii() and text.isdigit() else -1 for text in texts)
        if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
            raise UserError(
                f"{path}: the box of {row['file']} is {','.join(texts)}, and its picture {width}x{height}: whole "
                "numbers x0 < x1 and y0 < y1 within it are needed."
            )
        corners[place] = x0, y0, x1, y1
    return Boxes(files, corners)
