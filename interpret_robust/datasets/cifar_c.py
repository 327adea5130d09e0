"""CIFAR-10-C and its like as published: NAME.npy of one corruption, five severities one after the other, labels.npy.

`CIFAR-10-C:brightness:3` are the images of brightness at severity 3: with 10,000 test images, 20,000 to 29,999.
"""

from pathlib import Path

import numpy as np

from interpret_robust.core.errors import UserError, unknown
from interpret_robust.datasets.base import Dataset, LazyDataset, Split, number_classes
from interpret_robust.datasets.npz import MOST_CLASSES, UNREADABLE, Array, quote_reason
from interpret_robust.datasets.records import RECORDS

SEVERITIES = 5
GROUPS = {
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
    "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    "weather": ("snow", "frost", "fog", "brightness"),
    "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
}
"""The corruptions of the benchmark by their groups (Hendrycks & Dietterich 2019); a folder may hold others."""

LABELS = "labels"
NAMES = {"CIFAR-10-C": "cifar10", "CIFAR-100-C": "cifar100"}
"""Datasets whose classes these have, by the name of the folder."""


def parse(location: str) -> tuple[Path, str, str] | None:
    """Return the folder, the corruption and the severity that a text names, None for a text of another form."""
    folder, *words = location.rsplit(":", 2)
    return (Path(folder), words[0], words[1]) if len(words) == 2 and Path(folder).is_dir() else None


def is_folder(folder: Path) -> bool:
    """Return whether a folder holds corruptions."""
    return (folder / f"{LABELS}.npy").is_file()


def list_corruptions(folder: Path) -> list[str]:
    """Return the names of the corruptions in a folder."""
    return sorted(path.stem for path in folder.glob("*.npy") if path.stem != LABELS)


def list_files(folder: Path, corruption: str) -> tuple[Path, Path]:
    """Return the files of a corruption's images and of the labels."""
    return folder / f"{corruption}.npy", folder / f"{LABELS}.npy"


def load(folder: Path, corruption: str, severity: str) -> Dataset:
    """Return one severity of a corruption, as test images.

    Raises UserError for a corruption that is not there, a severity that is none of 1 to 5, and arrays of another form.
    """
    if corruption not in list_corruptions(folder):
        raise unknown(f"corruption in {folder}", corruption, list_corruptions(folder))
    if severity not in map(str, range(1, SEVERITIES + 1)):
        raise UserError(
            f"{folder}:{corruption}:{severity}: the severity is '{severity}', and must be 1 to {SEVERITIES}."
        )
    images, labels = map(_read, list_files(folder, corruption))
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or len(images) % SEVERITIES:
        raise UserError(
            f"{folder / corruption}.npy has shape {images.shape} of {images.dtype}, and not uint8 (5 N, H, W, 3)."
        )
    if labels.shape != (len(images),) or labels.dtype.kind not in "iu":
        raise UserError(
            f"{folder / LABELS}.npy has shape {labels.shape} of {labels.dtype}, and must have {len(images)} whole "
            "numbers, one for each image."
        )
    record = RECORDS.get(NAMES.get(folder.resolve().name, ""))
    class_names = record.class_names if record else number_classes(min(int(labels.max()) + 1, MOST_CLASSES))
    if len(rows := np.flatnonzero((labels < 0) | (labels >= len(class_names)))):
        raise UserError(
            f"{folder / LABELS}.npy has the label {labels[rows[0]]} in row {rows[0]}, and must have labels from 0 to "
            f"{len(class_names) - 1}."
        )
    count = len(images) // SEVERITIES
    part = slice((int(severity) - 1) * count, int(severity) * count)
    split = Split(np.array(images[part]), np.array(labels[part], np.int64))
    return LazyDataset(f"{folder.resolve().name}-{corruption}-{severity}", {"test": lambda: split}, class_names)


def _read(path: Path) -> Array:
    try:
        array: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    except UNREADABLE as error:
        raise UserError(
            f"{path} cannot be read ({quote_reason(error)}) where an array of numpy.save is needed."
        ) from error
    return array
