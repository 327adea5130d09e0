"""Which images batch-norm statistics are measured on before a model is asked: the same ones for every model.

In training, the statistics of a model with feature regularization follow clean and adversarial images in turn, those
of `at` adversarial ones alone. Where both are recalibrated on images of one kind, this is no longer a difference.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from interpret_robust.attacks.noise import per_image_noise
from interpret_robust.attacks.pgd import PGD
from interpret_robust.attacks.settings import choose_step, resolve_ball
from interpret_robust.core.errors import UserError, unknown
from interpret_robust.datasets import Split
from interpret_robust.datasets.batches import list_batch_places, read_batches
from interpret_robust.models import Classifier
from interpret_robust.models.folding import fold
from interpret_robust.models.recalibrate import recalibrate
from interpret_robust.models.subject import Subject

Kind = Literal["none", "clean", "adversarial", "both"]
IMAGES = 1000
"""Images of the training split that the statistics are measured on, or all where there are fewer."""
SEED = 0
"""Of the draw of these images and of the attack's starts."""
STEPS = 5
"""Steps of the attack on a model whose recipe does not tell any, of eps / 4."""


def check_kind(kind: str) -> str:
    """Return `kind`. Raises UserError where it is none of `Kind`."""
    if kind not in get_args(Kind):
        raise unknown("kind of images to recalibrate on", kind, get_args(Kind))
    return kind


def draw_images(train: Split) -> Split:
    """Return the first IMAGES images of a seeded draw without replacement."""
    indices = np.random.default_rng(SEED).permutation(len(train))[:IMAGES]
    return train.take(indices)


def describe_recalibration(kind: str, train: Split, job: Mapping[str, Any]) -> dict[str, Any]:
    """Return what decides the statistics of a model of this job, for the configuration of a file."""
    images = draw_images(train)
    entry = {"images": kind, "count": len(images), "seed": SEED, "sha256": images.sha256}
    if kind == "clean":
        return entry
    attack = _attack(job)
    norm = {} if attack.norm == "linf" else {"norm": attack.norm}
    return entry | {"eps": attack.eps, "step_size": attack.step_size, "steps": attack.steps} | norm


def _attack(job: Mapping[str, Any]) -> PGD:
    """Return the attack that the model met in training, by running statistics."""
    recipe = job.get("recipe", {})
    norm, eps = resolve_ball(None, None, recipe)
    step = recipe.get("attack_step", choose_step(eps, norm))
    return PGD(eps=eps, step_size=step, steps=recipe.get("attack_steps", STEPS), norm=norm)


def recalibrate_network(subject: Subject, device: torch.device, kind: str, train: Split) -> Classifier:
    """Return the subject's model with batch-norm statistics of clean or adversarial training images, or of both.

    Adversarial images are made on the model as it is, before any statistic changes, from starts that are a function
    of SEED and the image's place in the draw. Raises UserError for a model without batch norm.
    """
    network = subject.model(device)
    batches = [*_batches(network, kind, draw_images(train), _attack(subject.job), device)]
    try:
        result: Classifier = recalibrate(network, lambda: batches)
    except UserError as error:
        raise UserError(f"--recalibrate {kind}: {subject.location}: {error}") from None
    return result


def _batches(network: Classifier, kind: str, split: Split, attack: PGD, device: torch.device) -> Iterator[Tensor]:
    target = fold(network)
    for batch in read_batches(split, list_batch_places(split), device):
        if kind in ("clean", "both"):
            yield batch.images
        if kind in ("adversarial", "both"):
            yield attack(target, batch.images, batch.labels, per_image_noise(SEED, batch.indices))
