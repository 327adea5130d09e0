"""What models from elsewhere answer to the first image, and its gradient: weights alone do not tell whether models are
the same.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from interpret_robust.core.errors import UserError
from interpret_robust.core.random_numbers import preserve_random_numbers
from interpret_robust.datasets import Split
from interpret_robust.datasets.batches import make_batch
from interpret_robust.models.checks.gradients import differentiate
from interpret_robust.models.external import ExternalModel
from interpret_robust.models.subject import Subject

FIRST_LOGITS = "first_logits"
"""What files call them."""

GRADIENT = ", gradient"
"""What stands behind a model's name where the numbers are of its gradient."""

PRODUCTS = 4
"""Fixed random maps that a gradient is multiplied with."""

TOLERANCE = 1e-2
"""Share of the largest number by which the answer to the first image may differ from the stored one."""


def read_first_logits(models: Iterable[Subject], split: Split) -> dict[str, list[float]]:
    """Return the logits (K,) of the first image by the name of each model from elsewhere, and numbers of its gradient.

    Those, by the name and GRADIENT, are its length and its products with PRODUCTS fixed random maps. Models are left
    out whose answers differ each time, or are no numbers.
    """
    logits = {}
    for model in models:
        if isinstance(model, ExternalModel) and model.card.draws is None:
            image = make_batch(split, range(1), model.wrapper.preprocess.mean.device).images
            with torch.no_grad(), preserve_random_numbers(image.device):
                first_answer, second_answer = model.wrapper(image), model.wrapper(image)
                if not (torch.equal(first_answer, second_answer) and bool(first_answer.isfinite().all())):
                    continue
                logits[model.name] = _rounded(first_answer[0])
                slope = differentiate(model.wrapper, image).slope
                if slope is not None and bool(slope.isfinite().all()):
                    logits[model.name + GRADIENT] = _rounded(_summarize(slope))
    return logits


def _rounded(numbers: Tensor) -> list[float]:
    return [float(f"{number:.6g}") for number in numbers.tolist()]


def _summarize(slope: Tensor) -> Tensor:
    """Return the length of a gradient (1, C, H, W), and its products with fixed random maps (1 + PRODUCTS,)."""
    maps = torch.randn(PRODUCTS, slope.numel(), generator=torch.Generator().manual_seed(0)).to(slope)
    return torch.cat([slope.norm()[None], maps @ slope.flatten()])


def check_first_logits(
    path: Path, earlier: Mapping[str, Sequence[float]], latest: Mapping[str, Sequence[float]]
) -> None:
    """Raise UserError where a model answers otherwise than when it made the file at `path`.

    `earlier` has the logits of then by the name of each model, `latest` those of now, see `read_first_logits`.
    """
    for name, logits in latest.items():
        earlier_logits = np.array(earlier.get(name, logits))
        if np.abs(earlier_logits - logits).max() > TOLERANCE * np.abs(earlier_logits).max():
            difference = "had other gradients" if name.endswith(GRADIENT) else "answered otherwise"
            raise UserError(
                f"{path} is of a network {name.removesuffix(GRADIENT)} of the same weights that {difference}: its "
                "code, or numbers that its state dict does not hold, are others now. --overwrite asks anew, --label "
                "NAME keeps both."
            )
