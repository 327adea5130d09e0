"""A folder of pictures, a subfolder a class, as torchvision's `ImageFolder` reads it, but for what is hidden.

FOLDER/train/CLASS/*.jpg, FOLDER/test/CLASS/*.jpg   two splits; where there is no test/, val/ or validation/ is taken,
                                                    and else it is a third, `val`
FOLDER/CLASS/*.jpg                                  one split, for tests
FOLDER/masks/...                                    PNGs of the same paths, but for the ending: where the object is
"""

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from interpret_robust.core.errors import UserError
from interpret_robust.datasets.listing import Listing, Listings, split_word, split_words
from interpret_robust.datasets.pictures import ENDINGS, Files, Pictures, check_sizes

MASKS = "masks"
ARCHIVE_REST = "__MACOSX"
"""What macOS leaves beside the folder in a zip file."""


def split_folders(folder: Path) -> dict[str, Path]:
    """Return the folder of each split, by name; the folder itself is the test split where none has a name of SPLITS.

    Raises UserError where there are training images alone.
    """
    paths = {name.lower(): folder / name for name in _subfolders(folder)}
    folders = {part: paths[word] for part, word in split_words(lambda word: word in paths).items()}
    if folders and "test" not in folders:
        raise UserError(f"{folder} has {folders['train'].name}/ but no test/ or val/ beside it: add one of them.")
    return folders or {"test": folder}


def list_folder(folder: Path) -> Listings:
    """Return what a folder holds: classes are the names of subfolders in sorted order, as torchvision numbers them.

    Raises UserError for a folder without classes, for a class that the training split lacks, and
    for masks that do not fit.
    """
    folders = split_folders(folder)
    classes = {part: _classes(path) for part, path in folders.items()}
    names = classes.get("train", classes["test"])
    for part, path in folders.items():
        if strange := sorted(set(classes[part]) - set(names)):
            first = folders.get("train", folders["test"])
            raise UserError(f"{path} has the class '{strange[0]}', which {first} lacks: both need one set of classes.")
    return Listings(names, {part: partial(_list_split, folder, path, names) for part, path in folders.items()})


def has_classes(folder: Path) -> bool:
    """Return whether a folder, or one of its splits, has a subfolder with a picture in it."""
    return any(
        is_picture(name)
        for path in split_folders(folder).values()
        for class_name in _subfolders(path)
        for _, _, names in os.walk(path / class_name, followlinks=True)
        for name in names
    )


def is_picture(path: str) -> bool:
    """Return whether a file is taken for a picture, by its ending; hidden ones, such as macOS's ._1.jpg, are not."""
    return path.lower().endswith(ENDINGS) and not Path(path).name.startswith(".")


def _subfolders(folder: Path) -> tuple[str, ...]:
    """Return the names of subfolders in sorted order, without masks and those of a system, such as .git."""
    names = (entry.name for entry in os.scandir(folder) if entry.is_dir())
    return tuple(sorted(name for name in names if not name.startswith(".") and name not in (MASKS, ARCHIVE_REST)))


def _classes(folder: Path) -> tuple[str, ...]:
    """Return the names of the classes.

    Raises UserError where there is none, and where all are called as splits are, such as training_set and test_set.
    """
    if names := _subfolders(folder):
        if len(names) > 1 and all(map(split_word, names)):
            raise UserError(
                f"{folder} has the subfolders {', '.join(names)}, which name splits and not classes: call them train, "
                "test and val."
            )
        return names
    raise UserError(f"{folder} has no subfolders: pictures lie in a folder a class, such as {folder}/cat/1.jpg.")


def _list_split(folder: Path, split: Path, class_names: Sequence[str]) -> Listing:
    from torchvision.datasets.folder import make_dataset

    numbers = {name: number for number, name in enumerate(class_names)}
    pairs = make_dataset(str(split), numbers, is_valid_file=is_picture, allow_empty=True)
    names = [os.path.relpath(path, folder) for path, _ in pairs]
    labels = np.fromiter((label for _, label in pairs), np.int64, len(pairs))
    files = Files.list(folder, names)
    return Listing(files, labels, _masks(folder, split, files))


def _masks(folder: Path, split: Path, files: Files) -> Files | None:
    """Return the masks of pictures, None where there is no folder of them.

    They lie in masks/ in the folder or in that of the split. Raises UserError where one is missing.
    """
    for root, beginning in ((folder / MASKS, folder), (split / MASKS, split)):
        if root.is_dir():
            paths = [Path(os.path.relpath(folder / name, beginning)).with_suffix(".png") for name in files.names]
            return check_masks(files, Files.list(root, [str(path) for path in paths]))
    return None


def check_masks(files: Pictures, masks: Files) -> Files:
    """Return masks. Raises UserError where one is missing, damaged, or not of its picture's size."""
    if absent := masks.absent_names:
        raise UserError(f"{len(absent)} of {len(masks)} masks are missing, the first is {masks.folder / absent[0]}.")
    check_sizes(files, masks, f"{masks.folder}/")
    return masks
