"""Does the decision rest on the pixels that a map marks? (deletion, insertion and ROAD)

Pixels are replaced in the order of a map's magnitude, L2 over colors, and the model answers on the way.

Deletion (Petsiuk et al. 2018, https://arxiv.org/abs/1806.07421): the pixels with the largest magnitude go first, and a
good map makes the curve fall early. Insertion (ibid.): they are the first to come back into an image that is replaced
as a whole, and a good map makes the curve rise early. The replacement is the mean color of training images, or the
image's own blur. ROAD (Rong et al. 2022, https://arxiv.org/abs/2202.00449): pixels are imputed from their neighbors,
see `attribution.imputation`, the largest magnitude first, and the smallest first, where a good map keeps the curve up.

The order of edges (Sobel magnitude) and a random one stand beside the map: it says something of the model only as far
as it is better than both.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
import scipy
import torch
from torch import Tensor

from interpret_robust.analyses.engine.analysis import Analysis
from interpret_robust.analyses.engine.settings import SourceSettings
from interpret_robust.analyses.engine.work import Work
from interpret_robust.attribution.controls import sobel
from interpret_robust.attribution.gradients import compute_map
from interpret_robust.attribution.imputation import impute_pixels
from interpret_robust.core.arrays import AnyArray
from interpret_robust.core.bootstrap import finite_column_means
from interpret_robust.core.curves import area_under
from interpret_robust.core.intervals import Interval, rates
from interpret_robust.core.parsing import format_percent
from interpret_robust.core.random_numbers import make_streams
from interpret_robust.datasets import Split
from interpret_robust.datasets.batches import Batch, to_numpy
from interpret_robust.models import Classifier
from interpret_robust.models.classifier import predict_classes
from interpret_robust.results.columns import Axes, Columns
from interpret_robust.results.hdf5 import Result
from interpret_robust.results.schema import Column, Schema, describe_plot, interval

ORDERS = ("map", "edges", "random")
RULES = ("deletion", "insertion", "ROAD most first", "ROAD least first")
SIGNS = (-1, 1, -1, 1)
"""Whether a better order makes the area of each rule smaller or larger."""

CONTRASTS = (("map", "edges"), ("map", "random"), ("edges", "random"))
"""Pairs of orders: by how much the first is better than the second."""

PERCENTS = tuple(range(0, 101, 10))

BLUR = 8
"""The standard deviation of the blur is the image's shorter side over this."""

REFERENCE_IMAGES = 1000
"""Training images that give the mean color."""

TIES, CHANCE, NOISE = 30, 31, 32
"""The purposes of random numbers."""

_CURVE, _AREA = ("order", "rule", "percent"), ("order", "rule")
SCHEMA = Schema(
    name="pixel-deletion",
    version=1,
    per_image=(
        Column("per_image/label", "i2", "true class"),
        Column("per_image/prediction", "i2", "predicted class of the whole image"),
        Column("per_image/constant", "u1", "1 where the map has one magnitude everywhere: its order is random"),
        Column(
            "per_image/correct",
            "u1",
            "1 where the image is classified rightly with so many percent of its pixels deleted or inserted",
            _CURVE,
        ),
        Column(
            "per_image/probability",
            "f4",
            "probability of the whole image's predicted class with so many percent deleted or inserted",
            _CURVE,
        ),
        Column("per_image/area_accuracy", "f4", "area under `correct` over the share of pixels", _AREA),
        Column("per_image/area_probability", "f4", "area under `probability` over the share of pixels", _AREA),
    ),
    summary=(
        Column(
            "curve/accuracy",
            "f8",
            "share of images classified rightly with so many percent of their pixels deleted or inserted",
            _CURVE,
        ),
        Column("curve/low", "f8", "lower end of the Wilson 95 % interval of accuracy", _CURVE),
        Column("curve/high", "f8", "upper end of the Wilson 95 % interval of accuracy", _CURVE),
        interval(
            "probability/mean",
            "mean probability of the whole image's predicted class, bootstrap 95 % interval",
            *_CURVE,
        ),
        interval("area/accuracy", "mean area under the curves of accuracy, bootstrap interval", *_AREA),
        interval("area/probability", "mean area under the curves of probability, bootstrap interval", *_AREA),
        interval(
            "advantage/accuracy",
            "how much better the first order is than the second: difference of areas of accuracy, above zero where "
            "it falls earlier in deletion and ROAD, or where it rises earlier in insertion and stays up longer in ROAD "
            "from the other end; paired bootstrap interval over images",
            *("rule", "contrast"),
        ),
        interval(
            "advantage/probability",
            "how much better the first order is than the second, by areas of probability in place of accuracy",
            "rule",
            "contrast",
        ),
        Column("count/constant", "i8", "images whose map has one magnitude everywhere: its order is random"),
    ),
    groups={
        "curve": describe_plot(
            "accuracy", "order:rule:percent", "Accuracy against the share of pixels deleted or inserted"
        )
    },
    labels={
        "order": ORDERS,
        "rule": RULES,
        "contrast": tuple(f"{first} against {second}" for first, second in CONTRASTS),
    },
)


@dataclass(frozen=True)
class PixelSettings(SourceSettings):
    """What a map is, and what replaces pixels."""

    fill: Literal["mean", "blur"] = field(
        default="mean",
        metadata={"help": "Replacement of pixels in deletion and insertion: mean color of training images, or blur."},
    )
    seed: int = field(
        default=0, metadata={"help": "Seed of random orders, of ROAD's noise, and of a source with noise."}
    )


class Reference(NamedTuple):
    """The settings, and the mean color (C,) of training images."""

    settings: PixelSettings
    color: AnyArray


def prepare(work: Work) -> Reference:
    """Return the mean color over the reference images."""
    images = work.dataset.reference.draw(REFERENCE_IMAGES).images[:]
    return Reference(work.settings, (images.mean((0, 1, 2), dtype=np.float64) / 255).astype(np.float32))


def axes(_: Work) -> Axes:
    """Return the shares of pixels that are moved."""
    return {"percent": PERCENTS}


def rows(model: Classifier, batch: Batch, reference: Reference) -> dict[str, AnyArray]:
    """Return outcomes of one batch, whole and with pixels replaced."""
    settings = reference.settings
    maps = compute_map(settings.source, model, batch.images, batch.labels, batch.indices, settings.seed)
    importance = _magnitude(maps)
    with torch.no_grad():
        predicted = predict_classes(model(batch.images))
        replacement = _Replacement(batch, reference)
        chance = _uniform(settings.seed, batch, importance.shape[1], CHANCE)
        curves = [
            [_answers(model, batch, predicted, replacement, scores, rule) for rule in RULES]
            for scores in (importance, _magnitude(sobel(batch.images)), chance)
        ]
    answers: AnyArray = np.array(curves)  # (order, rule, 2, percent, N)
    correct, probability = (np.moveaxis(answers[:, :, kind], -1, 0) for kind in (0, 1))
    columns = {
        "label": to_numpy(batch.labels),
        "prediction": to_numpy(predicted),
        "constant": np.ptp(importance, axis=1) == 0,
        "correct": correct,
        "probability": probability,
        "area_accuracy": area_under(correct, PERCENTS),
        "area_probability": area_under(probability, PERCENTS),
    }
    return {f"per_image/{name}": values for name, values in columns.items()}


def _magnitude(maps: Tensor) -> AnyArray:
    """Return the L2 norm over colors (N, H*W) of maps, in float64: squares of small gradients vanish in float32."""
    magnitude: AnyArray = np.linalg.norm(to_numpy(maps).astype(np.float64), axis=1)
    return magnitude.reshape(len(magnitude), -1)


def _uniform(seed: int, batch: Batch, count: int, purpose: int) -> AnyArray:
    """Return uniform numbers (N, count), each image's a function of the seed, its index and the purpose alone."""
    return np.stack([stream.random(count) for stream in make_streams(seed, batch.indices, purpose)])


class _Replacement:
    """What stands in for the pixels of a batch."""

    def __init__(self, batch: Batch, reference: Reference) -> None:
        self.images, self.color = to_numpy(batch.images), reference.color
        count, channels, height, width = self.images.shape
        seed = reference.settings.seed
        self.chance = _uniform(seed, batch, height * width, TIES)
        shape = (channels, height, width)
        self.noise = [stream.standard_normal(shape, np.float32) for stream in make_streams(seed, batch.indices, NOISE)]
        self.fill = np.broadcast_to(self.color[:, None, None], (count, *shape))
        if reference.settings.fill == "blur":
            deviation = min(height, width) / BLUR
            self.fill = scipy.ndimage.gaussian_filter(self.images, (0, 0, deviation, deviation), mode="nearest")

    def replace(self, ranks: AnyArray, rule: str, percent: int) -> AnyArray:
        """Return the images with so many percent of their pixels deleted or inserted, by their ranks (N, P)."""
        mask = replace_pixels(ranks, rule, percent)
        if rule.startswith("ROAD"):
            sources = zip(self.images, mask, self.noise, strict=True)
            return np.stack([impute_pixels(image, places, self.color, noise) for image, places, noise in sources])
        return np.where(mask.reshape(len(mask), 1, *self.images.shape[2:]), self.fill, self.images)


def rank_pixels(scores: AnyArray, chance: AnyArray, rule: str) -> AnyArray:
    """Return how many pixels a rule moves before each one, (N, P).

    The largest of `scores` (N, P) go first, or the smallest where the rule says so. Pixels of equal scores go in the
    order of `chance` (N, P).
    """
    return np.argsort(np.lexsort((chance, scores if rule == "ROAD least first" else -scores)), axis=1)


def replace_pixels(ranks: AnyArray, rule: str, percent: int) -> AnyArray:
    """Return which pixels (N, P) a rule replaces when so many percent of them are moved, by their ranks."""
    is_moved: AnyArray = ranks < round(percent / 100 * ranks.shape[1])
    return ~is_moved if rule == "insertion" else is_moved


def _answers(
    model: Classifier, batch: Batch, predicted: Tensor, replacement: _Replacement, scores: AnyArray, rule: str
) -> AnyArray:
    """Return whether answers are right, and the probability of the predicted class: (2, percent, N)."""
    correct, probability = [], []
    ranks = rank_pixels(scores, replacement.chance, rule)
    for percent in PERCENTS:
        images = torch.from_numpy(replacement.replace(ranks, rule, percent)).to(batch.images.device)
        logits = model(images)
        correct.append(to_numpy(predict_classes(logits) == batch.labels))
        of_class = logits.softmax(1).gather(1, predicted.clamp_min(0)[:, None])[:, 0]
        probability.append(to_numpy(torch.where(predicted < 0, torch.nan, of_class)))  # no answer has no class
    return np.stack([np.stack(correct), np.stack(probability)])


def summarize(columns: Columns, _: Split) -> dict[str, Any]:
    """Return curves, areas under them, and by how much one order is better than another."""
    curve = np.moveaxis(rates(columns["per_image/correct"]), -1, 0)
    accuracy, probability = (
        columns[f"per_image/area_{name}"].astype(np.float64) for name in ("accuracy", "probability")
    )
    return {
        "curve/accuracy": curve[0],
        "curve/low": curve[1],
        "curve/high": curve[2],
        "probability/mean": finite_column_means(columns["per_image/probability"]),
        "area/accuracy": finite_column_means(accuracy),
        "area/probability": finite_column_means(probability),
        "advantage/accuracy": finite_column_means(compare_orders(accuracy)),
        "advantage/probability": finite_column_means(compare_orders(probability)),
        "count/constant": int(columns["per_image/constant"].sum()),
    }


def compare_orders(areas: AnyArray) -> AnyArray:
    """Return by how much the first order of each contrast is better than the second: (N, rule, contrast), from areas
    (N, order, rule).
    """
    first, second = ([ORDERS.index(pair[side]) for pair in CONTRASTS] for side in (0, 1))
    difference: AnyArray = (areas[:, first] - areas[:, second]) * np.array(SIGNS)
    return np.moveaxis(difference, 1, 2)


def table_row(result: Result) -> dict[str, str]:
    """Return the areas under curves of accuracy: of the map, and of both controls in parentheses."""
    row = {"replacement": str(result.config["settings"]["fill"])}
    for rule, areas in zip(RULES, np.moveaxis(result["area/accuracy"], 1, 0), strict=True):
        of_map, edges, chance = (Interval(*area) for area in areas)
        controls = ", ".join(format_percent(control.value) for control in (edges, chance))
        row[f"{rule} (edges, random)"] = f"{of_map.percent()} ({controls})"
    if count := int(result["count/constant"]):
        row["constant maps"] = str(count)
    return row | {"images": str(result.count)}


def compare(results: Sequence[Result]) -> list[list[dict[str, str]]]:
    """Return by how much maps are better than edges and than chance, and edges than chance, a row a model and rule."""
    return [
        [
            {"model": result.model_name, "better in": rule}
            | {
                name: Interval(*advantage).points()
                for name, advantage in zip(SCHEMA.labels["contrast"], advantages_of_rule, strict=True)
            }
            for result in results
            for rule, advantages_of_rule in zip(RULES, result["advantage/accuracy"], strict=True)
        ]
    ]


ANALYSIS = Analysis(SCHEMA, PixelSettings, rows, summarize, table_row, prepare=prepare, axes=axes, compare=compare)
