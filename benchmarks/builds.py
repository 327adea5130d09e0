"""How fast is this build beside an older one? The same commands of both, in turns, in one run.

    git worktree add ../old 51033aa
    python benchmarks/builds.py --old ../old --checkpoints checkpoints --json builds.json

Each run is a process of its own that gives its commands to the `irt` of one checkout, one after the other, and what is
timed is the whole of it with all processes that come from it, start-up included. Linux only: a process whose parent has
ended, as of workers that a server forks, becomes a child of this one. The older build must read the checkpoints, so
that they are those of its time: `irt train` of that build makes those of the digits. Medians over rounds, ratios with
bootstrap intervals over rounds. Exit status 1 where the images' own values in the files that both wrote differ, but for
the number of gradients that were taken. Four cases have to be asked for, with `--rounds 1`: "quick study" takes ten
minutes a build, "audit of three seeds" an hour, and "audit of one seed" a third of it. The audits are not the same
work: since 51033aa they also attack with APGD. "questions of an audit of one seed" are those of both, without APGD and
without training. What is measured is written after each case.

Torch is imported when all is measured: a process counts the memory of the one that started it as its own.
"""

import argparse
import ctypes
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import h5py
import numpy as np

from interpret_robust.core.arrays import AnyArray
from interpret_robust.core.files import replace_file
from interpret_robust.core.spelling import british
from interpret_robust.results import hdf5
from interpret_robust.results.tables import render

DRIVER = """
import json, sys
from interpret_robust.cli import main
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["irt", *arguments]
    try:
        main()
    except SystemExit as end:
        if end.code:
            raise
"""
"""What a process of a case does: all that `irt` does from its first line to its last."""

Arguments = list[list[str]]


@dataclass(frozen=True)
class Case:
    """Commands to time, and those that prepare them: `{checkpoints}` stands for a folder, `{images}` for a count."""

    name: str
    commands: tuple[str, ...]
    images: int = 250
    prepare: tuple[str, ...] = ()
    is_long: bool = False

    def arguments(self, commands: Sequence[str], checkpoints: Path) -> Arguments:
        """Return the words of each command."""
        lines = (command.format(checkpoints=checkpoints, images=self.images) for command in commands)
        return [command.split() for command in lines]


DIGITS = "{checkpoints}/cluttered-digits-small-at-seed0.safetensors"
CIFAR = "{checkpoints}/cifar10-small-at-seed0.safetensors"
READER = "{checkpoints}/cifar10-small-natural-seed1.safetensors"
RESNET = "--model torchvision:resnet18 --weights random --resize 64 --dataset cluttered-digits"
FOUR = tuple(
    f"{command} {DIGITS} --limit {{images}}"
    for command in (
        "evaluate --pgd 20 --cw none",
        "analyze attention-rank",
        "analyze attention-maps",
        "analyze feature-deletion",
    )
)
ADVERSARIAL = " ".join(
    f"{{checkpoints}}/cluttered-digits-small-{variant}-seed0.safetensors"
    for variant in ("at-att-reg", "at-att", "at", "at-reg")
)
NATURAL = " ".join(
    f"{{checkpoints}}/cluttered-digits-small-{variant}-seed0.safetensors"
    for variant in ("natural-att", "natural-linear-att", "natural")
)
WITH_ATTENTION, UP_TO_AT = (" ".join(ADVERSARIAL.split()[:count]) for count in (2, 3))
OF_TABLE_4 = " ".join(ADVERSARIAL.split()[:3:2])
READERS = " ".join(
    f"--evaluator {{checkpoints}}/cluttered-digits-{model}.safetensors"
    for model in ("small-natural-seed1", "small-natural-seed2", "cnn-natural-seed1")
)
AUDIT = (
    f"evaluate {ADVERSARIAL}",
    f"evaluate {NATURAL} --pgd 20 --cw none",
    f"analyze masking {ADVERSARIAL}",
    f"analyze attention-rank {WITH_ATTENTION}",
    f"analyze feature-deletion {WITH_ATTENTION}",
    f"analyze {british('localization')} {UP_TO_AT}",
    f"gradmap-score {OF_TABLE_4} {READERS}",
    f"analyze alignment {OF_TABLE_4}",
)
"""The questions of `irt reproduce audit --seeds 1` at 51033aa, of all test images, with fewer evaluators."""

CASES = (
    Case("attack table, digits", (f"evaluate {DIGITS} --limit {{images}}",)),
    Case("attack table, CIFAR-10", (f"evaluate {CIFAR} --limit {{images}}",)),
    Case("four analyses of a model", FOUR),
    Case("alignment", (f"analyze alignment {DIGITS} --limit {{images}}",), images=1000),
    Case("gradmap-score", (f"gradmap-score {CIFAR} --evaluator {READER} --limit {{images}}",)),
    Case("a network of torchvision", (f"evaluate {RESNET} --pgd 20 --cw none --limit {{images}}",), images=60),
    Case("training, an epoch of at", ("train at --set epochs=1",)),
    Case("report", ("report",), images=100, prepare=FOUR),
    Case("irt --help", ("--help",)),
    Case("irt evaluate --help", ("evaluate --help",)),
    Case("irt plan audit", ("plan audit",)),
    Case("quick study", ("reproduce quick",), is_long=True),
    Case("questions of an audit of one seed", AUDIT, is_long=True),
    Case("audit of one seed", ("reproduce audit --seeds 1",), is_long=True),
    Case("audit of three seeds", ("reproduce audit --seeds 3",), is_long=True),
)

PR_SET_CHILD_SUBREAPER = 36
"""The number of prctl(2) that makes a process the parent of its descendants whose own parent has ended."""


@dataclass(frozen=True)
class Usage:
    """What a run took: seconds on the clock, processor seconds of all its processes, MiB of the largest of them."""

    wall: float
    cpu: float
    memory: float


def adopt_orphans() -> None:
    """Make this process the parent of every descendant whose own parent has ended."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER) was refused: Linux is needed")


def wait_for_all() -> Iterator[resource.struct_rusage]:
    """Wait for each child of this process, orphans that it adopted too, and tell what it used."""
    while True:
        try:
            yield os.wait4(-1, 0)[2]
        except ChildProcessError:
            return


@dataclass(frozen=True)
class Build:
    """A checkout, and the folder that its commands write to."""

    checkout: Path
    root: Path

    def run(self, arguments: Arguments) -> Usage:
        """Give the commands to this build's `irt` in one process, and return what it took."""
        command = [sys.executable, "-c", DRIVER, json.dumps(arguments)]
        environment = os.environ | {"PYTHONPATH": str(self.checkout)}
        began = time.perf_counter()
        with tempfile.TemporaryFile() as log:
            process = subprocess.Popen(command, cwd=self.root, env=environment, stdout=log, stderr=log)
            _, status, usage = os.wait4(process.pid, 0)
            wall = time.perf_counter() - began
            if status:
                log.seek(0)
                raise SystemExit(f"{self.checkout}: {arguments} failed:\n{log.read().decode()[-2000:]}")
        usages = [usage, *wait_for_all()]
        seconds = sum(entry.ru_utime + entry.ru_stime for entry in usages)
        return Usage(wall, seconds, max(entry.ru_maxrss for entry in usages) / 1024)


def measure(case: Case, builds: dict[str, Build], checkpoints: Path, rounds: int) -> dict[str, list[Usage]]:
    """Run a case by all builds in turns, each time from nothing but what `prepare` left."""
    usages: dict[str, list[Usage]] = {name: [] for name in builds}
    for build in builds.values():
        shutil.rmtree(build.root, ignore_errors=True)
        build.root.mkdir(parents=True)
        if case.prepare:
            build.run(case.arguments(case.prepare, checkpoints))
    for _ in range(rounds):
        for name, build in builds.items():
            for folder in ("figures",) if case.prepare else ("analyses", "checkpoints", "figures"):
                shutil.rmtree(build.root / folder, ignore_errors=True)
            (build.root / "report.html").unlink(missing_ok=True)
            usages[name].append(build.run(case.arguments(case.commands, checkpoints)))
            print(f"{case.name}, {name}: {usages[name][-1]}", file=sys.stderr, flush=True)
    return usages


def compare(our_root: Path, old_root: Path) -> Iterator[str]:
    """Name each column of the images' own values that differs between files of one name, format 1 rounded as it is.

    The older build's files have the old name of an analysis, see `core.spelling`; no checkpoint has a word of these.
    """
    for path in sorted((our_root / "analyses").glob("*.h5")):
        old_path = old_root / "analyses" / british(path.name)
        if not old_path.exists():
            yield f"{path.name} is missing"
            continue
        result, old_result = hdf5.read(path), hdf5.read(old_path)
        with h5py.File(path) as file:
            columns = [f"per_image/{column}" for column in file["per_image"] if column != "gradients"]
        for column in columns:
            if column in old_result and not are_equal(result[column], old_result[column]):
                yield f"{path.name}: {column}"


def are_equal(values: AnyArray, older: AnyArray) -> bool:
    """Return whether values are those of the older build, in whose precision they are compared."""
    is_number = older.dtype.kind == "f"
    return np.array_equal(values.astype(older.dtype), older, equal_nan=is_number)


def summarize(case: Case, usages: dict[str, list[Usage]], differences: Sequence[str]) -> dict[str, str]:
    """Return a row of the table: how long both builds took, and how many times as fast ours is."""
    from interleaved import times_as_fast

    our_runs, old_runs = usages["ours"], usages["old"]

    def ratio(field: str) -> str:
        ours, old = ([getattr(run, field) for run in runs] for runs in (our_runs, old_runs))
        return times_as_fast(ours, old).plain() if len(ours) > 1 else f"{old[0] / ours[0]:.2f}"

    def median(runs: Sequence[Usage], field: str) -> float:
        return float(np.median([getattr(run, field) for run in runs]))

    return {
        "case": case.name,
        "old, CPU": f"{median(old_runs, 'cpu'):.2f} s",
        "ours, CPU": f"{median(our_runs, 'cpu'):.2f} s",
        "times, CPU": ratio("cpu"),
        "times, clock": ratio("wall"),
        "memory": f"{median(our_runs, 'memory') / median(old_runs, 'memory'):.2f}",
        "equal": f"NO: {differences[0]}" if differences else "yes",
    }


def describe(checkout: Path) -> str:
    """Return the commit of a checkout, marked where files differ from it."""
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--exclude", "*"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def write(path: Path | None, content: Mapping[str, object]) -> None:
    """Write what was measured as JSON, where a file is wanted."""
    if path:
        with replace_file(path) as partial:
            partial.write_text(json.dumps(content, indent=1))


def main() -> int:
    """Measure the cases, print a table, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--old", type=Path, required=True, help="checkout of the older build")
    parser.add_argument("--checkpoints", type=Path, default=Path("checkpoints"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cases", nargs="*", default=[case.name for case in CASES if not case.is_long])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    adopt_orphans()
    checkout = Path(__file__).resolve().parents[1]
    header = {"ours": describe(checkout), "old": describe(arguments.old)}
    measurements, cases = [], {}
    with tempfile.TemporaryDirectory() as scratch:
        builds = {
            "old": Build(arguments.old.resolve(), Path(scratch) / "old"),
            "ours": Build(checkout, Path(scratch) / "ours"),
        }
        for case in CASES:
            if case.name in arguments.cases:
                usages = measure(case, builds, arguments.checkpoints.resolve(), arguments.rounds)
                differences = list(compare(builds["ours"].root, builds["old"].root))
                measurements.append((case, usages, differences))
                cases[case.name] = {
                    "commands": [*case.prepare, *case.commands],
                    "images": case.images,
                    "spent": {name: [asdict(usage) for usage in runs] for name, runs in usages.items()},
                    "differences": differences,
                }
                write(arguments.json, header | {"cases": cases})
    print(render([summarize(*measurement) for measurement in measurements], "markdown"))
    from machine import describe_machine

    write(arguments.json, header | {"machine": describe_machine(), "cases": cases})
    return int(any(case["differences"] for case in cases.values()))


if __name__ == "__main__":
    sys.exit(main())
