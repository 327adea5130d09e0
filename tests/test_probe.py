"""The probe reads from gradients what is in them, of a linear network and of an untrained one."""

import random
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from interpret_robust.attribution import probe
from interpret_robust.attribution.gradients import draw_targets
from interpret_robust.core.errors import UserError
from interpret_robust.datasets import Dataset, Split
from interpret_robust.models import Classifier, build
from interpret_robust.models.losses import loss_gradient

CPU = torch.device("cpu")
CLASSES, HEIGHT, WIDTH = 5, 16, 20


class Flat(nn.Module):
    """A head whose pooled features are the pixels."""

    def forward(self, local: Tensor) -> tuple[None, Tensor]:
        return None, local.flatten(1)


def linear() -> Classifier:
    """Logits W x, each row of W a pattern of large blocks: the gradient for class t is W^T (p - e_t)."""
    model = Classifier(nn.Identity(), Flat(), nn.Linear(3 * HEIGHT * WIDTH, CLASSES)).eval()
    blocks = torch.randn(CLASSES, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        model.classifier.weight.copy_(0.05 * nn.functional.interpolate(blocks, scale_factor=4.0).flatten(1))
    return model


def images(count: int, seed: int) -> Split:
    rng = np.random.default_rng(seed)
    return Split(rng.integers(0, 256, (count, HEIGHT, WIDTH, 3), np.uint8), np.arange(count) % CLASSES)


def read(reader: Classifier, model: Classifier, split: Split) -> float:
    """How often a probe tells the target of gradients of images that it never saw."""
    pixels = torch.tensor(split.images).permute(0, 3, 1, 2) / 255
    targets = draw_targets(torch.tensor(split.labels), range(len(split)), CLASSES, 3)
    with torch.no_grad():
        answers = reader(probe.view(loss_gradient(model, pixels, targets))).argmax(1)
    return float((answers == targets).float().mean())


def test_the_probe_sees_the_map_that_is_read_at_sign_minus() -> None:
    maps = (
        torch.randn(3, 3, 6, 8, generator=torch.Generator().manual_seed(1))
        * torch.tensor([1e-6, 1, 9e3])[:, None, None, None]
    )
    for plane, view in zip(maps.double().numpy(), probe.view(maps), strict=True):
        bound = 3 * plane.std()
        np.testing.assert_allclose(view, 0.5 - np.clip(plane, -bound, bound) / (2 * bound), atol=1e-5)


@pytest.mark.long
@pytest.mark.parametrize("network", ["linear", "untrained"])
def test_a_random_target_is_read_from_gradients_of_images_not_seen(network: str) -> None:
    model = linear() if network == "linear" else build("small", "average", (3, HEIGHT, WIDTH), CLASSES, seed=4).eval()
    accuracy = read(probe.train(model, images(400, 0), CLASSES, 0, CPU), model, images(200, 1))
    assert accuracy > 0.9


def test_what_is_not_in_the_maps_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def noise(_: Classifier, pixels: Tensor, __: Tensor) -> Tensor:
        return torch.randn(pixels.shape, generator=torch.Generator().manual_seed(int(pixels.sum())))

    monkeypatch.setattr(probe, "loss_gradient", noise)
    reader = probe.train(linear(), images(200, 0), CLASSES, 0, CPU)
    with torch.no_grad():
        answers = reader(probe.view(torch.randn(200, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(9))))
    targets = draw_targets(torch.arange(200) % CLASSES, range(200), CLASSES, 3)
    assert float((answers.argmax(1) == targets).float().mean()) < 0.35


def test_a_probe_is_a_function_of_its_seed_and_leaves_all_as_found() -> None:
    model, split = build("small", "nonlinear", (3, HEIGHT, WIDTH), CLASSES, seed=4).eval(), images(60, 0)
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state(), random.getstate(), str(np.random.get_state(legacy=False))
    first, second, other = (probe.train(model, split, CLASSES, seed, CPU).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)
    assert torch.equal(torch.get_rng_state(), state[0])
    assert (random.getstate(), str(np.random.get_state(legacy=False))) == state[1:]
    assert all(torch.equal(weights[name], tensor) for name, tensor in model.state_dict().items())
    assert not any(module.training for module in model.modules())
    assert all(weight.requires_grad and weight.grad is None for weight in model.parameters())


def test_a_probe_learns_from_the_first_images_and_never_a_label(
    digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[tuple[Tensor, Tensor]] = []

    def remember(model: nn.Module, pixels: Tensor, targets: Tensor) -> Tensor:
        batches.append((pixels, targets))
        return loss_gradient(model, pixels, targets)

    monkeypatch.setattr(probe, "loss_gradient", remember)
    monkeypatch.setattr(probe, "IMAGES", 53)
    monkeypatch.setattr(probe, "EPOCHS", 1)
    model = build("small", "average", digits.image_shape, 10, seed=0).eval()
    probe.train(model, digits.train, 10, 0, CPU)
    pixels, targets = (torch.cat(part) for part in zip(*batches, strict=True))
    np.testing.assert_allclose(pixels, digits.train.images[:53].transpose(0, 3, 1, 2) / 255, atol=1e-7)
    assert (targets != torch.tensor(digits.train.labels[:53])).all()
    assert set(targets.tolist()) == set(range(10))


def test_a_probe_begins_at_weights_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model of seed 0 of the same architecture is no better read for having begun where its probe does."""
    seeds = []

    def remember(*arguments: Any, seed: int) -> Classifier:
        seeds.append(seed)
        return build(*arguments, seed=seed)

    monkeypatch.setattr(probe, "build", remember)
    probe.train(build("small", "average", (3, HEIGHT, WIDTH), CLASSES, seed=0).eval(), images(20, 0), CLASSES, 0, CPU)
    assert seeds == [probe.FIRST_SEED]


def test_images_that_a_probe_does_not_take_are_refused_before_any_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "loss_gradient", lambda *_: pytest.fail("a gradient was computed"))
    split = Split(np.zeros((4, 18, 20, 3), np.uint8), np.zeros(4, np.int64))
    with pytest.raises(UserError, match="--probe trains a network of its own, and images are 18x20: sides must be"):
        probe.train(cast(Classifier, nn.Identity()), split, 2, 0, CPU)
