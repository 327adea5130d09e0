"""Every number that the paper reports, from `paper_numbers.csv`: one row a cell of its tables.

Liu & JaJa, Feature prioritization and regularization improve standard accuracy and adversarial robustness (2018).
"""

import csv
from functools import cache
from importlib import resources
from typing import NamedTuple


class ReportedNumber(NamedTuple):
    """A cell: `setting` is `natural`, `white-box`, `black-box` or a view of Table 4; `steps` is None where not told."""

    table: str
    dataset: str
    architecture: str
    setting: str
    attack: str
    steps: int | None
    variant: str
    accuracy: float


@cache
def read_reported() -> tuple[ReportedNumber, ...]:
    """Return all cells, in the order of the paper; accuracies in percent."""
    text = (resources.files("interpret_robust.results") / "paper_numbers.csv").read_text(encoding="utf-8")
    return tuple(
        ReportedNumber(
            row["table"],
            row["dataset"],
            row["architecture"],
            row["setting"],
            row["attack"],
            int(row["steps"]) if row["steps"] else None,
            row["variant"],
            float(row["accuracy_percent"]),
        )
        for row in csv.DictReader(text.splitlines())
    )


def find_row(table: str, setting: str, attack: str = "none", steps: int | None = 0) -> dict[str, float]:
    """Return a row of a table: percent by variant; empty where the paper has no such row."""
    key = (table, setting, attack, steps)
    return {
        cell.variant: cell.accuracy
        for cell in read_reported()
        if (cell.table, cell.setting, cell.attack, cell.steps) == key
    }
