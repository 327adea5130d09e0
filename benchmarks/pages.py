"""Write the tables of docs/study.md from the shipped files of analyses/, each in its marked block.

    python benchmarks/pages.py            writes the page
    python benchmarks/pages.py --check    exits with 1 where a block differs from its files

A block begins with `<!-- table: NAME -->` and ends with `<!-- end -->`; TABLES says what each name stands for.
"""

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from interpret_robust.analyses.engine import printing
from interpret_robust.core.statistics import Interval
from interpret_robust.results import hdf5
from interpret_robust.results.hdf5 import Result
from interpret_robust.results.names import order, places
from interpret_robust.results.tables import Table, captioned, render
from interpret_robust.study import audit

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "study.md"
BLOCK = re.compile(r"(<!-- table: (\S+) -->\n).*?(<!-- end -->)", re.S)


def answers(pattern: str) -> list[Result]:
    """Return the shipped answers whose names match, in the paper's order. Raises FileNotFoundError for none."""
    files = sorted((ROOT / "analyses").glob(pattern))
    if not files:
        raise FileNotFoundError(f"no file {pattern} in analyses/")
    return sorted(map(hdf5.read, files), key=order)


def attack_table(pattern: str) -> str:
    """Return the attack table of these files with its title and note."""
    tables = printing.rows_of(answers(pattern))
    (table,) = [table for table in tables if "accuracy, %" in table[0]]
    return captioned(table, "markdown")


def columns(pattern: str, *names: str) -> str:
    """Return these columns of the first table of these files."""
    rows = printing.rows_of(answers(pattern))[0]
    return render([{name: row[name] for name in names} for row in rows], "markdown")


def substitutes(pattern: str) -> str:
    """Return how the first evaluator of each file reads what stands in the map's place, clipped."""
    table = next(table for table in printing.rows_of(answers(pattern)) if "instead of the map of" in table[0])
    return render([row for row in table if row["rule"] == "clip"], "markdown")


def evaluators(pattern: str) -> str:
    """Return how each evaluator of each file reads the model's own maps and the image's edges, clipped, minus."""
    return render([row for result in answers(pattern) for row in _readings(result)], "markdown")


def _readings(result: Result) -> list[dict[str, str]]:
    clip, edges = places(result, "rule").index("clip"), places(result, "control").index("sobel")
    clipped = places(result, "control_rule").index("clip")
    rows = []
    for index, name in enumerate(places(result, "evaluator")):
        own = Interval(*result["score/accuracy"][index, 0, clip, 0, 0])
        outline = Interval(*result["controls/accuracy"][index, edges, clipped, 0])
        model = result.config["checkpoint"]["name"].removeprefix("cifar10-small-")
        rows.append(
            {
                "maps of": model,
                "read by": name.removeprefix("cifar10-small-"),
                "gradient": own.percent(),
                "Sobel edges": outline.percent(),
            }
        )
    return rows


def verdicts(pattern: str) -> str:
    """Return the audit's verdicts on these files."""
    return "\n\n".join(captioned(Table(audit.verdicts(one)), "markdown") for one in audit.audits(answers(pattern)))


MAPS = ("model", "clip -g", "clip +g", "raw -g", "raw +g", "read by")
RANKS = ("model", "Spearman", "relative", "given norm", "under noise", "mean map", "effective positions", "images")
TABLES: dict[str, Callable[[], str]] = {
    "table2": lambda: attack_table("robustness-cifar10-small-at*-test-first1000.h5"),
    "section4.3": lambda: attack_table("robustness-cifar10-small-natural*-test-pgd20-cwnone-first1000.h5"),
    "figure2": lambda: columns("attention-rank-cifar10-small-*-test-first1000.h5", *RANKS),
    "table4-test": lambda: columns("gradmap-score-cifar10-small-*-test-first1000.h5", *MAPS),
    "table4-train": lambda: columns("gradmap-score-cifar10-small-*-train-first1000.h5", *MAPS),
    "substitutes-test": lambda: substitutes("gradmap-score-cifar10-small-*-test-first1000.h5"),
    "substitutes-train": lambda: substitutes("gradmap-score-cifar10-small-*-train-first1000.h5"),
    "evaluators-test": lambda: evaluators("gradmap-score-cifar10-small-*-test-first1000.h5"),
    "audit": lambda: verdicts("*-cifar10-small-*.h5"),
}
"""What stands in each block."""


def fill(text: str, names: Sequence[str] = tuple(TABLES)) -> str:
    """Return the page with the blocks of these names written anew."""

    def block(match: re.Match[str]) -> str:
        return f"{match[1]}{TABLES[match[2]]()}\n{match[3]}" if match[2] in names else match[0]

    return BLOCK.sub(block, text)


def main() -> None:
    """Write the page, or check it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 where the page differs")
    options = parser.parse_args()
    text = PAGE.read_text(encoding="utf-8")
    page = fill(text)
    if options.check:
        sys.exit(f"{PAGE} differs from its files: run python benchmarks/pages.py" if page != text else 0)
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
