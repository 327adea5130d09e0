"""The paper's MNIST network: two 5x5 convolutions of 32 and 64 filters, each before a 2x2 max-pool.

Source: https://github.com/MadryLab/mnist_challenge, model.py: "SAME" padding, ReLU, weights from a
normal of deviation 0.1 truncated at two deviations, biases 0.1. Pixels in [0, 1], not standardized.
"""

from torch import Tensor, nn

DENSE_UNITS = 1024


class CNN(nn.Module):
    """Images (N, channels, H, W) in [0, 1] to local features (N, 64, H/4, W/4)."""

    local_channels = 64

    def __init__(self, image_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(image_channels, 32, 5, padding=2)
        self.conv2 = nn.Conv2d(32, 64, 5, padding=2)
        self.pool = nn.MaxPool2d(2)

    def forward(self, images: Tensor) -> Tensor:
        # ReLU after the max-pool gives the same as before it, from a quarter of the numbers.
        units: Tensor = self.pool(self.conv1(images)).relu()
        local: Tensor = self.pool(self.conv2(units)).relu()
        return local


def initialize(module: nn.Module) -> None:
    """Initialize as the challenge does every convolution and linear layer below `module`."""
    for layer in module.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.trunc_normal_(layer.weight, std=0.1, a=-0.2, b=0.2)
            if layer.bias is not None:
                nn.init.constant_(layer.bias, 0.1)
