"""Which networks does the trial say are attacked less well by the cross-entropy, as they are and changed?

    python benchmarks/loss_check.py checkpoints/*seed?.safetensors --out docs/choices/loss_check.json

Each network's logits pass through a function, and the doubt of `interpret_robust.models.checks.losses` is asked of its
first right images. Without a function no doubt is right: these networks are attacked as well by either loss.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from checks import Row, draw_images, run
from torch import Tensor, nn

import interpret_robust as ir
from interpret_robust.core.device import exact
from interpret_robust.models import Classifier
from interpret_robust.models.checks.losses import doubt_about_loss, measure_ways
from interpret_robust.models.checks.trial import LOSS_IMAGES

FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda logits: logits,
    "tanh": torch.tanh,
    "tanh(z / 3)": lambda logits: torch.tanh(logits / 3),
    "softsign": nn.functional.softsign,
    "z / 10": lambda logits: logits / 10,
    "z / 3": lambda logits: logits / 3,
    "10 z / |z|": lambda logits: 10 * nn.functional.normalize(logits),
}
"""Functions of logits (N, classes), by the name that tables give them."""


class Changed(Classifier):
    """A classifier whose logits pass through a function."""

    def __init__(self, model: nn.Module, name: str) -> None:
        super().__init__(model, nn.Identity(), nn.Identity())
        self.change = FUNCTIONS[name]

    def forward(self, images: Tensor) -> Tensor:
        """Return the changed logits (N, classes) of images (N, C, H, W)."""
        logits: Tensor = self.change(self.backbone(images))
        return logits


@exact()
def measure(path: Path) -> list[Row]:
    """Return a row for each function of a checkpoint's logits: shares of the way, and whether it is in doubt."""
    model = ir.load(path)
    images, labels = draw_images(model, 100)
    with torch.no_grad():
        (right,) = (model(images).argmax(1) == labels).nonzero(as_tuple=True)
    chosen = right[: 4 * LOSS_IMAGES]
    rows: list[Row] = []
    for name in FUNCTIONS:
        network = Changed(model, name)
        shares = measure_ways(network, images[chosen], labels[chosen])
        row = {"checkpoint": path.stem, "function": name, "images": len(chosen)}
        row |= {"lower quartile": float(shares.quantile(0.25)), "median": float(shares.quantile(0.5))}
        doubt = doubt_about_loss(network, images[chosen], labels[chosen], LOSS_IMAGES)
        rows.append(row | {"in doubt": doubt is not None})
    return rows


if __name__ == "__main__":
    run(str(__doc__), measure, "function")
