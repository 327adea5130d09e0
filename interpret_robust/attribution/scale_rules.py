"""How a signed gradient map becomes an image that a classifier, or a person, can look at.

All rules send a map g of shape (C, H, W) to [0, 1] and -g to its negative, 1 - v. A map that is zero everywhere
becomes gray (1/2): it is degenerate, and counted where maps are counted. The rules of a single map (all but
`clip-set`) do not see its size: g and c g give the same image for any c > 0.
"""

from collections.abc import Iterable, Sequence
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

Rule = Literal["clip", "clip-set", "max", "min-max"]
RULES: tuple[Rule, ...] = get_args(Rule)
CLIP_AT = 3.0
"""Standard deviations (the paper's Figure 4), of all entries of a map about their mean."""


def as_image(maps: Tensor, rule: Rule, set_deviation: float) -> Tensor:
    """Return maps (N, C, H, W) as images in [0, 1].

    `clip`: clipped to 3 standard deviations of a map's own entries about zero, then 1/2 + g / (6 sd). `clip-set`: the
    same with `set_deviation`, that of the entries of all maps. `max`: 1/2 + g / (2 max|g|), raw with zero gray.
    `min-max`: (g - min) / (max - min), raw, each map fills [0, 1].
    """
    unit, largest = scale_maps(maps)
    match rule:
        case "clip":
            return _center(unit, CLIP_AT * measure_deviation(unit))
        case "clip-set":
            return _center(maps, torch.full_like(largest, CLIP_AT * set_deviation))
        case "max":
            return 0.5 + 0.5 * unit
        case "min-max":
            low, high = unit.flatten(1).amin(1), unit.flatten(1).amax(1)
            span = _column(high - low)
            return torch.where(span > 0, (unit - _column(low)) / span, 0.5)


def scale_maps(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Return maps (N, C, H, W) divided by their largest magnitude, and these magnitudes (N,); zero maps stay zero.

    What is computed from the quotient is safe from underflow: squares of the gradients of a sure network are not.
    """
    largest = maps.abs().flatten(1).amax(1)
    return torch.where(_column(largest) > 0, maps / _column(largest), 0.0), largest


def measure_deviation(maps: Tensor) -> Tensor:
    """Return the standard deviation (N,) of the entries of each map (N, C, H, W) about their mean."""
    return maps.flatten(1).std(1, correction=0)


def sum_moments(maps: Tensor) -> tuple[float, float, int]:
    """Return sum, sum of squares and number of the entries of maps; sums are in float64."""
    entries = maps.double()
    return float(entries.sum()), float(entries.square().sum()), entries.numel()


def pool_deviations(of_batches: Iterable[Sequence[float]]) -> float:
    """Return the standard deviation of all entries of all maps, from the `sum_moments` of each batch."""
    total, squares, count = (sum(map(float, column)) for column in zip(*of_batches, strict=True))
    return float(np.sqrt(max(0.0, squares / count - (total / count) ** 2)))


def find_degenerate(maps: Tensor) -> Tensor:
    """Return which maps (N, C, H, W) are zero everywhere: (N,) bool."""
    return (maps == 0).flatten(1).all(1)


def _center(maps: Tensor, bound: Tensor) -> Tensor:
    """Return 1/2 + g / (2 bound), clipped to [0, 1]; gray where the bound (N,) is zero."""
    wide = _column(bound)
    return torch.where(wide > 0, 0.5 + 0.5 * (maps / wide).clamp(-1, 1), 0.5)


def _column(values: Tensor) -> Tensor:
    return values[:, None, None, None]
