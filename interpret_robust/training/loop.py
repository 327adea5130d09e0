"""Training: the step, the epoch, the collapse detector, and resuming to the same bits.

Every random number is a function of (seed, step), so the weights depend on the job alone and not on when
a run was stopped and taken up again. On the CPU that holds to the last bit.

Several ranks share each batch. They see the same random numbers, the same statistics of batch norm and the mean of
all gradients, so that their number changes nothing but the order of sums.
"""

import math
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from interpret_robust.attacks.norms import check_reach
from interpret_robust.attacks.pgd import PGD
from interpret_robust.core import device as devices
from interpret_robust.core import progress, provenance, ranks
from interpret_robust.core.configs import differences
from interpret_robust.core.errors import UserError
from interpret_robust.core.files import remove_leftovers
from interpret_robust.core.interruption import Stopped, stop_requests
from interpret_robust.core.locks import Lock
from interpret_robust.core.round_robin import to_end
from interpret_robust.datasets.batches import TrainingBatches
from interpret_robust.models import Classifier, build, checkpoint
from interpret_robust.models.bfloat16 import copy_in_bfloat16
from interpret_robust.models.folded import fold
from interpret_robust.models.shared_norm import share_batch_norm
from interpret_robust.training.accelerate import accelerate
from interpret_robust.training.job import Job, drop_name
from interpret_robust.training.log import NO_LOGS, Logs, Row, Write, log_of, open_logs
from interpret_robust.training.objective import FeatureRegularization, Objective, feature_distance, objective

SAVE_EVERY = 15.0
"""Seconds between two saves of an unfinished run."""

SHOW_EVERY = 20
"""Steps between two looks at the running losses."""

COLLAPSED_SHARE = 0.95
COLLAPSED_EPOCHS = 2


@dataclass
class Totals:
    """Sums over images of the epoch so far, on the device.

    They are of cross-entropy, distance and correct images; and of predictions by class.
    """

    sums: Tensor
    predictions: Tensor

    @classmethod
    def zero(cls, classes: int, device: torch.device) -> "Totals":
        """Return sums of nothing."""
        return cls(torch.zeros(3, device=device), torch.zeros(classes, dtype=torch.int64, device=device))

    def add(self, result: Objective, labels: Tensor) -> None:
        """Count one batch."""
        predicted = result.logits.argmax(1)
        correct = (predicted == labels).sum()
        count = len(labels)
        self.sums += torch.stack([result.cross_entropy * count, result.distance * count, correct])
        self.predictions.index_add_(0, predicted, torch.ones_like(predicted))

    def since(self, earlier: "Totals") -> "Totals":
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

    def of_all_ranks(self) -> "Totals":
        """Return a copy, summed over all ranks."""
        return Totals(ranks.total(self.sums.clone()), ranks.total(self.predictions.clone()))

    def tensors(self, name: str) -> checkpoint.Tensors:
        """Return the sums as the state of a run holds them."""
        return {f"{name}.sums": self.sums, f"{name}.predictions": self.predictions}

    @classmethod
    def restore(cls, name: str, tensors: checkpoint.Tensors, device: torch.device) -> "Totals":
        """Return the sums that `tensors` gave."""
        return cls(tensors[f"{name}.sums"].to(device), tensors[f"{name}.predictions"].to(device))


class Loss(nn.Module):
    """Eq. 7 as a module, whose gradients several ranks can share."""

    def __init__(self, model: Classifier, regularization: FeatureRegularization) -> None:
        super().__init__()
        self.model, self.regularization = model, regularization

    def forward(self, images: Tensor, adversarial: Tensor, labels: Tensor) -> Objective:
        """Return the loss, see `objective`."""
        return objective(self.model, images, adversarial, labels, self.regularization)


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
        if len(split) < recipe.batch_size:
            raise UserError(
                f"{len(split)} training images are fewer than one batch of {recipe.batch_size}: "
                f"--set batch_size={len(split)} takes all at once."
            )
        if recipe.batch_size < ranks.count():
            raise UserError(
                f"a batch of {recipe.batch_size} images cannot be shared by {ranks.count()} processes: "
                "--set batch_size=N takes a multiple of them."
            )
        _, height, width = job.dataset.image_shape
        if recipe.pad >= min(height, width):
            raise UserError(
                f"pad is {recipe.pad}, and images are {height}x{width}: fewer pixels than a side has are right, or "
                "crops would be empty."
            )
        check_reach(recipe.norm, recipe.eps, math.prod(job.dataset.image_shape))
        self.classes = len(job.dataset.class_names)
        part = ranks.part(recipe.batch_size)
        self.batches = TrainingBatches(
            split, recipe.batch_size, job.seed, self.device, pad=recipe.pad, flip=recipe.flip, part=part
        )
        # DDP takes the mean over ranks, whose parts may differ in size by one.
        self.share = (part.stop - part.start) * ranks.count() / recipe.batch_size
        model = build(job.architecture, job.variant.head, job.dataset.image_shape, self.classes, seed=job.seed)
        self.model = model.to(self.device).to(memory_format=torch.channels_last).train()
        loss = Loss(
            self.model,
            FeatureRegularization(recipe.feature_weight(job.variant), job.variant.distance or feature_distance),
        )
        self.loss = _parallel(loss, self.device) if ranks.count() > 1 else loss
        self.optimizer = _optimizer(job, self.model)
        self.average = _average(self.model, recipe.ema) if recipe.ema else None
        self.totals = Totals.zero(self.classes, self.device)  # over this rank's part of the epoch so far
        self._begin_line(Totals.zero(self.classes, self.device))
        self.total_steps = recipe.epochs * self.batches.steps_per_epoch
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
            adversarial = attack.search(self._attacked(), images, labels, lambda _: noise) if attack else images
            result = self.loss(images, adversarial, labels)
        self.optimizer.zero_grad()
        (result.total * self.share).backward()
        self.optimizer.step()
        self.totals.add(result, labels)

    def _attacked(self) -> Classifier:
        """Return what gives the attack its gradients: the model, or a copy of it in bfloat16 of this step's weights."""
        recipe = self.job.recipe
        if recipe.attack_precision == "float32" or self.device.type == "cuda":
            return self.model
        return copy_in_bfloat16(fold(self.model) if recipe.attack_batch_norm == "eval" else self.model)

    def _end_line(self, share: float) -> Row:
        """Return the numbers of the steps since the last line, in this epoch."""
        totals = self.totals.of_all_ranks()
        row = {
            "kind": "steps",
            "step": self.step,
            "epoch": -(-self.step // self.batches.steps_per_epoch),
            **self._numbers(totals.since(self.line_totals), self.step - self.line_step, share),
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
        numbers = self._numbers(self.totals.of_all_ranks(), steps, share)
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

    def running(self) -> dict[str, str]:
        """Return means over this rank's part of the epoch so far, as text.

        Of the last epoch where a new one has begun.
        """
        images = (self.step % self.batches.steps_per_epoch) * self.job.recipe.batch_size * self.share / ranks.count()
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
        tensors |= self.totals.of_all_ranks().tensors("totals") | self.line_totals.tensors("line")
        about = {"step": self.step, "seconds": self.seconds, "history": self.history, "line_step": self.line_step}
        return about, tensors

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
        if ranks.index() == 0:
            self.totals = Totals.restore("totals", state.tensors, self.device)
        self.line_step = self.step // self.batches.steps_per_epoch * self.batches.steps_per_epoch
        if state.about.get("line_step", 0) > self.line_step:  # older files may hold a line of an epoch before
            self.line_step = state.about["line_step"]
            self.line_totals = Totals.restore("line", state.tensors, self.device)


@devices.exact()
def train(
    job: Job,
    folder: Path,
    *,
    source: str,
    device: torch.device,
    deadline: float = math.inf,
    overwrite: bool = False,
    save_every: float = SAVE_EVERY,
    logs: Logs = NO_LOGS,
) -> Path:
    """Train a job to its end and write its checkpoint, going on from where an earlier run stopped.

    Args:
        job: what to train. A finished checkpoint of an equal job is left as it is.
        folder: where `NAME.safetensors` goes; `NAME.state.safetensors` holds an unfinished run.
        source: the dataset's name or path, noted so that an analysis can find it again.
        device: where to compute.
        deadline: value of `time.monotonic()` after which to save and stop.
        overwrite: train anew and replace a checkpoint, or an unfinished run of another job, with this name.
        save_every: seconds between saves.
        logs: which logs to keep while it trains.

    Returns the checkpoint's path. Raises Stopped at the deadline or on SIGINT or SIGTERM, and UserError
    where the name is taken by another job or the model collapsed.
    """
    with stop_requests() as stop:
        steps = training(
            job,
            folder,
            source=source,
            device=device,
            stop=stop,
            deadline=deadline,
            overwrite=overwrite,
            save_every=save_every,
            logs=logs,
        )
        return to_end(steps)[0]


def training(
    job: Job,
    folder: Path,
    *,
    source: str,
    device: torch.device,
    stop: Event,
    deadline: float = math.inf,
    overwrite: bool = False,
    save_every: float = SAVE_EVERY,
    position: int | None = None,
    logs: Logs = NO_LOGS,
) -> Generator[None, None, tuple[Path, bool]]:
    """Train as `train` does, one step each time it is asked for one, until `stop` is set.

    `position` is the line of its bar.

    Returns the path and whether the model was trained now: another process may have made it in the meantime.
    """
    path = folder / f"{job.name}.safetensors"
    lock = Lock(path)
    try:
        yield from ranks.wait_for_turn(lock, lambda: stop.is_set() or time.monotonic() > deadline)
        if ranks.from_first(lambda: is_finished(job, folder, overwrite=overwrite)):
            if ranks.index() == 0:
                state_of(path).unlink(missing_ok=True)
            return path, False
        yield from _training(job, path, source, device, stop, deadline, overwrite, save_every, position, logs)
        return path, True
    finally:
        lock.release()


def state_of(path: Path) -> Path:
    """Return where the unfinished run of the checkpoint at `path` lies."""
    return path.with_name(f"{path.stem}.state.safetensors")


def _training(
    job: Job,
    path: Path,
    source: str,
    device: torch.device,
    stop: Event,
    deadline: float,
    overwrite: bool,
    save_every: float,
    position: int | None,
    logs: Logs,
) -> Generator[None, None, None]:
    """Train and write the checkpoint at `path`, whose lock is held."""
    state_path, is_first = state_of(path), ranks.index() == 0
    if is_first:
        remove_leftovers(path, state_path, log_of(path))
    with devices.preserve_threads():
        run = Run(job, device, logs.steps)
        earlier = _resume(run, state_path, overwrite=overwrite)
        if run.step and is_first:
            progress.say(f"{job.name} continues from step {run.step} of {run.total_steps}")
        metadata = {
            "job": job.describe(),
            "source": source,
            "code": provenance.code_version(),
            "environment": _environment(device),
            "precision": _precision(job, device),
            "earlier": earlier,
        }

        def save() -> None:
            state, tensors = run.state()
            if is_first:
                checkpoint.write(state_path, metadata | state, tensors)

        with _open_logs_on_first(run, logs, path, overwrite=overwrite) as write:
            yield from _run_to_end(run, save, write, stop, deadline, save_every, position)
    if is_first:
        metrics = {"training_" + key: run.history[-1][key] for key in ("cross_entropy", "feature_distance", "accuracy")}
        checkpoint.write(path, metadata | {"history": run.history, "metrics": metrics}, run.final_tensors())
        state_path.unlink(missing_ok=True)
    ranks.wait()


@contextmanager
def _open_logs_on_first(run: Run, logs: Logs, path: Path, *, overwrite: bool) -> Iterator[Write]:
    """Yield what writes rows to the logs on rank 0, and does nothing on others. An error is raised on all of them."""
    writers: list[Write] = []
    rows = [run.row(epoch) for epoch in run.history]
    with ExitStack() as stack:

        def begin() -> None:
            opening = open_logs(logs, path, run.job, run.step, rows, overwrite=overwrite)
            writers.append(stack.enter_context(opening))

        ranks.from_first(begin)
        yield writers[0] if writers else lambda _: None


def _precision(job: Job, device: torch.device) -> str:
    """Return how numbers are rounded, as the checkpoint says it."""
    if device.type == "cuda":
        return "bfloat16 forward, float32 weights and iterates"
    is_rounded = job.variant.adversarial and job.recipe.attack_precision == "bfloat16"
    return "float32, gradients of attacks bfloat16" if is_rounded else "float32"


def _environment(device: torch.device) -> dict[str, str | int]:
    return provenance.environment(devices.describe(device), torch.get_num_threads(), ranks.count())


def is_finished(job: Job, folder: Path, *, overwrite: bool = False) -> bool:
    """Return whether the job's checkpoint is there and to be kept.

    Raises UserError where another job's has its name.
    """
    path = folder / f"{job.name}.safetensors"
    if overwrite or not path.exists():
        return False
    difference = differences(drop_name(checkpoint.read(path).job), drop_name(job.describe()))
    if difference:
        raise UserError(f"{path} was trained otherwise ({difference}): {_WAYS_OUT}")
    return True


_WAYS_OUT = "use another --root, or --overwrite to replace it."


def _run_to_end(
    run: Run,
    save: Callable[[], None],
    write: Write,
    stop: Event,
    deadline: float,
    save_every: float,
    position: int | None,
) -> Iterator[None]:
    save()  # at once, so that a folder that cannot be written is told before the work, not after it
    saved_at = time.monotonic()
    bar = progress.bar(
        f"{run.job.variant.name} seed {run.job.seed}", run.total_steps, "steps", initial=run.step, position=position
    )
    with bar:
        while run.step < run.total_steps:
            if rows := run.advance():
                write(rows)
            if run.step % run.batches.steps_per_epoch == 0:
                check_collapse(run.history, run.classes)
            bar.update()
            if not bar.disable and run.step % SHOW_EVERY == 0:
                bar.set_postfix(run.running(), refresh=False)
            time_now = time.monotonic()
            late, due = ranks.any_of(time_now > deadline or stop.is_set(), time_now - saved_at > save_every)
            if late or due:
                save()
                saved_at = time_now
            if late and run.step < run.total_steps:
                raise Stopped(f"{run.job.name} stopped after step {run.step} of {run.total_steps}")
            yield


def _resume(run: Run, state_path: Path, *, overwrite: bool) -> list[dict[str, Any]]:
    """Restore an unfinished run, with its number of threads, on which the last bits depend.

    Returns where its steps until now were made: code, environment and precision, up to which step.
    """
    state = ranks.bytes_from_first(lambda: _read_state(run.job, state_path, overwrite=overwrite))
    if not state:
        return []
    state_checkpoint = checkpoint.parse(state_path, state)
    environment = state_checkpoint.about["environment"]
    if (
        run.device.type == "cpu"
        and state_checkpoint.about["precision"] == _precision(run.job, run.device)
        and environment.get("processes", 1) == ranks.count()
    ):
        torch.set_num_threads(environment["threads"])
    run.restore(state_checkpoint)
    origin = {key: state_checkpoint.about[key] for key in ("code", "environment", "precision", "step")}
    if ranks.restarts():
        origin["restart"] = ranks.restarts()
        run.restarted_from = run.step
    return [*state_checkpoint.about["earlier"], origin]


def _read_state(job: Job, state_path: Path, *, overwrite: bool) -> bytes:
    """Return the file of an unfinished run of this job; nothing where there is none, or one that may be replaced."""
    if not state_path.exists():
        return b""
    data = state_path.read_bytes()
    try:
        difference = differences(drop_name(checkpoint.parse(state_path, data).job), drop_name(job.describe()))
    except UserError:
        if overwrite:
            return b""
        raise
    if difference and not overwrite:
        raise UserError(f"{state_path} is an unfinished run of another kind ({difference}): {_WAYS_OUT}")
    return b"" if difference else data


def check_collapse(history: list[dict[str, float]], classes: int) -> None:
    """Raise UserError where the loss is not a number or the model has given up and names one class.

    The signs, for two epochs running: a loss within 1 % of ln(classes), which is that of guessing, and
    95 % of all predictions in one class.
    """
    last = history[-COLLAPSED_EPOCHS:]
    if not math.isfinite(last[-1]["cross_entropy"]):
        raise UserError(f"training diverged in epoch {last[-1]['epoch']:.0f}: the loss is not finite. {_COLLAPSE_HELP}")
    if len(last) < COLLAPSED_EPOCHS:
        return
    if all(
        row["cross_entropy"] > 0.99 * math.log(classes) and row["largest_predicted_share"] > COLLAPSED_SHARE
        for row in last
    ):
        raise UserError(
            f"training collapsed by epoch {last[-1]['epoch']:.0f}: {last[-1]['largest_predicted_share']:.0%} of "
            f"predictions name one class and the loss is that of guessing. {_COLLAPSE_HELP}"
        )


_COLLAPSE_HELP = (
    "A lower learning_rate or a longer eps_ramp helps (--overwrite --set learning_rate=0.05 --set eps_ramp=0.5)."
)


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
