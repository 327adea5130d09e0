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
from interpret_robust.datasets.listing import Listings, dataset_of
from interpret_robust.datasets.records import RECORDS
from interpret_robust.datasets.reference import Reference
from interpret_robust.datasets.tar_shards import list_tars
from interpret_robust.datasets.torchvision_sets import PREFIX, list_torchvision

FILES: dict[str, Callable[[Path], Listings]] = {
    ".csv": list_csv,
    ".tar": list_tars,
    **dict.fromkeys(ENDINGS, list_tables),
}
"""What lists the pictures of a file, by its ending."""


def is_source(location: str) -> bool:
    """Return whether a text names pictures, and not arrays of a name or an .npz."""
    if location in RECORDS or not location.strip():
        return False
    is_file = location.startswith(PREFIX) or Path(location).suffix in FILES
    return is_file or Path(location).is_dir() or cifar_c.parse(location) is not None


def check(location: str) -> None:
    """Raise UserError where there is no file that a text names; nothing is read."""
    if Path(location).suffix in FILES and not Path(location).is_dir():
        check_present(Path(location), "file of pictures", "give a folder, .csv, .parquet, .arrow or .tar")


def load(reference: Reference, root: Path) -> Dataset:
    """Return the dataset of a source of pictures; `root` is the folder of downloaded datasets.

    Raises UserError for one that has another form than it should.
    """
    location, path = reference.location, Path(reference.location)
    if location.startswith(PREFIX):
        return dataset_of(f"torchvision-{location.removeprefix(PREFIX)}", reference, list_torchvision(location, root))
    if corruption := cifar_c.parse(location):
        reference.check_arrays()
        return cifar_c.load(*corruption)
    if path.is_dir():
        return dataset_of(path.resolve().name, reference, _list(path))
    check(location)
    return dataset_of(path.stem, reference, FILES[path.suffix](path))


def _list(folder: Path) -> Listings:
    """Return what a folder holds: class folders, tables or tars."""
    if cifar_c.is_folder(folder):
        example = next(iter(cifar_c.corruptions(folder)), "brightness")
        raise UserError(f"{folder} holds corruptions: name one and its severity, such as {folder}:{example}:3.")
    if has_classes(folder):
        return list_folder(folder)
    for ending, list_files in FILES.items():
        if ending != ".csv" and next(folder.rglob(f"*{ending}"), None):
            return list_files(folder)
    raise UserError(
        f"{folder} holds no pictures in a folder a class, such as {folder}/cat/1.jpg or {folder}/train/cat/1.jpg."
    )
