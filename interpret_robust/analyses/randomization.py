"""Do the maps show what was learned? (scores while the network is re-initialized, layer by layer)

Cascading randomization (Adebayo et al. 2018, https://arxiv.org/abs/1810.03292): the classifier gets random weights,
then the head too, and so on down to the first layer. Beside it stand independent random networks. A score that a
random network reaches as well was not learned: it comes from the architecture and from the image.

An interval over images says nothing of another random network. What a random network gives is therefore the 95 %
prediction interval of its mean, from the means of the independent ones (Student's t). A score is one *of training*
where the trained network's interval over images lies outside, and *falls* where the last stage's overlaps; the gate
asks for both. It is no ranking of maps: uninformative ones can pass (Binder et al. 2022,
https://arxiv.org/abs/2211.12486). Similarity to the trained network's own map is 1 at the start by construction.
"""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import scipy
import torch
import torch.nn.functional as F
from torch import Tensor

from interpret_robust.analyses.engine.analysis import Analysis
from interpret_robust.analyses.engine.settings import WeightSettings
from interpret_robust.analyses.engine.work import Work
from interpret_robust.attribution.gradients import compute_position_weights
from interpret_robust.attribution.regions import find_object_positions, measure_share_inside
from interpret_robust.attribution.scale_rules import as_image
from interpret_robust.core.arrays import AnyArray
from interpret_robust.core.bootstrap import finite_column_means
from interpret_robust.core.intervals import CONFIDENCE
from interpret_robust.core.parsing import format_number
from interpret_robust.core.rank_statistics import rank_rows
from interpret_robust.datasets import Split
from interpret_robust.datasets.batches import Batch, to_numpy
from interpret_robust.models import Classifier
from interpret_robust.models.classifier import predict_classes
from interpret_robust.models.folding import fold
from interpret_robust.models.losses import loss_gradient
from interpret_robust.models.reinitialize import CALIBRATION_IMAGES, list_stages, randomize, randomize_network
from interpret_robust.results.columns import Axes, Columns
from interpret_robust.results.hdf5 import Result
from interpret_robust.results.schema import Column, Schema, describe_plot, interval

RANDOM_NETWORKS = 6
"""Independent random networks; with fewer the prediction interval of another one grows fast."""

WINDOW = 7
"""Side of the square over which structural similarity is found, in pixels."""

# Of each score, what its column holds.
SCORES = {
    "gradient magnitude": ("magnitude", "Spearman over pixels of |g|, L2 over colors, with the trained network's"),
    "signed gradient": ("gradient", "Spearman over pixels and colors of g with the trained network's"),
    "structural similarity": ("ssim", "structural similarity of |g| to the trained network's, each over its maximum"),
    "gradient-map score": ("read", "1 where the first evaluator reads the true class from -g by the clip rule"),
    "gradient on object": ("gradient_on_object", "share of |g| on the object; NaN without mask"),
    "weights": ("weights", "Spearman over positions of attention or Grad-CAM with the trained network's"),
    "weights on object": ("weights_on_object", "share of attention or Grad-CAM on the object; NaN without mask"),
}

SCHEMA = Schema(
    name="randomization",
    version=2,
    per_image=(
        Column("per_image/label", "i2", "true class"),
        Column("per_image/evaluator_prediction", "i2", "class that the first evaluator reads from the map", ("stage",)),
        *(Column(f"per_image/{path}", "f4", meaning, ("stage",)) for path, meaning in SCORES.values()),
        Column("per_image/object_area", "f4", "share of pixels on the object; NaN without mask"),
        Column("per_image/object_positions", "f4", "share of positions on the object; NaN without mask"),
    ),
    summary=(
        interval("cascade/mean", "mean over images where the score is defined, bootstrap interval", "score", "stage"),
        Column("cascade/undefined", "i8", "images without the score: a map without contrast", ("score", "stage")),
        interval(
            "random/mean",
            "mean of the independent random networks, and the 95 % prediction interval of another one's mean over "
            "images (Student's t)",
            "score",
        ),
        Column("random/uninformed", "f8", "what a map without information gives; NaN where unknown", ("score",)),
        Column("gate/needed", "i1", "1 where the trained interval is outside the random one; -1 unknown", ("score",)),
        Column("gate/passed", "i1", "1 where also the last stage's overlaps it; -1 unknown", ("score",)),
        Column("gate/from_stage", "i4", "the stage from which on all overlap it; -1 for none", ("score",)),
    ),
    groups={
        "cascade": describe_plot("mean", "score:stage:of", "Scores as the network is re-initialized from the head down")
    },
    labels={"score": tuple(SCORES)},
)


@dataclass(frozen=True)
class RandomizationSettings(WeightSettings):
    """The seed of random weights, and the weights in attention's place."""

    seed: int = field(
        default=0,
        metadata={"help": "Seed of the re-initialization and of the random networks: each has its own."},
    )


class Cascade(NamedTuple):
    """The networks of every stage, the trained one first; who reads their maps; whose weights are looked at."""

    networks: list[Classifier]
    evaluator: Classifier
    weights: str
    grid: tuple[int, int]


def axes(work: Work) -> Axes:
    """Return the trained network, each stage by the part that went last, and the independent random networks."""
    parts = (name for name, _ in list_stages(work.network))
    return {"stage": ("trained", *parts, *(f"random {number}" for number in range(1, RANDOM_NETWORKS + 1)))}


def prepare(work: Work) -> Cascade:
    """Return every network of the cascade, calibrated on training images."""
    images = work.reference_images(CALIBRATION_IMAGES)
    original, (of_cascade, *of_random) = work.network, choose_seeds(work.settings.seed)
    work.doubt_random_networks(images)
    networks = [
        original,
        *(randomize(original, depth, images, of_cascade) for depth in range(1, len(list_stages(original)) + 1)),
        *(randomize_network(original, images, seed) for seed in of_random),
    ]
    evaluator = next(iter(work.evaluators.values()))
    height, width = work.config["local_grid"]
    return Cascade([fold(network) for network in networks], evaluator, work.settings.spatial_weight, (height, width))


def choose_seeds(seed: int) -> range:
    """Return the seed of the cascade, then those of the independent random networks.

    No two seeds below 2^60 have one in common. Larger ones begin again at zero, since generators take no larger seeds.

    Example:
        >>> choose_seeds(1)
        range(7, 14)
    """
    count = RANDOM_NETWORKS + 1
    first = count * seed % 2**63
    return range(first, first + count)


def rows(_: Classifier, batch: Batch, cascade: Cascade) -> dict[str, AnyArray]:
    """Return the scores of every network on one batch."""
    original, *random_networks = cascade.networks
    place = _object(batch, cascade.grid)
    first = _look(original, batch, cascade)
    score_rows = [_scores(first, first, place)]
    score_rows += [_scores(_look(network, batch, cascade), first, place) for network in random_networks]
    columns = {name: np.stack([scores[name] for scores in score_rows], 1) for name in score_rows[0]}
    columns["label"] = to_numpy(batch.labels)
    columns["read"] = columns["evaluator_prediction"] == columns["label"][:, None]
    columns |= {"object_area": place.pixels.mean(1), "object_positions": place.positions.mean(1)}
    return {f"per_image/{name}": values for name, values in columns.items()}


class Look(NamedTuple):
    """What one network shows of N images: |g| (N, y, x), weights (N, P), the class read from its map (N,).

    `ranks` are those of |g|, of g and of the weights, so scaled that a sum of products is Spearman's correlation.
    """

    magnitude: Tensor
    weights: AnyArray
    evaluator_prediction: AnyArray
    ranks: dict[str, AnyArray]


def _look(network: Classifier, batch: Batch, cascade: Cascade) -> Look:
    gradient = loss_gradient(network, batch.images, batch.labels)
    magnitude: Tensor = torch.linalg.vector_norm(gradient, dim=1)
    weights = to_numpy(compute_position_weights(network, batch.images, cascade.weights))
    with torch.no_grad():
        answers = to_numpy(predict_classes(cascade.evaluator(as_image(-gradient, "clip", 0.0))))
    flat = {"magnitude": to_numpy(magnitude.flatten(1)), "gradient": to_numpy(gradient.flatten(1)), "weights": weights}
    return Look(magnitude, weights, answers, {name: normalize_ranks(values) for name, values in flat.items()})


class Place(NamedTuple):
    """Where the objects of N images are: 1 or 0 at pixels (N, y*x) and at positions (N, P); NaN without masks."""

    pixels: AnyArray
    positions: AnyArray


def _object(batch: Batch, grid: tuple[int, int]) -> Place:
    if batch.masks is None:
        return Place(*(np.full((len(batch.images), 1), np.nan) for _ in range(2)))
    return Place(
        batch.masks.reshape(len(batch.masks), -1).astype(np.float64),
        find_object_positions(batch.masks, grid).astype(np.float64),
    )


def _scores(look: Look, original: Look, place: Place) -> dict[str, AnyArray]:
    scores = {name: (ranks * original.ranks[name]).sum(1) for name, ranks in look.ranks.items()}
    return scores | {
        "ssim": to_numpy(structural_similarity(look.magnitude, original.magnitude)),
        "evaluator_prediction": look.evaluator_prediction,
        "gradient_on_object": measure_share_inside(to_numpy(look.magnitude.flatten(1)), place.pixels),
        "weights_on_object": measure_share_inside(look.weights, place.positions),
    }


def normalize_ranks(rows: AnyArray) -> AnyArray:
    """Return mean ranks of each row (N, K), about zero and of length one; NaN for a row that is constant or has NaN."""
    ranks = rank_rows(rows)
    ranks -= ranks.mean(1, keepdims=True)
    length = np.linalg.norm(ranks, axis=1, keepdims=True)
    standardized_ranks: AnyArray = np.divide(ranks, length, out=np.full_like(ranks, np.nan), where=length > 0)
    return standardized_ranks


def structural_similarity(first: Tensor, second: Tensor) -> Tensor:
    """Return mean structural similarity (N,) of maps (N, y, x), each divided by its maximum; NaN for a map of zeros.

    Wang et al. 2004, Eq. 13, over all whole squares of WINDOW pixels, uniformly weighted, for the range [0, 1].
    """

    def mean(maps: Tensor) -> Tensor:
        return F.avg_pool2d(maps[:, None], WINDOW, 1)[:, 0]

    a, b = (maps / maps.amax((1, 2), keepdim=True) for maps in (first, second))
    mean_a, mean_b = mean(a), mean(b)
    variances = mean(a * a) - mean_a**2 + mean(b * b) - mean_b**2
    covariance = mean(a * b) - mean_a * mean_b
    brightness = (2 * mean_a * mean_b + 0.01**2) / (mean_a**2 + mean_b**2 + 0.01**2)
    structure = (2 * covariance + 0.03**2) / (variances + 0.03**2)
    return (brightness * structure).mean((1, 2))


def summarize(columns: Columns, _: Split) -> dict[str, Any]:
    """Return means of every score at every stage, and the gate."""
    paths = [f"per_image/{path}" for path, _ in SCORES.values()]
    mean = np.stack([finite_column_means(columns[path]) for path in paths])
    random = predict_another_mean(mean[:, -RANDOM_NETWORKS:, 0])
    _, low, high = np.moveaxis(mean[:, :-RANDOM_NETWORKS], 2, 0)
    is_inside = (high >= random[:, 1:2]) & (low <= random[:, 2:])
    unknown = np.isnan(low).any(1) | np.isnan(random).any(1)
    return {
        "cascade/mean": mean,
        "cascade/undefined": [np.isnan(columns[path]).sum(0) for path in paths],
        "random/mean": random,
        "random/uninformed": _chance_levels(columns),
        "gate/needed": np.where(unknown, -1, ~is_inside[:, 0]),
        "gate/passed": np.where(unknown, -1, ~is_inside[:, 0] & is_inside[:, -1]),
        "gate/from_stage": [_interval_from(row) for row in is_inside],
    }


def predict_another_mean(means: AnyArray) -> AnyArray:
    """Return the mean of `means` (K, networks) and the 95 % prediction interval of another network's: (K, 3).

    Normal means: m +- t s sqrt(1 + 1/n), with Student's t of n - 1 degrees of freedom.
    """
    count = means.shape[1]
    middle = means.mean(1)
    reach = scipy.special.stdtrit(count - 1, (1 + CONFIDENCE) / 2) * means.std(1, ddof=1) * np.sqrt(1 + 1 / count)
    return np.stack([middle, middle - reach, middle + reach], 1)


def _interval_from(is_inside: AnyArray) -> int:
    """Return the stage from which on all are inside (stage,), -1 where the last is not."""
    departures = np.flatnonzero(~is_inside)
    first = int(departures[-1]) + 1 if len(departures) else 0
    return first if first < len(is_inside) else -1


def _chance_levels(columns: Columns) -> list[float]:
    baselines = {
        "magnitude": 0.0,
        "gradient": 0.0,
        "weights": 0.0,
        "gradient_on_object": columns["per_image/object_area"].mean(),
        "weights_on_object": columns["per_image/object_positions"].mean(),
    }
    return [baselines.get(path, np.nan) for path, _ in SCORES.values()]


def table_row(result: Result) -> dict[str, str]:
    """Return each score of the trained network and of a random one, and from which stage on it is a random
    network's.
    """
    names = [str(name) for name in result["stage"]]
    row = {}
    for number, score in enumerate(SCORES):
        is_needed, is_passed = result["gate/needed"][number], result["gate/passed"][number]
        if is_needed < 0:
            continue
        scores = result["cascade/mean"][number, 0, 0], result["random/mean"][number, 0]
        verdict = (
            "no different"
            if not is_needed
            else names[result["gate/from_stage"][number]]
            if is_passed
            else "does not fall"
        )
        row[score] = f"{' to '.join(format_number(value, '.2f') for value in scores)}, {verdict}"
    return row | {"images": str(result.count)}


ANALYSIS = Analysis(
    SCHEMA,
    RandomizationSettings,
    rows,
    summarize,
    table_row,
    prepare=prepare,
    axes=axes,
    readers="evaluators",
    most_readers=1,
)
