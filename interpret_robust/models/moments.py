"""Mean and variance by channel of what comes in batches."""

import torch
from torch import Tensor


class Moments:
    """Count, sums and sums of squares by channel, in float64, of values (N, C, ...) that come in batches.

    Example:
        >>> moments = Moments()
        >>> moments.add(torch.tensor([[1.0], [3.0]]))
        >>> moments.mean.tolist(), moments.variance.tolist()
        ([2.0], [1.0])
    """

    def __init__(self) -> None:
        self.count = 0
        self.first: Tensor | float = 0.0
        self.second: Tensor | float = 0.0

    def add(self, values: Tensor) -> None:
        """Add values (N, C, ...)."""
        by_channel = values.detach().transpose(0, 1).flatten(1).double()
        self.count += by_channel.shape[1]
        self.first = self.first + by_channel.sum(1)
        self.second = self.second + by_channel.square().sum(1)

    def __add__(self, other: "Moments") -> "Moments":
        """Return the moments of both sets of values."""
        result = Moments()
        result.count, result.first, result.second = (
            self.count + other.count,
            self.first + other.first,
            self.second + other.second,
        )
        return result

    @property
    def mean(self) -> Tensor:
        """Return the mean of each channel (C,)."""
        return torch.as_tensor(self.first) / self.count

    @property
    def variance(self) -> Tensor:
        """Return the variance of each channel (C,): the sum of squared differences over the count."""
        return (torch.as_tensor(self.second) / self.count - self.mean.square()).clamp_(min=0)
