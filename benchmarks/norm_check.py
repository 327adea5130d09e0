"""Which networks does the trial doubt because of what enters their batch norms, as they are and changed?

    python benchmarks/norm_check.py checkpoints/*seed?.safetensors --out docs/choices/norm_check.json

Each network is asked about 100 test images: as it is, with another activation, and on images that are prepared in
another way. As it is, no doubt is right.
"""

from collections.abc import Callable
from pathlib import Path
from unittest import mock

import torch
import torch.nn.functional as F
from checks import Row, draw_images, run
from torch import Tensor, nn

import interpret_robust as ir
from interpret_robust.core.device import exact
from interpret_robust.models import resnet
from interpret_robust.models.checks.norms import LARGEST_DISTANCE, measure_norms

Function = Callable[[Tensor], Tensor]

ACTIVATIONS: dict[str, Function] = {
    "ReLU": F.relu,
    "leaky ReLU, slope 0.2": lambda x: F.leaky_relu(x, 0.2),
    "GELU": F.gelu,
    "SiLU": F.silu,
    "ELU": F.elu,
}
"""Instead of the leaky ReLU of slope 0.1 that the networks were trained with."""


def to_ycbcr(images: Tensor) -> Tensor:
    """Return RGB images (N, 3, H, W) in [0, 1] as YCbCr of JPEG (ITU-T T.871), in [0, 1]."""
    red, green, blue = images.unbind(1)
    gray = 0.299 * red + 0.587 * green + 0.114 * blue
    return torch.stack([gray, 0.5 + (blue - gray) / 1.772, 0.5 + (red - gray) / 1.402], 1)


def pad(images: Tensor) -> Tensor:
    """Return images (N, C, H, W) with a black border of an eighth, in their old size."""
    height, width = images.shape[2:]
    return F.interpolate(F.pad(images, [width // 8] * 2 + [height // 8] * 2), (height, width), mode="bilinear")


PREPARATIONS: dict[str, Function] = {
    "YCbCr": to_ycbcr,
    "colors rotated": lambda images: images.roll(1, 1),
    "gray": lambda images: images.mean(1, keepdim=True).expand_as(images),
    "half the size and back": lambda images: F.interpolate(F.avg_pool2d(images, 2), scale_factor=2, mode="bilinear"),
    "padded": pad,
    "linear light": lambda images: images.pow(2.2),
    "a quarter turn": lambda images: images.rot90(1, (2, 3)),
}


@exact()
@torch.no_grad()
def measure(path: Path) -> list[Row]:
    """Return a row for each change of a checkpoint or its images: the farthest batch norm, and the accuracy."""
    model = ir.load(path)
    images, labels = draw_images(model, 100)
    assert isinstance(model, nn.Module)

    def ask(change: str, pixels: Tensor) -> Row:
        accuracy = (model(pixels).argmax(1) == labels).float().mean()
        distance = max(measure_norms(model, model, pixels).values())
        return {
            "checkpoint": path.stem,
            "change": change,
            "distance": distance,
            "accuracy": float(accuracy),
            "in doubt": distance >= LARGEST_DISTANCE,
        }

    rows = [ask("none", images)]
    for name, function in ACTIVATIONS.items():
        with mock.patch.object(resnet, "activate", function):
            rows.append(ask(name, images))
    return rows + [ask(name, prepare(images)) for name, prepare in PREPARATIONS.items()]


if __name__ == "__main__":
    run(str(__doc__), measure, "change")
