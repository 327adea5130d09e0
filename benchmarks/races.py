"""Do two equal commands that start together end in the files of one that ran alone?

    python benchmarks/races.py --pairs 200

Each pair starts in a fresh folder, at a barrier, in two processes forked from one that has everything imported. After
it every file must be there, readable, and equal to that of an undisturbed run, with nothing beside it; and each
process must have ended well. Kinds: analyze, train, report, figure.
"""

import argparse
import contextlib
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
TRAIN = ("natural", "--limit", "64", "--set", "epochs=1", "--set", "batch_size=32")
COMMANDS: Mapping[str, tuple[str, ...]] = {
    "train": ("train", *TRAIN),
    "analyze": ("analyze", "gradient-maps", "--limit", "8", "--batch-size", "2"),
    "figure": ("figure", "gradient-maps"),
    "report": ("report",),
}
NEEDS: Mapping[str, tuple[str, ...]] = {
    "train": (),
    "analyze": ("checkpoints",),
    "figure": ("analyses",),
    "report": ("analyses",),
}
"""The folders that a command reads."""

PATIENCE = 120.0
"""Seconds after which a process is taken to hang."""


def work(arguments: tuple[str, ...], root: Path, barrier: Any = None) -> None:
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


def contents(root: Path) -> dict[str, str]:
    """What each file says, by its path below `root`, without clocks. Raises for a file that cannot be read."""
    return {str(path.relative_to(root)): _content(path) for path in sorted(root.rglob("*")) if path.is_file()}


def _content(path: Path) -> str:
    from interpret_robust.core.files import file_sha256
    from interpret_robust.models import checkpoint
    from interpret_robust.results import hdf5

    if path.suffix == ".h5":
        hdf5.read(path)
        return str(hdf5.attributes(path)["content_sha256"])
    if path.suffix == ".safetensors":
        return checkpoint.read(path).sha256
    if path.suffix == ".json":
        json.loads(path.read_bytes())
    return file_sha256(path)


@dataclass
class Arena:
    """A folder in which pairs are run; `whole` holds what an undisturbed run gives."""

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

    def start(self, kind: str, root: Path, barrier: Any = None) -> Any:
        """Start one process of a kind."""
        process = self.context.Process(target=work, args=(COMMANDS[kind], root, barrier))
        process.start()
        return process

    def prepare(self) -> None:
        """Run each command alone."""
        for kind in COMMANDS:
            process = self.start(kind, self.whole)
            process.join(PATIENCE)
            if process.exitcode:
                raise SystemExit(f"irt {kind}: {(self.folder / 'whole.log').read_text()}")

    def outcome(self, kind: str, number: int) -> str:
        """Run one pair: "good", or what is wrong."""
        root = self.folder / f"{kind}-{number}"
        root.mkdir()
        for need in NEEDS[kind]:
            shutil.copytree(self.whole / need, root / need)
        barrier = self.context.Barrier(2)
        processes = [self.start(kind, root, barrier) for _ in range(2)]
        for process in processes:
            process.join(PATIENCE)
        if any(process.is_alive() for process in processes):
            for process in processes:
                process.kill()
            return "hang"
        if any(process.exitcode for process in processes):
            return f"exit {[process.exitcode for process in processes]}: {root.with_suffix('.log').read_text()[-300:]}"
        try:
            found = contents(root)
        except Exception as error:
            return f"unreadable: {error}"
        expected = contents(self.whole)
        differing = [name for name, content in found.items() if expected.get(name) != content]
        made = [name for name in found if name.partition("/")[0] not in NEEDS[kind]]
        if differing or not made:
            return f"other content: {differing or 'nothing made'}"
        shutil.rmtree(root)
        return "good"


def main() -> None:
    """Run the pairs and print how each kind went."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=200, help="pairs of each kind")
    parser.add_argument("--kinds", nargs="+", choices=COMMANDS, default=list(COMMANDS))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        arena = Arena(Path(folder))
        arena.prepare()
        for kind in given.kinds:
            began = time.monotonic()
            counts = Counter(arena.outcome(kind, number) for number in range(given.pairs))
            print(f"{kind}: {dict(counts)} in {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
