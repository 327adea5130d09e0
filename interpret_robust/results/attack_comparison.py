"""The attack tables as people read them: beside the paper, by who reads whom, and variants two by two."""

import re
from collections.abc import Collection, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from interpret_robust.core.parsing import format_count
from interpret_robust.core.significance import holm, mcnemar
from interpret_robust.models.variants import is_adversarial, is_external
from interpret_robust.results import names as labels
from interpret_robust.results.attack_outcomes import (
    count_gradients,
    find_headline,
    find_right,
    find_right_in_worst_case,
    list_readings,
)
from interpret_robust.results.attack_tables import AttackTable, Cell, attack_of, attack_tables, list_target_models
from interpret_robust.results.hdf5 import Result
from interpret_robust.results.names import label
from interpret_robust.results.tables import Table


def make_comparisons(results: Sequence[Result]) -> list[Table]:
    """Return each table as people read it, then who reads whom where others than copies read, then variants two by
    two.
    """
    tables = [
        part(table) for table in attack_tables(results) for part in (_beside_the_paper, _transfer_matrix, _rivals)
    ]
    return [table for table in tables if table]


def _beside_the_paper(table: AttackTable) -> Table:
    """Return the paper's table with its figures beside ours."""
    with_paper = {variant for by_variant in table.paper.values() for variant in by_variant}
    rows = []
    for row, cells in table.cells.items():
        line = {"accuracy, %": str(row)}
        for variant in table.members:
            line[variant] = _name_seeds(cells.get(variant), table.members[variant].values())
            if variant in with_paper:
                paper_cell = table.paper[row].get(variant)
                line[f"{variant}, paper"] = f"{paper_cell.accuracy:.2f}" if paper_cell else ""
        rows.append(line)
    return Table(rows, _title(table), _note(table))


def _name_seeds(cell: Cell | None, seeds: Collection[int]) -> str:
    """Return a cell as people read it; one of fewer than all seeds of its variant says of which."""
    if cell is None:
        return ""
    return str(cell) if len(cell.seeds) == len(seeds) else f"{cell} (seed {', '.join(map(str, cell.seeds))})"


def _title(table: AttackTable) -> str:
    """Return what was trained on what, and what the paper's figures are of."""
    train_job, data = table.files[0].job, table.files[0].config["data"]
    dataset = f", on {data['dataset']}" if data["dataset"] != train_job["dataset"] else ""
    subject = f"{train_job['dataset']}, models from elsewhere{dataset}"
    if not is_external(train_job):
        subject = f"{train_job['dataset']}, {train_job['architecture']}, recipe {train_job['recipe']['name']}{dataset}"
    if (images := table.files[0].recalibration) != "none":
        subject += f", batch norm recalibrated ({images})"
    cells = [cell for by_variant in table.paper.values() for cell in by_variant.values()]
    if not cells:
        return subject
    sources = ", ".join(dict.fromkeys(_source_name(cell.table) for cell in cells))
    if (cells[0].dataset, cells[0].architecture) == (train_job["dataset"], train_job["architecture"]):
        return f"{subject}; the paper's numbers: {sources}"
    return (
        f"{subject}; the paper's numbers ({sources}) are of other models: its {cells[0].architecture} network on "
        f"{cells[0].dataset}"
    )


def _source_name(source: str) -> str:
    """Return text such as `Table 2` or `Section 4.3`."""
    kind, place = re.split(r"(?=\d)", source, maxsplit=1)
    return f"{kind.capitalize()} {place}"


def _note(table: AttackTable) -> str:
    """Return the sentence on what the numbers are computed from."""
    first = table.files[0]
    settings, data = first.config["settings"], first.config["data"]
    if not table.readings:
        return "; ".join([_spread(table), labels.format_images(data)])
    mean_gradients = np.mean([result["per_image/gradients"].mean() for result in table.files])
    starts = "" if settings["restarts"] == 1 else f", {settings['restarts']} restarts"
    parts = [
        _spread(table),
        f"{labels.format_images(data)}, {labels.format_ball(settings)}, "
        f"step {labels.format_length(settings['step_size'], labels.find_norm(settings))}{starts}",
        _effort(table, float(mean_gradients)),
    ]
    if any(row.setting == "black-box" for row in table.cells):
        parts.insert(2, "black-box: attacks on the other seeds of the same variant, and the mean over these")
    elif not is_external(first.job):
        parts.append(
            "no black-box rows, which need another seed of each, beside it or in the same command "
            "(`irt train --copies` trains it)"
        )
    elif all(len(list_target_models(result)) == 1 for result in table.files):
        parts.append("no black-box accuracy: `--evaluator FILE` has another model classify the adversarial images")
    has_four_classes = any(int(result["per_image/label"].max()) > 2 for result in table.files)  # as APGD-T needs
    has_apgd = any(name.startswith("APGD") for name in table.readings)
    if labels.find_norm(settings) != "l1" and has_four_classes and not has_apgd:
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
    total = max(map(count_gradients, table.files))
    if round(mean_gradients) == total:
        return f"{format_count(total, 'gradient')} for each image and attacked model"
    return (
        f"{total} gradients for each image and attacked model; {mean_gradients:.0f} were computed on average, since an "
        "attack that comes back to an earlier image repeats itself"
    )


def _spread(table: AttackTable) -> str:
    """Return what stands behind a number, and the seeds of which variants."""
    seeds: dict[tuple[int, ...], list[str]] = {}
    for variant, models in table.members.items():
        seeds.setdefault(tuple(models.values()), []).append(variant)
    kinds = []
    if any(len(group) > 1 for group in seeds):
        kinds.append("mean \u00b1 standard deviation over training seeds")
    if any(len(cell.seeds) == 1 for group in table.cells.values() for cell in group.values()):
        kinds.append(f"Wilson 95 % interval over images{' where there is one seed' if kinds else ''}")
    phrases = [
        f"{'seed' if len(group) == 1 else 'seeds'} {', '.join(map(str, group))} of {', '.join(variants)}"
        for group, variants in seeds.items()
        if None not in group
    ]
    detail = f" ({'; '.join(phrases)})" if phrases else ""
    return f"{', or '.join(kinds)}{detail}"


def _transfer_matrix(table: AttackTable) -> Table:
    """Return the headline reading of sources that others than their copies in the table read, by all who read these."""
    variants = {source: variant for variant, models in table.members.items() for source in models}
    copies = {(source, target) for source in variants for target in table.members[variants[source]]}
    reading = table.headline
    names = _short_names(table)
    accuracies = {
        key[:2]: interval for key, interval in table.accuracies.items() if reading and key[2][1:] == attack_of(reading)
    }
    read_by_others = {source for source, _ in accuracies.keys() - copies}
    if not read_by_others:
        return Table([])
    accuracies = {pair: interval for pair, interval in accuracies.items() if pair[0] in read_by_others}
    sources = [source for source in variants if source in read_by_others]
    readers = {target for _, target in accuracies}
    targets = [target for target in dict.fromkeys([*variants, *names]) if target in readers]
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
    images = format_count(table.files[0].count, "image")
    note = f"{images}; Wilson 95 % intervals reach at most {reach:.1f} points to either side"
    return Table(rows, f"{reading} made on the row's model: accuracy in % of the column's", note)


def _rivals(table: AttackTable) -> Table:
    """Return exact McNemar tests between adversarially trained variants of one seed, corrected by Holm for their
    number.
    """
    models = {result.model_id: result for result in sorted(table.files, key=lambda result: len(list_readings(result)))}
    adversarial = [result for result in models.values() if is_adversarial(result.job)]
    outcomes = {result.model_id: _outcomes(result) for result in adversarial}
    pairs = [
        (first, second)
        for first, second in combinations(sorted(adversarial, key=lambda entry: labels.order(entry)[::-1]), 2)
        if first.job["seed"] == second.job["seed"] and list_readings(first) == list_readings(second)
    ]
    tests = [
        (pair, condition, mcnemar(outcomes[pair[0].model_id][condition], outcome))
        for pair in pairs
        for condition, outcome in outcomes[pair[1].model_id].items()
    ]
    rows: dict[str, dict[str, str]] = {}
    for ((first, second), condition, test), p in zip(tests, holm([test.p_value for *_, test in tests]), strict=True):
        pair = f"{first.job['variant']} : {label(second)}"
        cell = f"{test.only_first} : {test.only_second}, p {test.p_value:.2g} ({p:.2g})"
        rows.setdefault(pair, {"only one is right": pair})[condition] = cell
    note = f"images that only the first or only the second has right, of {table.files[0].count}; McNemar's exact p"
    return Table(rows.values(), "Variants of one seed on the same images", f"{note} (by Holm for {len(tests)} tests)")


def _outcomes(result: Result) -> Mapping[str, Any]:
    """Return which images (N,) a model has right, by condition."""
    reading = find_headline(result)
    outcomes = {"natural": find_right(result, None)}
    if reading:
        outcomes[reading] = find_right(result, reading)
    if len(list_readings(result)) > 1:
        outcomes["worst case"] = find_right_in_worst_case(result)
    return outcomes


def _short_names(table: AttackTable) -> dict[str, str]:
    """Return what the matrix calls each model by its id, all that classified among them."""
    texts = labels.list_distinctions(table.files)
    return {
        model.id: labels.shorten_name(result, labels.name_of(model, texts))
        for result in table.files
        for model in (result.model, *result.evaluators)
    }
