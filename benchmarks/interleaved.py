"""Ways to compute the same thing, timed in turns: A B C, A B C, ... in one process, so that a slow minute hits all.

Memory is measured once for each, in a process of its own.
"""

import gc
import multiprocessing
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy import stats

from interpret_robust.core.statistics import CONFIDENCE, Interval

Run = Callable[[], Any]
"""Computes once, and gives what was found."""


@dataclass(frozen=True)
class Contender:
    """One way to compute a case. `prepare` imports and builds what is not timed; ImportError leaves it out."""

    name: str
    prepare: Callable[[], Run]


class Finding(NamedTuple):
    """A sentence, with its numbers, on whether all contenders found the same, and whether they did."""

    sentence: str
    same: bool


@dataclass(frozen=True)
class Case:
    """What is computed, by whom, ours first.

    Attributes:
        what: one sentence: which computation, on which data.
        compare: findings, from what each contender gave in its first run, by its name.
        rounds: how many, as a multiple of those asked for: many of what is short.
        warm_up: whether a round before the timed ones is thrown away, or there is none.
        has_memory: whether the memory is that of the process that times.
    """

    name: str
    what: str
    contenders: Sequence[Contender]
    compare: Callable[[Mapping[str, Any]], Sequence[Finding]]
    rounds: float = 1.0
    warm_up: bool = True
    has_memory: bool = True


class Prepared(NamedTuple):
    """The contenders that can run, and why others cannot."""

    runs: dict[str, Run]
    missing: dict[str, str]


def prepare(contenders: Sequence[Contender]) -> Prepared:
    """Build all contenders."""
    prepared = Prepared({}, {})
    for contender in contenders:
        try:
            prepared.runs[contender.name] = contender.prepare()
        except ImportError as error:
            prepared.missing[contender.name] = str(error)
    return prepared


class Timed(NamedTuple):
    """Seconds of each round, and what the first run gave, warm-up or not, by contender."""

    seconds: dict[str, list[float]]
    found: dict[str, Any]


def interleave(runs: Mapping[str, Run], rounds: int, *, warm_up: bool = True) -> Timed:
    """Run each in turn, `rounds` times over."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    found: dict[str, Any] = {}
    for number in range(rounds + warm_up):
        for name, run in runs.items():
            gc.collect()
            began = time.perf_counter()
            answer = run()
            took = time.perf_counter() - began
            found.setdefault(name, answer)
            if number >= warm_up:
                seconds[name].append(took)
    return Timed(seconds, found)


def times_as_fast(ours: Sequence[float], theirs: Sequence[float]) -> Interval:
    """Ratio of medians, theirs over ours, with its bootstrap 95 % interval over rounds (at least two)."""

    def ratio(ours: Any, theirs: Any, axis: int) -> Any:
        return np.median(theirs, axis=axis) / np.median(ours, axis=axis)

    drawn = stats.bootstrap(
        (ours, theirs),
        ratio,
        paired=True,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    low, high = drawn.confidence_interval
    return Interval(float(ratio(ours, theirs, 0)), float(low), float(high))


class Memory(NamedTuple):
    """Resident memory in MiB: when all was built, and at most during one run."""

    before: float
    peak: float


def memory(build: Callable[[], Sequence[Case]], case: str, contender: str) -> Memory:
    """That of one contender of a case, alone in a fresh process (Linux)."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as alone:
        return alone.submit(_memory, build, case, contender, torch.get_num_threads()).result()


def _memory(build: Callable[[], Sequence[Case]], case: str, contender: str, threads: int) -> Memory:
    torch.set_num_threads(threads)
    (chosen,) = (one for found in build() if found.name == case for one in found.contenders if one.name == contender)
    run = chosen.prepare()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins anew
    before = _resident("VmRSS")
    run()
    return Memory(before, _resident("VmHWM"))


def _resident(field: str) -> float:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    (found,) = (line for line in lines if line.startswith(f"{field}:"))
    return int(found.split()[1]) / 1024
