"""Does a model hide its gradients, so that attacks that follow them fail? (signs of gradient masking)

The accuracy under attacks that need no gradient, random noise and random search, stands beside that under PGD; PGD is
repeated in larger balls, where it must in the end break everything, and cut down to one step, which must not beat
many. Gradients that are exactly zero are counted. All of it is in the ball of one norm. `irt flags` says which of it
gives cause for doubt.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from interpret_robust.analyses.engine.analysis import Analysis
from interpret_robust.analyses.engine.settings import BallSettings
from interpret_robust.analyses.engine.work import Work
from interpret_robust.attacks.noise import per_image_noise
from interpret_robust.attacks.norms import measure_diameter
from interpret_robust.attacks.pgd import PGD
from interpret_robust.attacks.square import RandomSearch
from interpret_robust.core.arrays import AnyArray
from interpret_robust.core.errors import UserError
from interpret_robust.core.intervals import Interval, rate, rates
from interpret_robust.core.parsing import format_percent
from interpret_robust.core.random_numbers import make_streams
from interpret_robust.datasets import Split
from interpret_robust.datasets.batches import Batch, to_numpy
from interpret_robust.models import Classifier
from interpret_robust.models.classifier import predict_classes
from interpret_robust.models.losses import LOSSES, loss_gradient
from interpret_robust.results.columns import Axes, Columns
from interpret_robust.results.hdf5 import Result
from interpret_robust.results.names import format_radii
from interpret_robust.results.schema import Column, Schema, describe_plot, interval

FACTORS = (1, 2, 4, 8)
DRAWS = 4
STEPS = 20
NOISE, SEARCH = 5, 6
"""The purposes of random numbers; PGD starts where that of every other analysis does."""

SCHEMA = Schema(
    name="masking",
    version=1,
    per_image=(
        Column("per_image/label", "i2", "true class"),
        Column("per_image/prediction_natural", "i2", "predicted class of the natural image"),
        Column("per_image/prediction_noise", "i2", "predicted class under uniform noise in the ball", ("draw",)),
        Column(
            "per_image/prediction_one_step",
            "i2",
            "predicted class after one step of eps along the sign of the cross-entropy's gradient",
        ),
        Column("per_image/prediction_search", "i2", "predicted class after random search in the ball"),
        Column(
            "per_image/prediction_pgd",
            "i2",
            "after PGD-20 on the cross-entropy in a ball of so many eps, in l-infinity at most 1; "
            "that of the smaller ball where this was already misclassified",
            ("factor",),
        ),
        Column("per_image/zero_share", "f4", "share of the gradient's entries that are exactly zero", ("loss",)),
    ),
    summary=(
        interval("accuracy/natural", "share of natural images classified rightly, Wilson 95 %"),
        interval("accuracy/noise", "share classified rightly under one draw of noise, Wilson 95 %", "draw"),
        interval(
            "accuracy/noise_worst",
            "share classified rightly on the natural image and under every draw of noise, Wilson 95 %",
        ),
        interval("accuracy/one_step", "share classified rightly on the natural image and after one step, Wilson 95 %"),
        interval(
            "accuracy/search", "share classified rightly on the natural image and after random search, Wilson 95 %"
        ),
        interval("accuracy/pgd", "share classified rightly after PGD, by radius, Wilson 95 %", "factor"),
        interval("zero/all", "share of images whose whole gradient is zero, Wilson 95 %", "loss"),
        Column("zero/entries", "f8", "mean share of entries that are zero", ("loss",)),
    ),
    groups={"accuracy": describe_plot("pgd", "factor:of", "Accuracy against radius")},
    labels={"loss": tuple(LOSSES)},
)


@dataclass(frozen=True)
class MaskingSettings(BallSettings):
    """The ball, and how long random search goes on."""

    queries: int = field(default=300, metadata={"help": "Queries of random search for each image."})

    is_shared: ClassVar[bool] = False

    def resolve(self, job: Mapping[str, Any]) -> Self:
        """Resolve as settings of any ball. Raises UserError also for an empty ball, or no queries."""
        settings = super().resolve(job)
        if settings.eps == 0 or settings.queries < 1:
            raise UserError(f"eps is {settings.eps:g}, queries {settings.queries}: both must be above zero.")
        return settings

    def factors(self, pixels: int) -> tuple[int, ...]:
        """Return the radii in units of eps, for images of so many numbers.

        In l-infinity none beyond the first that covers all images, in L2 and L1 none that does.
        """
        largest = measure_diameter(self.norm_name, pixels)
        if self.norm_name == "linf":
            return tuple(factor for factor in FACTORS if factor == 1 or self._eps * factor < 2 * largest)
        return tuple(factor for factor in FACTORS if factor == 1 or self._eps * factor <= largest)

    def pgd(self, factor: int) -> PGD:
        """Return PGD in the ball of so many eps, in l-infinity at most 1, its steps as much longer."""
        assert self.step_size is not None
        eps = self._eps * factor
        return PGD(
            min(1.0, eps) if self.norm_name == "linf" else eps, self.step_size * factor, STEPS, norm=self.norm_name
        )

    def one_step(self) -> PGD:
        """Return one step of eps: in l-infinity the fast gradient sign method (https://arxiv.org/abs/1412.6572)."""
        return PGD(self._eps, self._eps, 1, random_start=False, norm=self.norm_name)

    def search(self) -> RandomSearch:
        """Return random search in the ball."""
        return RandomSearch(self._eps, self.queries, norm=self.norm_name)

    @property
    def _eps(self) -> float:
        assert self.eps is not None
        return self.eps


def axes(work: Work) -> Axes:
    """Return draws of noise, and the radii in units of eps."""
    return {"draw": DRAWS, "factor": work.settings.factors(math.prod(work.dataset.image_shape))}


def rows(model: Classifier, batch: Batch, settings: MaskingSettings) -> dict[str, AnyArray]:
    """Return outcomes of one batch."""
    images, labels, seed = batch.images, batch.labels, settings.seed
    one_step = settings.one_step()(model, images, labels, per_image_noise(seed, batch.indices))
    search = settings.search()(model, images, labels, make_streams(seed, batch.indices, SEARCH))
    gradients = [loss_gradient(model, images, labels, LOSSES[loss]).flatten(1) for loss in LOSSES]
    columns = {
        "label": labels,
        "prediction_natural": _predict(model, images),
        "prediction_noise": _noisy(model, batch, settings),
        "prediction_one_step": _predict(model, one_step),
        "prediction_search": _predict(model, search),
        "prediction_pgd": _attack_in_steps(model, batch, settings),
        "zero_share": torch.stack([(gradient == 0).float().mean(1) for gradient in gradients], dim=1),
    }
    return {f"per_image/{name}": to_numpy(values) for name, values in columns.items()}


@torch.no_grad()
def _predict(model: Classifier, images: Tensor) -> Tensor:
    return predict_classes(model(images))


def _noisy(model: Classifier, batch: Batch, settings: MaskingSettings) -> Tensor:
    """Return classes (N, draws) of the images under uniform noise."""
    noise, ball = per_image_noise(settings.seed, batch.indices, NOISE), settings.ball()
    bounds = ball.bounds(batch.images)
    samples = (ball.start(batch.images, noise, *bounds) for _ in range(DRAWS))
    return torch.stack([_predict(model, images) for images in samples], dim=1)


def _attack_in_steps(model: Classifier, batch: Batch, settings: MaskingSettings) -> Tensor:
    """Return classes (N, factors) after PGD in growing balls. What a ball holds lies in the next one too."""
    predicted, by_factor = _predict(model, batch.images), []
    for factor in settings.factors(batch.images[0].numel()):
        (left,) = torch.where(predicted == batch.labels)
        if len(left):
            noise = per_image_noise(settings.seed, [batch.indices[place] for place in left])
            adversarial = settings.pgd(factor)(model, batch.images[left], batch.labels[left], noise)
            predicted = predicted.index_copy(0, left, _predict(model, adversarial))
        by_factor.append(predicted)
    return torch.stack(by_factor, dim=1)


def summarize(columns: Columns, _: Split) -> dict[str, Any]:
    """Return accuracies and shares with their intervals."""
    label, zero = columns["per_image/label"], columns["per_image/zero_share"]
    natural, one_step, search = (
        columns[f"per_image/prediction_{name}"] == label for name in ("natural", "one_step", "search")
    )
    noise, pgd = (columns[f"per_image/prediction_{name}"] == label[:, None] for name in ("noise", "pgd"))
    return {
        "accuracy/natural": rate(natural),
        "accuracy/noise": rates(noise),
        "accuracy/noise_worst": rate(natural & noise.all(1)),
        "accuracy/one_step": rate(natural & one_step),
        "accuracy/search": rate(natural & search),
        "accuracy/pgd": rates(pgd),
        "zero/all": rates(zero == 1),
        "zero/entries": zero.mean(0, dtype=np.float64),
    }


def table_row(result: Result) -> dict[str, str]:
    """Return accuracies of a finished file by attack, and the share of images without any gradient."""
    queries = result.config["settings"]["queries"]
    accuracies = {
        "natural": result["accuracy/natural"],
        "noise": result["accuracy/noise_worst"],
        "one step": result["accuracy/one_step"],
        f"PGD-{STEPS}": result["accuracy/pgd"][0],
        f"search, {queries} queries": result["accuracy/search"],
        f"PGD-{STEPS} at {format_radii(result)[-1]}": result["accuracy/pgd"][-1],
    }
    zero = ", ".join(format_percent(share) for share in result["zero/all"][:, 0])
    return {
        **{name: Interval(*interval).percent() for name, interval in accuracies.items()},
        f"no gradient ({', '.join(LOSSES)})": zero,
        "images": str(result.count),
    }


ANALYSIS = Analysis(SCHEMA, MaskingSettings, rows, summarize, table_row, axes=axes)
