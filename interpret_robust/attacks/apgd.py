"""Auto-PGD in the l-infinity or L2 ball: projected ascent that halves its own step (Croce & Hein 2020, Algorithm 1).

    noise = per_image_noise(seed=0, indices=range(len(images)))
    adversarial, gradients = APGD(eps=8 / 255)(model, images, labels, noise)
    adversarial, gradients = TargetedAPGD(eps=8 / 255)(model, images, labels, noise)

https://arxiv.org/abs/2003.01690. Images are pixels in [0, 1]. No step size is to be chosen: it begins at twice the
radius, is judged after some of the steps, and is halved, for each image alone, where the loss has not risen often
enough. As in `pgd`, no gradient depends on the batch, and the model's mode, its running statistics, whether its weights
ask for gradients and the global random state are left as found.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from interpret_robust.attacks.adversarial import check_adversarial
from interpret_robust.attacks.network import freeze_weights, switch_batch_norm
from interpret_robust.attacks.noise import Noise
from interpret_robust.attacks.norms import Ball, check_reach, make_ball
from interpret_robust.attacks.settings import Norm, check_numbers
from interpret_robust.core.errors import UserError, unknown
from interpret_robust.models import Classifier
from interpret_robust.models.classifier import predict_classes
from interpret_robust.models.folding import fold
from interpret_robust.models.losses import cross_entropy, margin_loss

LossName = Literal["cross-entropy", "dlr"]
LossOfLogits = Callable[[Tensor], Tensor]
"""Given logits (N, classes), the loss of each image (N,), to be made large."""

MOMENTUM = 0.75
"""Share of the new step in an update; the rest repeats the last one (alpha of the paper)."""
RISES = 0.75
"""Share of the steps since the step size was judged last at which the loss has to rise for it to stay (rho)."""
FIRST_STRETCH, SHORTER, SHORTEST = 22, 3, 6
"""Percent of all steps: the first stretch until step sizes are judged, by how much each is shorter, and the shortest.
"""
MOST_TARGETS = 9
"""Classes that the targeted attack aims at, as in AutoAttack."""
_TINY = 1e-12


class Ascent(NamedTuple):
    """What an attack found: adversarial images (N, C, H, W), and how many gradients each image cost (N,)."""

    adversarial: Tensor
    gradients: Tensor


@dataclass(frozen=True)
class APGD:
    """Untargeted APGD, one random start.

    Attributes:
        eps: radius in pixel units; within [0, 1] in l-infinity.
        steps: number of steps, each of one gradient.
        loss: `cross-entropy` (APGD-CE) or `dlr`, the difference of logits ratio, which needs three classes.
        norm: `linf` or `l2`.

    Raises UserError for values outside these ranges.
    """

    eps: float
    steps: int = 100
    loss: LossName = "cross-entropy"
    norm: Norm = "linf"

    def __post_init__(self) -> None:
        check_apgd(self.eps, self.steps, self.norm)
        if self.loss not in get_args(LossName):
            raise unknown("loss", self.loss, get_args(LossName))

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, noise: Noise) -> Ascent:
        """Return, for each image, the misclassified iterate of largest loss, or the iterate of largest loss where
        none is.

        Raises UserError where the model's gradients are not numbers or it has too few classes for the loss.
        """
        loss = cross_entropy if self.loss == "cross-entropy" else dlr
        images, ball = images.float(), make_ball(self.norm, self.eps)
        check_reach(self.norm, self.eps, math.prod(images.shape[1:]))
        with _attackable(model) as subject:
            start = ball.start(images, noise, *ball.bounds(images))
            ascent = ascend(subject, images, labels, start, lambda logits: loss(logits, labels), ball, self.steps)
        ascent = check_adversarial(model, ascent, images, self.eps, self.norm)
        return Ascent(ascent, torch.full_like(labels, self.steps))


@dataclass(frozen=True)
class TargetedAPGD:
    """APGD-T: APGD towards one wrong class after the other, likeliest first, on the targeted DLR loss.

    An image is attacked until a target has broken it. One that is wrong without an attack stays as it is.

    Attributes:
        eps: radius in pixel units; within [0, 1] in l-infinity.
        steps: number of steps towards each target, each of one gradient.
        targets: most classes aimed at; of fewer than ten classes, all but the true one.
        norm: `linf` or `l2`.

    Raises UserError for values outside these ranges.
    """

    eps: float
    steps: int = 100
    targets: int = MOST_TARGETS
    norm: Norm = "linf"

    def __post_init__(self) -> None:
        check_apgd(self.eps, self.steps, self.norm)
        if self.targets < 1:
            raise UserError(f"targets is {self.targets}: APGD-T must aim at one class at least.")

    def __call__(
        self, model: nn.Module, images: Tensor, labels: Tensor, noise: Noise, subset: Tensor | None = None
    ) -> Ascent:
        """Return, for each image, the misclassified iterate of largest loss, or the last target's best where none is.

        Where `subset` (N,) is False an image is not attacked. Raises UserError where the model's gradients are not
        numbers or it has fewer than four classes.
        """
        adversarial, gradients = images.float().clone(), torch.zeros_like(labels)
        ball = make_ball(self.norm, self.eps)
        check_reach(self.norm, self.eps, math.prod(images.shape[1:]))
        bounds = ball.bounds(images.float())
        with _attackable(model) as subject:
            logits = _logits(subject, adversarial)
            right = (predict_classes(logits) == labels) & (True if subset is None else subset)
            targets = _wrong_classes(logits, labels)[:, : self.targets]
            for target in targets.T:
                start = ball.start(images.float(), noise, *bounds)  # of all, so that no stream depends on others
                (places,) = right.nonzero(as_tuple=True)
                if len(places) == 0:
                    break
                loss = _targeted_loss(target[places], labels[places])
                ascent = ascend(subject, images[places].float(), labels[places], start[places], loss, ball, self.steps)
                adversarial[places] = ascent
                gradients[places] += self.steps
                right[places] = predict_classes(_logits(subject, ascent)) == labels[places]
        return Ascent(check_adversarial(model, adversarial, images, self.eps, self.norm), gradients)


def dlr(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the difference of logits ratio (N,), Eq. 6 of the paper: above zero where misclassified, whatever the
    logits' scale.

    The margin loss over the distance between the largest and the third largest logit. Raises UserError for fewer than
    three classes.
    """
    _require_classes(logits, 3, "the DLR loss")
    top = logits.topk(3).values
    return margin_loss(logits, labels) / (top[:, 0] - top[:, 2] + _TINY)


def targeted_dlr(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """Return the targeted difference of logits ratio (N,), Eq. 7: the target's logit minus the true one, scaled.

    The scale is the distance of the largest logit from the mean of the third and fourth. Raises UserError for fewer
    than four classes.
    """
    _require_classes(logits, TARGETED_CLASSES, "APGD-T")
    top = logits.topk(4).values
    ahead = logits.gather(1, targets[:, None]) - logits.gather(1, labels[:, None])
    return ahead[:, 0] / (top[:, 0] - (top[:, 2] + top[:, 3]) / 2 + _TINY)


def list_judged_steps(steps: int) -> tuple[int, ...]:
    """Return the steps after which step sizes are judged, rising, of so many in all: the paper's checkpoints.

    For 100, 22, 41, 57, 70, 80, 87, 93 and 99.
    """
    percents, stretch = [FIRST_STRETCH], FIRST_STRETCH
    while percents[-1] < 100:
        stretch = max(stretch - SHORTER, SHORTEST)
        percents.append(percents[-1] + stretch)
    return tuple(sorted({-(-percent * steps // 100) for percent in percents if percent <= 100}))


@dataclass
class StepSize:
    """The step size of each image, (N,), halved where the loss rises too seldom.

    Attributes:
        size: the step sizes now.
        best: each image's largest loss so far.
    """

    size: Tensor
    best: Tensor
    _steps: int = field(default=0, init=False)
    _last: Tensor = field(init=False)
    _rises: Tensor = field(init=False)
    _is_halved: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self._last, self._rises = self.best, torch.zeros_like(self.best)
        # At first there is no step size before to compare with.
        self._is_halved = torch.ones_like(self.best, dtype=torch.bool)

    def note(self, value_before: Tensor, value_after: Tensor) -> Tensor:
        """Count a step that took the loss from `value_before` to `value_after`.

        Return where (N,) it is the largest so far.
        """
        better = ~(value_after <= self.best)  # also for what is not a number, which must not be overlooked
        self.best = torch.where(better, value_after, self.best)
        self._rises += value_after > value_before
        self._steps += 1
        return better

    def judge(self) -> Tensor:
        """Halve step sizes, and begin to count anew; return where (N,) they were halved.

        Halved where the loss has risen at fewer than RISES of the steps since the last judgment, or where the step
        size was kept there and the largest loss is still the same.
        """
        is_stuck = ~self._is_halved & (self.best == self._last)
        self._is_halved = (self._rises < RISES * self._steps) | is_stuck
        self.size = torch.where(self._is_halved, self.size / 2, self.size)
        self._last, self._rises, self._steps = self.best, torch.zeros_like(self.best), 0
        return self._is_halved


def ascend(
    model: nn.Module, images: Tensor, labels: Tensor, start: Tensor, loss: LossOfLogits, ball: Ball, steps: int
) -> Tensor:
    """Climb the loss of each image from `start`: its misclassified iterate of largest loss, or that of largest loss.

    The caller sets the model's mode. A loss that is not a number is returned as it is.
    """
    bounds = ball.bounds(images)
    iterate = previous = start
    value, gradient, wrong = _look(model, iterate, labels, loss, steps > 0)
    size = StepSize(torch.full_like(value, 2 * ball.eps), value)
    best, best_gradient = iterate, gradient
    answer, answer_rank = iterate, (wrong, value)
    judged_steps = list_judged_steps(steps)
    for step in range(1, steps + 1):
        ahead = ball.project(iterate + _wide(size.size) * ball.direction(gradient, iterate), *bounds)
        share = MOMENTUM if step > 1 else 1.0
        previous, iterate = (
            iterate,
            ball.project(iterate + share * (ahead - iterate) + (1 - share) * (iterate - previous), *bounds),
        )
        value_before, (value, gradient, wrong) = value, _look(model, iterate, labels, loss, step < steps)
        better = size.note(value_before, value)
        best, best_gradient = (_pick(better, *pair) for pair in ((iterate, best), (gradient, best_gradient)))
        is_better = _is_better((wrong, value), answer_rank)
        answer = _pick(is_better, iterate, answer)
        answer_rank = wrong | answer_rank[0], torch.where(is_better, value, answer_rank[1])
        if step in judged_steps:
            returns = size.judge()
            iterate, gradient = _pick(returns, best, iterate), _pick(returns, best_gradient, gradient)
            value = torch.where(returns, size.best, value)
    return answer


def _look(
    model: nn.Module, images: Tensor, labels: Tensor, loss: LossOfLogits, differentiate: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the loss (N,), its gradient (zeros where not wanted), and which images (N,) are misclassified."""
    with torch.set_grad_enabled(differentiate):
        images = images.detach().requires_grad_(differentiate)
        logits = model(images).float()
        values = loss(logits)
        gradient = torch.autograd.grad(values.sum(), images)[0] if differentiate else torch.zeros_like(images)
    return values.detach(), gradient, predict_classes(logits) != labels


def _is_better(new: tuple[Tensor, Tensor], old: tuple[Tensor, Tensor]) -> Tensor:
    """Return where (N,) the new of two (misclassified, loss) is the better answer, also where its loss is no number."""
    (wrong, value), (old_wrong, old_value) = new, old
    return (wrong & ~old_wrong) | ((wrong == old_wrong) & ~(value <= old_value)) | value.isnan()


def _pick(mask: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Return images of `first` where (N,), else of `second`."""
    return torch.where(_wide(mask), first, second)


def _wide(values: Tensor) -> Tensor:
    return values[:, None, None, None]


def _wrong_classes(logits: Tensor, labels: Tensor) -> Tensor:
    """Return all classes but the true one (N, classes - 1), the likeliest first."""
    others_only = logits.scatter(1, labels[:, None], -torch.inf)
    return others_only.argsort(dim=1, descending=True, stable=True)[:, :-1]


def _targeted_loss(targets: Tensor, labels: Tensor) -> LossOfLogits:
    return lambda logits: targeted_dlr(logits, labels, targets)


@torch.no_grad()
def _logits(model: nn.Module, images: Tensor) -> Tensor:
    logits: Tensor = model(images).float()
    return logits


@contextmanager
def _attackable(model: nn.Module) -> Iterator[nn.Module]:
    """Yield the model by its running statistics, with weights that ask for no gradients; both as before afterwards."""
    with switch_batch_norm(model, "eval"), freeze_weights(model):
        on_cpu = all(weights.device.type == "cpu" for weights in model.parameters())
        yield fold(model) if on_cpu and isinstance(model, Classifier) else model


def _require_classes(logits: Tensor, classes: int, attack_name: str) -> None:
    if logits.shape[1] < classes:
        raise UserError(
            f"{attack_name} needs {classes} classes and the model has {logits.shape[1]}: use the cross-entropy."
        )


TARGETED_CLASSES = 4
"""Classes that the loss of APGD-T compares: the true one, the target, and the third and fourth largest logits."""


def check_apgd(eps: float, steps: int, norm: Norm) -> None:
    """Raise UserError for numbers that APGD cannot have, and in the L1 ball, where it is another algorithm."""
    check_numbers(eps, 0, steps, norm=norm)
    if steps < 1:
        raise UserError(f"APGD of {steps} steps: there must be at least one.")
    if norm == "l1":
        raise UserError("APGD is for linf and l2: in L1 it is another algorithm (Croce & Hein 2021); use PGD there.")
