"""Batch norm over the images of all ranks, so that a network in training does not see how many there are.

torch.nn.SyncBatchNorm does the same and wants a GPU.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class _Sum(torch.autograd.Function):
    """The sum over all ranks. Each rank's loss depends on it, and so do the gradients that it gets back."""

    @staticmethod
    def forward(_: Any, x: Tensor) -> Tensor:
        summed = x.clone()
        dist.all_reduce(summed)
        return summed

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:
        summed = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(summed)
        return summed


class _Shared(_BatchNorm):
    """Batch norm (any number of axes after the channels) whose batch is that of all ranks together, in train mode."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        exact = x if x.dtype == torch.float64 else x.float()
        variance, mean = torch.var_mean(exact, [axis for axis in range(x.ndim) if axis != 1], correction=0)
        # In float64, where nothing is lost when the square of the mean is taken away again.
        local = torch.stack([torch.ones_like(mean, dtype=torch.float64), mean.double(), variance + mean.double() ** 2])
        count, first, second = _Sum.apply(local * (x.numel() // x.shape[1]))
        mean, variance = first / count, second / count - (first / count).square()
        self._track(mean.detach(), (variance * (count / (count - 1))).detach())
        scale = self.weight * torch.rsqrt(variance + self.eps)
        shift = self.bias - mean * scale
        column = (-1, *(1,) * (x.ndim - 2))
        return torch.addcmul(shift.to(exact).view(column), exact, scale.to(exact).view(column)).to(x)

    @torch.no_grad()
    def _track(self, mean: Tensor, unbiased: Tensor) -> None:
        assert self.running_mean is not None and self.running_var is not None and self.momentum is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean.to(self.running_mean), self.momentum)
        self.running_var.lerp_(unbiased.to(self.running_var), self.momentum)


class SharedNorm1d(_Shared, nn.BatchNorm1d):
    """Of (N, C) or (N, C, L)."""


class SharedNorm2d(_Shared, nn.BatchNorm2d):
    """Of (N, C, H, W)."""


_OF = {nn.BatchNorm1d: SharedNorm1d, nn.BatchNorm2d: SharedNorm2d}


def share_batch_norm(model: nn.Module) -> None:
    """Let each batch norm below `model` see the batch of all ranks. Weights, buffers and names stay as they are."""
    for module in model.modules():
        if isinstance(module, _BatchNorm) and not isinstance(module, _Shared):
            module.__class__ = _OF[type(module)]
