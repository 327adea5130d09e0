"""The datasets by name, and where their files are kept."""

import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np

from interpret_robust.core.errors import UserError, unknown
from interpret_robust.core.files import remove_leftovers, stamp, stamp_tree
from interpret_robust.core.locks import Lock
from interpret_robust.core.plugins import list_entry_points, load_entry_point
from interpret_robust.datasets import cifar_c, picture_sources, sources
from interpret_robust.datasets.base import Dataset, LazyDataset, number_classes
from interpret_robust.datasets.class_names import renumber_by_file
from interpret_robust.datasets.npz import Arrays, Content, check_file, load_arrays, read_npz, split_arrays, write_npz
from interpret_robust.datasets.records import RECORDS, Generator
from interpret_robust.datasets.reference import Reference

SEED = 0
"""Of the embedded datasets."""


def find_cache_folder() -> Path:
    """Return where dataset files lie: $IRT_DATA, or interpret-robust in the user's cache folder."""
    if folder := os.environ.get("IRT_DATA"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "interpret-robust"


def list_names() -> tuple[str, ...]:
    """Return the names of all datasets, ours first, without importing those of installed packages."""
    return (*RECORDS, *(name for name in list_entry_points("datasets") if name not in RECORDS))


def describe_datasets() -> dict[str, str]:
    """Return one sentence about each dataset, by name."""
    return {
        name: RECORDS[name].description if name in RECORDS else "from an installed package" for name in list_names()
    }


def is_installed(name: str) -> bool:
    """Return whether a dataset comes from an installed package, and so has no file here."""
    return name not in RECORDS and name in list_entry_points("datasets")


def find_file(name: str) -> Path:
    """Return the `.npz` that a dataset's name stands for, whether it is there yet or not.

    Raises UserError for a name that is neither known nor the path of an `.npz`.
    """
    if not name.strip():
        known = ", ".join(list_names())
        raise UserError(f"the name of the dataset is empty: give one of {known}, or the path of an .npz.")
    if name.lower().endswith(".npz"):
        return Path(name)
    if name not in RECORDS and Path(name).name != name:
        raise UserError(f"there is no folder {name}: give a folder of pictures, .npz, .csv, .parquet, .arrow or .tar.")
    if name not in RECORDS:
        folders = [path.name for path in Path().iterdir() if path.is_dir() and not path.name.startswith(".")]
        forms = (*list_names(), "the path of a folder, .npz, .csv, .parquet, .arrow or .tar")
        raise unknown("dataset", name, forms, alike=folders)
    origin = RECORDS[name].origin
    stem = f"{name}-v{origin.version}-seed{SEED}" if isinstance(origin, Generator) else name
    return find_cache_folder() / f"{stem}.npz"


def check_name(name: str) -> None:
    """Raise UserError for a name that is not known, or a path where nothing is; nothing is loaded."""
    location = Reference.parse(name).location
    if is_installed(location):
        return
    if picture_sources.is_source(location):
        picture_sources.check(location)
        return
    if (path := find_file(location)) == Path(location):
        check_file(path)


def must_be_fetched(name: str) -> bool:
    """Return whether a dataset would have to be downloaded before it can be read."""
    name = Reference.parse(name).location
    is_downloaded = name in RECORDS and isinstance(RECORDS[name].origin, sources.Source)
    return is_downloaded and not find_file(name).exists()


def _load_installed(name: str) -> Dataset:
    """Return the dataset of an installed package. Raises UserError where it gives no arrays as in a .npz."""
    function = load_entry_point("datasets", name)
    arrays = function() if callable(function) else None
    if not (isinstance(arrays, Mapping) and all(isinstance(array, np.ndarray) for array in arrays.values())):
        raise UserError(
            f"the entry point '{name}' of interpret_robust.datasets gives no arrays: it must be a function that "
            "returns x_train, y_train, x_test and y_test, as in a .npz."
        )
    return _dataset(name, split_arrays(Path(name), dict(arrays)))


def _dataset(name: str, content: Content) -> Dataset:
    """Return the dataset of arrays; classes without names are as many as the labels tell."""
    train, test, class_names = content
    class_names = class_names or number_classes(int((test if train is None else train).labels.max()) + 1)
    if train is None:
        return LazyDataset(name, {"test": lambda: test}, class_names)
    return Dataset(name, train, test, class_names)


def load(name: str) -> Dataset:
    """Return the dataset called `name`, or at that path: generated or fetched where it is not there yet.

    What stands behind a question mark says how it is read (`datasets.reference`). Arrays are kept in memory, pictures
    are not decoded until they are asked for, and files at a path that were written anew are read again. Raises
    UserError for an unknown name, a file that breaks the convention, or data that cannot be had.
    """
    return _load(Reference.parse(name), stamp_dataset(name))


def stamp_dataset(name: str) -> tuple[object, ...]:
    """Return what differs where the files of a dataset were written anew, see `core.files.stamp`."""
    reference = Reference.parse(name)
    corruption = cifar_c.parse(reference.location)
    paths = cifar_c.list_files(*corruption[:2]) if corruption else (Path(reference.location),)
    return (*map(stamp_tree, paths), stamp(reference.classes))


@lru_cache(maxsize=2)
def _load(reference: Reference, _: tuple[object, ...]) -> Dataset:
    if picture_sources.is_source(reference.location):
        data = picture_sources.load(reference, find_cache_folder())
    else:
        reference.check_arrays()
        data = _load_arrays(reference.location)
    return data if reference.classes is None else renumber_by_file(data, Path(reference.classes))


def _load_arrays(name: str) -> Dataset:
    if is_installed(name):
        return _load_installed(name)
    path = find_file(name)
    if name not in RECORDS:
        return _dataset(path.stem, read_npz(path))
    record, patterns = RECORDS[name], None
    if isinstance(record.origin, Generator):
        _generate(record.origin, path)
        patterns = record.origin.patterns and record.origin.patterns(SEED)
        arrays = load_arrays(path)
    else:
        arrays = sources.fetch(name, record.origin, find_cache_folder())
    train, test, _ = split_arrays(path, arrays)
    assert train is not None, "data with a name have training images"
    return Dataset(name, train, test, record.class_names, patterns)


def _generate(origin: Generator, path: Path) -> None:
    """Write an embedded dataset to `path`, unless it is there or another process writes it in the meantime."""
    if path.exists():
        return
    with Lock(path):
        if not path.exists():
            remove_leftovers(path)
            write_npz(path, _arrays(origin.generate(SEED)))


def _arrays(dataset: Dataset) -> Arrays:
    arrays: Arrays = {}
    for key, split in (("train", dataset.train), ("test", dataset.test)):
        arrays |= {f"x_{key}": split.images, f"y_{key}": split.labels.astype(np.uint8)}
        if split.masks is not None:
            arrays[f"mask_{key}"] = split.masks
    return arrays
