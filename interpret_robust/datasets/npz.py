"""The .npz of a dataset, in the Keras convention: read with care, written whole or not at all."""

import hashlib
import io
import textwrap
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from interpret_robust.core.errors import UserError
from interpret_robust.core.files import replacing
from interpret_robust.datasets.base import Split

Array = npt.NDArray[Any]
Arrays = dict[str, Array]

REQUIRED = ("x_train", "y_train", "x_test", "y_test")
OPTIONAL = ("mask_train", "mask_test")
MOST_CLASSES = 1000
UNREADABLE = (OSError, EOFError, ValueError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error)


def array_sha256(array: Array) -> str:
    """SHA-256 in hex over the array's bytes in C order."""
    return hashlib.sha256(np.ravel(array).data).hexdigest()


def write_npz(path: Path, arrays: Arrays) -> None:
    """Writes `arrays` to `path` whole or not at all. Raises OSError."""
    with replacing(path) as unfinished, open(unfinished, "wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type, unused-ignore]


def read_npz(path: Path) -> tuple[Split, Split]:
    """The train and test split of a .npz in the Keras convention, images (N, H, W, C) with C 1 or 3.

    It holds x_train, x_test (N, H, W) or (N, H, W, C) uint8, y_train, y_test (N,) or (N, 1) of integers, and
    optionally mask_train, mask_test (N, H, W) bool or uint8, where not 0 means object. Labels are 0 to K-1
    with K at most 1000, and y_train has each of them. Raises UserError naming what differs from this.
    """
    arrays = load_arrays(path)
    train, test = (_split(path, arrays, part) for part in ("train", "test"))
    ours, theirs = test.images.shape[1:], train.images.shape[1:]
    _demand(ours == theirs, path, f"x_test has images of shape {ours}", f"{theirs} as in x_train")
    labels, highest = np.unique(train.labels), test.labels.max()
    found, last = f"{len(labels)} labels from {labels[0]} to {labels[-1]}", labels[-1]
    _demand(len(labels) == last + 1, path, f"y_train has {found}", f"each of 0 to {last}")
    _demand(highest <= last, path, f"y_test has label {highest}", f"at most {last}, the highest of y_train,")
    return train, test


def load_arrays(path: Path) -> Arrays:
    """The arrays of a .npz that this project knows. Raises UserError where the file or an array cannot be read."""
    arrays, where = {}, str(path)
    try:
        # numpy.load would return bytes or a bare array, or speak of pickles, for files that are no .npz
        with zipfile.ZipFile(path) as archive:
            held = [name.removesuffix(".npy") for name in archive.namelist()]
            listed = shorten(", ".join(held)) or "nothing"
            for key in REQUIRED:
                _demand(key in held, path, f"the file holds {listed}", f"also {key}")
            for key in [key for key in REQUIRED + OPTIONAL if key in held]:
                where = f"{path}: {key}"
                member = io.BytesIO(archive.read(f"{key}.npy"))
                arrays[key] = np.lib.format.read_array(member, allow_pickle=False)
    except UNREADABLE as error:
        right = f"a .npz of {', '.join(REQUIRED)} as numpy.savez writes it"
        raise UserError(f"{where} cannot be read ({reason(error)}) where {right} is needed.") from error
    return arrays


def _split(path: Path, arrays: Arrays, part: str) -> Split:
    x, y, mask = arrays[f"x_{part}"], arrays[f"y_{part}"], arrays.get(f"mask_{part}")
    _demand(x.dtype == np.uint8, path, f"x_{part} has dtype {x.dtype}", "uint8, 0 to 255,")
    _demand(x.ndim in (3, 4), path, f"x_{part} has shape {x.shape}", "(N, H, W) or (N, H, W, C)")
    _demand(x.size > 0, path, f"x_{part} is empty with shape {x.shape}", "at least one image")
    images = x if x.ndim == 4 else x[..., None]
    grid, count = images.shape[:3], len(images)
    _demand(images.shape[3] in (1, 3), path, f"x_{part} has shape {x.shape}", "1 or 3 channels at the end")
    _demand(np.issubdtype(y.dtype, np.integer), path, f"y_{part} has dtype {y.dtype}", "an integer dtype")
    right = f"({count},), one label an image,"
    _demand(y.shape in ((count,), (count, 1)), path, f"y_{part} has shape {y.shape}", right)
    low, high, right = y.min(), y.max(), f"a range 0 to K-1 with K at most {MOST_CLASSES}"
    _demand(low >= 0 and high < MOST_CLASSES, path, f"y_{part} has labels from {low} to {high}", right)
    if mask is not None:
        _demand(mask.dtype in (bool, np.uint8), path, f"mask_{part} has dtype {mask.dtype}", "bool or uint8")
        _demand(mask.shape == grid, path, f"mask_{part} has shape {mask.shape}", f"{grid}")
    return Split(images, y.reshape(-1).astype(np.int64), None if mask is None else mask.astype(np.bool_))


def _demand(holds: bool, path: Path, found: str, right: str) -> None:
    if not holds:
        raise UserError(f"{path}: {found} where {right} is needed.")


def reason(error: Exception) -> str:
    """Why a file could not be read, on one line."""
    return shorten(getattr(error, "strerror", None) or str(error)).rstrip(". ") or type(error).__name__


def shorten(text: str) -> str:
    """`text` on one line of at most 300 characters."""
    return textwrap.shorten(text, 300, placeholder=" ...")
