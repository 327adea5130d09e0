"""Claims on what else training depends on: the regularization's weight, and the network's width."""

from collections.abc import Iterator, Sequence
from itertools import product

from interpret_robust.models.variants import find_variant
from interpret_robust.results.attack_outcomes import find_right
from interpret_robust.results.hdf5 import Result
from interpret_robust.study.paper import Claim, find_claim_row
from interpret_robust.study.verdicts.accuracy import group_by_weight
from interpret_robust.study.verdicts.sample import Sample, describe_conditions, label_reading, sample

WEIGHTS = ("weight_reg", "weight_att_reg")
"""The recipe's two weights of the regularizer, in which models that are compared may differ."""


def weights_in_range(claim: Claim, models: tuple[str, ...], results: Sequence[Result]) -> Iterator[Sample]:
    """Yield white-box accuracy by the headline's reading of regularized models, each weight's own, minus that without.

    They decide where models at both ends of the range are there; a weight outside of it is only shown.
    """
    candidates = [result for result in _attack_files(results) if set(WEIGHTS) <= result.job.get("recipe", {}).keys()]
    pairs = list(_pairs(models, candidates, (), WEIGHTS))
    low, high = claim.range
    weights = {_weight(first) for first, _ in pairs}
    for pair in pairs:
        weight = _weight(pair[0])
        decides = {low, high} <= weights and low <= weight <= high
        for reading, kind in group_by_weight(pair)[:1]:
            quantity = f"accuracy, {label_reading(reading, pair[0])}, lambda {weight:g}"
            values = [find_right(result, reading) for result in pair]
            condition = describe_conditions(pair[0], ("recalibration",), WEIGHTS)
            yield sample(
                quantity, pair, values, percent=True, kind=kind if decides else "further", conditions=condition
            )


def _weight(result: Result) -> float:
    """Return the lambda of Eq. 7 that a regularized model was trained with."""
    attentive = find_variant(result.job["variant"]).has_attention
    return float(result.job["recipe"][WEIGHTS[attentive]])


def narrow_and_wide(_: Claim, models: tuple[str, ...], results: Sequence[Result]) -> Iterator[Sample]:
    """Yield white-box accuracy of a narrow network minus that of the one three times as wide, by the headline's
    reading.
    """
    for narrow, wide in _pairs(models * 2, _attack_files(results), ("architecture",)):
        widths = narrow.job["architecture"], wide.job["architecture"]
        if widths not in WIDTHS:
            continue
        names = tuple(f"{models[0]} {width}" for width in widths)
        for reading, kind in group_by_weight((narrow, wide))[:1]:
            values = [find_right(result, reading) for result in (narrow, wide)]
            tables = [find_claim_row(table, "white-box", reading) for table in TABLES]
            figures = {name: cells[models[0]] for name, cells in zip(names, tables, strict=True) if models[0] in cells}
            quantity = f"accuracy, {label_reading(reading, narrow)}"
            yield sample(quantity, (narrow, wide), values, percent=True, kind=kind, models=names, row=figures)


WIDTHS = (("narrow", "wide3"), ("small", "small-wide3"))
"""Architectures and those that are three times as wide."""
TABLES = ("table2", "table3")
"""The paper's tables of the narrow and of the wide network."""


def _attack_files(results: Sequence[Result]) -> list[Result]:
    """Return the files of attacks on test images."""
    return [
        result for result in results if result.analysis == "robustness" and result.config["data"]["split"] == "test"
    ]


def _pairs(
    models: tuple[str, ...], results: Sequence[Result], free: Sequence[str], free_of_recipe: Sequence[str] = ()
) -> Iterator[tuple[Result, Result]]:
    """Yield files of two variants, of one seed, alike but for what is free; see `describe_conditions`."""
    first, second = ([result for result in results if result.job["variant"] == model] for model in models)
    for pair in product(first, second):
        seeds = {result.job["seed"] for result in pair}
        if len(seeds) == 1 and len({describe_conditions(result, free, free_of_recipe) for result in pair}) == 1:
            yield pair
