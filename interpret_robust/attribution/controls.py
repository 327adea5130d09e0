"""Maps that no trained model made: edges of the image, and scrambles of a map that keep part of it.

Random numbers come from one generator an image, so that no map depends on its batch.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Streams = Sequence[np.random.Generator]


def sobel(images: Tensor) -> Tensor:
    """Return the magnitude of the Sobel gradient of each color, (N, C, H, W), the border continued outwards."""
    kernel = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]], device=images.device)
    count, colors, height, width = images.shape
    padding = F.pad(images.reshape(count * colors, 1, height, width), (1, 1, 1, 1), mode="replicate")
    slopes = F.conv2d(padding, torch.stack([kernel, kernel.T])[:, None])
    return magnitude(slopes).reshape(images.shape)


def magnitude(vectors: Tensor) -> Tensor:
    """Return the L2 norm over the channels of float32 vectors (N, C, ...), float32 of shape (N, ...).

    On a CPU, `torch.linalg.vector_norm` takes 20 times as long if channels are not last in memory. The root is taken in
    double precision, since `torch.sqrt` does not give the nearest float32 of a fifth of all numbers (torch 2.14.1).
    """
    return vectors.square().sum(1).double().sqrt().float()


def shuffle_pixels(maps: Tensor, streams: Streams) -> Tensor:
    """Return the pixels of each map (N, C, H, W) in random order, the colors of a pixel together."""
    orders = np.stack([stream.permutation(maps[0, 0].numel()) for stream in streams])
    places = torch.from_numpy(orders).to(maps.device)[:, None].expand(-1, maps.shape[1], -1)
    return maps.flatten(2).gather(2, places).reshape(maps.shape)


def randomize_phases(maps: Tensor, streams: Streams) -> Tensor:
    """Return each map (N, C, H, W) with its power spectrum and its colors' relation, and random phases.

    The phases of white noise are added, the same to all colors (Theiler et al. 1992, in two dimensions). The mean
    of each color stays as it is: it has no phase but a sign, and the sign of maps is what is asked about.
    """
    noise = np.stack([stream.standard_normal(maps.shape[2:], dtype=np.float32) for stream in streams])
    spectrum = torch.fft.rfft2(torch.from_numpy(noise).to(maps.device))
    turns = (spectrum / spectrum.abs().clamp_min(torch.finfo(torch.float32).tiny))[:, None]
    turns[..., 0, 0] = 1
    phases_turned: Tensor = torch.fft.irfft2(torch.fft.rfft2(maps) * turns, s=maps.shape[2:])
    return phases_turned
