"""What does a full audit of 1,000 models by 4 data sets by 10,000 images by 300 attack steps cost, and what limits it?

    python benchmarks/audit_plan.py --output docs/scale/audit_plan.json --figure docs/images/audit-plan.png

Three kinds of numbers, kept apart in the file that is written:

- measured: FLOPs of a gradient, counted on the networks; CPU time of a gradient, from docs/speed/; bytes and seconds an
  image, from the files in analyses/; the time to start a job and to save a batch, measured now unless they are given.
- assumed: what a GPU does in a second, what it costs, how often machines are pre-empted, how long one takes to come
  back. None of these has been measured by us; ASSUMED says where each is from.
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
from interpret_robust.core.files import replacing
from interpret_robust.core.statistics import CONFIDENCE, Interval
from interpret_robust.datasets.batches import BATCH_SIZE
from interpret_robust.figures.style import OTHER_COLORS, RC, new_figure
from interpret_robust.models import build
from interpret_robust.models.variants import variant
from interpret_robust.results import hdf5, writer
from interpret_robust.results.tables import FORMS, render

HOUR = 3600.0
ROOT = Path(__file__).parents[1]
SUBJECT = ROOT / "checkpoints" / "cifar10-small-at-seed0.safetensors"

ASSUMED = {
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
"""By option, what is assumed and where it is from."""


# Measured


class Network(NamedTuple):
    """A network, and what is counted on it: parameters, and FLOPs an image (a multiply-add being two)."""

    image_shape: tuple[int, int, int]
    parameters: int
    forward_flops: int
    gradient_flops: int


def networks() -> dict[str, Network]:
    """Three of ours on images of 32x32, and a larger one as an example."""
    from torchvision.models import resnet50  # slow to import, and nothing else needs it

    ours, shape = variant("at").head, (3, 32, 32)
    found = {name: counted(build(name, ours, shape, 10, seed=0), shape) for name in ("small", "narrow", "wide3")}
    return found | {"resnet50": counted(resnet50(weights=None), (3, 224, 224))}


def counted(network: nn.Module, shape: tuple[int, int, int]) -> Network:
    """Count the convolutions and matrix products of a forward pass, and of a gradient with respect to an image."""
    network.eval().requires_grad_(False)
    images = torch.rand(1, *shape, generator=torch.Generator().manual_seed(0))
    with FlopCounterMode(display=False) as forward, torch.no_grad():
        network(images)
    with Counts() as both:
        torch.autograd.grad(network(images.requires_grad_()).sum(), images)
    return Network(shape, sum(map(torch.numel, network.parameters())), forward.get_total_flops(), both.flops)


class Cpu(NamedTuple):
    """A gradient of PGD on a CPU: core seconds an image, and FLOPs a core second."""

    seconds: float
    flops: float


def cpu(path: Path) -> Cpu:
    """From what `limit.py` wrote: the median time of a batch, times the threads."""
    told = json.loads(path.read_text(encoding="utf-8"))
    (work,) = (one for one in told["works"] if one["work"].startswith("gradient of PGD"))
    seconds = float(np.median(work["seconds"])) / work["images"] * int(told["options"]["threads"])
    return Cpu(seconds, work["compute"]["per_image"] / seconds)


class Question(NamedTuple):
    """What files of one analysis hold, medians over them.

    Attributes:
        images: of one file.
        each: bytes an image.
        fixed: bytes a file, however many images.
        unfinished: bytes an image of its `.partial`, which is not compressed.
        seconds: an image, as the run itself noted them, with one thread.
    """

    files: int
    images: int
    each: float
    fixed: float
    unfinished: float
    seconds: float


def questions(folder: Path) -> dict[str, Question]:
    """Of each analysis of the reference study; of `robustness` only files that have the whole attack table."""
    found: dict[str, list[Question]] = defaultdict(list)
    for path in sorted(folder.glob("*-cifar10-small-*.h5")):
        told = hdf5.provenance(path)
        if told["config"]["settings"].get("cw") != "none":
            found[told["config"]["analysis"].partition("/")[0]].append(_question(path, told["run"]["seconds"]))
    return {name: Question(len(ones), *np.median(ones, axis=0)[1:].tolist()) for name, ones in found.items()}


def _question(path: Path, seconds: float) -> Question:
    stored = unfinished = 0
    with h5py.File(path) as file:
        count = int(file.attrs["n_done"])
        for dataset in (file["sample"], *file["per_image"].values()):
            if isinstance(dataset, h5py.Dataset) and len(dataset) == count:
                stored += dataset.id.get_storage_size()
                unfinished += dataset.nbytes
    fixed = path.stat().st_size - stored
    return Question(1, count, stored / count, fixed, unfinished / count, seconds / count)


def start_up(images: int, repeats: int = 5) -> list[float]:
    """Seconds of whole processes of `irt analyze` that read so many images and a model, and attack one for one step."""
    taken = []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            write_images(data := Path(folder) / "random.npz", images)
            command = [sys.executable, "-m", "interpret_robust.cli", "analyze", "robustness", str(SUBJECT)]
            command += ["--root", folder, "--dataset", str(data), "--limit", "1", "--pgd", "1", "--cw", "none"]
            began = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            taken.append(time.perf_counter() - began)
    return taken


def save_cost(path: Path, repeats: int = 20) -> list[float]:
    """Seconds to write and flush the rows of a batch, from a file of `robustness`, to an unfinished file."""
    schema = analyses.get("robustness").schema
    with h5py.File(path) as file:
        rows = {column.path: file[column.path][:BATCH_SIZE] for column in schema.per_image}
    axes = {
        axis: size for one in schema.per_image for axis, size in zip(one.axes, rows[one.path].shape[1:], strict=True)
    }
    taken = []
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / path.name
        with writer.open_rows(whole, schema, repeats * BATCH_SIZE, axes, {}, {}) as unfinished:
            for _ in range(repeats):
                began = time.perf_counter()
                unfinished.append(rows)
                taken.append(time.perf_counter() - began)
    return taken


class Noting(io.BytesIO):
    """A file in memory that notes which of its bytes are read, as an object store would be asked for them."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.asked: list[range] = []

    def readinto(self, buffer: Any) -> int:
        """As of the file."""
        start, count = self.tell(), super().readinto(buffer)
        self.asked.append(range(start, start + count))
        return count


BLOCK = 64 * 1024


def ranged(path: Path, dataset: str) -> dict[str, int]:
    """What it takes to find and read one dataset of a file: reads, their bytes, and blocks of BLOCK that they touch."""
    noting = Noting(path.read_bytes())
    with h5py.File(noting) as file:
        file[dataset][()]
    blocks = {place // BLOCK for one in noting.asked for place in one}
    read = {"reads": len(noting.asked), "bytes read": sum(map(len, noting.asked)), "blocks of 64 KiB": len(blocks)}
    return {"bytes of the file": path.stat().st_size, **read}


# Arithmetic


@dataclass(frozen=True)
class Size:
    """Of an audit."""

    models: int
    datasets: int
    images: int
    gradients: int

    @property
    def pairs(self) -> int:
        """A model and a data set each."""
        return self.models * self.datasets

    @property
    def all_gradients(self) -> int:
        """Of one image each."""
        return self.pairs * self.images * self.gradients

    def hours(self, rate: float) -> float:
        """GPU or core hours at so many gradients of one image a second."""
        return self.all_gradients / rate / HOUR

    def stored(self, fixed: float, each: float) -> float:
        """Bytes of a file a model and data set, of so many bytes and so many more an image."""
        return self.pairs * (fixed + self.images * each)


# Simulation


@dataclass(frozen=True)
class Costs:
    """Seconds that are no work.

    Attributes:
        start: of a job.
        restart: from a pre-emption to going on.
        save: for one save.
        every: seconds of work from save to save; infinite where a job is saved when it is done, and begun anew else.
    """

    start: float = 0.0
    restart: float = 0.0
    save: float = 0.0
    every: float = math.inf

    def cut(self, job: float) -> tuple[int, float]:
        """How many pieces, with a save after each, a job of so many seconds has, and how long they are but the last."""
        every = min(self.every, job)
        return max(1, math.ceil(job / every - 1e-9)), every


@dataclass
class Spent:
    """Machine seconds by what they went into. All together are paid."""

    work: float = 0.0
    saving: float = 0.0
    starting: float = 0.0
    restarting: float = 0.0
    lost: float = 0.0
    preemptions: int = 0

    @property
    def paid(self) -> float:
        """All of it."""
        return self.work + self.saving + self.starting + self.restarting + self.lost

    @property
    def wasted(self) -> float:
        """Share of what is paid that is no work."""
        return 1 - self.work / self.paid


class Machine:
    """A machine that is pre-empted: `gaps` are the seconds from when it is there to when it is taken away, in turn."""

    def __init__(self, gaps: Iterator[float]) -> None:
        self._gaps = gaps
        self._until = next(gaps)

    def do(self, job: float, began: float, costs: Costs, spent: Spent) -> float:
        """Do a job of so many seconds of work; when it is done. What it took is added to `spent`."""
        pieces, every = costs.cut(job)
        now, lead, done = began, costs.start, 0
        while True:
            left = job - done * every
            saving = (pieces - done) * costs.save
            if now + lead + left + saving <= self._until:
                spent.starting += lead
                spent.work += left
                spent.saving += saving
                return now + lead + left + saving
            kept = self._kept(self._until - now - lead, pieces - done, every + costs.save)
            if kept >= 0:
                spent.starting += lead
                spent.work += kept * every
                spent.saving += kept * costs.save
                now += lead + kept * (every + costs.save)
                done += kept
            spent.lost += self._until - now
            spent.restarting += costs.restart
            spent.preemptions += 1
            now, lead = self._until + costs.restart, 0.0
            self._until = now + next(self._gaps)

    @staticmethod
    def _kept(seconds: float, pieces: int, each: float) -> int:
        """Pieces that are saved so many seconds after the start, never the last; -1 where it had not started yet."""
        return min(pieces - 1, math.floor(seconds / each)) if seconds >= 0 else -1


class Outcome(NamedTuple):
    """Of a simulation: when all jobs were done, when each was, when each machine was free, and what went where."""

    makespan: float
    ends: list[float]
    free: list[float]
    spent: Spent

    @property
    def idle(self) -> float:
        """Share of the machines' time until all was done that they had nothing left to do."""
        return 1 - self.spent.paid / (len(self.free) * self.makespan)


def simulate(jobs: Sequence[float], machines: Sequence[Machine], costs: Costs) -> Outcome:
    """Each machine takes the next job as soon as it is free."""
    spent, ends = Spent(), []
    queue = [(0.0, number) for number in range(len(machines))]
    for job in jobs:
        now, number = heapq.heappop(queue)
        ends.append(machines[number].do(job, now, costs, spent))
        heapq.heappush(queue, (ends[-1], number))
    return Outcome(max(ends), ends, [now for now, _ in queue], spent)


def fleet(count: int, mean: float, *seed: int) -> list[Machine]:
    """Machines that are pre-empted by a Poisson process, every `mean` seconds on average; never if that is infinite."""
    seeds = np.random.SeedSequence(seed).spawn(count)
    return [Machine(_gaps(mean, np.random.default_rng(one))) for one in seeds]


def _gaps(mean: float, random: np.random.Generator) -> Iterator[float]:
    return repeat(math.inf) if math.isinf(mean) else (float(random.exponential(mean)) for _ in repeat(None))


def expected_paid(job: float, mean: float, costs: Costs) -> float:
    """Seconds that a job takes, in expectation, exact for the machines that are simulated.

    A piece of L seconds, its save included, is tried until no pre-emption comes within it. That takes
    (mean + restart) (exp(L / mean) - 1) seconds (Daly 2006, with restarts that are not pre-empted themselves). A start
    is tried once, since a restart has one in it.
    """
    if math.isinf(mean):
        return costs.start + job + costs.cut(job)[0] * costs.save
    pieces, every = costs.cut(job)
    last = job - (pieces - 1) * every
    tries = (pieces - 1) * math.expm1((every + costs.save) / mean) + math.expm1((last + costs.save) / mean)
    return (mean + costs.restart) * (tries - math.expm1(-costs.start / mean))


def first_order(mean: float, costs: Costs) -> float:
    """Share of what is paid that is wasted, by Young: of work, save / every + (every / 2 + restart) / mean.

    It holds where pre-emptions are rare, from save to save, and a job is many saves long.
    """
    overhead = costs.save / costs.every + (costs.every / 2 + costs.restart) / mean
    return overhead / (1 + overhead)


def over(values: Sequence[float]) -> Interval:
    """Mean over two seeds or more, with Student's 95 % interval; without a width where all are the same."""
    mean, error = float(np.mean(values)), float(scipy.stats.sem(values))
    if error == 0:
        return Interval(mean, mean, mean)
    return Interval(mean, *map(float, scipy.stats.t.interval(CONFIDENCE, len(values) - 1, mean, error)))


# What is asked of it


@dataclass(frozen=True)
class Case:
    """Jobs (seconds of work each) under some costs, and what they are called."""

    labels: Mapping[str, str]
    jobs: Sequence[float]
    costs: Costs

    def found(self, gpus: int, mean: float, seeds: Sequence[int]) -> dict[str, Any]:
        """What the simulation gives over seeds, beside the closed form."""
        ran = [simulate(self.jobs, fleet(gpus, mean, seed), self.costs) for seed in seeds]
        paid = sum(expected_paid(job, mean, self.costs) for job in self.jobs)
        return {
            **self.labels,
            "jobs": len(self.jobs),
            "longest, h": max(self.jobs) / HOUR,
            "save every, s": min(self.costs.every, max(self.jobs)),
            "least makespan, h": sum(self.jobs) / gpus / HOUR,
            "makespan, h": over([one.makespan / HOUR for one in ran]),
            "paid, GPU h": over([one.spent.paid / HOUR for one in ran]),
            "pre-emptions": over([one.spent.preemptions for one in ran]),
            "wasted": over([one.spent.wasted for one in ran]),
            "wasted, expected": 1 - sum(self.jobs) / paid,
            "idle at the end": over([one.idle for one in ran]),
        }


PAIR = "a model and data set"


def splits(size: Size) -> dict[str, int]:
    """Into how many jobs the work on one model is cut."""
    return {"a model": 1, PAIR: size.datasets, "a tenth of the images": 10 * size.datasets}


def cases(size: Size, rates: Mapping[tuple[str, str], float], costs: Costs) -> Iterator[Case]:
    """Networks at their rates, in gradients a second, in large and small jobs, saved often or when a job is done."""
    for (network, speed), rate in rates.items():
        seconds = size.datasets * size.images * size.gradients / rate
        often = replace(costs, every=min(costs.every, BATCH_SIZE * size.gradients / rate))
        for split, pieces in splits(size).items():
            jobs = [seconds / pieces] * (size.models * pieces)
            labels = {"network": network, "speed": speed, "a job is": split}
            yield Case({**labels, "saved": "each batch"}, jobs, often)
            yield Case({**labels, "saved": "when done"}, jobs, replace(costs, every=math.inf))
            if split == PAIR:
                yield Case({**labels, "saved": "each batch, no starts"}, jobs, replace(often, start=0.0))


def mixed(size: Size, small: float, large: float, costs: Costs, seed: int) -> Iterator[Case]:
    """One model in ten is a large one (rates in gradients a second): in any order, and the longest first.

    All are saved after the seconds of a large one's batch.
    """
    is_large = np.random.default_rng(seed).permutation(np.arange(size.models) % 10 == 0)
    seconds = size.datasets * size.images * size.gradients / np.where(is_large, large, small)
    often = replace(costs, every=min(costs.every, BATCH_SIZE * size.gradients / large))
    for split, pieces in splits(size).items():
        jobs = (seconds / pieces).repeat(pieces)
        yield Case({"a job is": split, "order": "any"}, jobs.tolist(), often)
        yield Case({"a job is": split, "order": "longest first"}, np.sort(jobs)[::-1].tolist(), often)


MEANS = (1.0, 4.0, 24.0)
INTERVALS = np.geomspace(1, 3 * HOUR, 8)
LENGTH = 50
"""Of the picture: hours from pre-emption to pre-emption; seconds from save to save; a job, in these hours."""

TIMES = {1: "1 s", 10: "10 s", 60: "1 min", 600: "10 min", HOUR: "1 h", 3 * HOUR: "3 h"}
PARTS = {share: f"{100 * share:g} %" for share in (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1)}
"""Ticks of its axes."""


def points(costs: Costs, intervals: Sequence[float], seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Wasted share of one machine's long job by the closed forms, and simulated where there are seeds."""
    found: list[dict[str, Any]] = []
    for mean, every in product(MEANS, map(float, intervals)):
        saved, job = replace(costs, start=0.0, every=every), LENGTH * mean * HOUR
        fleets = [fleet(1, mean * HOUR, seed, len(found)) for seed in seeds]
        wasted = [simulate([job], machines, saved).spent.wasted for machines in fleets]
        expected = 1 - job / expected_paid(job, mean * HOUR, saved)
        known = {"expected": expected, "first order": first_order(mean * HOUR, saved)}
        found.append({"mean, h": mean, "every, s": every, **known, **({"wasted": over(wasted)} if wasted else {})})
    return found


def draw(found: Sequence[Mapping[str, Any]], costs: Costs, batches: Mapping[str, float]) -> Figure:
    """Wasted share against the seconds from save to save; `batches` are how long ours take, by name."""
    lines = points(costs, np.geomspace(INTERVALS[0], INTERVALS[-1], 100).tolist(), ())
    bars: dict[str, Any] = {"fmt": "o", "markersize": 3.5, "elinewidth": 1}
    with mpl.rc_context(RC):
        figure = new_figure(3.4)
        axes = figure.subplots()
        for mean, shade in zip(MEANS, OTHER_COLORS, strict=False):
            line, here = ([one for one in some if one["mean, h"] == mean] for some in (lines, found))
            every = [one["every, s"] for one in line]
            axes.plot(every, [one["expected"] for one in line], color=shade, label=f"pre-empted every {mean:g} h")
            axes.plot(every, [one["first order"] for one in line], ":", color=shade)
            value, low, high = np.array([one["wasted"] for one in here]).T
            places = [one["every, s"] for one in here]
            axes.errorbar(places, value, [value - low, high - value], color=shade, **bars)
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
    """What is measured, and the tables that follow from it and from what is given."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given = given
        self.size = Size(given.models, given.datasets, given.images, given.gradients)
        self.networks, self.questions = networks(), questions(given.analyses)
        self.cpus = {name: cpu(ROOT / "docs" / "speed" / f"limit-{name}.json") for name in ("small", "narrow")}
        one = given.analyses / "robustness-cifar10-small-at-seed0-test-first1000.h5"
        maps = given.analyses / "attention-maps-cifar10-small-at-att-seed0-test-first1000.h5"
        self.reads = {
            path.name: ranged(path, what) for path, what in {one: "accuracy/worst", maps: "entropy/clean"}.items()
        }
        self.starts = start_up(given.images) if given.start_up is None else [given.start_up]
        self.saves = save_cost(one) if given.save_cost is None else [given.save_cost]
        start, save = (float(np.median(taken)) for taken in (self.starts, self.saves))
        self.costs = Costs(start, given.restart, save, given.save_every or math.inf)

    def rate(self, network: str, speed: str) -> float:
        """Gradients of one image that a GPU is assumed to take in a second, at `low` or `high` speed."""
        end = ("low", "high").index(speed)
        if self.given.throughput:
            return float(self.given.throughput[end])
        return float(self.given.tflops[end] * 1e12 / self.networks[network].gradient_flops)

    def core_seconds(self, network: str) -> float:
        """Of a gradient: measured where it was, else at the narrow network's FLOPs a second."""
        known = self.cpus.get(network)
        return known.seconds if known else self.networks[network].gradient_flops / self.cpus["narrow"].flops

    def arithmetic(self) -> Iterator[dict[str, Any]]:
        """A row a network: FLOPs, GPU hours and money at both speeds, core hours."""
        for name, network in self.networks.items():
            most, least = (self.size.hours(self.rate(name, speed)) for speed in ("low", "high"))
            yield {
                "network": name,
                "forward, MFLOP": network.forward_flops / 1e6,
                "gradient, MFLOP": network.gradient_flops / 1e6,
                "all, EFLOP": network.gradient_flops * self.size.all_gradients / 1e18,
                "low speed, GPU h": most,
                "high speed, GPU h": least,
                "least, dollars": least * self.given.price[0],
                "most, dollars": most * self.given.price[1],
                "core h": self.size.hours(1 / self.core_seconds(name)),
                "core h are": "measured" if name in self.cpus else "by FLOPs",
            }

    def disk(self) -> Iterator[dict[str, Any]]:
        """A row a question: bytes an image and in all, and its time beside that of the attack table."""
        for name, one in self.questions.items():
            yield {
                "question": name,
                "files measured": one.files,
                "an image, kB": one.each / 1e3,
                "a file, kB": one.fixed / 1e3,
                "all, GB": self.size.stored(one.fixed, one.each) / 1e9,
                "all unfinished, GB": self.size.stored(one.fixed, one.unfinished) / 1e9,
                "time / robustness": one.seconds / self.questions["robustness"].seconds,
            }

    def limits(self, network: str) -> Iterator[dict[str, Any]]:
        """Of the attack table and of all questions: hours that each resource takes if it were the only one."""
        given, disk = self.given, list(self.disk())
        table = [one for one in disk if one["question"] == "robustness"]
        for name, asked in {"attack table": table, "all questions": disk}.items():
            files, written = self.size.pairs * len(asked), sum(one["all, GB"] for one in asked)
            each = sum(one["time / robustness"] for one in asked) / given.gpus
            yield {
                "of": name,
                "files": files,
                "written, GB": written,
                "GPUs, low speed, h": each * self.size.hours(self.rate(network, "low")),
                "GPUs, high speed, h": each * self.size.hours(self.rate(network, "high")),
                "starts, a process a file, h": files * self.costs.start / given.gpus / HOUR,
                "scheduler, a job a file, h": files / given.submissions / 60,
                "network, h": written * 1e3 / given.bandwidth / HOUR,
            }

    def simulated(self) -> dict[str, list[dict[str, Any]]]:
        """The cases, those of unequal models, and the points of the picture."""
        given = self.given
        seeds, mean = range(given.seed, given.seed + given.seeds), given.preempt_every * HOUR
        wanted = [("narrow", "low"), ("narrow", "high"), ("resnet50", "high")]
        rates = {(network, speed): self.rate(network, speed) for network, speed in wanted}
        unequal = mixed(self.size, rates["narrow", "high"], rates["resnet50", "high"], self.costs, given.seed)
        return {
            "simulation": [one.found(given.gpus, mean, seeds) for one in cases(self.size, rates, self.costs)],
            "one in ten is resnet50": [one.found(given.gpus, mean, seeds) for one in unequal],
            "by save interval": points(self.costs, INTERVALS.tolist(), seeds),
        }

    def location(self) -> dict[str, Any]:
        """Everything, as it is written."""
        measured: dict[str, Mapping[str, Any]]
        measured = {"networks": self.networks, "cpu": self.cpus, "questions": self.questions}
        return {
            "machine": describe_machine(),
            "inputs": {name: str(one) if isinstance(one, Path) else one for name, one in vars(self.given).items()},
            "assumed": ASSUMED,
            "measured": {
                "seconds to start a job": self.costs.start,
                "each start": self.starts,
                "seconds to save a batch": self.costs.save,
                "each save": self.saves,
                "reads of one dataset": self.reads,
                **{what: {name: one._asdict() for name, one in by.items()} for what, by in measured.items()},
            },
            "gradients": self.size.all_gradients,
            "arithmetic": list(self.arithmetic()),
            "disk": list(self.disk()),
            "limits": list(self.limits("narrow")),
            **self.simulated(),
        }

    def batches(self) -> dict[str, float]:
        """Seconds of a batch of ours."""
        wanted = [("narrow", "low"), ("resnet50", "high")]
        seconds = {one: BATCH_SIZE * self.size.gradients / self.rate(*one) for one in wanted}
        return {f"a batch of {network}, {speed} speed": taken for (network, speed), taken in seconds.items()}


TABLES = ("arithmetic", "disk", "limits", "simulation", "one in ten is resnet50")
SHARES = ("wasted", "wasted, expected", "idle at the end")


def cell(name: str, value: Any) -> str:
    """A value of a table: an interval as `1.52 [1.49, 1.55]`, a share in percent."""
    if isinstance(value, str):
        return value
    if name in SHARES:
        return value.percent() if isinstance(value, Interval) else f"{100 * value:.1f} %"
    return "{} [{}, {}]".format(*map(number, value)) if isinstance(value, Interval) else number(value)


def number(value: float) -> str:
    """With three digits at least."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def options() -> argparse.ArgumentParser:
    """What can be given."""
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
    parser = options()
    given = parser.parse_args()
    if given.seeds < 2:
        parser.error("an interval needs two --seeds or more")
    plan = Plan(given)
    told = plan.location()
    for name in TABLES:
        rows = [{column: cell(column, value) for column, value in row.items()} for row in told[name]]
        print(f"\n{name}\n{render(rows, given.form)}")
    if given.output:
        with replacing(given.output) as partial:
            partial.write_text(json.dumps(told, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    if given.figure:
        with mpl.rc_context(RC), replacing(given.figure) as partial:
            draw(told["by save interval"], plan.costs, plan.batches()).savefig(partial, format="png", dpi=200)


if __name__ == "__main__":
    main()
