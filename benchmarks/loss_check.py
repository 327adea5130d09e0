"""Which networks does the trial say are attacked less well by the cross-entropy, as they are and changed?

    python benchmarks/loss_check.py checkpoints/*.safetensors --out docs/choices/loss_check.json

Each network's logits pass through a function, and the doubt of `interpret_robust.models.loss_check` is asked of its
first right images. Without a function no doubt is right: these networks are attacked as well by either loss.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

import interpret_robust as ir
from interpret_robust.core.device import exact
from interpret_robust.datasets import load
from interpret_robust.datasets.batches import to_device, to_pixels
from interpret_robust.models import Classifier
from interpret_robust.models.loss_check import doubt_about_loss, shares_of_way
from interpret_robust.models.trial import LOSS_IMAGES
from interpret_robust.results.tables import render

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
def measure(path: Path) -> list[dict[str, object]]:
    """Return a row for each function of a checkpoint's logits: shares of the way, and whether it is in doubt."""
    model = ir.load(path)
    split = load(model.subject.job["dataset"]).test.draw(100)
    images, labels = to_pixels(to_device(split, torch.device("cpu"))[0]), torch.from_numpy(split.labels)
    with torch.no_grad():
        (right,) = (model(images).argmax(1) == labels).nonzero(as_tuple=True)
    chosen = right[: 4 * LOSS_IMAGES]
    rows: list[dict[str, object]] = []
    for name in FUNCTIONS:
        network = Changed(model, name)
        shares = shares_of_way(network, images[chosen], labels[chosen])
        row = {"checkpoint": path.stem, "function": name, "images": len(chosen)}
        row |= {"lower quartile": float(shares.quantile(0.25)), "median": float(shares.quantile(0.5))}
        doubt = doubt_about_loss(network, images[chosen], labels[chosen], LOSS_IMAGES)
        rows.append(row | {"in doubt": doubt is not None})
    return rows


def main() -> None:
    """Print a table of counts, and write the rows it is of."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    rows = [row for path in arguments.checkpoints for row in measure(path)]
    arguments.out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    counts = []
    for name in FUNCTIONS:
        of_function = [row for row in rows if row["function"] == name]
        doubtful = sum(bool(row["in doubt"]) for row in of_function)
        counts.append({"function": name, "networks": str(len(of_function)), "in doubt": str(doubtful)})
    print(render(counts))


if __name__ == "__main__":
    main()
