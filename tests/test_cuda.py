"""On a GPU: training runs, and attack and analysis agree with the CPU. Skipped where there is none."""

from collections.abc import Callable, Generator
from dataclasses import fields, replace
from pathlib import Path
from threading import Event

import numpy as np
import pytest
import torch
from trainer import train

from interpret_robust import analyses
from interpret_robust.analyses.engine import work as streaming
from interpret_robust.attacks.settings import BatchNormMode
from interpret_robust.core import device
from interpret_robust.datasets import Dataset
from interpret_robust.models import checkpoint
from interpret_robust.models.variants import find_variant
from interpret_robust.results import hdf5
from interpret_robust.training.accelerate import WARM_UP, RecordedStep
from interpret_robust.training.job import Job
from interpret_robust.training.loop import run_steps
from interpret_robust.training.recipe import PRESETS
from interpret_robust.training.run import Run

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")


def test_every_variant_trains(tmp_path: Path, digits: Dataset) -> None:
    recipe = replace(PRESETS["quick"], epochs=2, batch_size=20, flip=True)
    for name in ("natural", "at-reg", "at-att-reg"):
        job = Job(digits, "small", find_variant(name), 0, recipe)
        path = train(job, tmp_path, source="x", device=device.resolve("cuda"))
        header = checkpoint.read(path).about
        assert header["precision"].startswith("bfloat16")
        assert 0 < header["history"][-1]["cross_entropy"] < 5


@pytest.mark.parametrize("batch_norm", ["eval", "train"])
def test_compiled_and_recorded_steps_are_those_as_written(digits: Dataset, batch_norm: BatchNormMode) -> None:
    recipe = replace(PRESETS["fast"], epochs=5, batch_size=20, attack_steps=2, attack_batch_norm=batch_norm)
    job = Job(digits, "small", find_variant("at-att-reg"), 0, recipe)
    fast, plain = (Run(job, device.resolve("cuda")) for _ in range(2))
    del plain.model.features
    plain.update = plain._update
    for _ in range(2 * WARM_UP):
        fast.advance()
        plain.advance()
        torch.testing.assert_close(fast.totals.sums, plain.totals.sums, rtol=0.02, atol=0.02)
    assert isinstance(fast.update, RecordedStep) and fast.update.graph is not None
    # bfloat16 rounds otherwise in fused kernels, and signs of an attack follow: the same course, not the same bits.
    for weights, other in zip(fast.model.parameters(), plain.model.parameters(), strict=True):
        assert (weights - other).norm() < 0.1 * other.norm() + 1e-3


def test_models_trained_at_once_are_those_trained_alone(tmp_path: Path, digits: Dataset) -> None:
    recipe = replace(PRESETS["fast"], epochs=3, batch_size=20, attack_steps=2)
    gpu = device.resolve("cuda")
    jobs = [Job(digits, "small", find_variant(name), 0, recipe) for name in ("at", "at-att-reg")]
    alone = [checkpoint.read(train(job, tmp_path / "alone", source="x", device=gpu)) for job in jobs]
    stop = Event()
    steps = [run_steps(job, tmp_path / "at once", source="x", device=gpu, stop=stop) for job in jobs]
    together = [checkpoint.read(path) for path in _in_turn(steps)]
    for first, other in zip(alone, together, strict=True):
        for loss in ("cross_entropy", "accuracy"):
            assert first.about["history"][-1][loss] == pytest.approx(other.about["history"][-1][loss], abs=0.05)


def _in_turn(steps: list[Generator[None, None, tuple[Path, bool]]]) -> list[Path]:
    """Each on its stream, as `in_turn.run` goes through tasks."""
    paths: dict[int, Path] = {}
    streams = [torch.cuda.stream(torch.cuda.Stream()) for _ in steps]  # type: ignore[no-untyped-call]
    while len(paths) < len(steps):
        for place, (step, stream) in enumerate(zip(steps, streams, strict=True)):
            try:
                with stream:
                    next(step)
            except StopIteration as end:
                paths.setdefault(place, end.value[0])
    return [paths[place] for place in range(len(steps))]


@pytest.mark.parametrize("name", analyses.list_names())
def test_an_analysis_agrees_with_the_cpu(
    tmp_path: Path, digits: Dataset, make_checkpoint: Callable[..., Path], name: str
) -> None:
    analysis = analyses.get(name)
    has_attack = any(field.name == "steps" for field in fields(analysis.settings))
    readers = [make_checkpoint(tmp_path, "natural", seed) for seed in (1, 2)] if analysis.readers != "none" else []
    columns = []
    for kind in ("cpu", "cuda"):
        work = streaming.Work(
            analysis,
            checkpoint.read(make_checkpoint(tmp_path)),
            digits,
            tmp_path / kind,
            settings=analysis.settings(eps=8 / 255, steps=5) if has_attack else analysis.settings(),
            split="test",
            limit=None,
            batch_size=16,
            device=device.resolve(kind),
            evaluators=[checkpoint.read(path) for path in readers],
        )
        result = hdf5.read(work.run())
        columns.append({column.path: result[column.path] for column in analysis.schema.per_image})
    cpu, cuda = columns
    for path, values in cpu.items():
        if values.dtype.kind == "f":
            # A gradient near zero may change sign between devices, and one pixel of one image with it.
            np.testing.assert_array_equal(np.isnan(values), np.isnan(cuda[path]), err_msg=path)
            differences = np.abs(values - cuda[path])[~np.isnan(values)]
            assert differences.size == 0 or np.quantile(differences, 0.95) < 1e-3, path
        else:
            assert (values == cuda[path]).mean() >= 0.95, path
