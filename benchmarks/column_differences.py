"""Compare columns of a file with those of a repetition, and tell whether rounding explains what differs.

The bounds are those of the shipped files, repeated for 16 images as they were made, and eleven of them for 64 without
oneDNN, whose convolutions round otherwise, as on another processor. Numbers of clean images agreed to 8e-5 of the
largest of their column, but for ranks and similarities, which jump where entries are all but equal: on at most 7 of 64
images by more than 1e-4, and by 3e-3 at most. Attacks amplify rounding: on natural networks most images moved, 5 of 64
by more than a tenth of the largest number, one by 0.43 of it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from interpret_robust.core.arrays import AnyArray
from interpret_robust.core.errors import MOST_LISTED
from interpret_robust.core.parsing import format_count
from interpret_robust.results.hdf5 import Result
from interpret_robust.results.schema import Column, Schema


class Bounds(NamedTuple):
    """What rounding explains, as shares of a column's scale: a difference of all images, and one of a few."""

    tolerance: float
    largest: float


CLEAN, ATTACK = Bounds(1e-4, 1e-2), Bounds(0.1, 1.0)
"""Of numbers of clean images and of adversarial ones."""

HALF_PRECISION = Bounds(2**-10, 1e-2)

LARGEST_SHARE = 1 / 8
"""Of the images that may be beyond the tolerance; of a few images one may."""

ZERO = 1e-5
"""Numbers of a column that are all smaller are zero but for rounding, as products that are zero by construction are."""

STATISTICS_TOLERANCE = 1e-9
"""Share of itself by which a statistic may differ: it is computed from the same rows, in double precision."""

SMALL_STATISTIC = 1e-3
"""Share of the largest of a column that stands for its smaller entries, in which rounding of larger ones may show."""

NEAR_ZERO = 1e-2
"""Share of the scale of margins within which rounding may turn an answer."""

AFTER_ATTACK = (
    *("margin", "perturbation", "perturbation_l2", "gradients"),
    *("adversarial", "attention_adversarial", "entropy_adversarial", "distance"),
    *("spearman", "spearman_relative", "spearman_partial", "spearman_shuffled"),
)
"""Columns of numbers, pixels and counts among them, that depend on an adversarial image."""

OF_ALL = ("partner", "cosine_shuffled", "alpha_shuffled", "edge_cosine_shuffled", "gradients")
"""Columns that depend on other images: those of alignment that are measured with another one, and costs."""

OF_SET = "clip-set"
"""A place along an axis that depends on other images: the rule that scales a map by the maps of all of them."""


@dataclass(frozen=True)
class Comparison:
    """What became of one column.

    Attributes:
        path: of the column.
        is_number: whether its entries are numbers, which have a tolerance, or answers, which are equal or not.
        count: entries that were compared.
        deviations: how many of them differ, or are beyond the tolerance.
        largest: the largest difference of numbers, over the column's scale.
        images: those with such entries, counted from 0; of statistics none.
        is_explained: whether rounding explains what differs.
    """

    path: str
    is_number: bool
    count: int
    deviations: int
    largest: float
    images: tuple[int, ...]
    is_explained: bool

    def __str__(self) -> str:
        listing = ", ".join(map(str, self.images[:MOST_LISTED])) + (", ..." if len(self.images) > MOST_LISTED else "")
        places = f", of {format_count(len(self.images), 'image')} (counted from 0: {listing})" if self.images else ""
        distance = f", by up to {self.largest:.1e} of its scale" if self.is_number else ""
        reason = ", which rounding explains" if self.is_explained else ""
        return f"{self.path} differs in {self.deviations:,} of {self.count:,} entries{places}{distance}{reason}."


def compare_rows(original: Result, repetition: Result, schema: Schema) -> Iterator[Comparison]:
    """Yield what became of each per-image column of `schema`, for the images of `repetition`, the first of `original`.

    Where these are not all images, what depends on the others is left out.
    """
    is_part = repetition.count < original.count
    for column in schema.per_image:
        if is_part and _name(column) in OF_ALL:
            continue
        values, expected = original[column.path], repetition[column.path]
        if is_part:
            values, expected = (_drop_set(array, column, schema) for array in (values, expected))
        if column.dtype.startswith("f") or _name(column) in AFTER_ATTACK:
            yield compare_numbers(column, values, expected)
        else:
            is_different = values[: len(expected)] != expected
            yield _compare_answers(column, is_different, _find_turned(column, original, repetition, schema))


def compare_numbers(column: Column, values: AnyArray, expected: AnyArray) -> Comparison:
    """Compare the numbers `expected` (n, ...) with the first of `values` (N, ...)."""
    bounds = ATTACK if _name(column) in AFTER_ATTACK else HALF_PRECISION if column.dtype == "f2" else CLEAN
    scale = _find_scale(values, expected)
    if scale < ZERO:
        scale = ZERO / bounds.tolerance
    distance = measure_distance(values[: len(expected)], expected, scale)
    images = _list_images(distance > bounds.tolerance)
    is_explained = len(images) <= max(1, LARGEST_SHARE * len(expected)) and not (distance > bounds.largest).any()
    return _compare(column, distance, bounds.tolerance, images=images, is_explained=is_explained)


def compare_statistics(original: Result, summary: Mapping[str, Any], schema: Schema) -> Iterator[Comparison]:
    """Yield what became of each statistic of `schema`, against those of `summary`, by path.

    Pixels of pictures may differ by 1 of 255.
    """
    for column in schema.summary:
        values, expected = original[column.path], np.asarray(summary[column.path], column.dtype)
        is_exact = not column.dtype.startswith("f")
        if values.shape == expected.shape:
            scale = np.maximum(np.abs(expected), SMALL_STATISTIC * _find_largest(expected))
            distance = measure_distance(values, expected, 1.0 if is_exact else scale)
        else:
            distance = np.full(values.shape, np.inf)
        yield _compare(column, distance, float("y" in column.axes) if is_exact else STATISTICS_TOLERANCE)


def measure_distance(values: AnyArray, expected: AnyArray, scale: float | AnyArray) -> AnyArray:
    """Return how far entries of two arrays are apart, over `scale`: 0 of two NaN, infinite of NaN and a number."""
    first, second = values.astype(np.float64), expected.astype(np.float64)
    is_equal = (first == second) | (np.isnan(first) & np.isnan(second))
    with np.errstate(invalid="ignore", divide="ignore"):
        distance = np.abs(first - second) / scale
    return np.where(is_equal, 0, np.where(np.isnan(distance), np.inf, distance))


def _compare(
    column: Column, distance: AnyArray, tolerance: float, *, images: tuple[int, ...] = (), is_explained: bool = False
) -> Comparison:
    return Comparison(
        column.path,
        is_number=True,
        count=distance.size,
        deviations=int((distance > tolerance).sum()),
        largest=float(distance.max(initial=0)),
        images=images,
        is_explained=is_explained,
    )


def _compare_answers(column: Column, is_different: AnyArray, is_turned: AnyArray) -> Comparison:
    """Compare answers, which rounding explains where it may have turned them all."""
    return Comparison(
        column.path,
        is_number=False,
        count=is_different.size,
        deviations=int(is_different.sum()),
        largest=0.0,
        images=_list_images(is_different),
        is_explained=bool((is_turned | ~is_different).all()),
    )


def _find_turned(column: Column, original: Result, repetition: Result, schema: Schema) -> AnyArray:
    """Return where the margins of answers are near zero and changed their sign; nowhere without margins of each."""
    path = column.path.replace("prediction", "margin")
    shape = repetition[column.path].shape
    if path == column.path or path not in {other.path for other in schema.per_image} or repetition[path].shape != shape:
        return np.zeros(1, bool)
    values, expected = original[path], repetition[path]
    first = values[: len(expected)]
    size = np.maximum(np.abs(first), np.abs(expected))
    is_turned: AnyArray = (size <= NEAR_ZERO * _find_scale(values, expected)) & ((first > 0) != (expected > 0))
    return is_turned


def _find_scale(values: AnyArray, expected: AnyArray) -> float:
    """Return the largest number of `expected`, or the median size of all `values`, which few edits do not change."""
    sizes = np.abs(values[np.isfinite(values)].astype(np.float64))
    return max(_find_largest(expected), float(np.median(sizes)) if sizes.size else 0.0)


def _find_largest(values: AnyArray) -> float:
    return float(np.abs(values[np.isfinite(values)].astype(np.float64)).max(initial=0))


def _list_images(is_different: AnyArray) -> tuple[int, ...]:
    return tuple(np.flatnonzero(is_different.reshape(len(is_different), -1).any(1)).tolist())


def _drop_set(values: AnyArray, column: Column, schema: Schema) -> AnyArray:
    """Return a column without the places that depend on other images."""
    for number, axis in enumerate(column.axes, 1):
        names = schema.names(axis) or ()
        if OF_SET in names:
            values = np.delete(values, names.index(OF_SET), number)
    return values


def _name(column: Column) -> str:
    return column.path.rpartition("/")[2]
