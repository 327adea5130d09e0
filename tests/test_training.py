"""Training: the step against plain PyTorch, exact resume, collapse, and what a checkpoint says of itself."""

import math
import os
import random
import signal
from dataclasses import replace
from pathlib import Path

import forked
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from trainer import train

from interpret_robust.attacks.noise import generator_noise
from interpret_robust.core.errors import UserError
from interpret_robust.core.interruption import Stopped
from interpret_robust.datasets import Dataset
from interpret_robust.datasets.batches import ATTACK, TrainingBatches, make_generator
from interpret_robust.datasets.cluttered_digits import make_cluttered_digits
from interpret_robust.models import build, checkpoint
from interpret_robust.models.variants import find_variant
from interpret_robust.training.job import Job
from interpret_robust.training.loop import check_collapse
from interpret_robust.training.objective import Objective
from interpret_robust.training.recipe import Recipe
from interpret_robust.training.run import Run, Totals

CPU = torch.device("cpu")
RECIPE = Recipe(
    "test", epochs=2, batch_size=16, learning_rate=0.05, attack_step=5 / 255, attack_steps=2, eps_ramp=0.4, flip=True
)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return make_cluttered_digits(70, 20)


def job(dataset: Dataset, name: str = "at-att-reg", recipe: Recipe = RECIPE, seed: int = 3) -> Job:
    return Job(dataset, "small", find_variant(name), seed, recipe)


def weights(path: Path) -> dict[str, torch.Tensor]:
    return checkpoint.read(path).tensors


def assert_equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("name", ["natural", "at", "at-att-reg"])
def test_two_steps_equal_a_plain_loop(digits: Dataset, name: str) -> None:
    task = job(digits, name)
    run = Run(task, CPU)
    model = build("small", task.variant.head, (3, 32, 32), 10, seed=3).to(memory_format=torch.channels_last).train()
    velocity = {key: torch.zeros_like(parameter) for key, parameter in model.named_parameters()}
    batches = TrainingBatches(digits.train, 16, 3, CPU, pad=2, flip=True)
    for step in range(2):
        share = (step + 1) / (2 * (70 // 16))
        images, labels = batches.batch(step)
        adversarial = images
        if name != "natural":
            attack = RECIPE.attack(share)
            assert attack.eps == pytest.approx(8 / 255 * min(1, share / 0.4))
            adversarial = attack(model, images, labels, generator_noise(make_generator(CPU, 3, ATTACK, step)))
        features = model.features(adversarial).pooled
        loss = F.cross_entropy(model.classifier(features), labels)
        if name == "at-att-reg":
            difference = features - model.features(images).pooled
            loss = loss + 0.01 * difference.square().sum(1).sqrt().mean()
        model.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            for key, parameter in model.named_parameters():
                assert parameter.grad is not None
                decay = 5e-4 if parameter.ndim > 1 else 0.0
                velocity[key] = 0.9 * velocity[key] + parameter.grad + decay * parameter
                parameter.sub_(RECIPE.rate(share) * velocity[key])
        run.advance()
        for key, parameter in model.named_parameters():
            torch.testing.assert_close(run.model.get_parameter(key), parameter, rtol=1e-4, atol=1e-6)
        # A last bit that differs may turn the sign of a step of the next attack, and with it a pixel.
        model.load_state_dict(run.model.state_dict())


@pytest.mark.parametrize(
    "recipe",
    [
        RECIPE,
        replace(RECIPE, ema=0.9),
        replace(RECIPE, optimizer="adam", learning_rate=1e-3),
        pytest.param(
            replace(RECIPE, attack_precision="bfloat16", attack_batch_norm="train"), marks=pytest.mark.long
        ),  # slow without the instructions
    ],
    ids=["sgd", "average", "adam", "bfloat16"],
)
def test_a_run_stopped_after_every_step_ends_with_the_same_bits(
    tmp_path: Path, digits: Dataset, recipe: Recipe
) -> None:
    task = job(digits, recipe=recipe)
    whole = train(task, tmp_path / "whole", source="x", device=CPU)
    for stops in range(1, 8):
        with pytest.raises(Stopped, match=f"after step {stops} of 8"):
            train(task, tmp_path / "pieces", source="x", device=CPU, deadline=-math.inf)
    pieces = train(task, tmp_path / "pieces", source="x", device=CPU, deadline=-math.inf)
    assert_equal(weights(whole), weights(pieces))
    histories = [checkpoint.read(path).about["history"] for path in (whole, pieces)]
    for first, second in zip(*histories, strict=True):
        assert {**first, "seconds": 0} == {**second, "seconds": 0}
    assert not list((tmp_path / "pieces").glob("*.state.*"))


def be_killed_at_random_moments(folder: Path) -> None:
    """Fork a trainer for each kill, of a process that has built a run before, so that everything is imported once.

    A timer of processor time ends a trainer as SIGKILL does, and as far on its way whatever else the machine has to do.
    """
    torch.set_num_threads(1)
    recipe = Recipe("killed", epochs=3, batch_size=16, learning_rate=0.05, attack_steps=1, ema=0.9)
    job = Job(make_cluttered_digits(240, 20), "small", find_variant("at-att"), 0, recipe)
    Run(job, CPU)

    def status(name: str, seconds: float = 0.0) -> int:
        child = os.fork()
        if not child:
            signal.setitimer(signal.ITIMER_PROF, seconds)
            train(job, folder / name, source="x", device=CPU, save_every=0.0)
            os._exit(0)
        return os.waitpid(child, 0)[1]

    assert status("whole") == 0
    took = os.times().children_user + os.times().children_system
    moments = random.Random(0)
    assert [status("killed", moments.uniform(0, took / 10)) for _ in range(20)] == [signal.SIGPROF] * 20
    assert status("killed") == 0


@pytest.mark.long
def test_a_run_killed_at_random_moments_ends_with_the_same_bits(tmp_path: Path) -> None:
    code, _, err = forked.run(be_killed_at_random_moments, tmp_path)
    assert code == 0, err
    (whole,), (restart,) = (list((tmp_path / name).glob("*.safetensors")) for name in ("whole", "killed"))
    assert_equal(weights(whole), weights(restart))
    steps = [part["step"] for part in checkpoint.read(restart).about["earlier"]]
    assert steps == sorted(steps) and steps[-1] > 0


def test_sigterm_saves_and_stops_between_two_steps(
    tmp_path: Path, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    advance = Run.advance

    def interrupt(run: Run) -> None:
        if run.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        advance(run)

    monkeypatch.setattr(Run, "advance", interrupt)
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped, match="after step 3 of 8"):
        train(job(digits), tmp_path, source="x", device=CPU)
    assert signal.getsignal(signal.SIGTERM) is handler
    (state,) = tmp_path.glob("*.state.safetensors")
    assert read_state(state).about["step"] == 3


def test_a_resumed_run_keeps_where_its_earlier_steps_were_made(tmp_path: Path, digits: Dataset) -> None:
    with pytest.raises(Stopped):
        train(job(digits), tmp_path, source="x", device=CPU, deadline=-math.inf)
    (state,) = tmp_path.glob("*.state.*")
    snapshot = read_state(state)
    foreign = snapshot.about | {"environment": snapshot.about["environment"] | {"device": "another"}}
    checkpoint.write(state, foreign, snapshot.tensors)
    header = checkpoint.read(train(job(digits), tmp_path, source="x", device=CPU)).about
    assert header["environment"]["device"] == "cpu"
    assert [(part["environment"]["device"], part["step"]) for part in header["earlier"]] == [("another", 1)]


def read_state(path: Path) -> checkpoint.Checkpoint:
    return checkpoint.parse_state(path, path.read_bytes())


def test_a_file_under_the_name_of_the_other_kind_is_refused_with_what_to_rename_it_to(
    tmp_path: Path, digits: Dataset
) -> None:
    with pytest.raises(Stopped):
        train(job(digits), tmp_path, source="x", device=CPU, deadline=-math.inf)
    (state,) = tmp_path.glob("*.state.safetensors")
    path = state.rename(tmp_path / f"{job(digits).name}.safetensors")
    sentence = f"{path} is an unfinished training under the name of a finished one: rename it to {state.name}, and the "
    with pytest.raises(UserError, match=f"{sentence}same `irt train` goes on with it."):
        train(job(digits), tmp_path, source="x", device=CPU)
    path.rename(state)
    assert train(job(digits), tmp_path, source="x", device=CPU) == path
    whole = weights(path)

    path.rename(state)
    with pytest.raises(UserError, match=rf"{state} is a finished checkpoint under .* rename it to {path.name}\."):
        train(job(digits), tmp_path, source="x", device=CPU)
    assert_equal(weights(train(job(digits), tmp_path, source="x", device=CPU, overwrite=True)), whole)


def test_a_finished_model_is_left_alone(tmp_path: Path, digits: Dataset) -> None:
    path = train(job(digits, "natural"), tmp_path, source="x", device=CPU)
    stamp = path.stat().st_mtime_ns
    assert train(job(digits, "natural"), tmp_path, source="x", device=CPU) == path
    assert path.stat().st_mtime_ns == stamp


def test_another_recipe_under_the_same_name_is_refused_unless_told(tmp_path: Path, digits: Dataset) -> None:
    path = train(job(digits, "natural"), tmp_path, source="x", device=CPU)
    old_weights = weights(path)
    other = job(digits, "natural", replace(RECIPE, learning_rate=0.01))
    with pytest.raises(
        UserError, match=r"natural-seed3.safetensors was .*recipe.learning_rate is 0.05, here 0.01.*--overwrite"
    ):
        train(other, tmp_path, source="x", device=CPU)
    assert_equal(old_weights, weights(path))
    train(other, tmp_path, source="x", device=CPU, overwrite=True)
    assert not torch.equal(old_weights["classifier.weight"], weights(path)["classifier.weight"])


def test_a_training_that_would_teach_nothing_is_refused(digits: Dataset) -> None:
    """The rate of one cycle ends at zero: that of a single step is nothing else."""
    whole = replace(RECIPE, epochs=1, batch_size=len(digits.train))
    with pytest.raises(UserError, match="has one step, at whose end the rate of the one-cycle schedule is 0"):
        Run(job(digits, recipe=whole), CPU)
    constant = Run(job(digits, "natural", replace(whole, schedule="constant")), CPU)
    old_state = {name: values.clone() for name, values in constant.model.state_dict().items()}
    constant.advance()
    assert not torch.equal(constant.model.state_dict()["classifier.weight"], old_state["classifier.weight"])


def test_an_unfinished_run_of_another_recipe_is_refused_unless_told(tmp_path: Path, digits: Dataset) -> None:
    with pytest.raises(Stopped):
        train(job(digits), tmp_path, source="x", device=CPU, deadline=-math.inf)
    other = job(digits, recipe=replace(RECIPE, epochs=1))
    with pytest.raises(UserError, match=r"unfinished run with other settings \(recipe.epochs is 2, here 1\)"):
        train(other, tmp_path, source="x", device=CPU)
    train(other, tmp_path, source="x", device=CPU, overwrite=True)


def test_the_average_is_the_running_mean_of_the_weights(digits: Dataset) -> None:
    run = Run(job(digits, "natural", replace(RECIPE, ema=0.75)), CPU)
    run.advance()
    mean = run.model.classifier.weight.detach().clone()
    run.advance()
    mean = 0.75 * mean + 0.25 * run.model.classifier.weight.detach()
    torch.testing.assert_close(run.final_tensors()["classifier.weight"], mean)
    torch.testing.assert_close(run.final_tensors()["backbone.norm.running_mean"], run.model.backbone.norm.running_mean)  # type: ignore[union-attr]


def test_running_means_are_of_the_images_that_were_counted(digits: Dataset) -> None:
    run = Run(job(digits, "natural"), CPU)
    run.advance()
    means = run.running_means()
    run.totals = Totals(3 * run.totals.sums, 3 * run.totals.predictions)  # as those of three ranks that one has taken
    assert run.running_means() == means


def test_a_checkpoint_says_how_it_was_made(tmp_path: Path, digits: Dataset) -> None:
    header = checkpoint.read(train(job(digits, "natural"), tmp_path, source="here.npz", device=CPU)).about
    assert header["job"]["dataset_sha256"] == digits.train.sha256
    assert header["job"]["recipe"]["learning_rate"] == 0.05
    assert (header["source"], header["precision"], header["code"]["version"]) == ("here.npz", "float32", "0.1.0")
    assert [row["epoch"] for row in header["history"]] == [1, 2]
    last = header["history"][-1]
    assert header["metrics"]["training_accuracy"] == last["accuracy"]
    assert last["learning_rate"] == pytest.approx(0.0)
    assert 0 < last["cross_entropy"] < 4


def test_history_counts_every_image_once(digits: Dataset) -> None:
    run = Run(job(digits, "natural", replace(RECIPE, learning_rate=0.0, weight_decay=0.0, pad=0, flip=False)), CPU)
    for _ in range(4):
        run.advance()
    model = build("small", "average", (3, 32, 32), 10, seed=3).train()
    losses, right = [], 0
    for step in range(4):
        images, labels = run.batches.batch(step)
        logits = model(images)
        losses.append(F.cross_entropy(logits, labels).item())
        right += int((logits.argmax(1) == labels).sum())
    assert run.history[0]["cross_entropy"] == pytest.approx(np.mean(losses), rel=1e-4)
    assert run.history[0]["accuracy"] == right / 64


def row(loss: float, share: float) -> dict[str, float]:
    return {"epoch": 4, "cross_entropy": loss, "largest_predicted_share": share}


@pytest.mark.parametrize(
    ("history", "sentence"),
    [
        ([row(2.3, 0.2), row(math.nan, 0.2)], "the loss is not finite"),
        ([row(2.3, 0.99), row(2.3, 0.99)], "99% of predictions name one class"),
    ],
)
def test_collapse_is_told(history: list[dict[str, float]], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        check_collapse(history, 10)


@pytest.mark.parametrize("history", [[row(2.3, 0.99)], [row(2.3, 0.5), row(2.3, 0.99)], [row(1.0, 0.99)] * 2])
def test_slow_starts_are_no_collapse(history: list[dict[str, float]]) -> None:
    check_collapse(history, 10)


def test_a_run_that_diverges_stops_with_a_sentence(tmp_path: Path, digits: Dataset) -> None:
    with pytest.raises(UserError, match=r"diverged|collapsed"):
        train(job(digits, "at", replace(RECIPE, learning_rate=1e6)), tmp_path, source="x", device=CPU)
    assert not list(tmp_path.glob("*-seed3.safetensors"))


def test_fewer_images_than_a_batch_are_told(digits: Dataset) -> None:
    with pytest.raises(UserError, match="15 training images are fewer than one batch of 16"):
        Run(Job(digits, "small", find_variant("at"), 0, RECIPE, limit=15), CPU)


def test_nothing_global_is_left_changed(tmp_path: Path, digits: Dataset) -> None:
    state = torch.get_rng_state(), str(np.random.get_state()), random.getstate()
    train(job(digits), tmp_path, source="x", device=CPU)
    assert torch.equal(state[0], torch.get_rng_state())
    assert (state[1], state[2]) == (str(np.random.get_state()), random.getstate())


def test_sums_of_an_epoch_do_not_depend_on_where_it_was_divided() -> None:
    values = torch.rand(64, 2, generator=torch.Generator().manual_seed(0)) + torch.tensor([2.0, 0.01])
    labels = torch.arange(7) % 3

    def add(rows: range) -> Totals:
        totals = Totals.zero(3, torch.device("cpu"))
        for cross_entropy, distance in values[rows.start : rows.stop]:
            totals.add(Objective(cross_entropy, cross_entropy, distance, torch.eye(3)[labels]), labels)
        return totals

    whole = add(range(64))
    exact = [math.fsum((value * 7).item() for value in column) for column in values.T]
    assert whole.sums.tolist() == [*exact, 7 * 64]
    for place in range(1, 64):
        assert torch.equal(add(range(place)).sums + add(range(place, 64)).sums, whole.sums)
