"""What lies between pixels in [0, 1] and a network that expects others: resizing and normalization."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Preprocess(nn.Module):
    """What lies between pixels in [0, 1] and a network: (pixels - mean) / deviation, after resizing where asked for.

    Args:
        mean, deviation: one number a channel, or one for all.
        size: height and width that images are resized to (bilinear, smoothed where they shrink), None for as they are.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, mean: tuple[float, ...], deviation: tuple[float, ...], size: int | None = None) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("mean", torch.tensor(mean)[:, None, None])
        self.register_buffer("deviation", torch.tensor(deviation)[:, None, None])

    def forward(self, images: Tensor) -> Tensor:
        if self.size is not None:
            images = F.interpolate(images, (self.size, self.size), mode="bilinear", antialias=True)
        pixels = (images - self.mean) / self.deviation
        return pixels.contiguous()  # a network may view its pixels in another shape

    def is_like(self, other: "Preprocess") -> bool:
        """Return whether another one normalizes alike."""
        differences = (self.mean - other.mean, self.deviation - other.deviation)
        return all(float(difference.abs().max()) < 1e-4 for difference in differences)
