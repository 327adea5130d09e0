"""What is doubtful about the test images that a model from elsewhere is asked about."""

from collections.abc import Iterator

import torch
from torch import Tensor

LEAST_IMAGES = 30
"""Fewer images say too little of a dataset."""

LEAST_BRIGHTEST = 128 / 255
"""The brightest pixel of many images, in [0, 1], up to which their scale is in doubt."""

LEAST_DISTINCT = 0.9
"""Share of images that have to differ from each other."""


def doubts_about_images(images: Tensor) -> Iterator[str]:
    """Yield what is doubtful about images (N, C, H, W) in [0, 1], to be read behind a name and a colon.

    Example:
        >>> list(doubts_about_images(torch.rand(100, 3, 8, 8) / 16))[0][:48]
        'the brightest pixel of 100 test images is 15.9 o'
    """
    count, brightest = len(images), float(images.max())
    if count < LEAST_IMAGES:
        return
    if 0 < brightest <= LEAST_BRIGHTEST:
        yield (
            f"the brightest pixel of {count} test images is {255 * brightest:.3g} of 255, as of numbers that were not "
            f"scaled to 0 to 255: eps is in units of that scale, and 8/255 is {8 / 255 / brightest:.0%} of their "
            "range. Scale the images of the data."
        )
    distinct = len(torch.unique(images.flatten(1), dim=0))
    if distinct < LEAST_DISTINCT * count:
        yield (
            f"only {distinct} of {count} test images are distinct: intervals count each as an image of its own, and "
            "are too narrow. Leave copies out of the data."
        )
