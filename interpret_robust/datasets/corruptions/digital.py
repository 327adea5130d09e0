"""What happens to a picture after it was taken: contrast, distortion, resolution, compression."""

import io

import numpy as np
import scipy
from PIL import Image

from interpret_robust.core.arrays import AnyArray, Array
from interpret_robust.core.cells import average_cells
from interpret_robust.datasets.corruptions.blur import shift_pixels, shorter_side

CONTRAST = 0.7
"""The contrast that is left, to the power of the severity."""

DISPLACEMENT, REGION = 0.006, 1 / 16
"""The displacement (root mean square), times the severity, and the deviation of what smooths it; in shorter sides."""

RESOLUTION = 0.13
"""Share of the rows and columns that are lost, times the severity."""

QUALITY = 75
"""Of JPEG, over the severity."""


def lower_contrast(image: Array, severity: int, random: np.random.Generator) -> Array:  # noqa: ARG001
    """Return an image (H, W, C) whose channels are nearer to their means."""
    mean = image.mean((0, 1))
    flat: Array = mean + CONTRAST**severity * (image - mean)
    return flat


def distort(image: Array, severity: int, random: np.random.Generator) -> Array:
    """Return an image (H, W, C) whose small regions are stretched and contracted (Simard, Steinkraus & Platt 2003).

    Displacements down and right are uniform noise, smoothed by a Gaussian and scaled to their root mean square.
    """
    side = shorter_side(image)
    field = random.uniform(-1, 1, (2, *image.shape[:2]))
    smooth = scipy.ndimage.gaussian_filter(field, (0, REGION * side, REGION * side), mode="reflect")
    return shift_pixels(image, DISPLACEMENT * severity * side * smooth / np.sqrt((smooth**2).mean()))


def pixelate(image: Array, severity: int, random: np.random.Generator) -> Array:  # noqa: ARG001
    """Return an image (H, W, C) of fewer pixels, means over their areas, enlarged to its size by the nearest one."""
    shape = image.shape[:2]
    height, width = (max(1, round(side * (1 - RESOLUTION * severity))) for side in shape)
    small = average_cells(np.moveaxis(image, 2, 0), (height, width))
    rows, columns = (
        (2 * np.arange(side) + 1) * cells // (2 * side) for side, cells in zip(shape, (height, width), strict=True)
    )
    return np.moveaxis(small[:, rows[:, None], columns], 0, 2)


def compress(image: Array, severity: int, random: np.random.Generator) -> Array:  # noqa: ARG001
    """Return an image (H, W, C) that was stored as JPEG: of three channels in color, of others each as a gray one."""
    pixels = np.rint(255 * image).astype(np.uint8)
    parts = [pixels] if image.shape[2] == 3 else np.split(pixels, image.shape[2], axis=2)
    return np.concatenate([_store(part, round(QUALITY / severity)) for part in parts], axis=2) / 255


def _store(pixels: AnyArray, quality: int) -> AnyArray:
    """Return pixels (H, W, 3) or (H, W, 1) of bytes as they are read again."""
    file = io.BytesIO()
    Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[..., 0]).save(file, "JPEG", quality=quality)
    with Image.open(file) as picture:
        return np.atleast_3d(np.asarray(picture))
