"""How fast are we, and against whom? Ours and what a user would write instead, in turns, in one run.

    python benchmarks/speed.py --checkpoints checkpoints --json speed.json --figure speed.png --markdown speed.md

All contenders of a case have the same network, data, batch, settings and threads; `alternatives.py` says what the
others do, `speed_cases.py` what is compared, and `known_cases.py` what of ours is not computed again. Times are medians
over rounds, ratios have bootstrap intervals over rounds, memory is the growth of one run in a process of its own. Exit
status 1 where a contender's answer is not the same. Alternatives that are not installed are left out; all but Quantus
and adv-lib come with the extra `bench`. The case `narrow` needs `irt data get cifar10`, and the shipped network of `at`
in the same folder of checkpoints.
"""

import argparse
import json
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from interleaved import Case, Finding, Memory, interleave, measure_memory, prepare, times_as_fast
from known_cases import CASES as KNOWN_CASES
from machine import describe_machine
from matplotlib.figure import Figure
from speed_cases import CASES as COMPARED_CASES
from speed_cases import OUR_NAME, Context

from interpret_robust.core import provenance
from interpret_robust.core.files import replace_file
from interpret_robust.core.intervals import Interval
from interpret_robust.core.process_pool import count_cores
from interpret_robust.figures.style import RC, choose_color, make_figure
from interpret_robust.results.tables import render

CASES = {**COMPARED_CASES, **KNOWN_CASES}

IDLE = 0.5
"""Mean number of running processes below which nobody else computed."""

EXTENSIONS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
"""Instructions on which the speed of a network depends."""

LIBRARIES = (
    "torchattacks",
    "foolbox",
    "adversarial-robustness-toolbox",
    "adv-lib",
    "pyautoattack",
    "captum",
    "quantus",
    "scipy",
    "numpy",
)


@dataclass(frozen=True)
class Measurement:
    """A case's outcome: seconds of each round and memory of each contender, ours first, and whether answers agree."""

    name: str
    description: str
    seconds: dict[str, list[float]]
    memory: dict[str, Memory]
    findings: list[Finding]
    reasons: dict[str, str]

    def record(self) -> dict[str, Any]:
        """Return the fields by the names that they have in the JSON file."""
        return dict(zip(("name", "what", "seconds", "memory", "findings", "missing"), astuple(self), strict=True))

    def median(self, contender: str) -> float:
        """Return the seconds of a contender's median round."""
        return float(np.median(self.seconds[contender]))

    def ratio(self, contender: str) -> Interval:
        """Return how many times as fast as a contender ours is."""
        return times_as_fast(self.seconds[OUR_NAME], self.seconds[contender])

    @property
    def best(self) -> str:
        """Return the name of the fastest of the others."""
        return min(list(self.seconds)[1:], key=self.median)

    @property
    def is_same(self) -> bool:
        """Return whether all contenders gave the same answer."""
        return all(finding.is_same for finding in self.findings)


def measure(case: Case, build: Callable[[], Sequence[Case]], repeats: int) -> Measurement:
    """Measure the time and the memory of a case, and report progress."""
    runs, reasons = prepare(case.contenders)
    for name, reason in reasons.items():
        say(f"{case.name}: {name} is left out: {reason}")
    rounds = max(2, round(repeats * case.rounds))
    say(f"{case.name}: {rounds} rounds of {', '.join(runs)}")
    timing = interleave(runs, rounds, warm_up=case.warm_up)
    findings = list(case.compare(timing.answers))
    memories = {name: measure_memory(build, case.name, name) for name in runs} if case.has_memory else {}
    say(f"{case.name}: done")
    return Measurement(case.name, case.description, timing.seconds, memories, findings, reasons)


def summarize(measurements: Sequence[Measurement]) -> list[dict[str, str]]:
    """Return a row for each case: ours against the fastest of the others."""
    return [
        {
            "case": measurement.name,
            "ours": format_seconds(measurement.median(OUR_NAME)),
            "fastest other": f"{measurement.best}: {format_seconds(measurement.median(measurement.best))}",
            "times as fast": format_ratio(measurement.ratio(measurement.best)),
            "same results": "yes" if measurement.is_same else "NO",
        }
        for measurement in measurements
    ]


def list_contenders(measurement: Measurement) -> list[dict[str, str]]:
    """Return a row for each contender of a case."""
    return [
        {
            "contender": name,
            "median": format_seconds(measurement.median(name)),
            "least to most": f"{format_seconds(min(times))} to {format_seconds(max(times))}",
            "ours is times as fast": format_ratio(measurement.ratio(name)) if name != OUR_NAME else "",
            **({"memory, MiB": f"{use.peak - use.base:+.0f}"} if (use := measurement.memory.get(name)) else {}),
        }
        for name, times in measurement.seconds.items()
    ]


def format_seconds(value: float) -> str:
    """Format seconds as `1.23 s`, or `45.6 ms`."""
    return f"{value:.3g} s" if value >= 1 else f"{1000 * value:.3g} ms"


def format_ratio(interval: Interval) -> str:
    """Format a ratio as `1.52 [1.49, 1.55]`."""
    return interval.plain()


def render_markdown(setup: Mapping[str, str], measurements: Sequence[Measurement], repeats: int) -> str:
    """Render the machine, the tables, and whether all answers are the same, for a page of the documentation."""
    parts = [
        "\n".join(f"- {name}: {value}" for name, value in setup.items()),
        f"{repeats} rounds unless said otherwise; times as fast: ratio of medians with its bootstrap 95 % interval "
        "over rounds; memory: growth of the resident memory during the first run, in a process of its own.",
        render(summarize(measurements), "markdown"),
    ]
    for measurement in measurements:
        rounds = len(measurement.seconds[OUR_NAME])
        table = render(list_contenders(measurement), "markdown")
        parts += [f"### {measurement.name}", f"{measurement.description}; {rounds} rounds.", table]
        marks = ("**Not the same:** ", "")
        parts += ["\n".join(f"- {marks[is_same]}{sentence}" for sentence, is_same in measurement.findings)]
        parts += [f"{name} is left out: {reason}." for name, reason in measurement.reasons.items()]
    return "\n\n".join(parts) + "\n"


def draw(measurements: Sequence[Measurement]) -> Figure:
    """Draw a panel for each case: every round of each contender, over the median of ours."""
    heights = [len(measurement.seconds) for measurement in measurements]
    with mpl.rc_context(RC):
        figure = make_figure(0.6 + 0.2 * sum(heights) + 0.35 * len(heights))
        panels = figure.subplots(len(measurements), sharex=True, squeeze=False, height_ratios=heights)[:, 0]
        for axes, measurement in zip(panels, measurements, strict=True):
            unit = measurement.median(OUR_NAME)
            for row, (name, times) in enumerate(measurement.seconds.items()):
                shade = choose_color("at-att-reg") if name == OUR_NAME else "0.35"
                axes.plot(np.array(times) / unit, [row] * len(times), ".", color=shade, alpha=0.4, markersize=4)
                axes.plot(measurement.median(name) / unit, row, "|", color=shade, markersize=9, markeredgewidth=2)
            axes.set_yticks(range(len(measurement.seconds)), list(measurement.seconds))
            axes.set_ylim(len(measurement.seconds) - 0.5, -0.5)
            axes.axvline(1, color=choose_color("at-att-reg"), linewidth=0.8)
            axes.set_title(f"{measurement.name} (ours {format_seconds(unit)})", loc="left")
            axes.set_xscale("log")
        ticks = [1, 1.5, 2, 3, 5, 10, 20]
        panels[-1].set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        panels[-1].minorticks_off()
        panels[-1].set_xlabel("time over the median of ours; a dot a round, bars are medians")
    return figure


def describe_setup() -> dict[str, str]:
    """Return the machine, what it was doing, and the versions of all that is compared."""
    setup = describe_machine()
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text(encoding="utf-8").split() if cpuinfo.exists() else []
    setup["instructions"] = ", ".join(name for name in EXTENSIONS if name in flags)
    setup["load"] += ", idle" if float(setup["load"]) < IDLE else ", NOT IDLE: others computed too"
    setup["code"] = " ".join(provenance.read_code_version().values())
    return setup | {name: version for name in LIBRARIES if (version := _find_version(name))}


def _find_version(library: str) -> str | None:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return None


def say(sentence: str) -> None:
    """Print how far the benchmark is."""
    print(sentence, file=sys.stderr, flush=True)


def write(path: Path | None, text: str) -> None:
    """Write a text, where a path is given."""
    if path:
        with replace_file(path) as partial:
            partial.write_text(text, encoding="utf-8")


def main() -> None:
    """Measure the cases, writing all figures after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}; default: all")
    parser.add_argument("--checkpoints", type=Path, default=Path("checkpoints"), help="folder of a study's networks")
    parser.add_argument("--threads", type=int, default=count_cores(), help="of torch, for all; default: the cores")
    parser.add_argument("--repeats", type=int, default=7, help="rounds; more of what is short, fewer of what is long")
    parser.add_argument("--images", type=int, default=500, help="test images; a fifth of them for the attack table")
    parser.add_argument("--json", type=Path, help="write all times there")
    parser.add_argument("--markdown", type=Path, help="write the tables there")
    parser.add_argument("--figure", type=Path, help="write a picture there")
    arguments = parser.parse_args()
    if unknown := sorted(set(arguments.cases) - set(CASES)):
        parser.error(f"there is no case {unknown[0]}: choose of {', '.join(CASES)}")
    torch.set_num_threads(arguments.threads)
    setup = describe_setup()
    torch.manual_seed(0)  # the others' random starts
    warnings.simplefilter("ignore")  # foolbox's and Quantus's, on every call
    measurements: list[Measurement] = []
    with tempfile.TemporaryDirectory() as scratch:
        for name in arguments.cases or CASES:
            build: Any = partial(CASES[name], Context(arguments.checkpoints, arguments.images, Path(scratch)))
            for case in build():
                measurements.append(measure(case, build, arguments.repeats))
                report = {"machine": setup, "cases": [measurement.record() for measurement in measurements]}
                write(arguments.json, json.dumps(report, indent=1) + "\n")
                write(arguments.markdown, render_markdown(setup, measurements, arguments.repeats))
    print(render_markdown(setup, measurements, arguments.repeats))
    if arguments.figure:
        with mpl.rc_context(RC):
            draw(measurements).savefig(arguments.figure, dpi=200)
    sys.exit(not all(measurement.is_same for measurement in measurements))


if __name__ == "__main__":
    main()
