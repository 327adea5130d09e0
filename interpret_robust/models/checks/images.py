"""What is doubtful about the test images that a model from elsewhere is asked about."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from interpret_robust.datasets import Split
from interpret_robust.datasets.base import Labels

LEAST_IMAGES = 30
"""Fewer images say too little of a dataset."""

LEAST_BRIGHTEST = 128
"""The brightest pixel of many images, of 255, up to which their scale is in doubt."""

MOST_COMPARED = 10_000
"""Images of a split among which copies are looked for."""

LEAST_DISTINCT = 0.9
"""Share of images that have to differ from each other."""


def list_image_doubts(images: Tensor, labels: Labels, split: Split) -> Iterator[str]:
    """Yield what is doubtful about images, to be read behind a name and a colon.

    Args:
        images: (N, C, H, W) in [0, 1], drawn from the split.
        labels: theirs, (N,).
        split: whose images, MOST_COMPARED at most, are compared where they are in memory.

    Example:
        >>> list(list_image_doubts(images, labels, data.test))
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
    if isinstance(split.images, np.ndarray):
        all_images, labels = split.images[:MOST_COMPARED], split.labels[:MOST_COMPARED]
    else:
        all_images = images.permute(0, 2, 3, 1).cpu().numpy()
    distinct_count = _count_distinct(all_images, labels)
    if distinct_count < LEAST_DISTINCT * len(all_images):
        yield (
            f"only {distinct_count} of {len(all_images)} test images are distinct, mirror images left out: intervals "
            "count each as an image of its own, and are too narrow. Leave copies out of the data."
        )


def _count_distinct(images: npt.NDArray[Any], labels: Labels) -> int:
    """Return how many images (N, H, W, C) there are but for copies, and mirror images of one label (N,)."""
    hashes = [(hash(image.tobytes()), hash(image[:, ::-1].tobytes())) for image in images]
    pairs = {(frozenset(pair), label) for pair, label in zip(hashes, labels.tolist(), strict=True)}
    return min(len(pairs), len({first for first, _ in hashes}))
