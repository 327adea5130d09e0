"""Does attention go to robust features? (Figure 2: attention weight against robustness rank)

For each image the positions of the local features are ranked by the L2 distance between their clean and
their adversarial feature, rank 0 the most robust; positions of equal distance share their ranks. For models without
attention Grad-CAM stands in its place.
Beside the paper's curve stands what else could have made it:

- the feature's norm: distance grows with it, and attention is computed from the features. The same correlation
  is given for the relative distance, and for the distance with the norm taken out of both;
- the attack: it goes through the attention, so attended positions receive more gradient. The same is given for
  noise that is uniform in the attack's ball, and knows nothing of the model;
- the position: the mean map of all other images in the place of each image's own attention;
- nothing at all: the same weights on positions in random order.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.special import entr
from torch import Tensor

from interpret_robust.analyses.engine.analysis import Analysis
from interpret_robust.analyses.engine.selection import Selection
from interpret_robust.analyses.engine.settings import AttackSettings, WeightSettings
from interpret_robust.attacks.adversarial import split_outcomes
from interpret_robust.attacks.norms import Ball
from interpret_robust.attribution.gradients import compute_position_weights
from interpret_robust.attribution.regions import average_other_maps
from interpret_robust.core.arrays import AnyArray
from interpret_robust.core.bootstrap import FEWEST_IMAGES, bootstrap_mean, column_means, ratio_of_means
from interpret_robust.core.intervals import Interval, rate
from interpret_robust.core.parsing import format_number, format_part
from interpret_robust.core.random_numbers import make_streams
from interpret_robust.core.rank_statistics import apply_in_parts, page_trend, row_partial_spearman, row_spearman
from interpret_robust.datasets import Split
from interpret_robust.datasets.batches import Batch, to_numpy
from interpret_robust.models import Classifier
from interpret_robust.models.classifier import measure_positions, predict_classes
from interpret_robust.results.columns import Columns
from interpret_robust.results.hdf5 import Result
from interpret_robust.results.schema import Column, Schema, describe_plot, interval

SIGNIFICANT = 0.05

ENDS = 8
"""Ranks at each end that the slope ratio compares: an eighth of the paper's 64; half of all where these are fewer."""

NOISE, SHUFFLE = 1, 2
"""What random numbers are for: the third part of their seed, beside the attack's random start, which has none."""

MEASURES = ("spearman", "spearman_relative", "spearman_partial", "spearman_noise")
"""The correlations that have to agree before a direction is named."""

PAGE = "too small where maps are smooth"
_POSITION = ("position",)
SCHEMA = Schema(
    name="attention-rank",
    version=3,
    per_image=(
        Column("per_image/label", "i2", "true class"),
        Column("per_image/prediction_clean", "i2", "predicted class of the clean image"),
        Column("per_image/prediction_adversarial", "i2", "predicted class of the adversarial image"),
        Column("per_image/attention", "f4", "weight on the clean image, positions row-major; NaN if none", _POSITION),
        Column("per_image/attention_adversarial", "f4", "weight on the adversarial image", _POSITION),
        Column("per_image/attention_shuffled", "f4", "weight on the clean image, positions in random order", _POSITION),
        Column("per_image/distance", "f4", "L2 over channels between clean and adversarial local feature", _POSITION),
        Column(
            "per_image/noise_distance",
            "f4",
            "L2 over channels between clean local feature and that under noise that is uniform in the attack's ball",
            _POSITION,
        ),
        Column("per_image/feature_norm", "f4", "L2 over channels of the clean local feature", _POSITION),
        Column("per_image/spearman", "f4", "Spearman of attention and robustness (minus distance) over positions"),
        Column(
            "per_image/spearman_relative",
            "f4",
            "Spearman of attention and robustness by relative distance (distance / feature norm)",
        ),
        Column(
            "per_image/spearman_partial", "f4", "partial Spearman of attention and robustness, given the feature norm"
        ),
        Column("per_image/spearman_noise", "f4", "Spearman of attention and robustness by the distance under noise"),
        Column("per_image/spearman_shuffled", "f4", "Spearman of shuffled attention and robustness: the null"),
        Column("per_image/entropy", "f4", "entropy of clean attention, nats"),
        Column("per_image/effective_positions", "f4", "1 / sum of squares of clean attention"),
    ),
    summary=(
        Column("curve/attention_mean", "f8", "attention at this rank (0 the most robust), mean over images", ("rank",)),
        Column("curve/attention_low", "f8", "lower end of the bootstrap 95 % interval of attention_mean", ("rank",)),
        Column("curve/attention_high", "f8", "upper end of the bootstrap 95 % interval of attention_mean", ("rank",)),
        Column("curve/uniform", "f8", "attention of a position if all had equal attention"),
        Column("curve/images", "i8", "number of images in the curve: those with attention weights"),
        interval("curve/relative", "attention by rank of relative distance (distance / feature norm)", "rank"),
        interval("curve/noise", "attention by rank of the distance under noise", "rank"),
        interval(
            "curve/position_null",
            "attention by rank, with the mean map of the other images in place of its own: what position alone gives",
            "rank",
        ),
        interval("curve/shuffled_null", "attention by rank, with shuffled weights: the null", "rank"),
        interval(
            "curve/attack_failed", "attention by rank, of images classified rightly before and after the attack", "rank"
        ),
        interval(
            "curve/attack_succeeded", "attention by rank, of images that the attack turns from right to wrong", "rank"
        ),
        Column(
            "curve/attack_failed_images",
            "i8",
            "number of images classified rightly before and after the attack; the curve is NaN where there are none",
        ),
        Column("curve/attack_succeeded_images", "i8", "number of images that the attack turns from right to wrong"),
        interval("test/spearman", "mean of per_image/spearman, bootstrap 95 % interval"),
        interval("test/spearman_relative", "mean of per_image/spearman_relative, bootstrap 95 % interval"),
        interval("test/spearman_partial", "mean of per_image/spearman_partial, bootstrap 95 % interval"),
        interval("test/spearman_noise", "mean of per_image/spearman_noise, bootstrap 95 % interval"),
        interval(
            "test/spearman_position",
            "mean Spearman with the mean map of the other images in place of an image's own, bootstrap 95 % interval",
        ),
        interval("test/spearman_shuffled", "mean of per_image/spearman_shuffled, bootstrap 95 % interval"),
        interval("test/spearman_positive", "share of images with a positive Spearman, Wilson 95 % interval"),
        Column("test/undefined", "i8", "images without a correlation: no weights, or constant weights or distance"),
        Column("test/page_more_robust", "f8", f"p-value of Page's test that attention grows with robustness; {PAGE}"),
        Column("test/page_less_robust", "f8", f"p-value of Page's test that attention falls with robustness; {PAGE}"),
        interval(
            "test/slope_ratio",
            f"mean attention of the {ENDS} (or half of all) most over that of as many least robust ranks; NaN for none",
        ),
        interval("test/entropy", "mean of per_image/entropy, nats, bootstrap 95 % interval"),
        interval("test/effective_positions", "mean of per_image/effective_positions, bootstrap 95 % interval"),
        Column(
            "examples/index", "i4", "chosen by rule: the first image of each of the first ten classes", ("example",)
        ),
        Column("examples/image", "u1", "the example images", ("example", "y", "x", "color")),
        Column("examples/attention", "f4", "clean attention of the examples", ("example", "position")),
        Column("examples/spearman", "f4", "per_image/spearman of the examples", ("example",)),
    ),
    groups={"curve": describe_plot("attention_mean", "rank", "Attention against robustness rank")},
)


@dataclass(frozen=True)
class RankSettings(WeightSettings, AttackSettings):
    """The attack, and whose weights are set against its distances."""


def rows(model: Classifier, batch: Batch, settings: RankSettings) -> dict[str, AnyArray]:
    """Return weights, distances and correlations of one batch."""
    assert settings.eps is not None and settings.spatial_weight != "auto"
    adversarial = settings(model, batch.images, batch.labels, batch.indices)
    noisy = add_noise(batch.images, settings.ball(), settings.seed, batch.indices)
    with torch.no_grad():
        clean, adversarial_features, noisy_features = (
            model.features(images) for images in (batch.images, adversarial, noisy)
        )
        tensors = {
            "label": batch.labels,
            "prediction_clean": predict_classes(model.classifier(clean.pooled)),
            "prediction_adversarial": predict_classes(model.classifier(adversarial_features.pooled)),
            "distance": measure_positions(adversarial_features.local - clean.local),
            "noise_distance": measure_positions(noisy_features.local - clean.local),
            "feature_norm": measure_positions(clean.local),
        }
    tensors["attention"] = compute_position_weights(model, batch.images, settings.spatial_weight, clean)
    tensors["attention_adversarial"] = compute_position_weights(
        model, adversarial, settings.spatial_weight, adversarial_features
    )
    columns = {name: to_numpy(values) for name, values in tensors.items()}
    columns["attention_shuffled"] = shuffle_attention(columns["attention"], settings.seed, batch.indices)
    return {f"per_image/{name}": values for name, values in (columns | score_images(columns)).items()}


def add_noise(images: Tensor, ball: Ball, seed: int, indices: Sequence[int]) -> Tensor:
    """Return images (N, C, H, W) under noise that is uniform in a ball, kept in [0, 1]; `indices` are theirs."""
    uniform = [stream.uniform(-1, 1, images.shape[1:]) for stream in make_streams(seed, indices, NOISE)]
    noise = torch.from_numpy(np.stack(uniform).astype(np.float32)).to(images.device)
    return ball.start(images, lambda _: noise, *ball.bounds(images))


def shuffle_attention(weights: AnyArray, seed: int, indices: Sequence[int]) -> AnyArray:
    """Return weights (N, P) with each row's positions in an order that is a function of the seed and the row's
    index.
    """
    of_row = make_streams(seed, indices, SHUFFLE)
    rows = [stream.permutation(row) for stream, row in zip(of_row, weights, strict=True)]
    return np.stack(rows)


def score_images(columns: Mapping[str, AnyArray]) -> dict[str, AnyArray]:
    """Return correlations and concentration of each image, (N,), from its weights, distances and norms (N, P)."""
    attention, distance, norm = columns["attention"], columns["distance"], columns["feature_norm"]
    return {
        "spearman": row_spearman(attention, -distance),
        "spearman_relative": row_spearman(attention, -divide_by_norm(distance, norm)),
        "spearman_partial": row_partial_spearman(attention, -distance, norm),
        "spearman_noise": row_spearman(attention, -columns["noise_distance"]),
        "spearman_shuffled": row_spearman(columns["attention_shuffled"], -distance),
        "entropy": entr(attention).sum(1),
        "effective_positions": 1 / (attention**2).sum(1),
    }


def divide_by_norm(distance: AnyArray, norm: AnyArray) -> AnyArray:
    """Return the distance over norm; where the norm is zero the distance itself."""
    return distance / np.where(norm > 0, norm, 1)


def sort_attention(attention: AnyArray, distance: AnyArray) -> AnyArray:
    """Return attention (N, P) in the order of each image's distance, the smallest (most robust) first.

    Positions of equal distance share their ranks: each has the mean attention of them all.
    """
    return apply_in_parts(_by_rank, attention, distance)


def _by_rank(attention: AnyArray, distance: AnyArray) -> AnyArray:
    order = np.argsort(distance, axis=1, kind="stable")
    by_rank, steps = (np.take_along_axis(values, order, axis=1) for values in (attention, distance))
    is_first = np.diff(steps, axis=1, prepend=np.nan) != 0
    ties = np.cumsum(is_first) - 1
    means = np.bincount(ties, by_rank.ravel()) / np.bincount(ties)
    in_order: AnyArray = means[ties].reshape(by_rank.shape).astype(by_rank.dtype)
    return in_order


def summarize(columns: Columns, _: Split) -> dict[str, Any]:
    """Return the paper's curve, those beside it, and the tests."""
    has_weights: AnyArray = np.all(np.isfinite(columns["per_image/attention"]), axis=1)
    attention, distance = (columns[f"per_image/{name}"][has_weights] for name in ("attention", "distance"))
    by_rank = sort_attention(attention, distance)
    prior = average_other_maps(attention)
    return {
        **_papers_curve(by_rank),
        **_measure_controls(columns, has_weights, prior),
        **_curves_by_outcome(columns, has_weights, by_rank),
        **_correlations(columns),
        "test/spearman_position": bootstrap_mean(row_spearman(prior, -distance)),
        **_trend(attention, distance, by_rank),
    }


def _papers_curve(by_rank: AnyArray) -> dict[str, Any]:
    mean, low, high = average_curve(by_rank).T
    return {
        "curve/attention_mean": mean,
        "curve/attention_low": low,
        "curve/attention_high": high,
        "curve/uniform": 1 / by_rank.shape[1],
        "curve/images": len(by_rank),
    }


def average_curve(by_rank: AnyArray) -> AnyArray:
    """Return the mean over images (N, P) at each rank with its bootstrap interval, (P, 3).

    NaN throughout without images.
    """
    if len(by_rank) == 0:
        return np.full((by_rank.shape[1], 3), np.nan)
    return column_means(by_rank)


def _measure_controls(columns: Columns, has_weights: AnyArray, prior: AnyArray) -> dict[str, AnyArray]:
    """Return the curve by other distances, and that of weights which know nothing of the image."""

    def column(name: str) -> AnyArray:
        return columns[f"per_image/{name}"][has_weights]

    attention, distance = column("attention"), column("distance")
    return {
        "curve/relative": average_curve(sort_attention(attention, divide_by_norm(distance, column("feature_norm")))),
        "curve/noise": average_curve(sort_attention(attention, column("noise_distance"))),
        "curve/position_null": average_curve(sort_attention(prior, distance)),
        "curve/shuffled_null": average_curve(sort_attention(column("attention_shuffled"), distance)),
    }


def _curves_by_outcome(columns: Columns, has_weights: AnyArray, by_rank: AnyArray) -> dict[str, Any]:
    """Return the paper's curve where the attack failed and where it succeeded, among images that were right without
    it.
    """
    label, clean, adversarial = (
        columns[f"per_image/{name}"][has_weights] for name in ("label", "prediction_clean", "prediction_adversarial")
    )
    curves: dict[str, Any] = {}
    for outcome, selection in split_outcomes(label, clean, adversarial).items():
        curves[f"curve/{outcome}"] = average_curve(by_rank[selection])
        curves[f"curve/{outcome}_images"] = int(selection.sum())
    return curves


def _correlations(columns: Columns) -> dict[str, Any]:
    spearman = columns["per_image/spearman"]
    finite = spearman[np.isfinite(spearman)]
    means = (*MEASURES, "spearman_shuffled", "entropy", "effective_positions")
    return {
        **{f"test/{name}": bootstrap_mean(columns[f"per_image/{name}"]) for name in means},
        "test/spearman_positive": rate(finite > 0),
        "test/undefined": len(spearman) - len(finite),
    }


def _trend(attention: AnyArray, distance: AnyArray, by_rank: AnyArray) -> dict[str, Any]:
    """Return Page's test both ways, and how much more attention the most robust ranks get than the least.

    Images whose distances are all equal have nothing to rank, and no part in the ratio.
    """
    with_ranks = by_rank[np.ptp(distance, axis=1) > 0]
    ends = max(1, min(ENDS, by_rank.shape[1] // 2))
    return {
        "test/page_more_robust": page_trend(attention, -distance).p_value,
        "test/page_less_robust": page_trend(attention, distance).p_value,
        "test/slope_ratio": ratio_of_means(with_ranks[:, :ends].mean(1), with_ranks[:, -ends:].mean(1)),
    }


def examples(columns: Columns, images: Split, _: RankSettings) -> dict[str, AnyArray]:
    """Return the first image of each class, by the default rule."""
    indices = Selection().indices(images.labels, columns["per_image/spearman"])
    return {
        "examples/index": indices,
        "examples/image": images.images[indices],
        "examples/attention": columns.rows_at("per_image/attention", indices),
        "examples/spearman": columns.rows_at("per_image/spearman", indices),
    }


def table_row(result: Result) -> dict[str, str]:
    """Return the correlation, what it becomes under each control, and how concentrated attention is.

    There is nothing to rank where no attack moves a feature, as at eps 0, or no image has weights. Images are those
    with a correlation, of how many if there are others.
    """
    with_correlation = result.count - int(result["test/undefined"])
    has_ranks = np.isfinite(result["test/slope_ratio"][0])
    effective_count = format_number(result["test/effective_positions"][0], ".1f")
    return {
        **{
            heading: Interval(*result[f"test/{name}"]).plain()
            for heading, name in (
                ("Spearman", "spearman"),
                ("relative", "spearman_relative"),
                ("given norm", "spearman_partial"),
                ("under noise", "spearman_noise"),
                ("mean map", "spearman_position"),
            )
        },
        "attention goes to": judge_direction(result) if has_ranks else "nothing to rank",
        "effective positions": f"{effective_count} of {len(result['curve/attention_mean'])}",
        "images": format_part(with_correlation, result.count),
    }


def judge_direction(result: Result) -> str:
    """Return where attention goes: more robust features, less robust features, or cannot tell.

    A direction is named where all four correlations have it with their whole 95 % interval: by distance, by
    relative distance, given the feature's norm, and under noise, which unlike the attack does not go through the
    attention; and where Page's test finds the trend at the 5 % level, which adds little: it takes positions for
    exchangeable, and its p-value is far too small for maps that are smooth. That a mean map would show the same does
    not count against it: it says why, and stands beside it. Fewer than FEWEST_IMAGES images with a correlation tell
    nothing.
    """
    if result.count - result["test/undefined"] < FEWEST_IMAGES:
        return "cannot tell"
    intervals = [result[f"test/{name}"] for name in MEASURES]
    if all(low > 0 for _, low, _ in intervals) and result["test/page_more_robust"] < SIGNIFICANT:
        return "more robust features"
    if all(high < 0 for _, _, high in intervals) and result["test/page_less_robust"] < SIGNIFICANT:
        return "less robust features"
    return "cannot tell"


ANALYSIS = Analysis(SCHEMA, RankSettings, rows, summarize, table_row, examples=examples)
