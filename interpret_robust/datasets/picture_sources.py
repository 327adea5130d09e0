"""Which source of pictures a text names, and the dataset that it holds."""

from collections.abc import Callable
from pathlib import Path

from interpret_robust.core.errors import UserError
from interpret_robust.core.files import check_present
from interpret_robust.datasets import cifar_c
from interpret_robust.datasets.arrow_tables import ENDINGS, list_tables
from interpret_robust.datasets.base import Dataset
from interpret_robust.datasets.image_folder import has_classes, list_folder
from interpret_robust.datasets.image_list import list_csv
from interpret_robust.datasets.listing import Listings, find_files, make_listed_dataset
from interpret_robust.datasets.picture_files import ENDINGS as PICTURE_ENDINGS
from interpret_robust.datasets.records import RECORDS
from interpret_robust.datasets.reference import Reference
from interpret_robust.datasets.tar_shards import list_tars
from interpret_robust.datasets.torchvision_sets import PREFIX, list_torchvision

FILES: dict[str, Callable[[Path], Listings]] = {
    **dict.fromkeys((".csv", ".tsv"), list_csv),
    ".tar": list_tars,
    **dict.fromkeys(ENDINGS, list_tables),
}
"""What lists the pictures of a file, by its ending in lower case."""

ARCHIVES = {
    **dict.fromkeys((".gz", ".tgz"), "is compressed: unpack it with gunzip, and give what comes out"),
    **dict.fromkeys((".bz2", ".xz", ".zst"), "is compressed: unpack it, and give what comes out"),
    **dict.fromkeys((".zip", ".7z", ".rar"), "is an archive: unpack it, and give the folder that comes out"),
}
SAVEZ = "numpy.savez as x_train, y_train, x_test and y_test, and give the .npz"
REMEDIES = {
    **ARCHIVES,
    **dict.fromkeys(
        (".json", ".jsonl", ".txt", ".xml", ".yaml", ".xls", ".xlsx"),
        "is no list of pictures that is read here: write a .csv with a first line file,label and a line a picture",
    ),
    **dict.fromkeys(
        (".h5", ".hdf5", ".mat", ".npy"), f"is no file of arrays that is read here: write them with {SAVEZ}"
    ),
    **dict.fromkeys(
        (".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib"),
        f"may hold a pickle, which can run code and is never read: write its arrays with {SAVEZ}",
    ),
    **dict.fromkeys(
        (".tfrecord", ".tfrecords", ".lmdb", ".mdb", ".db", ".rec"),
        "is no file of pictures that is read here: write each picture into the folder of its class",
    ),
    **dict.fromkeys(
        PICTURE_ENDINGS,
        "is one picture, and a dataset has many: give the folder that the folders of its classes are in, or ask `irt "
        "explain` about the one",
    ),
}
"""What to do with files of other kinds, by their ending in lower case."""


def is_source(location: str) -> bool:
    """Return whether a text names pictures, and not arrays of a name or an .npz."""
    if location in RECORDS or not location.strip():
        return False
    is_file = location.startswith(PREFIX) or _ending(location) in FILES | REMEDIES
    return is_file or Path(location).is_dir() or cifar_c.parse(location) is not None


def _ending(location: str) -> str:
    return Path(location).suffix.lower()


def check(location: str) -> None:
    """Raise UserError where there is no file that a text names, or one of a kind that is not read; nothing is read."""
    path, ending = Path(location), _ending(location)
    if path.is_dir():
        return
    if ending in FILES | REMEDIES:
        check_present(path, "file of pictures", "give a folder, .csv, .parquet, .arrow or .tar")
    if ending in REMEDIES:
        raise UserError(f"{location} {REMEDIES[ending]}.")


def load(reference: Reference, root: Path) -> Dataset:
    """Return the dataset of a source of pictures; `root` is the folder of downloaded datasets.

    Raises UserError for one that has another form than it should.
    """
    location, path = reference.location, Path(reference.location)
    if location.startswith(PREFIX):
        return make_listed_dataset(
            f"torchvision-{location.removeprefix(PREFIX)}", reference, list_torchvision(location, root)
        )
    if corruption := cifar_c.parse(location):
        reference.check_arrays()
        return cifar_c.load(*corruption)
    if path.is_dir():
        return make_listed_dataset(path.resolve().name, reference, _list(path))
    check(location)
    return make_listed_dataset(path.stem, reference, FILES[_ending(location)](path))


def _list(folder: Path) -> Listings:
    """Return what a folder holds: class folders, tables or tars."""
    if has_classes(folder):
        return list_folder(folder)
    if cifar_c.is_folder(folder):
        example = next(iter(cifar_c.list_corruptions(folder)), "brightness")
        raise UserError(f"{folder} holds corruptions: name one and its severity, such as {folder}:{example}:3.")
    for ending, list_files in FILES.items():
        if list_files != list_csv and find_files(folder, (ending,)):
            return list_files(folder)
    if archive := next((path for path in sorted(folder.rglob("*")) if path.suffix.lower() in ARCHIVES), None):
        raise UserError(f"{archive} {ARCHIVES[archive.suffix.lower()]}.")
    raise UserError(
        f"{folder} holds no pictures in folders of classes, such as {folder}/cat/1.jpg or {folder}/train/cat/1.jpg."
    )
