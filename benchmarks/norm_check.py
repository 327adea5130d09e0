"""Which networks does the trial doubt because of what enters their batch norms, as they are and changed?

    python benchmarks/norm_check.py checkpoints/*.safetensors --out docs/choices/norm_check.json

Each network is asked about 100 test images: as it is, with another activation, and on images that are prepared in
another way. As it is, no doubt is right.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import interpret_robust as ir
from interpret_robust.core.device import exact
from interpret_robust.datasets import load
from interpret_robust.datasets.batches import to_device, to_pixels
from interpret_robust.models import resnet
from interpret_robust.models.norm_check import LARGEST_DISTANCE, watch_norms
from interpret_robust.results.tables import render

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
def measure(path: Path) -> list[dict[str, object]]:
    """Return a row for each change of a checkpoint or its images: the farthest batch norm, and the accuracy."""
    model = ir.load(path)
    split = load(model.subject.job["dataset"]).test.draw(100)
    images, labels = to_pixels(to_device(split, torch.device("cpu"))[0]), torch.from_numpy(split.labels)
    assert isinstance(model, nn.Module)

    def ask(change: str, pixels: Tensor) -> dict[str, object]:
        with watch_norms(model) as distances:
            accuracy = (model(pixels).argmax(1) == labels).float().mean()
        distance = max(runs[0] for runs in distances.values())
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


def summarize(rows: list[dict[str, object]]) -> list[dict[str, str]]:
    """Return a row for each change: how many checkpoints are in doubt, and the range of their distances."""
    table = []
    for change in dict.fromkeys(row["change"] for row in rows):
        group = [row for row in rows if row["change"] == change]
        distances = sorted(float(str(row["distance"])) for row in group)
        table.append(
            {
                "change": str(change),
                "in doubt": f"{sum(bool(row['in doubt']) for row in group)} of {len(group)}",
                "distance": f"{distances[0]:.2f} to {distances[-1]:.2f}",
            }
        )
    return table


def main() -> None:
    """Measure all checkpoints, print a table, and write the rows as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="+", type=Path)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    rows = [row for path in arguments.checkpoints for row in measure(path)]
    print(render(summarize(rows), "markdown"))
    if arguments.out:
        arguments.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
