"""The fast path: on a CPU a step is what it is; what cannot be compiled or recorded runs as written, said once."""

import copy
import time
from dataclasses import replace

import pytest
import torch
from torch._dynamo.testing import CompileCounter

from interpret_robust.core import device as devices
from interpret_robust.datasets.cluttered_digits import make_cluttered_digits
from interpret_robust.models import Classifier
from interpret_robust.models.variants import find_variant
from interpret_robust.training import accelerate as acceleration
from interpret_robust.training.accelerate import WARM_UP, RecordedStep, accelerate, keep_own_code
from interpret_robust.training.job import Job
from interpret_robust.training.recipe import Recipe
from interpret_robust.training.run import Run

CPU = torch.device("cpu")
RECIPE = Recipe("test", epochs=3, batch_size=16, learning_rate=0.05, attack_steps=1)
STEPS = WARM_UP + 3


def new_run(recipe: Recipe = RECIPE) -> Run:
    return Run(Job(make_cluttered_digits(64, 20), "small", find_variant("at-reg"), 3, recipe), CPU)


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
    lines = capsys.readouterr().err.strip().split("\n")
    assert len(lines) == 2
    assert lines[0] == "training goes on without torch.compile, more slowly: no compiler"
    assert lines[1].startswith("training goes on without a CUDA graph of the step, more slowly: ")


def test_a_fault_of_the_step_itself_is_not_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acceleration, "_compile", lambda model: None)

    def fail(*_: object) -> None:
        raise ValueError("a fault")

    with pytest.raises(ValueError, match="a fault"):
        RecordedStep(fail, new_run().model)(None, torch.zeros(1))


def test_what_fails_later_or_for_lack_of_memory_is_not_taken_for_the_compilers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(acceleration, "_compile", lambda model: setattr(model, "features", model.features))
    errors: list[Exception | None] = [torch.OutOfMemoryError("full"), None, RuntimeError("later")]

    def step(*_: object) -> None:
        error = errors.pop(0)
        if error is not None:
            raise error

    recorder = RecordedStep(step, new_run().model)
    with pytest.raises(torch.OutOfMemoryError, match="full"):
        recorder(None, torch.zeros(1))
    recorder(None, torch.zeros(1))
    with pytest.raises(RuntimeError, match="later"):
        recorder(None, torch.zeros(1))
    assert capsys.readouterr().err == "" and "features" in vars(recorder.model)


def test_every_model_is_compiled_however_many_there_are() -> None:
    """The compiler is given ten networks, more than it takes of one piece of code, and one that shares its code."""
    limit = torch._dynamo.config.recompile_limit
    backbone, images = torch.nn.Flatten(), torch.rand(2, 3, 2, 4)
    models = [Classifier(backbone, Weighting(place), torch.nn.Identity()) for place in range(limit + 2)]
    for is_own in (True, False):
        counter = CompileCounter()
        torch._dynamo.reset()
        for place, model in enumerate(models):
            features = keep_own_code(model.features) if is_own else model.features
            program = torch.compile(features, backend=counter, dynamic=False)
            assert torch.equal(program(images).pooled, place * images.flatten(1))
        assert counter.frame_count == (len(models) if is_own else limit)
    torch._dynamo.reset()


class Weighting(torch.nn.Module):
    """A head of another number for each network, which the compiler writes into its result."""

    def __init__(self, weight: int) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, local: torch.Tensor) -> tuple[None, torch.Tensor]:
        return None, self.weight * local


def test_the_clock_of_an_epoch_waits_for_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[int] = []
    run = new_run()

    def wait(_: torch.device) -> None:
        waits.append(run.step)
        time.sleep(0.2)

    monkeypatch.setattr(devices, "wait_for", wait)
    for _ in range(5):
        run.advance()
    assert waits == [4] and run.batches.steps_per_epoch == 4 and run.history[0]["seconds"] >= 0.2


def test_the_running_mean_is_that_of_torch_bit_by_bit() -> None:
    run = new_run(replace(RECIPE, ema=0.9))
    assert run.average is not None
    expected = copy.deepcopy(run.average)
    for _ in range(3):
        run.advance()
        expected.update_parameters(run.model)
    for name, values in expected.state_dict().items():
        assert torch.equal(values, run.average.state_dict()[name]), name


class Tape:
    """In the place of a CUDA graph: what a step did while it was recorded, done again on replay."""

    recordings = 0

    def __init__(self) -> None:
        Tape.recordings += 1

    def replay(self) -> None:
        self.redo()  # type: ignore[attr-defined]


def test_a_step_is_recorded_once_and_replayed_with_new_inputs_and_a_growing_radius(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(acceleration, "_compile", lambda model: None)
    monkeypatch.setattr(Tape, "recordings", 0)
    recipe = replace(RECIPE, eps_ramp=0.5)
    plain, fast = new_run(recipe), new_run(recipe)
    recorder = RecordedStep(fast._update, fast.model)
    as_written: list[int] = []

    def record(*inputs: torch.Tensor) -> None:
        recorder.inputs = tuple(value.clone() for value in inputs)
        tape, attack = Tape(), recorder.attack
        tape.redo = lambda: fast._update(attack, *recorder.inputs)  # type: ignore[attr-defined]
        recorder.graph = tape  # type: ignore[assignment]

    write = recorder._as_written

    def note_step(*inputs: torch.Tensor) -> None:
        as_written.append(fast.step)
        write(*inputs)

    monkeypatch.setattr(recorder, "_record", record)
    monkeypatch.setattr(recorder, "_as_written", note_step)
    fast.update = recorder
    for _ in range(12):
        plain.advance()
        fast.advance()
    assert_same_weights(plain, fast)
    # 12 steps, of which the first half ramp up: the radius grows on while the step is replayed.
    assert as_written == list(range(WARM_UP))
    assert Tape.recordings == 1
