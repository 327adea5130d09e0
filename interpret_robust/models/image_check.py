"""What is doubtful about the test images that a model from elsewhere is asked about."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from interpret_robust.datasets import Split

LEAST_IMAGES = 30
"""Fewer images say too little of a dataset."""

LEAST_BRIGHTEST = 128
"""The brightest pixel of many images, of 255, up to which their scale is in doubt."""

MOST_COMPARED = 10_000
"""Images of a split among which copies are looked for."""

LEAST_DISTINCT = 0.9
"""Share of images that have to differ from each other."""


def doubts_about_images(images: Tensor, split: Split) -> Iterator[str]:
    """Yield what is doubtful about images, to be read behind a name and a colon.

    Args:
        images: (N, C, H, W) in [0, 1], drawn from the split.
        split: whose images, MOST_COMPARED at most, are compared where they are in memory.

    Example:
        >>> list(doubts_about_images(images, data.test))
        []
    """
    count, brightest = len(images), round(255 * float(images.max()))
    if count < LEAST_IMAGES:
        return
    if 0 < brightest <= LEAST_BRIGHTEST:
        yield (
            f"the brightest pixel of {count} test images is {brightest} of 255, as of numbers that were not scaled to "
            f"0 to 255: eps is in units of that scale, and 8/255 is {8 / brightest:.0%} of their range. Scale the "
            "images of the data, unless they are that dark."
        )
    all_images = split.images[:MOST_COMPARED] if isinstance(split.images, np.ndarray) else images.cpu().numpy()
    width_axis = -2 if isinstance(split.images, np.ndarray) else -1  # bytes are (N, H, W, C), pixels (N, C, H, W)
    distinct_count = len({_hash(image, width_axis) for image in all_images})
    if distinct_count < LEAST_DISTINCT * len(all_images):
        yield (
            f"only {distinct_count} of {len(all_images)} test images are distinct, mirror images left out: intervals "
            "count each as an image of its own, and are too narrow. Leave copies out of the data."
        )


def _hash(image: npt.NDArray[Any], width_axis: int) -> int:
    """Return a number that an image has in common with its mirror image alone."""
    return hash(frozenset((image.tobytes(), np.flip(image, width_axis).tobytes())))
