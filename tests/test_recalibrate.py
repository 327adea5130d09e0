"""Batch norm recalibrated on chosen images: closed forms, a slow second computation, what it leaves as it was."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from anyone import assert_unchanged
from networks import pixels, settle
from torch import Tensor, nn
from torch.nn import functional as F

from interpret_robust import analyses
from interpret_robust.analyses.engine import recalibration
from interpret_robust.analyses.engine.work import Work
from interpret_robust.core.errors import UserError
from interpret_robust.datasets import Dataset
from interpret_robust.datasets.base import Split
from interpret_robust.models import build, checkpoint
from interpret_robust.models.recalibrate import recalibrate
from interpret_robust.results import hdf5

CPU = torch.device("cpu")
N, C, H, W = 11, 3, 8, 6


def chain(seed: int = 3) -> nn.Sequential:
    """Convolution, norm, ReLU, convolution, norm, with random weights and statistics."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(C, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 5, 2), nn.BatchNorm2d(5))


def chunks(images: Tensor, size: int) -> list[Tensor]:
    return [images[first : first + size] for first in range(0, len(images), size)]


def slowly(model: nn.Sequential, images: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Mean and variance before each norm of `chain`, layer by layer over all images in float64."""
    statistics, x = [], images.double()
    for layer in model:
        if isinstance(layer, nn.BatchNorm2d):
            of_channel = [x[:, channel].flatten() for channel in range(x.shape[1])]
            mean = torch.stack([values.sum() / len(values) for values in of_channel])
            variance = torch.stack([((values - values.mean()) ** 2).sum() / len(values) for values in of_channel])
            statistics.append((mean, variance))
            scale = layer.weight.double() / (variance + layer.eps).sqrt()
            x = (x - mean[:, None, None]) * scale[:, None, None] + layer.bias.double()[:, None, None]
        elif isinstance(layer, nn.Conv2d):
            assert layer.bias is not None
            x = F.conv2d(x, layer.weight.double(), layer.bias.double())
        else:
            x = x.relu()
    return statistics


@pytest.mark.parametrize("batch", [1, 4, N])
def test_statistics_are_those_of_all_images_layer_by_layer(batch: int) -> None:
    model, images = chain(), pixels(N, C, H, W, seed=1)
    settle(model)
    with assert_unchanged(model, images):
        network = recalibrate(model, lambda: chunks(images, batch))
    norms = [layer for layer in network if isinstance(layer, nn.BatchNorm2d)]
    for norm, (mean, variance) in zip(norms, slowly(model, images), strict=True):
        assert norm.running_mean is not None and norm.running_var is not None
        torch.testing.assert_close(norm.running_mean.double(), mean, rtol=0, atol=1e-6)
        torch.testing.assert_close(norm.running_var.double(), variance, rtol=1e-5, atol=0)
    assert not network.training


class OwnNorm(nn.Module):
    """Batch norm as somebody else writes it."""

    running_mean: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("running_mean", torch.zeros(channels, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        if self.training:
            mean = images.mean((0, 2, 3))[:, None, None]
            self.running_mean.lerp_(mean.detach(), 0.1)
            return images - mean
        return images - self.running_mean


class FrozenNorm(nn.Module):
    """Statistics that no pass moves."""

    mean: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.full((channels, 1, 1), 0.3))

    def forward(self, images: Tensor) -> Tensor:
        return images - self.mean


class Siamese(nn.Module):
    """A network that sees an image twice, the second time changed."""

    def __init__(self, change: Any) -> None:
        super().__init__()
        self.network, self.change = chain(), change

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = (self.network(images) + self.network(self.change(images))).mean((2, 3))
        return logits


def with_layer(layer: nn.Module) -> nn.Module:
    return nn.Sequential(*chain(), nn.ReLU(), layer, nn.AdaptiveAvgPool2d(1), nn.Flatten())


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (with_layer(OwnNorm(5)), r"layer '6' \(OwnNorm\) keeps statistics of its own"),
        (with_layer(nn.InstanceNorm2d(5, track_running_stats=True)), r"layer '6' \(InstanceNorm2d\) keeps"),
        (Siamese(lambda images: 0.1 * images), r"does a batch norm run several times\?"),
    ],
    ids=["own norm", "instance norm", "twice"],
)
def test_a_network_that_statistics_of_its_batch_norms_do_not_describe_is_refused(model: nn.Module, reason: str) -> None:
    images = pixels(N, C, H, W, seed=1)
    with assert_unchanged(model, images), pytest.raises(UserError, match=f"{reason}.* Such a network is not recal"):
        recalibrate(model, lambda: chunks(images, 4))


@pytest.mark.parametrize(
    "model",
    [
        with_layer(FrozenNorm(5)),
        with_layer(nn.Dropout(0.5)),
        with_layer(nn.BatchNorm2d(5)),
        Siamese(lambda images: images),
    ],
    ids=["frozen", "dropout", "norm", "twice alike"],
)
def test_other_layers_do_not_keep_a_network_from_being_recalibrated(model: nn.Module) -> None:
    images = pixels(N, C, H, W, seed=1)
    network = recalibrate(model, lambda: chunks(images, 4))
    for layer in model.modules():
        layer.training = isinstance(layer, nn.BatchNorm2d)
    with torch.no_grad():
        torch.testing.assert_close(network(images), model(images), rtol=0, atol=1e-4)


def test_it_is_one_pass_in_train_mode_over_all_images_as_one_batch() -> None:
    model, images = build("small", "nonlinear", (C, 16, 20), 7, seed=2), pixels(N, C, 16, 20)
    network = recalibrate(model, lambda: chunks(images, 4))
    with torch.no_grad():
        plain = model.eval()(images)
        expected = model.train()(images)
        torch.testing.assert_close(network(images), expected, rtol=0, atol=1e-4)
    assert (plain - expected).abs().max() > 0.01


def test_a_channel_of_known_values_has_their_mean_and_variance() -> None:
    model = nn.Sequential(nn.BatchNorm2d(1, eps=0.0, affine=False))
    images = torch.tensor([0.0, 0.2, 0.4, 1.0]).reshape(2, 1, 1, 2)
    norm = recalibrate(model, lambda: [images])[0]
    assert norm.running_mean.item() == pytest.approx(0.4)
    assert norm.running_var.item() == pytest.approx((0.16 + 0.04 + 0 + 0.36) / 4)


def test_a_model_without_batch_norm_is_refused_in_a_sentence() -> None:
    with pytest.raises(UserError, match="no batch norm with running statistics"):
        recalibrate(nn.Conv2d(C, 2, 1), lambda: [pixels(N, C, H, W)])


def test_images_are_the_first_of_a_seeded_draw() -> None:
    images = np.random.default_rng(5).integers(0, 256, (1203, 2, 3, 1), np.uint8)
    split = Split(images, np.arange(1203))
    sample = recalibration.draw_images(split)
    assert len(sample) == 1000 and len(set(sample.labels.tolist())) == 1000
    assert sample.labels.tolist() != list(range(1000))
    np.testing.assert_array_equal(sample.images, images[sample.labels])
    assert sample.sha256 == recalibration.draw_images(split).sha256
    assert len(recalibration.draw_images(split.first(7))) == 7


@pytest.fixture(scope="module")
def checkpoint_path(make_checkpoint: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = make_checkpoint(tmp_path_factory.mktemp("trained"), "at")
    return path


def make_work(path: Path, dataset: Dataset, folder: Path, kind: str, batch_size: int = 16) -> Work:
    analysis = analyses.get("robustness")
    settings = analysis.settings(pgd="2", cw="none")
    return Work(
        analysis,
        checkpoint.read(path),
        dataset,
        folder,
        settings=settings,
        split="test",
        limit=9,
        batch_size=batch_size,
        device=CPU,
        recalibrate=kind,
    )


@pytest.mark.long
@pytest.mark.parametrize("kind", ["clean", "adversarial", "both"])
def test_an_analysis_asks_the_recalibrated_model_whatever_its_batch_size(
    checkpoint_path: Path, digits: Dataset, tmp_path: Path, kind: str
) -> None:
    plain, (first, second) = (
        make_work(checkpoint_path, digits, tmp_path, "none"),
        (make_work(checkpoint_path, digits, tmp_path / str(size), kind, size) for size in (16, 5)),
    )
    assert hdf5.read(first.run()).model_name.endswith(f"-seed0 (recalibrated on {kind} images)")
    assert first.path.name == plain.path.name.replace("-first9", f"-recalibrated_{kind}-first9")
    assert "recalibration" not in plain.config
    record = first.config["recalibration"]
    assert record["images"] == kind and record["count"] == min(1000, len(digits.train))
    assert ("steps" in record) == (kind != "clean")
    for tensor, other in zip(first.network.state_dict().values(), second.network.state_dict().values(), strict=True):
        torch.testing.assert_close(tensor, other, rtol=0, atol=0)
    margins = [hdf5.read(work.run())["per_image/margin_natural"] for work in (plain, first, second)]
    np.testing.assert_allclose(margins[1], margins[2], rtol=0, atol=1e-4)
    assert np.abs(margins[0] - margins[1]).max() > 1e-3


def test_adversarial_images_are_those_of_the_recipe_within_its_ball(checkpoint_path: Path, digits: Dataset) -> None:
    state, split = checkpoint.read(checkpoint_path), recalibration.draw_images(digits.train)
    attack = recalibration._attack(state.job)
    recipe = state.job["recipe"]
    assert (attack.eps, attack.step_size, attack.steps) == tuple(
        recipe[name] for name in ("eps", "attack_step", "attack_steps")
    )
    network = state.model(CPU)
    clean, adversarial, union = (
        torch.cat([*recalibration._batches(network, kind, split, attack, CPU)])
        for kind in ("clean", "adversarial", "both")
    )
    assert len(union) == len(clean) + len(adversarial) == 2 * len(split)
    assert 0 < (adversarial - clean).abs().max() <= attack.eps + 1e-6


def test_statistics_that_training_left_are_found_again() -> None:
    """As for `at` on adversarial images: a running average over the same images ends at their statistics."""
    model, images = build("small", "average", (C, 16, 16), 4, seed=1).train(), pixels(40, C, 16, 16)
    with torch.no_grad():
        for _ in range(80):
            model(images)
    model.eval()
    network = recalibrate(model, lambda: chunks(images, 7))
    with torch.no_grad():
        torch.testing.assert_close(network(images), model(images), rtol=0, atol=0.01)
        other_network = recalibrate(model, lambda: [images**4])
        assert (other_network(images) - model(images)).abs().max() > 0.02


def test_an_unknown_kind_of_images_is_refused(checkpoint_path: Path, digits: Dataset, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="kind of images to recalibrate on"):
        make_work(checkpoint_path, digits, tmp_path, "adverserial")
