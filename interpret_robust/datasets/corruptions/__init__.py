"""The fifteen corruptions of Hendrycks & Dietterich 2019 (https://arxiv.org/abs/1903.12261), of our own making.

Each follows what the paper says of it. The paper prints no constants, and its published images were made by constants
of their own, one set for CIFAR-10 and one for ImageNet. So numbers on our images are not those on CIFAR-10-C or
ImageNet-C: where these files are at hand, `CIFAR-10-C:fog:3` is a dataset, see `datasets.cifar_c`.

One rule gives all strengths. What is a length (a radius, a streak, a zoom, a displacement, the size of a flake or of a
cloud) is a share of the image's shorter side, so that a picture of 32 pixels and one of 224 look alike. What is an
amplitude (noise, light, contrast) is the same at any size. Pixelation and JPEG act on the pixels there are: the
resolution that is left is a share of the image's own, and JPEG's blocks are 8 pixels wide.

The random numbers of an image are the same at all severities: stronger fog is the same fog, and thicker.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from interpret_robust.core.arrays import Array
from interpret_robust.core.errors import UserError, unknown
from interpret_robust.core.random_numbers import make_streams
from interpret_robust.datasets.cifar_c import SEVERITIES
from interpret_robust.datasets.corruptions import blur, digital, noise, weather

Corruption = Callable[[Array, int, np.random.Generator], Array]
"""What takes an image (H, W, C) in [0, 1], a severity and random numbers, and gives an image to be clipped."""

CORRUPTIONS: Mapping[str, Corruption] = {
    "gaussian_noise": noise.add_gaussian_noise,
    "shot_noise": noise.add_shot_noise,
    "impulse_noise": noise.add_impulse_noise,
    "defocus_blur": blur.defocus,
    "glass_blur": blur.scatter,
    "motion_blur": blur.streak,
    "zoom_blur": blur.zoom,
    "snow": weather.add_snow,
    "frost": weather.add_frost,
    "fog": weather.add_fog,
    "brightness": weather.brighten,
    "contrast": digital.lower_contrast,
    "elastic_transform": digital.distort,
    "pixelate": digital.pixelate,
    "jpeg_compression": digital.compress,
}
"""The corruptions by their published names, in the order of the paper's groups."""

PURPOSE = 60
"""Of the first corruption's random numbers; the others follow."""


def corrupt(image: Array, name: str, severity: int, random: np.random.Generator) -> Array:
    """Return a corrupted image (H, W, C) float32 in [0, 1].

    Args:
        image: pixels (H, W, C) in [0, 1], of any size and number of channels.
        name: one of CORRUPTIONS.
        severity: 1 to 5.
        random: what the corruption draws from.

    Raises UserError for another corruption or severity, and for an array of another shape.

    Example:
        >>> corrupt(np.full((1, 2, 1), 0.5), "brightness", 3, np.random.default_rng(0)).ravel()
        array([0.8, 0.8], dtype=float32)
    """
    if name not in CORRUPTIONS:
        raise unknown("corruption", name, CORRUPTIONS)
    if severity not in range(1, SEVERITIES + 1):
        raise UserError(f"the severity is {severity}, and must be 1 to {SEVERITIES}.")
    if image.ndim != 3 or not image.size:
        raise UserError(f"an image to corrupt has shape {image.shape}, and must have height, width and channels.")
    result = CORRUPTIONS[name](image.astype(np.float64), severity, random)
    return result.clip(0, 1).astype(np.float32)


def corrupt_images(images: Array, name: str, severity: int, seed: int, indices: Sequence[int]) -> Array:
    """Return corrupted images (N, H, W, C), each a function of the image, its index, the seed and the corruption alone.

    Args:
        images: pixels (N, H, W, C) in [0, 1].
        seed, indices: of the random numbers; `indices` are the images' places in their dataset.

    Raises UserError as `corrupt` does.
    """
    if name not in CORRUPTIONS:
        raise unknown("corruption", name, CORRUPTIONS)
    generators = make_streams(seed, indices, PURPOSE + list(CORRUPTIONS).index(name))
    return np.stack([corrupt(image, name, severity, random) for image, random in zip(images, generators, strict=True)])
