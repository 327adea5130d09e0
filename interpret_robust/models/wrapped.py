"""Anyone's network as a classifier of ours: pixels go in, and what a layer of it gives are its local features.

Nothing of the network is changed. A layer is watched, and its output replaced, by a hook that is there for one pass.
"""

import difflib
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from interpret_robust.core.errors import UserError, unknown
from interpret_robust.models.classifier import Classifier, Features

STATISTICS = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "none": ((0.0,), (1.0,)),
}
"""Means and deviations of pixels in [0, 1], by channel, that networks are trained with: torchvision's for ImageNet."""


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
        return (images - self.mean) / self.deviation


def statistics(text: str, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and deviation for `imagenet`, `cifar10`, `none` or numbers: `mean,std`, or a mean and a std each
    channel.

    Raises UserError for anything else, and for numbers that do not suit images of so many `channels`.
    """
    if text in STATISTICS:
        mean, deviation = STATISTICS[text]
    else:
        numbers = _numbers(text)
        half = len(numbers) // 2
        mean, deviation = numbers[:half], numbers[half:]
    if len(mean) not in (1, channels):
        raise UserError(f"--normalize {text} is for images of {len(mean)} channels, and these have {channels}.")
    return mean, deviation


def _numbers(text: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise unknown("normalization", text, (*STATISTICS, "mean,std such as 0.5,0.25")) from None
    good = all(map(math.isfinite, numbers)) and min(numbers[len(numbers) // 2 :]) > 0
    if len(numbers) % 2 or not good:
        raise UserError(
            f"--normalize {text}: give a mean and a positive standard deviation, such as 0.5,0.25, or first the means "
            "of all channels and then their standard deviations."
        )
    return numbers


class Map(NamedTuple):
    """Local features (N, C, H, W) in a layer's output, and how to put others in their place there."""

    local: Tensor
    put_back: Callable[[Tensor], Tensor]


def as_map(output: Any, aspect: float, prefix: int | None = None) -> Map | None:
    """Return the local features in what a layer gave, None where it gave none.

    They are (N, C, H, W), or (N, H, W, C), or (N, T, C) with H*W tokens of image after `prefix` others. Of the first
    two the one with the shape of the images is taken: `aspect` is height over width. Where `prefix` is None, as many
    tokens as fit that shape are taken to be of the image.
    """
    if not isinstance(output, Tensor) or not output.is_floating_point():
        return None
    if output.ndim == 4:
        first, second, third = output.shape[1:]
        if _fits(second, third, aspect):
            return Map(output, lambda local: local)
        if _fits(first, second, aspect):
            return Map(output.permute(0, 3, 1, 2), lambda local: local.permute(0, 2, 3, 1).contiguous())
        return None
    if output.ndim == 3:
        return _of_tokens(output, aspect, prefix)
    return None


def _fits(height: int, width: int, aspect: float) -> bool:
    """Return whether a grid has the shape of the images, up to what strides cut off."""
    return min(height, width) > 0 and abs(height - aspect * width) < 1


def _of_tokens(output: Tensor, aspect: float, prefix: int | None) -> Map | None:
    tokens = output.shape[1] - (prefix or 0)
    if tokens < 1:
        return None
    height = int((tokens * aspect) ** 0.5 + 1e-6)
    width = round(height / aspect)
    if not 1 <= height * width <= tokens or (prefix is not None and height * width != tokens):
        return None
    first = output.shape[1] - height * width

    def put_back(local: Tensor) -> Tensor:
        return torch.cat([output[:, :first], local.flatten(2).transpose(1, 2)], 1)

    return Map(output[:, first:].transpose(1, 2).reshape(*output.shape[::2], height, width), put_back)


class WrappedModel(Classifier):
    """A network of anyone's: pixels in [0, 1] go in, logits come out, its weights are frozen and it is in eval mode.

    Args:
        network: takes images (N, C, H, W) after `preprocess`, gives logits (N, classes).
        preprocess: see `Preprocess`.
        local_layer: dotted name of the layer whose output are the local features; None for a network without.
        attention_layer: dotted name of a layer that gives the attention over positions, see `as_weights`; None for a
            network without.

    Its `pooled` features are the logits: what lies behind the local features is not taken apart. Raises UserError for
    a name that no layer has.
    """

    is_folded = True  # it is used as it is
    answers_alone = False

    def __init__(
        self,
        network: nn.Module,
        preprocess: Preprocess,
        local_layer: str | None = None,
        attention_layer: str | None = None,
    ) -> None:
        super().__init__(network, nn.Identity(), nn.Identity())
        self.preprocess = preprocess
        for name in (local_layer, attention_layer):
            if name is not None:
                _layer(network, name)
        self.local_layer, self.attention_layer = local_layer, attention_layer
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.backbone(self.preprocess(images))
        return logits

    def features(self, images: Tensor) -> Features:
        """Return the features as any classifier does. Raises UserError where the layer's output has no positions,
        or comes several times.
        """
        if self.attention_layer is None:
            return self._pass_through(images, lambda local: local)
        outputs: list[Any] = []
        layer = _layer(self.backbone, self.attention_layer)
        with _hook([(layer, lambda _, __, output: outputs.append(_copy(output)))]):
            features = self._pass_through(images, lambda local: local)
        _check_runs(self.attention_layer, len(outputs))
        count, _, height, width = features.local.shape
        attention = as_weights(outputs[0], (count, height, width), self.attention_layer)
        return features._replace(attention=attention)

    def rest(self, images: Tensor, local: Tensor) -> Tensor:
        """Return the logits if the local features of images were `local`: a whole pass, with these in their place."""
        return self._pass_through(images, lambda _: local).pooled

    def local_module(self) -> nn.Module:
        """Return the module, see `Classifier`. Raises UserError for a network without local features."""
        if self.local_layer is None:
            raise UserError("no layer of the network gives features at several positions: name one by --local-layer.")
        return _layer(self.backbone, self.local_layer)

    def _pass_through(self, images: Tensor, change: Callable[[Tensor], Tensor]) -> Features:
        """Return local features, and the logits of what `change` makes of them."""
        captures: list[Tensor] = []
        pixels = self.preprocess(images)
        aspect = pixels.shape[2] / pixels.shape[3]

        def replace(_: nn.Module, __: Any, output: Any) -> Tensor:
            feature_map = as_map(output, aspect, prefix_tokens(self.backbone))
            if feature_map is None:
                raise UserError(
                    f"layer '{self.local_layer}' gives {_shape(output)}, and local features are (N, C, H, W), "
                    "(N, H, W, C) or (N, tokens, C): `irt model layers` lists those that do."
                )
            captures.append(feature_map.local)
            # A copy goes on, since the next layer may compute in its place.
            return feature_map.put_back(change(feature_map.local)).clone()

        with _hook([(self.local_module(), replace)]):
            logits = self.backbone(pixels)
        _check_runs(self.local_layer, len(captures))
        return Features(captures[0], None, logits)


def _copy(output: Any) -> Any:
    """Return what a layer gave, as it was then: the next one may compute in its place."""
    return output.clone() if isinstance(output, Tensor) else output


def _check_runs(name: str | None, runs: int) -> None:
    if runs != 1:
        raise UserError(
            f"layer '{name}' runs {runs} times in a pass: name one that runs once, `irt model layers` lists them."
        )


def as_weights(output: Any, shape: tuple[int, int, int], label: str) -> Tensor:
    """Return weights (N, H*W) that sum to one, or NaN where all are zero, from what a layer or a function `label` gave.

    `shape` is (N, H, W). It gave (N, H*W), (N, 1, H*W), (N, H, W) or (N, 1, H, W); or the attention of a transformer,
    (N, heads, T, T), of which that of the first token for the last H*W is taken, averaged over the heads. Raises
    UserError for any other shape, and for weights that are negative or not finite.
    """
    count, height, width = shape
    positions = height * width
    if not isinstance(output, Tensor):
        raise UserError(f"'{label}' gives {_shape(output)}, and weights of positions are a tensor.")
    if output.ndim == 4 and output.shape[2] == output.shape[3] > positions and output.shape[0] == count:
        output = output[:, :, 0, -positions:].mean(1)
    if tuple(output.shape) not in ((count, positions), (count, 1, positions), shape, (count, 1, height, width)):
        raise UserError(
            f"'{label}' gives {_shape(output)}, and {count} images with {height}x{width} positions need weights of "
            f"shape ({count}, {positions}) or ({count}, {height}, {width})."
        )
    weights: Tensor = output.reshape(count, positions).float()
    if not bool((weights >= 0).all() and weights.isfinite().all()):
        raise UserError(f"'{label}' gives weights that are negative or not finite: they are shares of one.")
    return weights / weights.sum(1, keepdim=True)


def _shape(output: Any) -> str:
    return f"a tensor of shape {tuple(output.shape)}" if isinstance(output, Tensor) else f"a {type(output).__name__}"


def prefix_tokens(network: nn.Module) -> int | None:
    """Return how many tokens come before those of the image, where the network says so, as timm's do."""
    count = getattr(network, "num_prefix_tokens", None)
    return count if isinstance(count, int) else None


def _layer(network: nn.Module, name: str) -> nn.Module:
    modules_by_name: dict[str, nn.Module] = {path: module for path, module in network.named_modules() if path}
    if name not in modules_by_name:
        matches = difflib.get_close_matches(name, modules_by_name, n=1)
        hint = f"did you mean '{matches[0]}'? " if matches else ""
        top = ", ".join(path for path in modules_by_name if "." not in path)
        raise UserError(f"unknown layer '{name}': {hint}at the top are {top}; `irt model layers` lists all that do.")
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
        return lambda _, __, output: outputs.setdefault(name, []).append(output)

    pixels = preprocess(image).requires_grad_()
    with _hook((module, keep(name)) for name, module in modules_by_name.items()), _seen_by_answer(network) as answers:
        network(pixels.clone())  # a network may work in their place
    aspect, prefix = pixels.shape[2] / pixels.shape[3], prefix_tokens(network)
    maps = {name: as_map(feature_map[-1], aspect, prefix) for name, feature_map in outputs.items()}
    live = [name for name, feature_map in maps.items() if feature_map is not None and outputs[name][-1].requires_grad]
    live_outputs = [outputs[name][-1] for name in live]
    gradients = torch.autograd.grad(answers[-1], live_outputs, allow_unused=True) if live_outputs else ()
    matters = {
        name
        for name, gradient in zip(live, gradients, strict=True)
        if (of_local := as_map(gradient, aspect, prefix)) is not None and bool((of_local.local != 0).any())
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


def default_layer(network: nn.Module, preprocess: Preprocess, image: Tensor) -> str | None:
    """Return the last layer with several positions that everything from the image to the logits passes through.

    Behind a gate or inside of a residual block there may be later ones that see only a part: they are taken where no
    layer sees all. None where no layer has several positions. One image (1, C, H, W) is tried.
    """
    local = [layer.name for layer in reversed(layers(network, preprocess, image)) if layer.is_local]
    sees_all = (name for name in local if _sees_all(network, name, preprocess, image))
    return next(sees_all, local[0] if local else None)


def _sees_all(network: nn.Module, name: str, preprocess: Preprocess, image: Tensor) -> bool:
    """Return whether the answer does not depend on the image where a layer's output is held fixed."""
    pixels = preprocess(image).requires_grad_()
    with _hook([(_layer(network, name), lambda _, __, output: output.detach())]), _seen_by_answer(network) as answers:
        network(pixels.clone())
    if not answers[-1].requires_grad:
        return True
    (gradient,) = torch.autograd.grad(answers[-1], pixels, allow_unused=True)
    return gradient is None or not bool((gradient != 0).any())


@contextmanager
def _hook(hooks: Iterable[tuple[nn.Module, Callable[..., Any]]]) -> Iterator[None]:
    """Forward hooks that are there while this is entered."""
    handles = [module.register_forward_hook(hook) for module, hook in hooks]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _seen_by_answer(network: nn.Module) -> Iterator[list[Tensor]]:
    """Yield a number that depends on all that the answer does, the last of a list after a pass of the network.

    It is made of what linear layers see, the last of which answers in most networks: fresh transformers begin with an
    answer of zero, which depends on nothing.
    """
    answers: list[Tensor] = []

    def of_input(_: nn.Module, inputs: tuple[Any, ...], __: Any) -> None:
        answers.append(inputs[0].square().sum())

    def of_answer(_: nn.Module, __: Any, logits: Any) -> None:
        last = answers[-1:] if isinstance(logits, Tensor) else []
        answers.append(logits.square().sum() + sum(last))

    linear = [(module, of_input) for module in network.modules() if isinstance(module, nn.Linear)]
    with torch.enable_grad(), _hook([*linear, (network, of_answer)]):
        yield answers
