"""A trial of a model from elsewhere on a few images: is its normalization right?"""

from typing import Any, NamedTuple

import torch
from scipy.stats import binomtest

from interpret_robust.core.statistics import mcnemar
from interpret_robust.datasets import Dataset
from interpret_robust.datasets.batches import to_device, to_pixels
from interpret_robust.models.external import ExternalModel
from interpret_robust.models.wrapped import STATISTICS, Preprocess

LOOKED_AT = 100
"""Images on which a model's normalization is tried out."""

SIGNIFICANT = 0.01


class Trial(NamedTuple):
    """Clean accuracy of a model on a few images under its normalization, and what is wrong with it, or None."""

    accuracy: float
    images: int
    doubt: str | None


def try_out(model: ExternalModel, data: Dataset, device: torch.device) -> Trial:
    """Look at a few test images: under the normalization that was declared, and under the others that are known.

    In doubt is a model that is right on more images under another one (McNemar's exact test at SIGNIFICANT), and one
    that cannot be told from guessing (an exact binomial test).
    """
    images_used = data.test.first(LOOKED_AT)
    pixels, labels = to_device(images_used, device)
    images, declared = to_pixels(pixels), model.wrapper.preprocess

    def right(preprocess: Preprocess) -> Any:
        with torch.no_grad():
            batches = zip(torch.split(images, 25), torch.split(labels, 25), strict=True)
            network = model.wrapper.to(device).backbone
            return (
                torch.cat([network(preprocess(batch)).argmax(1) == classes for batch, classes in batches]).cpu().numpy()
            )

    declared_right, channels = right(declared), data.image_shape[0]
    alternatives = {
        name: right(Preprocess(mean, deviation, declared.size).to(device))
        for name, (mean, deviation) in STATISTICS.items()
        if len(mean) in (1, channels)
    }
    accuracy = float(declared_right.mean())
    better = max(alternatives, key=lambda name: float(alternatives[name].mean()))
    gain = mcnemar(alternatives[better], declared_right)
    doubt = None
    if alternatives[better].mean() > accuracy and gain.p_value < SIGNIFICANT:
        doubt = (
            f"{model.location} is right on {accuracy:.0%} of the first {len(images_used)} test images with "
            f"--normalize {model.card.normalize}, and on {alternatives[better].mean():.0%} with --normalize {better}."
        )
    elif (
        binomtest(int(declared_right.sum()), len(images_used), 1 / len(data.class_names), "greater").pvalue
        > SIGNIFICANT
    ):
        doubt = (
            f"{model.location} is right on {accuracy:.0%} of the first {len(images_used)} test images, hardly more "
            f"than guessing ({1 / len(data.class_names):.0%}): are its normalization and the order of its classes "
            "right?"
        )
    return Trial(accuracy, len(images_used), doubt)
