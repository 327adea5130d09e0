"""The balls of the three norms: where an attack in one begins, which way it steps, and how it is kept inside.

    ball = make_ball("l2", eps=0.5)
    iterate = ball.project(iterate + 0.1 * ball.direction(gradient, iterate), *ball.bounds(images))

Every ball is met with the box [0, 1] of pixels, and a projection gives the nearest point of both, not that of one after
the other. What is not a number stays so in at least one pixel of its image, so that no broken model looks as if it
could not be attacked. Nothing waits for a GPU, and every sum is over one image, so that none depends on its batch.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from interpret_robust.attacks.noise import Noise
from interpret_robust.attacks.settings import NORM_TEXTS, Norm, check_norm
from interpret_robust.core.errors import UserError

TOLERANCE = 1e-6
"""How far float32 rounding may carry an adversarial pixel out of its box."""

ROUNDS = 6
"""Of Newton's method in the L2 projection. On random images and changes it ends after four at most."""

SPARSITY = 0.99
"""Share of pixels that a step in the L1 ball leaves as they are: the default of SLIDE's authors."""


class Ball(Protocol):
    """The ball of a norm around each of some images (N, C, H, W).

    Attributes:
        has_signed_steps: whether all steps have the same length in every pixel, so that iterates come back bit for bit.
    """

    has_signed_steps: ClassVar[bool]

    @property
    def eps(self) -> float:
        """Return the radius."""

    def bounds(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return what `project` has to know of the images, each with a row an image."""

    def start(self, images: Tensor, noise: Noise, *bounds: Tensor) -> Tensor:
        """Return a point that is uniform in the ball, projected on the box, from uniform noise of the images' shape."""

    def direction(self, gradient: Tensor, points: Tensor) -> Tensor:
        """Return the step of length one in this norm that climbs a gradient at `points`; none where it is zero."""

    def project(self, points: Tensor, *bounds: Tensor) -> Tensor:
        """Return the nearest points in the ball and the box; `points` may be overwritten."""

    def length(self, change: Tensor) -> Tensor:
        """Return the norm of each change, (N,)."""

    def tolerance(self, pixels: int) -> float:
        """Return how far rounding to float32 may carry an image of so many numbers out of the ball."""


@dataclass(frozen=True)
class Linf:
    """No pixel changes by more than `eps`."""

    eps: float
    has_signed_steps: ClassVar[bool] = True

    def bounds(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the least and the largest pixels."""
        return (images - self.eps).clamp_min(0), (images + self.eps).clamp_max(1)

    def start(self, images: Tensor, noise: Noise, *bounds: Tensor) -> Tensor:
        """Return uniform pixels."""
        return self.project(images + self.eps * noise(images), *bounds)

    def direction(self, gradient: Tensor, points: Tensor) -> Tensor:  # noqa: ARG002
        """Return the gradient's signs (Goodfellow et al. 2014, https://arxiv.org/abs/1412.6572)."""
        return _keep_nan(gradient.sign(), gradient)

    def project(self, points: Tensor, *bounds: Tensor) -> Tensor:
        """Return the points with every pixel clipped."""
        return points.clamp_(*bounds)

    def length(self, change: Tensor) -> Tensor:
        """Return the largest change of a pixel."""
        return change.flatten(1).abs().amax(1)

    def tolerance(self, pixels: int) -> float:  # noqa: ARG002
        """Return the tolerance of a pixel."""
        return TOLERANCE


@dataclass(frozen=True)
class L2:
    """The square root of the sum of squared changes is at most `eps`."""

    eps: float
    has_signed_steps: ClassVar[bool] = False

    def bounds(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the images."""
        return (images,)

    def start(self, images: Tensor, noise: Noise, *bounds: Tensor) -> Tensor:
        """Return points of normal directions. The radius follows from their length, which is independent of them."""
        normal = math.sqrt(2) * torch.erfinv(_open(noise(images)))
        length = self.length(normal)
        rank = torch.special.gammainc(torch.full_like(length, images[0].numel() / 2), length**2 / 2)
        return self.project(_point(images, self.eps, normal, length, rank), *bounds)

    def direction(self, gradient: Tensor, points: Tensor) -> Tensor:  # noqa: ARG002
        """Return the gradient over its L2 norm."""
        largest = gradient.flatten(1).abs().amax(1)
        ratios = gradient / _wide(largest.masked_fill(largest == 0, 1), gradient)  # whose squares are not too small
        length = torch.linalg.vector_norm(ratios.flatten(1), 2, dim=1)
        return ratios.div_(_wide(length.masked_fill(length == 0, 1), ratios))

    def project(self, points: Tensor, *bounds: Tensor) -> Tensor:
        """Return the nearest points, up to rounding.

        By the conditions of Karush, Kuhn and Tucker they are the images plus a share of the change, clipped to the box.
        The square of the length after that grows with the square of the share, piecewise linearly and ever more slowly,
        so that Newton's method climbs to eps from below, and ends. However few rounds it had, no point is outside.
        """
        (images,) = bounds
        change = points - images
        squares, limits = change.square(), _room(change, images).square()
        share = squares.new_zeros(len(points))
        for _ in range(ROUNDS):
            is_clipped = _wide(share, squares) * squares >= limits
            fixed_sum = torch.where(is_clipped, limits, 0).flatten(1).sum(1)
            rest = squares.masked_fill(is_clipped, 0).flatten(1).sum(1)
            share = ((self.eps**2 - fixed_sum).clamp_min(0) / rest.clamp_min(TINY)).clamp_max(1)
        return torch.addcmul(images, change, _wide(share.sqrt(), change)).clamp_(0, 1)

    def length(self, change: Tensor) -> Tensor:
        """Return the L2 norms, float64."""
        return _length(change, 2)

    def tolerance(self, pixels: int) -> float:
        """Return the L2 norm of an image of roundings."""
        return ROUNDING * math.sqrt(pixels)


@dataclass(frozen=True)
class L1:
    """The sum of absolute changes is at most `eps`."""

    eps: float
    has_signed_steps: ClassVar[bool] = False

    def bounds(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the images."""
        return (images,)

    def start(self, images: Tensor, noise: Noise, *bounds: Tensor) -> Tensor:
        """Return points of exponential sizes. The radius follows from their sum, which is independent of the rest."""
        uniform = _open(noise(images))
        laplace = -uniform.sign() * torch.log1p(-uniform.abs())
        length = self.length(laplace)
        rank = torch.special.gammainc(torch.full_like(length, images[0].numel()), length)
        return self.project(_point(images, self.eps, laplace, length, rank), *bounds)

    def direction(self, gradient: Tensor, points: Tensor) -> Tensor:
        """Return the signs of the steepest pixels, a hundredth of all, over their number.

        This is SLIDE (Tramer & Boneh 2019, https://arxiv.org/abs/1904.13000), which leaves out pixels that the box lets
        go no further.
        """
        is_stopped = ((points <= 0) & (gradient < 0)) | ((points >= 1) & (gradient > 0))
        steepness = gradient.abs().masked_fill(is_stopped, 0).flatten(1)
        count = max(1, round((1 - SPARSITY) * steepness.shape[1]))
        threshold = steepness.topk(count).values[:, -1:]
        signs = gradient.flatten(1).sign() * ((steepness >= threshold) & (steepness > 0))
        steps = (signs / signs.abs().sum(1, keepdim=True).clamp_min(1)).view_as(gradient)
        return _keep_nan(steps, gradient)

    def project(self, points: Tensor, *bounds: Tensor) -> Tensor:
        """Return the nearest points, up to rounding (Croce & Hein 2021, https://arxiv.org/abs/2103.01208, Section 3).

        Every absolute change is cut by one number, and then at the box. Their sum is piecewise linear in that number,
        with a break at each change and at each change less its room.
        """
        (images,) = bounds
        change = points - images
        room = _room(change, images)
        sizes = change.abs().flatten(1)
        breaks, order = torch.cat([sizes, sizes - room.flatten(1)], 1).sort(1, descending=True)
        slope, breaks = torch.where(order < sizes.shape[1], 1.0, -1.0), breaks.double()
        sums, count = (slope * breaks).cumsum(1), slope.cumsum(1)
        is_enough = sums - count * breaks >= self.eps
        place = is_enough.to(torch.int8).argmax(1, keepdim=True)  # the break at which the sum has reached eps
        start_place = (place - 1).clamp_min(0)
        cut = (sums.gather(1, start_place) - self.eps) / count.gather(1, start_place).clamp_min(1)
        cut = cut.clamp(breaks.gather(1, place), breaks.gather(1, start_place))  # where rounding leaves no slope
        cut = torch.where(is_enough.any(1, keepdim=True), cut, 0).clamp_min(0).to(change.dtype)
        size = torch.minimum((change.abs() - _wide(cut, change)).clamp_min(0), room)
        return torch.addcmul(images, change.sign(), size).clamp_(0, 1).add_(change, alpha=0)

    def length(self, change: Tensor) -> Tensor:
        """Return the L1 norms, float64."""
        return _length(change, 1)

    def tolerance(self, pixels: int) -> float:
        """Return the L1 norm of an image of roundings."""
        return ROUNDING * pixels


ROUNDING = 2.0**-23
"""Most that rounding to float32 moves a pixel, twice over: once for the change, once for the sum."""
TINY = 1e-30
BALLS: dict[Norm, Callable[[float], Ball]] = {"linf": Linf, "l2": L2, "l1": L1}


def make_ball(norm: Norm, eps: float) -> Ball:
    """Return the ball of a norm and radius. Raises UserError for a norm that is none of `Norm`."""
    check_norm(norm)
    return BALLS[norm](eps)


def measure_diameter(norm: Norm, pixels: int) -> float:
    """Return the largest distance of two images of so many numbers in [0, 1]."""
    return {"linf": 1.0, "l2": math.sqrt(pixels), "l1": float(pixels)}[norm]


def check_reach(norm: Norm, eps: float, pixels: int) -> None:
    """Raise UserError where a ball holds all images of so many numbers: such a radius is in another unit or norm."""
    if eps > (largest := measure_diameter(norm, pixels)):
        raise UserError(
            f"eps is {eps:g}: in {NORM_TEXTS[norm]} no two images of {pixels} numbers in [0, 1] are farther apart than "
            f"{largest:.4g}, so give less (the unit is pixels in [0, 1], not 0 to 255)."
        )


def _point(images: Tensor, eps: float, rays: Tensor, length: Tensor, rank: Tensor) -> Tensor:
    """Return points along rays (N, C, H, W) of this length (N,), at which `rank` (N,) of the ball lies nearer."""
    radius = eps * rank ** (1 / images[0].numel())
    return images + rays * _wide((radius / length).to(rays.dtype), rays)


def _open(noise: Tensor) -> Tensor:
    """Return noise without its lower end -1, where no quantile is finite."""
    return noise.clamp_min(2.0**-23 - 1)


def _room(change: Tensor, images: Tensor) -> Tensor:
    """Return how far each pixel may go the way it changes."""
    return torch.where(change > 0, 1 - images, images)


def _keep_nan(direction: Tensor, gradient: Tensor) -> Tensor:
    """Return a direction that is NaN where the gradient is no number: the sign of NaN is 0."""
    return direction.add_(gradient, alpha=0)


def _length(change: Tensor, order: int) -> Tensor:
    """Return a norm of each change, (N,), float64."""
    length: Tensor = torch.linalg.vector_norm(change.flatten(1), order, dim=1, dtype=torch.float64)
    return length


def _wide(values: Tensor, like: Tensor) -> Tensor:
    """Return values (N,) or (N, 1) with as many axes as `like`."""
    return values.view(-1, *[1] * (like.ndim - 1))
