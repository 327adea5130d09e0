"""Do costs stay flat? Time a thousand images, and peak memory, of analyses of 1,000, 10,000 and 60,000 images.

    python benchmarks/flat.py gradient-maps "attention-rank --steps 2" "robustness --pgd 2 --cw none"

Each argument is what follows `irt analyze`, each run a process of its own over random images of 32x32x3 with random
masks; the subject is the at-att model of seed 0. The most images that are asked for are in memory in every run, so that
whatever peak memory grows by is not theirs. Seconds are those of the analysis itself, from the first image to the
finished file; those of the process have its imports and the reading of the images in them.

Exit status 1 where peak memory with the most images is over that with the fewest by more than MOST_MEMORY, or where a
thousand of the most images takes longer than a thousand of fewer by more than MOST_TIME.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from machine import describe_machine

from interpret_robust.results import hdf5
from interpret_robust.results.tables import render

SUBJECT = "cluttered-digits-small-at-att-seed0.safetensors"
MOST_MEMORY, MOST_TIME = 0.05, 0.25
"""Shares by which memory and time may grow."""


class Cost(NamedTuple):
    """What one run took: peak resident memory in MiB, seconds of the process and of the analysis in it."""

    images: int
    mib: float
    process_seconds: float
    seconds: float

    @property
    def seconds_per_thousand(self) -> float:
        """Return the seconds of the analysis for a thousand images."""
        return 1000 * self.seconds / self.images


def write_images(path: Path, count: int) -> None:
    """Write random images as the test split of a dataset, and ten of them to train on."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (count, 32, 32, 3), np.uint8)
    labels = np.arange(count, dtype=np.uint8) % 10
    masks = random.random((count, 32, 32), np.float32) < 0.2
    np.savez(path, x_train=images[:10], y_train=labels[:10], x_test=images, y_test=labels, mask_test=masks)


def measure(root: Path, analysis: str, count: int) -> Cost:
    """Run one analysis of the first `count` images, and delete the file that it wrote."""
    name, *options = shlex.split(analysis)
    command = [sys.executable, "-m", "interpret_robust.cli", "analyze", name, str(root / "checkpoints" / SUBJECT)]
    command += ["--root", str(root), "--dataset", str(root / "random.npz"), "--limit", str(count), *options]
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process_seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{shlex.join(command)} failed")
    (file,) = (root / "analyses").iterdir()
    seconds = hdf5.read_provenance(file)["run"]["seconds"]
    file.unlink()
    return Cost(count, usage.ru_maxrss / 1024, process_seconds, seconds)


def measure_growth(costs: Sequence[Cost]) -> dict[str, float]:
    """Return by which share memory, and the time an image, grow from the fewest images to the most."""
    *smaller, largest = costs
    return {
        "memory": largest.mib / smaller[0].mib - 1,
        "time": largest.seconds_per_thousand / min(cost.seconds_per_thousand for cost in smaller) - 1,
    }


def main() -> None:
    """Measure the analyses and print a table for each, then which of them grow."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("analyses", nargs="+", metavar="ANALYSIS", help="a name, or a name and options in quotes")
    parser.add_argument("--checkpoints", type=Path, default=Path("checkpoints"))
    parser.add_argument("--counts", type=int, nargs="+", default=[1_000, 10_000, 60_000], help="of images, rising")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    arguments = parser.parse_args()
    machine = describe_machine()
    print("; ".join(f"{name} {value}" for name, value in machine.items()))
    costs_by_analysis: dict[str, list[Cost]] = {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "checkpoints").symlink_to(arguments.checkpoints.resolve())
        write_images(root / "random.npz", max(arguments.counts))
        for analysis in arguments.analyses:
            costs_by_analysis[analysis] = [measure(root, analysis, count) for count in arguments.counts]
            print(f"\n{analysis}\n{render([format_row(cost) for cost in costs_by_analysis[analysis]])}")
            growth = measure_growth(costs_by_analysis[analysis])
            print(", ".join(f"{quantity} {share:+.1%}" for quantity, share in growth.items()), flush=True)
    if arguments.json:
        report = {analysis: [cost._asdict() for cost in costs] for analysis, costs in costs_by_analysis.items()}
        arguments.json.write_text(json.dumps({"machine": machine, "costs": report}, indent=1) + "\n", encoding="utf-8")
    shares = [measure_growth(costs) for costs in costs_by_analysis.values()]
    sys.exit(any(share["memory"] > MOST_MEMORY or share["time"] > MOST_TIME for share in shares))


def format_row(cost: Cost) -> dict[str, str]:
    """Return a run as a row of the table."""
    return {
        "images": f"{cost.images:,}",
        "seconds a thousand": f"{cost.seconds_per_thousand:.2f}",
        "seconds": f"{cost.seconds:.1f}",
        "of the process": f"{cost.process_seconds:.1f}",
        "peak MiB": f"{cost.mib:.0f}",
    }


if __name__ == "__main__":
    main()
