"""Claims on attention, features and gradient maps."""

from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np

from interpret_robust.attribution.regions import average_other_maps
from interpret_robust.core.curves import area_under
from interpret_robust.core.rank_statistics import row_spearman
from interpret_robust.models.variants import has_attention, is_adversarial, is_external
from interpret_robust.results.gradmap_tables import is_read, list_shared_evaluators
from interpret_robust.results.hdf5 import Result
from interpret_robust.results.names import PAPER_RULES, list_places
from interpret_robust.study.paper import Claim
from interpret_robust.study.verdicts.accuracy import find_paper_row
from interpret_robust.study.verdicts.measure import Kind
from interpret_robust.study.verdicts.sample import Sample, attack, average_rates, own_attention, pair_files, sample

PAPER_COLUMNS = {"clip": "clipped", "raw": "raw"}
"""By view, the paper's two columns of Table 4."""


def robust_features(claim: Claim, models: tuple[str, ...], results: Sequence[Result]) -> Iterator[Sample]:
    """Yield Spearman of attention and robustness; its controls too."""
    for result in own_attention(claim, models, results):
        correlations: tuple[tuple[str, str, Kind], ...] = (
            (f"Spearman of attention and robustness to {attack(result)}", "spearman", "main"),
            ("the same by relative distance", "spearman_relative", "control"),
            ("the same given the feature's norm", "spearman_partial", "control"),
            ("Spearman of attention and robustness to noise", "spearman_noise", "control"),
        )
        for quantity, column, kind in correlations:
            yield sample(quantity, [result], [result[f"per_image/{column}"]], kind=kind)
        scores, attention = result["per_image/spearman"], result["per_image/attention"]
        excess = scores - row_spearman(average_other_maps(attention), -result["per_image/distance"])
        yield sample("Spearman minus that of the mean attention map", [result], [excess], kind="control")


def robust_features_matter(claim: Claim, models: tuple[str, ...], results: Sequence[Result]) -> Iterator[Sample]:
    """Yield what is lost on average over the number of features removed."""
    for result in own_attention(claim, models, results):
        counts, orders, fill = result["removed"], list_places(result, "order"), result.config["settings"]["fill"]
        for place, condition in enumerate(list_places(result, "condition")):
            area = area_under(result["per_image/correct"][:, place], counts)
            loss = area[:, orders.index("random")] - area[:, orders.index("robust")]
            setting = f"{attack(result)}, fill {fill}"
            quantity = f"{condition} accuracy lost by deleting robust features first, minus random order ({setting})"
            yield sample(quantity, [result], [loss], percent=True)


def attention_on_object(claim: Claim, models: tuple[str, ...], results: Sequence[Result]) -> Iterator[Sample]:
    """Yield attention's share on the object beyond its area; a center prior is the control."""
    for result in own_attention(claim, models, results):
        place = list_places(result, "map").index("weights")
        share = result["per_image/share"][:, place]
        area, center = share - result["per_image/area"][:, place], share - result["per_image/center"][:, place]
        yield sample("attention on the object minus the object's area", [result], [area], percent=True)
        yield sample("the same minus a center prior's share", [result], [center], percent=True, kind="control")


def gradmap_score(claim: Claim, models: tuple[str, ...], results: Sequence[Result]) -> Iterator[Sample]:
    """Yield the paper's cell at sign minus, clipped and raw, by the natural evaluators of each architecture that
    read both.

    Those of one architecture are averaged: which seeds they have depends on the seed of the model that they read.
    """
    for pair in pair_files(claim, models, results):
        for (architecture, evaluators), view in product(_natural_evaluators(pair).items(), PAPER_RULES):
            values = [average_rates([is_read(result, evaluator, view) for evaluator in evaluators]) for result in pair]
            setting = f"gradmap-score-{PAPER_COLUMNS[view]}-{pair[0].config['data']['split']}"
            quantity = f"maps -g ({PAPER_COLUMNS[view]}) read by natural networks ({architecture})"
            yield sample(quantity, pair, values, percent=True, row=find_paper_row(claim, pair[0], setting))


def _natural_evaluators(pair: Sequence[Result]) -> dict[str, list[str]]:
    """Return evaluators of the paper's kind, naturally trained without attention, that read both files, by
    architecture.
    """
    names: dict[str, list[str]] = {}
    for name in list_shared_evaluators(pair):
        reader = pair[0].config["evaluators"]["jobs"][name]
        if not (is_external(reader) or is_adversarial(reader) or has_attention(reader)):
            names.setdefault(reader["architecture"], []).append(name)
    return names


def alignment(claim: Claim, models: tuple[str, ...], results: Sequence[Result]) -> Iterator[Sample]:
    """Yield cosine of gradient and edges, and what of it is beyond another image's edges."""
    for pair in pair_files(claim, models, results):
        scores = [result["per_image/edge_cosine"].astype(np.float64) for result in pair]
        excess = [
            values - result["per_image/edge_cosine_shuffled"] for values, result in zip(scores, pair, strict=True)
        ]
        yield sample("cosine of |g| and the image's edges", pair, scores)
        yield sample("the same beyond that with another image's edges", pair, excess)


def cleaner_backgrounds(claim: Claim, models: tuple[str, ...], results: Sequence[Result]) -> Iterator[Sample]:
    """Yield the share of the gradient's energy on the object."""
    for pair in pair_files(claim, models, results):
        values = [result["per_image/share"][:, list_places(result, "map").index("gradient")] for result in pair]
        yield sample("share of the gradient's energy on the object", pair, values, percent=True)
