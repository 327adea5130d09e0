"""Weather: snow, frost and fog in front of the scene, and a brighter day.

Clouds and crystals are synthesized, from midpoint displacement: no photograph is used. Of an image with any number of
channels, snow, frost and fog are gray.
"""

import numpy as np
import scipy

from interpret_robust.core.arrays import Array
from interpret_robust.datasets.corruptions.blur import average, segment, shorter_side

FLAKE, FLAKES, FALL, WHITENING = 0.01, 0.02, 0.06, 0.06
"""Deviation of a flake and the way that it falls, in shorter sides; share of flakes and whitening, times severity."""

ICE, RIDGE, SHEETS, OPACITY = 0.9, 3, 2, 0.17
"""The gray of ice, how thin its needles are, the sheets of needles, and how opaque they are, times the severity."""

DENSITY = 0.3
"""Of fog, times the severity."""

ROUGHNESS = 0.4
"""Of clouds: how high their displacements are at half the distance, as a share."""

LIGHT = 0.1
"""What a brighter day adds to the brightest channel, times the severity."""


def add_snow(image: Array, severity: int, random: np.random.Generator) -> Array:
    """Return an image (H, W, C) whitened by snow, behind flakes that fall in a random direction, 45 degrees at most."""
    side, shape = shorter_side(image), image.shape[:2]
    field = scipy.ndimage.gaussian_filter(random.standard_normal(shape), FLAKE * side, mode="wrap")
    flakes = field >= np.quantile(field, 1 - FLAKES * severity)
    angle = np.pi * (0.25 + 0.5 * random.random())
    cover = (1.5 * average(flakes[..., None].astype(np.float64), segment(FALL * side, angle))).clip(0, 1)
    gray = image.mean(2, keepdims=True)
    backdrop = image + WHITENING * severity * ((1 + gray) / 2 - image)
    snowy: Array = backdrop + cover * (1 - backdrop)
    return snowy


def add_frost(image: Array, severity: int, random: np.random.Generator) -> Array:
    """Return an image (H, W, C) behind a pane with ice crystals, see `needles`."""
    cover = OPACITY * severity * needles(image.shape[:2], random)[..., None]
    return image + cover * (ICE - image)


def needles(shape: tuple[int, int], random: np.random.Generator) -> Array:
    """Return how much ice there is (H, W), from 0 to 1: the ridges of several sheets of clouds, one over the other.

    A ridge lies where clouds cross their middle.
    """
    ridges = [(1 - np.abs(2 * clouds(shape, random) - 1)) ** RIDGE for _ in range(SHEETS)]
    ice: Array = np.max(ridges, axis=0)
    return ice


def add_fog(image: Array, severity: int, random: np.random.Generator) -> Array:
    """Return an image (H, W, C) in fog: of its light exp(-d) comes through, and the rest is white.

    The optical depth d is that of clouds and, by half as much, of even fog.
    """
    depth = DENSITY * severity * (0.5 + clouds(image.shape[:2], random))
    foggy: Array = 1 - np.exp(-depth)[..., None] * (1 - image)
    return foggy


def clouds(shape: tuple[int, int], random: np.random.Generator) -> Array:
    """Return clouds (H, W) from 0 to 1: the diamond-square algorithm (Fournier, Fussell & Carpenter 1982) on a torus.

    They are made on a square of a power of two, which the image's longer side fills, and read between its points.
    """
    count = max(1, int(np.ceil(np.log2(max(shape)))))
    heights: Array = np.zeros((1, 1))
    amplitude = 1.0
    for _ in range(count):
        heights, amplitude = _refine(heights, amplitude, random), ROUGHNESS * amplitude
    size, longer = len(heights), max(shape)
    y, x = (np.arange(side) * size / longer for side in shape)
    field = scipy.ndimage.map_coordinates(heights, np.meshgrid(y, x, indexing="ij"), order=1, mode="grid-wrap")
    spread = np.ptp(field)
    return (field - field.min()) / spread if spread else np.full(shape, 0.5)


def _refine(heights: Array, amplitude: float, random: np.random.Generator) -> Array:
    """Return heights (2 K, 2 K): even points are those of (K, K), and others are means of four neighbors, displaced."""
    size = 2 * len(heights)
    fine = np.zeros((size, size))
    fine[::2, ::2] = heights
    right, lower = np.roll(heights, -1, 1), np.roll(heights, -1, 0)
    middle = (heights + right + lower + np.roll(right, -1, 0)) / 4  # the diamond step
    fine[1::2, 1::2] = middle = middle + amplitude * random.uniform(-1, 1, heights.shape)
    horizontal = (heights + right + middle + np.roll(middle, 1, 0)) / 4  # the square step
    fine[::2, 1::2] = horizontal + amplitude * random.uniform(-1, 1, heights.shape)
    vertical = (heights + lower + middle + np.roll(middle, 1, 1)) / 4
    fine[1::2, ::2] = vertical + amplitude * random.uniform(-1, 1, heights.shape)
    return fine


def brighten(image: Array, severity: int, random: np.random.Generator) -> Array:  # noqa: ARG001
    """Return an image (H, W, C) whose value, the largest channel, is larger, with its hue and saturation (HSV)."""
    value = image.max(2, keepdims=True)
    brighter = np.minimum(value + LIGHT * severity, 1)
    bright: Array = np.where(value > 0, image * brighter / np.where(value > 0, value, 1), brighter)
    return bright
