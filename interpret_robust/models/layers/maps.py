"""Local features (N, C, H, W) in the output of a layer, whatever its form: a grid, channels last, or tokens."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class Map(NamedTuple):
    """Local features (N, C, H, W) in a layer's output, and how to put others in their place there."""

    local: Tensor
    put_back: Callable[[Tensor], Tensor]


def as_map(
    output: Any, aspect: float, prefix: int | None = None, first: int | None = None, *, is_last: bool = False
) -> Map | None:
    """Return the local features in what a layer gave, None where it gave none.

    They are (N, C, H, W), or (N, H, W, C), or (N, T, C) with H*W tokens of the image among its T tokens. Of the first
    two the one with the shape of the images is taken: `aspect` is height over width. Where both have it, (N, C, H, W)
    is taken.

    Args:
        output: what the layer gave.
        aspect: height over width of the images.
        prefix: how many tokens the network says it puts before those of the image. Layers before it does so, or that
            leave these tokens out, give those of the image alone. None where it does not say: the last tokens that fill
            a grid of that shape are taken to be of the image.
        first: number of the first token of the image where that is known: the largest grid from there on is taken.
        is_last: whether (N, H, W, C) is taken where both have the shape of the images.
    """
    if not isinstance(output, Tensor) or not output.is_floating_point():
        return None
    if output.ndim == 4:
        return _from_grid(output, aspect, is_last=is_last)
    return (
        _from_tokens(output, find_first_token(output.shape[1], aspect, prefix, first), aspect)
        if output.ndim == 3
        else None
    )


def _from_grid(output: Tensor, aspect: float, *, is_last: bool) -> Map | None:
    rows, columns, last = output.shape[1:]
    if _fits(columns, last, aspect) and not (is_last and _fits(rows, columns, aspect)):
        return Map(output, lambda local: local)
    if _fits(rows, columns, aspect):
        return Map(output.permute(0, 3, 1, 2), lambda local: local.permute(0, 2, 3, 1).contiguous())
    return None


def has_two_readings(output: Any, aspect: float) -> bool:
    """Return whether what a layer gave has the shape of the images as (N, C, H, W) and as (N, H, W, C)."""
    if not isinstance(output, Tensor) or output.ndim != 4:
        return False
    rows, columns, last = output.shape[1:]
    return _fits(rows, columns, aspect) and _fits(columns, last, aspect)


def find_first_token(count: int, aspect: float, prefix: int | None, first: int | None) -> int:
    """Return the number of the first token of the image among `count` tokens, `count` where there is none."""
    if first is not None:
        return first
    if prefix is None:
        height, width = find_largest_grid(count, aspect)
        return count - height * width
    for prefix_length in (prefix, 0):
        height, width = find_largest_grid(count - prefix_length, aspect)
        if prefix_length + height * width == count:
            return prefix_length
    return count


def find_largest_grid(tokens: int, aspect: float) -> tuple[int, int]:
    """Return height and width of the largest grid of the images' shape that so many tokens fill; zeros for none."""
    height = int((max(tokens, 0) * aspect) ** 0.5 + 1e-6)
    width = round(height / aspect)
    return (height, width) if 1 <= height * width <= tokens else (0, 0)


def _fits(height: int, width: int, aspect: float) -> bool:
    """Return whether a grid has the shape of the images, up to what strides cut off."""
    return min(height, width) > 0 and abs(height - aspect * width) < 1


def _from_tokens(output: Tensor, first: int, aspect: float) -> Map | None:
    height, width = find_largest_grid(output.shape[1] - first, aspect)
    end = first + height * width
    if end == first:
        return None

    def put_back(local: Tensor) -> Tensor:
        return torch.cat([output[:, :first], local.flatten(2).transpose(1, 2), output[:, end:]], 1)

    return Map(output[:, first:end].transpose(1, 2).reshape(*output.shape[::2], height, width), put_back)


def count_prefix_tokens(network: nn.Module) -> int | None:
    """Return how many tokens come before those of the image, where the network says so, as timm's do."""
    count = getattr(network, "num_prefix_tokens", None)
    return count if isinstance(count, int) else None
