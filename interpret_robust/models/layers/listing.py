"""List the layers of a network: which of them give features at positions of the image."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from interpret_robust.models.layers.hooks import is_inside, probe_answer, register_hooks
from interpret_robust.models.layers.maps import as_map, count_prefix_tokens
from interpret_robust.models.preprocess import Preprocess


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


def list_layers(network: nn.Module, preprocess: Preprocess, image: Tensor) -> list[Layer]:
    """Return the layers of a network in the order in which they end, seen in a pass of one image (1, C, H, W)."""
    outputs: dict[str, list[Any]] = {}
    modules_by_name = {name: module for name, module in network.named_modules() if name}

    def keep(name: str) -> Callable[..., None]:
        return lambda _, __, output: outputs.setdefault(name, []).append(None if is_inside(output) else output)

    pixels = preprocess(image).requires_grad_()
    with (
        register_hooks((module, keep(name)) for name, module in modules_by_name.items()),
        probe_answer(network) as answers,
    ):
        network(pixels.clone())  # a network may work in their place
    aspect, prefix = pixels.shape[2] / pixels.shape[3], count_prefix_tokens(network)
    maps = {
        name: as_map(passes[-1], aspect, prefix) if has_images(passes[-1], len(image)) else None
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


def has_images(output: Any, count: int) -> bool:
    """Return whether what a layer gave has a row for each of `count` images: windows and sequences may not."""
    return isinstance(output, Tensor) and output.ndim > 0 and len(output) == count
