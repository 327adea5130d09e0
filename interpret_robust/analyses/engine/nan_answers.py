"""Which models answered which images, or maps of them, with NaN."""

from collections.abc import Iterator, Sequence

import numpy as np

from interpret_robust.core.arrays import AnyArray
from interpret_robust.core.errors import NotFiniteError
from interpret_robust.models.classifier import NO_CLASS
from interpret_robust.results.columns import Columns
from interpret_robust.results.schema import Column, Schema


def list_nan_answers(schema: Schema, columns: Columns, models: Sequence[str], images: int) -> Iterator[str]:
    """Yield a sentence for each of `models`, first the one that is asked, that answered some of the images with NaN."""
    is_nan = np.zeros((len(models), images), bool)
    for column in schema.per_image:
        if "prediction" in column.path and not column.doc.endswith(f"or {NO_CLASS}"):  # what nobody was asked
            places, is_of_no_class = _split_by_model(column, columns[column.path] == NO_CLASS)
            is_nan[places] |= is_of_no_class.reshape(len(is_of_no_class), images, -1).any(2)
    for name, is_nan_of_model in zip(models, is_nan, strict=True):
        if is_nan_of_model.any():
            error = NotFiniteError("logits", np.flatnonzero(is_nan_of_model).tolist())
            yield f"{name}: {error} Such an answer is never right."


def _split_by_model(column: Column, values: AnyArray) -> tuple[slice, AnyArray]:
    """Return which models a column (N, ...) of predictions is of, and the values (models, N, ...) of each."""
    if "evaluator" in column.axes:
        return slice(1, None), np.moveaxis(values, 1 + column.axes.index("evaluator"), 0)
    if "evaluator" in column.path:  # the first of them
        return slice(1, 2), values[None]
    if "target" in column.axes:  # the model, then its copies
        return slice(0, None), np.moveaxis(values, 1 + column.axes.index("target"), 0)
    return slice(0, 1), values[None]
