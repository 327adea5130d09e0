"""Choose the layer whose output are the local features, and how it is read."""

import math
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from interpret_robust.models.layers.dependence import (
    LEAST_LOCALITY,
    LEAST_OF_FEW,
    Dependence,
    measure_all_pixels,
    measure_dependence,
)
from interpret_robust.models.layers.hooks import sees_all, take_output
from interpret_robust.models.layers.listing import has_images, list_layers
from interpret_robust.models.layers.maps import (
    count_prefix_tokens,
    find_first_token,
    find_largest_grid,
    has_two_readings,
)
from interpret_robust.models.preprocess import Preprocess


class Choice(NamedTuple):
    """The layer that is taken, how its tokens are read, and whether that can be trusted.

    Attributes:
        name: of the layer, dotted.
        first: number of the first token of the image, where it had to be measured.
        locality: share of other cells of the image on which a position depends less than on its own, on average over
            positions: 0.5 by chance, NaN where no gradient tells.
        threshold: how large `locality` has to be.
        stretch_cells: how many cells a position at the edge lies away from where a grid over the whole image has it; 0
            where no gradient tells.
        skip_count: how many later layers were left out because their positions are in doubt.
        sees_all: whether everything from the image to the answer passes through it, as far as that was looked at.
        copy_share: share of positions that are copies of others, as an adaptive pool makes them of fewer.
        is_last: whether channels were measured to come last, where shapes do not tell, see `as_map`.
        astray_share: share of positions that depend far less on their own cell than on another, and than on most.
        other_grid: rows and columns of a grid of another shape than the images that all tokens fill and that suits
            them better; None where none does.
    """

    name: str
    first: int | None
    locality: float
    threshold: float
    stretch_cells: float = 0.0
    skip_count: int = 0
    sees_all: bool = True
    copy_share: float = 0.0
    is_last: bool = False
    astray_share: float = 0.0
    other_grid: tuple[int, int] | None = None

    @property
    def is_doubtful(self) -> bool:
        """Return whether positions do not depend on their own pixels as much as they should, or are copies."""
        is_elsewhere = self.locality < self.threshold or self.is_astray or self.other_grid is not None
        return is_elsewhere or self.is_copied

    @property
    def is_astray(self) -> bool:
        """Return whether a part of the positions lies elsewhere, as where every second row is mirrored."""
        return self.astray_share > MOST_ASTRAY

    @property
    def is_copied(self) -> bool:
        """Return whether many positions are copies of others."""
        return self.copy_share > MOST_COPIES


MOST_COPIES = 0.25
"""Share of positions that may be copies of others."""

MOST_ASTRAY = 0.125
"""Share of positions that may lie elsewhere; in trained convolutional networks and transformers none does."""


def choose_layer(network: nn.Module, preprocess: Preprocess, image: Tensor) -> Choice | None:
    """Return the last layer with several positions that everything from the image to the logits passes through.

    Positions have to depend most on their own pixels. Behind a gate or inside of a residual block there may be later
    layers that see only a part: they are taken where no layer sees all. None where no layer has several positions. One
    image (1, C, H, W) is tried.
    """
    local = [layer.name for layer in reversed(list_layers(network, preprocess, image)) if layer.is_local]
    apart = partial(_keeps_images_apart, network, preprocess=preprocess, image=image)
    whole = (name for name in local if sees_all(network, name, preprocess, image) and apart(name))
    doubtful = None
    for skip_count, name in enumerate(whole):
        choice = choose_reading(network, preprocess, image, name, local[-1])
        if not choice.is_doubtful:
            return choice._replace(skip_count=skip_count)
        doubtful = doubtful or choice
    if doubtful is not None:
        return doubtful
    parts = (choose_reading(network, preprocess, image, name, local[-1]) for name in local if apart(name))
    return next((choice._replace(sees_all=False) for choice in parts), None)


def _keeps_images_apart(network: nn.Module, name: str, preprocess: Preprocess, image: Tensor) -> bool:
    """Return whether a layer gives a row for each of a few images: some networks fold images into channels, some send
    bright ones another way than dark ones, and some take a batch in parts.
    """
    images = torch.cat([image, 1 - image, image / 2, (1 + image) / 2]).repeat(2, 1, 1, 1)
    with torch.no_grad():
        return has_images(take_output(network, preprocess, images, name), len(images))


def choose_reading(
    network: nn.Module, preprocess: Preprocess, image: Tensor, name: str, first_layer: str | None = None
) -> Choice:
    """Return how the output of a layer is to be read: as `as_map` does, unless only another first token is right.

    Where channels may come first or last by the shapes, those positions are taken that depend more on their own pixels.

    `first_layer` is the first one with several positions, None where that is to be looked for. Positions that seem to
    lie elsewhere on the image (1, C, H, W) are looked at on noise too: a network may not depend on pixels that it
    clamps or masks. Raises UserError for a name that no layer has.
    """
    choice = _read_on(network, preprocess, image, name, first_layer)
    if not choice.is_doubtful or not _has_blind_pixels(network, preprocess, image, name):
        return choice
    noise = torch.rand(image.shape, generator=torch.Generator().manual_seed(0)).to(image)
    choice_on_noise = _read_on(network, preprocess, noise, name, first_layer)
    return choice if choice_on_noise.is_doubtful else choice_on_noise


MANY_BLIND = 0.05
"""Share of an image's pixels on which a layer need not depend for its positions to be looked at on noise too."""


def _has_blind_pixels(network: nn.Module, preprocess: Preprocess, image: Tensor, name: str) -> bool:
    """Return whether a layer does not depend on many pixels of an image (1, C, H, W)."""
    gradients = measure_all_pixels(lambda images: take_output(network, preprocess, images, name), image)
    return gradients is not None and float((gradients == 0).float().mean()) > MANY_BLIND


def _read_on(network: nn.Module, preprocess: Preprocess, image: Tensor, name: str, first_layer: str | None) -> Choice:
    """Return how the output of a layer is to be read, by what its positions depend on in one image."""
    output, pixels = take_output(network, preprocess, image, name), preprocess(image)
    is_tokens = isinstance(output, Tensor) and output.ndim == 3
    aspect = pixels.shape[2] / pixels.shape[3]
    dependence, is_last = _depend_as_read(network, preprocess, image, name, output)
    if dependence is None:
        return Choice(name, None, math.nan, LEAST_LOCALITY)
    usual = Choice(
        name,
        None,
        dependence.locality(),
        threshold=LEAST_OF_FEW if dependence.is_repeated else LEAST_LOCALITY,
        stretch_cells=0.0 if is_tokens else _stretch_cells(network, preprocess, image, name, dependence, first_layer),
        copy_share=dependence.copy_share(),
        is_last=is_last,
        astray_share=dependence.astray_share(),
    )
    if not is_tokens:
        return usual
    count = output.shape[1]
    usual_first = find_first_token(count, aspect, count_prefix_tokens(network), None)
    usual = usual._replace(other_grid=_find_other_grid(dependence, usual_first, count))
    if not usual.is_doubtful:
        return usual
    height, width = find_largest_grid(count, aspect)
    alternatives: list[Choice] = []
    for first in range(count - height * width + 1):
        dependence = measure_dependence(network, preprocess, image, name, output, first)
        if dependence is not None:
            choice = usual._replace(first=first, other_grid=_find_other_grid(dependence, first, count))
            choice = choice._replace(locality=dependence.locality(), astray_share=dependence.astray_share())
            alternatives.append(choice)
    best = max(alternatives, key=lambda choice: choice.locality, default=usual)
    return usual if best.is_doubtful else best


def _find_other_grid(dependence: Dependence, first: int, count: int) -> tuple[int, int] | None:
    """Return rows and columns that all of `count` tokens fill and that suit them better than those from `first` on."""
    if dependence.grid[0] * dependence.grid[1] == count:
        return None
    grids = [(rows, count // rows) for rows in range(2, count // 2 + 1) if count % rows == 0]
    fits = {grid: Dependence(dependence.strength, dependence.sample + first, grid).locality() for grid in grids}
    best = max(fits, key=fits.__getitem__, default=None)
    is_better = best is not None and fits[best] > max(dependence.locality(), LEAST_LOCALITY)
    return best if is_better else None


def _stretch_cells(
    network: nn.Module,
    preprocess: Preprocess,
    image: Tensor,
    name: str,
    dependence: Dependence,
    first_layer: str | None,
) -> float:
    """Return how many cells a position at the edge of a grid lies away from its place, see `Choice`.

    Where each position depends on a whole side of the image, the first grid on the way tells: there positions depend
    on few pixels. What pads or mirrors the image comes before it.
    """
    stretches = dependence.stretch()
    if any(map(math.isnan, stretches)):
        first = first_layer or next(
            (layer.name for layer in list_layers(network, preprocess, image) if layer.is_local), name
        )
        earlier = (
            first != name
            and _depend_as_read(network, preprocess, image, first, take_output(network, preprocess, image, first))[0]
        )
        if earlier and sees_all(network, first, preprocess, image):
            rows, columns = (
                other if math.isnan(factor) else factor
                for factor, other in zip(stretches, earlier.stretch(), strict=True)
            )
            stretches = rows, columns
    cells = [abs(factor - 1) * (length - 1) / 2 for factor, length in zip(stretches, dependence.grid, strict=True)]
    return max([0.0, *(number for number in cells if not math.isnan(number))])


def _depend_as_read(
    network: nn.Module, preprocess: Preprocess, image: Tensor, name: str, output: Any
) -> tuple[Dependence | None, bool]:
    """Return on which pixels positions depend, and whether channels come last where both orders have the shape.

    Then those positions are taken that depend more on their own pixels, and the usual ones unless others clearly do.
    """
    usual, pixels = measure_dependence(network, preprocess, image, name, output), preprocess(image)
    if usual is None or not has_two_readings(output, pixels.shape[2] / pixels.shape[3]):
        return usual, False
    other = measure_dependence(network, preprocess, image, name, output, is_last=True)
    if other is None:
        return usual, False
    # The share in place of few positions is NaN unless some clearly lie elsewhere.
    fit, other_fit = (1.0 if math.isnan(share := order.locality()) else share for order in (usual, other))
    threshold = LEAST_OF_FEW if usual.is_repeated else LEAST_LOCALITY
    return (other, True) if other_fit > fit and other_fit >= threshold else (usual, False)
