"""Small networks whose answers are known, and arrays to feed them. Everything is a function of its seed."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

Array = npt.NDArray[np.float64]


class Linear(nn.Module):
    """Logits `weight @ pixels + bias`, the pixels flattened: PGD's optimum is known in closed form."""

    def __init__(self, pixels: int, classes: int = 2, seed: int = 0) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(seed)
        self.layer = nn.Linear(pixels, classes)
        with torch.no_grad():
            # No weight lies near zero, where a rounded gradient could lose its sign.
            signs = torch.randint(0, 2, (classes, pixels), generator=random) * 2 - 1
            self.layer.weight.copy_(signs * (0.1 + 0.1 * torch.rand((classes, pixels), generator=random)))
            self.layer.bias.copy_(-self.layer.weight.sum(1) / 2)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.layer(images.flatten(1))
        return logits


class InDouble(nn.Module):
    """A model computed in float64 on float32 images, where no rounding error can turn a gradient's sign."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model.double()

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(images.double())
        return logits


def pixels(*shape: int, seed: int = 0, low: float = 0.0, high: float = 1.0) -> Tensor:
    """Uniform float32 pixels."""
    return low + (high - low) * torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def settle(model: nn.Module, seed: int = 0) -> nn.Module:
    """Random statistics, scales and shifts in every batch norm, as after training, and eval mode."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for norm in model.modules():
            if isinstance(norm, nn.BatchNorm2d):
                for tensor in (norm.running_mean, norm.running_var, norm.weight, norm.bias):
                    assert tensor is not None
                    tensor.copy_(0.5 + torch.rand(tensor.shape, generator=random))
    return model.eval()


def array(tensor: Tensor | None) -> Array:
    """As numpy float64."""
    assert tensor is not None
    return tensor.detach().double().numpy()


@dataclass
class Passes:
    """How often a model was run on each image: for a gradient (forward and backward), and forward alone."""

    gradient: int = 0
    forward: int = 0


@contextmanager
def count_passes(model: nn.Module) -> Iterator[Passes]:
    """Yield a count of the model's passes while this is entered."""
    passes = Passes()

    def count(*_: object) -> None:
        if torch.is_grad_enabled():
            passes.gradient += 1
        else:
            passes.forward += 1

    hook = model.register_forward_pre_hook(count)
    try:
        yield passes
    finally:
        hook.remove()
