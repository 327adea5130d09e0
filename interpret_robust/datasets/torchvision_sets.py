"""Datasets of torchvision by name, such as `torchvision:STL10`, whose files are in the folder of datasets already.

Taken are those that read no pickles. Nothing is downloaded.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from interpret_robust.core.errors import UserError, take_first_line, unknown
from interpret_robust.datasets.listing import LabeledPictures, Listings, make_listings

PREFIX = "torchvision:"

BY_FLAG = {part: {"train": part == "train"} for part in ("train", "test")}
BY_NAME = {part: {"split": part} for part in ("train", "test")}
WITH_VAL = {"train": {"split": "train"}, "test": {"split": "val"}}
WITH_TRAINVAL = {"train": {"split": "trainval"}, "test": {"split": "test"}}
ARGUMENTS: dict[str, dict[str, dict[str, Any]]] = {
    **dict.fromkeys(("FashionMNIST", "KMNIST", "MNIST", "QMNIST", "USPS"), BY_FLAG),
    **dict.fromkeys(("Country211", "DTD", "Flowers102", "Food101", "GTSRB", "PCAM", "STL10", "SVHN"), BY_NAME),
    **dict.fromkeys(("FGVCAircraft", "OxfordIIITPet"), WITH_TRAINVAL),
    "Imagenette": WITH_VAL,
}
"""The datasets that are taken, and what torchvision is given for each split."""


@dataclass(frozen=True)
class Items:
    """Pictures that a dataset of torchvision decodes."""

    dataset: Any
    label: str

    def __len__(self) -> int:
        return len(self.dataset)

    def name(self, place: int) -> str:
        """Return the dataset, the split and the number of a picture."""
        return f"{self.label}/{place}"

    def length(self, place: int) -> int:  # noqa: ARG002
        """Return 0: what a picture takes on disk is not known."""
        return 0

    def open(self, place: int) -> Image.Image:
        """Return a decoded picture."""
        picture: Image.Image = self.dataset[place][0]
        return picture


def list_torchvision(location: str, root: Path) -> Listings:
    """Return what `torchvision:NAME` holds, whose files lie in `root`, where torchvision would put them.

    Raises UserError for a dataset that is not taken, or whose files are not there.
    """
    name = location.removeprefix(PREFIX)
    if name not in ARGUMENTS:
        raise unknown("dataset of torchvision that reads no pickles", name, ARGUMENTS)
    datasets = {part: _open(name, root, arguments) for part, arguments in ARGUMENTS[name].items()}
    classes = getattr(datasets["test"], "classes", None)
    splits: dict[str, LabeledPictures] = {
        part: (Items(dataset, f"{name}/{part}"), _labels(dataset), None) for part, dataset in datasets.items()
    }
    return make_listings(Path(location), splits, None if classes is None else [str(word) for word in classes])


def _open(name: str, root: Path, arguments: dict[str, Any]) -> Any:
    from torchvision import datasets

    try:
        return getattr(datasets, name)(str(root), download=False, **arguments)
    except Exception as error:  # each has its own
        text = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
        raise UserError(
            f"torchvision:{name} is not in {root} ({take_first_line(error)}): to fetch it, run "
            f"torchvision.datasets.{name}({str(root)!r}, {text}, download=True) in Python where there is a network."
        ) from error


def _labels(dataset: Any) -> list[str | int]:
    """Return the label of each picture, without decoding any."""
    for attribute in ("targets", "labels", "_labels"):
        if (values := getattr(dataset, attribute, None)) is not None:
            return [int(value) for value in values]
    if (samples := getattr(dataset, "_samples", None)) is not None:
        return [int(label) for _, label in samples]
    return [int(dataset[place][1]) for place in range(len(dataset))]
