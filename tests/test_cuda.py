"""On a GPU: training runs, and attack and analysis agree with the CPU. Skipped where there is none."""

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from interpret_robust import analyses, device, results, streaming
from interpret_robust.datasets import Dataset
from interpret_robust.training import checkpoint
from interpret_robust.training.job import Job
from interpret_robust.training.loop import train
from interpret_robust.training.recipe import PRESETS
from interpret_robust.variants import variant

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")


def test_every_variant_trains(tmp_path: Path, digits: Dataset) -> None:
    recipe = replace(PRESETS["quick"], epochs=2, batch_size=20, flip=True)
    for name in ("natural", "at-reg", "at-att-reg"):
        job = Job(digits, "small", variant(name), 0, recipe)
        path = train(job, tmp_path, source="x", device=device.resolve("cuda"))
        about = checkpoint.read(path).about
        assert about["precision"].startswith("bfloat16")
        assert 0 < about["history"][-1]["cross_entropy"] < 5


@pytest.mark.parametrize("name", analyses.names())
def test_an_analysis_agrees_with_the_cpu(
    tmp_path: Path, digits: Dataset, make_checkpoint: Callable[..., Path], name: str
) -> None:
    analysis = analyses.get(name)
    has_attack = any(field.name == "steps" for field in fields(analysis.settings))
    readers = [make_checkpoint(tmp_path, "natural", seed) for seed in (1, 2)] if analysis.readers != "none" else []
    columns = []
    for where in ("cpu", "cuda"):
        work = streaming.Work(
            analysis,
            checkpoint.read(make_checkpoint(tmp_path)),
            digits,
            tmp_path / where,
            settings=analysis.settings(eps=8 / 255, steps=5) if has_attack else analysis.settings(),
            split="test",
            limit=None,
            batch_size=16,
            device=device.resolve(where),
            evaluators=[checkpoint.read(path) for path in readers],
        )
        result = results.read(work.run())
        columns.append({column.path: result[column.path] for column in analysis.schema.per_image})
    cpu, cuda = columns
    for path, values in cpu.items():
        if values.dtype.kind == "f":
            # A gradient near zero may change sign between devices, and one pixel of one image with it.
            np.testing.assert_array_equal(np.isnan(values), np.isnan(cuda[path]), err_msg=path)
            apart = np.abs(values - cuda[path])[~np.isnan(values)]
            assert apart.size == 0 or np.quantile(apart, 0.95) < 1e-3, path
        else:
            assert (values == cuda[path]).mean() >= 0.95, path
