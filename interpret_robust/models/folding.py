"""The same network for evaluation, with less to do: batch norm folded away, nothing kept for gradients of weights."""

import copy
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.utils.fusion import fuse_conv_bn_eval

from interpret_robust.models.classifier import Classifier
from interpret_robust.models.resnet import NEGATIVE_SLOPE, Unit, activate

M = TypeVar("M", bound=nn.Module)


class Affine(nn.Module):
    """Batch norm by its running statistics: one multiplication and one addition a channel."""

    scale: Tensor
    shift: Tensor

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        assert norm.running_mean is not None and norm.running_var is not None
        scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        self.register_buffer("scale", scale[:, None, None])
        self.register_buffer("shift", (norm.bias - norm.running_mean * scale)[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        return torch.addcmul(self.shift, x, self.scale)


class FoldedUnit(nn.Module):
    """A `Unit` by running statistics: one convolution has the second norm in it, and gradients are made in place."""

    def __init__(self, unit: Unit) -> None:
        super().__init__()
        self.norm1, self.conv1 = Affine(unit.norm1), fuse_conv_bn_eval(unit.conv1, unit.norm2)
        self.conv2, self.shortcut, self.activate_shortcut = unit.conv2, unit.shortcut, unit.activate_shortcut

    def forward(self, x: Tensor) -> Tensor:
        values, residual = _Residual.apply(x, self.norm1, self.conv1, self.conv2)
        output: Tensor = residual.add_(self.shortcut(values if self.activate_shortcut else x))
        return output


class _Residual(torch.autograd.Function):
    """What a folded unit adds to its shortcut. Autograd would write each gradient to memory of its own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, norm: Affine, first: nn.Conv2d, second: nn.Conv2d) -> tuple[Tensor, Tensor]:
        values = activate(norm(x))
        inner = activate(first(values))
        ctx.save_for_backward(values, inner)
        ctx.layers = norm, first, second
        ctx.set_materialize_grads(False)
        return values, second(inner)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_activated: Tensor | None, of_residual: Tensor) -> tuple[Tensor, None, None, None]:
        (values, inner), (norm, first, second) = ctx.saved_tensors, ctx.layers
        of_hidden = _propagate_through_activation(inner, _propagate_through_convolution(second, inner, of_residual))
        gradient = _propagate_through_convolution(first, values, of_hidden)
        if of_activated is not None:
            gradient += of_activated
        return _propagate_through_activation(values, gradient).mul_(norm.scale), None, None, None


def _propagate_through_convolution(layer: nn.Conv2d, x: Tensor, gradient: Tensor) -> Tensor:
    """Return the gradient of a convolution's input `x`, from that of its output."""
    # Not torch.nn.grad.conv2d_input, which fills memory of the size of `x` first.
    geometry = layer.stride, layer.padding, layer.dilation, False, (0, 0), layer.groups
    output_mask = True, False, False
    of_x: Tensor
    of_x, *_ = torch.ops.aten.convolution_backward(gradient, x, layer.weight, None, *geometry, output_mask)
    return of_x


def _propagate_through_activation(values: Tensor, gradient: Tensor) -> Tensor:
    """Return the gradient of an activation's input, in the place of that of its output."""
    backward = torch.ops.aten.leaky_relu_backward.grad_input
    gradient_before: Tensor = backward(gradient, values, NEGATIVE_SLOPE, True, grad_input=gradient)
    return gradient_before


@torch.no_grad()
def fold(model: Classifier) -> Classifier:
    """Return a model in eval mode that answers as `model` does there, with the same gradients of images, up to
    rounding.

    Running statistics are constants: where batch norm follows a convolution they go into its weights, elsewhere they
    become an `Affine`. What is not folded shares its numbers with `model`; what is folded is of this moment. The
    weights ask for no gradients and lie in channels-last order. A folded model is returned as it is.
    """
    if model.is_folded:
        return model
    network = freeze(model).eval()
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, Unit):
                setattr(module, name, FoldedUnit(child))
            elif isinstance(child, nn.BatchNorm2d):
                setattr(module, name, Affine(child))
    network.is_folded = True
    return network.eval().to(memory_format=torch.channels_last)


def freeze(module: M) -> M:
    """Return a copy that shares all numbers: as `copy.deepcopy` would give, in an eighth of its time."""
    twin = copy.copy(module)
    twin._buffers = dict(module._buffers)
    twin._parameters = {
        name: weights if weights is None else nn.Parameter(weights.detach(), requires_grad=False)
        for name, weights in module._parameters.items()
    }
    twin._modules = {name: child if child is None else freeze(child) for name, child in module._modules.items()}
    return twin
