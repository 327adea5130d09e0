"""Do two commands that start together end in the files of each that ran alone?

    python benchmarks/races.py --pairs 200

Each pair starts in a fresh folder, at a barrier, in two processes forked from one that has everything imported. After
it each process must have ended well, and every file must be there, readable, and equal to that of an undisturbed run,
with nothing beside it. Of two different commands pictures and report may differ, as one may read what the other has
just written; they must be whole. Commands: analyze, train, report, figure, each beside itself and each other.
"""

import argparse
import contextlib
import itertools
import json
import multiprocessing
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MODEL = "cluttered-digits-small-natural-seed0"
OLD, NEW = "alignment", "gradient-maps"
"""The analysis of which a file is there before a pair starts, and the analysis that a pair makes."""

TRAIN = ("natural", "--limit", "64", "--set", "epochs=1", "--set", "batch_size=32")
COMMANDS: Mapping[str, tuple[str, ...]] = {
    "train": ("train", *TRAIN),
    "analyze": ("analyze", NEW, "--limit", "8", "--batch-size", "2"),
    "figure": ("figure", OLD),
    "report": ("report",),
}
NEEDS: Mapping[str, tuple[str, ...]] = {
    "train": (),
    "analyze": ("checkpoints",),
    "figure": ("analyses",),
    "report": ("analyses",),
}
"""The folders that a command reads."""

PRODUCTS: Mapping[str, str] = {
    "train": "checkpoints/*.safetensors",
    "analyze": f"analyses/{NEW}*.h5",
    "figure": "figures/*.png",
    "report": "report.html",
}
"""The files that a command makes."""

PATIENCE = 120.0
"""Seconds after which a process is taken to hang."""


def run_command(arguments: tuple[str, ...], root: Path, barrier: Any = None) -> None:
    """Run `irt` in this process, its words going to a file beside `root`."""
    import torch

    from interpret_robust.cli import main

    torch.set_num_threads(1)
    sys.argv = ["irt", *arguments, "--root", str(root)]
    with (
        open(root.with_name(f"{root.name}.log"), "a") as log,
        contextlib.redirect_stdout(log),
        contextlib.redirect_stderr(log),
    ):
        if barrier is not None:
            barrier.wait()
        main()


def read_contents(root: Path) -> dict[str, str]:
    """Return what each file says, without clocks, by its path below `root`; raise for one that cannot be read."""
    return {str(path.relative_to(root)): _read_content(path) for path in sorted(root.rglob("*")) if path.is_file()}


def _read_content(path: Path) -> str:
    from interpret_robust.core.files import hash_file
    from interpret_robust.models import checkpoint
    from interpret_robust.results import hdf5

    if path.suffix == ".h5":
        hdf5.read(path)
        return str(hdf5.attributes(path)["content_sha256"])
    if path.suffix == ".safetensors":
        return checkpoint.read(path).sha256
    if path.suffix == ".json":
        json.loads(path.read_bytes())
    if path.suffix in ENDINGS and not path.read_bytes().rstrip().endswith(ENDINGS[path.suffix]):
        raise ValueError(f"{path} is cut off")
    return hash_file(path)


ENDINGS = {".html": b"</html>", ".pdf": b"%%EOF", ".png": b"IEND\xaeB`\x82"}
"""How a whole file ends."""


@dataclass
class Arena:
    """A folder in which pairs are run; its folder `whole` holds the files of an undisturbed run."""

    folder: Path

    def __post_init__(self) -> None:
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(
            [
                "interpret_robust.cli",
                "interpret_robust.study.tasks",
                "interpret_robust.study.report",
                "interpret_robust.training.loop",
            ]
        )
        self.whole = self.folder / "whole"
        self.whole.mkdir()

    def start(self, command: tuple[str, ...], root: Path, barrier: Any = None) -> Any:
        """Start one process that runs a command."""
        process = self.context.Process(target=run_command, args=(command, root, barrier))
        process.start()
        return process

    def prepare(self) -> None:
        """Run each command alone."""
        first, *rest = COMMANDS.values()
        commands = [first, ("analyze", OLD, *COMMANDS["analyze"][2:]), *rest]
        for command in commands:
            process = self.start(command, self.whole)
            process.join(PATIENCE)
            if process.exitcode:
                raise SystemExit(f"irt {command}: {(self.folder / 'whole.log').read_text()}")

    def run_pair(self, pair: tuple[str, str], number: int) -> str:
        """Run one pair, and return "good", or what is wrong."""
        root = self.folder / f"{'-'.join(pair)}-{number}"
        root.mkdir()
        needs = {need for kind in pair for need in NEEDS[kind]}
        for need in needs:
            shutil.copytree(self.whole / need, root / need)
        if "analyze" in pair:
            for path in root.glob(f"analyses/{NEW}*"):
                path.unlink()
        barrier = self.context.Barrier(2)
        processes = [self.start(COMMANDS[kind], root, barrier) for kind in pair]
        for process in processes:
            process.join(PATIENCE)
        if any(process.is_alive() for process in processes):
            for process in processes:
                process.kill()
            return "hang"
        if any(process.exitcode for process in processes):
            return f"exit {[process.exitcode for process in processes]}: {root.with_suffix('.log').read_text()[-300:]}"
        try:
            contents = read_contents(root)
        except Exception as error:
            return f"unreadable: {error}"
        expected = read_contents(self.whole)
        may_differ = pair[0] != pair[1]
        differences = [
            name
            for name, content in contents.items()
            if expected.get(name) != content
            and not (may_differ and (name == "report.html" or name.startswith("figures/")) and name in expected)
        ]
        absences = [kind for kind in pair if not any(root.glob(PRODUCTS[kind]))]
        if differences or absences:
            return f"other content: {differences}, missing: {absences}"
        shutil.rmtree(root)
        return "good"


def main() -> None:
    """Run the pairs and print how each kind went."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=200, help="pairs of each kind")
    pairs = list(itertools.combinations_with_replacement(COMMANDS, 2))
    parser.add_argument("--kinds", nargs="+", type=lambda text: tuple(text.split("+")), default=pairs, help="as a+b")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        arena = Arena(Path(folder))
        arena.prepare()
        for pair in arguments.kinds:
            began = time.monotonic()
            counts = Counter(arena.run_pair(pair, number) for number in range(arguments.pairs))
            print(f"{'+'.join(pair)}: {dict(counts)} in {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
