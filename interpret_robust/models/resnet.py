"""The paper's base network: the pre-activation ResNet of the CIFAR-10 challenge.

Source: https://github.com/MadryLab/cifar10_challenge, model.py, with filters [16, 16, 32, 64] for `narrow`
(464,154 parameters with average pooling) and [16, 48, 96, 192] for `wide3`. `small` keeps the unit and
the 8x8 local features, with one unit a stage and a stem of stride 2, for CPUs.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NEGATIVE_SLOPE = 0.1


class PerImageStandardization(nn.Module):
    """Subtract each image's mean and divide by its deviation, at least 1/(255 sqrt(pixels)).

    tf.image.per_image_standardization of the challenge, on pixels in [0, 1]. The network therefore does
    not change when an image is shifted, nor when it is scaled.
    """

    def forward(self, images: Tensor) -> Tensor:
        floor = 1 / (255**2 * images[0].numel())
        if images.device.type == "cpu":
            # One pass, where no image is below the floor. Looking would stop a GPU, whose compiler does as well.
            by_row = images.permute(0, 2, 3, 1)
            pixels, _, inverse = torch.native_layer_norm(by_row, by_row.shape[1:], None, None, 0.0)
            if bool((inverse.detach() < floor**-0.5).all()):
                return pixels.permute(0, 3, 1, 2)
        deviations = images - images.mean((1, 2, 3), keepdim=True)
        variance = deviations.square().mean((1, 2, 3), keepdim=True)
        # The floor goes under the root, whose slope at zero would make the gradient of a blank image NaN.
        return deviations / variance.clamp_min(floor).sqrt()


def make_batch_norm(channels: int) -> nn.BatchNorm2d:
    """Return batch norm with TensorFlow's epsilon and the challenge's decay of 0.9."""
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.1)


def make_convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    """Return a 3x3 convolution without bias, initialized by fan-out: N(0, sqrt(2 / (9 * outputs)))."""
    layer = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
    nn.init.normal_(layer.weight, std=math.sqrt(2 / (9 * outputs)))
    return layer


def activate(x: Tensor) -> Tensor:
    """Apply leaky ReLU in the place of `x`, which nothing else needs."""
    return F.leaky_relu_(x, NEGATIVE_SLOPE)


class Shortcut(nn.Module):
    """Average pooling by `stride`, and `padding` zero channels on each side."""

    def __init__(self, stride: int, padding: int) -> None:
        super().__init__()
        self.stride, self.padding = stride, padding

    def forward(self, x: Tensor) -> Tensor:
        if self.stride > 1:
            x = F.avg_pool2d(x, self.stride)
        if self.padding:
            x = F.pad(x, (0, 0, 0, 0, self.padding, self.padding))
        return x


class Unit(nn.Module):
    """Norm, activation, convolution, twice, beside a shortcut of average pooling and zero channels."""

    def __init__(self, inputs: int, outputs: int, stride: int, *, activate_shortcut: bool) -> None:
        super().__init__()
        self.norm1, self.conv1 = make_batch_norm(inputs), make_convolution(inputs, outputs, stride)
        self.norm2, self.conv2 = make_batch_norm(outputs), make_convolution(outputs, outputs)
        self.shortcut, self.activate_shortcut = Shortcut(stride, (outputs - inputs) // 2), activate_shortcut

    def forward(self, x: Tensor) -> Tensor:
        values = activate(self.norm1(x))
        inner = activate(self.norm2(self.conv1(values)))
        residual: Tensor = self.conv2(inner)
        return residual.add_(self.shortcut(values if self.activate_shortcut else x))


class ResNet(nn.Module):
    """Images (N, channels, H, W) in [0, 1] to local features: the last stage, normalized and activated."""

    def __init__(
        self, image_channels: int, filters: tuple[int, int, int, int], units: int, stem_stride: int = 1
    ) -> None:
        super().__init__()
        stem, *widths = filters
        # With a stem of stride 2 the last stage keeps its resolution, so that there are still 8x8 positions.
        strides = (1, 2, 2 // stem_stride)
        self.standardize = PerImageStandardization()
        self.stem = make_convolution(image_channels, stem, stem_stride)
        stages, inputs = [], stem
        for stage, (outputs, stride) in enumerate(zip(widths, strides, strict=True)):
            for unit in range(units):
                first = unit == 0
                activate = first and stage == 0
                stages.append(Unit(inputs, outputs, stride if first else 1, activate_shortcut=activate))
                inputs = outputs
        self.units = nn.Sequential(*stages)
        self.norm = make_batch_norm(inputs)
        self.local_channels = inputs

    def forward(self, images: Tensor) -> Tensor:
        return activate(self.norm(self.units(self.stem(self.standardize(images)))))


def initialize_classifier(classifier: nn.Linear) -> None:
    """Initialize with the challenge's uniform unit scaling, U(+-sqrt(3 / inputs)), and zero biases."""
    bound = math.sqrt(3 / classifier.in_features)
    nn.init.uniform_(classifier.weight, -bound, bound)
    nn.init.zeros_(classifier.bias)
