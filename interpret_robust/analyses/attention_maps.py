"""Does attention stay in place under attack? (Figure 3: clean and adversarial attention maps)

How far attention moves is the total variation distance between an image's clean and its adversarial map: the share
of attention that is elsewhere, 0 for the same map and 1 for maps without a common position. What it means shows
beside the distance between the maps of different images, and beside the mean map, the part of attention that is
a matter of position. For models without attention Grad-CAM, for the class predicted of each image, stands in its
place.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.special import entr

from interpret_robust.analyses.engine.analysis import Analysis
from interpret_robust.analyses.engine.selection import Selection
from interpret_robust.analyses.engine.settings import AttackSettings, WeightSettings
from interpret_robust.analyses.engine.work import Work
from interpret_robust.attacks.adversarial import split_outcomes
from interpret_robust.attribution.gradients import compute_position_weights
from interpret_robust.attribution.regions import average_maps
from interpret_robust.core.arrays import AnyArray
from interpret_robust.core.bootstrap import bootstrap_mean
from interpret_robust.core.intervals import UNKNOWN, Interval
from interpret_robust.core.parsing import format_number
from interpret_robust.datasets import Split
from interpret_robust.datasets.batches import Batch, to_numpy
from interpret_robust.models import Classifier
from interpret_robust.models.classifier import predict_classes
from interpret_robust.results.columns import Columns
from interpret_robust.results.hdf5 import Result
from interpret_robust.results.schema import Column, Schema, describe_plot, interval

_POSITION, _EXAMPLE = ("position",), ("example",)
_SCORE = "for `--select extremes` the steadiest attention is best, by minus this distance"
SCHEMA = Schema(
    name="attention-maps",
    version=2,
    per_image=(
        Column("per_image/label", "i2", "true class"),
        Column("per_image/prediction_clean", "i2", "predicted class of the clean image"),
        Column("per_image/prediction_adversarial", "i2", "predicted class of the adversarial image"),
        Column("per_image/attention", "f4", "weight on the clean image, positions row-major; NaN if none", _POSITION),
        Column("per_image/attention_adversarial", "f4", "weight on the adversarial image; NaN if none", _POSITION),
        Column("per_image/adversarial", "u1", "the adversarial image, rounded to be shown", ("y", "x", "color")),
        Column(
            "per_image/distance",
            "f4",
            f"half the L1 distance between clean and adversarial attention, in [0, 1]; {_SCORE}",
        ),
        Column("per_image/entropy", "f4", "entropy of clean attention, nats"),
        Column("per_image/entropy_adversarial", "f4", "entropy of adversarial attention, nats"),
    ),
    summary=(
        interval("distance/all", "mean distance between clean and adversarial attention, bootstrap 95 % interval"),
        interval("distance/attack_failed", "mean distance, of images classified rightly before and after the attack"),
        interval("distance/attack_succeeded", "mean distance, of images that the attack turns from right to wrong"),
        interval(
            "distance/other_image",
            "mean distance between the clean attention of an image and of the next, in class order of another class",
        ),
        Column(
            "count/attack_failed",
            "i8",
            "number of images with both maps, classified rightly before and after the attack",
        ),
        Column(
            "count/attack_succeeded", "i8", "number of images with both maps that the attack turns from right to wrong"
        ),
        Column("count/undefined", "i8", "images without a distance: no clean or no adversarial map"),
        Column("mean_map/clean", "f8", "clean attention, mean over images", _POSITION),
        Column("mean_map/adversarial", "f8", "adversarial attention, mean over images", _POSITION),
        interval("entropy/clean", "mean entropy of clean attention, nats"),
        interval("entropy/adversarial", "mean entropy of adversarial attention, nats"),
        Column("examples/index", "i4", "index of each example, chosen by the rule in the settings", _EXAMPLE),
        Column("examples/label", "i2", "true class of the examples", _EXAMPLE),
        Column("examples/prediction_clean", "i2", "predicted class of the clean examples", _EXAMPLE),
        Column("examples/prediction_adversarial", "i2", "predicted class of the adversarial examples", _EXAMPLE),
        Column("examples/image", "u1", "the example images", (*_EXAMPLE, "y", "x", "color")),
        Column(
            "examples/adversarial", "u1", "adversarial images of the examples, rounded", (*_EXAMPLE, "y", "x", "color")
        ),
        Column("examples/attention", "f4", "clean attention of the examples", (*_EXAMPLE, "position")),
        Column(
            "examples/attention_adversarial", "f4", "adversarial attention of the examples", (*_EXAMPLE, "position")
        ),
        Column("examples/distance", "f4", "distance between clean and adversarial attention of the examples", _EXAMPLE),
    ),
    groups={"mean_map": describe_plot("clean", "position", "Mean attention map")},
)


@dataclass(frozen=True)
class MapsSettings(WeightSettings, AttackSettings, Selection):
    """The attack, whose weights are shown, and of which images."""


def prepare(work: Work) -> MapsSettings:
    """Return the settings, when the images they name are there."""
    settings: MapsSettings = work.settings
    settings.check(len(work.split))
    return settings


def rows(model: Classifier, batch: Batch, settings: MapsSettings) -> dict[str, AnyArray]:
    """Return clean and adversarial attention of one batch, and the distance between them."""
    assert settings.spatial_weight != "auto"
    adversarial = settings(model, batch.images, batch.labels, batch.indices)
    predictions, weights = [], []
    for images in (batch.images, adversarial):
        with torch.no_grad():
            features = model.features(images)
            predictions.append(to_numpy(predict_classes(model.classifier(features.pooled))))
        weights.append(to_numpy(compute_position_weights(model, images, settings.spatial_weight, features)))
    clean, adversarial_weights = weights
    columns = {
        "label": to_numpy(batch.labels),
        "prediction_clean": predictions[0],
        "prediction_adversarial": predictions[1],
        "attention": clean,
        "attention_adversarial": adversarial_weights,
        "adversarial": to_numpy((255 * adversarial).round().permute(0, 2, 3, 1)),
        "distance": total_variation_distance(clean, adversarial_weights),
        "entropy": entr(clean).sum(1),
        "entropy_adversarial": entr(adversarial_weights).sum(1),
    }
    return {f"per_image/{name}": values for name, values in columns.items()}


def total_variation_distance(first: AnyArray, second: AnyArray) -> AnyArray:
    """Return half the L1 distance between distributions (N, P), (N,).

    The largest difference of any set of positions.
    """
    distance: AnyArray = np.abs(first - second).sum(1) / 2
    return distance


def _distance_between_images(attention: AnyArray) -> Interval:
    """Return how far the attention (N, P) of each image lies from that of the next one; unknown for a single image.

    Where a split is in the order of its classes, as a folder is, the next one is of another class.
    """
    if len(attention) < 2:
        return UNKNOWN
    return bootstrap_mean(total_variation_distance(attention, np.roll(attention, -1, axis=0)))


def summarize(columns: Columns, images: Split) -> dict[str, Any]:
    """Return how far attention moves, with and without success of the attack, and the mean maps."""
    clean, adversarial_weights = columns["per_image/attention"], columns["per_image/attention_adversarial"]
    return {
        **_distances(columns),
        "distance/other_image": _distance_between_images(clean[images.drawing_order]),
        "mean_map/clean": average_maps(clean),
        "mean_map/adversarial": average_maps(adversarial_weights),
        "entropy/clean": bootstrap_mean(columns["per_image/entropy"]),
        "entropy/adversarial": bootstrap_mean(columns["per_image/entropy_adversarial"]),
    }


def _distances(columns: Columns) -> dict[str, Any]:
    """Return mean distance of all images, and by outcome of those that are right without the attack."""
    distance = columns["per_image/distance"]
    valid = np.isfinite(distance)
    label, clean, adversarial = (
        columns[f"per_image/{name}"] for name in ("label", "prediction_clean", "prediction_adversarial")
    )
    summary = {"distance/all": bootstrap_mean(distance), "count/undefined": int((~valid).sum())}
    for outcome, images in split_outcomes(label, clean, adversarial).items():
        selection = images & valid
        summary[f"distance/{outcome}"] = bootstrap_mean(distance[selection])
        summary[f"count/{outcome}"] = int(selection.sum())
    return summary


def examples(columns: Columns, images: Split, settings: MapsSettings) -> dict[str, AnyArray]:
    """Return the images that the rule chooses, with their maps. No other map is read."""
    index = settings.indices(images.labels, -columns["per_image/distance"])
    names = (
        *("label", "prediction_clean", "prediction_adversarial", "adversarial"),
        *("attention", "attention_adversarial", "distance"),
    )
    shown_columns = {name: columns.rows_at(f"per_image/{name}", index) for name in names}
    shown_columns |= {"index": index, "image": images.images[index]}
    return {f"examples/{name}": values for name, values in shown_columns.items()}


def table_row(result: Result) -> dict[str, str]:
    """Return the share of attention that the attack moves, beside the share that differs from image to image."""
    shares = {
        "attention moved": "all",
        "attack failed": "attack_failed",
        "attack succeeded": "attack_succeeded",
        "between images": "other_image",
    }
    clean, adversarial = (format_number(result[f"entropy/{name}"][0], ".2f") for name in ("clean", "adversarial"))
    return {
        **{heading: Interval(*result[f"distance/{name}"]).percent() for heading, name in shares.items()},
        "entropy, nats": f"{clean}, adversarial {adversarial}",
        "images": str(result.count),
    }


ANALYSIS = Analysis(SCHEMA, MapsSettings, rows, summarize, table_row, prepare=prepare, examples=examples)
