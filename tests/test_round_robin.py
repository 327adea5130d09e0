"""Steps in turn: models trained together end with the bits of models trained alone, and all stop when asked."""

import os
import signal
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

import pytest
import torch
from trainer import train

from interpret_robust.core import round_robin
from interpret_robust.core.errors import UserError
from interpret_robust.core.interruption import Stopped
from interpret_robust.datasets.cluttered_digits import make_cluttered_digits
from interpret_robust.models import checkpoint
from interpret_robust.models.variants import find_variant
from interpret_robust.study.tasks import TrainTask
from interpret_robust.training.job import Job
from interpret_robust.training.recipe import Recipe

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Counting:
    """Notes each of its steps in a common list; fails after the last one, for some names; asks to stop at a step."""

    name: str
    count: int
    log: list[str] = field(default_factory=list, hash=False)
    signal_at: int = -1

    def steps(self, stop: Event, position: int | None) -> Generator[None, None, str]:
        for step in range(self.count):
            if stop.is_set():
                raise Stopped(f"{self.name} stopped")
            self.log.append(f"{self.name}{step}")
            if step == self.signal_at:
                os.kill(os.getpid(), signal.SIGTERM)
            yield
        if self.name == "bad":
            raise UserError("a mistake")
        return f"{self.name} {position}"


def test_steps_alternate_and_a_free_place_is_taken_by_the_next() -> None:
    log: list[str] = []
    tasks = [Counting(name, count, log) for name, count in (("a", 1), ("b", 3), ("bad", 1), ("c", 2))]
    outcomes = list(round_robin.run(tasks, 2, CPU))
    assert log == ["a0", "b0", "b1", "bad0", "b2", "c0", "c1"]
    by_name = {task.name: outcome for task, outcome in outcomes if isinstance(task, Counting)}
    assert (by_name["a"], by_name["b"], by_name["c"]) == ("a 0", "b 1", "c 0")
    assert isinstance(by_name["bad"], UserError)


def test_after_a_signal_all_that_run_stop_and_none_is_begun() -> None:
    log: list[str] = []
    handler = signal.getsignal(signal.SIGTERM)
    tasks = [Counting("a", 9, log), Counting("b", 9, log, signal_at=1), Counting("c", 9, log)]
    outcomes = [str(outcome) for _, outcome in round_robin.run(tasks, 2, CPU)]
    assert outcomes == ["a stopped", "b stopped"]
    assert log == ["a0", "b0", "a1", "b1"]
    assert signal.getsignal(signal.SIGTERM) is handler


def test_to_end_gives_what_the_steps_return() -> None:
    assert round_robin.to_end(Counting("a", 3).steps(Event(), 7)) == "a 7"


@pytest.mark.long
@pytest.mark.parametrize("at_once", [1, 3])
def test_models_trained_in_turn_end_with_the_bits_of_models_trained_alone(tmp_path: Path, at_once: int) -> None:
    dataset = make_cluttered_digits(48, 20)
    recipe = Recipe("test", epochs=2, batch_size=16, learning_rate=0.05, attack_steps=1, eps_ramp=0.5)
    names = ("at-att-reg", "at", "natural")

    @dataclass(frozen=True)
    class OnDigits(TrainTask):
        def job(self) -> Job:
            return Job(dataset, "small", find_variant(self.variant), self.seed, recipe)

    tasks = [OnDigits("x", "small", name, 3, recipe, tmp_path / "together", "cpu") for name in names]
    outcomes = [outcome for _, outcome in round_robin.run(tasks, at_once, CPU)]
    lines = sorted(str(outcome).split(":")[0] for outcome in outcomes)
    assert lines == sorted(f"trained {task.name}" for task in tasks)
    for task in tasks:
        alone = checkpoint.read(train(task.job(), tmp_path / "alone", source="x", device=CPU))
        together = checkpoint.read(tmp_path / "together" / task.name)
        assert all(torch.equal(alone.tensors[name], tensor) for name, tensor in together.tensors.items())
