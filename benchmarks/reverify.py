"""Do stored analyses come out the same, here, from the checkpoints and the data that they name?

    python benchmarks/reverify.py analyses/robustness-cifar10-*.h5 analyses/gradmap-score-cifar10-*.h5 --limit 100

Each file's analysis is asked anew of the first images, with the stored settings, checkpoints and evaluators, and what
it finds is set against the stored rows of these images: answers (classes) by how many are equal, numbers by how far
they are apart. Exit status 1 where fewer than LEAST_EQUAL of a file's answers are equal, or where a checkpoint has
other tensors than those that were analyzed. Processors round differently: an image on a boundary may go the other way.
Maps of gradmap-score that are scaled over the set (`clip-set`) depend on how many images there are. So does the other
image that alignment pairs each image with, and how many gradients an attack takes, by what else is in its batch: such
columns are compared only where all images are asked.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from interpret_robust import analyses
from interpret_robust.core.errors import UserError
from interpret_robust.results import hdf5
from interpret_robust.results.tables import render
from interpret_robust.study.tasks import AnalysisTask

LEAST_EQUAL = 0.99
ZERO = 1e-5
"""Numbers of a column that are all smaller are zero but for rounding, as products that are zero by construction are."""
OF_ALL = ("partner", "cosine_shuffled", "alpha_shuffled", "edge_cosine_shuffled", "gradients")
"""Columns that depend on other images: those of alignment that are measured with another one, and costs."""


def verify(path: Path, checkpoints: Path, limit: int, folder: Path) -> dict[str, str]:
    """Repeat one file's analysis, and return its row of the table."""
    original = analyses.read(path)
    config, run = original.config, hdf5.read_provenance(path)["run"]
    evaluators = config.get("evaluators", {"names": [], "given": False})
    analysis = original.analysis
    task = AnalysisTask(
        analysis,
        checkpoints / f"{config['checkpoint']['name']}.safetensors",
        folder,
        analyses.get(analysis).settings(**config["settings"]),
        "cpu",
        source=run["source"],
        split=config["data"]["split"],
        limit=min(limit, original.count),
        batch_size=config["batch_size"],
        evaluators=tuple(checkpoints / f"{name}.safetensors" for name in evaluators["names"]),
        default_evaluators=not evaluators["given"],
    )
    work = task.work()
    if work.config["checkpoint"]["sha256"] != config["checkpoint"]["sha256"]:
        raise UserError(f"{task.checkpoint} has other tensors than those that {path} is about.")
    repeat = hdf5.read(work.run())
    return {"file": path.name, "images": str(repeat.count)} | compare(original, repeat)


def compare(original: hdf5.Result, repeat: hdf5.Result) -> dict[str, str]:
    """Compare the answers of two files, and return the share that is equal and the largest differences of numbers."""
    equal, differences = [], []
    is_part = repeat.count < original.count
    for column in analyses.get(repeat.analysis).schema.per_image:
        if is_part and column.path.rpartition("/")[2] in OF_ALL:
            continue
        values = repeat[column.path]
        original_values: Any = original.first(column.path, len(values))
        if column.dtype.startswith("f"):
            scale = np.nanmax(np.abs(original_values), initial=ZERO)
            differences.append(float(np.nanmedian(np.abs(values.astype(np.float64) - original_values)) / scale))
        else:
            equal.append(float((values == original_values).mean()))
    return {
        "equal answers": f"{min(equal, default=1):.2%}",
        "numbers apart, median of the largest": f"{max(differences, default=0):.1e}",
    }


def main() -> None:
    """Verify each file, and print a row for it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--checkpoints", type=Path, default=Path("checkpoints"))
    parser.add_argument("--limit", type=int, default=100, help="the first images of each file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = [verify(path, arguments.checkpoints, arguments.limit, Path(folder)) for path in arguments.files]
    print(render(rows))
    sys.exit(any(float(row["equal answers"].rstrip("%")) / 100 < LEAST_EQUAL for row in rows))


if __name__ == "__main__":
    main()
