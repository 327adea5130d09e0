"""What the page shows of a model and an image: computed by the functions that analyses are made of."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from interpret_robust.analyses.attention_maps import total_variation_distance
from interpret_robust.analyses.feature_deletion import compute_logits_without
from interpret_robust.attacks.adversarial import check_adversarial
from interpret_robust.attribution.gradients import compute_position_weights
from interpret_robust.attribution.scale_rules import Rule, as_image
from interpret_robust.core.arrays import AnyArray
from interpret_robust.core.configs import replace_infinite
from interpret_robust.core.rank_statistics import rank_rows, row_spearman
from interpret_robust.datasets.batches import to_numpy
from interpret_robust.models.classifier import measure_positions, predict_classes
from interpret_robust.models.losses import loss_gradient
from interpret_robust.study.explorer.album import Entry
from interpret_robust.study.explorer.models import Exhibit
from interpret_robust.study.explorer.view import View

RULES: tuple[Rule, ...] = ("clip", "max", "min-max")
"""How gradient maps may be shown: the rules of a single map."""

READ_AT = (3, 8, 20, 50, 100)
"""Steps of an attack at which it is looked at, beside its last."""

MOST_ANSWERS = 5
"""Classes whose probabilities are told, the likeliest first."""

AT_ONCE = 64
"""Deletions computed together."""

Encode = Callable[[Image.Image], str]
"""Give a picture as a data URI."""


def measure_trajectory(exhibit: Exhibit, entry: Entry, view: View, seed: int) -> Iterator[tuple[int, Tensor]]:
    """Yield step and iterate (1, C, H, W) of a model's attack: that of `PGD.iterates`, or the image itself at eps 0."""
    if view.eps == 0:
        yield view.steps, entry.pixels
        return
    labels = torch.tensor([view.label], device=entry.pixels.device)
    attack = view.attack()
    for step, iterate in attack.iterates(exhibit.network, entry.pixels, labels, view.noise(seed, entry.index)):
        if step == view.steps:
            yield step, check_adversarial(exhibit.network, iterate, entry.pixels, view.eps, view.norm)
        else:
            yield step, iterate


def is_read(step: int, view: View) -> bool:
    """Return whether the iterate of a step is looked at."""
    return step == view.steps or step in READ_AT


def measure_cell(
    exhibit: Exhibit, entry: Entry, adversarial: Tensor, view: View, encode: Encode, rules: tuple[Rule, ...] = RULES
) -> dict[str, Any]:
    """Return what the page shows of one model under one attack, as JSON can hold it.

    `answers`: the likeliest classes with their probabilities; `truth`: that of the view's class; `attention`: weights
    of positions, None where there are none; `moved`: their total variation distance to those of the clean image;
    `ranks`: how many positions move less, L2 over channels, ties in their middle; `spearman`: of attention and
    robustness; `perturbation`: a picture, gray for 0 and white for `change`, which is eps in l-infinity and the largest
    change of a pixel in other norms; `gradient`: the map of the cross-entropy of the
    view's class, by each rule; `largest`: its max|g|.
    """
    network, images = exhibit.network, entry.pixels
    labels = torch.tensor([view.label], device=images.device)
    with torch.no_grad():
        logits = network(adversarial)
    gradient = loss_gradient(network, adversarial, labels)
    perturbation = adversarial - images
    change = view.eps if view.norm == "linf" else float(perturbation.abs().max())
    unit = perturbation / change if change else perturbation
    return {
        "prediction": int(predict_classes(logits)),
        **_answers(logits, view.label),
        **(_positions(exhibit, images, adversarial) if exhibit.weight else {}),
        "perturbation": encode(_picture(0.5 + 0.5 * unit)),
        "change": change,
        "gradient": {rule: encode(_picture(as_image(gradient, rule, 0.0))) for rule in rules},
        "largest": replace_infinite(float(gradient.abs().max())),
    }


def _answers(logits: Tensor, label: int) -> dict[str, Any]:
    probabilities = logits.float().softmax(1)[0]
    values, places = probabilities.topk(min(MOST_ANSWERS, len(probabilities)))
    return {
        "answers": [
            [place, replace_infinite(value)] for place, value in zip(places.tolist(), values.tolist(), strict=True)
        ],
        "truth": replace_infinite(float(probabilities[label])),
    }


def _positions(exhibit: Exhibit, images: Tensor, adversarial: Tensor) -> dict[str, Any]:
    assert exhibit.weight is not None
    with torch.no_grad():
        clean, attacked = (exhibit.network.features(pixels) for pixels in (images, adversarial))
    distance = to_numpy(measure_positions(attacked.local - clean.local))
    clean_weights, adversarial_weights = (
        to_numpy(compute_position_weights(exhibit.network, pixels, exhibit.weight, features))
        for pixels, features in ((images, clean), (adversarial, attacked))
    )
    is_ranked = bool((distance != distance[:, :1]).any())
    return {
        "attention": _numbers(adversarial_weights[0]),
        "moved": replace_infinite(float(total_variation_distance(clean_weights, adversarial_weights)[0])),
        "ranks": (rank_rows(distance)[0] - 1).tolist() if is_ranked else None,
        "spearman": replace_infinite(float(row_spearman(clean_weights, -distance)[0])) if is_ranked else None,
    }


def measure_deletions(
    exhibit: Exhibit, adversarial: Tensor, label: int, positions: range
) -> list[tuple[int, float | None]]:
    """Return class and probability of `label` when each of `positions` is deleted from an adversarial image.

    Its local feature becomes the mean feature of training images, as in feature-deletion.
    """
    network = exhibit.network
    answers: list[tuple[int, float | None]] = []
    with torch.no_grad():
        local = network.features(adversarial).local
        for start in range(0, len(positions), AT_ONCE):
            places = torch.tensor(positions[start : start + AT_ONCE], device=local.device)
            mask = torch.arange(local.shape[2] * local.shape[3], device=local.device) == places[:, None]
            count = len(places)
            images, features = adversarial.expand(count, -1, -1, -1), local.expand(count, -1, -1, -1)
            logits = compute_logits_without(network, images, features, mask, exhibit.fill)
            truth = logits.float().softmax(1)[:, label]
            answers += zip(predict_classes(logits).tolist(), map(replace_infinite, truth.tolist()), strict=True)
    return answers


def make_picture(entry: Entry) -> Image.Image:
    """Return an image as a picture."""
    return _picture(entry.pixels)


def _picture(values: Tensor) -> Image.Image:
    """Return values (1, C, H, W) in [0, 1] as a picture, gray for one channel."""
    pixels = to_numpy((255 * values[0].clamp(0, 1)).round().byte().permute(1, 2, 0))
    return Image.fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels))


def _numbers(values: AnyArray) -> list[float] | None:
    """Return values as a list; None where one is no number."""
    numbers: list[float] = values.tolist()
    return numbers if np.isfinite(values).all() else None
