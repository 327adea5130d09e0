"""Do files of answers come out again, here, from the checkpoints and the data that they name?

    python benchmarks/reverify.py analyses/robustness-cifar10-*.h5 analyses/gradmap-score-cifar10-*.h5 --limit 100

Each file's analysis is asked anew of the first images, with the stored settings, checkpoints and evaluators, and what
it finds is set against the stored rows of these images: answers (classes) by how many are equal, numbers by how far
they are apart. Exit status 1 where fewer than LEAST of a file's answers are equal, or where a checkpoint has other
tensors than those that were analyzed. Processors round differently: an image on a boundary may go the other way. Maps
of gradmap-score that are scaled over the set (`clip-set`) depend on how many images there are.
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

LEAST = 0.99


def again(path: Path, checkpoints: Path, limit: int, folder: Path) -> dict[str, str]:
    """One file's row of the table."""
    stored = analyses.read(path)
    config, run = stored.config, hdf5.provenance(path)["run"]
    evaluators = config.get("evaluators", {"names": [], "given": False})
    name = stored.analysis
    task = AnalysisTask(
        name,
        checkpoints / f"{config['checkpoint']['name']}.safetensors",
        folder,
        analyses.get(name).settings(**config["settings"]),
        "cpu",
        source=run["source"],
        split=config["data"]["split"],
        limit=min(limit, stored.count),
        batch_size=config["batch_size"],
        evaluators=tuple(checkpoints / f"{one}.safetensors" for one in evaluators["names"]),
        default_evaluators=not evaluators["given"],
    )
    work = task.work()
    if work.config["checkpoint"]["sha256"] != config["checkpoint"]["sha256"]:
        raise UserError(f"{task.checkpoint} has other tensors than those that {path} is about.")
    found = hdf5.read(work.run())
    return {"file": path.name, "images": str(found.count)} | compare(stored, found)


def compare(stored: hdf5.Result, found: hdf5.Result) -> dict[str, str]:
    """Equal answers, and the largest differences of numbers, of the images of `found`."""
    equal, apart = [], []
    for column in analyses.get(found.analysis).schema.per_image:
        new = found[column.path]
        old: Any = stored.first(column.path, len(new))
        if column.dtype.startswith("f"):
            scale = np.nanmax(np.abs(old), initial=0) or 1
            apart.append(float(np.nanmedian(np.abs(new.astype(np.float64) - old)) / scale))
        else:
            equal.append(float((new == old).mean()))
    return {
        "equal answers": f"{min(equal, default=1):.2%}",
        "numbers apart, median of the largest": f"{max(apart, default=0):.1e}",
    }


def main() -> None:
    """Ask again, and print a row a file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--checkpoints", type=Path, default=Path("checkpoints"))
    parser.add_argument("--limit", type=int, default=100, help="the first images of each file")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = [again(path, given.checkpoints, given.limit, Path(folder)) for path in given.files]
    print(render(rows))
    sys.exit(any(float(row["equal answers"].rstrip("%")) / 100 < LEAST for row in rows))


if __name__ == "__main__":
    main()
