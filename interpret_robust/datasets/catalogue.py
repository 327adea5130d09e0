"""The datasets by name, and where their files are kept."""

import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np

from interpret_robust.core.errors import UserError, unknown
from interpret_robust.core.files import remove_leftovers
from interpret_robust.core.locks import Lock
from interpret_robust.core.plugins import load_entry_point, registered
from interpret_robust.datasets.base import Dataset, Patterns
from interpret_robust.datasets.npz import Arrays, content_of, read_npz, write_npz

DESCRIPTIONS = {
    "cluttered-digits": "embedded default: handwritten digits among colored clutter, with masks (32x32 RGB)",
    "cluttered-digits-planted": "the same with a weak class-coded pattern planted below eps",
    "mnist": "handwritten digits (28x28 gray)",
    "cifar10": "objects in 10 classes (32x32 RGB)",
    "cifar100": "objects in 100 classes (32x32 RGB)",
    "svhn": "house numbers (32x32 RGB)",
}
NAMES = tuple(DESCRIPTIONS)
SEED = 0
"""Of the embedded datasets."""


def cache_folder() -> Path:
    """Return where dataset files lie: $IRT_DATA, or interpret-robust in the user's cache folder."""
    if folder := os.environ.get("IRT_DATA"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "interpret-robust"


def names() -> tuple[str, ...]:
    """Return the names of all datasets, ours first, without importing those of installed packages."""
    return (*NAMES, *(name for name in registered("datasets") if name not in NAMES))


def descriptions() -> dict[str, str]:
    """Return one sentence about each dataset, by name."""
    return {name: DESCRIPTIONS.get(name, "from an installed package") for name in names()}


def is_installed(name: str) -> bool:
    """Return whether a dataset comes from an installed package, and so has no file here."""
    return name not in NAMES and name in registered("datasets")


def is_embedded(name: str) -> bool:
    """Return whether a dataset is generated here and needs no download."""
    return name in ("cluttered-digits", "cluttered-digits-planted")


def file_of(name: str) -> Path:
    """Return the `.npz` that a dataset's name stands for, whether it is there yet or not.

    Raises UserError for a name that is neither known nor the path of an `.npz`.
    """
    if name.endswith(".npz"):
        return Path(name)
    if name not in DESCRIPTIONS and Path(name).is_dir():
        raise UserError(
            f"{name} is a folder, and a dataset is a name or an .npz, which Python makes of arrays: "
            'numpy.savez("mine.npz", x_train=..., y_train=..., x_test=..., y_test=...), with images (N, H, W, 3) of '
            "uint8 and labels (N,) of integers or text."
        )
    if name not in DESCRIPTIONS:
        raise unknown("dataset", name, (*names(), "a path ending in .npz"))
    if is_embedded(name):
        from interpret_robust.datasets.cluttered_digits import VERSION

        return cache_folder() / f"{name}-v{VERSION}-seed{SEED}.npz"
    return cache_folder() / f"{name}.npz"


def must_be_fetched(name: str) -> bool:
    """Return whether a dataset would have to be downloaded before it can be read."""
    from interpret_robust.datasets import sources

    return name in sources.SOURCES and not file_of(name).exists()


def _load_installed(name: str) -> Dataset:
    """Return the dataset of an installed package. Raises UserError where it gives no arrays as in a .npz."""
    function = load_entry_point("datasets", name)
    arrays = function() if callable(function) else None
    if not (isinstance(arrays, Mapping) and all(isinstance(array, np.ndarray) for array in arrays.values())):
        raise UserError(
            f"the entry point '{name}' of interpret_robust.datasets gives no arrays: it must be a function that "
            "returns x_train, y_train, x_test and y_test, as in a .npz."
        )
    train, test, class_names = content_of(Path(name), dict(arrays))
    return Dataset(name, train, test, class_names or _class_names(name, int(train.labels.max()) + 1))


@lru_cache(maxsize=2)
def load(name: str) -> Dataset:
    """Return the dataset called `name`, or in the `.npz` at that path: generated or fetched where it is not there yet.

    Raises UserError for an unknown name, a file that breaks the convention, or data that cannot be had.
    """
    from interpret_robust.datasets import sources

    if is_installed(name):
        return _load_installed(name)
    path = file_of(name)
    if is_embedded(name) and not path.exists():
        _generate(name, path)
    elif name in sources.SOURCES:
        sources.fetch(name, cache_folder())
    train, test, class_names = read_npz(path)
    classes = sources.CLASS_NAMES.get(name) or class_names or _class_names(name, int(train.labels.max()) + 1)
    return Dataset(path.stem if name.endswith(".npz") else name, train, test, classes, _patterns(name))


def _generate(name: str, path: Path) -> None:
    """Write the embedded dataset to `path`, unless another process has done so in the meantime."""
    with Lock(path):
        if not path.exists():
            remove_leftovers(path)
            write_npz(path, _arrays(name))


def _arrays(name: str) -> Arrays:
    from interpret_robust.datasets.cluttered_digits import cluttered_digits

    dataset = cluttered_digits(seed=SEED, with_patterns=name.endswith("planted"))
    arrays: Arrays = {}
    for key, split in (("train", dataset.train), ("test", dataset.test)):
        assert split.masks is not None
        arrays |= {
            f"x_{key}": split.images,
            f"y_{key}": split.labels.astype(np.uint8),
            f"mask_{key}": split.masks,
        }
    return arrays


def _patterns(name: str) -> Patterns | None:
    """Return what is planted in the dataset: a function of SEED, and so not in its file."""
    if name != "cluttered-digits-planted":
        return None
    from interpret_robust.datasets.cluttered_digits import planted_patterns

    return planted_patterns(SEED)


def _class_names(name: str, classes: int) -> tuple[str, ...]:
    if is_embedded(name):
        from interpret_robust.datasets.cluttered_digits import CLASS_NAMES

        return CLASS_NAMES
    return tuple(f"class {label}" for label in range(classes))
