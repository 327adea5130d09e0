"""A network trained to read a class from gradient maps: what of the target could be read at best.

For softmax cross-entropy the target is inside the gradient, J^T (p - e_t), of any network, trained or not. A probe
shows how much of it can be decoded without the map resembling anything.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from interpret_robust.attribution.scale_rules import as_image
from interpret_robust.core.errors import UserError
from interpret_robust.datasets import Split
from interpret_robust.datasets.batches import make_generator, to_device, to_pixels
from interpret_robust.models import Classifier, build
from interpret_robust.models.losses import loss_gradient

IMAGES, EPOCHS, BATCH_SIZE, LEARNING_RATE = 4000, 6, 50, 1e-2
TARGETS, ORDER = 10, 11
"""Streams of random numbers."""

FIRST_SEED = 10_000
"""Of a probe's initial weights, to which its seed is added: no model that is asked has begun at them."""


def view(maps: Tensor) -> Tensor:
    """Return what the probe sees of maps (N, C, H, W): minus the map, by the rule `clip`."""
    return as_image(-maps, "clip", 0.0)


def train(model: Classifier, split: Split, classes: int, seed: int, device: torch.device) -> Classifier:
    """Return a fresh `small` network trained on the model's gradients of random targets, at the first IMAGES of a
    split. Raises UserError for images of a size that it does not take.
    """
    images, labels = to_device(split.draw(IMAGES), device)
    probe = _build(images, classes, FIRST_SEED + seed).to(device).train()
    steps = torch.randint(1, classes, labels.shape, generator=make_generator(device, seed, TARGETS, 0), device=device)
    targets = (labels + steps) % classes
    maps = torch.cat(
        [
            view(loss_gradient(model, to_pixels(batch), classes))
            for batch, classes in zip(torch.split(images, BATCH_SIZE), torch.split(targets, BATCH_SIZE), strict=True)
        ]
    )
    total = EPOCHS * -(-len(maps) // BATCH_SIZE)
    optimizer = torch.optim.Adam(probe.parameters(), LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total)
    for epoch in range(EPOCHS):
        order = torch.randperm(len(maps), generator=make_generator(device, seed, ORDER, epoch), device=device)
        for indices in torch.split(order, BATCH_SIZE):
            optimizer.zero_grad()
            F.cross_entropy(probe(maps[indices]), targets[indices]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    return probe.eval()


def _build(images: Tensor, classes: int, seed: int) -> Classifier:
    channels, height, width = images.shape[1:]
    try:
        return build("small", "average", (channels, height, width), classes, seed=seed)
    except UserError as error:
        raise UserError(f"--probe trains a network of its own, and {error}") from error
