"""What does a full audit of 1,000 models by 4 data sets by 10,000 images by 300 attack steps cost, and what limits it?

    python benchmarks/audit_plan.py --output docs/scale/audit_plan.json --figure docs/images/audit-plan.png

Three kinds of numbers, kept apart in the file that is written:

- measured: FLOPs of a gradient, counted on the networks; CPU time of a gradient, from docs/speed/; bytes and seconds an
  image, from the files in analyses/; the time to start a job and to save a batch, measured now unless they are given.
- assumed: what a GPU does in a second, what it costs, how often machines are pre-empted, how long one takes to come
  back. None of these has been measured by us; ASSUMPTIONS says where each is from.
- simulated: machines that take jobs from a queue and are pre-empted by a Poisson process, beside the closed form of the
  time that this takes (Young 1974, Daly 2006). The same --seed gives the same numbers.

A pre-empted machine loses what it did since its last save, comes back after --restart seconds, in which it also starts
Python and reads models and data, and goes on with the same job. It is paid from its first job's start to its last job's
end, also while it comes back. The clock of the next pre-emption starts when the machine is back.
"""

import argparse
import heapq
import io
import json
import math
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product, repeat
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import matplotlib as mpl
import numpy as np
import scipy
import torch
from flat import write_images
from limit import Counts
from machine import describe_machine
from matplotlib.figure import Figure
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from interpret_robust import analyses
from interpret_robust.core.files import replace_file
from interpret_robust.core.intervals import CONFIDENCE, Interval
from interpret_robust.datasets.batches import BATCH_SIZE
from interpret_robust.figures.style import OTHER_COLORS, RC, make_figure
from interpret_robust.models import build
from interpret_robust.models.variants import find_variant
from interpret_robust.results import hdf5, writer
from interpret_robust.results.tables import FORMS, render

HOUR = 3600.0
ROOT = Path(__file__).parents[1]
SUBJECT = ROOT / "checkpoints" / "cifar10-small-at-seed0.safetensors"

ASSUMPTIONS = {
    "tflops": "low: a narrow network in eager float32, from logged epochs of robust_overfitting; high: the lower end "
    "of an effective 50 to 100 TFLOP/s (both estimates). Not measured by us.",
    "price": "dollars a GPU hour: one H100 rented, from an interruptible one to a large provider's on demand, as two "
    "public comparisons of spring 2026 give them (gridstackhub.ai/learn/reserved-vs-spot-vs-on-demand-gpu: 1.49; "
    "mercatus-ai.com/blog/cloud-gpu-pricing: 5.00). Not checked by us.",
    "preempt_every": "hours: a harsh case. nops.io/blog/aws-spot-facts tells of under 5 % of such machines ended in a "
    "month, which would be a mean above a year; Google's ended after 24 hours at the latest (arXiv 1911.05160). That "
    "study finds them not memoryless, and arXiv 2604.16457 finds 92 % of them together with others: Poisson is a "
    "simplification.",
    "restart": "seconds: a guess; the part of it that is ours is the measured time to start a job.",
    "submissions": "jobs a minute: above it the University of Luxembourg's cluster asks for another way than one "
    "scheduled job each (github.com/ULHPC/ulhpc-docs, pull 148).",
    "bandwidth": "MB a second, all machines together: a link of 1 Gbit/s.",
}
"""What is assumed by each option, and where the number is from."""


# Measured


class Network(NamedTuple):
    """A network, and what is counted on it: parameters, and FLOPs an image (a multiply-add being two)."""

    image_shape: tuple[int, int, int]
    parameters: int
    forward_flops: int
    gradient_flops: int


def count_networks() -> dict[str, Network]:
    """Count the operations of three networks of ours on images of 32x32, and of a larger one as an example."""
    from torchvision.models import resnet50  # slow to import, and nothing else needs it

    head, shape = find_variant("at").head, (3, 32, 32)
    networks = {name: build(name, head, shape, 10, seed=0) for name in ("small", "narrow", "wide3")}
    counts = {name: count_operations(network, shape) for name, network in networks.items()}
    return counts | {"resnet50": count_operations(resnet50(weights=None), (3, 224, 224))}


def count_operations(network: nn.Module, shape: tuple[int, int, int]) -> Network:
    """Count the convolutions and matrix products of a forward pass, and of a gradient with respect to an image."""
    network.eval().requires_grad_(False)
    images = torch.rand(1, *shape, generator=torch.Generator().manual_seed(0))
    with FlopCounterMode(display=False) as forward, torch.no_grad():
        network(images)
    with Counts() as counts:
        torch.autograd.grad(network(images.requires_grad_()).sum(), images)
    return Network(shape, sum(map(torch.numel, network.parameters())), forward.get_total_flops(), counts.flops)


class Cpu(NamedTuple):
    """A gradient of PGD on a CPU: core seconds an image, and FLOPs a core second."""

    seconds: float
    flops: float


def read_cpu(path: Path) -> Cpu:
    """Read the time of a gradient from what `limit.py` wrote: the median time of a batch, times the threads."""
    report = json.loads(path.read_text(encoding="utf-8"))
    (work,) = (entry for entry in report["works"] if entry["work"].startswith("gradient of PGD"))
    seconds = float(np.median(work["seconds"])) / work["images"] * int(report["options"]["threads"])
    return Cpu(seconds, work["compute"]["per_image"] / seconds)


class Question(NamedTuple):
    """What the files of one analysis hold: medians over the files.

    Attributes:
        images: images of one file.
        bytes_per_image: bytes that each image takes.
        bytes_per_file: bytes that a file takes beside them, however many images it has.
        partial_bytes_per_image: bytes that each image takes in the unfinished file, which is not compressed.
        seconds: seconds an image, as the run itself noted them, with one thread.
    """

    files: int
    images: int
    bytes_per_image: float
    bytes_per_file: float
    partial_bytes_per_image: float
    seconds: float

    def record(self) -> dict[str, float]:
        """Return the values by the names that they have in the JSON file."""
        return dict(zip(("files", "images", "each", "fixed", "unfinished", "seconds"), self, strict=True))


def measure_questions(folder: Path) -> dict[str, Question]:
    """Measure the files of each analysis of the reference study; of `robustness` those with the whole attack table."""
    questions: dict[str, list[Question]] = defaultdict(list)
    for path in sorted(folder.glob("*-cifar10-small-*.h5")):
        provenance = hdf5.read_provenance(path)
        config, run = provenance["config"], provenance["run"]
        if config["settings"].get("cw") != "none":
            questions[config["analysis"].partition("/")[0]].append(_measure_file(path, run["seconds"]))
    return {name: Question(len(files), *np.median(files, axis=0)[1:].tolist()) for name, files in questions.items()}


def _measure_file(path: Path, seconds: float) -> Question:
    stored_bytes = partial_bytes = 0
    with h5py.File(path) as file:
        count = int(file.attrs["n_done"])
        for dataset in (file["sample"], *file["per_image"].values()):
            if isinstance(dataset, h5py.Dataset) and len(dataset) == count:
                stored_bytes += dataset.id.get_storage_size()
                partial_bytes += dataset.nbytes
    other_bytes = path.stat().st_size - stored_bytes
    return Question(1, count, stored_bytes / count, other_bytes, partial_bytes / count, seconds / count)


def time_start_up(images: int, repeats: int = 5) -> list[float]:
    """Time processes of `irt analyze` that read a model and this many images, and attack one image for one step."""
    seconds = []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            write_images(data := Path(folder) / "random.npz", images)
            command = [sys.executable, "-m", "interpret_robust.cli", "analyze", "robustness", str(SUBJECT)]
            command += ["--root", folder, "--dataset", str(data), "--limit", "1", "--pgd", "1", "--cw", "none"]
            began = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            seconds.append(time.perf_counter() - began)
    return seconds


def time_saves(path: Path, repeats: int = 20) -> list[float]:
    """Time writing and flushing the rows of a batch, from a file of `robustness`, to an unfinished file."""
    schema = analyses.get("robustness").schema
    with h5py.File(path) as file:
        rows = {column.path: file[column.path][:BATCH_SIZE] for column in schema.per_image}
    axes = {
        axis: size
        for column in schema.per_image
        for axis, size in zip(column.axes, rows[column.path].shape[1:], strict=True)
    }
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / path.name
        with writer.open_rows(whole, schema, repeats * BATCH_SIZE, axes, {}, {}) as partial_file:
            for _ in range(repeats):
                began = time.perf_counter()
                partial_file.append(rows)
                seconds.append(time.perf_counter() - began)
    return seconds


class ReadRecorder(io.BytesIO):
    """A file in memory that notes which of its bytes are read, as an object store would be asked for them."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.ranges: list[range] = []

    def readinto(self, buffer: Any) -> int:
        """Read as a file does, and note which bytes."""
        start, count = self.tell(), super().readinto(buffer)
        self.ranges.append(range(start, start + count))
        return count


BLOCK = 64 * 1024


def count_reads(path: Path, dataset: str) -> dict[str, int]:
    """Count what reading one dataset of a file takes: reads, their bytes, and the blocks that they touch."""
    recorder = ReadRecorder(path.read_bytes())
    with h5py.File(recorder) as file:
        file[dataset][()]
    blocks = {place // BLOCK for span in recorder.ranges for place in span}
    return {
        "bytes of the file": path.stat().st_size,
        "reads": len(recorder.ranges),
        "bytes read": sum(map(len, recorder.ranges)),
        "blocks of 64 KiB": len(blocks),
    }


# Arithmetic


@dataclass(frozen=True)
class Size:
    """The size of an audit."""

    models: int
    datasets: int
    images: int
    gradients: int

    @property
    def pairs(self) -> int:
        """Return the number of pairs of a model and a data set."""
        return self.models * self.datasets

    @property
    def all_gradients(self) -> int:
        """Return the number of gradients of one image."""
        return self.pairs * self.images * self.gradients

    def hours(self, rate: float) -> float:
        """Return the GPU or core hours that all gradients take at this many gradients of one image a second."""
        return self.all_gradients / rate / HOUR

    def disk_bytes(self, per_file: float, per_image: float) -> float:
        """Return the bytes of all files, one for each pair, where a file and each image in it take so many bytes."""
        return self.pairs * (per_file + self.images * per_image)


# Simulation


@dataclass(frozen=True)
class Costs:
    """Seconds that are not spent on work, and how often a job is saved.

    Attributes:
        start: seconds to start a job.
        restart: seconds from a pre-emption until the job goes on.
        save: seconds of one save.
        save_interval: seconds of work from save to save; infinite where a job is saved only when it is done.
    """

    start: float = 0.0
    restart: float = 0.0
    save: float = 0.0
    save_interval: float = math.inf

    def cut(self, job: float) -> tuple[int, float]:
        """Return into how many pieces, each followed by a save, a job is cut, and the seconds of all but the last."""
        interval = min(self.save_interval, job)
        return max(1, math.ceil(job / interval - 1e-9)), interval


@dataclass
class Usage:
    """Machine seconds by what they were used for; all of them are paid."""

    work: float = 0.0
    saving: float = 0.0
    starting: float = 0.0
    restarting: float = 0.0
    lost_work: float = 0.0
    preemptions: int = 0

    @property
    def paid_time(self) -> float:
        """Return all seconds together."""
        return self.work + self.saving + self.starting + self.restarting + self.lost_work

    @property
    def wasted_share(self) -> float:
        """Return the share of the paid time that is not work."""
        return 1 - self.work / self.paid_time


class Machine:
    """A machine that is pre-empted; `gaps` gives the seconds from each start to the next pre-emption, in turn."""

    def __init__(self, gaps: Iterator[float]) -> None:
        self._gaps = gaps
        self._preemption = next(gaps)

    def run(self, job: float, start: float, costs: Costs, usage: Usage) -> float:
        """Run a job of so many seconds of work, add what it took to `usage`, and return when it is done."""
        pieces, interval = costs.cut(job)
        clock, lead, finished_pieces = start, costs.start, 0
        while True:
            remainder = job - finished_pieces * interval
            saving = (pieces - finished_pieces) * costs.save
            if clock + lead + remainder + saving <= self._preemption:
                usage.starting += lead
                usage.work += remainder
                usage.saving += saving
                return clock + lead + remainder + saving
            saves = self._count_saves(self._preemption - clock - lead, pieces - finished_pieces, interval + costs.save)
            if saves >= 0:
                usage.starting += lead
                usage.work += saves * interval
                usage.saving += saves * costs.save
                clock += lead + saves * (interval + costs.save)
                finished_pieces += saves
            usage.lost_work += self._preemption - clock
            usage.restarting += costs.restart
            usage.preemptions += 1
            clock, lead = self._preemption + costs.restart, 0.0
            self._preemption = clock + next(self._gaps)

    @staticmethod
    def _count_saves(seconds: float, pieces: int, length: float) -> int:
        """Count the pieces that are saved after so many seconds, never the last; -1 if the job had not started yet."""
        return min(pieces - 1, math.floor(seconds / length)) if seconds >= 0 else -1


class Outcome(NamedTuple):
    """A simulation's outcome: when all jobs were done, when each was, when each machine was free, and the seconds."""

    makespan: float
    ends: list[float]
    free: list[float]
    usage: Usage

    @property
    def idle(self) -> float:
        """Return the share of the machines' time, until all was done, in which they had nothing to do."""
        return 1 - self.usage.paid_time / (len(self.free) * self.makespan)


def simulate(jobs: Sequence[float], machines: Sequence[Machine], costs: Costs) -> Outcome:
    """Simulate machines of which each takes the next job as soon as it is free."""
    usage, ends = Usage(), []
    queue = [(0.0, number) for number in range(len(machines))]
    for job in jobs:
        clock, number = heapq.heappop(queue)
        ends.append(machines[number].run(job, clock, costs, usage))
        heapq.heappush(queue, (ends[-1], number))
    return Outcome(max(ends), ends, [clock for clock, _ in queue], usage)


def make_fleet(count: int, mean: float, *seed: int) -> list[Machine]:
    """Make machines that are pre-empted by a Poisson process, every `mean` seconds on average; infinite means never."""
    seeds = np.random.SeedSequence(seed).spawn(count)
    return [Machine(_draw_gaps(mean, np.random.default_rng(sequence))) for sequence in seeds]


def _draw_gaps(mean: float, random: np.random.Generator) -> Iterator[float]:
    return repeat(math.inf) if math.isinf(mean) else (float(random.exponential(mean)) for _ in repeat(None))


def expect_paid_time(job: float, mean: float, costs: Costs) -> float:
    """Return the expected seconds that a job takes, exact for the machines that are simulated.

    A piece of L seconds, its save included, is tried until no pre-emption comes within it. That takes
    (mean + restart) (exp(L / mean) - 1) seconds (Daly 2006, with restarts that are not pre-empted themselves). A start
    is tried once, since a restart has one in it.
    """
    if math.isinf(mean):
        return costs.start + job + costs.cut(job)[0] * costs.save
    pieces, interval = costs.cut(job)
    last = job - (pieces - 1) * interval
    tries = (pieces - 1) * math.expm1((interval + costs.save) / mean) + math.expm1((last + costs.save) / mean)
    return (mean + costs.restart) * (tries - math.expm1(-costs.start / mean))


def estimate_waste(mean: float, costs: Costs) -> float:
    """Estimate the wasted share of paid time (Young 1974): of work, save / interval + (interval / 2 + restart) / mean.

    The estimate holds where pre-emptions are rare from one save to the next, and a job is many saves long.
    """
    overhead = costs.save / costs.save_interval + (costs.save_interval / 2 + costs.restart) / mean
    return overhead / (1 + overhead)


def average(values: Sequence[float]) -> Interval:
    """Return the mean over two seeds or more, with Student's 95 % interval; its width is zero if all are the same."""
    mean, error = float(np.mean(values)), float(scipy.stats.sem(values))
    if error == 0:
        return Interval(mean, mean, mean)
    return Interval(mean, *map(float, scipy.stats.t.interval(CONFIDENCE, len(values) - 1, mean, error)))


# The cases that are simulated


@dataclass(frozen=True)
class Case:
    """Jobs (seconds of work each) under some costs, and what they are called."""

    labels: Mapping[str, str]
    jobs: Sequence[float]
    costs: Costs

    def summarize(self, gpus: int, mean: float, seeds: Sequence[int]) -> dict[str, Any]:
        """Return what the simulation gives over seeds, beside the closed form."""
        outcomes = [simulate(self.jobs, make_fleet(gpus, mean, seed), self.costs) for seed in seeds]
        expectation = sum(expect_paid_time(job, mean, self.costs) for job in self.jobs)
        return {
            **self.labels,
            "jobs": len(self.jobs),
            "longest, h": max(self.jobs) / HOUR,
            "save every, s": min(self.costs.save_interval, max(self.jobs)),
            "least makespan, h": sum(self.jobs) / gpus / HOUR,
            "makespan, h": average([outcome.makespan / HOUR for outcome in outcomes]),
            "paid, GPU h": average([outcome.usage.paid_time / HOUR for outcome in outcomes]),
            "pre-emptions": average([outcome.usage.preemptions for outcome in outcomes]),
            "wasted": average([outcome.usage.wasted_share for outcome in outcomes]),
            "wasted, expected": 1 - sum(self.jobs) / expectation,
            "idle at the end": average([outcome.idle for outcome in outcomes]),
        }


PAIR = "a model and data set"


def split_jobs(size: Size) -> dict[str, int]:
    """Return, for each way to split the work on one model, into how many jobs it is cut."""
    return {"a model": 1, PAIR: size.datasets, "a tenth of the images": 10 * size.datasets}


def make_cases(size: Size, rates: Mapping[tuple[str, str], float], costs: Costs) -> Iterator[Case]:
    """Make the cases: networks at their rates, in large and small jobs, saved after each batch or at their end."""
    for (network, speed), rate in rates.items():
        seconds = size.datasets * size.images * size.gradients / rate
        batch_costs = replace(costs, save_interval=min(costs.save_interval, BATCH_SIZE * size.gradients / rate))
        for split, pieces in split_jobs(size).items():
            jobs = [seconds / pieces] * (size.models * pieces)
            labels = {"network": network, "speed": speed, "a job is": split}
            yield Case({**labels, "saved": "each batch"}, jobs, batch_costs)
            yield Case({**labels, "saved": "when done"}, jobs, replace(costs, save_interval=math.inf))
            if split == PAIR:
                yield Case({**labels, "saved": "each batch, no starts"}, jobs, replace(batch_costs, start=0.0))


def make_mixed_cases(size: Size, small: float, large: float, costs: Costs, seed: int) -> Iterator[Case]:
    """Make cases in which one model of ten is large: in any order, and with the longest jobs first.

    Rates are in gradients a second. All jobs are saved after the seconds of a batch of the large model.
    """
    is_large = np.random.default_rng(seed).permutation(np.arange(size.models) % 10 == 0)
    seconds = size.datasets * size.images * size.gradients / np.where(is_large, large, small)
    batch_costs = replace(costs, save_interval=min(costs.save_interval, BATCH_SIZE * size.gradients / large))
    for split, pieces in split_jobs(size).items():
        jobs = (seconds / pieces).repeat(pieces)
        yield Case({"a job is": split, "order": "any"}, jobs.tolist(), batch_costs)
        yield Case({"a job is": split, "order": "longest first"}, np.sort(jobs)[::-1].tolist(), batch_costs)


MEANS = (1.0, 4.0, 24.0)
INTERVALS = np.geomspace(1, 3 * HOUR, 8)
LENGTH = 50
"""Of the picture: hours from pre-emption to pre-emption; seconds from save to save; a job, in these hours."""

TIMES = {1: "1 s", 10: "10 s", 60: "1 min", 600: "10 min", HOUR: "1 h", 3 * HOUR: "3 h"}
PARTS = {share: f"{100 * share:g} %" for share in (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1)}
"""Ticks of its axes."""


def compute_points(costs: Costs, intervals: Sequence[float], seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Compute the wasted share of one machine's long job by the closed forms, and simulate it where there are seeds."""
    rows: list[dict[str, Any]] = []
    for mean, interval in product(MEANS, map(float, intervals)):
        point_costs, job = replace(costs, start=0.0, save_interval=interval), LENGTH * mean * HOUR
        fleets = [make_fleet(1, mean * HOUR, seed, len(rows)) for seed in seeds]
        shares = [simulate([job], machines, point_costs).usage.wasted_share for machines in fleets]
        expected = 1 - job / expect_paid_time(job, mean * HOUR, point_costs)
        forms = {"expected": expected, "first order": estimate_waste(mean * HOUR, point_costs)}
        rows.append({"mean, h": mean, "every, s": interval, **forms, **({"wasted": average(shares)} if shares else {})})
    return rows


def draw(simulations: Sequence[Mapping[str, Any]], costs: Costs, batches: Mapping[str, float]) -> Figure:
    """Draw the wasted share against the seconds from save to save; `batches` has the seconds of a batch, by name."""
    lines = compute_points(costs, np.geomspace(INTERVALS[0], INTERVALS[-1], 100).tolist(), ())
    bars: dict[str, Any] = {"fmt": "o", "markersize": 3.5, "elinewidth": 1}
    with mpl.rc_context(RC):
        figure = make_figure(3.4)
        axes = figure.subplots()
        for mean, shade in zip(MEANS, OTHER_COLORS, strict=False):
            line, marks = ([point for point in source if point["mean, h"] == mean] for source in (lines, simulations))
            intervals = [point["every, s"] for point in line]
            label = f"pre-empted every {mean:g} h"
            axes.plot(intervals, [point["expected"] for point in line], color=shade, label=label)
            axes.plot(intervals, [point["first order"] for point in line], ":", color=shade)
            value, low, high = np.array([point["wasted"] for point in marks]).T
            positions = [point["every, s"] for point in marks]
            axes.errorbar(positions, value, [value - low, high - value], color=shade, **bars)
        for side, (name, seconds) in zip(("right", "left"), batches.items(), strict=True):
            axes.axvline(seconds, color="0.6", linewidth=0.8, linestyle="--")
            axes.text(seconds, 1.0, f" {name} ", transform=axes.get_xaxis_transform(), ha=side, va="top", color="0.4")
        axes.plot([], [], color="0.4", label="closed form")
        axes.plot([], [], ":", color="0.4", label="its first order (Young)")
        axes.errorbar([], [], [], color="0.4", label="simulated, 95 %", **bars)
        axes.set(xscale="log", yscale="log", xlabel="work from save to save", ylabel="wasted share of paid time")
        axes.set_xticks(list(TIMES), list(TIMES.values()))
        axes.set_yticks(list(PARTS), list(PARTS.values()))
        axes.minorticks_off()
        axes.legend(loc="upper left", bbox_to_anchor=(0, 0.93))
    return figure


class Plan:
    """What is measured, and the tables that follow from it and from the options."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.size = Size(arguments.models, arguments.datasets, arguments.images, arguments.gradients)
        self.networks, self.questions = count_networks(), measure_questions(arguments.analyses)
        self.cpus = {name: read_cpu(ROOT / "docs" / "speed" / f"limit-{name}.json") for name in ("small", "narrow")}
        robustness = arguments.analyses / "robustness-cifar10-small-at-seed0-test-apgd100-first1000.h5"
        maps = arguments.analyses / "attention-maps-cifar10-small-at-att-seed0-test-first1000.h5"
        datasets = {robustness: "accuracy/worst", maps: "entropy/clean"}
        self.reads = {path.name: count_reads(path, dataset) for path, dataset in datasets.items()}
        self.starts = time_start_up(arguments.images) if arguments.start_up is None else [arguments.start_up]
        self.saves = time_saves(robustness) if arguments.save_cost is None else [arguments.save_cost]
        start, save = (float(np.median(seconds)) for seconds in (self.starts, self.saves))
        self.costs = Costs(start, arguments.restart, save, arguments.save_every or math.inf)

    def rate(self, network: str, speed: str) -> float:
        """Return how many gradients of one image a GPU is assumed to take in a second, at `low` or `high` speed."""
        end = ("low", "high").index(speed)
        if self.arguments.throughput:
            return float(self.arguments.throughput[end])
        return float(self.arguments.tflops[end] * 1e12 / self.networks[network].gradient_flops)

    def core_seconds(self, network: str) -> float:
        """Return the core seconds of a gradient: measured where it was, else at the narrow network's FLOPs a second."""
        measurement = self.cpus.get(network)
        return measurement.seconds if measurement else self.networks[network].gradient_flops / self.cpus["narrow"].flops

    def compute_costs(self) -> Iterator[dict[str, Any]]:
        """Yield a row for each network: FLOPs, GPU hours and money at both speeds, core hours."""
        for name, network in self.networks.items():
            slow_hours, fast_hours = (self.size.hours(self.rate(name, speed)) for speed in ("low", "high"))
            yield {
                "network": name,
                "forward, MFLOP": network.forward_flops / 1e6,
                "gradient, MFLOP": network.gradient_flops / 1e6,
                "all, EFLOP": network.gradient_flops * self.size.all_gradients / 1e18,
                "low speed, GPU h": slow_hours,
                "high speed, GPU h": fast_hours,
                "least, dollars": fast_hours * self.arguments.price[0],
                "most, dollars": slow_hours * self.arguments.price[1],
                "core h": self.size.hours(1 / self.core_seconds(name)),
                "core h are": "measured" if name in self.cpus else "by FLOPs",
            }

    def compute_disk(self) -> Iterator[dict[str, Any]]:
        """Yield a row for each question: bytes an image and in all, and its time beside that of the attack table."""
        for name, question in self.questions.items():
            per_file = question.bytes_per_file
            yield {
                "question": name,
                "files measured": question.files,
                "an image, kB": question.bytes_per_image / 1e3,
                "a file, kB": per_file / 1e3,
                "all, GB": self.size.disk_bytes(per_file, question.bytes_per_image) / 1e9,
                "all unfinished, GB": self.size.disk_bytes(per_file, question.partial_bytes_per_image) / 1e9,
                "time / robustness": question.seconds / self.questions["robustness"].seconds,
            }

    def compute_limits(self, network: str) -> Iterator[dict[str, Any]]:
        """Yield the hours that each resource alone would take, for the attack table and for all questions."""
        arguments, disk = self.arguments, list(self.compute_disk())
        table = [row for row in disk if row["question"] == "robustness"]
        for name, rows in {"attack table": table, "all questions": disk}.items():
            files, gigabytes = self.size.pairs * len(rows), sum(row["all, GB"] for row in rows)
            ratio = sum(row["time / robustness"] for row in rows) / arguments.gpus
            yield {
                "of": name,
                "files": files,
                "written, GB": gigabytes,
                "GPUs, low speed, h": ratio * self.size.hours(self.rate(network, "low")),
                "GPUs, high speed, h": ratio * self.size.hours(self.rate(network, "high")),
                "starts, a process a file, h": files * self.costs.start / arguments.gpus / HOUR,
                "scheduler, a job a file, h": files / arguments.submissions / 60,
                "network, h": gigabytes * 1e3 / arguments.bandwidth / HOUR,
            }

    def simulate(self) -> dict[str, list[dict[str, Any]]]:
        """Simulate the cases, those of unequal models, and the points of the picture."""
        arguments = self.arguments
        seeds, mean = range(arguments.seed, arguments.seed + arguments.seeds), arguments.preempt_every * HOUR
        pairs = [("narrow", "low"), ("narrow", "high"), ("resnet50", "high")]
        rates = {(network, speed): self.rate(network, speed) for network, speed in pairs}
        small, large = rates["narrow", "high"], rates["resnet50", "high"]
        equal = make_cases(self.size, rates, self.costs)
        unequal = make_mixed_cases(self.size, small, large, self.costs, arguments.seed)
        return {
            "simulation": [case.summarize(arguments.gpus, mean, seeds) for case in equal],
            "one in ten is resnet50": [case.summarize(arguments.gpus, mean, seeds) for case in unequal],
            "by save interval": compute_points(self.costs, INTERVALS.tolist(), seeds),
        }

    def collect(self) -> dict[str, Any]:
        """Collect everything that is written to the JSON file."""
        inputs = vars(self.arguments).items()
        return {
            "machine": describe_machine(),
            "inputs": {name: str(value) if isinstance(value, Path) else value for name, value in inputs},
            "assumed": ASSUMPTIONS,
            "measured": {
                "seconds to start a job": self.costs.start,
                "each start": self.starts,
                "seconds to save a batch": self.costs.save,
                "each save": self.saves,
                "reads of one dataset": self.reads,
                "networks": {name: network._asdict() for name, network in self.networks.items()},
                "cpu": {name: gradient._asdict() for name, gradient in self.cpus.items()},
                "questions": {name: question.record() for name, question in self.questions.items()},
            },
            "gradients": self.size.all_gradients,
            "arithmetic": list(self.compute_costs()),
            "disk": list(self.compute_disk()),
            "limits": list(self.compute_limits("narrow")),
            **self.simulate(),
        }

    def batch_seconds(self) -> dict[str, float]:
        """Return the seconds that a batch of ours takes, by network and speed."""
        pairs = [("narrow", "low"), ("resnet50", "high")]
        seconds = {pair: BATCH_SIZE * self.size.gradients / self.rate(*pair) for pair in pairs}
        return {f"a batch of {network}, {speed} speed": duration for (network, speed), duration in seconds.items()}


TABLES = ("arithmetic", "disk", "limits", "simulation", "one in ten is resnet50")
SHARES = ("wasted", "wasted, expected", "idle at the end")


def format_cell(name: str, value: Any) -> str:
    """Format a value of a table: an interval as `1.52 [1.49, 1.55]`, a share in percent."""
    if isinstance(value, str):
        return value
    if name in SHARES:
        return value.percent() if isinstance(value, Interval) else f"{100 * value:.1f} %"
    return "{} [{}, {}]".format(*map(format_number, value)) if isinstance(value, Interval) else format_number(value)


def format_number(value: float) -> str:
    """Format a number with three digits at least."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=1000)
    parser.add_argument("--datasets", type=int, default=4)
    parser.add_argument("--images", type=int, default=10_000, help="of each data set")
    parser.add_argument("--gradients", type=int, default=300, help="attack steps an image")
    parser.add_argument("--gpus", type=int, default=64)
    low_high: dict[str, Any] = {"type": float, "nargs": 2, "metavar": ("LOW", "HIGH")}
    parser.add_argument("--price", **low_high, default=[1.5, 5.0], help="dollars a GPU hour")
    parser.add_argument("--tflops", **low_high, default=[1.4, 50.0], help="TFLOP that a GPU does in a second")
    parser.add_argument("--throughput", **low_high, help="gradients of one image a second, in the place of --tflops")
    parser.add_argument("--preempt-every", type=float, default=4.0, help="mean hours between a machine's pre-emptions")
    parser.add_argument("--restart", type=float, default=180.0, help="seconds from a pre-emption to going on")
    parser.add_argument("--save-every", type=float, help="seconds of work; default, and most: a batch")
    parser.add_argument("--save-cost", type=float, help="seconds a save; default: measured")
    parser.add_argument("--start-up", type=float, help="seconds to start a job; default: measured")
    parser.add_argument("--submissions", type=float, default=10.0, help="jobs a minute that a scheduler takes")
    parser.add_argument("--bandwidth", type=float, default=125.0, help="MB a second, of all machines together")
    parser.add_argument("--seed", type=int, default=0, help="the first")
    parser.add_argument("--seeds", type=int, default=10, help="simulations of each case")
    parser.add_argument("--analyses", type=Path, default=Path("analyses"), help="folder of the files to measure")
    parser.add_argument("--form", choices=FORMS, default="text", help="of the printed tables")
    parser.add_argument("--output", type=Path, help="write all of it there as JSON")
    parser.add_argument("--figure", type=Path, help="write a picture there")
    return parser


def main() -> None:
    """Measure, compute, simulate, print the tables, and write what is asked for."""
    parser = make_parser()
    arguments = parser.parse_args()
    if arguments.seeds < 2:
        parser.error("an interval needs two --seeds or more")
    plan = Plan(arguments)
    report = plan.collect()
    for name in TABLES:
        rows = [{column: format_cell(column, value) for column, value in row.items()} for row in report[name]]
        print(f"\n{name}\n{render(rows, arguments.form)}")
    if arguments.output:
        with replace_file(arguments.output) as partial:
            partial.write_text(json.dumps(report, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    if arguments.figure:
        with mpl.rc_context(RC), replace_file(arguments.figure) as partial:
            draw(report["by save interval"], plan.costs, plan.batch_seconds()).savefig(partial, format="png", dpi=200)


if __name__ == "__main__":
    main()
