"""Heads: how local features become one vector. All take local features (N, C, H, W).

A head returns `(attention, pooled)`: weights (N, H*W) that sum to one over positions in row-major
order, or None where the head has none, and pooled features (N, C').
"""

from torch import Tensor, nn


class AveragePool(nn.Module):
    """The mean over positions: the base network's global feature."""

    def forward(self, local: Tensor) -> tuple[None, Tensor]:
        return None, local.sum((2, 3)) / local.shape[2:].numel()  # a cheaper gradient than local.mean((2, 3))


class DenseHead(nn.Module):
    """All local features through one fully connected ReLU layer, as in the paper's MNIST network."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.dense = nn.Linear(inputs, outputs)

    def forward(self, local: Tensor) -> tuple[None, Tensor]:
        return None, self.dense(local.flatten(1)).relu()


class NonlinearAttention(nn.Module):
    """The paper's attention (Eqs. 3 to 5): a one-hidden-layer ReLU network scores each position.

    The global feature g is max-pool, 3x3 convolution, max-pool down to one position. The score of a
    position is the network's answer to the concatenation of its local feature and g; a softmax over
    positions gives the weights, and the weighted sum of local features is the pooled feature.
    """

    def __init__(self, channels: int, units: int = 64) -> None:
        super().__init__()
        self.global_feature = nn.Sequential(
            nn.MaxPool2d(2), nn.Conv2d(channels, channels, 3, padding=1), nn.AdaptiveMaxPool2d(1), nn.Flatten()
        )
        self.from_local = nn.Conv2d(channels, units, 1)
        self.from_global = nn.Linear(channels, units, bias=False)
        self.score = nn.Conv2d(units, 1, 1)

    def forward(self, local: Tensor) -> tuple[Tensor, Tensor]:
        # One matrix applied to [l; g] is the sum of one applied to l and one applied to g.
        g = self.from_global(self.global_feature(local))
        scores = self.score(self.from_local(local).add_(g[:, :, None, None]).relu_())
        return weighted_sum(local, scores)


class LinearAttention(nn.Module):
    """The parametrized compatibility of Jetley et al. 2018 (https://arxiv.org/abs/1804.02391): <u, l + g>.

    The term <u, g> is the same at every position and cancels in the softmax, so it is not computed:
    the weights are exactly those of the published form, and do not depend on g.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.score = nn.Conv2d(channels, 1, 1, bias=False)

    def forward(self, local: Tensor) -> tuple[Tensor, Tensor]:
        return weighted_sum(local, self.score(local))


def weighted_sum(local: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    """Return the softmax of scores (N, 1, H, W) over positions, and the local features' sum under it (Eqs. 4 and 5)."""
    attention = scores.flatten(1).softmax(1)
    by_position = local.permute(0, 2, 3, 1).flatten(1, 2)  # as they lie in memory, and as their gradient should
    return attention, (attention[:, None] @ by_position)[:, 0]
