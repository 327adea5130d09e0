"""How close to this machine's limits is a training step, and a gradient of PGD?

    python benchmarks/limit.py --arch narrow --variant at-reg --batch 128 --threads 2 --json limit.json

What has to be done is counted on the model itself, while a real step runs as written, one operation after the other:

- FLOPs of convolutions and matrix products, by torch's formulas, a multiply-add being two. Everything else, some
  percent, is not counted.
- bytes, unfused: all that every operation reads and writes, each tensor at its full size. It is the traffic of eager
  execution without any cache; what a kernel moves about inside itself is not seen.
- bytes, least: the operands and results of convolutions and matrix products, once an operation. It is the traffic if
  all else were fused into these, and nothing of one stayed on the chip for the next. Whatever keeps more there, such
  as a large cache, can go below it.

The limits are measured: the fastest product of two large matrices, or convolution of many channels, in the precision of
the work, and the fastest copy (or sum of two) of arrays that fit into no cache. Achieved is what was counted over the
median time of the same work as a user runs it, compiled and replayed where that is the way. Achieved / limit is above
100 % for bytes where they came from a cache, or were never moved because operations were fused.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from machine import describe_machine
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from interpret_robust.core.device import resolve
from interpret_robust.core.process_pool import count_cores
from interpret_robust.datasets import Dataset, Split
from interpret_robust.models import build
from interpret_robust.models.architectures import ARCHITECTURES
from interpret_robust.models.folding import fold
from interpret_robust.models.losses import loss_gradient
from interpret_robust.models.variants import VARIANTS, find_variant
from interpret_robust.results.tables import render
from interpret_robust.training.job import Job
from interpret_robust.training.recipe import PRESETS
from interpret_robust.training.recipe_file import find_recipe
from interpret_robust.training.run import Run

WARM_UP = 6
"""Steps before the first that is timed: a compiler and a recorder of graphs are done by then."""

MATRIX = {"cpu": 2048, "cuda": 8192}
"""Rows and columns of the matrices whose product is the limit of compute."""

CHANNELS, IMAGES = 256, {"cpu": 16, "cuda": 256}
"""Of a convolution of maps of 32x32, which a CPU's library of products of matrices may not equal."""

ARRAY = 2**27
"""Numbers (512 MiB of float32) in an array that is copied for the limit of memory."""

CEILING_REPEATS = 10


class Counts(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A count of what operations have to do, of all that run inside its `with` block; see the module's docstring."""

    # Only its formulas: the mode itself refuses a gradient with respect to a model's images.
    formulas = FlopCounterMode(display=False).flop_registry

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = self.unfused_bytes = self.least_bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        """Run one operation, and count it."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func.is_view or func.overloadpacket.__name__ in ALLOCATIONS:
            return result
        traffic = sum(map(count_bytes, [*list_reads(func, args, kwargs), *list_writes(func, args, result)]))
        self.unfused_bytes += traffic
        if formula := self.formulas.get(func.overloadpacket):
            self.flops += formula(*args, **kwargs, out_val=result)
            self.least_bytes += traffic
        return result


ALLOCATIONS = ("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "set_")
"""Operations that give a tensor its room and move nothing."""

FILLS = ("copy_", "fill_", "zero_", "zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_full")
"""Operations that do not look at the numbers of their first argument."""


def list_reads(func: Any, args: Any, kwargs: Any) -> list[Tensor]:
    """Return the tensors whose numbers an operation needs."""
    if func.overloadpacket is torch.ops.aten.convolution_backward:
        gradient, images, weights, mask = args[0], args[1], args[2], args[-1]
        return [gradient, *([weights] if mask[0] else []), *([images] if mask[1] else [])]
    return collect_tensors((args[func.overloadpacket.__name__ in FILLS :], kwargs))


def list_writes(func: Any, args: Any, result: Any) -> list[Tensor]:
    """Return the tensors whose numbers an operation makes, also in the place of others."""
    targets = [
        value
        for argument, value in zip(func._schema.arguments, args, strict=False)
        if argument.alias_info and argument.alias_info.is_write
    ]
    return list({id(tensor): tensor for tensor in collect_tensors((result, targets))}.values())


def collect_tensors(tree: Any) -> list[Tensor]:
    """Return all tensors in nested lists, tuples and mappings."""
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def count_bytes(tensor: Tensor) -> int:
    """Return the bytes of a tensor in memory; of an expanded one those that are there."""
    return min(tensor.nbytes, tensor.untyped_storage().nbytes())


@dataclass(frozen=True)
class Work:
    """Work on a batch of images: `action` does it once, in `precision` where that matters."""

    name: str
    precision: torch.dtype
    images: int
    action: Callable[[], object]

    def count(self) -> Counts:
        """Count what doing it once has to do. Nothing is compiled for that, so that each operation is seen."""
        with torch.compiler.set_stance("force_eager"):
            self.action()  # makes what is made once, such as the state of an optimizer
            counts = Counts()
            with counts:
                self.action()
        return counts

    def measure(self, repeats: int, device: torch.device) -> list[float]:
        """Return how many seconds it takes each time, after WARM_UP times."""
        for _ in range(WARM_UP):
            self.action()
        return time_calls(self.action, repeats, device)


def make_works(arguments: argparse.Namespace, device: torch.device) -> Iterator[Work]:
    """Make the works: a training step, and a gradient as an evaluation's PGD takes it, of random images."""
    recipe = find_recipe(arguments.recipe, "random", architecture=arguments.arch)
    # An attack that does not grow is the same work in each step.
    recipe = replace(recipe, batch_size=arguments.batch, attack_steps=arguments.steps, eps_ramp=0.0)
    dataset = make_random_dataset(arguments.batch * (arguments.repeats + WARM_UP + 3))  # less than an epoch is run
    run = Run(Job(dataset, arguments.arch, find_variant(arguments.variant), 0, recipe), device)
    training = torch.bfloat16 if device.type == "cuda" else torch.float32
    name = f"training step of {arguments.variant}"
    if run.job.variant.adversarial:
        name += f", PGD-{arguments.steps} with batch norm in {recipe.attack_batch_norm} mode"
    yield Work(name, training, arguments.batch, run.advance)
    images, labels = run.batches.batch(0)
    network = build(arguments.arch, run.job.variant.head, dataset.image_shape, run.classes, seed=0)
    model = fold(network.eval()).to(device)
    gradient = partial(loss_gradient, model, images, labels)
    yield Work("gradient of PGD in evaluation", torch.float32, arguments.batch, gradient)


def make_random_dataset(count: int) -> Dataset:
    """Make a dataset of random images of 32x32x3, of ten classes."""
    images = np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), np.uint8)
    split = Split(images, np.arange(count) % 10)
    return Dataset("random", split, split.first(10), tuple("0123456789"))


class Ceiling(NamedTuple):
    """A limit of the machine, in FLOPs or bytes a second: the fastest of some repeats, and their median."""

    name: str
    best: float
    median: float


def measure_compute_ceiling(device: torch.device, precision: torch.dtype) -> Ceiling:
    """Measure the FLOPs a second of a product of two large matrices or of a wide convolution, whichever is faster."""
    side, images = MATRIX[device.type], IMAGES[device.type]
    matrix = torch.randn(side, side, device=device, dtype=precision)
    product = torch.empty_like(matrix)
    maps = torch.randn(images, CHANNELS, 32, 32, device=device, dtype=precision)
    kernels = torch.randn(CHANNELS, CHANNELS, 3, 3, device=device, dtype=precision)
    operands = [tensor.contiguous(memory_format=torch.channels_last) for tensor in (maps, kernels)]
    convolve = partial(torch.conv2d, *operands, padding=1)
    name = f"product of matrices {side}x{side} or 3x3 convolution of {CHANNELS} channels, {_name(precision)}"
    with torch.no_grad():
        products = {2 * side**3: partial(torch.mm, matrix, matrix, out=product)}
        return _measure_ceiling(name, products | {2 * maps.numel() * CHANNELS * 9: convolve}, device)


def measure_memory_ceiling(device: torch.device) -> Ceiling:
    """Measure the bytes a second of a copy or of a sum of two arrays (STREAM's triad), whichever is faster."""
    first, second, third = (torch.zeros(ARRAY, device=device) for _ in range(3))
    copy, triad = partial(third.copy_, first), partial(torch.add, first, second, alpha=3, out=third)
    name = f"copy or triad of {first.nbytes // 2**20} MiB"
    return _measure_ceiling(name, {2 * first.nbytes: copy, 3 * first.nbytes: triad}, device)


def _measure_ceiling(name: str, kernels: Mapping[int, Callable[[], object]], device: torch.device) -> Ceiling:
    """Measure kernels, by the FLOPs or bytes of each, and return the fastest."""
    rates = {}
    for amount, kernel in kernels.items():
        time_calls(kernel, 2, device)
        rates[amount] = amount / np.array(time_calls(kernel, CEILING_REPEATS, device))
    fastest = max(rates.values(), key=max)
    return Ceiling(name, float(fastest.max()), float(np.median(fastest)))


def time_calls(action: Callable[[], object], repeats: int, device: torch.device) -> list[float]:
    """Return the seconds of each of some calls, all that they started on a GPU included."""
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        action()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - began)
    return seconds


class Utilization(NamedTuple):
    """How far a limit is used: what an image needs of a quantity, the rate achieved, and the limit."""

    quantity: str
    per_image: float
    rate: float
    limit: float

    def record(self) -> dict[str, str | float]:
        """Return the fields by the names that they have in the JSON file."""
        return dict(zip(("what", "per_image", "achieved", "limit"), self, strict=True))

    def row(self) -> dict[str, str]:
        """Return a row of the table, in giga."""
        unit = "GFLOP" if self.quantity == "compute" else "GB"
        return {
            "what": self.quantity,
            "an image": f"{self.per_image / 1e9:.4f} {unit}",
            "achieved": f"{self.rate / 1e9:.1f} {unit}/s",
            "limit": f"{self.limit / 1e9:.1f} {unit}/s",
            "achieved / limit": f"{self.rate / self.limit:.1%}",
        }


def compare(counts: Counts, images: int, seconds: float, compute: Ceiling, memory: Ceiling) -> list[Utilization]:
    """Compare what was counted for some images, which took some seconds, with the limits."""
    amounts = {
        "compute": (counts.flops, compute),
        "memory, unfused": (counts.unfused_bytes, memory),
        "memory, least": (counts.least_bytes, memory),
    }
    return [
        Utilization(quantity, amount / images, amount / seconds, ceiling.best)
        for quantity, (amount, ceiling) in amounts.items()
    ]


def _name(precision: torch.dtype) -> str:
    return str(precision).removeprefix("torch.")


def main() -> None:
    """Measure, print a table for each work, and write all of it as JSON where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", choices=ARCHITECTURES, default="small")
    parser.add_argument("--variant", choices=VARIANTS, default="at-reg")
    parser.add_argument("--recipe", choices=PRESETS, default="quick", help="whose optimizer, and batch norm in PGD")
    parser.add_argument("--batch", type=int, default=128, help="images a step")
    parser.add_argument("--steps", type=int, default=5, help="of PGD in a training step")
    parser.add_argument("--repeats", type=int, default=10, help="of each work, timed one by one")
    parser.add_argument("--threads", type=int, default=count_cores(), help="on a CPU; default: a thread a core")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = resolve(arguments.device)
    machine = describe_machine()
    print("; ".join(f"{name} {value}" for name, value in machine.items()))
    memory, records = measure_memory_ceiling(device), []
    for work in make_works(arguments, device):
        counts, seconds = work.count(), work.measure(arguments.repeats, device)
        compute = measure_compute_ceiling(device, work.precision)
        utilizations = compare(counts, work.images, float(np.median(seconds)), compute, memory)
        low, middle, high = np.quantile(seconds, (0.25, 0.5, 0.75)) / work.images * 1e3
        print(
            f"\n{work.name}; {arguments.arch}, batch {work.images}, {_name(work.precision)} on {device.type}: "
            f"{middle:.3f} ms an image [{low:.3f}, {high:.3f}], median and quartiles of {arguments.repeats}"
        )
        print(render([utilization.row() for utilization in utilizations]))
        records.append(
            {"work": work.name, "images": work.images, "seconds": seconds, "compute limit": compute._asdict()}
            | {utilization.quantity: utilization.record() for utilization in utilizations}
        )
        print(f"limit of compute: {_describe(compute)}")
    print(f"limit of memory: {_describe(memory)}\nWhat these numbers are and are not: --help.")
    if arguments.json:
        options = {name: str(value) for name, value in vars(arguments).items()}
        report = {"machine": machine, "options": options, "memory limit": memory._asdict(), "works": records}
        arguments.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def _describe(ceiling: Ceiling) -> str:
    best, median = ceiling.best / 1e9, ceiling.median / 1e9
    return f"{ceiling.name}, fastest of {CEILING_REPEATS} at {best:.1f} G/s (median {median:.1f})"


if __name__ == "__main__":
    main()
