"""Projected gradient descent in the ball of a norm, in training and in analyses.

    attack = PGD(eps=8 / 255, step_size=2 / 255, steps=20)
    adversarial = attack(model, images, labels, per_image_noise(seed=0, indices=range(len(images))))

Images are pixels in [0, 1]. The iterate stays in float32 and is recomputed from the clean image at each
step; the loss is summed, so that no gradient depends on the batch; only the gradient with respect to the
images is taken. The model's mode, its running statistics, whether its weights ask for gradients and the global random
state are left as found.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from numbers import Real
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from interpret_robust.attacks import cache
from interpret_robust.attacks.ball import BatchNormMode, LossName, Norm, check_numbers, default_step
from interpret_robust.attacks.cycles import FINE_GRANULE, FIRST_CHECK, GRANULE, read_at
from interpret_robust.attacks.norms import TOLERANCE, Noise, check_reach, make_ball
from interpret_robust.core.errors import NotFiniteError, UserError, check_truth, describe
from interpret_robust.core.random_numbers import streams
from interpret_robust.models import Classifier
from interpret_robust.models.classifier import precisions
from interpret_robust.models.folding import fold
from interpret_robust.models.logits import as_logits, kind
from interpret_robust.models.losses import cross_entropy, margin_loss
from interpret_robust.models.recomputation import avoid_reentrant_recomputation

Classes = npt.NDArray[np.integer]


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
            object.__setattr__(self, "step_size", default_step(self.eps, self.norm))
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
        with batch_norm_mode(model, self.batch_norm), weights_frozen(model):
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
        ahead = -self.step_size if self.targeted else self.step_size

        def advance(adversarial: Tensor, labels: Tensor, *bounds: Tensor) -> Tensor:
            gradient = image_gradient(model, adversarial, labels, self.loss)
            # Not `alpha`, which a tensor on a GPU cannot be.
            return ball.project(ball.direction(gradient, adversarial).mul_(ahead).add_(adversarial), *bounds)

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
        attack = (self.norm, self.eps, ahead, self.loss, self.batch_norm)
        is_alone = is_exact and isinstance(model, Classifier) and model.answers_alone
        return cache.read(model, attack, (images, start, labels), steps, compute, counts, is_exact=is_alone)

    def _last(self, model: nn.Module, images: Tensor, labels: Tensor, noise: Noise) -> Tensor:
        ((_, iterate),) = self.iterates(model, images, labels, noise, [self.steps])
        return iterate

    def _best(self, model: nn.Module, candidates: list[Tensor], labels: Tensor) -> Tensor:
        """Return, for each image, the candidate with the largest margin loss, the smallest towards a target."""
        sign = -1 if self.targeted else 1
        with torch.no_grad():
            losses = torch.stack([sign * margin_loss(model(candidate).float(), labels) for candidate in candidates])
        return torch.stack(candidates)[losses.argmax(0), torch.arange(len(labels), device=labels.device)]


class OnCopies(nn.Module):
    """A network whose images are copied first: its first layer may change them in place.

    One whose weights are all in double precision gets them so.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.dtype = torch.float64 if precisions(network) == {torch.float64} else torch.float32

    def forward(self, images: Tensor) -> Tensor:
        """Return the network's logits (N, classes) of images (N, C, H, W), which stay as they are.

        Raises UserError for other answers than logits, and for one logit: the cross-entropy of one class is zero, so
        that nothing would be changed.
        """
        answer = self.network(images.to(self.dtype, copy=True))
        if not isinstance(answer, Tensor):
            raise UserError(
                f"the model answers with {kind(answer)}: let it return the logits (N, classes) alone, as "
                "ir.load(model, data) reads them."
            )
        logits = as_logits(answer, None, None, answer.dtype)
        if logits.ndim != 2 or len(logits) != len(images):
            raise UserError(
                f"the model answers {len(images)} images with {kind(answer)}: let it return logits (N, classes)."
            )
        if logits.shape[1:] == (1,):
            raise UserError("the model has one logit z, which no loss can lower: give two, torch.cat([-z, z], 1) / 2.")
        return logits


def as_classifier(model: nn.Module) -> nn.Module:
    """Return a model that leaves images as they are and answers with logits (N, classes): itself, or around it."""
    return model if isinstance(model, Classifier | OnCopies) else OnCopies(model)


def _copy_for_gradients(tensor: Tensor) -> Tensor:
    """Return a tensor that may take part in gradients, as one that was made in inference mode may not."""
    return tensor.clone() if tensor.is_inference() else tensor


def answers_repeat(model: nn.Module, image: Tensor) -> bool:
    """Return whether a model answers an image the same each time and by itself, as far as one can tell cheaply.

    That is known of our own networks only; one that draws random numbers for `image` (1, C, H, W) is none of them.
    """
    if not (isinstance(model, Classifier) and model.answers_alone):
        return False
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        state = torch.get_rng_state()
        model(image)
        return torch.equal(state, torch.get_rng_state())


def choose_granule(model: nn.Module, images: Tensor, labels: Tensor, loss: LossName) -> int:
    """Return FINE_GRANULE where gradients of so few images are, bit for bit, those among GRANULE, else GRANULE.

    That depends on the processor and on the layers. `images` are (N, C, H, W) with `labels` (N,); the gradients that
    this takes, 48 of images, are not counted as those of an attack.
    """
    if len(images) <= GRANULE:
        return GRANULE
    small_batch, large_batch = (
        image_gradient(model, images[:count], labels[:count], loss) for count in (FINE_GRANULE, GRANULE)
    )
    return FINE_GRANULE if torch.equal(small_batch, large_batch[:FINE_GRANULE]) else GRANULE


def outcomes(label: Classes, clean: Classes, adversarial: Classes) -> dict[str, npt.NDArray[np.bool_]]:
    """Return which images (N,) that are right without the attack are right under it, and which are not, from
    predictions.
    """
    right = clean == label
    return {"attack_failed": right & (adversarial == label), "attack_succeeded": right & (adversarial != label)}


def image_gradient(model: nn.Module, images: Tensor, labels: Tensor, loss: LossName) -> Tensor:
    """Return the gradient (N, C, H, W) of the summed loss with respect to the images."""
    with torch.enable_grad():
        images = images.detach().requires_grad_()
        total = LOSSES[loss](model(images).float(), labels).sum()
        (gradient,) = torch.autograd.grad(total, images)
    return gradient


def check_tensors(images: Tensor, labels: Tensor) -> None:
    """Raise UserError unless images are a tensor (N, C, H, W) and labels one of a class from 0 on for each."""
    for name, values in (("images", images), ("labels", labels)):
        if not isinstance(values, Tensor):
            raise UserError(f"{name} are of type {type(values).__name__}: give a tensor, as torch.as_tensor makes it.")
    if images.ndim != 4:
        raise UserError(f"images have shape {tuple(images.shape)}: give (N, C, H, W), gray ones with C 1.")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise UserError(f"labels are of type {labels.dtype}: give integers.")
    if labels.numel() != len(images):
        raise UserError(f"there are {labels.numel()} labels for {len(images)} images: give one for each.")
    if len(labels) and int(labels.min()) < 0:
        raise UserError(f"a label is {int(labels.min())}: classes count from 0.")


def check_pixels(images: Tensor) -> None:
    """Raise UserError unless all pixels lie in [0, 1]."""
    low, high = float(images.min()), float(images.max())
    if not (low >= -TOLERANCE and high <= 1 + TOLERANCE):
        raise UserError(f"pixels lie in {low:g} to {high:g}: they must lie in 0 to 1 (divide 0 to 255 by 255).")


def check_weights(model: nn.Module) -> None:
    """Raise UserError where a model may have failed because of how its weights are kept."""
    if any(weights.is_inference() for weights in (*model.parameters(), *model.buffers())):
        raise UserError(
            "the model was made in torch.inference_mode, where nothing gets a gradient: build or load it outside."
        )
    if precisions(model) and precisions(model) <= {torch.float16, torch.bfloat16}:
        names = " and ".join(sorted(str(dtype).removeprefix("torch.") for dtype in precisions(model)))
        raise UserError(f"the model has weights in {names}, and images are float32: give model.float().")


def check_fit(model: nn.Module, images: Tensor, labels: Tensor) -> None:
    """Raise UserError where a model failed on images (N, C, H, W) because their channels come last, or on labels that
    it has no class for.
    """
    if images.shape[3] in (1, 3) and images.shape[1] not in (1, 3):
        raise UserError(f"images have shape {tuple(images.shape)}, channels last: give (N, C, H, W).")
    with batch_norm_mode(model, "eval"), torch.no_grad():
        classes = model(images[:1].float()).shape[-1]
    if (highest := int(labels.max())) >= classes:
        raise UserError(f"a label is {highest}, and the model has {classes} classes, which count from 0.")


def check_adversarial(model: nn.Module, adversarial: Tensor, images: Tensor, eps: float, norm: Norm = "linf") -> Tensor:
    """Return adversarial images (N, C, H, W), all in [0, 1] and within `eps` of their images in a norm.

    An image that the model answers with NaN, attacked or not, is never right: no attack is needed, and the image itself
    stands for what an attack made NaN. Raises NotFiniteError where an attack failed on an image that is answered with
    numbers, and ValueError where a pixel is out of its range.
    """
    if bool(adversarial.isnan().any()):
        (places,) = adversarial.isnan().flatten(1).any(1).nonzero(as_tuple=True)
        with torch.no_grad():
            is_answered = ~model(images[places]).isnan().any(1)
        if bool(is_answered.any()):
            raise NotFiniteError("gradients of the loss", places[is_answered].tolist())
        adversarial = adversarial.index_copy(0, places, images[places])
    ball = make_ball(norm, eps)
    in_range = ((adversarial >= 0) & (adversarial <= 1)).all()
    in_ball = (ball.length(adversarial - images) <= eps + ball.tolerance(images[0].numel())).all()
    if not bool(in_range & in_ball):
        raise ValueError(f"an adversarial image left its ball of {eps:g} or [0, 1]")
    return adversarial


LOSSES: dict[LossName, Callable[[Tensor, Tensor], Tensor]] = {"cross-entropy": cross_entropy, "margin": margin_loss}


def generator_noise(generator: torch.Generator) -> Noise:
    """Return a function from images (N, C, H, W) to noise of their shape, uniform in [-1, 1), from one generator.

    It is drawn on the generator's device, and float32 on that of the images.

    Example:
        >>> noise = ir.generator_noise(torch.Generator().manual_seed(0))
        >>> noise(torch.zeros(5, 3, 2, 4)).shape
        torch.Size([5, 3, 2, 4])
    """

    def draw(images: Tensor) -> Tensor:
        uniform = torch.rand(images.shape, generator=generator, device=generator.device)
        return (2 * uniform - 1).to(images.device)

    return draw


def per_image_noise(seed: int, indices: Sequence[int], purpose: int = 0) -> Noise:
    """Return a function from images (N, C, H, W) to noise of their shape, float32, uniform in [-1, 1).

    The noise of an image depends only on the seed, its index in its dataset and the purpose, all whole numbers from 0
    on; there is one index for each image. Rows of an analysis are then the same whatever the batch size and wherever a
    run was taken up again. Repeated calls go on in each image's own stream. Raises ValueError for negative numbers, and
    in a call for another number of images than there are indices.

    Example:
        >>> first, second = ir.per_image_noise(0, [7, 8]), ir.per_image_noise(0, [8, 9])
        >>> torch.equal(first(torch.zeros(2, 3, 2, 4))[1], second(torch.zeros(2, 3, 2, 4))[0])
        True
    """
    image_streams = streams(seed, indices, purpose)

    def draw(images: Tensor) -> Tensor:
        if len(images) != len(image_streams):
            raise ValueError(f"{len(images)} images, and {len(image_streams)} indices of images: give one for each.")
        rows = np.stack([stream.random(images.shape[1:], dtype=np.float32) for stream in image_streams])
        return (2 * torch.from_numpy(rows) - 1).to(images.device)

    return draw


@contextmanager
def batch_norm_mode(model: nn.Module, mode: BatchNormMode) -> Iterator[None]:
    """Put the whole model in `mode`, and give each module its own mode back, also after an exception."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.train(mode == "train")
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def weights_frozen(model: nn.Module) -> Iterator[None]:
    """Let no weight ask for a gradient while this is entered: nothing is kept or, if compiled, computed for them."""
    flags = [(weights, weights.requires_grad) for weights in model.parameters()]
    try:
        model.requires_grad_(False)
        yield
    finally:
        for weights, asks in flags:
            weights.requires_grad_(asks)
