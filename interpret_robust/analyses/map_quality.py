"""Are maps stable, and do they predict what the model does? (captum's sensitivity and infidelity)

Sensitivity (Yeh et al. 2019, https://arxiv.org/abs/1901.09392): the largest change of a map, relative to its norm, as
the image moves at random within a radius. It is a lower bound: more samples can only find more.

Infidelity (ibid.), normalized: squares of the image are replaced by its mean color, and the change of the loss is set
against what the map predicts of it, after the best common factor. A slope, such as a gradient, predicts the product
of itself and the change of the pixels; a contribution, such as an integrated gradient, predicts its sum over the
square. Zero is a perfect prediction. A map whose pixels were shuffled stands beside it, since scale alone gains
nothing. A map and minus the map have the same infidelity, so whether the best factor is negative stands beside it too.

Completeness (Sundararajan et al. 2017): the entries of some maps promise to sum to the loss of the image minus that of
a baseline, and how far they miss it stands beside it.
"""

from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from captum.metrics import sensitivity_max
from torch import Tensor

from interpret_robust.analyses.engine.analysis import Analysis
from interpret_robust.analyses.engine.settings import SourceSettings
from interpret_robust.attribution import captum_methods
from interpret_robust.attribution.controls import shuffle_pixels
from interpret_robust.attribution.gradients import compute_map, map_promise, measure_relative_gap
from interpret_robust.core.arrays import AnyArray
from interpret_robust.core.bootstrap import bootstrap_mean
from interpret_robust.core.errors import NotFiniteError, UserError
from interpret_robust.core.intervals import Interval
from interpret_robust.core.parsing import format_percent
from interpret_robust.core.random_numbers import make_streams
from interpret_robust.datasets import Split
from interpret_robust.datasets.batches import Batch, to_numpy
from interpret_robust.models import Classifier
from interpret_robust.models.classifier import predict_classes
from interpret_robust.models.losses import cross_entropy
from interpret_robust.results.columns import Columns
from interpret_robust.results.hdf5 import Result
from interpret_robust.results.schema import Column, Schema, describe_plot, interval

SLOPES = ("gradient", "smooth-gradient", *(f"{captum_methods.PREFIX}{name}" for name in captum_methods.SLOPES))
"""Sources of maps that are slopes; all others are contributions."""

SIDE = 4
"""Squares are a quarter of the image's side."""

MOVES, SQUARES, SHUFFLE = 20, 21, 22
"""The purposes of random numbers."""

_PROMISE = "NaN for a source without completeness"

SCHEMA = Schema(
    name="map-quality",
    version=2,
    oldest=1,
    per_image=(
        Column("per_image/label", "i2", "true class"),
        Column("per_image/prediction", "i2", "predicted class"),
        Column("per_image/sensitivity", "f4", "largest |map(x + d) - map(x)| over |map(x)|, L2; NaN for a zero map"),
        Column("per_image/infidelity", "f4", "normalized infidelity of the map, in units of loss squared"),
        Column("per_image/infidelity_shuffled", "f4", "infidelity of the map with its pixels in random order"),
        Column("per_image/change", "f4", "mean square of the change of the loss: the infidelity of a map of zeros"),
        Column(
            "per_image/factor",
            "f4",
            "best factor of the map's predictions, negative where minus the map predicts the change; NaN for none",
            version=2,
        ),
        Column("per_image/constant", "u1", "1 where the map has one value everywhere, other than zero", version=2),
        Column("per_image/promise", "f4", f"what the entries of the map promise to sum to; {_PROMISE}", version=2),
        Column("per_image/gap", "f4", f"the sum of the map minus its promise; {_PROMISE}", version=2),
    ),
    summary=(
        interval(
            "mean/sensitivity",
            "mean of per_image/sensitivity, over images whose map is not zero, bootstrap 95 % interval",
        ),
        interval("mean/unforetold", "mean of infidelity over change: the share of the change that is not predicted"),
        interval(
            "mean/unforetold_shuffled", "mean of infidelity over change, of the maps with their pixels in random order"
        ),
        interval("mean/gain", "share not predicted by shuffled maps minus that by the maps, paired by image"),
        Column("count/degenerate", "i8", "images whose map is zero everywhere: they have no sensitivity"),
        Column("count/constant", "i8", "images whose map has one value everywhere, other than zero", version=2),
        Column("count/negative", "i8", "images whose best factor is negative: the map has the wrong sign", version=2),
        Column("completeness/gap", "f8", f"sum over images of |gap| over that of |promise|; {_PROMISE}", version=2),
    ),
    groups={"mean": describe_plot("unforetold", "of", "Change of the loss not foretold")},
)


@dataclass(frozen=True)
class QualitySettings(SourceSettings):
    """What a map is, how far images move, how often."""

    radius: float = field(default=8 / 255, metadata={"help": "How far pixels move for sensitivity, such as 8/255."})
    samples: int = field(default=50, metadata={"help": "Number of moves, and of squares, for each image."})
    seed: int = field(default=0, metadata={"help": "Seed of moves, squares and shuffles, and of a source with noise."})

    def resolve(self, job: Any) -> Self:
        """Return these settings. Raises UserError for a number that is out of range."""
        if not 0 < self.radius <= 1 or self.samples < 2:
            raise UserError(f"radius {self.radius:g}, samples {self.samples}: give 0 to 1, and at least two samples.")
        return super().resolve(job)


def rows(model: Classifier, batch: Batch, settings: QualitySettings) -> dict[str, AnyArray]:
    """Return sensitivity and infidelity, image by image: what is drawn for one does not depend on the others."""
    with torch.no_grad():
        predicted = to_numpy(predict_classes(model(batch.images)))
    qualities = [_measure(model, batch, place, settings) for place in range(len(batch.indices))]
    columns = {name: np.array([getattr(quality, name) for quality in qualities]) for name in Quality._fields}
    columns |= {"label": to_numpy(batch.labels), "prediction": predicted}
    return {f"per_image/{name}": values for name, values in columns.items()}


class Quality(NamedTuple):
    """What is measured of one image: see the schema."""

    sensitivity: float
    infidelity: float
    infidelity_shuffled: float
    change: float
    factor: float
    constant: bool
    promise: float
    gap: float


def _measure(model: Classifier, batch: Batch, place: int, settings: QualitySettings) -> Quality:
    image, label, index = batch.images[place : place + 1], batch.labels[place : place + 1], batch.indices[place]
    (moves,), (order,) = (make_streams(settings.seed, [index], purpose) for purpose in (MOVES, SHUFFLE))

    def explain(images: Tensor) -> Tensor:
        count = len(images)
        labels, indices = label.expand(count), [index] * count
        try:
            attribution = compute_map(settings.source, model, images, labels, indices, settings.seed)
        except NotFiniteError as error:
            raise NotFiniteError(error.quantity, [place]) from error
        return attribution.contiguous()  # captum takes views

    def for_captum(inputs: Tensor | tuple[Tensor]) -> tuple[Tensor]:
        # It gives the image as one of a tuple and its moves as they are, and takes tuples of maps.
        return (explain(inputs if isinstance(inputs, Tensor) else inputs[0]),)

    def move(images: Tensor, radius: float) -> Tensor:
        uniform = moves.uniform(-radius, radius, tuple(images.shape)).astype(np.float32)
        return images + torch.from_numpy(uniform).to(images.device)

    attribution = explain(image)
    is_zero = not bool(attribution.any())
    sensitive = np.nan
    if not is_zero:
        sensitive = float(
            sensitivity_max(for_captum, image, move, perturb_radius=settings.radius, n_perturb_samples=settings.samples)
        )
    permuted_map = shuffle_pixels(attribution, [order])
    perturbations, changes = _changes(model, image, label, index, settings)
    infidelity, factor = forecast(attribution, perturbations, changes)
    promise = float(map_promise(settings.source, model, image, label, [index], settings.seed))
    return Quality(
        sensitive,
        infidelity,
        forecast(permuted_map, perturbations, changes)[0],
        float(changes.square().mean()),
        factor,
        not is_zero and bool((attribution == attribution.flatten()[0]).all()),
        promise,
        float(attribution.double().sum()) - promise,
    )


def _changes(
    model: Classifier, image: Tensor, label: Tensor, index: int, settings: QualitySettings
) -> tuple[Tensor, Tensor]:
    """Return by what a map is multiplied to predict each square (M, C, H, W), and the changes of the loss (M,)."""
    (squares,) = make_streams(settings.seed, [index], SQUARES)
    masks = make_square_masks(squares, settings.samples, image.shape[2], image.shape[3]).to(image)
    moves = masks * (image - image.mean((2, 3), keepdim=True))
    with torch.no_grad():
        losses = cross_entropy(model(image - moves), label.expand(settings.samples))
        changes = cross_entropy(model(image), label) - losses
    return moves if settings.source in SLOPES else masks.expand_as(moves), changes.double()


def forecast(attribution: Tensor, perturbations: Tensor, changes: Tensor) -> tuple[float, float]:
    """Return the normalized infidelity of a map (1, C, H, W), and its best factor, NaN for a map that predicts
    nothing (captum's `infidelity(normalize=True)`, which does not give the factor).
    """
    foretold = (attribution * perturbations).flatten(1).double().sum(1)
    norm = foretold.square().mean()
    factor = float((foretold * changes).mean() / norm) if norm > 0 else np.nan
    rest = changes if np.isnan(factor) else changes - factor * foretold
    return float(rest.square().mean()), factor


def make_square_masks(random: np.random.Generator, count: int, height: int, width: int) -> Tensor:
    """Return masks (count, 1, H, W) that are 1 in a square of 1 / SIDE of each side at a random place, else 0."""
    sides = (max(1, height // SIDE), max(1, width // SIDE))
    tops, lefts = random.integers(0, height - sides[0] + 1, count), random.integers(0, width - sides[1] + 1, count)
    rows, columns = np.arange(height)[None, :, None], np.arange(width)[None, None, :]
    top, left = tops[:, None, None], lefts[:, None, None]
    mask = (rows >= top) & (rows < top + sides[0]) & (columns >= left) & (columns < left + sides[1])
    return torch.from_numpy(mask[:, None].astype(np.float32))


def summarize(columns: Columns, _: Split) -> dict[str, Any]:
    """Return means with their intervals."""
    sensitivity, change = columns["per_image/sensitivity"], columns["per_image/change"].astype(np.float64)
    shares = [
        np.divide(columns[f"per_image/{name}"], change, out=np.full(len(change), np.nan), where=change > 0)
        for name in ("infidelity", "infidelity_shuffled")
    ]
    return {
        "mean/sensitivity": bootstrap_mean(sensitivity),
        "mean/unforetold": bootstrap_mean(shares[0]),
        "mean/unforetold_shuffled": bootstrap_mean(shares[1]),
        "mean/gain": bootstrap_mean(shares[1] - shares[0]),
        "count/degenerate": int(np.isnan(sensitivity).sum()),
        "count/constant": int(columns["per_image/constant"].sum()),
        "count/negative": int((columns["per_image/factor"] < 0).sum()),
        "completeness/gap": measure_relative_gap(columns["per_image/gap"], columns["per_image/promise"]),
    }


def table_row(result: Result) -> dict[str, str]:
    """Return sensitivity, and the share of the loss's change that maps and shuffled maps do not predict."""
    row = {
        "sensitivity": Interval(*result["mean/sensitivity"]).plain(),
        "not predicted": Interval(*result["mean/unforetold"]).percent(),
        "by shuffled maps": Interval(*result["mean/unforetold_shuffled"]).percent(),
        "gain": Interval(*result["mean/gain"]).points(),
        "zero maps": str(int(result["count/degenerate"])),
    }
    if "count/negative" in result:  # files from before version 2 have none
        row["constant maps"] = str(int(result["count/constant"]))
        row["wrong sign"] = str(int(result["count/negative"]))
        if np.isfinite(gap := float(result["completeness/gap"])):
            row["completeness gap"] = format_percent(gap, 2)
    return row | {"images": str(result.count)}


ANALYSIS = Analysis(SCHEMA, QualitySettings, rows, summarize, table_row)
