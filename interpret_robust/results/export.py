"""An analysis file as tables that any program reads: `irt export`."""

import csv
from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import NamedTuple

import h5py

from interpret_robust.core.arrays import AnyArray
from interpret_robust.core.errors import UserError
from interpret_robust.core.files import replace_file
from interpret_robust.results import hdf5
from interpret_robust.results.schema import INTERVAL
from interpret_robust.results.view import View

PICTURE_AXES = ("y", "x")
"""What has one of these axes is a picture, and no table."""

PREDICTIONS = "per_image/prediction"
"""What the columns of classes that the model predicted are called, or begin with."""

_ROWS_AT_ONCE = 500


class Export(NamedTuple):
    """The two tables, and the datasets that are in neither."""

    images: Path
    statistics: Path
    left_out: list[str]


def to_csv(path: Path, folder: Path, *, overwrite: bool = False) -> Export:
    """Write `STEM-images.csv`, a row an image, and `STEM-statistics.csv`, a row a number, into `folder`.

    In the first, a column with further axes becomes a column for each of their places: `share[weights]`; and beside
    each predicted class stands whether it is the label, 1 or 0, see `is_right`: `right_clean` by `prediction_clean`.
    In the second, a number is named by its dataset's path and by its place along each axis, `rule=clip; sign=minus`;
    an interval is one row, of its value, low and high.
    Numbers have as many digits as tell them apart in the type they are stored in; maps and images are left out.
    Raises UserError for a file that cannot be read and for tables that are there, unless they may be overwritten.
    """
    result = hdf5.read(path)
    images, statistics = (folder / f"{path.stem}-{name}.csv" for name in ("images", "statistics"))
    for table in (images, statistics):
        if table.exists() and not overwrite:
            raise UserError(f"{table} is there already: use --overwrite to replace it.")
    with h5py.File(path) as file:
        view = View(file)
        views = [
            _NamedDataset(name, data, view.axes(data), view) for name, data in view.datasets() if not data.is_scale
        ]
        scales = {axis for dataset in views for axis in dataset.axes}  # also one that is not marked as such
        columns = [dataset for dataset in views if dataset.name not in scales]
        datasets = [dataset for dataset in columns if dataset.name.rpartition("/")[2] not in dataset.axes]
        tables = [dataset for dataset in datasets if not set(dataset.axes) & set(PICTURE_AXES)]
        per_image = [dataset for dataset in tables if dataset.axes[:1] == ("sample",)]
        _write(images, _image_rows(per_image, result.count))
        _write(statistics, _statistic_rows([dataset for dataset in tables if dataset not in per_image]))
        left_out = [dataset.name for dataset in datasets if dataset not in tables]
    return Export(images, statistics, left_out)


class _NamedDataset(NamedTuple):
    """A dataset of an open file, its path, and the names of its axes."""

    name: str
    data: h5py.Dataset
    axes: tuple[str, ...]
    file: View

    def places(self, axes: slice) -> Iterator[tuple[str, ...]]:
        """Return the names of the places along some of the axes, in the order in which numbers are stored."""
        return product(*map(self.file.places, self.axes[axes]))


def _image_rows(columns: Sequence[_NamedDataset], count: int) -> Iterator[list[str]]:
    labels = [column.data for column in columns if column.name == "per_image/label"]
    predictions = [column for column in columns if labels and column.name.startswith(PREDICTIONS)]
    names, predicted = (
        [name for column in group for name in _column_names(column)] for group in (columns, predictions)
    )
    yield ["sample", *names, *(f"right{name.removeprefix('prediction')}" for name in predicted)]
    for start in range(0, count, _ROWS_AT_ONCE):
        stop = min(start + _ROWS_AT_ONCE, count)
        blocks = [column.data[start:stop] for column in columns]
        blocks += [is_right(column.data[start:stop], labels[0][start:stop]).astype(int) for column in predictions]
        texts = [block.reshape(stop - start, -1).astype(str) for block in blocks]
        for row in range(stop - start):
            yield [str(start + row), *(value for block in texts for value in block[row])]


def is_right(prediction: AnyArray, label: AnyArray) -> AnyArray:
    """Return whether predicted classes (N, ...) are the labels (N,); never class -1, which stands for NaN logits.

    Example:
        >>> is_right(np.array([[3, 1], [-1, 2]]), np.array([3, 2])).tolist()
        [[True, False], [False, True]]
    """
    right: AnyArray = (prediction == label.reshape(-1, *[1] * (prediction.ndim - 1))) & (prediction >= 0)
    return right


def _column_names(column: _NamedDataset) -> Iterator[str]:
    name = column.name.removeprefix("per_image/")
    for places in column.places(slice(1, None)):
        yield f"{name}[{','.join(places)}]" if places else name


def _statistic_rows(datasets: Sequence[_NamedDataset]) -> Iterator[list[str]]:
    yield ["path", "coordinates", *INTERVAL]
    for dataset in datasets:
        is_interval = dataset.axes[-1:] == ("of",)
        axes, width = (dataset.axes[:-1], len(INTERVAL)) if is_interval else (dataset.axes, 1)
        numbers = dataset.data[()].astype(str).reshape(-1, width)
        for place, values in zip(dataset.places(slice(len(axes))), numbers, strict=True):
            coordinates = "; ".join(f"{axis}={name}" for axis, name in zip(axes, place, strict=True))
            yield [dataset.name, coordinates, *values, *[""] * (len(INTERVAL) - width)]


def _write(path: Path, rows: Iterable[Sequence[str]]) -> None:
    with replace_file(path) as partial, open(partial, "w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
