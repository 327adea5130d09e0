"""Projected gradient descent in the ball of a norm, in training and in analyses.

    attack = PGD(eps=8 / 255, step_size=2 / 255, steps=20)
    adversarial = attack(model, images, labels, per_image_noise(seed=0, indices=range(len(images))))

Images are pixels in [0, 1]. The iterate stays in float32 and is recomputed from the clean image at each
step; the loss is summed, so that no gradient depends on the batch; only the gradient with respect to the
images is taken. The model's mode, its running statistics, whether its weights ask for gradients and the global random
state are left as found.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from numbers import Real
from typing import cast

import torch
from torch import Tensor, nn

from interpret_robust.attacks import cache
from interpret_robust.attacks.adversarial import check_adversarial
from interpret_robust.attacks.cycles import FINE_GRANULE, FIRST_CHECK, GRANULE, read_at
from interpret_robust.attacks.inputs import check_fit, check_pixels, check_tensors
from interpret_robust.attacks.network import as_classifier, check_weights, freeze_weights, switch_batch_norm
from interpret_robust.attacks.noise import Noise, per_image_noise
from interpret_robust.attacks.norms import Ball, check_reach, make_ball
from interpret_robust.attacks.settings import BatchNormMode, LossName, Norm, check_numbers, choose_step
from interpret_robust.core.errors import UserError, check_truth, describe
from interpret_robust.models import Classifier
from interpret_robust.models.classifier import answers_repeat
from interpret_robust.models.folding import fold
from interpret_robust.models.losses import LOSSES, loss_gradient, margin_loss
from interpret_robust.models.recomputation import avoid_reentrant_recomputation


@dataclass(frozen=True)
class PGD:
    """PGD (Madry et al. 2017, https://arxiv.org/abs/1706.06083, Eq. 2 of the paper).

    Attributes:
        eps: radius in pixel units; within [0, 1] in l-infinity.
        step_size: length of a step, same units, from 0 on; by default a share of `eps`: 1/4 in l-infinity, 1/8 in L2,
            1/10 in L1.
        steps: number of steps, from 0 on.
        restarts: independent random starts, at least 1; of each image the one with the smallest margin is kept.
        random_start: begin at a uniform point of the ball instead of at the image.
        loss: `cross-entropy`, or `margin` (Carlini & Wagner: the best other logit minus the true one).
        batch_norm: `eval` uses running statistics; `train` uses the batch's and updates the running ones
            at each forward pass, as the CIFAR-10 challenge does in training.
        norm: `linf`, `l2` or `l1`, see `attacks.norms`.
        targeted: labels are the classes that images shall be taken for, and the loss is minimized.

    Raises UserError for values outside these ranges.

    Example:
        >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2))
        >>> images, labels = torch.rand(5, 3, 2, 2), torch.tensor([0, 1, 0, 1, 1])
        >>> adversarial = ir.PGD(eps=8 / 255, steps=3)(network, images, labels)
        >>> bool((adversarial - images).abs().max() <= 8 / 255 + 1e-6)
        True
    """

    eps: float
    step_size: float = cast(float, None)  # a share of eps
    steps: int = 20
    restarts: int = 1
    random_start: bool = True
    loss: LossName = "cross-entropy"
    batch_norm: BatchNormMode = "eval"
    norm: Norm = "linf"
    targeted: bool = False

    def __post_init__(self) -> None:
        if self.step_size is None and isinstance(self.eps, Real) and not isinstance(self.eps, bool):
            object.__setattr__(self, "step_size", choose_step(self.eps, self.norm))
        check_numbers(self.eps, self.step_size, self.steps, self.restarts, self.loss, self.batch_norm, self.norm)
        check_truth("random_start", self.random_start)
        check_truth("targeted", self.targeted)

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, noise: Noise | None = None) -> Tensor:
        """Return adversarial images, float32, inside the ball around `images` and inside [0, 1].

        Args:
            model: any module that gives logits (N, classes) from pixels in [0, 1]; it may work in their place. One in
                double precision gets them so.
            images: (N, C, H, W), pixels in [0, 1].
            labels: true classes (N,) or (N, 1), integers of any width; the wanted ones where `targeted`.
            noise: where each image begins; by default a function of the image's place in the batch, with seed 0.

        Raises UserError for images outside [0, 1] or of other axes, for labels that are not one class of the model an
        image, for answers that are not logits, and where the model's gradients are not numbers.

        Example:
            >>> adversarial = PGD(eps=8 / 255, steps=20)(model, images, labels)
        """
        if not isinstance(model, nn.Module):
            raise UserError(f"the model is {describe(model)}: give a torch.nn.Module.")
        check_tensors(images, labels)
        images = images.detach()
        if len(images) == 0:
            return images.float()
        check_pixels(images)
        noise = per_image_noise(0, range(len(images))) if noise is None else noise
        model = as_classifier(model)
        with torch.inference_mode(mode=False):
            images, labels = (_copy_for_gradients(tensor) for tensor in (images, labels.reshape(-1).long()))
            try:
                with avoid_reentrant_recomputation():
                    adversarial = self.search(model, images, labels, noise)
            except (IndexError, RuntimeError):
                check_weights(model)
                check_fit(model, images, labels)
                raise
            return check_adversarial(model, adversarial, images, self.eps, self.norm)

    def search(self, model: nn.Module, images: Tensor, labels: Tensor, noise: Noise) -> Tensor:
        """Attack as a call does, but without a look at what was found, for which a GPU would have to stop."""
        images = images.float()
        with switch_batch_norm(model, self.batch_norm), freeze_weights(model):
            model = as_classifier(model)
            if isinstance(model, Classifier) and self.batch_norm == "eval" and images.device.type == "cpu":
                model = fold(model)
            candidates = [self._last(model, images, labels, noise) for _ in range(self.restarts)]
            return candidates[0] if self.restarts == 1 else self._best(model, candidates, labels)

    def iterates(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        noise: Noise,
        steps: Sequence[int] | None = None,
        counts: Tensor | None = None,
    ) -> Iterator[tuple[int, Tensor]]:
        """Yield (step, iterate (N, C, H, W)) for each of `steps`, by default the start and every step.

        Steps that are known to repeat earlier ones are not computed again (see `attacks.cycles`); `counts` (N,) int64
        counts the gradients that were. Nor are iterates that another analysis of this process has taken, which count as
        if they were taken here (see `attacks.cache`). The caller sets the model's mode.
        """
        ball = make_ball(self.norm, self.eps)
        if isinstance(self.eps, Real):  # one on a GPU is not waited for
            check_reach(self.norm, self.eps, math.prod(images.shape[1:]))
        bounds = ball.bounds(images)
        start = ball.start(images, noise, *bounds) if self.random_start else images
        advance = partial(self._advance, model, ball)
        chosen_steps = range(self.steps + 1) if steps is None else steps
        constants = (labels, *bounds)
        is_long = ball.has_signed_steps and max(chosen_steps, default=0) > FIRST_CHECK
        is_exact = self.batch_norm == "eval" and images.device.type == "cpu"  # a GPU rounds by the size of the batch

        def compute(counts: Tensor | None) -> Iterator[tuple[int, Tensor]]:
            repeats = is_long and is_exact and answers_repeat(model, images[:1])
            granule = partial(choose_granule, model, start, labels, self.loss) if repeats else None
            return read_at(advance, start, constants, chosen_steps, choose_granule=granule, counts=counts)

        if steps is None:
            return compute(counts)
        attack = (self.norm, self.eps, self.step_size, self.targeted, self.loss, self.batch_norm)
        is_alone = is_exact and isinstance(model, Classifier) and model.answers_alone
        return cache.read(model, attack, (images, start, labels), steps, compute, counts, is_exact=is_alone)

    def _advance(self, model: nn.Module, ball: Ball, adversarial: Tensor, labels: Tensor, *bounds: Tensor) -> Tensor:
        """Return the next iterate: one step up the loss, or down where `targeted`.

        The gradient is negated, not the step, since a direction may depend on which way the box leaves pixels free.
        """
        gradient = loss_gradient(model, adversarial, labels, LOSSES[self.loss])
        direction = ball.direction(-gradient if self.targeted else gradient, adversarial)
        # Not `alpha`, which a tensor on a GPU cannot be.
        return ball.project(direction.mul_(self.step_size).add_(adversarial), *bounds)

    def _last(self, model: nn.Module, images: Tensor, labels: Tensor, noise: Noise) -> Tensor:
        ((_, iterate),) = self.iterates(model, images, labels, noise, [self.steps])
        return iterate

    def _best(self, model: nn.Module, candidates: list[Tensor], labels: Tensor) -> Tensor:
        """Return, for each image, the candidate with the largest margin loss, the smallest towards a target."""
        sign = -1 if self.targeted else 1
        with torch.no_grad():
            losses = torch.stack([sign * margin_loss(model(candidate).float(), labels) for candidate in candidates])
        return torch.stack(candidates)[losses.argmax(0), torch.arange(len(labels), device=labels.device)]


def _copy_for_gradients(tensor: Tensor) -> Tensor:
    """Return a tensor that may take part in gradients, as one that was made in inference mode may not."""
    return tensor.clone() if tensor.is_inference() else tensor


def choose_granule(model: nn.Module, images: Tensor, labels: Tensor, loss: LossName) -> int:
    """Return FINE_GRANULE where gradients of so few images are, bit for bit, those among GRANULE, else GRANULE.

    That depends on the processor and on the layers. `images` are (N, C, H, W) with `labels` (N,); the gradients that
    this takes, 48 of images, are not counted as those of an attack.
    """
    if len(images) <= GRANULE:
        return GRANULE
    small_batch, large_batch = (
        loss_gradient(model, images[:count], labels[:count], LOSSES[loss]) for count in (FINE_GRANULE, GRANULE)
    )
    return FINE_GRANULE if torch.equal(small_batch, large_batch[:FINE_GRANULE]) else GRANULE
