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
from interpret_robust import cli, results
open_rows, append, finish = results.open_rows, results.Rows.append, results.Rows.finish
def tell(rows):
    print(rows.row_count, flush=True)
    return rows
def tell_append(rows, *given):
    append(rows, *given)
    tell(rows)
def tell_finish(rows, *given):
    done = rows.row_count
    finish(rows, *given)
    print(done, flush=True)
results.open_rows = lambda *given, **named: tell(open_rows(*given, **named))
results.Rows.append, results.Rows.finish = tell_append, tell_finish
cli.main()
"""

Moment = tuple[int, float]
"""Rows that are there, and seconds since."""


def run(root: Path, arguments: list[str], until: Moment | None = None) -> list[Moment]:
    """Run `irt analyze`, and kill it at a moment; how many rows there were when, in seconds from opening the file."""
    command = [sys.executable, "-c", IRT, "analyze", *arguments, "--root", str(root)]
    moments: list[Moment] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        for line in process.stdout:
            if not line.strip().isdigit():
                continue  # what `irt` prints
            moments.append((int(line), time.monotonic()))
            if until is not None and int(line) >= until[0]:
                time.sleep(until[1])
                process.kill()
        said = process.stderr.read()
    if process.returncode not in (0, -9):
        raise SystemExit(f"irt analyze {' '.join(arguments)}: {said}")
    return [(rows, seconds - moments[0][1]) for rows, seconds in moments]


def draw(whole: list[Moment], count: int, seed: int) -> list[Moment]:
    """Moments uniform over an uninterrupted run, in their order."""
    source = random.Random(seed)
    drawn = sorted(source.uniform(0, whole[-1][1]) for _ in range(count))
    return [
        (rows, second - began)
        for second in drawn
        for (rows, began), (_, ended) in pairwise(whole)
        if began <= second < ended
    ]


def content(root: Path) -> str:
    """The checksum of the one finished file, after reading all of it; nothing else may lie beside it."""
    (path,) = (root / "analyses").iterdir()
    hdf5.read(path)
    return str(hdf5.attributes(path)["content_sha256"])


def rows_kept(root: Path) -> int:
    """Rows in the unfinished file; -1 where none can be read."""
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
    given, options = parser.parse_known_args()
    arguments = [given.name, str(given.checkpoints / SUBJECT), *options]
    with tempfile.TemporaryDirectory() as folder:
        whole, killed = Path(folder, "whole"), Path(folder, "killed")
        for root in (whole, killed):
            root.mkdir()
            (root / "checkpoints").symlink_to(given.checkpoints.resolve())
        moments = run(whole, arguments)
        kept, equal = Counter[int](), list[bool]()
        for moment in [*draw(moments, given.kills, given.seed), None]:
            run(killed, arguments, moment)
            if moment is not None and not list((killed / "analyses").glob("*.h5")):
                kept[rows_kept(killed)] += 1
                continue
            run(killed, arguments)  # finds it finished, and takes away what a kill after the last write left
            equal.append(content(killed) == content(whole))
            shutil.rmtree(killed / "analyses")
    print(
        f"{given.name}: {kept.total()} of {given.kills} kills before its end ({moments[-1][1]:.1f} s); rows x kills: "
        f"{', '.join(f'{rows}x{count}' for rows, count in sorted(kept.items()))}; "
        f"{sum(equal)} of {len(equal)} finished files equal the uninterrupted one"
    )
    sys.exit(not all(equal))


if __name__ == "__main__":
    main()
