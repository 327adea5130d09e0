"""Does memory stay flat from 1,000 pictures to 60,000, and is decoding as fast as torchvision's DataLoader?

    python benchmarks/pictures.py
    python benchmarks/pictures.py --counts 200 1000 --speed-count 400 --json pictures.json

Pictures are JPEGs of mixed sizes in class folders, and the same in tars. Each pass over them is a process of its own:
every picture is decoded, resized to 256 and cropped to 224, in batches, and dropped. Beside ours stands torchvision's
ImageFolder with the same transform behind torch's DataLoader, with as many workers as there are cores; both are
measured in turns, after a pass that fills the file cache. Of more than 1,000 pictures the files are hard links.

Exit status 1 where the peak memory of most pictures is over that of fewest by more than MOST_MEMORY, or where our best
pass takes longer than the loader's best by more than MOST_TIME.
"""

import argparse
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from machine import describe_machine
from PIL import Image

from interpret_robust.core.process_pool import count_cores
from interpret_robust.results.tables import render

MOST_MEMORY, MOST_TIME = 0.05, 0.1
"""Growth that is allowed, and how much longer than the DataLoader our passes may take."""
CLASSES, DISTINCT, SHARD = 10, 1000, 1000
BATCH = 64


class Pass(NamedTuple):
    """One pass over pictures: peak resident memory in MiB, seconds of decoding without imports and listing."""

    kind: str
    pictures: int
    mib: float
    seconds: float

    @property
    def rate(self) -> float:
        """Return the pictures a second."""
        return self.pictures / self.seconds


def write_folder(folder: Path, count: int) -> None:
    """Write JPEGs of mixed sizes into class folders; from DISTINCT on they are hard links to the first ones."""
    random = np.random.default_rng(0)
    for number in range(count):
        path = folder / f"class{number % CLASSES}" / f"{number:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        if number >= DISTINCT:
            twin = number % DISTINCT
            os.link(folder / f"class{twin % CLASSES}" / f"{twin:06d}.jpg", path)
            continue
        height, width = (int(side) for side in random.integers(240, 520, 2))
        noise = random.integers(0, 256, (height // 16, width // 16, 3), np.uint8)
        Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC).save(path, quality=90)


def write_tars(folder: Path, tars: Path) -> None:
    """Write the same pictures as WebDataset's shards."""
    tars.mkdir()
    paths = sorted(folder.rglob("*.jpg"), key=lambda path: path.name)
    for first in range(0, len(paths), SHARD):
        with tarfile.open(tars / f"shard-{first // SHARD:04d}.tar", "w") as tar:
            for path in paths[first : first + SHARD]:
                label = path.parent.name.removeprefix("class").encode()
                for ending, content in (("jpg", path.read_bytes()), ("cls", label)):
                    entry = tarfile.TarInfo(f"{path.stem}.{ending}")
                    entry.size = len(content)
                    tar.addfile(entry, io.BytesIO(content))


def run_ours(source: str) -> tuple[int, float]:
    """Decode all pictures of a source in batches; return their number, and the seconds."""
    import torch

    from interpret_robust.datasets import load
    from interpret_robust.datasets.batches import make_batch, read_batches
    from interpret_robust.datasets.framing import Framing

    split = load(source).frame(Framing((256,), (224, 224))).test
    make_batch(split, range(1), torch.device("cpu"))  # imports torchvision, as the other pass has done by now
    began = time.perf_counter()
    places = (range(first, min(first + BATCH, len(split))) for first in range(0, len(split), BATCH))
    for _ in read_batches(split, places, torch.device("cpu")):
        pass
    return len(split), time.perf_counter() - began


def run_torchvision(source: str) -> tuple[int, float]:
    """Decode all pictures of a source with torchvision's ImageFolder and torch's DataLoader; return the same."""
    from torch.utils.data import DataLoader
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    steps = [transforms.Resize(256), transforms.CenterCrop(224), transforms.PILToTensor()]
    pictures = ImageFolder(source, transforms.Compose(steps))
    loader: Any = DataLoader(pictures, BATCH, num_workers=count_cores())
    began = time.perf_counter()
    for images, _ in loader:
        images.float().div_(255)
    return len(pictures), time.perf_counter() - began


RUNS = {"ours": run_ours, "torchvision": run_torchvision}


def measure(run: str, source: Path, kind: str) -> Pass:
    """Make one pass in a process of its own."""
    command = [sys.executable, __file__, "--run", run, str(source)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    answer = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed")
    count, seconds = json.loads(answer)
    return Pass(kind, count, usage.ru_maxrss / 1024, seconds)


def format_row(trial: Pass) -> dict[str, str]:
    """Return a pass as a row of the table."""
    return {
        "pass": trial.kind,
        "pictures": f"{trial.pictures:,}",
        "pictures a second": f"{trial.rate:.0f}",
        "peak MiB": f"{trial.mib:.0f}",
    }


def measure_growth(passes: Sequence[Pass]) -> float:
    """Return by which share memory grows from the fewest to the most pictures."""
    return passes[-1].mib / passes[0].mib - 1


def main() -> None:
    """Measure memory for each form and count, then speed in turns, and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=[1_000, 60_000], help="of pictures, rising")
    parser.add_argument("--speed-count", type=int, default=4_000, help="pictures of the passes beside torchvision's")
    parser.add_argument("--turns", type=int, default=3, help="passes of each")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    parser.add_argument("--run", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        print(json.dumps(RUNS[arguments.run[0]](arguments.run[1])))
        return
    machine = describe_machine()
    print("; ".join(f"{name} {value}" for name, value in machine.items()))
    memory: dict[str, list[Pass]] = {"folder": [], "tars": []}
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        for count in arguments.counts:
            write_folder(root / f"folder-{count}", count)
            write_tars(root / f"folder-{count}", root / f"tars-{count}")
            for form, passes in memory.items():
                passes.append(measure("ours", root / f"{form}-{count}", form))
        print(render([format_row(trial) for passes in memory.values() for trial in passes]))
        growths = {form: measure_growth(passes) for form, passes in memory.items()}
        print(", ".join(f"memory of {form} {growth:+.1%}" for form, growth in growths.items()), flush=True)
        write_folder(root / "speed", arguments.speed_count)
        measure("ours", root / "speed", "warm")
        turns = [measure(run, root / "speed", run) for _ in range(arguments.turns) for run in RUNS]
    print(f"\n{render([format_row(trial) for trial in turns])}")
    best = {run: max(trial.rate for trial in turns if trial.kind == run) for run in RUNS}
    longer = best["torchvision"] / best["ours"] - 1
    numbers = f"of {arguments.turns} each, {count_cores()} workers each"
    print(f"time of our best pass beside the DataLoader's {longer:+.1%}, {numbers}")
    if arguments.json:
        report = {"memory": [trial._asdict() for passes in memory.values() for trial in passes]}
        report |= {"speed": [trial._asdict() for trial in turns]}
        arguments.json.write_text(json.dumps({"machine": machine, **report}, indent=1) + "\n", encoding="utf-8")
    sys.exit(max(growths.values()) > MOST_MEMORY or longer > MOST_TIME)


if __name__ == "__main__":
    main()
