"""Are costs flat? Time a thousand images, and peak memory, of analyses of 1,000, 10,000 and 60,000 images.

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
"""Growth that is allowed."""


class Cost(NamedTuple):
    """What one run took: peak resident memory in MiB, seconds of the process and of the analysis in it."""

    images: int
    mib: float
    process_seconds: float
    seconds: float

    @property
    def of_a_thousand(self) -> float:
        """Seconds of the analysis for a thousand images."""
        return 1000 * self.seconds / self.images


def write_images(path: Path, count: int) -> None:
    """Random images as the test split of a dataset; ten to train on."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (count, 32, 32, 3), np.uint8)
    labels = np.arange(count, dtype=np.uint8) % 10
    masks = random.random((count, 32, 32), np.float32) < 0.2
    np.savez(path, x_train=images[:10], y_train=labels[:10], x_test=images, y_test=labels, mask_test=masks)


def cost(root: Path, analysis: str, count: int) -> Cost:
    """Run one analysis of the first `count` images, and forget its answer."""
    name, *options = shlex.split(analysis)
    command = [sys.executable, "-m", "interpret_robust.cli", "analyze", name, str(root / "checkpoints" / SUBJECT)]
    command += ["--root", str(root), "--dataset", str(root / "random.npz"), "--limit", str(count), *options]
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    taken = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{shlex.join(command)} failed")
    (file,) = (root / "analyses").iterdir()
    seconds = hdf5.provenance(file)["run"]["seconds"]
    file.unlink()
    return Cost(count, usage.ru_maxrss / 1024, taken, seconds)


def growth(costs: Sequence[Cost]) -> dict[str, float]:
    """By which share memory grows from the fewest to the most images, and time an image from its least to the most."""
    *fewer, most = costs
    return {
        "memory": most.mib / fewer[0].mib - 1,
        "time": most.of_a_thousand / min(one.of_a_thousand for one in fewer) - 1,
    }


def main() -> None:
    """Measure the analyses and print a table for each, then which of them grow."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("analyses", nargs="+", metavar="ANALYSIS", help="a name, or a name and options in quotes")
    parser.add_argument("--checkpoints", type=Path, default=Path("checkpoints"))
    parser.add_argument("--counts", type=int, nargs="+", default=[1_000, 10_000, 60_000], help="of images, rising")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    given = parser.parse_args()
    machine = describe_machine()
    print("; ".join(f"{name} {value}" for name, value in machine.items()))
    measured: dict[str, list[Cost]] = {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "checkpoints").symlink_to(given.checkpoints.resolve())
        write_images(root / "random.npz", max(given.counts))
        for analysis in given.analyses:
            measured[analysis] = [cost(root, analysis, count) for count in given.counts]
            print(f"\n{analysis}\n{render([row(one) for one in measured[analysis]])}")
            print(", ".join(f"{what} {share:+.1%}" for what, share in growth(measured[analysis]).items()), flush=True)
    if given.json:
        told = {analysis: [one._asdict() for one in costs] for analysis, costs in measured.items()}
        given.json.write_text(json.dumps({"machine": machine, "costs": told}, indent=1) + "\n", encoding="utf-8")
    grown = [growth(costs) for costs in measured.values()]
    sys.exit(any(one["memory"] > MOST_MEMORY or one["time"] > MOST_TIME for one in grown))


def row(one: Cost) -> dict[str, str]:
    """A run as a row of the table."""
    return {
        "images": f"{one.images:,}",
        "seconds a thousand": f"{one.of_a_thousand:.2f}",
        "seconds": f"{one.seconds:.1f}",
        "of the process": f"{one.process_seconds:.1f}",
        "peak MiB": f"{one.mib:.0f}",
    }


if __name__ == "__main__":
    main()
