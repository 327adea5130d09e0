"""Which local features does a decision rest on? (accuracy against the number of local features removed)

Local features are taken away position by position, and the rest goes through the head and the classifier. What is
removed is replaced by the mean local feature of training images, or by zero; no pixel changes. The order is the
question: the most attended positions first, the most robust first (those whose local feature moves least, L2, under
attack), each also from the other end (unattended, fragile), by the mean attention map of training images (prior),
or at random. Orders come from the clean image and its adversarial one; accuracy is that of the local features of
either.

That attention and robustness correlate does not show that a model prioritizes robust features; this does. Of a
model that does so, removing robust positions costs more accuracy than removing as many at random, removing fragile
ones costs less, and under attack is even a gain, and attention points to what the decision rests on: removing
attended positions costs more than at random, and more than by the prior, which knows nothing of the image.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from interpret_robust.analyses.engine.analysis import Analysis
from interpret_robust.analyses.engine.settings import AttackSettings, WeightSettings
from interpret_robust.analyses.engine.work import Work
from interpret_robust.attribution.gradients import compute_position_weights
from interpret_robust.core.arrays import AnyArray
from interpret_robust.core.bootstrap import column_means
from interpret_robust.core.curves import area_under
from interpret_robust.core.intervals import Interval, rates
from interpret_robust.core.random_numbers import make_streams
from interpret_robust.datasets import Dataset, Split
from interpret_robust.datasets.batches import Batch, list_batch_places, read_batches, to_numpy
from interpret_robust.models import Classifier
from interpret_robust.models.classifier import Features, measure_positions, predict_classes
from interpret_robust.results.columns import Axes, Columns
from interpret_robust.results.hdf5 import Result
from interpret_robust.results.schema import Column, Schema, describe_plot, interval

CONDITIONS = ("clean", "adversarial")
ORDERS = ("attended", "unattended", "robust", "fragile", "prior", "random")
CONTRASTS = (
    ("attended", "random"),
    ("robust", "random"),
    ("fragile", "random"),
    ("attended", "robust"),
    ("attended", "prior"),
)
"""Pairs of orders: what removal in the first costs beyond removal in the second."""

STEPS = 16
"""Between nothing removed and everything."""

TIES = 1
"""The purpose of the random numbers that order positions, apart from those of the attack."""

REFERENCE_IMAGES = 1000
"""Training images that give the mean local feature and the mean attention map."""

_CURVE = ("condition", "order", "removed")
SCHEMA = Schema(
    name="feature-deletion",
    version=1,
    per_image=(
        Column("per_image/label", "i2", "true class"),
        Column("per_image/prediction_clean", "i2", "predicted class of the clean image, nothing removed"),
        Column("per_image/prediction_adversarial", "i2", "predicted class of the adversarial image, nothing removed"),
        Column("per_image/weights", "f4", "attention or Grad-CAM on the clean image; NaN for none", ("position",)),
        Column("per_image/distance", "f4", "L2 over channels, clean to adversarial local feature", ("position",)),
        Column(
            "per_image/correct", "u1", "1 where the image without the removed positions is classified rightly", _CURVE
        ),
    ),
    summary=(
        Column("curve/accuracy", "f8", "accuracy with so many positions removed", _CURVE),
        Column("curve/low", "f8", "lower end of the Wilson 95 % interval of accuracy", _CURVE),
        Column("curve/high", "f8", "upper end of the Wilson 95 % interval of accuracy", _CURVE),
        interval("area/under", "area under a curve over the share removed, bootstrap interval", "condition", "order"),
        interval(
            "area/between",
            "what the first order costs beyond the second: area under the second minus area under the first, "
            "paired bootstrap interval over images",
            *("condition", "contrast"),
        ),
        Column("count/without_weights", "i8", "images whose Grad-CAM is zero everywhere: attention orders are random"),
    ),
    groups={
        "curve": describe_plot(
            "accuracy", "condition:order:removed", "Accuracy against the number of local features removed"
        )
    },
    labels={
        "condition": CONDITIONS,
        "order": ORDERS,
        "contrast": tuple(f"{first} against {second}" for first, second in CONTRASTS),
    },
)


@dataclass(frozen=True)
class DeletionSettings(WeightSettings, AttackSettings):
    """The attack, the weights in attention's place, and what removed features are replaced by."""

    fill: Literal["mean", "zero"] = field(
        default="mean", metadata={"help": "Replacement of removed features: the mean of training images, or zero."}
    )


class Reference(NamedTuple):
    """The settings, what a removed feature becomes (C,), and the mean weights of training images (H*W,)."""

    settings: DeletionSettings
    fill: Tensor
    prior: AnyArray


def prepare(work: Work) -> Reference:
    """Return means over the reference images."""
    means, weights = [], []
    noun = "training image" if work.dataset.is_for_training else "test image"
    for batch in read_reference(work.dataset, work.batch_size, work.device):
        with torch.no_grad():
            features = work.model.features(batch.images)
        means.append(average_positions(features))
        with work.name_images(batch, noun):
            weights.append(compute_position_weights(work.model, batch.images, work.settings.spatial_weight, features))
    fill = average_features(means)
    if work.settings.fill == "zero":
        fill = torch.zeros_like(fill)
    return Reference(work.settings, fill, np.nan_to_num(to_numpy(torch.cat(weights))).mean(0))


def read_reference(dataset: Dataset, batch_size: int, device: torch.device) -> Iterator[Batch]:
    """Return the images, in batches, whose mean feature stands for a removed one, see `Dataset.reference`."""
    train = dataset.reference.draw(REFERENCE_IMAGES)
    return read_batches(train, list_batch_places(train, batch_size), device)


def average_positions(features: Features) -> Tensor:
    """Return the mean (N, C) of local features over their positions."""
    return features.local.mean((2, 3))


def average_features(features: Sequence[Tensor]) -> Tensor:
    """Return the mean (C,) of the features (N, C) of several batches."""
    return torch.cat([*features]).double().mean(0).float()


def axes(work: Work) -> Axes:
    """Return the numbers of removed positions."""
    height, width = work.config["local_grid"]
    return {"removed": choose_counts(height * width)}


def choose_counts(positions: int) -> tuple[int, ...]:
    """Return about STEPS + 1 evenly spaced numbers from 0 to `positions`, both included."""
    return tuple(np.unique(np.linspace(0, positions, STEPS + 1).round().astype(int)).tolist())


def rows(model: Classifier, batch: Batch, reference: Reference) -> dict[str, AnyArray]:
    """Return outcomes of one batch, whole and with features removed."""
    settings = reference.settings
    assert settings.spatial_weight != "auto"
    adversarial = settings(model, batch.images, batch.labels, batch.indices)
    with torch.no_grad():
        clean, adversarial_features = model.features(batch.images), model.features(adversarial)
        weights = to_numpy(compute_position_weights(model, batch.images, settings.spatial_weight, clean))
        distance = to_numpy(measure_positions(clean.local - adversarial_features.local))
        ranks = torch.from_numpy(rank_positions(weights, distance, reference.prior, settings.seed, batch.indices))
        answers = [
            predict_without(model, images, features.local, ranks.to(features.local.device), reference.fill)
            for images, features in ((batch.images, clean), (adversarial, adversarial_features))
        ]
        columns = {
            "label": to_numpy(batch.labels),
            "prediction_clean": to_numpy(predict_classes(model.classifier(clean.pooled))),
            "prediction_adversarial": to_numpy(predict_classes(model.classifier(adversarial_features.pooled))),
            "weights": weights,
            "distance": distance,
            "correct": to_numpy(torch.stack(answers, 1) == batch.labels[:, None, None, None]),
        }
    return {f"per_image/{name}": values for name, values in columns.items()}


def rank_positions(
    weights: AnyArray, distance: AnyArray, prior: AnyArray, seed: int, indices: Sequence[int]
) -> AnyArray:
    """Return how many positions go before each one, in each of ORDERS: (order, N, P) from weights and distance (N, P).

    Positions that are equal in what orders them go in the random order of their image, which depends on the seed
    and the image's index alone.
    """
    chance = np.stack([stream.random(weights.shape[1]) for stream in make_streams(seed, indices, TIES)])
    first = {
        "attended": np.nan_to_num(weights),
        "unattended": -np.nan_to_num(weights),
        "robust": -distance,
        "fragile": distance,
        "prior": np.broadcast_to(prior, weights.shape),
        "random": np.zeros(weights.shape),
    }
    order = np.stack([np.lexsort((chance, -first[name])) for name in ORDERS])
    return np.argsort(order, axis=2)


def predict_without(model: Classifier, images: Tensor, local: Tensor, ranks: Tensor, fill: Tensor) -> Tensor:
    """Return the model's answers (N, order, removed) with the first positions of `ranks` (order, N, P) removed.

    A removed position of the images' local features (N, C, H, W) holds `fill` (C,) instead.
    """

    def answer(rank: Tensor, removed_count: int) -> Tensor:
        return predict_classes(compute_logits_without(model, images, local, rank < removed_count, fill))

    steps = choose_counts(local.shape[2] * local.shape[3])
    return torch.stack([torch.stack([answer(rank, removed_count) for removed_count in steps], 1) for rank in ranks], 1)


def compute_logits_without(model: Classifier, images: Tensor, local: Tensor, mask: Tensor, fill: Tensor) -> Tensor:
    """Return the model's logits (N, classes) with `fill` (C,) in place of the local features (N, C, H, W) at the
    positions in `mask` (N, H*W).
    """
    places = mask.reshape(len(local), 1, *local.shape[2:])
    return model.rest(images, torch.where(places, fill[:, None, None], local))


def summarize(columns: Columns, _: Split) -> dict[str, Any]:
    """Return curves, areas under them and areas between them."""
    correct = columns["per_image/correct"]
    weights = columns["per_image/weights"]
    area = area_under(correct, choose_counts(weights.shape[1]))
    place = {name: number for number, name in enumerate(ORDERS)}
    contrasts = np.stack([area[:, :, place[second]] - area[:, :, place[first]] for first, second in CONTRASTS], 2)
    curve = np.moveaxis(rates(correct), -1, 0)
    return {
        "curve/accuracy": curve[0],
        "curve/low": curve[1],
        "curve/high": curve[2],
        "area/under": column_means(area),
        "area/between": column_means(contrasts),
        "count/without_weights": np.isnan(weights).any(1).sum(),
    }


def table_row(result: Result) -> dict[str, str]:
    """Return what removal in one order costs beyond another, of clean local features."""
    return _costs(result, "clean")


def compare(results: Sequence[Result]) -> list[list[dict[str, str]]]:
    """Return what removal in one order costs beyond another, of adversarial local features, a row a model."""
    return [[{"model": result.model_name, **_costs(result, "adversarial")} for result in results]]


def _costs(result: Result, condition: str) -> dict[str, str]:
    contrasts = result["area/between"][CONDITIONS.index(condition)]
    costs = dict(zip(SCHEMA.labels["contrast"], contrasts, strict=True))
    return {"features": condition} | {name: Interval(*cost).points() for name, cost in costs.items()}


ANALYSIS = Analysis(SCHEMA, DeletionSettings, rows, summarize, table_row, prepare=prepare, axes=axes, compare=compare)
