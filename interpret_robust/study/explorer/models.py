"""The models on display, and what the page has to know of them."""

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from interpret_robust.analyses.feature_deletion import average_features, average_positions, read_reference
from interpret_robust.attribution.gradients import choose_weight
from interpret_robust.datasets import Dataset
from interpret_robust.datasets.batches import choose_batch_size
from interpret_robust.figures import style
from interpret_robust.models import Classifier
from interpret_robust.models.card import Card, Reference
from interpret_robust.models.external import find_subject
from interpret_robust.models.folding import fold
from interpret_robust.models.subject import Subject, check_fit, doubt_about_classes
from interpret_robust.models.variants import explain_variant, order_as_paper
from interpret_robust.results.names import WEIGHTS

MOST_BY_DEFAULT = 8
"""Models that stand side by side where none was named."""


@dataclass(frozen=True, eq=False)
class Exhibit:
    """A model on display.

    Attributes:
        words: what a command calls it.
        network: itself, as analyses ask it.
        weight: whose weights of positions stand for attention; None for a model without local features.
        dataset: whose training images give the mean feature that stands for a deleted one.
    """

    subject: Subject
    words: str
    network: Classifier
    weight: str | None
    dataset: Dataset
    device: torch.device

    @property
    def positions(self) -> int:
        """Return how many positions its local features have."""
        _, height, width = self.subject.local_shape()
        return height * width

    @cached_property
    def fill(self) -> Tensor:
        """Return the mean local feature (C,) of training images, as feature-deletion takes it."""
        batches = read_reference(self.dataset, choose_batch_size(*self.dataset.image_shape[1:]), self.device)
        with torch.no_grad():
            return average_features([average_positions(self.network.features(batch.images)) for batch in batches])

    def card(self) -> dict[str, Any]:
        """Return what the page says of it."""
        job = self.subject.job
        doubt = doubt_about_classes(self.subject, self.dataset)
        return {
            "name": job["variant"] if job["seed"] is None else f"{job['variant']} seed {job['seed']}",
            "meaning": explain_variant(job["variant"]),
            "color": style.choose_color(job["variant"]),
            "words": self.words,
            "weights": WEIGHTS.get(self.weight, self.weight) if self.weight else None,
            "grid": self.subject.local_shape()[1:],
            "doubts": [*self.subject.doubts, *([doubt] if doubt else [])],
        }


def exhibit(
    model: Subject, reference: Reference, dataset: Dataset, device: torch.device, weight: str = "auto"
) -> Exhibit:
    """Return a model as it is displayed, with the weights of positions that `choose_weight` chooses.

    `reference` is where it is from. Raises UserError for one that does not fit the dataset or has no such weights.
    """
    check_fit(model, dataset)
    words = shlex.join(reference.words()) if isinstance(reference, Card) else shlex.quote(str(reference))
    network = model.model(device)
    return Exhibit(
        model,
        words,
        fold(network) if device.type == "cpu" else network,
        choose_weight(weight, model),
        dataset,
        device,
    )


def list_names(cards: Sequence[dict[str, Any]]) -> list[str]:
    """Return what the page calls each model: its variant where all have one seed, and with its number where two share
    a name.
    """
    full = [str(card["name"]) for card in cards]
    short = [name.partition(" seed ")[0] for name in full]
    labels = short if len(set(short)) == len(short) else full
    return [name if labels.count(name) == 1 else f"{name} ({place + 1})" for place, name in enumerate(labels)]


def choose_models(paths: Iterable[Path], source: str | None) -> list[Path]:
    """Return which of several checkpoints stand side by side: of one dataset and architecture, a seed a variant.

    They are of `source`, or of the data and the architecture that most of them are of, in the paper's order.
    """
    groups: dict[tuple[str, str], dict[str, tuple[int, Path]]] = {}
    for path in paths:
        model = find_subject(path)
        job = model.job
        if source in (None, model.source):
            seeds = groups.setdefault((model.source, job["architecture"]), {})
            seeds[job["variant"]] = min(seeds.get(job["variant"], (job["seed"], path)), (job["seed"], path))
    largest = max(groups.values(), key=len, default={})
    variants = sorted(largest, key=lambda variant: order_as_paper(variant, None))
    return [largest[variant][1] for variant in variants[-MOST_BY_DEFAULT:]]
