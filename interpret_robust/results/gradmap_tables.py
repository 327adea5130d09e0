"""Gradient-map scores as people read them: the headline, its controls, and models set side by side."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from interpret_robust.core.arrays import AnyArray
from interpret_robust.core.intervals import Interval
from interpret_robust.core.parsing import format_count, format_number, format_percent
from interpret_robust.core.significance import PairedDifference, holm, mcnemar
from interpret_robust.models.variants import is_adversarial
from interpret_robust.results.hdf5 import Result
from interpret_robust.results.names import PAPER_RULES, label, list_places, name_variant, shorten_name

Rows = list[dict[str, str]]

LEAST_NAMED = 0.7
"""Share of maps called one class from which on a table says so: an accuracy then says little about maps."""


def format_headline(result: Result, *views: str) -> dict[str, str]:
    """Return the headline at both signs, and the mean and deviation between evaluators where there are several."""
    evaluators = list_places(result, "evaluator")
    row = {"read by": shorten_name(result, evaluators[0])}
    for view in views or PAPER_RULES:
        place = _place(result, view)
        for sign, mark in enumerate(("-g", "+g")):
            row[f"{view} {mark}"] = Interval(*result["headline/accuracy"][place, sign]).percent()
        if len(evaluators) > 1:
            mean, deviation = (100 * result[f"headline/{name}"][place, 0] for name in ("mean", "deviation"))
            row[f"{view} -g, {len(evaluators)} evaluators"] = format_number(mean, ".1f", f" \u00b1 {deviation:.1f} %")
    return row | _most_named(result) | {"gray maps": str(result["degenerate/count"][0]), "images": str(result.count)}


def _most_named(result: Result) -> dict[str, str]:
    """Return the class that the first evaluator gives most maps minus gradient, clipped; nothing for less than
    LEAST_NAMED of them.
    """
    rule = list_places(result, "rule").index(PAPER_RULES["clip"])
    answers = result["per_image/evaluator_prediction"][:, 0, 0, rule, 0]
    classes, counts = np.unique(answers[answers >= 0], return_counts=True)
    if not len(counts) or counts.max() < LEAST_NAMED * len(answers):
        return {}
    name = result.job["class_names"][classes[counts.argmax()]]
    return {"read alike": f"{counts.max() / len(answers):.0%} as {name}"}


def make_comparisons(results: Sequence[Result], *views: str) -> list[Rows]:
    """Return the controls, the adversarially trained variants two by two, and variants of which there are several
    seeds.
    """
    columns = views or tuple(PAPER_RULES)
    tables = (_controls(results, columns), _pairs(results, columns), _seeds(results, columns))
    return [table for table in tables if table]


def is_read(result: Result, evaluator: str, view: str) -> AnyArray:
    """Return whether an evaluator reads the true class at the headline cell of a view, (N,) bool."""
    rule = list_places(result, "rule").index(PAPER_RULES[view])
    answers = result["per_image/evaluator_prediction"][:, list_places(result, "evaluator").index(evaluator), 0, rule, 0]
    right: AnyArray = answers == result["per_image/label"]
    return right


def list_shared_evaluators(results: Sequence[Result]) -> list[str]:
    """Return the evaluators that are the same models in all files, in the first file's order."""
    ids_by_name = [{reader.name: reader.id for reader in result.evaluators} for result in results]
    return [name for name in list_places(results[0], "evaluator") if len({ids.get(name) for ids in ids_by_name}) == 1]


def _controls(results: Sequence[Result], views: Sequence[str]) -> Rows:
    """Return how the first evaluator reads what stands in the map's place, at sign minus."""
    table = []
    for view in views:
        for result in results:
            place, controls = _place(result, view), list_places(result, "control")
            accuracy = result["controls/accuracy"][0, :, place, 0, 0]
            row = {"rule": view, "instead of the map of": label(result)}
            row |= {control: format_percent(value) for control, value in zip(controls, accuracy, strict=True)}
            row["the image"] = format_percent(result["anchor/image"][0, 0])
            if np.isfinite(result["anchor/probe"][0]):
                row["random target, by a probe"] = Interval(*result["anchor/probe"]).percent()
            table.append(row)
    return table


def _pairs(results: Sequence[Result], views: Sequence[str]) -> Rows:
    """Return exact McNemar tests between variants of one seed on the same images, corrected by Holm for their
    number.
    """
    pairs = [pair for pair in combinations(results, 2) if _are_rivals(*pair) and list_shared_evaluators(pair)]
    comparisons = [(view, first, second, _tests(first, second, view)) for view in views for first, second in pairs]
    p_values = holm([next(iter(tests.values())).p_value for *_, tests in comparisons])
    table = []
    for (view, first, second, tests), p_value in zip(comparisons, p_values, strict=True):
        reader, test = next(iter(tests.items()))
        lead = test.only_first - test.only_second
        agreeing = sum((pair.only_first - pair.only_second) * lead > 0 for pair in tests.values())
        table.append(
            {
                "rule": view,
                "pair": f"{first.job['variant']} against {label(second)}",
                "read by": shorten_name(first, reader),
                "only the first read": str(test.only_first),
                "only the second": str(test.only_second),
                "p (McNemar, Holm)": f"{p_value:.2g}",
                "same sign": f"in {agreeing} of {format_count(len(tests), 'evaluator')}",
            }
        )
    return table


def _seeds(results: Sequence[Result], views: Sequence[str]) -> Rows:
    """Return the mean and deviation of the headline over training seeds, by the evaluators that read all of them."""
    groups: dict[tuple[str, ...], list[Result]] = {}
    for result in results:
        model_job, data = result.job, result.config["data"]
        groups.setdefault(
            (model_job["dataset"], data["sha256"], model_job["architecture"], name_variant(result)), []
        ).append(result)
    return [
        _tabulate_seeds(f"{architecture} {name}", group, evaluators, view)
        for (*_, architecture, name), group in groups.items()
        if len(group) > 1 and (evaluators := list_shared_evaluators(group))
        for view in views
    ]


def _tabulate_seeds(name: str, group: Sequence[Result], evaluators: Sequence[str], view: str) -> dict[str, str]:
    means = [np.mean([is_read(result, evaluator, view).mean() for evaluator in evaluators]) for result in group]
    return {
        "rule": view,
        "training seeds": f"{name}, seeds {', '.join(str(result.job['seed']) for result in group)}",
        "mean": format_percent(np.mean(means)),
        "deviation": format_percent(np.std(means, ddof=1)),
        "read by": ", ".join(shorten_name(group[0], evaluator) for evaluator in evaluators),
    }


def _tests(first: Result, second: Result, view: str) -> dict[str, PairedDifference]:
    """Return McNemar's test at the headline cell by each evaluator that read both, in the first file's order."""
    return {
        name: mcnemar(is_read(first, name, view), is_read(second, name, view))
        for name in list_shared_evaluators([first, second])
    }


def _are_rivals(first: Result, second: Result) -> bool:
    is_same_kind = all(first.job[key] == second.job[key] for key in ("dataset", "architecture", "seed"))
    adversarial = all(is_adversarial(result.job) for result in (first, second))
    return is_same_kind and adversarial and bool(first.config["data"] == second.config["data"])


def _place(result: Result, view: str) -> int:
    """Return where a view's rule stands among those of the headline and the controls."""
    place: int = list_places(result, "control_rule").index(PAPER_RULES[view])
    return place
