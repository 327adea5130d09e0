"""What enters batch norms beside what they keep of their training: closed forms, a slow reference, known networks."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from interpret_robust.datasets import Dataset, Split
from interpret_robust.models.card import Card
from interpret_robust.models.checks import norms as norm_check
from interpret_robust.models.checks.norms import LARGEST_DISTANCE, LEAST_IMAGES, measure_norms
from interpret_robust.models.external import bring
from interpret_robust.models.moments import Moments

N, C, H, W = 40, 3, 6, 5


def keep(norm: nn.BatchNorm2d, mean: Tensor, deviation: Tensor) -> nn.BatchNorm2d:
    """Give a batch norm in eval mode these statistics by channel (C,)."""
    assert norm.running_mean is not None and norm.running_var is not None
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(deviation.square() - norm.eps)
    return norm.eval()


def measure_distance(norm: nn.BatchNorm2d, *runs: Tensor) -> float:
    """Return how far values (N, C, ...) lie from the statistics of a batch norm, for one run or several in a pass."""
    halves: list[list[Moments]] = [[], []]
    for values in runs:
        for half, part in zip(halves, values.tensor_split(2), strict=True):
            moments = Moments()
            for batch in part.tensor_split(3):
                moments.add(batch)
            half.append(moments)
    return norm_check.measure_distance(norm, *halves)


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


def test_halves_of_unequal_size() -> None:
    """What is sampling is measured without bias: of 25 and 8 images, on average, no distance is left."""
    generator, squares = torch.Generator().manual_seed(0), []
    norm = keep(nn.BatchNorm2d(200), torch.zeros(200), torch.ones(200))
    for _ in range(100):
        halves = [Moments(), Moments()]
        for moments, count in zip(halves, (25, 8), strict=True):
            moments.add(torch.randn(count, 200, generator=generator))
        squares.append(norm_check.measure_distance(norm, halves[:1], halves[1:]) ** 2)
    assert np.mean(squares) < 0.01, "one half alone differs by a square of 1/8 in its mean"


def test_runs_of_one_norm_share_the_average_of_their_statistics() -> None:
    """Statistics move towards each run in turn: the variance is the mean of theirs, without that between the runs."""
    values = torch.randn(4000, C, 2, 2, generator=torch.Generator().manual_seed(0))
    norm = keep(nn.BatchNorm2d(C), torch.full((C,), 2.0), torch.ones(C))
    assert measure_distance(norm, values, values + 4) < 0.05
    assert measure_distance(norm, values) == 1
    assert norm.momentum == 0.1
    other_norm = nn.BatchNorm2d(C, momentum=0.01)
    for _ in range(1000):
        other_norm(values)
        other_norm(values + 4)
    assert measure_distance(other_norm.eval(), values, values + 4) < 0.05


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
        (Gray(second_offset=0.5, runs=2), 100, f"{SECOND} lies 0.5 deviations", "are the layers before it"),
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


def test_norms_are_watched_no_longer_than_asked_and_whatever_size_a_network_takes() -> None:
    class TwoSizes(Gray):
        def forward(self, pixels: Tensor) -> Tensor:
            assert len(pixels) in {1, 25, 50}
            return super().forward(pixels)

    network, images = TwoSizes(second_offset=0.5), torch.rand(2 * 25, C, H, W)
    expected = network(images)
    assert [*measure_norms(network, network, images)] == ["first", "second"]
    assert torch.equal(network(images), expected)
    assert not any(layer._forward_pre_hooks for layer in network.modules())
    assert LARGEST_DISTANCE < 0.5


def test_a_norm_that_runs_for_some_images_alone_is_left_out() -> None:
    class Branch(Gray):
        def forward(self, pixels: Tensor) -> Tensor:
            return super().forward(pixels) if bool(pixels[0].mean() > 0.5) else self.first(pixels).mean((2, 3))[:, :2]

    network = Branch()
    images = torch.cat([torch.ones(25, C, H, W), torch.zeros(25, C, H, W)])
    assert [*measure_norms(network, network, images)] == ["first"]


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
    """Return the batch norms that are measured."""
    return [*measure_norms(network, network, torch.rand(2 * 25, C, H, W))]


def count_doubts(network: nn.Module, data: Dataset) -> int:
    """Return how many doubts there are about batch norms."""
    doubts = bring(network, Card("mine:net", label="mine"), data, "g").doubts
    return sum("enters its batch norm" in doubt for doubt in doubts)


class Calls(Gray):
    """Calls its first batch norm with what it takes by name."""

    def forward(self, pixels: Tensor) -> Tensor:
        values = self.first(input=pixels)
        gray = self.second(input=values).mean((1, 2, 3)) + self.second_offset
        return torch.stack([-gray, gray], 1)


class Batches(Gray):
    """Computes the mean of an image and its mirror image by one call."""

    def forward(self, pixels: Tensor) -> Tensor:
        mean: Tensor = torch.func.vmap(super().forward)(torch.stack([pixels, pixels.flip(3)])).mean(0)
        return mean


class Filler(Gray):
    """Fills its batches with zeros up to 64 images."""

    def forward(self, pixels: Tensor) -> Tensor:
        zeros = pixels.new_zeros(-len(pixels) % 64, *pixels.shape[1:])
        return super().forward(torch.cat([pixels, zeros]))[: len(pixels)]


@pytest.mark.parametrize(("kind", "count"), [(Gray, 1), (Calls, 1), (Batches, 0), (Filler, 0)])
def test_norms_are_measured_where_they_see_the_images_and_nothing_else(kind: type[Gray], count: int) -> None:
    """None of them is refused. The second batch norm keeps statistics half a deviation away."""
    assert count_doubts(kind(second_offset=0.5), grays(100)) == count
    assert count_doubts(kind(), grays(100)) == 0


@pytest.mark.parametrize(("share", "count"), [(0.3, 1), (0.5, 0)])
def test_uneven_classes_are_judged_unless_one_has_many_of_the_images(share: float, count: int) -> None:
    """Of eight classes, by name alone, the first has a share of the images; half of the images are of another class."""
    network, data = Gray(second_offset=0.5), grays(100)

    class Eight(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, pixels: Tensor) -> Tensor:
            gray = self.network(pixels)
            return torch.cat([gray, gray.new_full((len(gray), 6), -9.0)], 1)

    places = np.arange(100)
    names = np.where(places < 60, data.test.labels, 2 + places % 6)
    if share == 0.5:
        names = np.where((places < 70) & (places % 7 > 0), 0, names)
    split = Split(data.test.images, names)
    largest = np.bincount(names).max() / 100
    assert largest == share if share == 0.3 else largest >= share
    assert count_doubts(Eight(), Dataset("eight", split, split, tuple("abcdefgh"))) == count
