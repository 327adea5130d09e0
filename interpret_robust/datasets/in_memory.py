"""Images that a program already holds, as a dataset."""

from collections.abc import Iterable, Iterator, Mapping
from numbers import Integral
from typing import Any

import numpy as np

from interpret_robust.core.errors import UserError, describe, take_first_line
from interpret_robust.core.file_names import is_printable_label
from interpret_robust.datasets.base import DIVIDED_TWICE, LONGEST_NUMBER, Dataset, Images, Labels, Split, number_classes


def make_dataset(
    images: Any, labels: Any, name: str = "images", class_names: Iterable[str] | Mapping[str, int] | None = None
) -> Dataset:
    """Return a dataset whose two splits are these images.

    Args:
        images: arrays or tensors (N, H, W), (N, C, H, W) or (N, H, W, C) with C 1 or 3, uint8, or floats in [0, 1],
            which are rounded to whole 255ths as an image file would be.
        labels: integers (N,) or (N, 1), from 0 on.
        name: what files and tables call it.
        class_names: of all classes in the order of their labels, or a dict that gives each name its label, such as
            torchvision's `class_to_idx`; by default `class 0` to the highest label.

    Raises UserError for arrays of other shapes, types or ranges.

    Example:
        >>> ir.make_dataset(np.zeros((5, 3, 4, 6)), [0, 1, 2, 0, 1]).image_shape
        (3, 4, 6)
    """
    if not is_printable_label(name):
        raise UserError(f"name {describe(name)}: give a dataset a name of printable characters on one line.")
    split = Split(_as_images(_values("images", images)), _as_labels(_values("labels", labels)))
    if len(split.images) != len(split.labels):
        raise UserError(f"{len(split.images)} images have {len(split.labels)} labels: there is one for each.")
    return Dataset(name, split, split, _as_names(class_names, int(split.labels.max())))


def _as_names(class_names: Any, highest: int) -> tuple[str, ...]:
    """Return the names of classes from 0 to `highest` at least."""
    names = () if class_names is None else _in_order(class_names)
    if not names:
        if highest >= 10**LONGEST_NUMBER:
            raise UserError(f"a label is {highest}: numbers of classes go from 0 to {10**LONGEST_NUMBER - 1}.")
        return number_classes(highest + 1)
    if isinstance(class_names, str) or not all(map(is_printable_label, names)):
        raise UserError(f"class names are {describe(class_names)}: give a list of texts of printable characters.")
    if highest >= len(names):
        raise UserError(f"label {highest} has no name: there are {len(names)} class names.")
    return tuple(map(str, names))


def _in_order(class_names: Any) -> tuple[Any, ...]:
    """Return names in the order of their labels. Raises UserError for what has no such order."""
    if isinstance(class_names, Mapping):
        labels = list(class_names.values())
        if not all(isinstance(label, Integral) for label in labels) or sorted(labels) != list(range(len(labels))):
            raise UserError(
                f"class names are {describe(class_names)}: a dict gives each name its label, from 0 on without a gap, "
                "such as {'cat': 0, 'dog': 1}."
            )
        return tuple(sorted(class_names, key=class_names.__getitem__))
    if isinstance(class_names, set | frozenset):
        raise UserError(f"class names are {describe(class_names)}, which has no order: give a list of them.")
    try:
        return tuple(class_names)
    except TypeError:
        raise UserError(f"class names are {describe(class_names)}: give a list of texts.") from None


def _values(name: str, source: Any) -> Any:
    """Return values as NumPy has them, also of a tensor that asks for a gradient, lies on a GPU, or is sparse or of
    bfloat16. Raises UserError where there is no array of them.
    """
    if isinstance(source, Iterator):
        source = list(source)
    if isinstance(source, list | tuple) and any(hasattr(value, "detach") for value in source):
        source = [_values(name, value) for value in source]
    try:
        return np.asarray(_dense(source) if hasattr(source, "detach") else source)
    except (NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(
            f"{name} are of type {type(source).__name__}, of which there is no array ({take_first_line(error)}): give "
            "one array or tensor."
        ) from None


def _dense(tensor: Any) -> Any:
    """Return a tensor as NumPy can read it."""
    values = tensor.detach().cpu().to_dense()
    return values.float() if str(values.dtype) == "torch.bfloat16" else values


def _as_images(images: Any) -> Images:
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or len(images) == 0 or not {1, 3} & {images.shape[1], images.shape[3]}:
        raise UserError(
            f"images have shape {images.shape}: give (N, H, W), or (N, C, H, W) or (N, H, W, C) with C 1 or 3."
        )
    if images.dtype != np.uint8:
        if images.dtype.kind != "f":
            raise UserError(f"images are of type {images.dtype}: give uint8, or floats in [0, 1].")
        if np.isnan(images).any():
            raise UserError("images have a pixel that is not a number: give floats in [0, 1], or uint8.")
        if images.min() < 0 or images.max() > 1:
            span = f"{images.min():.3g} to {images.max():.3g}"
            raise UserError(f"images have pixels from {span}: give floats in [0, 1], or uint8 from 0 to 255.")
        images = np.round(255 * images).astype(np.uint8)
    if images.max() == 1:
        raise UserError(
            f"the brightest pixel is {DIVIDED_TWICE}: give uint8 images from 0 to 255, or floats from 0 to 1."
        )
    in_front = images.shape[1] in (1, 3) and images.shape[3] not in (1, 3)
    return np.array(images.transpose(0, 2, 3, 1) if in_front else images, order="C")  # a copy: the program may go on


def _as_labels(labels: Any) -> Labels:
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise UserError(f"labels are {labels.dtype} of shape {labels.shape}: give each image one integer, at least 0.")
    if len(rows := np.flatnonzero(labels < 0)):
        raise UserError(f"image {rows[0]} has label {labels[rows[0]]}: give each image one integer, at least 0.")
    integers: Labels = labels.astype(np.int64)
    return integers
