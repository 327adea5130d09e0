"""On which pixels the positions of a layer depend, and what that says of where in the image they lie."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from interpret_robust.models.layers.hooks import take_output
from interpret_robust.models.layers.maps import as_map, count_prefix_tokens
from interpret_robust.models.preprocess import Preprocess

LEAST_LOCALITY = 0.75
"""The threshold for tokens and for many positions on a grid, see `Choice`.

Networks of torchvision and timm and those trained here lie well above; behind a forward that mirrors, rolls or
transposes images most positions that see far lie below. No file was kept of these numbers.
"""

LEAST_OF_FEW = 1.0
"""The threshold for few positions on a grid, of which each has to lie in the cell that it suits best."""

CLEAR_ERRORS, CLEAR_GAIN = 4.0, 0.1
"""By how much another order has to suit few positions better than that of the image: by so many standard errors, and
by this share of what a position depends on.
"""

LEAST_POSITIONS = 9
"""Of a grid of fewer positions their order is looked at, see `Dependence.locality`."""

LEAST_PLACES = 3
"""Rows or columns of positions that tell how far apart they are."""

ROUNDING = 1e-4
"""Share of what a position depends on by which a copy of it may differ, by rounding."""

SAMPLE_SIZE = 16
"""Positions whose dependence on pixels is measured."""

GOLDEN = 0.6180339887
"""A step around a circle whose multiples lie evenly."""

OFF_AXES = ((0.1, 0.3), (0.9, 0.7), (0.3, 0.9), (0.7, 0.1))
"""Places in a grid, as shares of its rows and columns, that mirroring, turning and transposing move far."""

LEAST_IN_PLACE = 0.5
"""Share of other cells on which a position has to depend less than on its own, on one image.

Of 16 networks trained here each position did, on each of eight images, on more than 0.6. No file was kept of this.
"""


class Dependence(NamedTuple):
    """On which pixels a sample of positions depends.

    `strength` (M, H, W) is how much position `sample[m]` of a grid (rows, columns) depends on each pixel.
    """

    strength: Tensor
    sample: Tensor
    grid: tuple[int, int]

    @property
    def is_repeated(self) -> bool:
        """Return whether each position was measured several times: they are few."""
        return len(self.sample) > math.prod(self.grid)

    @property
    def cells(self) -> Tensor:
        """Return how much the positions depend on each cell of the grid, (M, cells)."""
        return F.adaptive_avg_pool2d(self.strength[:, None], self.grid).flatten(1)

    def locality(self) -> float:
        """Return the share of other cells on which a position depends less than on its own, see `Choice`.

        Of a grid of few positions it is the share of positions that lie in the cell that they suit best, NaN unless
        some clearly lie in another.
        """
        if self.is_repeated:
            cells = self.cells
            return _share_in_place(cells.reshape(-1, cells.shape[1], cells.shape[1]))
        return float(self.shares().nanmean())

    def shares(self) -> Tensor:
        """Return the share of other cells on which each position depends less than on its own (M,), NaN for none."""
        cells = self.cells
        shares = (cells < cells.gather(1, self.sample[:, None])).sum(1) / (cells.shape[1] - 1)
        return torch.where(cells.sum(1) > 0, shares, torch.nan)

    def astray_share(self) -> float:
        """Return the share of positions that depend on their own cell less than half as much as on another, and less
        than on most; 0 of a grid of few positions.
        """
        if self.is_repeated:
            return 0.0
        cells = self.cells
        own = cells.gather(1, self.sample[:, None])[:, 0]
        is_astray = (self.shares() < LEAST_IN_PLACE) & (2 * own < cells.amax(1))
        return float(is_astray.float().mean())

    def copy_share(self) -> float:
        """Return the share of positions that depend on each pixel exactly as much as one before them does.

        Those that depend on no pixel are left out.
        """
        strengths = self.strength[: math.prod(self.grid)].flatten(1)
        strengths = strengths[strengths.any(1)]
        is_alike = torch.cdist(strengths, strengths, p=1) <= ROUNDING * strengths.sum(1)
        return float(is_alike.tril(-1).any(1).float().mean()) if len(strengths) else 0.0

    def stretch(self) -> tuple[float, float]:
        """Return by which factor rows and columns lie farther apart than in a grid over the image; NaN where unknown.

        How far apart positions are is told by the middles of what they depend on, of those positions that depend on as
        many lines of pixels as any: others are cut off by the edge of the image, or by rectifiers.
        """
        places = self.sample // self.grid[1], self.sample % self.grid[1]
        rows, columns = (
            _stretch(self.strength.sum(2 - axis), places[axis], length) for axis, length in enumerate(self.grid)
        )
        return rows, columns


def _share_in_place(cells: Tensor) -> float:
    """Return the share of positions in the cell that they suit best, NaN unless some clearly lie in another.

    `cells` (repeats, positions, cells) are what positions depend on. The order that suits one half of the repeats best
    is judged by the other half: it has to suit each of them better than the order of the image, and on average by four
    standard errors and a tenth of what one position depends on. Cells that all positions depend on, and positions that
    depend on all cells alike, suit each order as well.
    """
    shares = (cells / cells.sum(2, keepdim=True).clamp_min(1e-30)).double().cpu()
    half, positions = len(shares) // 2, range(shares.shape[1])
    order = scipy.optimize.linear_sum_assignment(shares[:half].mean(0).numpy(), maximize=True)[1]
    gains = (shares[half:, positions, order] - shares[half:, positions, positions]).sum(1)
    error = float(gains.std()) / len(gains) ** 0.5
    is_clear = bool((gains > 0).all()) and float(gains.mean()) > max(CLEAR_ERRORS * error, CLEAR_GAIN)
    return float((order == np.arange(len(order))).mean()) if is_clear else float("nan")


def _stretch(size: Tensor, places: Tensor, length: int) -> float:
    """Return the factor of `stretch` along one axis of `length` positions, from sizes (M, pixels) at places (M,)."""
    pixels = size.shape[1]
    has_effect = size > 0
    first = has_effect.int().argmax(1)
    last = pixels - 1 - has_effect.int().flip(1).argmax(1)
    extent = torch.where(has_effect.any(1), last - first + 1, 0)
    is_whole = extent == extent.max()
    lines = int(has_effect.any(0).sum())  # that any position sees
    if int(extent.max()) >= lines or len(set(places[is_whole].tolist())) < LEAST_PLACES:
        return float("nan")
    x, middle = (values[is_whole].double() for values in (places, (first + last) / 2))
    x, middle = x - x.mean(), middle - middle.mean()
    return float((x * middle).sum() / x.square().sum()) * length / pixels


def measure_dependence(
    network: nn.Module,
    preprocess: Preprocess,
    image: Tensor,
    name: str,
    output: Any,
    first: int | None = None,
    *,
    is_last: bool = False,
) -> Dependence | None:
    """Return on which pixels positions of a layer depend; None where that cannot be told, or there is one only.

    By the size of the gradient of a position's features, summed over channels with random signs. A sample of
    SAMPLE_SIZE positions is measured, each on a copy of the image (1, C, H, W), in one pass; few positions are
    measured several times, each time on a copy with noise of its own. `output` is what the layer gave for the image.
    """
    pixels = preprocess(image)
    aspect, prefix = pixels.shape[2] / pixels.shape[3], count_prefix_tokens(network)
    local_map = as_map(output, aspect, prefix, first, is_last=is_last)
    if local_map is None or (places := local_map.local[0, 0].numel()) < 2:
        return None
    height, width = local_map.local.shape[2:]
    sample = sample_positions(height, width).to(image.device)
    generator = torch.Generator().manual_seed(0)
    copies, repeats = image.expand(len(sample), -1, -1, -1), 1
    if output.ndim == 4 and places < LEAST_POSITIONS:
        repeats = 2 * SAMPLE_SIZE // places
        sample = sample.repeat(repeats)
        noise = torch.rand((repeats, *image.shape[1:]), generator=generator).to(image).repeat_interleave(places, 0)
        copies = (image + noise) / 2

    def ask(images: Tensor) -> Tensor | None:
        feature_map = as_map(take_output(network, preprocess, images, name), aspect, prefix, first, is_last=is_last)
        return feature_map and feature_map.local

    strength = _measure_positions(ask, copies, sample, repeats)
    return None if strength is None else Dependence(strength, sample, (height, width))


def _measure_positions(
    ask: Callable[[Tensor], Tensor | None], images: Tensor, sample: Tensor, repeats: int = 1
) -> Tensor | None:
    """Return how much a position of each of images (M, C, H, W) depends on its pixels, (M, H, W); None for no gradient.

    `ask` gives the local features of images, None where these have none; `sample` (M,) are the numbers of positions,
    which are there `repeats` times.
    """
    generator = torch.Generator().manual_seed(0)

    def project(pixels: Tensor) -> Tensor | None:
        local = ask(pixels)
        if local is None or len(local) != len(sample):
            return None
        signs = torch.randint(0, 2, (repeats, local.shape[1]), generator=generator).to(images) * 2 - 1
        features = local.float().flatten(2)[range(len(sample)), :, sample]
        return features * signs.repeat_interleave(len(sample) // repeats, 0)

    return _measure_pixels(project, images)


def _measure_pixels(project: Callable[[Tensor], Tensor | None], images: Tensor) -> Tensor | None:
    """Return how much the sum of what `project` gives depends on each pixel of images (N, C, H, W), (N, H, W).

    None where it gives nothing, or nothing that has a gradient.
    """
    pixels = images.clone().requires_grad_()
    with torch.enable_grad():
        numbers = project(pixels)
        if numbers is None or not numbers.requires_grad:
            return None
        (gradient,) = torch.autograd.grad(numbers.sum(), pixels, allow_unused=True)
    return None if gradient is None else gradient.abs().sum(1)


def count_turned(ask: Callable[[Tensor], Tensor], images: Tensor) -> int:
    """Return on how many images (N, C, H, W) positions depend more on pixels elsewhere than on their own.

    One position of each image is looked at, and three more where it seems so. A position whose own pixels no position
    depends on, such as those that a network clamps, is left out. `ask` gives the local features of images. Of a grid of
    fewer than LEAST_POSITIONS nothing is told.

    Example:
        >>> count_turned(lambda images: model.features(images).local, images)
        0
    """

    def shares(images: Tensor, place: tuple[float, float]) -> Tensor:
        place_number = int(place[0] * grid[0]) * grid[1] + int(place[1] * grid[1])
        sample = torch.full((len(images),), place_number, device=images.device)
        strength = _measure_positions(ask, images, sample)
        return torch.ones(len(images)) if strength is None else Dependence(strength, sample, grid).shares().cpu()

    with torch.no_grad():
        height, width = ask(images[:1]).shape[2:]
    grid = height, width
    if height * width < LEAST_POSITIONS:
        return 0
    is_elsewhere = shares(images, OFF_AXES[0]) < LEAST_IN_PLACE
    if not is_elsewhere.any():
        return 0
    suspects = images[is_elsewhere.to(images.device)]
    gradients = measure_all_pixels(ask, suspects)
    cells = torch.ones(len(suspects), *grid) if gradients is None else F.adaptive_avg_pool2d(gradients, grid).cpu()
    judged_shares = [
        torch.where(cells[:, int(row * height), int(column * width)] > 0, shares(suspects, (row, column)), torch.nan)
        for row, column in OFF_AXES
    ]
    return int((torch.stack(judged_shares).nanmean(0) < LEAST_IN_PLACE).sum())


def measure_all_pixels(ask: Callable[[Tensor], Any], images: Tensor) -> Tensor | None:
    """Return how much all that `ask` gives depends on each pixel of images (N, C, H, W), (N, H, W); None for nothing.

    By the size of the gradient of its sum with random signs, the same for each image.
    """

    def project(pixels: Tensor) -> Tensor | None:
        output = ask(pixels)
        if not isinstance(output, Tensor):
            return None
        signs = torch.randint(0, 2, output.shape[1:], generator=torch.Generator().manual_seed(0)).to(output) * 2 - 1
        return output.float() * signs

    return _measure_pixels(project, images)


def sample_positions(height: int, width: int) -> Tensor:
    """Return the numbers of SAMPLE_SIZE positions of a grid, or a few less, or all if they are fewer.

    They are spread over rows and over columns, and on no line to which a mirrored or transposed grid is symmetric.

    Example:
        >>> sample_positions(2, 3)
        tensor([0, 1, 2, 3, 4, 5])
    """
    if height * width <= SAMPLE_SIZE:
        return torch.arange(height * width)
    places = torch.arange(SAMPLE_SIZE) + 0.5
    rows, columns = places / SAMPLE_SIZE * height, places * GOLDEN % 1 * width
    numbers: Tensor = torch.unique(rows.long() * width + columns.long())
    return numbers
