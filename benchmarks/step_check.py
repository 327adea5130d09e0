"""How far do margins of trained networks move in a short step, beside what their gradients say?

    python benchmarks/step_check.py checkpoints/*seed?.safetensors --out docs/choices/step_check.json

`interpret_robust.models.checks.steps` doubts a network whose median image is off by LARGEST_ERROR or more. No doubt
about these networks is right. Beside each stands the same network with waves added to its logits, which has to be
doubted.
"""

from pathlib import Path

import torch
from checks import Row, draw_images, run
from torch import Tensor, nn

import interpret_robust as ir
from interpret_robust.core.device import exact
from interpret_robust.models import Classifier
from interpret_robust.models.checks.steps import LARGEST_ERROR, measure_gains

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
def measure(path: Path) -> list[Row]:
    """Return a row for a checkpoint and for the same with waves: the error of the median image."""
    model = ir.load(path)
    images, _ = draw_images(model, IMAGES)
    rows: list[Row] = []
    for name, height in (("none", 0.0), ("waves", 0.3)):
        network = Waves(model, height)
        with torch.no_grad():
            labels = network(images).argmax(1)
        error = float((measure_gains(network, images, labels) - 1).abs().median())
        rows.append(
            {"checkpoint": path.stem, "change": name, "median error": error, "in doubt": error >= LARGEST_ERROR}
        )
    return rows


if __name__ == "__main__":
    run(str(__doc__), measure, "change")
