"""One training by several processes: is it as accurate, and how much faster? The same of an attack on its model.

    python benchmarks/ranks.py --output docs/scale/ranks-small.json
    python benchmarks/ranks.py --arch narrow --processes 1,2 --set epochs=1 --limit 1280 --images 100 --batch-size 25

For each seed and number of processes in turn, `torchrun -m interpret_robust train` trains a model, and `evaluate`
attacks it, each process with one thread. The table has the accuracies on all test images and, from what the files note
of themselves, the time that training and the analysis took, as a ratio to one process; start-up is not in it. Intervals
are over seeds (Student's t, of the ratio of each seed). On GPUs give --device cuda.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from machine import describe_machine
from scipy import stats

from interpret_robust.core.files import replace_file
from interpret_robust.datasets import load
from interpret_robust.models import checkpoint_file
from interpret_robust.results import hdf5
from interpret_robust.results.tables import render

DATASET = "cluttered-digits"


class Measurement(NamedTuple):
    """Accuracies of one model, and the seconds of its training and of the attack."""

    processes: int
    seed: int
    natural: float
    attacked: float
    training: float
    attack: float


def measure(processes: int, seed: int, arguments: argparse.Namespace, folder: Path) -> Measurement:
    """Train and attack one model by this many processes."""
    root = folder / f"{processes}-{seed}"
    common = ["--device", arguments.device, "--root", str(root)]
    changes = [word for change in arguments.set for word in ("--set", change)]
    limit = ["--limit", str(arguments.limit)] if arguments.limit else []
    train = ["train", arguments.variant, "--arch", arguments.arch, "--recipe", "quick", "--seed", str(seed)]
    run(processes, [*train, *changes, *limit, *common])
    attack = ["evaluate", "--pgd", "20", "--cw", "none", "--batch-size", str(arguments.batch_size)]
    attack += ["--limit", str(arguments.images)] if arguments.images else []
    run(processes, [*attack, *common])
    (checkpoint,) = (root / "checkpoints").glob("*.safetensors")
    (answer,) = (root / "analyses").glob("*.h5")
    result = hdf5.read(answer)
    return Measurement(
        processes,
        seed,
        float(result["accuracy/natural"][0, 0]),
        float(result["accuracy/adversarial"][0, 0, 0]),
        checkpoint_file.read(checkpoint).about["history"][-1]["seconds"],
        hdf5.read_provenance(answer)["run"]["seconds"],
    )


def run(processes: int, arguments: Sequence[str]) -> None:
    """Run `irt` by this many processes of one thread."""
    starter = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command = [*starter, "-m", "interpret_robust", *arguments]
    process = subprocess.run(
        command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
    )
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(command)}: {process.stderr}")


def compute_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the mean and its 95 % interval; of one value there is none."""
    mean, count = float(np.mean(values)), len(values)
    if count == 1:
        return mean, math.nan, math.nan
    half = float(stats.t.ppf(0.975, count - 1) * np.std(values, ddof=1) / np.sqrt(count))
    return mean, mean - half, mean + half


def summarize(measurements: Sequence[Measurement]) -> list[dict[str, Any]]:
    """Return a row for each number of processes: accuracies, and how much faster than one process of the same seed."""
    alone = {measurement.seed: measurement for measurement in measurements if measurement.processes == 1}
    rows = []
    for processes in sorted({measurement.processes for measurement in measurements}):
        group = [measurement for measurement in measurements if measurement.processes == processes]
        rows.append(
            {
                "processes": processes,
                "seeds": len(group),
                "natural": compute_interval([measurement.natural for measurement in group]),
                "attacked": compute_interval([measurement.attacked for measurement in group]),
                "training_seconds": compute_interval([measurement.training for measurement in group]),
                "training_ratio": compute_interval(
                    [alone[measurement.seed].training / measurement.training for measurement in group]
                ),
                "attack_seconds": compute_interval([measurement.attack for measurement in group]),
                "attack_ratio": compute_interval(
                    [alone[measurement.seed].attack / measurement.attack for measurement in group]
                ),
            }
        )
    return rows


def format_row(row: dict[str, Any]) -> dict[str, str]:
    """Format a row as it is printed."""

    def cell(name: str, scale: float, digits: int) -> str:
        mean, low, high = (scale * value for value in row[name])
        bounds = "" if math.isnan(low) else f" [{low:.{digits}f}, {high:.{digits}f}]"
        return f"{mean:.{digits}f}{bounds}"

    return {
        "processes": str(row["processes"]),
        "natural, %": cell("natural", 100, 1),
        "PGD-20, %": cell("attacked", 100, 1),
        "training, s": cell("training_seconds", 1, 1),
        "ratio": cell("training_ratio", 1, 2),
        "attack, s": cell("attack_seconds", 1, 1),
        "its ratio": cell("attack_ratio", 1, 2),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", default="1,2,3", help="numbers of processes, 1 among them")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--variant", default="at")
    parser.add_argument("--arch", default="small")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="a number of the recipe")
    parser.add_argument("--limit", type=int, help="training images")
    parser.add_argument("--images", type=int, help="test images, all by default")
    parser.add_argument("--batch-size", type=int, default=125, help="of the attack: batches are what is shared")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--output", type=Path, help="JSON")
    arguments = parser.parse_args()
    counts = [int(count) for count in arguments.processes.split(",")]
    if 1 not in counts:
        parser.error("--processes must have 1 among them, which the others are set against.")
    load(DATASET)  # so that it is there before anything is timed
    with tempfile.TemporaryDirectory() as folder:
        measurements = [
            measure(count, seed, arguments, Path(folder)) for seed in range(arguments.seeds) for count in counts
        ]
    rows = summarize(measurements)
    print(render([format_row(row) for row in rows]))
    if arguments.output:
        options = {name: value for name, value in vars(arguments).items() if name != "output"}
        report = {
            "machine": describe_machine(),
            "options": options,
            "rows": rows,
            "models": [measurement._asdict() for measurement in measurements],
        }
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        with replace_file(arguments.output) as partial:
            partial.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
