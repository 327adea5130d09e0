"""Whether a layer that is named for the attention gives it by position, and gives what weighs the values.

Nothing of the network is changed: a layer is watched, or its output replaced, by a hook that is there for one pass.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from interpret_robust.core.random_numbers import seed_all
from interpret_robust.models.layers.attention_trace import Trace, are_alike
from interpret_robust.models.layers.dependence import LEAST_LOCALITY, LEAST_POSITIONS, Dependence, sample_positions
from interpret_robust.models.layers.hooks import probe_answer, register_hooks, use_part
from interpret_robust.models.layers.maps import count_prefix_tokens
from interpret_robust.models.wrapper import WrappedModel

Change = Callable[[Tensor], Tensor]


def read_attention(model: WrappedModel, image: Tensor) -> None:
    """Let a model read the attention of a transformer from the right tokens, as one image (1, C, H, W) tells.

    Its rows are those of the tokens that the answer is read from, where one or a few are, else of the token that is
    not of the image. Its columns are those of the image's tokens.
    """
    weights, gradient = _weights_and_gradient(model, image)
    grid = _grid(model, image)
    positions, count = grid[0] * grid[1], weights.shape[-1]
    if weights.ndim != 4 or weights.shape[2] != count or count <= positions:
        return
    is_read = (gradient != 0).flatten(0, 1).any(-1).any(0)
    prefix = count_prefix_tokens(model.backbone)
    first = prefix if model.first_token is None and prefix is not None else model.first_token
    candidates = range(count - positions, -1, -1) if first is None or first + positions > count else [first]
    shares = {place: _locality(model, image, grid, place) for place in candidates} if len(candidates) > 1 else {}
    start = candidates[0]
    if shares and not shares[start] >= LEAST_LOCALITY:
        start = max(shares, key=lambda place: (shares[place] == shares[place], shares[place]))
    is_image = torch.zeros(count, dtype=torch.bool, device=is_read.device)
    is_image[start : start + positions] = True
    rows = is_read if not is_read.all() else ~is_image
    if is_read.all() and not is_image[0]:
        rows = torch.arange(count, device=is_read.device) == 0
    if not rows.any():
        return
    model.attention_tokens = start, (rows / rows.sum()).float()


def list_attention_doubts(model: WrappedModel, image: Tensor, label: str) -> Iterator[str]:
    """Yield what is doubtful about the attention layer of a model of a name, as one image (1, C, H, W) tells."""
    name = str(model.attention_layer)
    grid = _grid(model, image)
    share = _locality(model, image, grid, None if model.attention_tokens is None else model.attention_tokens[0])
    if share < LEAST_LOCALITY:
        yield (
            f"{label}: only {share:.0%} of the other cells of the image matter less to what a position of attention "
            f"layer '{name}' weighs than its own cell does, where {LEAST_LOCALITY:.0%} are expected: its positions may "
            f"be in another order than those of layer '{model.local_layer}', such as column by column. Let it give "
            "them row by row."
        )
    if not _is_what_weighs(model, image):
        yield (
            f"{label}: the numbers that attention layer '{name}' gives weigh nothing as they are: they are changed "
            "first, as by talking heads, a difference of two attentions or a threshold, or not used. Let an "
            "nn.Identity give what they become, and name that by --attention-layer."
        )


def _grid(model: WrappedModel, image: Tensor) -> tuple[int, int]:
    with torch.no_grad():
        height, width = model.features(image).local.shape[2:]
    return height, width


def _answer(model: WrappedModel, images: Tensor, change: Change) -> tuple[Tensor, Tensor]:
    """Return a number that the answer of images (N, C, H, W) depends on, and their attention after `change`."""
    attentions: list[Tensor] = []

    def replace(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        attentions.append(change(output.detach()))
        return attentions[-1].clone()

    layer = model.backbone.get_submodule(str(model.attention_layer))
    seed_all(0, 0)  # the same draws each time
    with (
        register_hooks([(layer, replace)]),
        use_part(model.backbone, model.part),
        probe_answer(model.backbone) as answers,
    ):
        model.backbone(model.preprocess(images).clone())
    return answers[-1], attentions[0]


@torch.enable_grad()
def _weights_and_gradient(model: WrappedModel, image: Tensor) -> tuple[Tensor, Tensor]:
    """Return the attention of an image (1, C, H, W), and how the answer depends on it."""
    answer, weights = _answer(model, image, lambda output: output.clone().requires_grad_())
    if not answer.requires_grad:
        return weights, torch.zeros_like(weights)
    (gradient,) = torch.autograd.grad(answer, weights, allow_unused=True)
    return weights.detach(), torch.zeros_like(weights) if gradient is None else gradient


@torch.enable_grad()
def _locality(model: WrappedModel, image: Tensor, grid: tuple[int, int], first: int | None) -> float:
    """Return on which share of other cells what a position weighs depends less than on its own, NaN for few positions.

    What it weighs is what the gradient of the answer with respect to pixels gains where the weight is larger. `first`
    is the number of the first token of the image in the attention of a transformer.
    """
    if grid[0] * grid[1] < LEAST_POSITIONS:
        return float("nan")
    sample = sample_positions(*grid).to(image.device)
    rows = torch.arange(len(sample), device=image.device)

    def add(output: Tensor) -> Tensor:
        larger = output.clone()
        if first is not None:
            larger[rows, :, :, first + sample] += output.mean()
            return larger
        flat = larger.flatten(1)
        flat[rows, sample] += output.mean()
        return flat.reshape(output.shape)

    gradients = []
    for change in (torch.clone, add):
        pixels = image.repeat(len(sample), 1, 1, 1).requires_grad_()
        answer, _ = _answer(model, pixels, change)
        (gradient,) = torch.autograd.grad(answer, pixels, allow_unused=True)
        gradients.append(torch.zeros_like(pixels) if gradient is None else gradient)
    size = (gradients[1] - gradients[0]).abs().sum(1)
    return Dependence(size, sample, grid).locality()


@torch.no_grad()
def _is_what_weighs(model: WrappedModel, image: Tensor) -> bool:
    """Return whether something is multiplied by what the attention layer gives for an image (1, C, H, W), as it is."""
    trace, outputs, pixels = Trace(), list[Tensor](), model.preprocess(image).clone()

    def start(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        outputs.append(output)
        return trace.follow(output.clone())

    layer = model.backbone.get_submodule(str(model.attention_layer))
    trace.see(pixels)
    with register_hooks([(layer, start)]), trace:
        model.backbone(pixels)
    return any(are_alike(use.weights, outputs[0]) for use in trace.uses)
