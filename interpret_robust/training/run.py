"""A model in training: the step, what an epoch and a line of the log say of it, and its state.

Every random number is a function of (seed, step), so the weights depend on the job alone and not on when
a run was stopped and taken up again. On the CPU that holds to the last bit.

Several ranks share each batch. They see the same random numbers, the same statistics of batch norm and the mean of
all gradients, so that their number changes nothing but the order of sums.
"""

import math
import time
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from interpret_robust.attacks.norms import check_reach
from interpret_robust.attacks.pgd import PGD
from interpret_robust.core import device as devices
from interpret_robust.core import ranks
from interpret_robust.core.errors import UserError
from interpret_robust.datasets.batches import TrainingBatches
from interpret_robust.models import Classifier, build, checkpoint
from interpret_robust.models.bfloat16 import copy_in_bfloat16
from interpret_robust.models.folding import fold
from interpret_robust.models.shared_norm import share_batch_norm
from interpret_robust.training.accelerate import accelerate
from interpret_robust.training.job import Job
from interpret_robust.training.log import Row
from interpret_robust.training.objective import (
    FeatureRegularization,
    Objective,
    compute_objective,
    measure_feature_distance,
)
from interpret_robust.training.recipe import Recipe


@dataclass
class Totals:
    """Sums over images of the epoch so far, on the device.

    They are of cross-entropy, distance and correct images; and of predictions by class. Float64 keeps every bit of
    the float32 numbers that are added, so the sums do not depend on their order, which stops and ranks change.
    """

    sums: Tensor
    predictions: Tensor

    @classmethod
    def zero(cls, classes: int, device: torch.device) -> "Totals":
        """Return sums of nothing."""
        return cls(
            torch.zeros(3, dtype=torch.float64, device=device), torch.zeros(classes, dtype=torch.int64, device=device)
        )

    def add(self, result: Objective, labels: Tensor) -> None:
        """Count one batch."""
        predicted = result.logits.argmax(1)
        correct = (predicted == labels).sum()
        count = len(labels)
        self.sums += torch.stack([result.cross_entropy * count, result.distance * count, correct])
        self.predictions.index_add_(0, predicted, torch.ones_like(predicted))

    def subtract(self, earlier: "Totals") -> "Totals":
        """Return the sums of what was counted since an earlier copy of these."""
        return Totals(self.sums - earlier.sums, self.predictions - earlier.predictions)

    def means(self, images: float) -> dict[str, float]:
        """Return the means over so many images, and the share of the class that is named most."""
        cross_entropy, distance, correct = (self.sums / images).tolist()
        return {
            "cross_entropy": cross_entropy,
            "feature_distance": distance,
            "accuracy": correct,
            "largest_predicted_share": self.predictions.max().item() / images,
        }

    def clear(self) -> None:
        """Forget everything, in place."""
        self.sums.zero_()
        self.predictions.zero_()

    def sum_over_ranks(self) -> "Totals":
        """Return a copy, summed over all ranks."""
        return Totals(ranks.sum_over_ranks(self.sums.clone()), ranks.sum_over_ranks(self.predictions.clone()))

    def tensors(self, name: str) -> checkpoint.Tensors:
        """Return the sums as the state of a run holds them."""
        return {f"{name}.sums": self.sums, f"{name}.predictions": self.predictions}

    @classmethod
    def restore(cls, name: str, tensors: checkpoint.Tensors, device: torch.device) -> "Totals":
        """Return the sums that `tensors` gave."""
        sums = tensors[f"{name}.sums"].to(device, torch.float64)  # older files hold them in float32
        return cls(sums, tensors[f"{name}.predictions"].to(device))


class Loss(nn.Module):
    """Eq. 7 as a module, whose gradients several ranks can share."""

    def __init__(self, model: Classifier, regularization: FeatureRegularization) -> None:
        super().__init__()
        self.model, self.regularization = model, regularization

    def forward(self, images: Tensor, adversarial: Tensor, labels: Tensor) -> Objective:
        """Return the loss, see `compute_objective`."""
        return compute_objective(self.model, images, adversarial, labels, self.regularization)


@dataclass
class Run:
    """A model in training: everything that a step changes, and the step itself."""

    job: Job
    device: torch.device
    log_steps: int | None = None
    step: int = 0
    seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)
    restarted_from: int | None = None

    def __post_init__(self) -> None:
        job, recipe = self.job, self.job.recipe
        split = job.dataset.train.draw(job.limit)
        _check_fit(recipe, len(split), job.dataset.image_shape)
        self.classes = len(job.dataset.class_names)
        part = ranks.take_part(recipe.batch_size)
        self.batches = TrainingBatches(
            split, recipe.batch_size, job.seed, self.device, pad=recipe.pad, flip=recipe.flip, part=part
        )
        # DDP takes the mean over ranks, whose parts may differ in size by one.
        self.share = (part.stop - part.start) * ranks.count_ranks() / recipe.batch_size
        model = build(job.architecture, job.variant.head, job.dataset.image_shape, self.classes, seed=job.seed)
        self.model = model.to(self.device).to(memory_format=torch.channels_last).train()
        loss = Loss(
            self.model,
            FeatureRegularization(recipe.feature_weight(job.variant), job.variant.distance or measure_feature_distance),
        )
        self.loss = _parallel(loss, self.device) if ranks.count_ranks() > 1 else loss
        self.optimizer = _optimizer(job, self.model)
        self.average = _average(self.model, recipe.ema) if recipe.ema else None
        self.totals = Totals.zero(self.classes, self.device)  # over this rank's part of the epoch so far
        self._begin_line(Totals.zero(self.classes, self.device))
        self.total_steps = recipe.epochs * self.batches.steps_per_epoch
        if self.total_steps == 1 and recipe.rate(1.0) == 0:
            raise UserError(
                f"this training has one step, at whose end the rate of the {recipe.schedule} schedule is 0: set more "
                "epochs, or a smaller batch_size."
            )
        self.update = accelerate(self._update, self.model, self.device)

    def advance(self) -> list[Row]:
        """Take one training step; at an epoch's end also its line of history.

        Return the lines of the log that it ends: of `log_steps` steps, and of an epoch.
        """
        began = time.monotonic()
        recipe, share = self.job.recipe, (self.step + 1) / self.total_steps
        images, labels = self.batches.batch(self.step)
        noise = self.batches.noise(self.step)
        _set_rate(self.optimizer, recipe.rate(share))
        self.update(recipe.attack(share) if self.job.variant.adversarial else None, images, noise, labels)
        if self.average:
            _update_average(self.average, self.model, recipe.ema or 0.0)
        self.step += 1
        is_last_of_epoch = self.step % self.batches.steps_per_epoch == 0
        is_due = self.log_steps is not None and self.step % self.log_steps == 0
        if is_last_of_epoch or is_due:
            devices.wait_for(self.device)
        self.seconds += time.monotonic() - began
        rows = [self._end_line(share)] if is_due else []
        if is_last_of_epoch:
            self._end_epoch(share)
            rows.append(self.row(self.history[-1]))
        return rows

    def _update(self, attack: PGD | None, images: Tensor, noise: Tensor, labels: Tensor) -> None:
        """Update once: Eq. 2, the attack from a start at `noise` in [-1, 1); Eq. 7; and one step of the optimizer."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            adversarial = attack.search(self._attack_target(), images, labels, lambda _: noise) if attack else images
            result = self.loss(images, adversarial, labels)
        self.optimizer.zero_grad()
        (result.total * self.share).backward()
        self.optimizer.step()
        self.totals.add(result, labels)

    def _attack_target(self) -> Classifier:
        """Return what gives the attack its gradients: the model, or a copy of it in bfloat16 of this step's weights."""
        recipe = self.job.recipe
        if recipe.attack_precision == "float32" or self.device.type == "cuda":
            return self.model
        return copy_in_bfloat16(fold(self.model) if recipe.attack_batch_norm == "eval" else self.model)

    def _end_line(self, share: float) -> Row:
        """Return the numbers of the steps since the last line, in this epoch."""
        totals = self.totals.sum_over_ranks()
        row = {
            "kind": "steps",
            "step": self.step,
            "epoch": -(-self.step // self.batches.steps_per_epoch),
            **self._numbers(totals.subtract(self.line_totals), self.step - self.line_step, share),
        }
        self._begin_line(totals)
        return row

    def _begin_line(self, totals: Totals) -> None:
        """Begin a line of steps here, where `totals` are the sums of the epoch over all ranks."""
        self.line_step, self.line_totals = self.step, totals

    def row(self, epoch: dict[str, float]) -> Row:
        """Return the line of the log of an epoch of the history."""
        return {"kind": "epoch", "step": epoch["epoch"] * self.batches.steps_per_epoch, **epoch}

    def _end_epoch(self, share: float) -> None:
        restart = {} if self.restarted_from is None else {"restarted_from_step": self.restarted_from}
        self.restarted_from = None
        steps = self.batches.steps_per_epoch
        numbers = self._numbers(self.totals.sum_over_ranks(), steps, share)
        self.history.append({"epoch": self.step // steps, **numbers, **restart})
        self.totals.clear()
        self._begin_line(Totals.zero(self.classes, self.device))

    def _numbers(self, totals: Totals, steps: int, share: float) -> dict[str, float]:
        """Return what a line says of so many steps, of which these are the sums."""
        return {
            **totals.means(steps * self.job.recipe.batch_size),
            "learning_rate": self.job.recipe.rate(share),
            "eps": self.job.recipe.attack(share).eps if self.job.variant.adversarial else 0.0,
            "seconds": round(self.seconds, 1),
        }

    def running_means(self) -> dict[str, str]:
        """Return means over this rank's part of the epoch so far, as text.

        Of the last epoch where a new one has begun.
        """
        images = int(self.totals.predictions.sum())
        if images == 0:
            last = self.history[-1]
            loss, distance, accuracy = last["cross_entropy"], last["feature_distance"], last["accuracy"]
        else:
            loss, distance, accuracy = (self.totals.sums / images).tolist()
        numbers = {"loss": f"{loss:.3f}", "accuracy": f"{accuracy:.1%}"}
        return numbers | ({"distance": f"{distance:.3f}"} if self.job.variant.regularized else {})

    def final_tensors(self) -> checkpoint.Tensors:
        """Return the weights and buffers that are the result: the average where the recipe has one."""
        model = self.average.module if self.average else self.model
        return dict(model.state_dict())

    def state(self) -> tuple[dict[str, Any], checkpoint.Tensors]:
        """Return what `restore` needs to go on as if nothing had happened, with any number of ranks.

        All of them are asked.
        """
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        if self.average:
            tensors |= {f"average.{name}": tensor for name, tensor in self.average.state_dict().items()}
        for index, values in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{key}": value for key, value in values.items() if value is not None}
        tensors |= self.totals.sum_over_ranks().tensors("totals") | self.line_totals.tensors("line")
        facts = {"step": self.step, "seconds": self.seconds, "history": self.history, "line_step": self.line_step}
        return facts, tensors

    def restore(self, state: checkpoint.Checkpoint) -> None:
        """Take up the run where `state` was taken."""
        self.step, self.seconds = state.about["step"], state.about["seconds"]
        self.history = state.about["history"]
        self.model.load_state_dict(_entries_below("model.", state.tensors))
        if self.average:
            self.average.load_state_dict(_entries_below("average.", state.tensors))
        optimizer: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _entries_below("optimizer.", state.tensors).items():
            index, key = name.split(".")
            # In the order of the weights, along which an optimizer of one kernel goes through memory.
            weights = tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor
            optimizer.setdefault(int(index), {})[key] = weights
        self.optimizer.load_state_dict(
            {"state": optimizer, "param_groups": self.optimizer.state_dict()["param_groups"]}
        )
        if ranks.find_rank() == 0:
            self.totals = Totals.restore("totals", state.tensors, self.device)
        self.line_step = self.step // self.batches.steps_per_epoch * self.batches.steps_per_epoch
        if state.about.get("line_step", 0) > self.line_step:  # older files may hold a line of an epoch before
            self.line_step = state.about["line_step"]
            self.line_totals = Totals.restore("line", state.tensors, self.device)


def _check_fit(recipe: Recipe, images: int, image_shape: tuple[int, int, int]) -> None:
    """Raise UserError where a recipe cannot be followed with so many images of a shape, or so many ranks."""
    if images < recipe.batch_size:
        raise UserError(
            f"{images} training images are fewer than one batch of {recipe.batch_size}: "
            f"--set batch_size={images} takes all at once."
        )
    if recipe.batch_size < ranks.count_ranks():
        raise UserError(
            f"a batch of {recipe.batch_size} images cannot be shared by {ranks.count_ranks()} processes: "
            "--set batch_size=N takes a multiple of them."
        )
    _, height, width = image_shape
    if recipe.pad >= min(height, width):
        raise UserError(
            f"pad is {recipe.pad}, and images are {height}x{width}: pad must be less than each side, or "
            "crops would be empty."
        )
    check_reach(recipe.norm, recipe.eps, math.prod(image_shape))


def _parallel(loss: Loss, device: torch.device) -> nn.Module:
    """Return the loss of this rank's images, with gradients that are means over all ranks."""
    share_batch_norm(loss.model)
    return DistributedDataParallel(loss, device_ids=[device] if device.type == "cuda" else None)


def _optimizer(job: Job, model: torch.nn.Module) -> torch.optim.Optimizer:
    """Return the recipe's optimizer. On a GPU its rate is a tensor, so that a recorded step sees it change."""
    recipe = job.recipe
    matrices = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    vectors = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    device = matrices[0].device
    on_gpu = device.type == "cuda"
    rate = torch.tensor(recipe.learning_rate, device=device) if on_gpu else recipe.learning_rate
    if recipe.optimizer == "adam":
        return torch.optim.Adam(groups, lr=rate, fused=True, capturable=on_gpu)
    return torch.optim.SGD(groups, lr=rate, momentum=recipe.momentum, fused=True)


def _set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def _average(model: torch.nn.Module, decay: float) -> AveragedModel:
    """Return a running mean of the weights; buffers, such as batch norm's statistics, are the latest."""
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))  # type: ignore[no-untyped-call]


@torch.no_grad()
def _update_average(average: AveragedModel, model: torch.nn.Module, decay: float) -> None:
    """Take a step of the running mean, as `average.update_parameters` does, which copies its count to a GPU each time
    and waits for the copy.
    """
    if average.n_averaged == 0:  # a number of the CPU
        average.update_parameters(model)
        return
    torch._foreach_lerp_(list(average.module.parameters()), list(model.parameters()), 1 - decay)
    for mean, latest in zip(average.module.buffers(), model.buffers(), strict=True):
        mean.copy_(latest)
    average.n_averaged += 1


def _entries_below(prefix: str, tensors: checkpoint.Tensors) -> checkpoint.Tensors:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
