"""What several ranks do together for test_ranks.py, and one process does there."""

import os
import signal
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import replace
from multiprocessing import set_forkserver_preload
from pathlib import Path
from runpy import run_module
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributed.elastic.rendezvous import dynamic_rendezvous
from torch.distributed.launcher.api import LaunchConfig, elastic_launch
from trainer import train

from interpret_robust import analyses
from interpret_robust.analyses.engine.work import Work
from interpret_robust.core import ranks
from interpret_robust.core.arrays import AnyArray
from interpret_robust.core.errors import UserError
from interpret_robust.core.interruption import Stopped
from interpret_robust.datasets import Split
from interpret_robust.datasets.cluttered_digits import make_cluttered_digits
from interpret_robust.models import checkpoint
from interpret_robust.models.shared_norm import share_batch_norm
from interpret_robust.models.variants import find_variant
from interpret_robust.training.job import Job
from interpret_robust.training.log import Logs
from interpret_robust.training.recipe import Recipe
from interpret_robust.training.run import Run

CPU = torch.device("cpu")
DIGITS = make_cluttered_digits(205, 40)
MIDDLES = np.tile(DIGITS.train.images[:, 8:24, 8:24], (8, 1, 1, 1))
TRAINED_ON = replace(DIGITS, train=Split(MIDDLES, np.tile(DIGITS.train.labels, 8)))
"""Enough for all steps of an epoch, and small: each process makes and sees them."""
BATCH = 32
STEPS = {"natural": 50, "attacked": 20}
"""An attacked step takes ten times as many turns of all processes, with each batch norm in each step of the attack."""
GENTLE: dict[str, Any] = {"epochs": 1, "learning_rate": 1e-4, "schedule": "constant", "attack_steps": 1}
"""A rate at which rounding does not grow to more than itself in so few steps."""

TRAININGS: dict[str, tuple[str, dict[str, Any]]] = {
    "natural": ("natural", {"ema": 0.9, "flip": True}),
    "attacked": ("at-reg", {"attack_batch_norm": "train", "learning_rate": 2.5e-5}),
}
ANALYSES: dict[str, dict[str, Any]] = {
    "robustness": {"pgd": "3", "cw": "none"},
    "attention-rank": {"steps": 3},
    "gradient-maps": {},
}


def run_of(name: str) -> Run:
    """A training run that has not begun."""
    kind, changes = TRAININGS[name]
    recipe = Recipe("test", batch_size=BATCH, **(GENTLE | changes))
    return Run(Job(TRAINED_ON, "small", find_variant(kind), 3, recipe), CPU)


def train_steps(name: str) -> dict[str, Tensor]:
    """Its weights after some steps, and its totals of the epoch so far."""
    run = run_of(name)
    for _ in range(STEPS[name]):
        run.advance()
    state, tensors = run.state()
    assert state["step"] == STEPS[name]
    return tensors | run.final_tensors()


def work_of(path: Path, folder: Path, name: str) -> Work:
    """An analysis in batches of seven."""
    analysis, model = analyses.get(name), checkpoint.read(path)
    settings = analysis.settings(**ANALYSES[name])
    return Work(analysis, model, DIGITS, folder, settings=settings, split="test", limit=39, batch_size=7, device=CPU)


def stop_after(work: Work, count: int) -> Work:
    """The same, late after so many batches."""
    rows, batches = work.analysis.rows, [0]

    def late(*arguments: Any) -> dict[str, AnyArray]:
        batches[0] += 1
        if batches[0] == count:
            work._deadline = 0.0
        return rows(*arguments)

    work.analysis = replace(work.analysis, rows=late)
    return work


def outcome(job: Callable[[], Any]) -> str:
    """What comes of it, as text."""
    try:
        return str(job())
    except (Stopped, UserError) as error:
        return f"{type(error).__name__}: {error}"


def fail() -> None:
    raise UserError("only rank 0 can know")


NORMS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "plane": (lambda: nn.BatchNorm2d(3, eps=1e-3, momentum=0.1), (11, 3, 5, 4)),
    "row": (lambda: nn.BatchNorm1d(6), (8, 6)),
}


def normalize(name: str, part: slice) -> dict[str, Tensor]:
    """Outputs, gradients and buffers of a batch norm that sees a part of a batch, after two passes."""
    make, shape = NORMS[name]
    random = torch.Generator().manual_seed(7)
    norm = make().double()
    with torch.no_grad():
        for weights in norm.parameters():
            weights.copy_(torch.rand(weights.shape, generator=random, dtype=torch.float64))
    if ranks.count_ranks() > 1:
        share_batch_norm(norm)
    x = (3 + torch.randn(shape, generator=random, dtype=torch.float64))[part].requires_grad_()
    target = torch.randn(shape, generator=random, dtype=torch.float64)[part]
    y = norm(x) + 2 * norm(x.square())
    (y.sin() * target).sum().backward()
    assert x.grad is not None
    gradients = {
        name: ranks.sum_over_ranks(weights.grad)
        for name, weights in norm.named_parameters()
        if weights.grad is not None
    }
    norm.eval()
    return {"y": y.detach(), "x": x.grad, "eval": norm(x).detach(), **gradients, **dict(norm.named_buffers())}


def do_jobs(folder: Path) -> None:
    """All of it but what is killed."""
    ending = f"{ranks.find_rank()}.safetensors"
    for name, (_, shape) in NORMS.items():
        save_file(normalize(name, ranks.take_part(shape[0])), folder / f"norm-{name}-{ending}")
    for name in TRAININGS:
        tensors = train_steps(name)
        save_file(
            {key: tensor.clone().contiguous() for key, tensor in tensors.items()}, folder / f"trained-{name}-{ending}"
        )
    path = next(folder.glob("*-at-att-seed0.safetensors"))
    for name in ANALYSES:
        work_of(path, folder / "analyses", name).run()
    late = work_of(path, folder / "stopped", "gradient-maps")
    outcomes = [
        outcome(stop_after(late, 1).run if ranks.find_rank() == 1 else late.run),
        outcome(lambda: ranks.run_on_first(fail)),
        outcome(lambda: ranks.run_on_first(lambda: [ranks.find_rank(), "é"])),
        outcome(lambda: ranks.share_bytes(lambda: b"")),
        outcome(lambda: ranks.gather_flags(ranks.find_rank() == 1, False)),
        outcome(run_of_too_small_a_batch),
    ]
    (folder / f"said-{ranks.find_rank()}.txt").write_text("\n".join(outcomes), encoding="utf-8")


def run_of_too_small_a_batch() -> Run:
    """One that no two ranks can share."""
    recipe = Recipe("test", **(GENTLE | {"batch_size": 1}))
    return Run(Job(TRAINED_ON, "small", find_variant("natural"), 3, recipe), CPU)


def killed_job() -> Job:
    """Three epochs of six steps."""
    recipe = Recipe("test", epochs=3, batch_size=30, learning_rate=0.05)
    return Job(TRAINED_ON, "small", find_variant("natural"), 1, recipe, limit=180)


def train_and_be_killed(folder: Path) -> None:
    """A training that saves at each step, and in which rank 1 is killed in the midst of the second epoch."""
    advance = Run.advance

    def deadly(run: Run) -> list[Any]:
        lines = advance(run)
        if run.step == 9 and ranks.find_rank() == 1 and ranks.count_restarts() == 0 and "killed" in folder.name:
            os.kill(os.getpid(), signal.SIGKILL)
        return lines

    Run.advance = deadly  # type: ignore[assignment, method-assign]
    logs = Logs(file=True, steps=2)
    train(killed_job(), folder, source="cluttered-digits", device=CPU, save_every=0, logs=logs)


def in_group(job: Callable[[Path], None], folder: Path) -> None:
    """Do a job of this module as one process of a group."""
    with ranks.process_group():
        job(folder)


def command(folder: Path, *words: str) -> None:
    """Do what `torchrun -m interpret_robust WORDS` does, and print to a file a rank."""
    sys.argv = ["irt", *words]
    output = folder / f"printed-{os.environ['RANK']}.txt"
    with output.open("w", encoding="utf-8") as file, redirect_stdout(file), pytest.raises(SystemExit, match=r"^0$"):
        run_module("interpret_robust", run_name="__main__")


def work(job: Callable[..., None], *arguments: Any) -> None:
    """What each process does."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the server of the process pool ignores it, if it is that one
    job(*arguments)


def together(count: int, job: Callable[..., None], *arguments: Any, restarts: int = 0) -> None:
    """Do a job by so many processes, as torchrun does, but each forked of one that has loaded torch."""
    set_forkserver_preload(["interpret_robust.study.tasks", "torch._dynamo", "sklearn.datasets"])
    run = LaunchConfig(
        1, 1, count, rdzv_backend="c10d", rdzv_endpoint="localhost:0", max_restarts=restarts, start_method="forkserver"
    )
    with pytest.MonkeyPatch.context() as patch:
        # What torch notes of each step of their meeting names a function, for which it reads source files for seconds.
        patch.setattr(dynamic_rendezvous, "get_method_name", lambda: "")
        elastic_launch(run, work)(job, *arguments)
