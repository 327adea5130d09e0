"""A folder of pictures, a subfolder a class, as torchvision's `ImageFolder` reads it, but for what is hidden.

FOLDER/train/CLASS/*.jpg, FOLDER/test/CLASS/*.jpg   two splits; where there is no test/, val/ or validation/ is taken,
                                                    and else it is a third, `val`
FOLDER/CLASS/*.jpg                                  one split, for tests
FOLDER/masks/...                                    PNGs of the same paths, but for the ending: where the object is

A subfolder that is no class is refused, with what to give instead: one with splits, or all classes, or no picture.
"""

import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from interpret_robust.core.errors import UserError
from interpret_robust.datasets.damage import check_sizes
from interpret_robust.datasets.listing import Listing, Listings, find_split_word, split_word, split_words
from interpret_robust.datasets.picture_files import ENDINGS, Files, Pictures

MASKS = "masks"
SYSTEM_NAMES = (
    *("__macosx", "@eadir", "lost+found", "system volume information", "$recycle.bin"),
    *("thumbs.db", "desktop.ini"),
)
"""Folders and files that macOS, Linux, Windows and disks of Synology leave beside pictures, in lower case."""
PICTURE_NAMES = ("images", "imgs", "img", "pictures", "photos", "jpegimages")
"""What a folder of pictures of all classes is called, in lower case."""
OTHER_NAMES = ("annotations", "labels", "segmentations")
"""Folders beside those of pictures in datasets of detection and segmentation, in lower case; they may hold pictures."""


def split_folders(folder: Path) -> dict[str, Path]:
    """Return the folder of each split, by name; the folder itself is the test split where none has a name of SPLITS.

    Raises UserError where there are training images alone, and for a split that is there under two names.
    """
    paths: dict[str, Path] = {}
    for name in _subfolders(folder):
        if split_word(name) and (twin := paths.get(name.lower())):
            raise UserError(f"{folder} has both {twin.name}/ and {name}/: leave one of them.")
        paths[name.lower()] = folder / name
    folders = {part: paths[word] for part, word in split_words(folder, lambda word: word in paths).items()}
    if folders and "test" not in folders:
        name = folders["train"].name
        other = f", or, if {name} is a class, put all classes into {folder}/test/" if len(paths) > 1 else ""
        raise UserError(f"{folder} has {name}/ but no test/ or val/ beside it: add one of them{other}.")
    return folders or {"test": folder}


def list_folder(folder: Path) -> Listings:
    """Return what a folder holds: classes are the names of subfolders in sorted order, as torchvision numbers them.

    Raises UserError for a folder without classes, for a subfolder that is none, for a class that the training split
    lacks, and for masks that do not fit.
    """
    folders = split_folders(folder)
    classes = {part: _classes(path) for part, path in folders.items()}
    subfolders = [(path / name, len(classes[part]) == 1) for part, path in folders.items() for name in classes[part]]
    for path, is_only in subfolders:
        _check_splits(folder, path, is_only=is_only)
    for path, _ in subfolders:
        _check_pictures(path)
    names = classes.get("train", classes["test"])
    for part, path in folders.items():
        if strange := sorted(set(classes[part]) - set(names)):
            first = folders.get("train", folders["test"])
            raise UserError(f"{path} has the class '{strange[0]}', which {first} lacks: both need one set of classes.")
    return Listings(names, {part: partial(_list_split, folder, path, names) for part, path in folders.items()})


def has_classes(folder: Path) -> bool:
    """Return whether a folder, or one of its splits, has a subfolder with a picture in it."""
    return any(_has_pictures(path / name) for path in split_folders(folder).values() for name in _subfolders(path))


def is_picture(path: str) -> bool:
    """Return whether a file is taken for a picture, by its ending; hidden ones, such as macOS's ._1.jpg, are not."""
    return path.lower().endswith(ENDINGS) and not Path(path).name.startswith(".")


def _subfolders(folder: Path) -> tuple[str, ...]:
    """Return the names of subfolders in sorted order, without masks and those of a system, such as .git."""
    names = (entry.name for entry in os.scandir(folder) if entry.is_dir())
    return tuple(sorted(name for name in names if _is_visible(name) and name.lower() != MASKS))


def _is_visible(name: str) -> bool:
    return not name.startswith(".") and name.lower() not in SYSTEM_NAMES


def _files(folder: Path) -> Iterator[str]:
    """Yield the paths of files in a folder and those below, as torchvision orders them.

    Left out are hidden ones, those of a system, and a folder that is a link to a folder above it.
    """
    levels = []
    for root, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if _is_visible(name) and not _is_loop(Path(root, name))]
        levels.append((root, sorted(filter(_is_visible, names))))
    for root, names in sorted(levels):
        yield from (f"{root}{os.sep}{name}" for name in names)


def _is_loop(folder: Path) -> bool:
    return folder.is_symlink() and folder.parent.resolve().is_relative_to(folder.resolve())


def _pictures(folder: Path) -> Iterator[str]:
    return filter(is_picture, _files(folder))


def _has_direct_pictures(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        return any(is_picture(entry.name) and entry.is_file() for entry in entries)


def _has_pictures(folder: Path) -> bool:
    return _has_direct_pictures(folder) or next(_pictures(folder), None) is not None


def _check_splits(source: Path, path: Path, *, is_only: bool) -> None:
    """Raise UserError for a subfolder that is no class: it has no pictures, but splits, or it alone has folders."""
    names = _subfolders(path)
    if is_only and not names and path.name.lower() in PICTURE_NAMES:
        raise UserError(
            f"{path} is no class by its name: put the pictures of each class into a folder of its own, or list them "
            "with their classes in a .csv."
        )
    if not names or _has_direct_pictures(path):
        return
    words = {split_word(name) for name in names}
    if len(words - {None}) > 1 or all(split_word(name) == name.lower() for name in names):
        raise UserError(
            f"{path} has the subfolders {', '.join(names)}, which name splits, and is no class: give {path}."
        )
    if is_only and _has_pictures(path):
        remedy = f"give {path}" if path.parent == source else f"move what is in {path} up into {path.parent}"
        raise UserError(f"{path} would be the only class, and its pictures lie in folders of their own: {remedy}.")


def _check_pictures(path: Path) -> None:
    """Raise UserError for a subfolder that is no class: it has files, but no picture, or is called otherwise."""
    if path.name.lower() in OTHER_NAMES:
        raise UserError(f"{path} is no class by its name: move it elsewhere, or, if it holds masks, call it {MASKS}.")
    if not _has_pictures(path) and (file := next(_files(path), None)):
        raise UserError(
            f"{path} has files such as {Path(file).name}, but no picture, and is no class: move it elsewhere."
        )


def _classes(folder: Path) -> tuple[str, ...]:
    """Return the names of the classes.

    Raises UserError where there is none, and where some are called as splits are, such as training_set and test_set.
    """
    if names := _subfolders(folder):
        splits = {name: word for name in names if (word := find_split_word(name))}
        is_of_splits = len(splits) == len(names) or not any(_has_direct_pictures(folder / name) for name in splits)
        if len(set(splits.values())) > 1 and is_of_splits:
            raise UserError(
                f"{folder} has the subfolders {', '.join(names)}, which name splits and not classes: call them train, "
                "test and val."
            )
        return names
    raise UserError(f"{folder} has no subfolders: give each class a folder, such as {folder}/cat/1.jpg.")


def _list_split(folder: Path, split: Path, class_names: Sequence[str]) -> Listing:
    pairs = [(path, label) for label, name in enumerate(class_names) for path in _pictures(split / name)]
    names = [os.path.relpath(path, folder) for path, _ in pairs]
    labels = np.fromiter((label for _, label in pairs), np.int64, len(pairs))
    files = Files.list(folder, names)
    return Listing(files, labels, _masks(folder, split, files))


def _masks(folder: Path, split: Path, files: Files) -> Files | None:
    """Return the masks of pictures, None where there is no folder of them.

    They lie in masks/ in the folder or in that of the split. Raises UserError where one is missing.
    """
    for beginning in (folder, split):
        if root := next((path for path in beginning.iterdir() if path.name.lower() == MASKS and path.is_dir()), None):
            paths = [Path(os.path.relpath(folder / name, beginning)).with_suffix(".png") for name in files.names]
            return check_masks(files, Files.list(root, [str(path) for path in paths]))
    return None


def check_masks(files: Pictures, masks: Files) -> Files:
    """Return masks. Raises UserError where one is missing, damaged, or not of its picture's size."""
    if absent := masks.absent_names:
        raise UserError(f"{len(absent)} of {len(masks)} masks are missing, the first is {masks.folder / absent[0]}.")
    check_sizes(files, masks, f"{masks.folder}/")
    return masks
