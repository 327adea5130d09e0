"""Do attention and gradients lie on the object? (shares, the pointing game, and planted patterns)

The share of attention, or of Grad-CAM's weights, on the object's positions and the share of the gradient's energy on
the object's pixels stand beside what maps that know nothing would give: the object's area, and a map that falls off
from the center. In the pointing game a map scores where its largest value lies on the object (Zhang et al. 2018,
https://arxiv.org/abs/1608.00507).

Where class patterns are planted in the images, the part of the gradient along them is measured beside the same
patterns turned by 180 degrees: as smooth, and in no image. Whether the decision rests on them is also asked directly:
each image's pattern is exchanged for that of the next class, and the model may follow it or stay with the object.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.linalg import orth
from torch import nn

from interpret_robust.analyses.engine.analysis import Analysis
from interpret_robust.analyses.engine.comparison import compare_means
from interpret_robust.analyses.engine.settings import SourceSettings, WeightSettings
from interpret_robust.analyses.engine.work import Work
from interpret_robust.attribution.gradients import compute_map, compute_position_weights
from interpret_robust.attribution.regions import (
    find_center,
    find_hits,
    find_object_positions,
    make_center_prior,
    measure_share_inside,
)
from interpret_robust.core.arrays import AnyArray
from interpret_robust.core.bootstrap import RESAMPLES, bootstrap_mean
from interpret_robust.core.intervals import TAILS, UNKNOWN, Interval, rate, rates, wilson
from interpret_robust.datasets import Split
from interpret_robust.datasets.batches import Batch, to_numpy
from interpret_robust.models import Classifier
from interpret_robust.models.classifier import predict_classes
from interpret_robust.results.columns import Columns
from interpret_robust.results.hdf5 import Result
from interpret_robust.results.schema import Column, Schema, describe_plot, interval

MAPS = ("weights", "gradient")
"""The weights of positions, and over pixels the energy of the loss gradient: its squares, summed over colors."""

_MAP = ("map",)
_PATTERN = "NaN without planted patterns"
SCHEMA = Schema(
    name="localization",
    version=2,
    per_image=(
        Column("per_image/label", "i2", "true class"),
        Column("per_image/prediction", "i2", "predicted class"),
        Column("per_image/share", "f4", "share of the map on the object; NaN for a map without values", _MAP),
        Column("per_image/hit", "f4", "1 where the map is largest on the object; NaN where it points nowhere", _MAP),
        Column("per_image/area", "f4", "share of the map's places on the object", _MAP),
        Column("per_image/center", "f4", "share of the center prior on the object", _MAP),
        Column("per_image/center_hit", "f4", "share of the map's central places on the object", _MAP),
        Column("per_image/magnitude_share", "f4", "share of the gradient's |entries| on the object; NaN for none"),
        Column("per_image/pattern_share", "f4", f"share of the gradient's energy in the patterns' span; {_PATTERN}"),
        Column(
            "per_image/pattern_share_turned",
            "f4",
            f"share of the gradient's energy in the span of the patterns turned by 180 degrees; {_PATTERN}",
        ),
        Column(
            "per_image/pattern_chance", "f4", f"dimensions of the patterns' span over those of an image; {_PATTERN}"
        ),
        Column("per_image/pattern_cosine", "f4", f"cosine of -gradient and the true class's pattern; {_PATTERN}"),
        Column(
            "per_image/pattern_cosine_other",
            "f4",
            f"cosine of -gradient and another class's pattern, mean over these; {_PATTERN}",
        ),
        Column("per_image/follows", "f4", f"1 where the class of an exchanged pattern is predicted; {_PATTERN}"),
        Column(
            "per_image/stays", "f4", f"1 where the true class is predicted though its pattern is exchanged; {_PATTERN}"
        ),
    ),
    summary=(
        interval("share/on_object", "mean share of the map on the object", *_MAP),
        interval(
            "share/area",
            "mean share of an equal map on the object, its area, of images that have a map",
            *_MAP,
        ),
        interval("share/center", "mean share on the object of the center prior, of images that have a map", *_MAP),
        interval(
            "share/above_area", "mean share of the map on the object minus the object's area, paired by image", *_MAP
        ),
        interval(
            "share/above_center", "mean share of the map on the object minus the center prior's, paired by image", *_MAP
        ),
        interval("share/magnitude", "mean share of the gradient's |entries| on the object"),
        interval("pointing/hits", "share of images whose map is largest on the object, Wilson 95 % interval", *_MAP),
        interval(
            "pointing/class_averaged",
            "share of images whose map is largest on the object, mean over classes, stratified bootstrap; no ends "
            "where a class has one image",
            *_MAP,
        ),
        interval(
            "pointing/center",
            "mean of per_image/center_hit, of images that have a map",
            *_MAP,
        ),
        interval(
            "pointing/above_center",
            "share of images whose map is largest on the object minus pointing/center, paired by image",
            *_MAP,
        ),
        interval("pattern/share", f"mean share of the gradient's energy in the patterns' span; {_PATTERN}"),
        interval(
            "pattern/share_turned",
            f"mean share of the gradient's energy in the span of the patterns turned by 180 degrees; {_PATTERN}",
        ),
        interval("pattern/above_turned", f"pattern/share minus pattern/share_turned, paired by image; {_PATTERN}"),
        Column(
            "pattern/chance",
            "f8",
            f"share of energy in the patterns' span of a gradient of random direction; {_PATTERN}",
        ),
        interval("pattern/cosine", f"mean cosine of -gradient and the true class's pattern; {_PATTERN}"),
        interval("pattern/cosine_other", f"mean cosine of -gradient and another class's pattern; {_PATTERN}"),
        interval("pattern/follows", f"share of images predicted as the class of an exchanged pattern; {_PATTERN}"),
        interval(
            "pattern/stays",
            f"share of images predicted as their true class though its pattern is exchanged, Wilson 95 %; {_PATTERN}",
        ),
        Column("count/undefined", "i8", "images whose map has no values; they are left out of the map's means", _MAP),
    ),
    groups={"share": describe_plot("on_object", "map:of", "Share of the map on the object")},
    labels={"map": MAPS},
)


@dataclass(frozen=True)
class LocalizationSettings(WeightSettings, SourceSettings):
    """What a map of pixels is, and whose weights of positions are looked at."""


class Patterns:
    """The patterns (classes, y, x, color) planted in a dataset, in pixels in [0, 1], and the spaces that they span."""

    def __init__(self, patterns: AnyArray) -> None:
        self.pixels = torch.from_numpy(patterns).permute(0, 3, 1, 2)
        self.flat = self.pixels.flatten(1).double().numpy()
        self.span = orth(self.flat.T)
        self.turned_span = orth(self.pixels.flip(2, 3).flatten(1).double().numpy().T)

    def rows(self, model: nn.Module, batch: Batch, gradient: AnyArray) -> dict[str, AnyArray]:
        """Return what a batch and its gradient (N, C, H, W) have to do with the patterns."""
        labels = to_numpy(batch.labels)
        next_labels = (labels + 1) % len(self.flat)
        change = self.pixels[next_labels] - self.pixels[labels]
        with torch.no_grad():
            predicted = to_numpy(predict_classes(model(batch.images + change.to(batch.images))))
        columns = {"follows": predicted == next_labels, "stays": predicted == labels}
        return columns | self.measure_alignment(gradient.reshape(len(labels), -1), labels)

    def measure_alignment(self, gradients: AnyArray, labels: AnyArray) -> dict[str, AnyArray]:
        """Return shares of energy in the spans, and cosines of minus the gradient (N, C*H*W), NaN for an all-zero
        one.
        """
        norm = np.linalg.norm(gradients, axis=1, keepdims=True)
        direction = -np.divide(gradients, norm, out=np.full_like(gradients, np.nan), where=norm > 0)
        cosines = direction @ (self.flat / np.linalg.norm(self.flat, axis=1, keepdims=True)).T
        own_class = np.take_along_axis(cosines, labels[:, None], axis=1)[:, 0]
        return {
            "pattern_share": ((direction @ self.span) ** 2).sum(1),
            "pattern_share_turned": ((direction @ self.turned_span) ** 2).sum(1),
            "pattern_chance": np.full(len(labels), self.span.shape[1] / self.span.shape[0]),
            "pattern_cosine": own_class,
            "pattern_cosine_other": (cosines.sum(1) - own_class) / (cosines.shape[1] - 1),
        }


OF_PATTERNS = (
    "pattern_share",
    "pattern_share_turned",
    "pattern_chance",
    "pattern_cosine",
    "pattern_cosine_other",
    "follows",
    "stays",
)


@dataclass(frozen=True)
class Search:
    """Whose weights, on which grid of positions, and what is planted."""

    weights: str
    grid: tuple[int, int]
    patterns: Patterns | None
    source: str = "gradient"


def prepare(work: Work) -> Search:
    """Return what the rows need beside the model."""
    height, width = work.config["local_grid"]
    planted_patterns = work.dataset.patterns
    patterns = None if planted_patterns is None else Patterns(planted_patterns)
    return Search(work.settings.spatial_weight, (height, width), patterns, work.settings.source)


def rows(model: Classifier, batch: Batch, search: Search) -> dict[str, AnyArray]:
    """Return shares, hits and baselines of one batch."""
    assert batch.masks is not None
    labels = to_numpy(batch.labels)
    with torch.no_grad():
        features = model.features(batch.images)
        predicted = predict_classes(model.classifier(features.pooled))
    weights = to_numpy(compute_position_weights(model, batch.images, search.weights, features))
    own_gradient = compute_map(search.source, model, batch.images, batch.labels, batch.indices)
    gradient = to_numpy(own_gradient).astype(np.float64)
    on_pixels = batch.masks.reshape(len(labels), -1)
    of_maps = [
        _localize(weights, find_object_positions(batch.masks, search.grid), search.grid),
        _localize((gradient**2).sum(1).reshape(on_pixels.shape), on_pixels, batch.masks.shape[1:]),
    ]
    columns = {name: np.stack([of_map[name] for of_map in of_maps], axis=1) for name in of_maps[0]}
    columns |= {
        "label": labels,
        "prediction": to_numpy(predicted),
        "magnitude_share": measure_share_inside(np.abs(gradient).sum(1).reshape(on_pixels.shape), on_pixels),
    }
    if search.patterns is None:
        columns |= dict.fromkeys(OF_PATTERNS, np.full(len(labels), np.nan))
    else:
        columns |= search.patterns.rows(model, batch, gradient)
    return {f"per_image/{name}": values for name, values in columns.items()}


def _localize(maps: AnyArray, mask: AnyArray, grid: tuple[int, ...]) -> dict[str, AnyArray]:
    """Return how maps (N, P) over a grid lie in `mask` (N, P), and how maps that know nothing do."""
    return {
        "share": measure_share_inside(maps, mask),
        "hit": find_hits(maps, mask),
        "area": mask.mean(1),
        "center": mask @ make_center_prior(*grid).ravel(),
        "center_hit": mask[:, find_center(*grid).ravel()].mean(1),
    }


def summarize(columns: Columns, _: Split) -> dict[str, Any]:
    """Return means and rates with their intervals, over the images that have a map, also of what knows none."""
    share, hit, area, center, center_hit = (
        columns[f"per_image/{name}"] for name in ("share", "hit", "area", "center", "center_hit")
    )
    area, center, center_hit = (np.where(np.isnan(share), np.nan, prior) for prior in (area, center, center_hit))
    share_turned = columns["per_image/pattern_share_turned"]
    pattern = columns["per_image/pattern_share"]
    return {
        "share/on_object": _means(share),
        "share/area": _means(area),
        "share/center": _means(center),
        "share/above_area": _means(share - area),
        "share/above_center": _means(share - center),
        "share/magnitude": bootstrap_mean(columns["per_image/magnitude_share"]),
        "pointing/hits": rates(hit),
        "pointing/class_averaged": [average_classes(hits_of_map, columns["per_image/label"]) for hits_of_map in hit.T],
        "pointing/center": _means(center_hit),
        "pointing/above_center": _means(hit - center_hit),
        "pattern/share": bootstrap_mean(pattern),
        "pattern/share_turned": bootstrap_mean(share_turned),
        "pattern/above_turned": bootstrap_mean(pattern - share_turned),
        "pattern/chance": columns["per_image/pattern_chance"].mean(),
        "pattern/cosine": bootstrap_mean(columns["per_image/pattern_cosine"]),
        "pattern/cosine_other": bootstrap_mean(columns["per_image/pattern_cosine_other"]),
        "pattern/follows": rate(columns["per_image/follows"]),
        "pattern/stays": rate(columns["per_image/stays"]),
        "count/undefined": np.isnan(hit).sum(0),
    }


def average_classes(hits: AnyArray, labels: AnyArray) -> Interval:
    """Return the mean over classes of the share of hits (N,), those that are NaN left out, with its bootstrap interval.

    Images are drawn within their class: the number of hits in a resample of a class is binomial. A class without
    images is left out. There is no interval where a class has a single image, which shows no spread; where all images
    of each class agree, its ends are Wilson's.
    """
    finite = np.isfinite(hits)
    classes, counts = np.unique(labels[finite], return_counts=True)
    if len(classes) == 0:
        return UNKNOWN
    rates = np.array([hits[finite & (labels == label)].mean(dtype=np.float64) for label in classes])
    if counts.min() < 2:
        return Interval(float(rates.mean()), np.nan, np.nan)
    if np.isin(rates, (0, 1)).all():
        return _bound_mean(rates, int(counts.min()))
    draws = np.random.default_rng(0).binomial(counts, rates, (RESAMPLES, len(classes))) / counts
    low, high = np.quantile(draws.mean(1), TAILS)
    return Interval(float(rates.mean()), float(low), float(high))


def _bound_mean(rates: AnyArray, count: int) -> Interval:
    """Return the mean of the rates (classes,) of classes that are all 0 or all 1, each of at least `count` images.

    A bootstrap would find no spread. Only classes at 1 can make the mean smaller, and only those at 0 larger: each end
    is Wilson's for such classes together.
    """
    full, empty = int((rates == 1).sum()), int((rates == 0).sum())
    low = full * wilson(full * count, full * count).low if full else 0.0
    high = full + (empty * wilson(0, empty * count).high if empty else 0.0)
    return Interval(float(rates.mean()), low / len(rates), high / len(rates))


def table_row(result: Result) -> dict[str, str]:
    """Return shares and hits of both maps with their baselines, and what lies along planted patterns, of a finished
    file.
    """
    row = {"weights": str(result.config["settings"]["spatial_weight"])}
    for index, name in enumerate(MAPS):
        row[f"{name} on object (area)"] = compare_means(
            result["share/on_object"][index], result["share/area"][index], Interval.percent
        )
    for index, name in enumerate(MAPS):
        row[f"{name} pointing (center)"] = compare_means(
            result["pointing/hits"][index], result["pointing/center"][index], Interval.percent
        )
    if np.isfinite(result["pattern/chance"]):
        row["gradient along patterns (turned)"] = compare_means(
            result["pattern/share"], result["pattern/share_turned"], Interval.percent
        )
        row["follows exchanged pattern"] = Interval(*result["pattern/follows"]).percent()
    for name, total in zip(MAPS, result["count/undefined"], strict=True):
        if total:
            row[f"{name} without values"] = str(int(total))
    return row | {"images": str(result.count)}


def _means(values: AnyArray) -> list[Interval]:
    """Return the mean of each column of values (N, maps)."""
    return [bootstrap_mean(column) for column in values.T]


ANALYSIS = Analysis(SCHEMA, LocalizationSettings, rows, summarize, table_row, prepare=prepare, needs_masks=True)
