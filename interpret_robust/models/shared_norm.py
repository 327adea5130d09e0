"""Batch norm over the images of all ranks, so that a network in training does not see how many there are.

torch.nn.SyncBatchNorm does the same and wants a GPU.
"""

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

from interpret_robust.core.errors import UserError


class _Normalize(torch.autograd.Function):
    """Batch norm (N, C, ...) by mean and variance over all ranks, which it also gives, with the number of entries."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        # Of a network in bfloat16 the statistics, as the weights of its batch norm, are in float32.
        local_mean, local_variance = torch.ops.aten.batch_norm_update_stats(x.to(weight.dtype), None, None, 0.0)
        # In float64, where nothing is lost when the square of the mean is taken away again.
        first = local_mean.double()
        moments = torch.stack([torch.ones_like(first), first, local_variance + first.square()])
        dist.all_reduce(moments.mul_(x.numel() // x.shape[1]))
        count, first, second = moments[0], moments[1] / moments[0], moments[2] / moments[0]
        mean, variance = first.to(local_mean), (second - first.square()).to(local_mean)
        ctx.save_for_backward(x, weight, mean, torch.rsqrt(variance + eps), count.to(local_mean))
        ctx.eps = eps
        ctx.mark_non_differentiable(mean, variance, count)
        return F.batch_norm(x, mean, variance, weight, bias, training=False, eps=eps), mean, variance, count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight, mean, inverse, count = ctx.saved_tensors
        backward, output_mask = torch.ops.aten.native_batch_norm_backward, [False, True, True]
        _, of_weight, of_bias = backward(gradient, x, weight, None, None, mean, inverse, True, ctx.eps, output_mask)
        sums = torch.stack([of_weight, of_bias])
        dist.all_reduce(sums)
        # scale * (gradient - mean(gradient) - normalized x * mean(gradient * normalized x))
        scale = weight * inverse
        by_x = -scale * inverse * sums[0] / count
        shift = -scale * sums[1] / count - by_x * mean
        column = (-1, *(1,) * (x.ndim - 2))
        of_x = torch.addcmul(shift.view(column), x, by_x.view(column)).addcmul_(gradient, scale.view(column))
        return of_x.to(x.dtype), of_weight, of_bias, None


class _SharedNorm(_BatchNorm):
    """Batch norm (any number of axes after the channels) whose batch is that of all ranks together, in train mode."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        values: Tensor
        values, mean, variance, count = _Normalize.apply(x, self.weight, self.bias, self.eps)
        self._track(mean, variance * (count / (count - 1)))
        return values

    @torch.no_grad()
    def _track(self, mean: Tensor, unbiased_variance: Tensor) -> None:
        assert self.running_mean is not None and self.running_var is not None and self.momentum is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean.to(self.running_mean), self.momentum)
        self.running_var.lerp_(unbiased_variance.to(self.running_var), self.momentum)


class SharedNorm1d(_SharedNorm, nn.BatchNorm1d):
    """Of (N, C) or (N, C, L)."""


class SharedNorm2d(_SharedNorm, nn.BatchNorm2d):
    """Of (N, C, H, W)."""


_CLASSES = {nn.BatchNorm1d: SharedNorm1d, nn.BatchNorm2d: SharedNorm2d}


def share_batch_norm(model: nn.Module) -> None:
    """Let each batch norm below `model` see the batch of all ranks. Weights, buffers and names stay as they are.

    Raises UserError for one that is not of (N, C) or (N, C, H, W), with weights and a running mean.
    """
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm) and not isinstance(module, _SharedNorm):
            if (
                type(module) not in _CLASSES
                or not module.affine
                or module.running_mean is None
                or module.momentum is None
            ):
                raise UserError(f"several processes cannot share the batch norm {name} ({module}): train it by one.")
            module.__class__ = _CLASSES[type(module)]
