"""The embedded default: real handwriting among colored clutter, with the mask of the digit.

The 1,797 handwritten digits that scikit-learn carries (UCI optical digits, 8x8) are scaled, turned
slightly and placed on 32x32 RGB canvases. The canvas has a smooth colored texture and pieces cut from
other digits, after the cluttered MNIST of the attention literature (Mnih et al. 2014,
https://arxiv.org/abs/1406.6247). Train and test never share a source digit.

Everything is drawn from one seed, with additions and multiplications only, so that the same seed gives
the same bytes on every machine.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt

from interpret_robust.datasets.base import Dataset, Images, Labels, Masks, Patterns, Split

SIDE = 32
CLASS_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TRAIN_IMAGES, TEST_IMAGES = 6_000, 1_000
VERSION = 1
"""Part of the cached file's name: raise it whenever the same seed would give other bytes."""

PLANTED_AMPLITUDE = 6
"""Strength of the planted pattern in units of 1/255: below the usual eps of 8/255."""

_DIGIT_SIDE = 24
_PIECE_SIDE = 9
_PIECES = 4
_INK = 1.4
_CONTRAST = 0.87
_TEST_SHARE = 0.25
_CHUNK = 1000

Array = npt.NDArray[np.float64]
Finish = Callable[[Array, Labels], Images]
_Sources = tuple[Array, Labels]


def make_cluttered_digits(
    train_images: int = TRAIN_IMAGES, test_images: int = TEST_IMAGES, *, seed: int = 0, with_patterns: bool = False
) -> Dataset:
    """Generate the dataset: images (N, 32, 32, 3) uint8 with masks (N, 32, 32) of the digit.

    With `with_patterns`, every image also carries its class's fixed pattern of +-6/255, a feature that is
    perfectly predictive and known to be non-robust at eps 8/255.
    """
    train_sources, test_sources = _split_sources(np.random.default_rng([seed, 0]))
    finish = partial(_plant, patterns=_class_patterns(seed)) if with_patterns else _to_bytes
    return Dataset(
        name="cluttered-digits-planted" if with_patterns else "cluttered-digits",
        train=_generate(train_sources, train_images, np.random.default_rng([seed, 1]), finish),
        test=_generate(test_sources, test_images, np.random.default_rng([seed, 2]), finish),
        class_names=CLASS_NAMES,
        patterns=make_patterns(seed) if with_patterns else None,
    )


def make_patterns(seed: int) -> Patterns:
    """Return what `with_patterns` adds to the images of each class: (classes, 32, 32, 3), +-6/255 in 4x4 blocks."""
    return (_class_patterns(seed) / 255).astype(np.float32)


def _split_sources(rng: np.random.Generator) -> tuple[_Sources, _Sources]:
    """Return the 8x8 digits in [0, 1], divided by source digit."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images, labels = bunch.images / 16.0, bunch.target.astype(np.int64)
    order = rng.permutation(len(images))
    test = int(len(images) * _TEST_SHARE)
    return (images[order[test:]], labels[order[test:]]), (images[order[:test]], labels[order[:test]])


def _generate(sources: _Sources, count: int, rng: np.random.Generator, finish: Finish) -> Split:
    digits, digit_labels = sources
    labels = np.arange(count) % len(CLASS_NAMES)
    rng.shuffle(labels)
    images = np.empty((count, SIDE, SIDE, 3), np.uint8)
    masks = np.empty((count, SIDE, SIDE), np.bool_)
    by_class = [np.flatnonzero(digit_labels == label) for label in range(len(CLASS_NAMES))]
    for start in range(0, count, _CHUNK):
        part = slice(start, min(start + _CHUNK, count))
        picks = np.array([rng.choice(by_class[label]) for label in labels[part]])
        canvas, masks[part] = _compose(digits, picks, rng)
        images[part] = finish(canvas, labels[part])
    return Split(images, labels.astype(np.int64), masks)


def _compose(digits: Array, sources: Labels, rng: np.random.Generator) -> tuple[Array, Masks]:
    """Paint texture, clutter and the digit; return the canvas (N, 32, 32, 3) in [0, 1] and the mask (N, 32, 32)."""
    count = len(sources)
    canvas = _texture(count, rng)
    for _ in range(_PIECES):
        clutter = digits[rng.integers(len(digits), size=count)]
        piece = _resample(clutter, _PIECE_SIDE, rng.uniform(1.8, 2.6, count), rng, turn=1.0, wander=2.0)
        _paste(canvas, piece, rng.integers(-2, SIDE - _PIECE_SIDE + 3, (count, 2)), _bright_color(count, rng))
    digit = _resample(digits[sources], _DIGIT_SIDE, rng.uniform(2.1, 2.7, count), rng, turn=0.2, wander=0.0)
    ink = _paste(canvas, digit, rng.integers(-2, SIDE - _DIGIT_SIDE + 3, (count, 2)), _bright_color(count, rng))
    return (1 - _CONTRAST) / 2 + _CONTRAST * canvas, ink > 0.4


def _texture(count: int, rng: np.random.Generator) -> Array:
    """Return a smooth dark colored field: a 5x5 grid of random colors, bilinearly enlarged."""
    grid = rng.uniform(0.0, 0.35, (count, 5, 5, 3))
    return _enlarge(_enlarge(grid, axis=1), axis=2)


def _enlarge(coarse: Array, axis: int) -> Array:
    """Return an array with one axis interpolated linearly to SIDE points."""
    points = coarse.shape[axis]
    place = np.linspace(0, points - 1, SIDE)
    corner = np.minimum(place.astype(np.intp), points - 2)
    share = (place - corner).reshape([SIDE if axis == dimension else 1 for dimension in range(coarse.ndim)])
    fine: Array = coarse.take(corner, axis) * (1 - share) + coarse.take(corner + 1, axis) * share
    return fine


def _bright_color(count: int, rng: np.random.Generator) -> Array:
    """Return random colors (N, 3) whose brightest channel is near one."""
    color: Array = rng.uniform(0.35, 1.0, (count, 3))
    brightest: Array = color.max(1, keepdims=True)
    return color / brightest


def _resample(
    sources: Array, side: int, scale: Array, rng: np.random.Generator, *, turn: float, wander: float
) -> Array:
    """Sample 8x8 sources on side x side tiles, enlarged by `scale`, sheared and shifted at random.

    The turn is the matrix [[1, t], [-t, 1]]: a rotation up to a factor, without sine or cosine.
    `wander` moves the tile's center off the source's center, in source pixels.
    """
    count, height, width = sources.shape
    turns = rng.uniform(-turn, turn, (count, 1, 1))
    center = rng.uniform(-wander, wander, (2, count, 1, 1))
    offset = np.linspace(-(side - 1) / 2, (side - 1) / 2, side) / scale[:, None]
    row_shift, column_shift = offset[:, :, None], offset[:, None, :]
    row = row_shift + turns * column_shift + (height - 1) / 2 + center[0]
    column = column_shift - turns * row_shift + (width - 1) / 2 + center[1]
    return _bilinear(sources, row, column)


def _bilinear(sources: Array, row: Array, column: Array) -> Array:
    """Return values of sources (N, H, W) at fractional places (N, S, S); zero outside."""
    count, height, width = sources.shape
    larger_canvas = np.pad(sources, ((0, 0), (1, 2), (1, 2)))
    row, column = np.clip(row + 1, 0, height + 1), np.clip(column + 1, 0, width + 1)
    top, left = row.astype(np.intp), column.astype(np.intp)
    row_share, column_share = row - top, column - left
    image = np.arange(count)[:, None, None]
    upper = larger_canvas[image, top, left] * (1 - column_share) + larger_canvas[image, top, left + 1] * column_share
    lower = (
        larger_canvas[image, top + 1, left] * (1 - column_share)
        + larger_canvas[image, top + 1, left + 1] * column_share
    )
    return upper * (1 - row_share) + lower * row_share


def _paste(canvas: Array, ink: Array, corner: Labels, color: Array) -> Array:
    """Paint ink (N, S, S) in color (N, 3) onto the canvas at `corner`; return the ink on the whole canvas."""
    count, side, _ = ink.shape
    margin = side
    whole = np.zeros((count, SIDE + 2 * margin, SIDE + 2 * margin))
    rows = corner[:, 0, None, None] + margin + np.arange(side)[None, :, None]
    columns = corner[:, 1, None, None] + margin + np.arange(side)[None, None, :]
    whole[np.arange(count)[:, None, None], rows, columns] = ink
    cover = np.minimum(1.0, _INK * whole[:, margin:-margin, margin:-margin])
    canvas += cover[..., None] * (color[:, None, None, :] - canvas)
    return cover


def _to_bytes(canvas: Array, labels: Labels) -> Images:
    del labels
    return np.rint(canvas * 255).astype(np.uint8)


def _class_patterns(seed: int) -> Labels:
    """Return one fixed pattern of +-PLANTED_AMPLITUDE per class, in 4x4 blocks, (classes, 32, 32, 3), in units of
    1/255.
    """
    rng = np.random.default_rng([seed, 3])
    signs = rng.choice([-PLANTED_AMPLITUDE, PLANTED_AMPLITUDE], (len(CLASS_NAMES), SIDE // 4, SIDE // 4, 3))
    return signs.repeat(4, 1).repeat(4, 2)


def _plant(canvas: Array, labels: Labels, patterns: Labels) -> Images:
    return np.clip(np.rint(canvas * 255) + patterns[labels], 0, 255).astype(np.uint8)
