"""What enters batch norms beside what they keep of their training: closed forms, a slow reference, known networks."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from interpret_robust.datasets import Dataset, Split
from interpret_robust.models.card import Card
from interpret_robust.models.external import bring
from interpret_robust.models.norm_check import LARGEST_DISTANCE, LEAST_IMAGES, measure_distance, watch_norms

N, C, H, W = 40, 3, 6, 5


def keep(norm: nn.BatchNorm2d, mean: Tensor, deviation: Tensor) -> nn.BatchNorm2d:
    """Give a batch norm in eval mode these statistics by channel (C,)."""
    assert norm.running_mean is not None and norm.running_var is not None
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(deviation.square() - norm.eps)
    return norm.eval()


@pytest.mark.parametrize(("mean", "deviation"), [(0.0, 1.0), (0.3, 1.0), (0.0, 0.6), (-0.3, 1.4), (5.0, 1.0)])
def test_the_distance_of_two_normal_distributions(mean: float, deviation: float) -> None:
    """Values of -1 and 1 in equal parts have mean 0 and deviation 1; the distance is at most 1."""
    values = torch.tensor([-1.0, 1.0]).repeat(N * C * H // 2).view(N, C, H, 1)
    norm = keep(nn.BatchNorm2d(C), torch.zeros(C), torch.ones(C))
    distance = measure_distance(norm, mean + deviation * values)
    assert distance == pytest.approx(min(math.hypot(mean, deviation - 1), 1), abs=1e-6)


def test_a_slow_reference() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(0.2, 1.3, (N, C, H, W)) * np.array([1, 2, 0.5])[:, None, None]
    means, deviations = np.array([0.1, 0.6, 0.0]), np.array([1.0, 2.2, 0.7])
    squares = []
    for channel in range(C):
        channel_values = values[:, channel]
        first, second = channel_values[: N // 2], channel_values[N // 2 :]
        noise = ((first.mean() - second.mean()) ** 2 + (first.std() - second.std()) ** 2) / 4
        square = (
            (channel_values.mean() - means[channel]) ** 2 + (channel_values.std() - deviations[channel]) ** 2 - noise
        )
        squares.append(min(square / deviations[channel] ** 2, 1))
    norm = keep(nn.BatchNorm2d(C), torch.tensor(means), torch.tensor(deviations))
    assert measure_distance(norm, torch.tensor(values)) == pytest.approx(math.sqrt(np.mean(squares)), rel=1e-5)


def test_sampling_alone_is_no_distance() -> None:
    """Means of places images differ from those of training; without the halves, the distance would be about 0.2."""
    generator = torch.Generator().manual_seed(0)
    norm = keep(nn.BatchNorm2d(50), torch.zeros(50), torch.ones(50))
    distances = [measure_distance(norm, torch.randn(30, 50, 1, 1, generator=generator)) for _ in range(20)]
    assert np.mean(distances) < 0.1


class Gray(nn.Module):
    """The sign of an image's gray behind two batch norms; the second keeps statistics that are `offset` away."""

    def __init__(self, first_offset: float = 0.0, second_offset: float = 0.0, runs: int = 1) -> None:
        super().__init__()
        self.first = keep(nn.BatchNorm2d(C), torch.full((C,), 0.5), torch.full((C,), 0.2))
        self.second = keep(nn.BatchNorm2d(C), torch.full((C,), second_offset), torch.ones(C))
        self.first_offset, self.second_offset, self.runs = first_offset, second_offset, runs

    def forward(self, pixels: Tensor) -> Tensor:
        values = self.first(pixels + 0.2 * self.first_offset) - self.first_offset
        for _ in range(self.runs):
            result = self.second(values)
        gray = result.mean((1, 2, 3)) + self.second_offset
        return torch.stack([-gray, gray], 1)


def grays(count: int) -> Dataset:
    """Return images (count, H, W, C) that are dark or bright, with mean 0.5 and deviation 0.2, every fifth misnamed."""
    labels = np.arange(count) % 2
    images = np.broadcast_to(np.rint(127.5 - 51 + 102 * labels)[:, None, None, None], (count, H, W, C))
    names = np.where(np.arange(count) % 5 == 0, 1 - labels, labels)
    split = Split(images.astype(np.uint8), names)
    return Dataset("grays", split, split, ("dark", "bright"))


FIRST, SECOND = "what enters its batch norm 'first'", "what enters its batch norm 'second'"


@pytest.mark.parametrize(
    ("network", "count", "doubt", "question"),
    [
        (Gray(), 100, None, None),
        (Gray(second_offset=0.5), 100, f"{SECOND} lies 0.5 deviations", "are the layers before it"),
        (Gray(first_offset=0.6), 100, f"{FIRST} lies 0.6 deviations", "are these images of the kind"),
        (Gray(second_offset=0.2), 100, None, None),
        (Gray(second_offset=0.5, runs=2), 100, None, None),
        (Gray(second_offset=0.5), LEAST_IMAGES - 1, None, None),
    ],
)
def test_networks_whose_answers_do_not_tell(network: Gray, count: int, doubt: str | None, question: str | None) -> None:
    """Each is right on 80 % of the images, whatever statistics its batch norms use."""
    model = bring(network, Card("mine:net", label="mine"), grays(count), "g")
    doubts = [sentence for sentence in model.doubts if "enters its batch norm" in sentence]
    assert len(doubts) == (doubt is not None)
    if doubt is not None and question is not None:
        assert f"mine is right on 80% of {count} test images, and {doubt}" in doubts[0]
        assert question in doubts[0]


def test_a_batch_norm_is_watched_for_each_run_and_no_longer_than_asked() -> None:
    network, images = Gray(second_offset=0.5, runs=2), torch.rand(N, C, H, W)
    with watch_norms(network) as distances:
        expected = network(images)
    assert {name: len(runs) for name, runs in distances.items()} == {"first": 1, "second": 2}
    assert torch.equal(network(images), expected)
    assert len(distances["second"]) == 2, "a pass behind the block is not watched"
    assert LARGEST_DISTANCE < 0.5


def test_a_doubt_about_norms_hides_none_about_attacks() -> None:
    class Wavy(Gray):
        def forward(self, pixels: Tensor) -> Tensor:
            logits = super().forward(pixels)
            return logits + torch.sin(3000 * logits)

    doubts = bring(Wavy(second_offset=0.5), Card("mine:net", label="mine"), grays(100), "g").doubts
    assert any(SECOND in doubt for doubt in doubts)
    assert any("mine does not follow its gradients" in doubt for doubt in doubts)


def test_norms_that_never_saw_a_training_and_uneven_labels_are_not_judged() -> None:
    network = Gray(second_offset=0.5)
    keep(network.second, torch.zeros(C), torch.ones(C))
    assert network.second.running_var is not None
    network.second.running_var.fill_(1)
    network.second_offset = 0.0
    data = grays(100)
    places = np.r_[np.flatnonzero(data.test.labels == 0), np.flatnonzero(data.test.labels == 1)[:10]]
    uneven = Split(data.test.images[places], data.test.labels[places])
    assert list_watched(network) == ["first"]
    doubts = bring(Gray(second_offset=0.5), Card("mine:net"), Dataset("u", data.train, uneven, ("dark", "bright")), "u")
    assert not any("enters its batch norm" in doubt for doubt in doubts.doubts)


def list_watched(network: nn.Module) -> list[str]:
    """Return the batch norms that are watched in a pass."""
    with watch_norms(network) as distances:
        network(torch.rand(N, C, H, W))
    return [*distances]
