"""What do 50,000 pictures of 224x224 cost, attacked in a ResNet-50 by PGD-20 and by AutoAttack, on one GPU?

    python benchmarks/imagenet.py --json docs/scale/imagenet.json

Counted: FLOPs of a pass and of a gradient of the network. Measured here, on one core: seconds of both, with the batch
that `irt` takes, and of decoding, resizing and cropping a JPEG; seconds of a whole `irt evaluate` of a few pictures, of
which what is not gradients is the overhead. Assumed, and marked so: FLOPs a second of a GPU in float32, low and high,
and the share of pictures that AutoAttack has to attack to the end. No GPU is used.

AutoAttack's cost is an upper bound: APGD-CE, APGD-T and FAB-T of nine targets, 100 steps each, and Square's 5,000
queries, all to the end, of each picture that stays right; one that breaks costs less.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from audit_plan import count_operations
from machine import describe_machine
from pictures import write_folder
from torchvision.models import resnet50

import interpret_robust as ir
from interpret_robust.datasets import load
from interpret_robust.datasets.batches import choose_batch_size, make_batch
from interpret_robust.datasets.framing import Framing
from interpret_robust.results.tables import render

PICTURES, SIDE = 50_000, 224
PGD_STEPS, STEPS = 20, 4
"""Steps of the attack whose cost is reckoned, and of the attack that is timed."""
APGD_CE, APGD_T, FAB_T, SQUARE = 100, 9 * 100, 9 * 100, 5000
"""Gradients of each part of AutoAttack, and passes of the last."""

TERAFLOPS = {"low": 10.0, "high": 40.0}
"""Assumed of one H100 in float32 without TF32: its data sheet gives 67 at most; convolutions reach a share of that."""

RIGHT_SHARE = 0.35
"""Assumed share of pictures that stay right under attack: of robust ImageNet models of this size, a third at 4/255."""


class Parts(NamedTuple):
    """Seconds of one picture on one core of this machine."""

    forward: float
    gradient: float
    decode: float
    overhead: float


def time_each(work: Callable[[], object], count: int, repeats: int) -> float:
    """Return the seconds a picture of the fastest of some runs, after a run that is not timed."""
    work()
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return min(seconds) / count


def measure(repeats: int) -> Parts:
    """Measure each part alone, then the whole command's function, on the same pictures."""
    torch.manual_seed(0)
    network = resnet50(weights=None).eval().requires_grad_(False)
    size = choose_batch_size(SIDE, SIDE)
    images, labels = torch.rand(size, 3, SIDE, SIDE), torch.arange(size)

    def forward() -> None:
        with torch.no_grad():
            network(images)

    def gradient() -> None:
        pixels = images.clone().requires_grad_()
        torch.autograd.grad(F.cross_entropy(network(pixels), labels), pixels)

    alone = time_each(forward, size, repeats), time_each(gradient, size, repeats)
    with tempfile.TemporaryDirectory() as place:
        write_folder(Path(place) / "test", size)
        data = load(place).frame(Framing((256,), (SIDE, SIDE)))
        split, cpu = data.test, torch.device("cpu")
        decode = time_each(lambda: make_batch(split, range(size), cpu), size, repeats)
        network.fc = torch.nn.Linear(2048, len(data.class_names)).requires_grad_(False)
        model = ir.load(network, data)
        whole = time_each(lambda: ir.analyze("robustness", model, pgd=STEPS, cw=None), size, repeats)
    overhead = whole - decode - STEPS * alone[1] - 2 * alone[0]
    return Parts(*alone, decode, overhead)


class Cost(NamedTuple):
    """What a question costs: how many pictures, and how many gradients and passes each of them takes."""

    question: str
    pictures: int
    gradients: int
    passes: int

    def flops(self, forward: int, gradient: int) -> float:
        """Return the FLOPs of all pictures."""
        return self.pictures * (self.gradients * gradient + self.passes * forward)


COSTS = (
    Cost(f"PGD-{PGD_STEPS}", PICTURES, PGD_STEPS, 2),
    Cost("AutoAttack, at most", round(PICTURES * RIGHT_SHARE), APGD_CE + APGD_T + FAB_T, SQUARE),
)


def main() -> None:
    """Measure, reckon, print, and keep what was measured, counted and assumed apart."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="timed runs of each part, of which the fastest counts")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    machine = describe_machine()
    flops = count_operations(resnet50(weights=None), (3, SIDE, SIDE))
    parts = measure(arguments.repeats)
    rows = []
    for cost in COSTS:
        total = cost.flops(flops.forward_flops, flops.gradient_flops)
        core_seconds = cost.pictures * (
            cost.gradients * parts.gradient + cost.passes * parts.forward + parts.decode + parts.overhead
        )
        rows.append(
            {
                "question": cost.question,
                "pictures": f"{cost.pictures:,}",
                "gradients, passes": f"{cost.gradients:,}, {cost.passes:,}",
                "EFLOP": f"{total / 1e18:.3f}",
                **{f"GPU hours, {name}": f"{total / rate / 1e12 / 3600:.2f}" for name, rate in TERAFLOPS.items()},
                "core hours here": f"{core_seconds / 3600:,.0f}",
            }
        )
    print("; ".join(f"{name} {value}" for name, value in machine.items()))
    print(render([{f"{name}, ms": f"{1000 * value:.1f}" for name, value in parts._asdict().items()}]))
    print(f"\n{render(rows)}")
    decoding = PICTURES * parts.decode / 3600
    print(f"decoding all pictures: {decoding:.2f} core hours, {decoding / 16:.3f} hours with 16 workers")
    if arguments.json:
        report = {
            "machine": machine,
            "counted": {"forward FLOPs": flops.forward_flops, "gradient FLOPs": flops.gradient_flops},
            "measured, seconds a picture": parts._asdict(),
            "assumed": {"TFLOP/s": TERAFLOPS, "share that stays right": RIGHT_SHARE},
            "reckoned": rows,
        }
        arguments.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
