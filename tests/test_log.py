"""Logs of training: equal to the history, one line each after a stop, and the same numbers for TensorBoard."""

import importlib.util
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import command
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from trainer import train

from interpret_robust.core import device as devices
from interpret_robust.core.errors import UserError
from interpret_robust.core.interruption import Stopped
from interpret_robust.datasets import Dataset
from interpret_robust.datasets.cluttered_digits import make_cluttered_digits
from interpret_robust.models import build, checkpoint
from interpret_robust.models.variants import find_variant
from interpret_robust.training.job import Job
from interpret_robust.training.log import Logs, Row, identify_job
from interpret_robust.training.recipe import Recipe
from interpret_robust.training.run import Run

CPU = torch.device("cpu")
RECIPE = Recipe("test", epochs=2, batch_size=16, learning_rate=0.05, attack_steps=1, eps_ramp=0.4)
EVERY_3 = Logs(file=True, steps=3)
CLOCK = ("time", "seconds")


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return make_cluttered_digits(70, 20)  # four steps an epoch


def job(dataset: Dataset, recipe: Recipe = RECIPE, name: str = "natural") -> Job:
    return Job(dataset, "small", find_variant(name), 3, recipe)


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def log_in(folder: Path) -> Path:
    (path,) = folder.glob("*.log.jsonl")
    return path


def without_clock(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name not in CLOCK} for row in lines]


def test_lines_of_epochs_are_the_history_of_the_checkpoint(tmp_path: Path, digits: Dataset) -> None:
    model_job = job(digits, name="at-reg")
    path = train(model_job, tmp_path, source="x", device=CPU, logs=EVERY_3)
    assert log_in(tmp_path).name == f"{path.stem}.log.jsonl"
    lines = rows(log_in(tmp_path))
    assert [(row["kind"], row["step"], row["epoch"]) for row in lines] == [
        ("steps", 3, 1),
        ("epoch", 4, 1),
        ("steps", 6, 2),
        ("epoch", 8, 2),
    ]
    history = checkpoint.read(path).about["history"]
    assert [{name: row[name] for name in history[0]} for row in lines if row["kind"] == "epoch"] == history
    assert {(row["model"], row["job"]) for row in lines} == {(path.stem, identify_job(model_job))}
    assert lines[0]["eps"] == pytest.approx(8 / 255 * (3 / 8) / 0.4)
    assert lines[0]["learning_rate"] == RECIPE.rate(3 / 8)
    assert lines[0]["feature_distance"] > 0


def test_lines_of_steps_are_means_since_the_line_before_in_the_epoch(tmp_path: Path, digits: Dataset) -> None:
    recipe = replace(RECIPE, learning_rate=0.0, weight_decay=0.0, pad=0)
    train(job(digits, recipe), tmp_path, source="x", device=CPU, logs=Logs(file=True, steps=3))
    batches, model = Run(job(digits, recipe), CPU).batches, build("small", "average", (3, 32, 32), 10, seed=3).train()
    losses, hits, votes = [], [], []
    for step in range(8):
        images, labels = batches.batch(step)
        logits = model(images).detach()
        losses.append(F.cross_entropy(logits, labels).item())
        hits.append((logits.argmax(1) == labels).float().mean().item())
        votes.append(torch.bincount(logits.argmax(1), minlength=10))
    lines = [row for row in rows(log_in(tmp_path)) if row["kind"] == "steps"]
    for row, steps in zip(lines, (slice(0, 3), slice(4, 6)), strict=True):  # a line tells nothing of another epoch
        assert row["cross_entropy"] == pytest.approx(np.mean(losses[steps]), rel=1e-4)
        assert row["accuracy"] == pytest.approx(np.mean(hits[steps]))
        count = 16 * (steps.stop - steps.start)
        assert row["largest_predicted_share"] == torch.stack(votes[steps]).sum(0).max().item() / count


def test_two_lines_of_steps_in_an_epoch_do_not_overlap(tmp_path: Path, digits: Dataset) -> None:
    train(job(digits), tmp_path, source="x", device=CPU, logs=Logs(file=True, steps=2))
    lines = rows(log_in(tmp_path))
    assert [(row["kind"], row["step"]) for row in lines] == [
        *(("steps", 2), ("steps", 4), ("epoch", 4)),
        *(("steps", 6), ("steps", 8), ("epoch", 8)),
    ]
    for first, second, epoch in (lines[:3], lines[3:]):
        for name in ("cross_entropy", "accuracy"):
            assert (first[name] + second[name]) / 2 == pytest.approx(epoch[name], rel=1e-5)


def stop_at_each_step(model_job: Job, folder: Path, logs: Logs) -> Path:
    """Train with a stop after every step."""
    for _ in range(8):
        try:
            return train(model_job, folder, source="x", device=CPU, deadline=-math.inf, logs=logs)
        except Stopped:
            pass
    raise AssertionError


def test_a_log_after_stops_is_that_of_a_run_in_one_piece(tmp_path: Path, digits: Dataset) -> None:
    model_job, whole, parts = job(digits, name="at-reg"), tmp_path / "whole", tmp_path / "parts"
    train(model_job, whole, source="x", device=CPU, logs=EVERY_3)
    stop_at_each_step(model_job, parts, EVERY_3)
    assert without_clock(rows(log_in(parts))) == without_clock(rows(log_in(whole)))
    assert all(row["time"] for row in rows(log_in(parts)))


def test_lines_behind_the_saved_step_are_written_once(
    tmp_path: Path, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A killed run has told of steps that it had not saved, and perhaps half of a line."""
    train(job(digits), tmp_path / "whole", source="x", device=CPU, logs=EVERY_3)
    advance = Run.advance

    def deadly(run: Run) -> list[Row]:
        lines = advance(run)
        if run.step == 7:
            raise KeyboardInterrupt
        return lines

    monkeypatch.setattr(Run, "advance", deadly)
    with pytest.raises(KeyboardInterrupt):
        train(job(digits), tmp_path, source="x", device=CPU, logs=EVERY_3)
    monkeypatch.setattr(Run, "advance", advance)
    with log_in(tmp_path).open("a", encoding="utf-8") as file:
        file.write('{"kind": "epo')
    (state,) = tmp_path.glob("*.state.*")
    assert (
        checkpoint.parse_state(state, state.read_bytes()).about["step"] == 0
        and len(rows_of_whole_lines(log_in(tmp_path))) == 3
    )
    train(job(digits), tmp_path, source="x", device=CPU, logs=EVERY_3)
    assert without_clock(rows(log_in(tmp_path))) == without_clock(rows(log_in(tmp_path / "whole")))


def rows_of_whole_lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").split("\n")[:-1]


def test_a_log_that_is_asked_for_later_has_the_epochs_before(tmp_path: Path, digits: Dataset) -> None:
    with pytest.raises(Stopped):
        train(job(digits), tmp_path, source="x", device=CPU, deadline=-math.inf)
    for _ in range(4):
        with pytest.raises(Stopped):
            train(job(digits), tmp_path, source="x", device=CPU, deadline=-math.inf)
    path = train(job(digits), tmp_path, source="x", device=CPU, logs=Logs(file=True))
    lines = rows(log_in(tmp_path))
    assert [(row["kind"], row["step"], row["time"] is None) for row in lines] == [
        ("epoch", 4, True),
        ("epoch", 8, False),
    ]
    assert [row["accuracy"] for row in lines] == [row["accuracy"] for row in checkpoint.read(path).about["history"]]


def test_without_being_asked_there_is_no_log(tmp_path: Path, digits: Dataset) -> None:
    path = train(job(digits, replace(RECIPE, epochs=1)), tmp_path, source="x", device=CPU)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("text", [None, "my notes\n", "my notes", '{"kind": 1}', '["no"]\n', '{"step": 1}\n', "\xff"])
def test_the_log_of_another_training_is_refused_unless_told(tmp_path: Path, digits: Dataset, text: str | None) -> None:
    one_epoch = replace(RECIPE, epochs=1)
    model_job, log = job(digits, one_epoch), tmp_path / f"{job(digits).name}.log.jsonl"
    if text is None:
        train(job(digits, replace(one_epoch, momentum=0.5)), tmp_path, source="x", device=CPU, logs=EVERY_3).unlink()
    else:
        log.write_bytes(text.encode("latin-1"))
    content = log.read_bytes()
    with pytest.raises(UserError, match=r"seed3.log.jsonl is the log of another training: move it, or --overwrite"):
        train(model_job, tmp_path, source="x", device=CPU, logs=EVERY_3)
    assert log.read_bytes() == content
    train(model_job, tmp_path, source="x", device=CPU, logs=EVERY_3, overwrite=True)
    assert {row["job"] for row in rows(log)} == {identify_job(model_job)} and len(rows(log)) == 2


def test_the_epoch_in_which_training_diverged_is_told_in_strict_json(tmp_path: Path, digits: Dataset) -> None:
    with pytest.raises(UserError, match="diverged"):
        train(job(digits, replace(RECIPE, learning_rate=1e30)), tmp_path, source="x", device=CPU, logs=EVERY_3)
    text = log_in(tmp_path).read_text(encoding="utf-8")
    assert "NaN" not in text and rows(log_in(tmp_path))[-1] | {"cross_entropy": None} == rows(log_in(tmp_path))[-1]


def test_a_line_can_be_read_at_once(tmp_path: Path, digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    counts, advance = [], Run.advance

    def counting(run: Run) -> list[Row]:
        counts.append(len(rows(log_in(tmp_path))))
        return advance(run)

    monkeypatch.setattr(Run, "advance", counting)
    train(job(digits), tmp_path, source="x", device=CPU, logs=EVERY_3)
    assert counts == [0, 0, 0, 1, 2, 2, 3, 3]


def test_the_device_is_waited_for_at_lines_alone(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    run, waits = Run(job(digits), CPU, log_steps=3), []
    monkeypatch.setattr(devices, "wait_for", lambda _: waits.append(run.step))
    for _ in range(8):
        run.advance()
    assert waits == [3, 4, 6, 8]


def test_steps_need_a_log() -> None:
    with pytest.raises(UserError, match="--log-steps 5 needs a log: give --log or --tensorboard FOLDER too"):
        Logs(steps=5)


def test_tensorboard_that_is_missing_is_told_before_work(
    tmp_path: Path, irt: command.Irt, monkeypatch: pytest.MonkeyPatch
) -> None:
    find: Callable[[str], object] = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "tensorboard" else find(name))
    code, out, err = irt("train", "at", "--tensorboard", tmp_path / "runs", "--root", tmp_path / "new")
    assert (code, out) == (2, "")
    assert err == "irt: --tensorboard needs the package tensorboard, which is missing: pip install tensorboard.\n"
    assert not list(tmp_path.iterdir())


def test_tensorboard_has_the_numbers_of_the_log_each_once(tmp_path: Path, digits: Dataset) -> None:
    reading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    model_job, logs = job(digits, name="at-reg"), Logs(file=True, steps=3, tensorboard=tmp_path / "runs")
    path = stop_at_each_step(model_job, tmp_path / "checkpoints", logs)
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name == f"{path.stem}-{identify_job(model_job)}"
    events = reading.EventAccumulator(str(folder)).Reload()
    lines = rows(log_in(path.parent))
    for kind in ("steps", "epoch"):
        for name in (
            "cross_entropy",
            "feature_distance",
            "accuracy",
            "largest_predicted_share",
            "learning_rate",
            "eps",
        ):
            points = [(event.step, event.value) for event in events.Scalars(f"{kind}/{name}")]
            log_points = [(row["step"], pytest.approx(row[name], rel=1e-6)) for row in lines if row["kind"] == kind]
            assert points == log_points


def test_tensorboard_asked_for_late_has_the_epochs_before(tmp_path: Path, digits: Dataset) -> None:
    reading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    model_job, folder = job(digits, name="at-reg"), tmp_path / "checkpoints"
    for _ in range(5):  # one step into the second epoch
        with pytest.raises(Stopped):
            train(model_job, folder, source="x", device=CPU, deadline=-math.inf)
    path = train(model_job, folder, source="x", device=CPU, logs=Logs(tensorboard=tmp_path / "runs"))
    (runs,) = (tmp_path / "runs").iterdir()
    events = reading.EventAccumulator(str(runs)).Reload()
    history = checkpoint.read(path).about["history"]
    assert len(history) == 2
    for name in ("cross_entropy", "feature_distance", "accuracy", "largest_predicted_share", "learning_rate", "eps"):
        points = [(event.step, event.value) for event in events.Scalars(f"epoch/{name}")]
        assert points == [(4 * row["epoch"], pytest.approx(row[name], rel=1e-6)) for row in history]


def test_the_command_writes_a_log_a_model(tmp_path: Path, irt: command.Irt) -> None:
    images, labels = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 1), np.uint8), np.arange(40) % 3
    np.savez(tmp_path / "data.npz", x_train=images, y_train=labels, x_test=images[:20], y_test=labels[:20])
    words = ["train", "natural", "at", "--dataset", tmp_path / "data.npz", "--recipe", "quick", "--root", tmp_path]
    code, _, err = irt(*words, "--set", "epochs=1", "--set", "batch_size=20", "--log", "--log-steps", 1)
    assert code == 0, err
    logs = sorted((tmp_path / "checkpoints").glob("*.log.jsonl"))
    assert [path.name for path in logs] == [f"data-small-{name}-seed0.log.jsonl" for name in ("at", "natural")]
    assert [[(row["kind"], row["step"]) for row in rows(path)] for path in logs] == [
        [("steps", 1), ("steps", 2), ("epoch", 2)]
    ] * 2
    code, out, err = irt(*words, "--set", "epochs=1", "--set", "batch_size=20", "--log")
    assert (code, err) == (0, "") and "no log" not in out
    logs[1].unlink()
    code, out, err = irt(*words, "--set", "epochs=1", "--set", "batch_size=20", "--log")
    assert (code, err) == (0, "")
    assert out.endswith("no log is written of models that are trained already: --overwrite trains them again\n")
    assert not logs[1].exists()


def test_a_training_that_goes_on_says_from_where(
    tmp_path: Path, digits: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    for step in range(3):
        with pytest.raises(Stopped):
            train(job(digits), tmp_path, source="x", device=CPU, deadline=-math.inf)
        continues = f"{job(digits).name} continues from step {step} of 8\n"
        assert capsys.readouterr().err == (continues if step else "")
