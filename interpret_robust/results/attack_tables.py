"""The paper's attack table from files of `irt evaluate`: what was measured over training seeds, beside what it says.

A model's white-box rows come from its own file, its black-box rows from those of its copies: models of the same
variant and another seed, whose adversarial images it classified.
"""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from interpret_robust.core.statistics import Interval, holm, mcnemar
from interpret_robust.models.variants import is_adversarial, is_brought
from interpret_robust.results import names as labels
from interpret_robust.results.attack_outcomes import (
    ball,
    gradients_asked,
    headline,
    readings,
    right,
    right_in_worst_case,
)
from interpret_robust.results.hdf5 import Result
from interpret_robust.results.names import job, label, recalibration
from interpret_robust.results.reported import ReportedNumber, read_reported
from interpret_robust.results.tables import Table

WORST = "worst-case"

FROM_ELSEWHERE = ("card", "layers")
"""What tells models from elsewhere apart beside their names."""


class Row(NamedTuple):
    """A row of the paper's tables, named as in `reported.csv`, or a worst case; `steps` is None where not told."""

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
        spread = f"[{self.low:.1f}, {self.high:.1f}]" if self.deviation is None else f"\u00b1 {self.deviation:.1f}"
        return f"{self.accuracy:.1f} {spread}"


Accuracies = dict[tuple[str, str, Row], Interval]
"""By source, target (their content hashes) and row; a model is the source of its own natural images."""


@dataclass(frozen=True)
class AttackTable:
    """One table: files of models of one dataset, architecture and recipe, attacked on the same images in one ball.

    Several files may be of one model, with other readings or read by other targets: what they share is taken once.
    """

    files: Sequence[Result]

    @cached_property
    def members(self) -> dict[str, dict[str, int]]:
        """Return the seed of each attacked model by its content hash, by variant, in the paper's order."""
        seeds: dict[str, dict[str, int]] = {}
        for result in sorted(self.files, key=labels.order):
            seeds.setdefault(job(result)["variant"], {})[_identity(result)] = job(result)["seed"]
        return seeds

    @cached_property
    def readings(self) -> list[str]:
        """Return those of all files, PGD first and APGD last, by their steps."""
        names = {name for result in self.files for name in readings(result)}
        return sorted(names, key=lambda name: (not name.startswith("PGD"), name.startswith("APGD"), *_attack(name)))

    @cached_property
    def accuracies(self) -> Accuracies:
        """Return what every target made of what every source gave; a worst case only where it is over all readings."""
        accuracies: Accuracies = {}
        for result in self.files:
            natural, adversarial, worst = (result[f"accuracy/{name}"] for name in ("natural", "adversarial", "worst"))
            source, names = _identity(result), readings(result)
            accuracies[source, source, NATURAL] = Interval(*natural[0])
            for index, target in enumerate(_targets(result)):
                setting = "black-box" if index else "white-box"
                for name, values in zip(names, adversarial[:, index], strict=True):
                    accuracies[source, target, Row(setting, *_attack(name))] = Interval(*values)
                if names and set(names) == set(self.readings):
                    accuracies[source, target, Row(setting, WORST, None)] = Interval(*worst[index])
        return accuracies

    @cached_property
    def cells(self) -> dict[Row, dict[str, Cell]]:
        """Return the rows that hold anything, in the paper's order, and each one's cells by variant."""
        rows = [NATURAL]
        for setting in ("white-box", "black-box"):
            rows += [Row(setting, *_attack(name)) for name in self.readings] + [Row(setting, WORST, None)]
        by_variant = {row: {variant: self._cell(variant, row) for variant in self.members} for row in rows}
        nonempty = {
            row: {variant: cell for variant, cell in cells.items() if cell} for row, cells in by_variant.items()
        }
        return {row: cells for row, cells in nonempty.items() if cells}

    def transfers(self, result: Result, reading: str) -> Interval | None:
        """Return the accuracy of a file's model on what was made on its copies; None where none gave anything."""
        return self._accuracy(_identity(result), Row("black-box", *_attack(reading)))

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
        sources = paper_sources(job(self.files[0])["dataset"], job(self.files[0])["architecture"])
        cells: dict[Row, dict[str, ReportedNumber]] = {row: {} for row in self.cells}
        is_linf = labels.norm(self.files[0].config["settings"]) == "linf"
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
        first = _headline(self)
        return Row(setting, *_attack(first)) if job(self.files[0])["dataset"] == "mnist" and first else None


def attack_tables(results: Sequence[Result]) -> list[AttackTable]:
    """Return the files table by table, in the order in which these first appear."""
    groups: dict[str, list[Result]] = {}
    for result in results:
        train_job = {
            key: value for key, value in job(result).items() if key not in ("variant", "seed", *FROM_ELSEWHERE)
        }
        key = json.dumps([train_job, ball(result), result.config["data"]], sort_keys=True)
        groups.setdefault(key, []).append(result)
    return [AttackTable(group) for group in groups.values()]


def paper_sources(dataset: str, architecture: str) -> tuple[str, ...]:
    """Return the paper's tables and sections that stand beside models of a dataset; none where there is nothing alike.

    Table 2 and, for networks three times as wide, Table 3 are of CIFAR-10; they stand beside cluttered digits too.
    """
    paper_tables = {"mnist": ("table1",), "cifar100": ("table5",), "svhn": ("table6",)}
    if dataset in paper_tables:
        return paper_tables[dataset]
    if dataset != "cifar10" and not dataset.startswith("cluttered-digits"):
        return ()
    return ("table3",) if architecture.endswith("wide3") else ("table2", "section4.3", "section4.4")


def comparison_tables(results: Sequence[Result]) -> list[Table]:
    """Return each table as people read it, then who reads whom where others than copies read, then variants two by
    two.
    """
    tables = [
        part(table) for table in attack_tables(results) for part in (_beside_the_paper, _transfer_matrix, _rivals)
    ]
    return [table for table in tables if table]


def numbers(results: Sequence[Result]) -> list[dict[str, str]]:
    """Return each cell as a row of numbers, named as in `reported.csv`; empty where there is none."""
    return [
        {
            "table": paper_cell.table if (paper_cell := table.paper[row].get(variant)) else "",
            **{key: str(job(table.files[0])[key]) for key in ("dataset", "architecture")},
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


def _beside_the_paper(table: AttackTable) -> Table:
    """Return the paper's table with its figures beside ours."""
    with_paper = {variant for by_variant in table.paper.values() for variant in by_variant}
    rows = []
    for row, cells in table.cells.items():
        line = {"accuracy, %": str(row)}
        for variant in table.members:
            line[variant] = _of_seeds(cells.get(variant), table.members[variant].values())
            if variant in with_paper:
                paper_cell = table.paper[row].get(variant)
                line[f"{variant}, paper"] = f"{paper_cell.accuracy:.2f}" if paper_cell else ""
        rows.append(line)
    return Table(rows, _title(table), _note(table))


def _of_seeds(cell: Cell | None, seeds: Collection[int]) -> str:
    """Return a cell as people read it; one of fewer than all seeds of its variant says of which."""
    if cell is None:
        return ""
    return str(cell) if len(cell.seeds) == len(seeds) else f"{cell} (seed {', '.join(map(str, cell.seeds))})"


def _title(table: AttackTable) -> str:
    """Return what was trained on what, and what the paper's figures are of."""
    train_job, data = job(table.files[0]), table.files[0].config["data"]
    dataset = f", on {data['dataset']}" if data["dataset"] != train_job["dataset"] else ""
    subject = f"{train_job['dataset']}, models from elsewhere{dataset}"
    if not is_brought(train_job):
        subject = f"{train_job['dataset']}, {train_job['architecture']}, recipe {train_job['recipe']['name']}{dataset}"
    if (images := recalibration(table.files[0])) != "none":
        subject += f", batch norm recalibrated ({images})"
    cells = [cell for by_variant in table.paper.values() for cell in by_variant.values()]
    if not cells:
        return subject
    sources = ", ".join(dict.fromkeys(_source_name(cell.table) for cell in cells))
    if (cells[0].dataset, cells[0].architecture) == (train_job["dataset"], train_job["architecture"]):
        return f"{subject}; paper: {sources}"
    return f"{subject}; paper: {sources}, of other models: {cells[0].dataset} with its {cells[0].architecture} network"


def _source_name(source: str) -> str:
    """Return text such as `Table 2` or `Section 4.3`."""
    kind, place = re.split(r"(?=\d)", source, maxsplit=1)
    return f"{kind.capitalize()} {place}"


def _note(table: AttackTable) -> str:
    """Return the sentence on what the numbers are computed from."""
    first = table.files[0]
    settings, data = first.config["settings"], first.config["data"]
    if not table.readings:
        return "; ".join([_spread(table), f"{data['images']} {data['split']} images"])
    mean_gradients = np.mean([result["per_image/gradients"].mean() for result in table.files])
    starts = "" if settings["restarts"] == 1 else f", {settings['restarts']} restarts"
    parts = [
        _spread(table),
        f"{data['images']} {data['split']} images, {labels.ball(settings)}, "
        f"step {labels.length(settings['step_size'], labels.norm(settings))}{starts}",
        _effort(table, float(mean_gradients)),
    ]
    if any(row.setting == "black-box" for row in table.cells):
        parts.insert(2, "black-box: attacks on the other seeds of the same variant, and the mean over these")
    elif not is_brought(job(first)):
        parts.append("no black-box rows, which need files of two seeds of a variant (`irt train --copies`)")
    elif all(len(_targets(result)) == 1 for result in table.files):
        parts.append("no black-box accuracy: `--evaluator FILE` has another model classify the adversarial images")
    if labels.norm(settings) != "l1" and not any(name.startswith("APGD") for name in table.readings):
        parts.append("the worst case is without APGD, which is stronger (`irt evaluate --apgd 100`)")
    if any(name.startswith("APGD-T") for name in table.readings):
        parts.append("APGD-T attacks images that are right under all attacks before, and keeps what broke the others")
    if any(cell.steps is None for by_variant in table.paper.values() for cell in by_variant.values()):
        parts.append("the paper does not say how many steps its PGD has")
    return "; ".join(parts)


def _effort(table: AttackTable, mean_gradients: float) -> str:
    """Return how many gradients an image took on average, and how many its attacks ask for where all ask alike."""
    if any(name.startswith("APGD") for name in table.readings):
        return f"{mean_gradients:.0f} gradients for each image and attacked model, on average"
    total = max(map(gradients_asked, table.files))
    if round(mean_gradients) == total:
        return f"{total} gradients for each image and attacked model"
    return (
        f"{total} gradients for each image and attacked model, of which {mean_gradients:.0f} were computed on average: "
        "the others repeat earlier ones"
    )


def _spread(table: AttackTable) -> str:
    """Return what stands behind a number, and the seeds of which variants."""
    seeds: dict[tuple[int, ...], list[str]] = {}
    for variant, models in table.members.items():
        seeds.setdefault(tuple(models.values()), []).append(variant)
    kinds = {
        "mean \u00b1 standard deviation over training seeds": any(len(group) > 1 for group in seeds),
        "Wilson 95 % interval over images where there is one seed": any(
            len(cell.seeds) == 1 for group in table.cells.values() for cell in group.values()
        ),
    }
    phrases = [
        f"{', '.join(map(str, group))} of {', '.join(variants)}"
        for group, variants in seeds.items()
        if None not in group
    ]
    detail = f" ({'; '.join(phrases)})" if phrases else ""
    return f"{', or '.join(kind for kind, is_present in kinds.items() if is_present)}{detail}"


def _transfer_matrix(table: AttackTable) -> Table:
    """Return every source's headline reading by every target, where others than the copies in the table read it."""
    sources = {source: variant for variant, models in table.members.items() for source in models}
    copies = {(source, target) for source in sources for target in table.members[sources[source]]}
    reading = _headline(table)
    names = {sha: name for result in table.files for sha, name in _short_names(result).items()}
    accuracies = {
        key[:2]: interval for key, interval in table.accuracies.items() if reading and key[2][1:] == _attack(reading)
    }
    if accuracies.keys() <= copies:
        return Table([])
    targets = dict.fromkeys([*sources, *names])
    rows = [
        {f"{reading} of": names[source]}
        | {
            names[target]: f"{100 * interval.value:.1f}" if (interval := accuracies.get((source, target))) else ""
            for target in targets
        }
        for source in sources
    ]
    reach = 100 * max(
        max(interval.value - interval.low, interval.high - interval.value) for interval in accuracies.values()
    )
    note = f"{table.files[0].count} images; Wilson 95 % intervals reach at most {reach:.1f} points to either side"
    return Table(rows, f"{reading} made on the row's model: accuracy in % of the column's", note)


def _rivals(table: AttackTable) -> Table:
    """Return exact McNemar tests between adversarially trained variants of one seed, corrected by Holm for their
    number.
    """
    models = {_identity(result): result for result in sorted(table.files, key=lambda result: len(readings(result)))}
    adversarial = [result for result in models.values() if is_adversarial(job(result))]
    outcomes = {_identity(result): _outcomes(result) for result in adversarial}
    pairs = [
        (first, second)
        for first, second in combinations(sorted(adversarial, key=lambda entry: labels.order(entry)[::-1]), 2)
        if job(first)["seed"] == job(second)["seed"] and readings(first) == readings(second)
    ]
    tests = [
        (pair, condition, mcnemar(outcomes[_identity(pair[0])][condition], outcome))
        for pair in pairs
        for condition, outcome in outcomes[_identity(pair[1])].items()
    ]
    rows: dict[str, dict[str, str]] = {}
    for ((first, second), condition, test), p in zip(tests, holm([test.p_value for *_, test in tests]), strict=True):
        pair = f"{job(first)['variant']} : {label(second)}"
        cell = f"{test.only_first} : {test.only_second}, p {test.p_value:.2g} ({p:.2g})"
        rows.setdefault(pair, {"only one is right": pair})[condition] = cell
    note = f"images that only the first or only the second has right, of {table.files[0].count}; McNemar's exact p"
    return Table(rows.values(), "Variants of one seed on the same images", f"{note} (by Holm for {len(tests)} tests)")


def _outcomes(result: Result) -> Mapping[str, Any]:
    """Return which images (N,) a model has right, by condition."""
    reading = headline(result)
    outcomes = {"natural": right(result, None)}
    if reading:
        outcomes[reading] = right(result, reading)
    if len(readings(result)) > 1:
        outcomes["worst case"] = right_in_worst_case(result)
    return outcomes


def _headline(table: AttackTable) -> str | None:
    return headline(max(table.files, key=lambda result: len(readings(result))))


def _identity(result: Result) -> str:
    """Return the content hash of the model that was attacked."""
    return str(result.config["checkpoint"]["sha256"])


def _targets(result: Result) -> list[str]:
    """Return the content hashes of all that classified, the attacked model first."""
    return [_identity(result), *result.config.get("evaluators", {"sha256": ()})["sha256"]]


def _short_names(result: Result) -> dict[str, str]:
    names = labels.places(result, "target")
    return {sha: labels.short_name(result, name) for sha, name in zip(_targets(result), names, strict=True)}


def _attack(reading: str) -> tuple[str, int]:
    """Return what `reported.csv` calls a reading: `PGD-20` is pgd and 20, `APGD-CE-100` is apgd-ce and 100."""
    name, _, steps = reading.rpartition("-")
    return name.lower(), int(steps)
