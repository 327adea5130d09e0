"""What benchmarks of the trial's checks have in common: they ask something of each checkpoint, and keep the rows."""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from interpret_robust.api.model import Model
from interpret_robust.datasets import load
from interpret_robust.datasets.batches import to_device, to_pixels
from interpret_robust.results.tables import render

Row = dict[str, object]


def draw_images(model: Model, count: int) -> tuple[Tensor, Tensor]:
    """Return test images (count, C, H, W) in [0, 1] of the data that a model was trained on, and labels (count,)."""
    split = load(model.subject.job["dataset"]).test.draw(count)
    return to_pixels(to_device(split, torch.device("cpu"))[0]), torch.from_numpy(split.labels)


def run(description: str, measure: Callable[[Path], list[Row]], key: str) -> None:
    """Measure all checkpoints of the command line, write the rows as JSON, and print how many are in doubt by `key`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    rows = [row for path in arguments.checkpoints for row in measure(path)]
    arguments.out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    print(render(_count_doubts(rows, key)))


def _count_doubts(rows: Sequence[Row], key: str) -> list[Mapping[str, str]]:
    """Return a row for each value of a column: how many networks there are, and how many are in doubt."""
    table: list[Mapping[str, str]] = []
    for value in dict.fromkeys(row[key] for row in rows):
        group = [row for row in rows if row[key] == value]
        doubts = sum(bool(row["in doubt"]) for row in group)
        table.append({key: str(value), "networks": str(len(group)), "in doubt": str(doubts)})
    return table
