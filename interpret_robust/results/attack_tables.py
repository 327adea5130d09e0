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
from interpret_robust.results.attack_outcomes import ball, headline, readings, right, right_in_worst_case
from interpret_robust.results.hdf5 import Result
from interpret_robust.results.names import job, label, radius, recalibration
from interpret_robust.results.reported import Reported, reported
from interpret_robust.results.tables import Table

WORST = "worst-case"

BROUGHT = ("card", "layers")
"""What tells models from elsewhere apart beside their names."""


class Row(NamedTuple):
    """A row of the paper's tables, named as in `reported.csv`, or a worst case; `steps` is None where not told."""

    setting: str
    attack: str
    steps: int | None

    def __str__(self) -> str:
        """As `natural`, `white-box PGD-20` or `black-box worst case`."""
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
        """As `52.2 ± 1.1` or `52.1 [49.0, 55.2]`."""
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
        """The seed of each attacked model by its content hash, by variant, in the paper's order."""
        found: dict[str, dict[str, int]] = {}
        for result in sorted(self.files, key=labels.order):
            found.setdefault(job(result)["variant"], {})[_identity(result)] = job(result)["seed"]
        return found

    @cached_property
    def readings(self) -> list[str]:
        """Those of all files, PGD first, by their steps."""
        found = {name for result in self.files for name in readings(result)}
        return sorted(found, key=lambda name: (not name.startswith("PGD"), *_attack(name)))

    @cached_property
    def accuracies(self) -> Accuracies:
        """What every target made of what every source gave; a worst case only where it is over all readings."""
        found: Accuracies = {}
        for result in self.files:
            natural, read, worst = (result[f"accuracy/{name}"] for name in ("natural", "adversarial", "worst"))
            source, names = _identity(result), readings(result)
            found[source, source, NATURAL] = Interval(*natural[0])
            for index, target in enumerate(_targets(result)):
                setting = "black-box" if index else "white-box"
                for name, of in zip(names, read[:, index], strict=True):
                    found[source, target, Row(setting, *_attack(name))] = Interval(*of)
                if names and set(names) == set(self.readings):
                    found[source, target, Row(setting, WORST, None)] = Interval(*worst[index])
        return found

    @cached_property
    def cells(self) -> dict[Row, dict[str, Cell]]:
        """The rows that hold anything, in the paper's order, and each one's cells by variant."""
        rows = [NATURAL]
        for setting in ("white-box", "black-box"):
            rows += [Row(setting, *_attack(name)) for name in self.readings] + [Row(setting, WORST, None)]
        found = {row: {variant: self._cell(variant, row) for variant in self.members} for row in rows}
        kept = {row: {variant: cell for variant, cell in of.items() if cell} for row, of in found.items()}
        return {row: of for row, of in kept.items() if of}

    def transferred(self, result: Result, reading: str) -> Interval | None:
        """The accuracy of a file's model on what was made on its copies; None where none gave anything."""
        return self._accuracy(_identity(result), Row("black-box", *_attack(reading)))

    def _cell(self, variant: str, row: Row) -> Cell | None:
        found = {seed: self._accuracy(target, row) for target, seed in self.members[variant].items()}
        of = {seed: accuracy for seed, accuracy in found.items() if accuracy}
        values = 100 * np.array(list(of.values()))
        if not of:
            return None
        if len(of) == 1:
            return Cell(values[0, 0], None, values[0, 1], values[0, 2], tuple(of))
        return Cell(values[:, 0].mean(), values[:, 0].std(ddof=1), None, None, tuple(of))

    def _accuracy(self, target: str, row: Row) -> Interval | None:
        copies = next(models for models in self.members.values() if target in models)
        sources = [copy for copy in copies if copy != target] if row.setting == "black-box" else [target]
        found = [self.accuracies[key] for source in sources if (key := (source, target, row)) in self.accuracies]
        return Interval(*np.mean(found, axis=0).tolist()) if found else None

    @cached_property
    def paper(self) -> dict[Row, dict[str, Reported]]:
        """The paper's cells that stand beside these, by row and variant."""
        sources = paper_sources(job(self.files[0])["dataset"], job(self.files[0])["architecture"])
        found: dict[Row, dict[str, Reported]] = {row: {} for row in self.cells}
        for row, of in self.cells.items():
            told = row._replace(steps=None) if row == self._untold(row.setting) else row
            for cell in reported():
                if cell.table in sources and Row(cell.setting, cell.attack, cell.steps) == told and cell.variant in of:
                    found[row][cell.variant] = cell
        return found

    def _untold(self, setting: str) -> Row | None:
        """The row beside which Table 1 stands, whose number of steps the paper does not tell: the headline's."""
        first = _headline(self)
        return Row(setting, *_attack(first)) if job(self.files[0])["dataset"] == "mnist" and first else None


def attack_tables(results: Sequence[Result]) -> list[AttackTable]:
    """The files table by table, in the order in which these first appear."""
    groups: dict[str, list[Result]] = {}
    for result in results:
        trained = {key: value for key, value in job(result).items() if key not in ("variant", "seed", *BROUGHT)}
        key = json.dumps([trained, ball(result), result.config["data"]], sort_keys=True)
        groups.setdefault(key, []).append(result)
    return [AttackTable(group) for group in groups.values()]


def paper_sources(dataset: str, architecture: str) -> tuple[str, ...]:
    """The paper's tables and sections that stand beside models of a dataset; none where there is nothing alike.

    Table 2 and, for networks three times as wide, Table 3 are of CIFAR-10; they stand beside cluttered digits too.
    """
    own = {"mnist": ("table1",), "cifar100": ("table5",), "svhn": ("table6",)}
    if dataset in own:
        return own[dataset]
    if dataset != "cifar10" and not dataset.startswith("cluttered-digits"):
        return ()
    return ("table3",) if architecture.endswith("wide3") else ("table2", "section4.3", "section4.4")


def printed(results: Sequence[Result]) -> list[Table]:
    """Each table as people read it, then who reads whom where others than copies read, then variants two by two."""
    tables = [
        part(table) for table in attack_tables(results) for part in (_beside_the_paper, _transfer_matrix, _rivals)
    ]
    return [table for table in tables if table]


def numbers(results: Sequence[Result]) -> list[dict[str, str]]:
    """Each cell as a row of numbers, named as in `reported.csv`; empty where there is none."""
    return [
        {
            "table": beside.table if (beside := table.paper[row].get(variant)) else "",
            **{key: str(job(table.files[0])[key]) for key in ("dataset", "architecture")},
            **{key: _number(value) for key, value in row._asdict().items()},
            "variant": variant,
            "accuracy_percent": _number(cell.accuracy),
            **{key: _number(getattr(cell, key)) for key in ("deviation", "low", "high")},
            "seeds": " ".join(_number(seed) for seed in cell.seeds),
            "images": str(table.files[0].count),
            "paper_percent": _number(beside.accuracy if beside else None),
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
    """The paper's table with its figures beside ours."""
    with_paper = {variant for of in table.paper.values() for variant in of}
    rows = []
    for row, cells in table.cells.items():
        found = {"accuracy, %": str(row)}
        for variant in table.members:
            found[variant] = _of_seeds(cells.get(variant), table.members[variant].values())
            if variant in with_paper:
                beside = table.paper[row].get(variant)
                found[f"{variant}, paper"] = f"{beside.accuracy:.2f}" if beside else ""
        rows.append(found)
    return Table(rows, _title(table), _note(table))


def _of_seeds(cell: Cell | None, seeds: Collection[int]) -> str:
    """A cell as people read it; one of fewer than all seeds of its variant says of which."""
    if cell is None:
        return ""
    return str(cell) if len(cell.seeds) == len(seeds) else f"{cell} (seed {', '.join(map(str, cell.seeds))})"


def _title(table: AttackTable) -> str:
    """What was trained on what, and what the paper's figures are of."""
    trained, data = job(table.files[0]), table.files[0].config["data"]
    on = f", on {data['dataset']}" if data["dataset"] != trained["dataset"] else ""
    ours = f"{trained['dataset']}, models from elsewhere{on}"
    if not is_brought(trained):
        ours = f"{trained['dataset']}, {trained['architecture']}, recipe {trained['recipe']['name']}{on}"
    if (images := recalibration(table.files[0])) != "none":
        ours += f", batch norm recalibrated ({images})"
    cells = [cell for of in table.paper.values() for cell in of.values()]
    if not cells:
        return ours
    sources = ", ".join(dict.fromkeys(_source_name(cell.table) for cell in cells))
    if (cells[0].dataset, cells[0].architecture) == (trained["dataset"], trained["architecture"]):
        return f"{ours}; paper: {sources}"
    return f"{ours}; paper: {sources}, of other models: {cells[0].dataset} with its {cells[0].architecture} network"


def _source_name(source: str) -> str:
    """As `Table 2` or `Section 4.3`."""
    kind, place = re.split(r"(?=\d)", source, maxsplit=1)
    return f"{kind.capitalize()} {place}"


def _note(table: AttackTable) -> str:
    """Over what the numbers are."""
    first = table.files[0]
    settings, data = first.config["settings"], first.config["data"]
    gradients = max(int(result["per_image/gradients"].max()) for result in table.files)
    starts = "" if settings["restarts"] == 1 else f", {settings['restarts']} restarts"
    parts = [
        _spread(table),
        f"{data['images']} {data['split']} images, eps {radius(settings['eps'])}, "
        f"step {radius(settings['step_size'])}{starts}",
        f"at most {gradients} gradients an image and source",
    ]
    if any(row.setting == "black-box" for row in table.cells):
        parts.insert(2, "black-box: attacked on the other seeds of the same variant, and the mean over them")
    else:
        parts.append("no black-box rows: they need files of two seeds of a variant (`irt train --copies`)")
    if any(cell.steps is None for of in table.paper.values() for cell in of.values()):
        parts.append("the paper does not tell the steps of its PGD")
    return "; ".join(parts)


def _spread(table: AttackTable) -> str:
    """What stands behind a number, and the seeds of which variants."""
    seeds: dict[tuple[int, ...], list[str]] = {}
    for variant, models in table.members.items():
        seeds.setdefault(tuple(models.values()), []).append(variant)
    kinds = {
        "mean \u00b1 standard deviation over training seeds": any(len(of) > 1 for of in seeds),
        "Wilson 95 % interval over images where a cell is of one seed": any(
            len(cell.seeds) == 1 for of in table.cells.values() for cell in of.values()
        ),
    }
    told = [f"{', '.join(map(str, of))} of {', '.join(who)}" for of, who in seeds.items() if None not in of]
    over = f" ({'; '.join(told)})" if told else ""
    return f"{', or '.join(kind for kind, there in kinds.items() if there)}{over}"


def _transfer_matrix(table: AttackTable) -> Table:
    """Every source's headline reading by every target, where others than the copies in the table read it."""
    sources = {source: variant for variant, models in table.members.items() for source in models}
    copies = {(source, target) for source in sources for target in table.members[sources[source]]}
    reading = _headline(table)
    names = {sha: name for result in table.files for sha, name in _short_names(result).items()}
    read = {key[:2]: of for key, of in table.accuracies.items() if reading and key[2][1:] == _attack(reading)}
    if read.keys() <= copies:
        return Table([])
    targets = dict.fromkeys([*sources, *names])
    rows = [
        {f"{reading} of": names[source]}
        | {names[target]: f"{100 * of.value:.1f}" if (of := read.get((source, target))) else "" for target in targets}
        for source in sources
    ]
    reach = 100 * max(max(of.value - of.low, of.high - of.value) for of in read.values())
    note = f"{table.files[0].count} images; Wilson 95 % intervals reach at most {reach:.1f} points to either side"
    return Table(rows, f"{reading} made on the row's model: accuracy in % of the column's", note)


def _rivals(table: AttackTable) -> Table:
    """Exact McNemar tests between adversarially trained variants of one seed, corrected by Holm for their number."""
    models = {_identity(result): result for result in sorted(table.files, key=lambda result: len(readings(result)))}
    adversarial = [result for result in models.values() if is_adversarial(job(result))]
    outcomes = {_identity(result): _outcomes(result) for result in adversarial}
    pairs = [
        (first, second)
        for first, second in combinations(sorted(adversarial, key=lambda one: labels.order(one)[::-1]), 2)
        if job(first)["seed"] == job(second)["seed"] and readings(first) == readings(second)
    ]
    tests = [
        (pair, condition, mcnemar(outcomes[_identity(pair[0])][condition], of))
        for pair in pairs
        for condition, of in outcomes[_identity(pair[1])].items()
    ]
    rows: dict[str, dict[str, str]] = {}
    for ((first, second), condition, test), p in zip(tests, holm([test.p_value for *_, test in tests]), strict=True):
        pair = f"{job(first)['variant']} : {label(second)}"
        cell = f"{test.only_first} : {test.only_second}, p {test.p_value:.2g} ({p:.2g})"
        rows.setdefault(pair, {"only one is right": pair})[condition] = cell
    note = f"images that only the first or only the second has right, of {table.files[0].count}; McNemar's exact p"
    return Table(rows.values(), "Variants of one seed on the same images", f"{note} (by Holm for {len(tests)} tests)")


def _outcomes(result: Result) -> Mapping[str, Any]:
    """Which images (N,) a model has right, by condition."""
    reading = headline(result)
    found = {"natural": right(result, None)}
    if reading:
        found[reading] = right(result, reading)
    if len(readings(result)) > 1:
        found["worst case"] = right_in_worst_case(result)
    return found


def _headline(table: AttackTable) -> str | None:
    return headline(max(table.files, key=lambda result: len(readings(result))))


def _identity(result: Result) -> str:
    """The content hash of the model that was attacked."""
    return str(result.config["checkpoint"]["sha256"])


def _targets(result: Result) -> list[str]:
    """The content hashes of all that classified, the attacked model first."""
    return [_identity(result), *result.config.get("evaluators", {"sha256": ()})["sha256"]]


def _short_names(result: Result) -> dict[str, str]:
    names = labels.places(result, "target")
    return {sha: labels.short_name(result, name) for sha, name in zip(_targets(result), names, strict=True)}


def _attack(reading: str) -> tuple[str, int]:
    """As in `reported.csv`: `PGD-20` is pgd and 20."""
    name, _, steps = reading.partition("-")
    return name.lower(), int(steps)
