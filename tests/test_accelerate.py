"""The fast path: on a CPU a step is what it is; what cannot be compiled or recorded runs as written, said once."""

from dataclasses import replace

import pytest
import torch

from interpret_robust.datasets.cluttered_digits import cluttered_digits
from interpret_robust.models import Classifier
from interpret_robust.models.variants import variant
from interpret_robust.training import accelerate as acceleration
from interpret_robust.training.accelerate import WARM_UP, RecordedStep, accelerate
from interpret_robust.training.job import Job
from interpret_robust.training.loop import Run
from interpret_robust.training.recipe import Recipe

CPU = torch.device("cpu")
RECIPE = Recipe("test", epochs=3, batch_size=16, learning_rate=0.05, attack_steps=1)
STEPS = WARM_UP + 3


def new_run(recipe: Recipe = RECIPE) -> Run:
    return Run(Job(cluttered_digits(64, 20), "small", variant("at-reg"), 3, recipe), CPU)


def test_on_a_cpu_a_step_is_what_it_is() -> None:
    run = new_run()
    assert accelerate(run._update, run.model, CPU) == run._update


def assert_same_weights(run: Run, other: Run) -> None:
    for name, tensor in run.model.state_dict().items():
        assert torch.equal(tensor, other.model.state_dict()[name]), name


def test_where_nothing_can_be_compiled_or_recorded_training_is_the_same_and_says_so_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def uncompilable(model: Classifier) -> None:
        def features(_: torch.Tensor) -> None:
            raise RuntimeError("no compiler\nand a long story")

        model.features = features  # type: ignore

    monkeypatch.setattr(acceleration, "_compile", uncompilable)
    plain, fast = new_run(), new_run()
    fast.update = RecordedStep(fast._update, fast.model)
    for _ in range(STEPS):
        plain.advance()
        fast.advance()
    assert_same_weights(plain, fast)
    told = capsys.readouterr().err.strip().split("\n")
    assert len(told) == 2
    assert told[0] == "training goes on without torch.compile, more slowly: no compiler"
    assert told[1].startswith("training goes on without a CUDA graph of the step, more slowly: ")


def test_a_fault_of_the_step_itself_is_not_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acceleration, "_compile", lambda model: None)

    def broken(*_: object) -> None:
        raise ValueError("a fault")

    with pytest.raises(ValueError, match="a fault"):
        RecordedStep(broken, new_run().model)(None, torch.zeros(1))


class Tape:
    """In the place of a CUDA graph: what a step did while it was recorded, done again on replay."""

    recorded = 0

    def __init__(self) -> None:
        Tape.recorded += 1

    def replay(self) -> None:
        self.again()  # type: ignore[attr-defined]


def test_a_step_is_recorded_once_its_attack_stands_still_and_replayed_with_new_inputs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(acceleration, "_compile", lambda model: None)
    monkeypatch.setattr(Tape, "recorded", 0)
    recipe = replace(RECIPE, eps_ramp=0.25)
    plain, fast = new_run(recipe), new_run(recipe)
    recorder = RecordedStep(fast._update, fast.model)
    as_written: list[int] = []

    def record(*inputs: torch.Tensor) -> None:
        recorder.inputs = tuple(given.clone() for given in inputs)
        tape, attack = Tape(), recorder.attack
        tape.again = lambda: fast._update(attack, *recorder.inputs)  # type: ignore[attr-defined]
        recorder.graph = tape  # type: ignore[assignment]

    write = recorder._as_written

    def noted(*inputs: torch.Tensor) -> None:
        as_written.append(fast.step)
        write(*inputs)

    monkeypatch.setattr(recorder, "_record", record)
    monkeypatch.setattr(recorder, "_as_written", noted)
    fast.update = recorder
    for _ in range(12):
        plain.advance()
        fast.advance()
    assert_same_weights(plain, fast)
    # 12 steps, of which 3 ramp up: the attack of the third is the final one, which runs WARM_UP times.
    assert as_written == [0, 1, 2, 3, 4]
    assert Tape.recorded == 1
