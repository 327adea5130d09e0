"""Whether passes of a network change its own numbers: its weights and its buffers."""

from collections.abc import Mapping

import torch
from torch import nn

OwnNumbers = Mapping[str, float]
"""The sum over each weight and buffer of a network, by name."""


@torch.no_grad()
def sum_up(network: nn.Module) -> OwnNumbers:
    """Return the sum over each weight and buffer, by name, with which `describe_changes` compares.

    Example:
        >>> sum_up(torch.nn.BatchNorm2d(3))["running_var"]
        3.0
    """
    tensors = dict((*network.named_parameters(), *network.named_buffers()))
    sums = [tensor.to_dense().sum() for tensor in tensors.values() if not tensor.is_quantized]
    names = [name for name, tensor in tensors.items() if not tensor.is_quantized]
    return dict(zip(names, (complex(total).real for total in sums), strict=True))


def describe_changes(first: OwnNumbers, second: OwnNumbers) -> str:
    """Return which weights and buffers have another sum now, weights before counters; empty where none has.

    Example:
        >>> describe_changes({"mean": 0.0, "scale": 1.0}, {"mean": 2.0, "scale": 1.0})
        "'mean'"
    """
    names = [name for name, total in second.items() if repr(total) != repr(first.get(name))]
    if not names:
        return ""
    return f"'{names[0]}'" + (f" and {len(names) - 1} more" if len(names) > 1 else "")
