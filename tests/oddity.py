"""An analysis that asks nothing, with a column for each axis and a setting of each kind; data and models for it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch

from interpret_robust import analyses
from interpret_robust.analyses.engine.analysis import Analysis
from interpret_robust.analyses.engine.settings import Settings
from interpret_robust.analyses.engine.work import Work
from interpret_robust.core.arrays import AnyArray
from interpret_robust.datasets import Dataset, Split
from interpret_robust.datasets.batches import Batch
from interpret_robust.models import Classifier, build, checkpoint
from interpret_robust.models.variants import find_variant
from interpret_robust.results.columns import Axes, Columns
from interpret_robust.results.hdf5 import Result
from interpret_robust.results.schema import Column, Schema
from interpret_robust.training.job import Job
from interpret_robust.training.recipe import Recipe

SCHEMA = Schema(
    "odd",
    1,
    (
        Column("per_image/pixel", "u1", "the image", ("y", "x", "color")),
        Column("per_image/planes", "f4", "the same as the model takes it", ("color", "y", "x")),
        Column("per_image/local", "f4", "local features", ("channel", "position")),
        Column("per_image/logit", "f4", "logits", ("class",)),
        Column("per_image/read", "i2", "class that each evaluator reads", ("evaluator",)),
        Column("per_image/above", "f8", "label minus the mean label of all images"),
    ),
    (
        Column("test/read", "f8", "share of images that an evaluator reads rightly", ("evaluator",)),
        Column("test/highest", "f8", "largest logit"),
        Column("examples/index", "i4", "the images that a setting counts", ("example",)),
        Column("examples/logit", "f4", "their logits", ("example", "class")),
        Column("examples/brightness", "f8", "their mean over each third, of 255", ("example", "third")),
    ),
)


@dataclass(frozen=True)
class Oddities(Settings):
    """One setting of each kind."""

    count: int = field(default=0, metadata={"help": "How many examples."})
    scale: float = field(default=0.5, metadata={"help": "A scale."})
    most: float | None = field(default=None, metadata={"help": "A bound."})
    pick: str = field(default="all", metadata={"help": "A rule."})
    deep: bool = field(default=False, metadata={"help": "Whether deep."})
    left_side: Literal["open", "closed"] = field(default="open", metadata={"help": "A side."})


def prepare(work: Work) -> tuple[float, list[Classifier]]:
    """The mean label of all images, and the evaluators."""
    return float(torch.cat([batch.labels for batch in work.batches()]).float().mean()), list(work.evaluators.values())


def rows(model: Classifier, batch: Batch, preparation: tuple[float, list[Classifier]]) -> dict[str, AnyArray]:
    mean, evaluators = preparation
    with torch.no_grad():
        features = model.features(batch.images)
        read = [evaluator(batch.images).argmax(1) for evaluator in evaluators]
        columns: dict[str, Any] = {
            "pixel": (255 * batch.images).round().permute(0, 2, 3, 1),
            "planes": batch.images,
            "local": features.local.flatten(2),
            "logit": model.classifier(features.pooled),
            "read": torch.stack(read, 1),
            "above": batch.labels - mean,
        }
    return {f"per_image/{name}": np.asarray(values) for name, values in columns.items()}


def summarize(arrays: Columns, images: Split) -> dict[str, Any]:
    read = (arrays["per_image/read"] == images.labels[:, None]).mean(0)
    return {"test/read": read, "test/highest": arrays["per_image/logit"].max()}


def examples(arrays: Columns, images: Split, settings: Oddities) -> dict[str, Any]:
    index = np.arange(settings.count)[::-1]
    thirds = np.array_split(images.images[index], 3, axis=1)
    return {
        "examples/index": index,
        "examples/logit": arrays.rows_at("per_image/logit", index),
        "examples/brightness": np.stack([third.mean((1, 2, 3)) for third in thirds], 1),
    }


def axes(work: Work) -> Axes:
    """Thirds of an image, named by their first row."""
    height = work.dataset.image_shape[1]
    return {"third": tuple(f"from {third[0]}" for third in np.array_split(np.arange(height), 3))}


def table_row(result: Result, *views: str) -> dict[str, str]:
    """The two statistics, or the one that a view names."""
    columns = {"rightly": str(result["test/read"].tolist()), "highest": f"{result['test/highest']:.3f}"}
    return {name: columns[name] for name in views or columns}


def compare(results: Sequence[Result], *views: str) -> list[list[dict[str, str]]]:
    """How many files there are, where there are several."""
    return [[{f"files {view}": str(len(results)) for view in views or ("all",)}]] if len(results) > 1 else []


ANALYSIS = Analysis(
    SCHEMA,
    Oddities,
    rows,
    summarize,
    table_row,
    prepare=prepare,
    examples=examples,
    axes=axes,
    compare=compare,
    views=("rightly", "highest"),
    readers="evaluators",
)


def register(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `irt` have it as `odd`, as if its module lay with the others."""
    get, names, describe = analyses.get, analyses.list_names, analyses.about
    monkeypatch.setattr(analyses, "get", lambda name: ANALYSIS if name == "odd" else get(name))
    monkeypatch.setattr(analyses, "list_names", lambda: [*names(), "odd"])
    monkeypatch.setattr(analyses, "about", lambda name: "What is odd?" if name == "odd" else describe(name))


def odd_images(name: str = "odd") -> Dataset:
    """23 images of 16 by 20, so that channels (64), positions (4 x 5), classes (7), colors and sides all differ."""
    rng = np.random.default_rng(0)
    split = Split(rng.integers(0, 256, (23, 16, 20, 3), np.uint8), np.arange(23) % 7)
    return Dataset(name, split, split, ("plane", "car", "bird", "cat", "deer", "dog", "frog"))


def write_untrained(folder: Path, dataset: Dataset, architecture: str, name: str, seed: int) -> Path:
    """The checkpoint of a model as it is before training."""
    job = Job(
        dataset, architecture, find_variant(name), seed, Recipe("test", epochs=1, batch_size=5, learning_rate=0.01)
    )
    shape, classes = dataset.image_shape, len(dataset.class_names)
    tensors = build(architecture, job.variant.head, shape, classes, seed=seed).state_dict()
    path = folder / f"{job.name}.safetensors"
    checkpoint.write(path, {"job": job.describe(), "source": dataset.name, "history": []}, dict(tensors))
    return path
