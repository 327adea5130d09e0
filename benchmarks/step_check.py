"""How far do margins of trained networks move in a short step, beside what their gradients say?

    python benchmarks/step_check.py checkpoints/*.safetensors --out docs/choices/step_check.json

`interpret_robust.models.step_check` doubts a network whose median image is off by LARGEST_ERROR or more. No doubt about
these networks is right. Beside each stands the same network with waves added to its logits, which has to be doubted.
"""

import argparse
import json
from pathlib import Path

import torch
from torch import Tensor, nn

import interpret_robust as ir
from interpret_robust.core.device import exact
from interpret_robust.datasets import load
from interpret_robust.datasets.batches import to_device, to_pixels
from interpret_robust.models import Classifier
from interpret_robust.models.step_check import LARGEST_ERROR, gains_by_promise
from interpret_robust.results.tables import render

IMAGES = 64


class Waves(Classifier):
    """A classifier with sines of its logits added to them: gradients are right, and useless beyond a small step."""

    def __init__(self, model: nn.Module, height: float) -> None:
        super().__init__(model, nn.Identity(), nn.Identity())
        self.height = height

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, classes) of images (N, C, H, W), with waves."""
        logits: Tensor = self.backbone(images)
        return logits + self.height * torch.sin(200 * logits)


@exact()
def measure(path: Path) -> list[dict[str, object]]:
    """Return a row for a checkpoint and for the same with waves: the error of the median image."""
    model = ir.load(path)
    split = load(model.subject.job["dataset"]).test.draw(IMAGES)
    images = to_pixels(to_device(split, torch.device("cpu"))[0])
    rows: list[dict[str, object]] = []
    for name, height in (("none", 0.0), ("waves", 0.3)):
        network = Waves(model, height)
        with torch.no_grad():
            labels = network(images).argmax(1)
        error = float((gains_by_promise(network, images, labels) - 1).abs().median())
        rows.append(
            {"checkpoint": path.stem, "change": name, "median error": error, "in doubt": error >= LARGEST_ERROR}
        )
    return rows


def main() -> None:
    """Measure all checkpoints, print a table, and write the rows as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="+", type=Path)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    rows = [row for path in arguments.checkpoints for row in measure(path)]
    print(render([{name: str(value) for name, value in row.items()} for row in rows], "markdown"))
    if arguments.out:
        arguments.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
