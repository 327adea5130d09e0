"""Where attacks begin: uniform noise, from one generator or for each image from its index."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from interpret_robust.core.random_numbers import make_streams

Noise = Callable[[Tensor], Tensor]
"""Given images, uniform noise of their shape in [-1, 1)."""


def generator_noise(generator: torch.Generator) -> Noise:
    """Return a function from images (N, C, H, W) to noise of their shape, uniform in [-1, 1), from one generator.

    It is drawn on the generator's device, and float32 on that of the images.

    Example:
        >>> noise = ir.generator_noise(torch.Generator().manual_seed(0))
        >>> noise(torch.zeros(5, 3, 2, 4)).shape
        torch.Size([5, 3, 2, 4])
    """

    def draw(images: Tensor) -> Tensor:
        uniform = torch.rand(images.shape, generator=generator, device=generator.device)
        return (2 * uniform - 1).to(images.device)

    return draw


def per_image_noise(seed: int, indices: Sequence[int], purpose: int = 0) -> Noise:
    """Return a function from images (N, C, H, W) to noise of their shape, float32, uniform in [-1, 1).

    The noise of an image depends only on the seed, its index in its dataset and the purpose, all whole numbers from 0
    on; there is one index for each image. Rows of an analysis are then the same whatever the batch size and wherever a
    run was taken up again. Repeated calls go on in each image's own stream. Raises ValueError for negative numbers, and
    in a call for another number of images than there are indices.

    Example:
        >>> first, second = ir.per_image_noise(0, [7, 8]), ir.per_image_noise(0, [8, 9])
        >>> torch.equal(first(torch.zeros(2, 3, 2, 4))[1], second(torch.zeros(2, 3, 2, 4))[0])
        True
    """
    image_streams = make_streams(seed, indices, purpose)

    def draw(images: Tensor) -> Tensor:
        if len(images) != len(image_streams):
            raise ValueError(f"{len(images)} images, and {len(image_streams)} indices of images: give one for each.")
        rows = np.stack([stream.random(images.shape[1:], dtype=np.float32) for stream in image_streams])
        return (2 * torch.from_numpy(rows) - 1).to(images.device)

    return draw
