"""Short steps along gradients: closed forms, and networks whose answers do not follow their gradients."""

import math

import pytest
import torch
from torch import Tensor, nn

from interpret_robust.models.checks.steps import STEP, doubt_about_steps, measure_gains
from interpret_robust.models.classifier import Classifier

N, C, H, W = 20, 3, 5, 4


class Function(Classifier):
    """Two classes, the second of which leads by a function of the sum of an image's pixels."""

    def __init__(self, kind: str) -> None:
        super().__init__(nn.Identity(), nn.Identity(), nn.Identity())
        self.kind = kind

    def forward(self, pixels: Tensor) -> Tensor:
        value = pixels.sum((1, 2, 3))
        margin = {
            "linear": lambda: 2 * value,
            "square": lambda: value**2,
            "wave": lambda: value + torch.sin(3000 * value),
            "half": lambda: (value + torch.sin(3000 * value)).half().float(),
            "random": lambda: value * (1 + torch.rand(())),
            "detached": lambda: 2 * value - value.detach(),
            "level": lambda: value * 1e-9 + 100,
        }[self.kind]()
        return torch.stack([-margin, 0 * margin], 1)


def images(count: int = N) -> tuple[Tensor, Tensor]:
    """Return images (count, C, H, W) within [0.2, 0.8], and labels of class 1."""
    generator = torch.Generator().manual_seed(0)
    return 0.2 + 0.6 * torch.rand(count, C, H, W, generator=generator).double(), torch.ones(count, dtype=torch.long)


def test_the_gain_of_a_linear_and_of_a_squared_margin() -> None:
    """A step lowers the sum s by d = STEP C H W: s^2 falls by (2s - d) d, where the gradient says 2s d."""
    pixels, labels = images()
    assert measure_gains(Function("linear"), pixels, labels).tolist() == pytest.approx([1.0] * N)
    sums, change = pixels.sum((1, 2, 3)), STEP * C * H * W
    expected = 1 - change / (2 * sums)
    assert measure_gains(Function("square"), pixels, labels).tolist() == pytest.approx(expected.tolist())


def test_pixels_that_cannot_move_promise_nothing() -> None:
    """At 0 a pixel does not fall further: the others' promise is kept."""
    pixels, labels = images()
    pixels[:, 0] = 0
    assert measure_gains(Function("linear"), pixels, labels).tolist() == pytest.approx([1.0] * N)


def test_promises_below_rounding_are_left_out() -> None:
    pixels, labels = images()
    assert len(measure_gains(Function("level"), pixels, labels)) == 0
    assert doubt_about_steps(Function("level"), pixels, labels, 8) is None


@pytest.mark.parametrize(
    ("kind", "is_doubted"),
    [("linear", False), ("square", False), ("wave", True), ("detached", True), ("half", False), ("random", False)],
)
@pytest.mark.parametrize("first", [8, N])
def test_who_is_doubted(kind: str, is_doubted: bool, first: int) -> None:
    """Waves move the margin by other amounts than their slope says; other checks tell of the last two kinds."""
    pixels, labels = images()
    doubt = doubt_about_steps(Function(kind), pixels, labels, first)
    assert (doubt is not None) == is_doubted
    if doubt is not None:
        assert doubt.startswith("does not follow its gradients: a step of 0.25/255 along them moves the margin")
    if doubt is not None and kind == "detached":
        assert "of 20 images by 50% to 50% of what they say" in doubt


def test_a_hint_of_the_first_images_has_to_hold_on_all() -> None:
    """Of the first four images three lie on a wave; of all twenty, three do."""

    class Mixture(Function):
        def forward(self, pixels: Tensor) -> Tensor:
            value, is_wavy = pixels.sum((1, 2, 3)), pixels[:, 0, 0, 0] > 0.9
            margin = value + torch.where(is_wavy, torch.sin(3000 * value), 0)
            return torch.stack([-margin, 0 * margin], 1)

    pixels, labels = images()
    pixels[:3, 0, 0, 0] = 0.95
    network = Mixture("mixed")
    assert doubt_about_steps(network, pixels[:4], labels[:4], 4) is not None
    assert doubt_about_steps(network, pixels, labels, 4) is None
    assert math.isclose(float(measure_gains(network, pixels, labels).median()), 1, abs_tol=1e-6)
