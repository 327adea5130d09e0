"""Does the memory of an analysis grow with the number of images? The peak over 1,000 and over 10,000.

    python benchmarks/memory.py attention-rank gradient-maps --checkpoints checkpoints

Each run is a process of its own over random images of 32x32x3 with random masks; the subject is the at-att model
of seed 0. The images themselves, 40 MB with their masks, are in memory in both runs.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

COUNTS = (1_000, 10_000)
SUBJECT = "cluttered-digits-small-at-att-seed0.safetensors"
MOST = 0.05
"""Growth that is allowed."""


def write_images(path: Path) -> None:
    """The most images that are asked for, as the test split of a dataset; ten to train on."""
    random, count = np.random.default_rng(0), max(COUNTS)
    images = random.integers(0, 256, (count, 32, 32, 3), np.uint8)
    labels = np.arange(count, dtype=np.uint8) % 10
    masks = random.random((count, 32, 32)) < 0.2
    np.savez(path, x_train=images[:10], y_train=labels[:10], x_test=images, y_test=labels, mask_test=masks)


def peak(root: Path, name: str, count: int, options: list[str]) -> float:
    """Peak resident memory of one analysis, MiB."""
    command = [sys.executable, "-m", "interpret_robust.cli", "analyze", name, str(root / "checkpoints" / SUBJECT)]
    command += ["--root", str(root), "--dataset", str(root / "random.npz"), "--limit", str(count), *options]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed")
    return usage.ru_maxrss / 1024


def main() -> None:
    """Measure the named analyses and print a line for each; exit status 1 where one grows by more than MOST."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", metavar="ANALYSIS")
    parser.add_argument("--checkpoints", type=Path, default=Path("checkpoints"))
    given, options = parser.parse_known_args()
    grown = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "checkpoints").symlink_to(given.checkpoints.resolve())
        write_images(root / "random.npz")
        for name in given.names:
            peaks = [peak(root, name, count, options) for count in COUNTS]
            growth = peaks[1] / peaks[0] - 1
            grown += [name] if growth > MOST else []
            told = ", ".join(f"{most:.0f} MiB for {count:,}" for most, count in zip(peaks, COUNTS, strict=True))
            print(f"{name}: {told}: {growth:+.1%}", flush=True)
    sys.exit(bool(grown))


if __name__ == "__main__":
    main()
