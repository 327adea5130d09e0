"""Does an analysis that is killed at any moment end in the same file? SIGKILL at 30 random moments.

    python benchmarks/kill_and_resume.py attention-rank --checkpoints checkpoints --limit 300 --batch-size 20

The moments are uniform over the time from opening the file to its end in an uninterrupted run, each counted from
the last batch that was written before it. After each kill the same command goes on; the file that it ends in is
compared with that of the uninterrupted run, by the checksum of all its datasets. All further options are those of
`irt analyze ANALYSIS`.
"""

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path

import h5py

from interpret_robust.results import hdf5

SUBJECT = "cluttered-digits-small-at-att-seed0.safetensors"

# `irt`, but it says how many rows there are when the file is opened, after each batch, and at the end.
IRT = """
import sys
from interpret_robust import cli
from interpret_robust.results import writer
open_rows, append, finish = writer.open_rows, writer.Rows.append, writer.Rows.finish
def tell(rows):
    print(rows.row_count, file=sys.__stdout__, flush=True)
    return rows
def tell_append(rows, *arguments):
    append(rows, *arguments)
    tell(rows)
def tell_finish(rows, *arguments):
    count = rows.row_count
    finish(rows, *arguments)
    print(count, file=sys.__stdout__, flush=True)
writer.open_rows = lambda *arguments, **options: tell(open_rows(*arguments, **options))
writer.Rows.append, writer.Rows.finish = tell_append, tell_finish
cli.main()
"""

Moment = tuple[int, float]
"""Rows that are there, and seconds since."""


def run(root: Path, arguments: list[str], kill: Moment | None = None) -> list[Moment]:
    """Run `irt analyze`, kill it at a moment, and return how many rows there were at which seconds after opening."""
    command = [sys.executable, "-c", IRT, "analyze", *arguments, "--root", str(root)]
    moments: list[Moment] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        for line in process.stdout:
            if not line.strip().isdigit():
                continue  # what `irt` prints
            moments.append((int(line), time.monotonic()))
            if kill is not None and int(line) >= kill[0]:
                time.sleep(kill[1])
                process.kill()
        errors = process.stderr.read()
    if process.returncode not in (0, -9):
        raise SystemExit(f"irt analyze {' '.join(arguments)}: {errors}")
    return [(rows, seconds - moments[0][1]) for rows, seconds in moments]


def draw_moments(whole: list[Moment], count: int, seed: int) -> list[Moment]:
    """Draw moments uniformly over an uninterrupted run, and return them in their order."""
    source = random.Random(seed)
    seconds = sorted(source.uniform(0, whole[-1][1]) for _ in range(count))
    return [
        (rows, second - began)
        for second in seconds
        for (rows, began), (_, end) in pairwise(whole)
        if began <= second < end
    ]


def read_checksum(root: Path) -> str:
    """Return the checksum of the one finished file, after reading all of it; nothing else may lie beside it."""
    (path,) = (root / "analyses").iterdir()
    hdf5.read(path)
    return str(hdf5.attributes(path)["content_sha256"])


def count_rows(root: Path) -> int:
    """Return the number of rows in the unfinished file; -1 where none can be read."""
    try:
        with h5py.File(next((root / "analyses").glob("*.h5.partial"))) as file:
            return int(file.attrs["n_done"])
    except (OSError, KeyError):
        return -1


def main() -> None:
    """Kill, resume and compare; exit status 1 where a file differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", metavar="ANALYSIS")
    parser.add_argument("--checkpoints", type=Path, default=Path("checkpoints"))
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    arguments, options = parser.parse_known_args()
    words = [arguments.name, str(arguments.checkpoints / SUBJECT), *options]
    with tempfile.TemporaryDirectory() as folder:
        whole, target = Path(folder, "whole"), Path(folder, "killed")
        for root in (whole, target):
            root.mkdir()
            (root / "checkpoints").symlink_to(arguments.checkpoints.resolve())
        moments = run(whole, words)
        row_counts, equal = Counter[int](), list[bool]()
        for moment in [*draw_moments(moments, arguments.kills, arguments.seed), None]:
            run(target, words, moment)
            if moment is not None and not list((target / "analyses").glob("*.h5")):
                row_counts[count_rows(target)] += 1
                continue
            run(target, words)  # finds it finished, and takes away what a kill after the last write left
            equal.append(read_checksum(target) == read_checksum(whole))
            shutil.rmtree(target / "analyses")
    print(
        f"{arguments.name}: {row_counts.total()} of {arguments.kills} kills before its end ({moments[-1][1]:.1f} s); "
        "rows x kills: "
        f"{', '.join(f'{rows}x{count}' for rows, count in sorted(row_counts.items()))}; "
        f"{sum(equal)} of {len(equal)} finished files equal the uninterrupted one"
    )
    sys.exit(not all(equal))


if __name__ == "__main__":
    main()
