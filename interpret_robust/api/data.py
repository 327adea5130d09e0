"""Images for a program: of a dataset by its name, its path, or as it is."""

from numbers import Integral
from pathlib import Path

import torch
from torch import Tensor

from interpret_robust.api.arguments import check_path
from interpret_robust.api.wording import use_python_words
from interpret_robust.core.errors import UserError, describe
from interpret_robust.datasets import Dataset
from interpret_robust.datasets import load as load_dataset
from interpret_robust.datasets.batches import to_pixels

Data = Dataset | str | Path
"""A dataset, its name, or the path of its `.npz` or its pictures; arrays become one by
`datasets.in_memory.make_dataset`.
"""


@use_python_words()
def samples(data: Data, count: int, *, split: str = "test") -> tuple[Tensor, Tensor]:
    """Return `count` images of a split and their labels: the first ones, or a fair draw, see `Split.draw`.

    Pixels are float32 (count, C, H, W) in [0, 1], labels int64 (count,).
    Raises UserError where the split does not have so many images.

    Example:
        >>> images, labels = ir.samples("cluttered-digits", 8)  # doctest: +SKIP
        >>> ir.samples(ir.make_dataset(np.zeros((9, 4, 6)), range(9)), 8)[0].shape
        torch.Size([8, 1, 4, 6])
    """
    source = open_dataset(data).split(split)
    if not isinstance(count, Integral) or isinstance(count, bool) or not 1 <= count <= len(source):
        raise UserError(
            f"count is {describe(count)}: the {split} split has {len(source)} images, so give 1 to {len(source)}."
        )
    first = source.draw(count)
    pixels = to_pixels(torch.from_numpy(first.images[:].copy())).permute(0, 3, 1, 2).contiguous()
    return pixels, torch.from_numpy(first.labels.copy())


def open_dataset(data: Data | None) -> Dataset:
    """Return the dataset itself. Raises UserError for none, for arrays, and for a name or a file that there is not."""
    if isinstance(data, Dataset):
        return data
    return load_dataset(name_of(data))


def name_of(data: str | Path | None) -> str:
    """Return the name or path of a dataset as text. Raises UserError for what is neither."""
    if data is None:
        raise UserError("say which images the model is for: a dataset, its name, or the path of its files.")
    if not isinstance(data, str | Path):
        raise UserError(
            f"data is of type {type(data).__name__}: give ir.make_dataset(images, labels), the name of one dataset, or "
            "the path of its files."
        )
    return check_path("data", data)
