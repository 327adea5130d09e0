"""Networks as others write them, data for them, and whether they are left as found: all functions of a seed."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from interpret_robust.datasets import Dataset, Split
from interpret_robust.datasets.base import number_classes
from interpret_robust.datasets.cluttered_digits import make_cluttered_digits
from interpret_robust.datasets.npz import Arrays, write_npz
from interpret_robust.models.building import build_network
from interpret_robust.models.card import Card

N, C, H, W, K = 5, 3, 12, 18, 7


def seed_network(kind: Callable[..., nn.Module], *arguments: Any, seed: int = 0) -> Any:
    """A network whose weights depend on `seed` alone, in eval mode."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return kind(*arguments).eval()


def network_of(card: Card, classes: int) -> nn.Module:
    """The network of a card, about whose weights nothing is doubtful."""
    network, remarks = build_network(card, number_classes(classes))
    assert remarks == []
    return network


class Convolutions(nn.Module):
    """Two convolutions, each followed by a ReLU in place, and a linear layer: `body` gives (N, 8, 6, 9)."""

    def __init__(self, channels: int = C, height: int = H, width: int = W, classes: int = K) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, 4, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.rectify = nn.ReLU(inplace=True)
        self.body = nn.Conv2d(4, 8, 3, padding=1)
        self.rectify_again = nn.ReLU(inplace=True)
        self.answer = nn.Linear(8 * (height // 2) * (width // 2), classes)

    def forward(self, images: Tensor) -> Tensor:
        local = self.body(self.rectify(self.norm(self.stem(images))))
        return self.classify(self.rectify_again(local))

    def classify(self, activations: Tensor) -> Tensor:
        """The logits of what the second ReLU gives."""
        logits: Tensor = self.answer(activations.flatten(1))
        return logits


class Block(nn.Module):
    """A transformer's block without its MLP; `softmax` gives the attention (N, heads, T, T)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.out, self.softmax = nn.Linear(width, 3 * width), nn.Linear(width, width), nn.Softmax(-1)

    def forward(self, tokens: Tensor) -> Tensor:
        count, length, width = tokens.shape
        query, key, value = self.qkv(tokens).reshape(count, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        attention = self.softmax(query @ key.transpose(2, 3) * 3)
        mixture = (attention @ value).transpose(1, 2).reshape(count, length, width)
        return tokens + torch.tanh(self.out(mixture))


class Transformer(nn.Module):
    """A tiny ViT: `prefix` tokens before 2x3 of the image, two blocks, an answer of zero as fresh ones have."""

    def __init__(self, prefix: int = 1, *, zero: bool = False, says: bool = False) -> None:
        super().__init__()
        self.patches = nn.Conv2d(C, 10, 6, stride=6)
        self.first = nn.Parameter(torch.randn(1, prefix, 10))
        self.low, self.high = Block(10, 2), Block(10, 2)
        self.answer = nn.Linear(10, K)
        if zero:
            nn.init.zeros_(self.answer.weight)
            nn.init.zeros_(self.answer.bias)
        if says:
            self.num_prefix_tokens = prefix

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.patches(images).flatten(2).transpose(1, 2)
        return self.classify(self.low(torch.cat([self.first.expand(len(images), -1, -1), tokens], 1)))

    def classify(self, tokens: Tensor) -> Tensor:
        """The logits of the first block's tokens."""
        logits: Tensor = self.answer(self.high(tokens)[:, 0])
        return logits


class GatedNetwork(nn.Module):
    """Local features summed with the weights of a gate that sees them: the gate's output has positions too."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(C, 8, 3, stride=2, padding=1)
        self.score = nn.Conv2d(8, 1, 1)
        self.gate = nn.Sigmoid()
        self.answer = nn.Linear(8, K)

    def forward(self, images: Tensor) -> Tensor:
        local = self.body(images)
        weights = self.gate(self.score(local))
        logits: Tensor = self.answer((weights * local).mean((2, 3)))
        return logits


class Levels(nn.Module):
    """Tells images of one gray apart: class k of K is nearest to (k + 1/2) / K, after pixels * deviation + mean."""

    levels: Tensor

    def __init__(self, classes: int, mean: float = 0.0, deviation: float = 1.0) -> None:
        super().__init__()
        self.mean, self.deviation = mean, deviation
        self.identity = nn.Identity()  # a layer with positions
        self.register_buffer("levels", (torch.arange(classes) + 0.5) / classes)

    def forward(self, images: Tensor) -> Tensor:
        gray = self.identity(images).mean((1, 2, 3)) * self.deviation + self.mean
        logits: Tensor = -(gray[:, None] - self.levels).abs()
        return logits


def levels(classes: int = 20, count: int = 100) -> Dataset:
    """Images of one gray each, as `Levels` tells apart, but for a number in a corner, so that no two are equal."""
    labels = np.arange(count) % classes
    gray = np.round(255 * (labels + 0.5) / classes).astype(np.uint8)
    images = np.ascontiguousarray(np.broadcast_to(gray[:, None, None, None], (count, 12, 18, 3)))
    images[:, 0, 0, 2] += (np.arange(count) // classes).astype(np.uint8)
    split = Split(images, labels)
    return Dataset("levels", split, split, tuple(f"class {label}" for label in range(classes)))


def noise(name: str = "noise", shape: tuple[int, int, int] = (C, H, W), classes: int = K, count: int = 9) -> Dataset:
    """Uniform noise, each class there."""
    channels, height, width = shape
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (count, height, width, channels), np.uint8)
    split = Split(images, np.arange(count) % classes)
    return Dataset(name, split, split, tuple(f"class {label}" for label in range(classes)))


def save_tiny(path: Path, train: int = 20, test: int = 8) -> Path:
    """An .npz of few cluttered digits with their masks."""
    dataset = make_cluttered_digits(train, test)
    arrays: Arrays = {}
    for part, split in (("train", dataset.train), ("test", dataset.test)):
        assert split.masks is not None
        arrays |= {f"x_{part}": split.images, f"y_{part}": split.labels, f"mask_{part}": split.masks}
    write_npz(path, arrays)
    return path


def hooks(model: nn.Module) -> int:
    """How many there are on all modules."""
    return sum(
        len(module._forward_hooks)
        + len(module._forward_pre_hooks)
        + len(module._backward_hooks)
        + len(module._backward_pre_hooks)
        for module in model.modules()
    )


def _state(model: nn.Module) -> list[Any]:
    tensors = [*model.named_parameters(), *model.named_buffers()]
    return [
        [(name, tensor.requires_grad, tensor.grad, tensor.detach().clone().tolist()) for name, tensor in tensors],
        [(module.training, getattr(module, "inplace", None)) for module in model.modules()],
        hooks(model),
        torch.get_rng_state().tolist(),
        repr(np.random.get_state()),
        torch.is_grad_enabled(),
    ]


@contextmanager
def assert_unchanged(model: nn.Module, *tensors: Tensor) -> Iterator[None]:
    """Neither model, tensors nor random state is changed by what is done inside, and nobody is warned."""
    originals = _state(model), [(tensor.clone(), tensor.requires_grad, tensor.grad) for tensor in tensors]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield
    assert _state(model) == originals[0]
    for tensor, (values, requires, grad) in zip(tensors, originals[1], strict=True):
        assert torch.equal(tensor, values)
        assert (tensor.requires_grad, tensor.grad) == (requires, grad)
