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

from interpret_robust.core.intervals import CONFIDENCE, Interval

Run = Callable[[], Any]
"""Computes once, and returns the answer."""


@dataclass(frozen=True)
class Contender:
    """One way to compute a case. `prepare` imports and builds what is not timed; ImportError leaves it out."""

    name: str
    prepare: Callable[[], Run]


class Finding(NamedTuple):
    """A sentence that compares the contenders' answers in numbers, and whether the answers are the same."""

    sentence: str
    is_same: bool


@dataclass(frozen=True)
class Case:
    """A computation, and the contenders that do it, ours first.

    Attributes:
        description: one sentence: which computation, on which data.
        compare: makes findings from the answers of each contender's first run, by its name.
        rounds: the number of rounds, as a multiple of what the user asks for: many of what is short.
        warm_up: whether a round before the timed ones is thrown away, or there is none.
        has_memory: whether the memory is that of the process that times.
    """

    name: str
    description: str
    contenders: Sequence[Contender]
    compare: Callable[[Mapping[str, Any]], Sequence[Finding]]
    rounds: float = 1.0
    warm_up: bool = True
    has_memory: bool = True


class Preparation(NamedTuple):
    """The contenders that can run, and the reasons why others cannot."""

    runs: dict[str, Run]
    reasons: dict[str, str]


def prepare(contenders: Sequence[Contender]) -> Preparation:
    """Prepare all contenders."""
    preparation = Preparation({}, {})
    for contender in contenders:
        try:
            preparation.runs[contender.name] = contender.prepare()
        except ImportError as error:
            preparation.reasons[contender.name] = str(error)
    return preparation


class Timing(NamedTuple):
    """Seconds of each round, and the answer of the first run, warm-up or not, by contender."""

    seconds: dict[str, list[float]]
    answers: dict[str, Any]


def interleave(runs: Mapping[str, Run], rounds: int, *, warm_up: bool = True) -> Timing:
    """Run each contender in turn, `rounds` times over."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    answers: dict[str, Any] = {}
    for number in range(rounds + warm_up):
        for name, run in runs.items():
            gc.collect()
            began = time.perf_counter()
            answer = run()
            duration = time.perf_counter() - began
            answers.setdefault(name, answer)
            if number >= warm_up:
                seconds[name].append(duration)
    return Timing(seconds, answers)


def times_as_fast(our_seconds: Sequence[float], other_seconds: Sequence[float]) -> Interval:
    """Return the ratio of medians, theirs over ours, with its bootstrap 95 % interval over rounds (at least two)."""

    def ratio(our_seconds: Any, other_seconds: Any, axis: int) -> Any:
        return np.median(other_seconds, axis=axis) / np.median(our_seconds, axis=axis)

    bootstrap = stats.bootstrap(
        (our_seconds, other_seconds),
        ratio,
        paired=True,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    low, high = bootstrap.confidence_interval
    return Interval(float(ratio(our_seconds, other_seconds, 0)), float(low), float(high))


class Memory(NamedTuple):
    """Resident memory in MiB: after preparation, and its peak during one run."""

    base: float
    peak: float


def measure_memory(build: Callable[[], Sequence[Case]], case: str, contender: str) -> Memory:
    """Measure the memory of one contender of a case, alone in a fresh process (Linux)."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as alone:
        return alone.submit(_measure_alone, build, case, contender, torch.get_num_threads()).result()


def _measure_alone(build: Callable[[], Sequence[Case]], case: str, contender: str, threads: int) -> Memory:
    torch.set_num_threads(threads)
    (entry,) = (entry for entry in build() if entry.name == case)
    (match,) = (entrant for entrant in entry.contenders if entrant.name == contender)
    run = match.prepare()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins anew
    base = _read_resident("VmRSS")
    run()
    return Memory(base, _read_resident("VmHWM"))


def _read_resident(field: str) -> float:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    (line,) = (line for line in lines if line.startswith(f"{field}:"))
    return int(line.split()[1]) / 1024
