"""Blur: each pixel is the mean of the image over shifts, or the image at a random one.

Between pixels the image is linear in each direction, so that a shift of less than a pixel blurs too. Beyond its edges
it is mirrored. Lengths are shares of the shorter side, times the severity.
"""

import numpy as np
import scipy

from interpret_robust.core.arrays import AnyArray, Array

RADIUS, POINTS = 0.01, 1000
"""Of the disk that a point out of focus becomes, and the points that stand for it."""

SCATTER, SMOOTHING = 0.015, 0.25
"""How far frosted glass scatters, and the deviation of the smoothing that follows, as a share of that."""

STREAK = 0.04
"""Length of the way that the camera moves."""

ZOOM = 0.06
"""By how much the last image is enlarged, times the severity."""


def shorter_side(image: Array) -> int:
    """Return the shorter side of an image (H, W, C), in pixels."""
    side: int = min(image.shape[:2])
    return side


def average(image: Array, shifts: Array) -> Array:
    """Return the mean of an image (H, W, C) over shifts (K, 2) in pixels, down and right."""
    reach = int(np.ceil(np.abs(shifts).max()))
    places = np.arange(-reach, reach + 1)
    vertical, horizontal = (_weights(places, steps) for steps in shifts.T)
    mean: Array = scipy.ndimage.correlate(image, (vertical.T @ horizontal / len(shifts))[..., None], mode="reflect")
    return mean


def _weights(places: AnyArray, positions: Array) -> Array:
    """Return what each place (P,) counts in a linear interpolation at each position (K,): (K, P)."""
    weights: Array = (1 - np.abs(positions[:, None] - places)).clip(0)
    return weights


def shift_pixels(image: Array, shifts: Array) -> Array:
    """Return an image (H, W, C) of which each pixel is shown from elsewhere, by its shift (2, H, W) down and right."""
    positions = np.indices(image.shape[:2]) + shifts
    channels = [
        scipy.ndimage.map_coordinates(channel, positions, order=1, mode="reflect")
        for channel in np.moveaxis(image, 2, 0)
    ]
    return np.stack(channels, axis=2)


def disk(radius: float) -> Array:
    """Return points (POINTS, 2) spread evenly over a disk: a spiral whose turns are the golden angle."""
    turn = np.arange(POINTS) * np.pi * (3 - np.sqrt(5))
    distance = radius * np.sqrt((np.arange(POINTS) + 0.5) / POINTS)
    return np.stack([distance * np.sin(turn), distance * np.cos(turn)], axis=1)


def segment(length: float, angle: float) -> Array:
    """Return points (K, 2) on a line about the origin, at most half a pixel apart; at angle 0 it lies to the right."""
    steps = np.linspace(-length / 2, length / 2, 2 * int(np.ceil(length)) + 1)
    return np.stack([steps * np.sin(angle), steps * np.cos(angle)], axis=1)


def defocus(image: Array, severity: int, random: np.random.Generator) -> Array:  # noqa: ARG001
    """Return an image (H, W, C) out of focus: the mean over a disk."""
    return average(image, disk(RADIUS * severity * shorter_side(image)))


def scatter(image: Array, severity: int, random: np.random.Generator) -> Array:
    """Return an image (H, W, C) behind frosted glass: each pixel shows a random point of a disk about it, smoothed."""
    reach = SCATTER * severity * shorter_side(image)
    distance, turn = np.sqrt(random.random(image.shape[:2])), 2 * np.pi * random.random(image.shape[:2])
    jumble = shift_pixels(image, reach * distance * np.stack([np.sin(turn), np.cos(turn)]))
    smooth: Array = scipy.ndimage.gaussian_filter(jumble, (SMOOTHING * reach, SMOOTHING * reach, 0), mode="reflect")
    return smooth


def streak(image: Array, severity: int, random: np.random.Generator) -> Array:
    """Return an image (H, W, C) by a camera that moves on a straight line, in a random direction."""
    return average(image, segment(STREAK * severity * shorter_side(image), np.pi * random.random()))


def zoom(image: Array, severity: int, random: np.random.Generator) -> Array:  # noqa: ARG001
    """Return the mean of an image (H, W, C) over enlargements about its center, from none to the largest.

    At the edge of the longer side one is at most a pixel from the next.
    """
    largest = 1 + ZOOM * severity
    steps = int(np.ceil(max(image.shape[:2]) / 2 * (1 - 1 / largest)))
    enlargements = [
        np.einsum(
            "ya,abc,xb->yxc",
            *(_enlargement(image.shape[0], factor), image, _enlargement(image.shape[1], factor)),
            optimize=True,
        )
        for factor in np.linspace(1, largest, steps + 1)
    ]
    mean: Array = np.mean(enlargements, axis=0)
    return mean


def _enlargement(side: int, factor: float) -> Array:
    """Return the matrix (side, side) that enlarges a row of pixels about its center."""
    center = (side - 1) / 2
    return _weights(np.arange(side), center + (np.arange(side) - center) / factor)
