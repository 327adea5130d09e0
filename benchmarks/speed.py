"""How fast are we, and against whom? Ours and what a user would write instead, in turns, in one run.

    python benchmarks/speed.py --checkpoints checkpoints --json speed.json --figure speed.png --markdown speed.md

All contenders of a case have the same network, data, batch, settings and threads; `alternatives.py` says what the
others do, `speed_cases.py` what is compared, and `known_cases.py` what of ours is not computed again. Times are medians
over rounds, ratios have bootstrap intervals over rounds, memory is the growth of one run in a process of its own. Exit
status 1 where a contender did not find the same. Alternatives that are not installed are left out; all but Quantus come
with the extra `bench`.
"""

import argparse
import json
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from interleaved import Case, Finding, Memory, interleave, memory, prepare, times_as_fast
from known_cases import CASES as KNOWN_CASES
from machine import describe_machine
from matplotlib.figure import Figure
from speed_cases import CASES as COMPARED_CASES
from speed_cases import OURS, Given

from interpret_robust.core import provenance
from interpret_robust.core.files import replacing
from interpret_robust.core.process_pool import cores
from interpret_robust.core.statistics import Interval
from interpret_robust.figures.style import RC, color, new_figure
from interpret_robust.results.tables import render

CASES = {**COMPARED_CASES, **KNOWN_CASES}

IDLE = 0.5
"""Mean number of running processes below which nobody else computed."""

EXTENSIONS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
"""Instructions on which the speed of a network depends."""

LIBRARIES = ("torchattacks", "foolbox", "adversarial-robustness-toolbox", "captum", "quantus", "scipy", "numpy")


@dataclass(frozen=True)
class Measured:
    """A case's answer: seconds of each round and memory of each contender, ours first, and whether all is the same."""

    name: str
    what: str
    seconds: dict[str, list[float]]
    memory: dict[str, Memory]
    findings: list[Finding]
    missing: dict[str, str]

    def median(self, contender: str) -> float:
        """Seconds of a contender's middle round."""
        return float(np.median(self.seconds[contender]))

    def ratio(self, contender: str) -> Interval:
        """How many times as fast as a contender ours is."""
        return times_as_fast(self.seconds[OURS], self.seconds[contender])

    @property
    def best(self) -> str:
        """The fastest of the others."""
        return min(list(self.seconds)[1:], key=self.median)

    @property
    def same(self) -> bool:
        """Whether all found the same."""
        return all(finding.same for finding in self.findings)


def measure(case: Case, build: Callable[[], Sequence[Case]], repeats: int) -> Measured:
    """Time a case and weigh it, telling how far it is."""
    runs, missing = prepare(case.contenders)
    for name, reason in missing.items():
        say(f"{case.name}: {name} is left out: {reason}")
    rounds = max(2, round(repeats * case.rounds))
    say(f"{case.name}: {rounds} rounds of {', '.join(runs)}")
    timed = interleave(runs, rounds, warm_up=case.warm_up)
    findings = list(case.compare(timed.found))
    weighed = {name: memory(build, case.name, name) for name in runs} if case.has_memory else {}
    say(f"{case.name}: done")
    return Measured(case.name, case.what, timed.seconds, weighed, findings, missing)


def summary(measured: Sequence[Measured]) -> list[dict[str, str]]:
    """A row a case: ours against the fastest of the others."""
    return [
        {
            "case": one.name,
            "ours": seconds(one.median(OURS)),
            "fastest other": f"{one.best}: {seconds(one.median(one.best))}",
            "times as fast": ratio(one.ratio(one.best)),
            "same results": "yes" if one.same else "NO",
        }
        for one in measured
    ]


def rows(one: Measured) -> list[dict[str, str]]:
    """A row a contender."""
    return [
        {
            "contender": name,
            "median": seconds(one.median(name)),
            "least to most": f"{seconds(min(taken))} to {seconds(max(taken))}",
            "ours is times as fast": ratio(one.ratio(name)) if name != OURS else "",
            **({"memory, MiB": f"{weight.peak - weight.before:+.0f}"} if (weight := one.memory.get(name)) else {}),
        }
        for name, taken in one.seconds.items()
    ]


def seconds(value: float) -> str:
    """As `1.23 s`, or `45.6 ms`."""
    return f"{value:.3g} s" if value >= 1 else f"{1000 * value:.3g} ms"


def ratio(found: Interval) -> str:
    """As `1.52 [1.49, 1.55]`."""
    return found.plain()


def markdown(machine: Mapping[str, str], measured: Sequence[Measured], repeats: int) -> str:
    """The machine, the tables, and whether all found the same, for a page of the documentation."""
    parts = [
        "\n".join(f"- {name}: {value}" for name, value in machine.items()),
        f"{repeats} rounds unless said otherwise; times as fast: ratio of medians with its bootstrap 95 % interval "
        "over rounds; memory: growth of the resident memory during the first run, in a process of its own.",
        render(summary(measured), "markdown"),
    ]
    for one in measured:
        parts += [f"### {one.name}", f"{one.what}; {len(one.seconds[OURS])} rounds.", render(rows(one), "markdown")]
        parts += ["\n".join(f"- {'' if same else '**Not the same:** '}{sentence}" for sentence, same in one.findings)]
        parts += [f"{name} is left out: {reason}." for name, reason in one.missing.items()]
    return "\n\n".join(parts) + "\n"


def draw(measured: Sequence[Measured]) -> Figure:
    """A panel a case: each round of each contender, over the median of ours."""
    heights = [len(one.seconds) for one in measured]
    with mpl.rc_context(RC):
        figure = new_figure(0.6 + 0.2 * sum(heights) + 0.35 * len(heights))
        panels = figure.subplots(len(measured), sharex=True, squeeze=False, height_ratios=heights)[:, 0]
        for axes, one in zip(panels, measured, strict=True):
            unit = one.median(OURS)
            for row, (name, taken) in enumerate(one.seconds.items()):
                shade = color("at-att-reg") if name == OURS else "0.35"
                axes.plot(np.array(taken) / unit, [row] * len(taken), ".", color=shade, alpha=0.4, markersize=4)
                axes.plot(one.median(name) / unit, row, "|", color=shade, markersize=9, markeredgewidth=2)
            axes.set_yticks(range(len(one.seconds)), list(one.seconds))
            axes.set_ylim(len(one.seconds) - 0.5, -0.5)
            axes.axvline(1, color=color("at-att-reg"), linewidth=0.8)
            axes.set_title(f"{one.name} (ours {seconds(unit)})", loc="left")
            axes.set_xscale("log")
        ticks = [1, 1.5, 2, 3, 5, 10, 20]
        panels[-1].set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        panels[-1].minorticks_off()
        panels[-1].set_xlabel("time over the median of ours; a dot a round, bars are medians")
    return figure


def machine() -> dict[str, str]:
    """The machine, what it was doing, and the versions of all that is compared."""
    described = describe_machine()
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text(encoding="utf-8").split() if cpuinfo.exists() else []
    described["instructions"] = ", ".join(name for name in EXTENSIONS if name in flags)
    described["load"] += ", idle" if float(described["load"]) < IDLE else ", NOT IDLE: others computed too"
    described["code"] = " ".join(provenance.code_version().values())
    return described | {name: version for name in LIBRARIES if (version := _version(name))}


def _version(library: str) -> str | None:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return None


def say(sentence: str) -> None:
    """Tell how far we are."""
    print(sentence, file=sys.stderr, flush=True)


def write(path: Path | None, text: str) -> None:
    """Write a text, where one is asked for."""
    if path:
        with replacing(path) as partial:
            partial.write_text(text, encoding="utf-8")


def main() -> None:
    """Measure the cases, writing what is there after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}; default: all")
    parser.add_argument("--checkpoints", type=Path, default=Path("checkpoints"), help="folder of a study's networks")
    parser.add_argument("--threads", type=int, default=cores(), help="of torch, for all; default: the cores")
    parser.add_argument("--repeats", type=int, default=7, help="rounds; more of what is short, fewer of what is long")
    parser.add_argument("--images", type=int, default=500, help="test images; a fifth of them for the attack table")
    parser.add_argument("--json", type=Path, help="write all times there")
    parser.add_argument("--markdown", type=Path, help="write the tables there")
    parser.add_argument("--figure", type=Path, help="write a picture there")
    given = parser.parse_args()
    if unknown := sorted(set(given.cases) - set(CASES)):
        parser.error(f"there is no case {unknown[0]}: choose of {', '.join(CASES)}")
    torch.set_num_threads(given.threads)
    described = machine()
    torch.manual_seed(0)  # the others' random starts
    warnings.simplefilter("ignore")  # foolbox's and Quantus's, on every call
    measured: list[Measured] = []
    with tempfile.TemporaryDirectory() as scratch:
        for name in given.cases or CASES:
            build: Any = partial(CASES[name], Given(given.checkpoints, given.images, Path(scratch)))
            for case in build():
                measured.append(measure(case, build, given.repeats))
                told = {"machine": described, "cases": [asdict(one) for one in measured]}
                write(given.json, json.dumps(told, indent=1) + "\n")
                write(given.markdown, markdown(described, measured, given.repeats))
    print(markdown(described, measured, given.repeats))
    if given.figure:
        with mpl.rc_context(RC):
            draw(measured).savefig(given.figure, dpi=200)
    sys.exit(not all(one.same for one in measured))


if __name__ == "__main__":
    main()
