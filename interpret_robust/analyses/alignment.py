"""Do gradients look like the image, and is the model more robust on images where they do? (Etmann et al. 2019)

Alignment is the cosine between an image and its gradient, Etmann's alpha (https://arxiv.org/abs/1905.04172), and
the cosine between the image's edges and the gradient's magnitude, each beside the same number for the gradient and
another image. Smoothness, sparsity and frequency of the gradient confound every claim that a map looks aligned, and
are given with it. A model that does not change when its image is scaled has <x, gradient> = 0 by Euler's theorem:
what would be zero by construction is NaN here, and said. Maps of another source than `gradient` keep their cosine.

Gradients are with respect to pixels in [0, 1]; `gradient` without more is that of the true label's cross-entropy.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from scipy import fft
from torch import Tensor, nn

from interpret_robust.analyses.engine.analysis import Analysis
from interpret_robust.analyses.engine.comparison import compare_means
from interpret_robust.analyses.engine.settings import SourceSettings
from interpret_robust.analyses.engine.work import Work
from interpret_robust.attribution.controls import magnitude, sobel
from interpret_robust.attribution.gradients import compute_map
from interpret_robust.core.arrays import AnyArray
from interpret_robust.core.bootstrap import bootstrap_mean
from interpret_robust.core.errors import UserError
from interpret_robust.core.intervals import Interval
from interpret_robust.core.rank_statistics import bootstrap_spearman
from interpret_robust.datasets import Split
from interpret_robust.datasets.batches import Batch, to_numpy, to_pixels
from interpret_robust.models import Classifier
from interpret_robust.models.losses import input_gradient
from interpret_robust.results.columns import Columns
from interpret_robust.results.hdf5 import Result
from interpret_robust.results.invariance import ZERO_UNDER, is_zero, list_zeros
from interpret_robust.results.schema import Column, Schema, describe_plot, interval

SCALES, SHIFTS = (0.5, 0.9), (-0.1, 0.1)
"""By what images are multiplied, and what is added to their pixels, to see whether the model notices."""

TOLERANCE = 1e-3
"""A model is invariant where its logits change by less than this share of their spread, at every image."""

HALF_NYQUIST = 0.25
"""Cycles per pixel."""

TENTHS = 10

SCORES = {
    "cosine": "<x - mean(x), -g> / (|x - mean(x)| |g|), g the gradient: positive where the step that lowers the loss "
    "shows the image",
    "alpha": "|<x, f'>| / |f'|, f' the gradient of the winning logit, in pixels (Etmann's alignment)",
    "edge_cosine": "cosine of |g| (L2 over colors) and the image's Sobel magnitude",
}
SMOOTHNESS = {
    "total_variation": "sum of |differences| between neighbors of the gradient over the sum of its |entries|",
    "gini": "Gini index of the gradient's |entries|: 0 all equal, 1 all in one",
    "high_frequency": "share of the gradient's energy above half of the Nyquist frequency (radial)",
}

SCHEMA = Schema(
    name="alignment",
    version=2,
    per_image=(
        Column("per_image/label", "i2", "true class"),
        Column("per_image/prediction", "i2", "predicted class"),
        Column("per_image/partner", "i4", "index of the other image of the shuffled pair"),
        *(Column(f"per_image/{name}", "f4", doc) for name, doc in SCORES.items()),
        *(Column(f"per_image/{name}_shuffled", "f4", f"{name} with the partner in place of x") for name in SCORES),
        Column(
            "per_image/linearized_robustness", "f4", "min over classes j of (f_y - f_j) / |f_y' - f_j'|, y predicted"
        ),
        *(Column(f"per_image/{name}", "f4", doc) for name, doc in SMOOTHNESS.items()),
        Column("per_image/degenerate", "u1", "1 where the gradient is zero everywhere: what rests on it is NaN"),
        Column(
            "per_image/scale_change",
            "f4",
            "largest change of the logits over their spread, where the image is multiplied by 0.5 and 0.9",
        ),
        Column(
            "per_image/shift_change",
            "f4",
            "largest change of the logits over their spread, where 0.1 is taken from and added to every pixel",
        ),
    ),
    summary=(
        *(
            interval(f"{name}/own", f"mean of per_image/{name}; NaN where it is zero by construction")
            for name in SCORES
        ),
        *(interval(f"{name}/shuffled", f"mean of per_image/{name}_shuffled") for name in SCORES),
        *(interval(f"{name}/difference", f"{name} minus {name}_shuffled, paired by gradient, mean") for name in SCORES),
        interval("robustness/linearized", "mean of per_image/linearized_robustness, in L2 over pixels"),
        interval("robustness/spearman_alpha", "Spearman of linearized robustness and alpha over images"),
        interval("robustness/spearman_edge_cosine", "Spearman of linearized robustness and edge cosine over images"),
        *(interval(f"smoothness/{name}", f"mean of per_image/{name}") for name in SMOOTHNESS),
        *(Column(f"white_noise/{name}", "f8", f"{name} of a map of independent normal entries") for name in SMOOTHNESS),
        Column("invariant/scale", "u1", "1 where the model does not change when its image is scaled"),
        Column("invariant/shift", "u1", "1 where it does not change when a constant is added to its image"),
        Column("invariant/scale_change", "f8", "largest per_image/scale_change"),
        Column("invariant/shift_change", "f8", "largest per_image/shift_change"),
        Column("count/degenerate", "i8", "images whose gradient is zero everywhere"),
        Column(
            "curve/linearized_robustness",
            "f8",
            "mean linearized robustness of each tenth of the images, the least robust first",
            ("tenth",),
        ),
        Column(
            "curve/edge_cosine_mean",
            "f8",
            "mean edge cosine of each tenth of the images, the least robust first",
            ("tenth",),
        ),
        Column(
            "curve/edge_cosine_low", "f8", "lower end of the bootstrap 95 % interval of edge_cosine_mean", ("tenth",)
        ),
        Column(
            "curve/edge_cosine_high", "f8", "upper end of the bootstrap 95 % interval of edge_cosine_mean", ("tenth",)
        ),
    ),
    groups={"curve": describe_plot("edge_cosine_mean", "tenth", "Edge cosine against linearized robustness")},
)


@dataclass(frozen=True)
class AlignmentSettings(SourceSettings):
    """What a map is, and how images are paired with others."""

    seed: int = field(default=0, metadata={"help": "Seed of the shuffled pairs."})


@dataclass(frozen=True)
class Pairs:
    """For each image of a split (N,) the index of another one; the source of maps, and the seed of both."""

    split: Split
    partner: AnyArray
    source: str = "gradient"
    seed: int = 0

    def images(self, indices: range) -> Tensor:
        """Return the partners of the images at `indices`, as pixels in [0, 1], (M, C, H, W)."""
        partners = self.split.images[self.partner[indices.start : indices.stop]]
        return to_pixels(torch.from_numpy(partners).permute(0, 3, 1, 2))


def prepare(work: Work) -> Pairs:
    """Return the shuffled pairs of a split: each image takes the next one's place along a random circle of all."""
    count = len(work.split)
    if count < 2:
        raise UserError("alignment compares each image with another one: give it at least two.")
    circle = np.random.default_rng(work.settings.seed).permutation(count)
    partner = np.empty(count, np.int64)
    partner[circle] = np.roll(circle, 1)
    return Pairs(work.split, partner, work.settings.source, work.settings.seed)


def rows(model: Classifier, batch: Batch, pairs: Pairs) -> dict[str, AnyArray]:
    """Return every per-image number of one batch, in float64 from the gradients on."""
    with torch.no_grad():
        logits = model(batch.images)
    predicted = logits.argmax(1)
    gradient = _doubles(compute_map(pairs.source, model, batch.images, batch.labels, batch.indices, pairs.seed))
    winning = _doubles(input_gradient(lambda pixels: _pick(model(pixels), predicted), batch.images))
    columns = {
        "label": to_numpy(batch.labels),
        "prediction": to_numpy(predicted),
        "partner": pairs.partner[batch.indices.start : batch.indices.stop],
        "linearized_robustness": linearized_robustness(model, batch.images, logits),
        "total_variation": total_variation(gradient),
        "gini": gini(gradient),
        "high_frequency": high_frequency(gradient),
        "degenerate": (gradient == 0).all((1, 2, 3)),
        "scale_change": measure_largest_change(model, logits, [scale * batch.images for scale in SCALES]),
        "shift_change": measure_largest_change(model, logits, [batch.images + shift for shift in SHIFTS]),
    }
    for suffix, views in (("", batch.images), ("_shuffled", pairs.images(batch.indices))):
        pictures = _doubles(views)
        columns[f"cosine{suffix}"] = cosine(pictures - pictures.mean((1, 2, 3), keepdims=True), -gradient)
        columns[f"alpha{suffix}"] = alpha(pictures, winning)
        columns[f"edge_cosine{suffix}"] = cosine(find_edges(views), np.sqrt((gradient**2).sum(1)))
    return {f"per_image/{name}": values for name, values in columns.items()}


def cosine(first: AnyArray, second: AnyArray) -> AnyArray:
    """Return the cosine (N,) of maps (N, ...); NaN where one is zero everywhere."""
    a, b = (values.reshape(len(values), -1) for values in (first, second))
    return _ratio((a * b).sum(1), _norm(a) * _norm(b))


def alpha(images: AnyArray, gradients: AnyArray) -> AnyArray:
    """Return |<x, g>| / |g| (N,), in pixels; NaN where g is zero everywhere (Etmann et al. 2019, definition 2)."""
    return _ratio(np.abs((images * gradients).sum((1, 2, 3))), _norm(gradients))


def linearized_robustness(model: nn.Module, images: Tensor, logits: Tensor) -> AnyArray:
    """Return the distance (N,), L2 over pixels, to the nearest boundary of the model made linear at each image.

    min over j of (f_y - f_j) / |f_y' - f_j'| with y the winning logit (Etmann et al. 2019); a class whose logit has
    the same gradient is never reached. NaN where there is no other. One forward pass serves all classes.
    """
    predicted = logits.argmax(1)
    with torch.enable_grad():
        pixels = images.detach().requires_grad_()
        scores = model(pixels)
        leads = (_pick(scores, predicted)[:, None] - scores).sum(0).unbind()
    gaps = _doubles(_pick(logits, predicted)[:, None] - logits)
    distances = []
    for rival, lead in enumerate(leads):
        (slope,) = torch.autograd.grad(lead, pixels, retain_graph=rival < len(leads) - 1)
        distance = _ratio(gaps[:, rival], _norm(_doubles(slope)))
        distances.append(np.where(to_numpy(predicted) == rival, np.nan, distance))
    nearest: AnyArray = np.fmin.reduce(distances)
    return nearest


def total_variation(maps: AnyArray) -> AnyArray:
    """Return the anisotropic total variation over the L1 norm (N,), of maps (N, C, H, W)."""
    steps = sum(np.abs(np.diff(maps, axis=axis)).sum((1, 2, 3)) for axis in (2, 3))
    return _ratio(np.asarray(steps), np.abs(maps).sum((1, 2, 3)))


def gini(maps: AnyArray) -> AnyArray:
    """Return the Gini index (N,) of absolute entries: sum of (2k - n - 1) a_k over n sum a, a in ascending order."""
    entries = np.sort(np.abs(maps).reshape(len(maps), -1), axis=1)
    count = entries.shape[1]
    weights = 2 * np.arange(1, count + 1) - count - 1
    return _ratio(entries @ weights, count * entries.sum(1))


def high_frequency(maps: AnyArray) -> AnyArray:
    """Return the share (N,) of the energy of maps (N, C, H, W) above half of the Nyquist frequency, colors summed."""
    energy = np.abs(fft.fft2(maps)) ** 2
    return _ratio((energy * _is_high(*maps.shape[2:])).sum((1, 2, 3)), energy.sum((1, 2, 3)))


def white_noise(height: int, width: int) -> dict[str, float]:
    """Return the three measures for independent normal entries, in expectation.

    A difference of two entries is sqrt(2) times as large as an entry, and the Gini index of |normal| is sqrt(2) - 1.
    """
    return {
        "total_variation": float(np.sqrt(2) * (2 - 1 / height - 1 / width)),
        "gini": float(np.sqrt(2) - 1),
        "high_frequency": float(_is_high(height, width).mean()),
    }


def find_edges(images: Tensor) -> AnyArray:
    """Return the Sobel magnitude (N, H, W) of images (N, C, H, W), L2 over directions and colors."""
    return _doubles(magnitude(sobel(images)))


def measure_largest_change(model: nn.Module, logits: Tensor, transforms: list[Tensor]) -> AnyArray:
    """Return the largest L2 change of the logits (N, K) under any of `transforms`.

    It is divided by the L2 distance of the logits from their mean.
    """
    # A class may be left out by -inf.
    logits_before = _doubles(torch.where(logits.isfinite(), logits, 0))
    spread = _norm(logits_before - logits_before.mean(1, keepdims=True))
    with torch.no_grad():
        answers = [torch.where(logits.isfinite(), model(images), 0) for images in transforms]
    changes = [_norm(_doubles(answer) - logits_before) for answer in answers]
    return _ratio(np.max(changes, axis=0), spread)


def summarize(columns: Columns, images: Split, settings: AlignmentSettings) -> dict[str, Any]:
    """Return means with their intervals, what is zero by construction left out, and the curve."""
    change = {transform: columns[f"per_image/{transform}_change"] for transform in ("scale", "shift")}
    invariant = {transform: bool((values < TOLERANCE).all()) for transform, values in change.items()}
    own_scores = {name: columns[f"per_image/{name}"] for name in SCORES}
    for name in list_zeros(settings.source, invariant):
        own_scores[name] = np.full_like(own_scores[name], np.nan)
    robustness = columns["per_image/linearized_robustness"]
    summary: dict[str, Any] = {
        "robustness/linearized": bootstrap_mean(robustness),
        "robustness/spearman_alpha": bootstrap_spearman(robustness, own_scores["alpha"]),
        "robustness/spearman_edge_cosine": bootstrap_spearman(robustness, own_scores["edge_cosine"]),
        "count/degenerate": int(columns["per_image/degenerate"].sum()),
    }
    for name, values in own_scores.items():
        summary |= _compare_pairs(name, values, columns[f"per_image/{name}_shuffled"])
    for transform in ("scale", "shift"):
        summary |= {
            f"invariant/{transform}": invariant[transform],
            f"invariant/{transform}_change": change[transform].max(),
        }
    for name, expected in white_noise(*images.images.shape[1:3]).items():
        summary[f"smoothness/{name}"] = bootstrap_mean(columns[f"per_image/{name}"])
        summary[f"white_noise/{name}"] = expected
    return summary | _curve(robustness, own_scores["edge_cosine"])


def _compare_pairs(name: str, own_score: AnyArray, baseline_score: AnyArray) -> dict[str, Interval]:
    """Return means of a score, of its shuffled pairs where it is defined, and of their difference."""
    baseline = np.where(np.isnan(own_score), np.nan, baseline_score)
    return {
        f"{name}/own": bootstrap_mean(own_score),
        f"{name}/shuffled": bootstrap_mean(baseline),
        f"{name}/difference": bootstrap_mean(own_score - baseline),
    }


def _curve(robustness: AnyArray, score: AnyArray) -> dict[str, AnyArray]:
    """Return the mean score in each tenth of the images by robustness.

    Images of equal robustness go in an order that chance alone decides, the same in each run.
    """
    valid = np.flatnonzero(np.isfinite(robustness) & np.isfinite(score))
    chance = np.random.default_rng(0).random(len(valid))
    tenths = np.array_split(valid[np.lexsort((chance, robustness[valid]))], TENTHS)
    means = np.array([bootstrap_mean(score[tenth]) for tenth in tenths])
    return {
        "curve/linearized_robustness": np.array([bootstrap_mean(robustness[tenth]).value for tenth in tenths]),
        "curve/edge_cosine_mean": means[:, 0],
        "curve/edge_cosine_low": means[:, 1],
        "curve/edge_cosine_high": means[:, 2],
    }


def table_row(result: Result) -> dict[str, str]:
    """Return each alignment beside its shuffled pairs, its link to robustness and the confounds, of a finished file."""
    row = {
        "cosine (shuffled)": _describe_score(result, "cosine"),
        "alpha (shuffled)": _describe_score(result, "alpha"),
        "edge cosine (shuffled)": _describe_score(result, "edge_cosine"),
        "edge minus shuffled": Interval(*result["edge_cosine/difference"]).plain(),
        "linearized robustness": Interval(*result["robustness/linearized"]).plain(),
        "its Spearman with edge cosine": Interval(*result["robustness/spearman_edge_cosine"]).plain(),
        "total variation": Interval(*result["smoothness/total_variation"]).plain(),
        "Gini index": Interval(*result["smoothness/gini"]).plain(),
        "high frequency": Interval(*result["smoothness/high_frequency"]).percent(),
        "images": str(result.count),
    }
    if degenerate := int(result["count/degenerate"]):
        row["zero gradients"] = str(degenerate)
    return row


def _describe_score(result: Result, name: str) -> str:
    """Return text such as `0.46 [0.45, 0.47] (0.30)`: a score, and what shuffled pairs have.

    Of one that is zero by construction, why it is.
    """
    if is_zero(result, name):
        return f"zero by construction ({' and '.join(ZERO_UNDER[name])} invariant)"
    return compare_means(result[f"{name}/own"], result[f"{name}/shuffled"], Interval.plain)


def _is_high(height: int, width: int) -> AnyArray:
    """Return which places of a spectrum (height, width) lie above half of the Nyquist frequency."""
    high: AnyArray = np.hypot(fft.fftfreq(height)[:, None], fft.fftfreq(width)) > HALF_NYQUIST
    return high


def _pick(logits: Tensor, classes: Tensor) -> Tensor:
    """Return the logit of its class from each row of logits (N, K): (N,)."""
    return logits.gather(1, classes[:, None])[:, 0]


def _doubles(tensor: Tensor) -> AnyArray:
    return to_numpy(tensor).astype(np.float64)


def _norm(values: AnyArray) -> AnyArray:
    """Return the L2 norm (N,) over all axes but the first."""
    norm: AnyArray = np.linalg.norm(values.reshape(len(values), -1), axis=1)
    return norm


def _ratio(numerator: AnyArray, denominator: AnyArray) -> AnyArray:
    """Return `numerator` / `denominator`; NaN where `denominator` is zero."""
    ratio: AnyArray = np.divide(numerator, denominator, out=np.full(len(numerator), np.nan), where=denominator > 0)
    return ratio


ANALYSIS = Analysis(SCHEMA, AlignmentSettings, rows, summarize, table_row, prepare=prepare, needs_settings=True)
