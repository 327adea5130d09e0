"""The .npz of a dataset, in the Keras convention: read with care, written whole or not at all."""

import hashlib
import textwrap
import zipfile
import zlib
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from interpret_robust.core.errors import UserError, close_quotes
from interpret_robust.core.file_names import is_printable_label
from interpret_robust.core.files import check_present, replace_file
from interpret_robust.datasets.base import DIVIDED_TWICE, Split

Array = npt.NDArray[Any]
Arrays = dict[str, Array]

NAMES_OF = {"images": "x", "labels": "y"}
TRAINING_NAMES, TEST_NAMES = ("x_train", "y_train"), ("x_test", "y_test")
ALL_NAMES = (*TRAINING_NAMES, *TEST_NAMES)
OPTIONAL = ("mask_train", "mask_test", "class_names")
MEDMNIST = {f"{part}_{kind}": f"{axis}_{part}" for part in ("train", "test") for kind, axis in NAMES_OF.items()}
"""Names of arrays in the files that MedMNIST publishes, and what they are here."""
UNUSED_NAMES = ("val_images", "val_labels", "x_val", "y_val", "mask_val")
"""Arrays of a third split, which is not read."""
MOST_CLASSES = 1000
LONGEST_END = 22 + 65535
"""Bytes of the record at the end of a zip file, with the longest comment."""
CHUNK = 2**20
"""Bytes to read at once."""
UNREADABLE = (OSError, EOFError, ValueError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error)


def hash_array(array: Array) -> str:
    """Return the SHA-256 in hex over the array's bytes in C order."""
    return hashlib.sha256(np.ravel(array).data).hexdigest()


def write_npz(path: Path, arrays: Arrays) -> None:
    """Write `arrays` to `path` whole or not at all. Raises OSError."""
    with replace_file(path) as partial, open(partial, "wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type, unused-ignore]


class Content(NamedTuple):
    """What a .npz holds: test images, training images where it has them, and names of classes where it has them."""

    train: Split | None
    test: Split
    class_names: tuple[str, ...] | None


def read_npz(path: Path) -> Content:
    """Read the splits of a .npz in the Keras convention, or as MedMNIST publishes it; images become (N, H, W, C).

    It holds x_train, x_test (N, H, W) or (N, H, W, C) uint8 with C 1 or 3, y_train, y_test (N,) or (N, 1) of integers
    or of text, and optionally mask_train, mask_test (N, H, W) bool or uint8, where not 0 means object, and class_names
    (K,) of text. Integer labels are 0 to K-1 with K at most 1000, and y_train has each of them; text labels are names
    of classes, numbered as in class_names, or else in sorted order. A file for tests alone has neither x_train nor
    y_train. Raises UserError naming what differs from this.
    """
    arrays = load_arrays(path)
    with zipfile.ZipFile(path) as archive:
        return split_arrays(path, arrays, _names_in(_stems(archive)))


def split_arrays(path: Path, arrays: Arrays, names_in: Mapping[str, str] | None = None) -> Content:
    """Return the splits that arrays as in a .npz hold, see `read_npz`.

    A sentence on what is wrong names `path`, and an array as `names_in` says that the file has it, else as it is here.
    """
    keys = {key: key for key in (*ALL_NAMES, *OPTIONAL)} | dict(names_in or {})
    names = _number_labels(path, arrays, keys)
    train = _split(path, arrays, "train", keys) if has_training(arrays) else None
    test = _split(path, arrays, "test", keys)
    row = int(test.labels.argmax())
    problem = f"{keys['y_test']} has label {test.labels[row]} in row {row}"
    if train is not None:
        last = _check_training(path, train, test, names, keys)
        _demand(test.labels[row] <= last, path, problem, f"at most {last}, the highest of {keys['y_train']},")
    elif names is not None:
        last = len(names) - 1
        _demand(test.labels[row] <= last, path, problem, f"at most {last}, the last of class_names,")
    return Content(train, test, names)


def _check_training(
    path: Path, train: Split, test: Split, names: tuple[str, ...] | None, keys: Mapping[str, str]
) -> int:
    """Return the highest label. Raises UserError where training images differ from test images, or lack a class."""
    test_shape, train_shape = test.images.shape[1:], train.images.shape[1:]
    problem, right = f"{keys['x_test']} has images of shape {test_shape}", f"{train_shape} as in {keys['x_train']}"
    _demand(test_shape == train_shape, path, problem, right)
    labels = np.unique(train.labels)
    description, last = f"{len(labels)} labels from {labels[0]} to {labels[-1]}", int(labels[-1])
    remedy = f"each of 0 to {len(labels) - 1}" if labels[0] and len(labels) == last else f"each of 0 to {last}"
    _demand(len(labels) == last + 1, path, f"{keys['y_train']} has {description}", remedy)
    if names is not None:
        _demand(
            len(names) == last + 1, path, f"class_names has {len(names)} names", f"one for each of {last + 1} labels"
        )
    return last


def has_training(keys: Container[str]) -> bool:
    """Return whether there are training images among arrays, or should be."""
    return any(key in keys for key in (*TRAINING_NAMES, "mask_train"))


def _number_labels(path: Path, arrays: Arrays, keys: Mapping[str, str]) -> tuple[str, ...] | None:
    """Replace text labels in `arrays` by integers; return the names of the classes, or None where there are none."""
    names = _class_names(path, arrays["class_names"]) if "class_names" in arrays else None
    labels = [key for key in ("y_train", "y_test") if key in arrays]
    is_text = [arrays[key].dtype.kind == "U" for key in labels]
    if not any(is_text):
        return names
    kinds = " and ".join(f"{keys[key]} has dtype {arrays[key].dtype}" for key in labels)
    _demand(all(is_text), path, kinds, "text in both or integers in both")
    names = names or _class_names(path, np.unique(arrays[labels[0]]))
    for key in labels:
        values, places = np.unique(arrays[key], return_inverse=True)
        unknown = [value for value in values.tolist() if value not in names]
        _demand(not unknown, path, f"{keys[key]} has label {unknown[:1]}", f"one of {shorten(', '.join(names))}")
        numbers = np.array([names.index(value) for value in values.tolist()], np.int64)
        arrays[key] = numbers[places].reshape(arrays[key].shape)
    return names


def _class_names(path: Path, array: Array) -> tuple[str, ...]:
    """Return the names of classes that an array holds.

    Raises UserError where it is not text, or two names are equal.
    """
    is_text = array.dtype.kind == "U" and array.ndim == 1
    _demand(is_text, path, f"class_names has dtype {array.dtype} and shape {array.shape}", "text of shape (K,)")
    names: tuple[str, ...] = tuple(array.tolist())
    bad = [name for name in names if names.count(name) > 1 or not is_printable_label(name)]
    _demand(not bad, path, f"a class is called {bad[:1]}", "a printable name of one line that no other class has")
    return names


def check_file(path: Path) -> None:
    """Raise UserError where there is no file at `path` that may be read."""
    check_present(path, "dataset file", "give the path of an .npz, or a name that `irt data list` lists")


def load_arrays(path: Path) -> Arrays:
    """Read the arrays of a .npz, by the names of this project.

    Every member of the archive is accounted for and checked against its CRC-32. Raises UserError where the file or an
    array cannot be read, or has a name that is not known: a damaged name must not pass for an absent array.
    """
    check_file(path)
    arrays, location = {}, str(path)
    try:
        # numpy.load would return bytes or a bare array, or speak of pickles, for files that are no .npz
        with zipfile.ZipFile(path) as archive:
            members = _members(path, archive)
            for name, key in members.items():
                location = f"{path}: {name.removesuffix('.npy')}"
                with archive.open(name) as member:
                    if key not in UNUSED_NAMES:
                        arrays[key] = np.lib.format.read_array(member, allow_pickle=False)
                    while member.read(CHUNK):  # zipfile checks the CRC-32 at the end
                        pass
    except UNREADABLE as error:
        right = f"a .npz of {', '.join(ALL_NAMES)} as numpy.savez writes it"
        raise UserError(f"{location} cannot be read ({quote_reason(error)}) where {right} is needed.") from error
    return arrays


def _stems(archive: zipfile.ZipFile) -> list[str]:
    return [name.removesuffix(".npy") for name in archive.namelist()]


def _names_in(stems: list[str]) -> dict[str, str]:
    """Return what a file that holds these arrays calls each of ours that it has, or should have."""
    is_medmnist = any(stem in MEDMNIST for stem in stems)
    expected_names = {key: name for name, key in MEDMNIST.items()} if is_medmnist else {}
    return expected_names | {stem: stem for stem in stems if stem not in MEDMNIST}


def _members(path: Path, archive: zipfile.ZipFile) -> dict[str, str]:
    """Return the members of an archive, and the array that each is.

    Raises UserError where one is unknown or missing.
    """
    names = archive.namelist()
    stems = _stems(archive)
    listing = shorten(", ".join(stems)) or "nothing"
    keys, names_in = [MEDMNIST.get(stem, stem) for stem in stems], _names_in(stems)
    required_names = ALL_NAMES if has_training(keys) else TEST_NAMES
    gaps = [names_in.get(key, key) for key in required_names if key not in keys]
    remark = f" (and {', '.join(gaps[1:])})" if gaps[1:] else ""
    prefix = "also " if any(key in ALL_NAMES for key in keys) else ""
    _demand(not gaps, path, f"the file holds {listing}", f"{prefix}{gaps[0] if gaps else ''}{remark}")
    allowed_names = (*ALL_NAMES, *OPTIONAL, *UNUSED_NAMES)
    allowed_listing = ", ".join(names_in.get(key, key) for key in allowed_names)
    for name, key in zip(names, keys, strict=True):
        is_known = key in allowed_names and name.endswith(".npy")
        _demand(is_known, path, f"the file holds {shorten(repr(name))}", f"no array but {allowed_listing}")
        _demand(keys.count(key) == 1, path, f"the file holds {listing}", f"{names_in.get(key, key)} once")
    count = _count_of_members(path)
    _demand(count == len(names), path, f"{len(names)} of {count} members can be listed", "an undamaged file")
    return dict(zip(names, keys, strict=True))


def _count_of_members(path: Path) -> int:
    """Return how many members an archive says that it has, in the record at its end (APPNOTE.TXT of PKWARE, 4.3.16)."""
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - LONGEST_END))
        tail = file.read()
    offset = tail.rfind(b"PK\x05\x06")
    return int.from_bytes(tail[offset + 10 : offset + 12], "little")


def _split(path: Path, arrays: Arrays, part: str, keys: Mapping[str, str]) -> Split:
    x, y, mask = arrays[f"x_{part}"], arrays[f"y_{part}"], arrays.get(f"mask_{part}")
    x_name, y_name, mask_name = (keys[f"{axis}_{part}"] for axis in ("x", "y", "mask"))
    _demand(x.dtype == np.uint8, path, f"{x_name} has dtype {x.dtype}", "uint8, 0 to 255,")
    _demand(x.ndim in (3, 4), path, f"{x_name} has shape {x.shape}", "(N, H, W) or (N, H, W, C)")
    _demand(x.size > 0, path, f"{x_name} is empty with shape {x.shape}", "at least one image")
    if x.max() == 1:
        raise UserError(f"{path}: the brightest pixel of {x_name} is {DIVIDED_TWICE}: uint8 from 0 to 255 is needed.")
    images = x if x.ndim == 4 else x[..., None]
    grid, count = images.shape[:3], len(images)
    _demand(images.shape[3] in (1, 3), path, f"{x_name} has shape {x.shape}", "1 or 3 channels at the end")
    _demand(np.issubdtype(y.dtype, np.integer), path, f"{y_name} has dtype {y.dtype}", "an integer dtype")
    right = f"({count},), one label an image,"
    _demand(y.shape in ((count,), (count, 1)), path, f"{y_name} has shape {y.shape}", right)
    values, right = y.reshape(-1), f"a label from 0 to K-1, with K at most {MOST_CLASSES},"
    row = int(np.argmax((values < 0) | (values >= MOST_CLASSES)))
    _demand(0 <= values[row] < MOST_CLASSES, path, f"{y_name} has label {values[row]} in row {row}", right)
    if mask is not None:
        _demand(mask.dtype in (bool, np.uint8), path, f"{mask_name} has dtype {mask.dtype}", "bool or uint8")
        _demand(mask.shape == grid, path, f"{mask_name} has shape {mask.shape}", f"{grid}")
    return Split(images, y.reshape(-1).astype(np.int64), None if mask is None else mask.astype(np.bool_))


def _demand(holds: bool, path: Path, problem: str, right: str) -> None:
    if not holds:
        raise UserError(f"{path}: {problem} where {right} is needed.")


def quote_reason(error: Exception) -> str:
    """Return why a file could not be read, on one line."""
    return shorten(getattr(error, "strerror", None) or str(error)).rstrip(". ") or type(error).__name__


def shorten(text: str) -> str:
    """Return `text` on one line of at most 300 characters."""
    short = textwrap.shorten(text, 300, placeholder=" ...")
    return short if short == " ".join(text.split()) else close_quotes(short)
