"""Are two threads ever slower than one, when other processes compute too?

    python benchmarks/threads.py --json threads.json

A process of its own takes the gradient of PGD again and again, with the network `small` and --images images: with one
thread and with two, whose OpenMP waits actively (as it does by itself) or asleep (as `irt` asks). Beside it run none,
one and three processes that do nothing but use a core. The contenders take turns. Numbers are seconds on the clock for
a gradient: the median of a process, then the median over rounds.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import NamedTuple

from machine import describe_machine

WAIT_VARIABLES = ("GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_WAIT_POLICY")
"""Variables by which OpenMP is told how its threads wait."""

BUSY = (0, 1, 3)


class Contender(NamedTuple):
    """How many threads a process has, and how they wait: `active`, `passive`, or as OpenMP does by itself."""

    threads: int
    wait_policy: str | None

    @property
    def name(self) -> str:
        """Return the name that the tables have."""
        return f"{self.threads} threads, {self.wait_policy or 'by itself'}" if self.threads > 1 else "1 thread"


CONTENDERS = (Contender(1, None), Contender(2, None), Contender(2, "passive"))


def take_gradients(images: int, repeats: int) -> list[float]:
    """Return the seconds of each gradient; the first ones warm up and are left out."""
    import torch

    from interpret_robust.models import build
    from interpret_robust.models.folding import fold
    from interpret_robust.models.losses import loss_gradient
    from interpret_robust.models.variants import find_variant

    network = fold(build("small", find_variant("at").head, (3, 32, 32), 10, seed=0).eval())
    pixels = torch.rand(images, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    labels = torch.arange(images) % 10
    times = []
    for _ in range(repeats + 3):
        began = time.perf_counter()
        loss_gradient(network, pixels, labels)
        times.append(time.perf_counter() - began)
    return times[3:]


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """Keep this many processes busy inside."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def measure(contender: Contender, images: int, repeats: int) -> float:
    """Return the median seconds of a gradient in a process of its own."""
    environment = {name: value for name, value in os.environ.items() if name not in WAIT_VARIABLES}
    environment["OMP_NUM_THREADS"] = str(contender.threads)
    if contender.wait_policy:
        environment["OMP_WAIT_POLICY"] = contender.wait_policy
    command = [sys.executable, __file__, "--images", str(images), "--repeats", str(repeats), "--worker"]
    output = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True).stdout
    return float(median(json.loads(output)))


def main() -> None:
    """Measure all contenders, or take the gradients of one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=250)
    parser.add_argument("--repeats", type=int, default=40, help="gradients of a process")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the numbers to this file")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        print(json.dumps(take_gradients(arguments.images, arguments.repeats)))
        return
    machine = describe_machine()
    seconds: dict[str, dict[str, list[float]]] = {}
    for busy in BUSY:
        table = seconds[f"beside {busy} busy"] = {contender.name: [] for contender in CONTENDERS}
        with busy_processes(busy):
            for _ in range(arguments.rounds):
                for contender in CONTENDERS:
                    table[contender.name].append(measure(contender, arguments.images, arguments.repeats))
        line = ", ".join(f"{name}: {1e3 * median(times):.0f} ms" for name, times in table.items())
        print(f"beside {busy} busy processes: {line}", flush=True)
    if arguments.json:
        content = {"machine": machine, "images": arguments.images, "repeats": arguments.repeats, "seconds": seconds}
        arguments.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
