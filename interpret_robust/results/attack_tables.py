"""The paper's attack table from files of `irt evaluate`: what was measured over training seeds, beside what it says.

A model's white-box rows come from its own file, its black-box rows from those of its copies: models of the same
variant and another seed, whose adversarial images it classified.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from interpret_robust.core.intervals import Interval
from interpret_robust.core.parsing import format_number
from interpret_robust.results import names as labels
from interpret_robust.results.attack_outcomes import find_headline, list_readings, read_ball
from interpret_robust.results.hdf5 import Result
from interpret_robust.results.paper_numbers import ReportedNumber, read_reported

WORST = "worst-case"

FROM_ELSEWHERE = ("card", "layers")
"""What tells models from elsewhere apart beside their names."""


class Row(NamedTuple):
    """A row of the paper's tables, named as in `paper_numbers.csv`, or a worst case; `steps` is None where not told."""

    setting: str
    attack: str
    steps: int | None

    def __str__(self) -> str:
        """Return text such as `natural`, `white-box PGD-20` or `black-box worst case`."""
        if self == NATURAL:
            return self.setting
        return f"{self.setting} " + ("worst case" if self.attack == WORST else f"{self.attack.upper()}-{self.steps}")


NATURAL = Row("natural", "none", 0)


class Cell(NamedTuple):
    """Accuracy in percent: the mean over training seeds and the deviation between them, or one seed's interval.

    The interval is Wilson's 95 % over images. Over several black-box sources it is the mean of theirs, which is
    never narrower than the one of their mean.
    """

    accuracy: float
    deviation: float | None
    low: float | None
    high: float | None
    seeds: tuple[int, ...]

    def __str__(self) -> str:
        """Return text such as `52.2 ± 1.1` or `52.1 [49.0, 55.2]`."""
        if self.deviation is not None:
            return f"{format_number(self.accuracy, '.1f')} \u00b1 {format_number(self.deviation, '.1f')}"
        assert self.low is not None and self.high is not None
        accuracy, low, high = (format_number(number, ".1f") for number in (self.accuracy, self.low, self.high))
        return f"{accuracy} [{low}, {high}]"


Accuracies = dict[tuple[str, str, Row], Interval]
"""By source, target (their ids) and row; a model is the source of its own natural images."""


@dataclass(frozen=True)
class AttackTable:
    """One table: files of models of one dataset, architecture and recipe, attacked on the same images in one ball.

    Several files may be of one model, with other readings or read by other targets: what they share is taken once.
    """

    files: Sequence[Result]

    @cached_property
    def members(self) -> dict[str, dict[str, int]]:
        """Return the seed of each attacked model by its id, by variant, in the paper's order."""
        seeds: dict[str, dict[str, int]] = {}
        for result in sorted(self.files, key=labels.order):
            seeds.setdefault(labels.name_variant(result), {})[result.model_id] = result.job["seed"]
        return seeds

    @cached_property
    def readings(self) -> list[str]:
        """Return those of all files, PGD first and APGD last, by their steps."""
        names = {name for result in self.files for name in list_readings(result)}
        return sorted(names, key=lambda name: (not name.startswith("PGD"), name.startswith("APGD"), *attack_of(name)))

    @property
    def headline(self) -> str | None:
        """Return the reading that one row is shown of: that of the file with the most of them."""
        return find_headline(max(self.files, key=lambda result: len(list_readings(result))))

    @cached_property
    def accuracies(self) -> Accuracies:
        """Return what every target made of what every source gave; a worst case only where it is over all readings."""
        accuracies: Accuracies = {}
        for result in self.files:
            natural, adversarial, worst = (result[f"accuracy/{name}"] for name in ("natural", "adversarial", "worst"))
            source, names = result.model_id, list_readings(result)
            accuracies[source, source, NATURAL] = Interval(*natural[0])
            for index, target in enumerate(list_target_models(result)):
                setting = "black-box" if index else "white-box"
                for name, values in zip(names, adversarial[:, index], strict=True):
                    accuracies[source, target, Row(setting, *attack_of(name))] = Interval(*values)
                if names and set(names) == set(self.readings):
                    accuracies[source, target, Row(setting, WORST, None)] = Interval(*worst[index])
        return accuracies

    @cached_property
    def cells(self) -> dict[Row, dict[str, Cell]]:
        """Return the rows that hold anything, in the paper's order, and each one's cells by variant."""
        rows = [NATURAL]
        for setting in ("white-box", "black-box"):
            rows += [Row(setting, *attack_of(name)) for name in self.readings] + [Row(setting, WORST, None)]
        by_variant = {row: {variant: self._cell(variant, row) for variant in self.members} for row in rows}
        nonempty = {
            row: {variant: cell for variant, cell in cells.items() if cell} for row, cells in by_variant.items()
        }
        return {row: cells for row, cells in nonempty.items() if cells}

    def transfers(self, result: Result, reading: str) -> Interval | None:
        """Return the accuracy of a file's model on what was made on its copies; None where none gave anything."""
        return self._accuracy(result.model_id, Row("black-box", *attack_of(reading)))

    def _cell(self, variant: str, row: Row) -> Cell | None:
        candidates = {seed: self._accuracy(target, row) for target, seed in self.members[variant].items()}
        by_seed = {seed: accuracy for seed, accuracy in candidates.items() if accuracy}
        values = 100 * np.array(list(by_seed.values()))
        if not by_seed:
            return None
        if len(by_seed) == 1:
            return Cell(values[0, 0], None, values[0, 1], values[0, 2], tuple(by_seed))
        return Cell(values[:, 0].mean(), values[:, 0].std(ddof=1), None, None, tuple(by_seed))

    def _accuracy(self, target: str, row: Row) -> Interval | None:
        copies = next(models for models in self.members.values() if target in models)
        sources = [copy for copy in copies if copy != target] if row.setting == "black-box" else [target]
        accuracies = [self.accuracies[key] for source in sources if (key := (source, target, row)) in self.accuracies]
        return Interval(*np.mean(accuracies, axis=0).tolist()) if accuracies else None

    @cached_property
    def paper(self) -> dict[Row, dict[str, ReportedNumber]]:
        """Return the paper's cells that stand beside these, by row and variant; its attacks are in l-infinity alone."""
        sources = list_paper_sources(self.files[0].job["dataset"], self.files[0].job["architecture"])
        cells: dict[Row, dict[str, ReportedNumber]] = {row: {} for row in self.cells}
        is_linf = labels.find_norm(self.files[0].config["settings"]) == "linf"
        for row, by_variant in self.cells.items():
            if not is_linf and row.setting != "natural":
                continue
            paper_row = row._replace(steps=None) if row == self._untold(row.setting) else row
            for cell in read_reported():
                if (
                    cell.table in sources
                    and Row(cell.setting, cell.attack, cell.steps) == paper_row
                    and cell.variant in by_variant
                ):
                    cells[row][cell.variant] = cell
        return cells

    def _untold(self, setting: str) -> Row | None:
        """Return the row beside which Table 1 stands, whose number of steps the paper does not tell: the headline's."""
        is_mnist = self.files[0].job["dataset"] == "mnist"
        return Row(setting, *attack_of(self.headline)) if is_mnist and self.headline else None


def attack_tables(results: Sequence[Result]) -> list[AttackTable]:
    """Return the files table by table, in the order in which these first appear, models of one name told apart."""
    groups: dict[str, list[Result]] = {}
    for result in labels.tell_apart(results):
        train_job = {key: value for key, value in result.job.items() if key not in ("variant", "seed", *FROM_ELSEWHERE)}
        key = json.dumps([train_job, read_ball(result), result.config["data"]], sort_keys=True)
        groups.setdefault(key, []).append(result)
    return [AttackTable(group) for group in groups.values()]


def list_paper_sources(dataset: str, architecture: str) -> tuple[str, ...]:
    """Return the paper's tables and sections that stand beside models of a dataset; none where there is nothing alike.

    Table 2 and, for networks three times as wide, Table 3 are of CIFAR-10; they stand beside cluttered digits too.
    """
    paper_tables = {"mnist": ("table1",), "cifar100": ("table5",), "cifar100-sorted": ("table5",), "svhn": ("table6",)}
    if dataset in paper_tables:
        return paper_tables[dataset]
    if dataset != "cifar10" and not dataset.startswith("cluttered-digits"):
        return ()
    return ("table3",) if architecture.endswith("wide3") else ("table2", "section4.3", "section4.4")


def list_numbers(results: Sequence[Result]) -> list[dict[str, str]]:
    """Return each cell as a row of numbers, named as in `paper_numbers.csv`; empty where there is none."""
    return [
        {
            "table": paper_cell.table if (paper_cell := table.paper[row].get(variant)) else "",
            **{key: str(table.files[0].job[key]) for key in ("dataset", "architecture")},
            **{key: _number(value) for key, value in row._asdict().items()},
            "variant": variant,
            "accuracy_percent": _number(cell.accuracy),
            **{key: _number(getattr(cell, key)) for key in ("deviation", "low", "high")},
            "seeds": " ".join(_number(seed) for seed in cell.seeds),
            "images": str(table.files[0].count),
            "paper_percent": _number(paper_cell.accuracy if paper_cell else None),
        }
        for table in attack_tables(results)
        for row, cells in table.cells.items()
        for variant, cell in cells.items()
    ]


def _number(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4f}".rstrip("0").rstrip(".")
    return "" if value is None else str(value)


def list_target_models(result: Result) -> list[str]:
    """Return the ids of all that classified, the attacked model first."""
    return [result.model_id, *result.evaluator_ids]


def attack_of(reading: str) -> tuple[str, int]:
    """Return what `paper_numbers.csv` calls a reading: `PGD-20` is pgd and 20, `APGD-CE-100` is apgd-ce and 100."""
    name, _, steps = reading.rpartition("-")
    return name.lower(), int(steps)
