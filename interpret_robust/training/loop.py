"""Training from beginning to end: going on where an earlier run stopped, saving, and noticing a collapse."""

import math
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import torch

from interpret_robust.core import device as devices
from interpret_robust.core import progress, provenance, ranks
from interpret_robust.core.configs import describe_differences
from interpret_robust.core.errors import UserError
from interpret_robust.core.files import remove_leftovers
from interpret_robust.core.interruption import Stopped
from interpret_robust.core.locks import Lock
from interpret_robust.models import checkpoint
from interpret_robust.models.training_state import name_state
from interpret_robust.training.job import Job, drop_name
from interpret_robust.training.log import NO_LOGS, Logs, Write, name_log, open_logs
from interpret_robust.training.run import Run

SAVE_EVERY = 15.0
"""Seconds between two saves of an unfinished run."""

SHOW_EVERY = 20
"""Steps between two looks at the running losses."""

COLLAPSED_SHARE = 0.95
COLLAPSED_EPOCHS = 2


def run_steps(
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
    """Train a job to its end, one step each time it is asked for one, going on from where an earlier run stopped.

    Args:
        job: what to train. A finished checkpoint of an equal job is left as it is.
        folder: where `NAME.safetensors` goes; `NAME.state.safetensors` holds an unfinished run.
        source: the dataset's name or path, noted so that an analysis can find it again.
        device: where to compute.
        stop: set where it shall save and stop, as by SIGINT.
        deadline: value of `time.monotonic()` after which to save and stop.
        overwrite: train anew and replace a checkpoint, or an unfinished run of another job, with this name.
        save_every: seconds between saves.
        position: the line of its bar.
        logs: which logs to keep while it trains.

    Returns the checkpoint's path, and whether the model was trained now: another process may have made it in the
    meantime. Raises Stopped where it is stopped, and UserError where the name is taken by another job or the model
    collapsed.
    """
    path = folder / f"{job.name}.safetensors"
    lock = Lock(path)
    try:
        yield from ranks.wait_for_turn(lock, lambda: stop.is_set() or time.monotonic() > deadline)
        if ranks.run_on_first(lambda: is_finished(job, folder, overwrite=overwrite)):
            if ranks.find_rank() == 0:
                name_state(path).unlink(missing_ok=True)
            return path, False
        yield from _train(job, path, source, device, stop, deadline, overwrite, save_every, position, logs)
        return path, True
    finally:
        lock.release()


def _train(
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
    state_path, is_first = name_state(path), ranks.find_rank() == 0
    if is_first:
        remove_leftovers(path, state_path, name_log(path))
    with devices.preserve_threads():
        run = Run(job, device, logs.steps)
        earlier = _resume(run, state_path, overwrite=overwrite)
        if run.step and is_first:
            progress.say(f"{job.name} continues from step {run.step} of {run.total_steps}")
        metadata = {
            "job": job.describe(),
            "source": source,
            "code": provenance.read_code_version(),
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

        ranks.run_on_first(begin)
        yield writers[0] if writers else lambda _: None


def _precision(job: Job, device: torch.device) -> str:
    """Return how numbers are rounded, as the checkpoint says it."""
    if device.type == "cuda":
        return "bfloat16 forward, float32 weights and iterates"
    is_rounded = job.variant.adversarial and job.recipe.attack_precision == "bfloat16"
    return "float32, gradients of attacks bfloat16" if is_rounded else "float32"


def _environment(device: torch.device) -> dict[str, str | int]:
    return provenance.describe_environment(devices.describe(device), torch.get_num_threads(), ranks.count_ranks())


def is_finished(job: Job, folder: Path, *, overwrite: bool = False) -> bool:
    """Return whether the job's checkpoint is there and to be kept.

    Raises UserError where another job's has its name, or an unfinished training.
    """
    path = folder / f"{job.name}.safetensors"
    if overwrite or not path.exists():
        return False
    difference = describe_differences(drop_name(checkpoint.read(path).job), drop_name(job.describe()))
    if difference:
        raise UserError(f"{path} was trained with other settings ({difference}): {_WAYS_OUT}")
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
    bar = progress.open_bar(
        f"{run.job.architecture} {run.job.variant.name} seed {run.job.seed}",
        run.total_steps,
        "steps",
        initial=run.step,
        position=position,
    )
    with bar:
        while run.step < run.total_steps:
            if rows := run.advance():
                write(rows)
            if run.step % run.batches.steps_per_epoch == 0:
                check_collapse(run.history, run.classes)
            bar.update()
            if not bar.disable and run.step % SHOW_EVERY == 0:
                bar.set_postfix(run.running_means(), refresh=False)
            time_now = time.monotonic()
            late, due = ranks.gather_flags(time_now > deadline or stop.is_set(), time_now - saved_at > save_every)
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
    state = ranks.share_bytes(lambda: _read_state(run.job, state_path, overwrite=overwrite))
    if not state:
        return []
    state_checkpoint = checkpoint.parse_state(state_path, state)
    environment = state_checkpoint.about["environment"]
    if (
        run.device.type == "cpu"
        and state_checkpoint.about["precision"] == _precision(run.job, run.device)
        and environment.get("processes", 1) == ranks.count_ranks()
    ):
        torch.set_num_threads(environment["threads"])
    run.restore(state_checkpoint)
    origin = {key: state_checkpoint.about[key] for key in ("code", "environment", "precision", "step")}
    if ranks.count_restarts():
        origin["restart"] = ranks.count_restarts()
        run.restarted_from = run.step
    return [*state_checkpoint.about["earlier"], origin]


def _read_state(job: Job, state_path: Path, *, overwrite: bool) -> bytes:
    """Return the file of an unfinished run of this job; nothing where there is none, or one that may be replaced."""
    if not state_path.exists():
        return b""
    data = state_path.read_bytes()
    try:
        stored_job = checkpoint.parse_state(state_path, data).job
    except UserError:
        if overwrite:
            return b""
        raise
    difference = describe_differences(drop_name(stored_job), drop_name(job.describe()))
    if difference and not overwrite:
        raise UserError(f"{state_path} is an unfinished run with other settings ({difference}): {_WAYS_OUT}")
    return b"" if difference else data


def check_collapse(history: list[dict[str, float]], classes: int) -> None:
    """Raise UserError where the loss is not a number or the model has given up and names one class.

    The signs, for two epochs running: a loss of at least 99 % of ln(classes), which is that of guessing, and
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
            f"predictions name one class and the loss is no better than that of guessing. {_COLLAPSE_HELP}"
        )


_COLLAPSE_HELP = (
    "A lower learning_rate or a longer eps_ramp helps (--overwrite --set learning_rate=0.05 --set eps_ramp=0.5)."
)
