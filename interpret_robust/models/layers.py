"""The layers of anyone's network: which of them give features at positions of the image, and which one is taken.

Nothing of the network is changed. A layer is watched, or its output replaced, by a hook that is there for one pass.
"""

import difflib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import scipy
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from interpret_robust.core.errors import UserError
from interpret_robust.models.logits import select, tensors_of
from interpret_robust.models.preprocess import Preprocess
from interpret_robust.models.recomputation import disable_recomputation


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
        _from_tokens(output, _first_token(output.shape[1], aspect, prefix, first), aspect) if output.ndim == 3 else None
    )


def _from_grid(output: Tensor, aspect: float, *, is_last: bool) -> Map | None:
    rows, columns, last = output.shape[1:]
    if _fits(columns, last, aspect) and not (is_last and _fits(rows, columns, aspect)):
        return Map(output, lambda local: local)
    if _fits(rows, columns, aspect):
        return Map(output.permute(0, 3, 1, 2), lambda local: local.permute(0, 2, 3, 1).contiguous())
    return None


def _has_two_readings(output: Any, aspect: float) -> bool:
    """Return whether what a layer gave has the shape of the images as (N, C, H, W) and as (N, H, W, C)."""
    if not isinstance(output, Tensor) or output.ndim != 4:
        return False
    rows, columns, last = output.shape[1:]
    return _fits(rows, columns, aspect) and _fits(columns, last, aspect)


def _first_token(count: int, aspect: float, prefix: int | None, first: int | None) -> int:
    """Return the number of the first token of the image among `count` tokens, `count` where there is none."""
    if first is not None:
        return first
    if prefix is None:
        height, width = _grid(count, aspect)
        return count - height * width
    for prefix_length in (prefix, 0):
        height, width = _grid(count - prefix_length, aspect)
        if prefix_length + height * width == count:
            return prefix_length
    return count


def _grid(tokens: int, aspect: float) -> tuple[int, int]:
    """Return height and width of the largest grid of the images' shape that so many tokens fill; zeros for none."""
    height = int((max(tokens, 0) * aspect) ** 0.5 + 1e-6)
    width = round(height / aspect)
    return (height, width) if 1 <= height * width <= tokens else (0, 0)


def _fits(height: int, width: int, aspect: float) -> bool:
    """Return whether a grid has the shape of the images, up to what strides cut off."""
    return min(height, width) > 0 and abs(height - aspect * width) < 1


def _from_tokens(output: Tensor, first: int, aspect: float) -> Map | None:
    height, width = _grid(output.shape[1] - first, aspect)
    end = first + height * width
    if end == first:
        return None

    def put_back(local: Tensor) -> Tensor:
        return torch.cat([output[:, :first], local.flatten(2).transpose(1, 2), output[:, end:]], 1)

    return Map(output[:, first:end].transpose(1, 2).reshape(*output.shape[::2], height, width), put_back)


def prefix_tokens(network: nn.Module) -> int | None:
    """Return how many tokens come before those of the image, where the network says so, as timm's do."""
    count = getattr(network, "num_prefix_tokens", None)
    return count if isinstance(count, int) else None


def layer_of(network: nn.Module, name: str) -> nn.Module:
    """Return the layer of a dotted name. Raises UserError for a name that no layer has."""
    modules_by_name: dict[str, nn.Module] = {path: module for path, module in network.named_modules() if path}
    if name not in modules_by_name:
        matches = difflib.get_close_matches(name, modules_by_name, n=1)
        hint = f"did you mean '{matches[0]}'? " if matches else ""
        top = ", ".join(path for path in modules_by_name if "." not in path)
        raise UserError(f"unknown layer '{name}': {hint}the top layers are {top}; `irt model layers` lists more.")
    return modules_by_name[name]


class Layer(NamedTuple):
    """A layer in a pass of a network.

    `name` is dotted, `kind` its class, `shape` that of its local features (C, H, W) or None where it has none, `runs`
    how often it ran, and `matters` whether the logits depend on these features.
    """

    name: str
    kind: str
    shape: tuple[int, int, int] | None
    runs: int
    matters: bool

    @property
    def is_local(self) -> bool:
        """Return whether its output can serve as local features.

        Several positions, from one run, that the logits rest on.
        """
        return self.shape is not None and self.shape[1] * self.shape[2] > 1 and self.runs == 1 and self.matters


def layers(network: nn.Module, preprocess: Preprocess, image: Tensor) -> list[Layer]:
    """Return the layers of a network in the order in which they end, seen in a pass of one image (1, C, H, W)."""
    outputs: dict[str, list[Any]] = {}
    modules_by_name = {name: module for name, module in network.named_modules() if name}

    def keep(name: str) -> Callable[..., None]:
        return lambda _, __, output: outputs.setdefault(name, []).append(None if is_inside(output) else output)

    pixels = preprocess(image).requires_grad_()
    with hooks((module, keep(name)) for name, module in modules_by_name.items()), probe_answer(network) as answers:
        network(pixels.clone())  # a network may work in their place
    aspect, prefix = pixels.shape[2] / pixels.shape[3], prefix_tokens(network)
    maps = {
        name: as_map(passes[-1], aspect, prefix) if _has_images(passes[-1], len(image)) else None
        for name, passes in outputs.items()
    }
    live = [
        name
        for name, feature_map in maps.items()
        if feature_map is not None and outputs[name][-1].requires_grad and answers[-1].requires_grad
    ]
    live_outputs = [outputs[name][-1] for name in live]
    gradients = torch.autograd.grad(answers[-1], live_outputs, allow_unused=True) if live_outputs else ()
    matters = {
        name
        for name, gradient in zip(live, gradients, strict=True)
        if gradient is not None
        and (of_local := as_map(gradient, aspect, prefix)) is not None
        and bool((of_local.local != 0).any())
    }
    return [
        Layer(
            name,
            type(modules_by_name[name]).__name__,
            None
            if feature_map is None
            else (feature_map.local.shape[1], feature_map.local.shape[2], feature_map.local.shape[3]),
            len(outputs[name]),
            name in matters,
        )
        for name, feature_map in maps.items()
    ]


def _has_images(output: Any, count: int) -> bool:
    """Return whether what a layer gave has a row for each of `count` images: windows and sequences may not."""
    return isinstance(output, Tensor) and output.ndim > 0 and len(output) == count


class Choice(NamedTuple):
    """The layer that is taken, how its tokens are read, and whether that can be trusted.

    `first` is the number of the first token of the image where it had to be measured, and `is_last` whether channels
    were measured to come last where shapes do not tell, see `as_map`; `locality` the
    share of other cells of the image on which a position depends less than on its own (0.5 by chance), on average over
    positions, NaN where no gradient tells; `threshold` how large it has to be; `stretch_cells` how many cells a
    position at the edge lies away from where a grid over the whole image has it, 0 where no gradient tells;
    `skip_count` how many layers behind it were passed by because their positions are in doubt; `sees_all` whether all
    that the answer rests on passes through it, as far as that was looked at; `copy_share` the share of positions that
    are copies of others, as an adaptive pool makes them of fewer; `astray_share` the share of positions that depend far
    less on their own cell than on another, and than on most; `other_grid` the rows and columns of a grid of another
    shape than the images that all tokens fill, and that suits them better, None where none does.
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


LEAST_LOCALITY = 0.75
"""The threshold for tokens and for many positions on a grid, see `Choice`.

Networks of torchvision and timm and those trained here lie well above; behind a forward that mirrors, rolls or
transposes images most positions that see far lie below. No file was kept of these numbers.
"""

LEAST_OF_FEW = 1.0
"""The threshold for few positions on a grid, of which each has to lie in the cell that it suits best."""

CLEAR_ERRORS, CLEAR_GAIN = 4.0, 0.1
"""Standard errors, and share of what a position depends on, by which another order has to suit few positions better."""

MOST_COPIES = 0.25
"""Share of positions that may be copies of others."""

MOST_ASTRAY = 0.125
"""Share of positions that may lie elsewhere; none does in those networks."""

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


def default_layer(network: nn.Module, preprocess: Preprocess, image: Tensor) -> Choice | None:
    """Return the last layer with several positions that everything from the image to the logits passes through.

    Positions have to depend most on their own pixels. Behind a gate or inside of a residual block there may be later
    layers that see only a part: they are taken where no layer sees all. None where no layer has several positions. One
    image (1, C, H, W) is tried.
    """
    local = [layer.name for layer in reversed(layers(network, preprocess, image)) if layer.is_local]
    apart = partial(_keeps_images_apart, network, preprocess=preprocess, image=image)
    sees_all = (name for name in local if _sees_all(network, name, preprocess, image) and apart(name))
    doubtful = None
    for skip_count, name in enumerate(sees_all):
        choice = reading(network, preprocess, image, name, local[-1])
        if not choice.is_doubtful:
            return choice._replace(skip_count=skip_count)
        doubtful = doubtful or choice
    if doubtful is not None:
        return doubtful
    parts = (reading(network, preprocess, image, name, local[-1]) for name in local if apart(name))
    return next((choice._replace(sees_all=False) for choice in parts), None)


def _keeps_images_apart(network: nn.Module, name: str, preprocess: Preprocess, image: Tensor) -> bool:
    """Return whether a layer gives a row for each of a few images: some networks fold images into channels, some send
    bright ones another way than dark ones, and some take a batch in parts.
    """
    images = torch.cat([image, 1 - image, image / 2, (1 + image) / 2]).repeat(2, 1, 1, 1)
    with torch.no_grad():
        return _has_images(_output(network, preprocess, images, name), len(images))


def reading(
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
    gradients = _pixel_gradients_of_all(lambda images: _output(network, preprocess, images, name), image)
    return gradients is not None and float((gradients == 0).float().mean()) > MANY_BLIND


def _read_on(network: nn.Module, preprocess: Preprocess, image: Tensor, name: str, first_layer: str | None) -> Choice:
    """Return how the output of a layer is to be read by what its positions depend on in one image, see `reading`."""
    output, pixels = _output(network, preprocess, image, name), preprocess(image)
    is_tokens = isinstance(output, Tensor) and output.ndim == 3
    aspect = pixels.shape[2] / pixels.shape[3]
    dependence, is_last = _depend_as_read(network, preprocess, image, name, output)
    is_small = dependence is not None and dependence.is_repeated
    threshold = LEAST_OF_FEW if is_small else LEAST_LOCALITY
    stretch_cells = (
        0.0
        if dependence is None or is_tokens
        else _stretch_cells(network, preprocess, image, name, dependence, first_layer)
    )
    copy_share = 0.0 if dependence is None else dependence.copy_share()
    usual = Choice(name, None, locality(dependence), threshold, stretch_cells, copy_share=copy_share, is_last=is_last)
    usual = usual._replace(astray_share=_astray_share(dependence))
    if not is_tokens:
        return usual
    count = output.shape[1]
    usual_first = _first_token(count, aspect, prefix_tokens(network), None)
    usual = usual._replace(other_grid=_find_other_grid(dependence, usual_first, count))
    if not usual.is_doubtful:
        return usual
    height, width = _grid(count, aspect)
    alternatives = []
    for first in range(count - height * width + 1):
        dependence = depend(network, preprocess, image, name, output, first)
        choice = usual._replace(first=first, locality=locality(dependence), astray_share=_astray_share(dependence))
        alternatives.append(choice._replace(other_grid=_find_other_grid(dependence, first, count)))
    best = max(alternatives, key=lambda choice: choice.locality)
    return usual if best.is_doubtful else best


def _astray_share(dependence: "Dependence | None") -> float:
    return 0.0 if dependence is None else dependence.astray_share()


def _find_other_grid(dependence: "Dependence | None", first: int, count: int) -> tuple[int, int] | None:
    """Return rows and columns that all of `count` tokens fill and that suit them better than those from `first` on."""
    if dependence is None or dependence.grid[0] * dependence.grid[1] == count:
        return None
    grids = [(rows, count // rows) for rows in range(2, count // 2 + 1) if count % rows == 0]
    fits = {grid: Dependence(dependence.size, dependence.sample + first, grid).locality() for grid in grids}
    best = max(fits, key=fits.__getitem__, default=None)
    is_better = best is not None and fits[best] > max(dependence.locality(), LEAST_LOCALITY)
    return best if is_better else None


class Dependence(NamedTuple):
    """On which pixels a sample of positions depends.

    `size` (M, H, W) is how much position `sample[m]` of a grid (rows, columns) depends on each pixel.
    """

    size: Tensor
    sample: Tensor
    grid: tuple[int, int]

    @property
    def is_repeated(self) -> bool:
        """Return whether each position was measured several times: they are few."""
        return len(self.sample) > math.prod(self.grid)

    def locality(self) -> float:
        """Return the share of other cells on which a position depends less than on its own, see `Choice`.

        Of a grid of few positions it is the share of positions that lie in the cell that they suit best, NaN unless
        some clearly lie in another.
        """
        if self.is_repeated:
            cells = F.adaptive_avg_pool2d(self.size[:, None], self.grid).flatten(1)
            return _share_in_place(cells.reshape(-1, cells.shape[1], cells.shape[1]))
        return float(self.shares().nanmean())

    def shares(self) -> Tensor:
        """Return the share of other cells on which each position depends less than on its own (M,), NaN for none."""
        cells = F.adaptive_avg_pool2d(self.size[:, None], self.grid).flatten(1)
        shares = (cells < cells.gather(1, self.sample[:, None])).sum(1) / (cells.shape[1] - 1)
        return torch.where(cells.sum(1) > 0, shares, torch.nan)

    def astray_share(self) -> float:
        """Return the share of positions that depend on their own cell less than half as much as on another, and less
        than on most; 0 of a grid of few positions.
        """
        if self.is_repeated:
            return 0.0
        cells = F.adaptive_avg_pool2d(self.size[:, None], self.grid).flatten(1)
        own = cells.gather(1, self.sample[:, None])[:, 0]
        is_astray = (self.shares() < LEAST_IN_PLACE) & (2 * own < cells.amax(1))
        return float(is_astray.float().mean())

    def copy_share(self) -> float:
        """Return the share of positions that depend on each pixel exactly as much as one before them does.

        Those that depend on no pixel are left out.
        """
        sizes = self.size[: math.prod(self.grid)].flatten(1)
        sizes = sizes[sizes.any(1)]
        is_alike = torch.cdist(sizes, sizes, p=1) <= ROUNDING * sizes.sum(1)
        return float(is_alike.tril(-1).any(1).float().mean()) if len(sizes) else 0.0

    def stretch(self) -> tuple[float, float]:
        """Return by which factor rows and columns lie farther apart than in a grid over the image; NaN where unknown.

        How far apart positions are is told by the middles of what they depend on, of those positions that depend on as
        many lines of pixels as any: others are cut off by the edge of the image, or by rectifiers.
        """
        places = self.sample // self.grid[1], self.sample % self.grid[1]
        rows, columns = (
            _stretch(self.size.sum(2 - axis), places[axis], length) for axis, length in enumerate(self.grid)
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
            (layer.name for layer in layers(network, preprocess, image) if layer.is_local), name
        )
        earlier = (
            first != name
            and _depend_as_read(network, preprocess, image, first, _output(network, preprocess, image, first))[0]
        )
        if earlier and _sees_all(network, first, preprocess, image):
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
    usual, pixels = depend(network, preprocess, image, name, output), preprocess(image)
    if usual is None or not _has_two_readings(output, pixels.shape[2] / pixels.shape[3]):
        return usual, False
    other = depend(network, preprocess, image, name, output, is_last=True)
    if other is None:
        return usual, False
    # The share in place of few positions is NaN unless some clearly lie elsewhere.
    fit, other_fit = (1.0 if math.isnan(share := locality(order)) else share for order in (usual, other))
    threshold = LEAST_OF_FEW if usual.is_repeated else LEAST_LOCALITY
    return (other, True) if other_fit > fit and other_fit >= threshold else (usual, False)


def depend(
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
    aspect, prefix = pixels.shape[2] / pixels.shape[3], prefix_tokens(network)
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
        feature_map = as_map(_output(network, preprocess, images, name), aspect, prefix, first, is_last=is_last)
        return feature_map and feature_map.local

    size = _pixel_gradients(ask, copies, sample, repeats)
    return None if size is None else Dependence(size, sample, (height, width))


def _pixel_gradients(
    ask: Callable[[Tensor], Tensor | None], images: Tensor, sample: Tensor, repeats: int = 1
) -> Tensor | None:
    """Return how much a position of each of images (M, C, H, W) depends on its pixels, (M, H, W); None for no gradient.

    `ask` gives the local features of images, None where these have none; `sample` (M,) are the numbers of positions,
    which are there `repeats` times.
    """
    images, generator = images.clone().requires_grad_(), torch.Generator().manual_seed(0)
    with torch.enable_grad():
        local = ask(images)
        if local is None or not local.requires_grad or len(local) != len(sample):
            return None
        signs = torch.randint(0, 2, (repeats, local.shape[1]), generator=generator).to(images) * 2 - 1
        features = local.float().flatten(2)[range(len(sample)), :, sample]
        signs = signs.repeat_interleave(len(sample) // repeats, 0)
        (gradient,) = torch.autograd.grad((features * signs).sum(), images, allow_unused=True)
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
        size = _pixel_gradients(ask, images, sample)
        return torch.ones(len(images)) if size is None else Dependence(size, sample, grid).shares().cpu()

    with torch.no_grad():
        height, width = ask(images[:1]).shape[2:]
    grid = height, width
    if height * width < LEAST_POSITIONS:
        return 0
    is_elsewhere = shares(images, OFF_AXES[0]) < LEAST_IN_PLACE
    if not is_elsewhere.any():
        return 0
    suspects = images[is_elsewhere.to(images.device)]
    gradients = _pixel_gradients_of_all(ask, suspects)
    cells = torch.ones(len(suspects), *grid) if gradients is None else F.adaptive_avg_pool2d(gradients, grid).cpu()
    judged_shares = [
        torch.where(cells[:, int(row * height), int(column * width)] > 0, shares(suspects, (row, column)), torch.nan)
        for row, column in OFF_AXES
    ]
    return int((torch.stack(judged_shares).nanmean(0) < LEAST_IN_PLACE).sum())


def _pixel_gradients_of_all(ask: Callable[[Tensor], Any], images: Tensor) -> Tensor | None:
    """Return how much all that `ask` gives depends on each pixel of images (N, C, H, W), (N, H, W); None for nothing.

    By the size of the gradient of its sum with random signs, the same for each image.
    """
    pixels = images.clone().requires_grad_()
    with torch.enable_grad():
        output = ask(pixels)
        if not isinstance(output, Tensor) or not output.requires_grad:
            return None
        signs = torch.randint(0, 2, output.shape[1:], generator=torch.Generator().manual_seed(0)).to(output) * 2 - 1
        (gradient,) = torch.autograd.grad((output.float() * signs).sum(), pixels, allow_unused=True)
    return None if gradient is None else gradient.abs().sum(1)


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


def locality(dependence: Dependence | None) -> float:
    """Return the locality of a layer, see `Choice`; NaN where nothing tells."""
    return float("nan") if dependence is None else dependence.locality()


class _PassEnd(BaseException):
    """Ends a pass behind the layer that was asked for: no Exception, which a network may catch."""


def _output(network: nn.Module, preprocess: Preprocess, images: Tensor, name: str) -> Any:
    """Return what a layer gives for images when it first runs, as it was then: nothing behind it is computed."""
    outputs: list[Any] = []

    def keep(_: nn.Module, __: Any, output: Any) -> None:
        check_outside(name, output)
        outputs.append(output.clone() if isinstance(output, Tensor) else output)
        raise _PassEnd

    with suppress(_PassEnd), hooks([(layer_of(network, name), keep)]):
        network(preprocess(images).clone())
    return outputs[-1] if outputs else None


def _sees_all(network: nn.Module, name: str, preprocess: Preprocess, image: Tensor) -> bool:
    """Return whether the answer does not depend on the image where a layer's output is held fixed."""
    return count_beyond(network, name, preprocess, image) == 0


def count_beyond(network: nn.Module, name: str, preprocess: Preprocess, images: Tensor) -> int:
    """Return for how many of images (N, C, H, W) the answer depends on them though a layer's output is held fixed.

    Example:
        >>> count_beyond(network, "layer4", preprocess, images)
        0
    """
    pixels = preprocess(images).requires_grad_()
    with hooks([(layer_of(network, name), _cut)]), probe_answer(network) as answers:
        network(pixels.clone())
    if not answers[-1].requires_grad:
        return 0
    (gradient,) = torch.autograd.grad(answers[-1], pixels, allow_unused=True)
    # Zero times an infinite slope on the way is no number.
    return 0 if gradient is None else int((gradient.nan_to_num(0) != 0).flatten(1).any(1).sum())


class _Anchor(torch.autograd.Function):
    """What is as it was, with a gradient of zero: a network may ask for gradients in its forward, and needs some."""

    @staticmethod
    def forward(_: Any, output: Tensor) -> Tensor:
        return output.clone()

    @staticmethod
    def backward(_: Any, *gradients: Tensor) -> Tensor:
        return torch.zeros_like(gradients[0])


def _cut(_: nn.Module, __: Any, output: Any) -> Any:
    """Hold the output of a layer fixed: a forward hook."""
    return _Anchor.apply(output) if isinstance(output, Tensor) and output.requires_grad else output


def is_inside(output: Any) -> bool:
    """Return whether a layer ran inside a transform such as torch.func.vmap, which its output must not leave."""
    return any(map(torch._C._functorch.is_functorch_wrapped_tensor, tensors_of(output)))


def check_outside(name: str, output: Any) -> None:
    """Raise UserError for what a layer gave inside such a transform."""
    if is_inside(output):
        raise UserError(
            f"layer '{name}' runs inside of torch.func.vmap or another transform, where its output cannot be taken: "
            "name a layer outside of it, or call this one on whole batches."
        )


@contextmanager
def hooks(pairs: Iterable[tuple[nn.Module, Callable[..., Any]]]) -> Iterator[None]:
    """Register forward hooks that are there while this is entered."""
    handles = [module.register_forward_hook(hook) for module, hook in pairs]
    try:
        with disable_recomputation():
            yield
    finally:
        for handle in handles:
            handle.remove()


def use_part(network: nn.Module, part: str | None) -> AbstractContextManager[None]:
    """Make a network answer with a part of its answer, see `logits.as_logits`, while this is entered.

    Example:
        >>> with use_part(network, "1"), probe_answer(network) as answers:
        ...     network(pixels)
    """
    return hooks([] if part is None else [(network, lambda _, __, answer: select(answer, part))])


@contextmanager
def probe_answer(network: nn.Module) -> Iterator[list[Tensor]]:
    """Yield a number that depends on all that the answer does, the last of a list after a pass of the network.

    It is made of what linear layers see, the one that answers or else the last on the way to the answer: fresh
    transformers begin with an answer of zero, which depends on nothing. Of an answer of several parts those that may be
    logits (N, classes) count.
    """
    answers: list[Tensor] = []
    linear_passes: list[tuple[Any, Tensor]] = []

    def record_input(_: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if inputs and not is_inside(inputs[0]):
            linear_passes.append((output, inputs[0].square().sum()))

    def record_answer(_: nn.Module, __: Any, answer: Any) -> None:
        tensors = tensors_of(answer)
        logits = [tensor for tensor in tensors if tensor.ndim == 2] or tensors
        own_numbers = [number for output, number in linear_passes if any(output is tensor for tensor in logits)]
        if not own_numbers:
            nodes = _list_nodes(logits)
            own_numbers = [number for output, number in linear_passes if output.grad_fn in nodes][-1:]
        start = sum(own_numbers, torch.zeros(()))
        answers.append(sum((tensor.square().sum() for tensor in logits), start))
        linear_passes.clear()

    linear = [(module, record_input) for module in network.modules() if isinstance(module, nn.Linear)]
    with torch.enable_grad(), hooks([*linear, (network, record_answer)]):
        yield answers


def _list_nodes(tensors: Sequence[Tensor]) -> set[Any]:
    """Return the nodes of the graph from which tensors were computed."""
    nodes: set[Any] = set()
    rest = [tensor.grad_fn for tensor in tensors]
    while rest:
        node = rest.pop()
        if node is not None and node not in nodes:
            nodes.add(node)
            rest += [parent for parent, _ in node.next_functions]
    return nodes
