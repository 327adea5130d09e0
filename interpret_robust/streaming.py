"""How any analysis runs: a model meets a dataset batch by batch, rows go to disk, statistics come last."""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interpret_robust import device as devices
from interpret_robust import progress, provenance, results
from interpret_robust.datasets import Dataset, Split
from interpret_robust.datasets.batches import to_device, to_pixels
from interpret_robust.errors import UserError
from interpret_robust.interruption import Stopped, stop_requests
from interpret_robust.models import Classifier
from interpret_robust.results import AnyArray, Result, Schema
from interpret_robust.training.checkpoint import Checkpoint

BATCH_SIZE = 250


@dataclass(frozen=True)
class Batch:
    """Images (N, C, H, W) as pixels in [0, 1], labels (N,), indices in the split, masks (N, H, W) or None."""

    images: Tensor
    labels: Tensor
    indices: range
    masks: AnyArray | None


@dataclass(frozen=True)
class Analysis:
    """One question: its schema, its settings, and the functions that answer it.

    Attributes:
        schema: what its file holds. Axes of per-image columns may be `class`, `position` (of the local
            features, row-major) and `channel` (of the local features).
        settings: a frozen dataclass whose fields become options of the command; field metadata `help`
            explains them. Its `resolved(job)` fills in what depends on the checkpoint.
        rows: the per-image columns of one batch, for a model in eval mode.
        summarise: the statistics, from all per-image columns and the images they belong to.
        table_row: the headline numbers of a finished file, as the columns of a printed table.
        needs_attention: whether it only makes sense for a model with attention.
    """

    schema: Schema
    settings: type[Any]
    rows: Callable[[Classifier, Batch, Any], dict[str, AnyArray]]
    summarise: Callable[[Mapping[str, AnyArray], Split], dict[str, Any]]
    table_row: Callable[[Result], dict[str, str]]
    needs_attention: bool = False


def file_name(
    analysis: Analysis, checkpoint: str, split: str, settings: Any, default: Any, limit: int | None, other: str
) -> str:
    """The file of an analysis of a checkpoint; what differs from the default settings is part of its name.

    `other` is the dataset's name where it is not that of training, else empty.
    """
    changed = [
        f"{field.name.replace('_', '')}{getattr(settings, field.name):.4g}"
        for field in fields(settings)
        if getattr(settings, field.name) != getattr(default, field.name)
    ]
    parts = [analysis.schema.name, checkpoint, other and f"on-{other}", split, *changed, limit and f"first{limit}"]
    return "-".join(part for part in parts if part) + ".h5"


class Work:
    """An analysis of one checkpoint over one split, ready to run.

    Raises UserError for a model and a dataset that do not fit, and for a model without attention where
    the analysis needs it.
    """

    def __init__(
        self,
        analysis: Analysis,
        checkpoint: Checkpoint,
        dataset: Dataset,
        folder: Path,
        *,
        settings: Any,
        split: str,
        limit: int | None,
        batch_size: int,
        device: torch.device,
    ) -> None:
        _check_fit(checkpoint, dataset)
        if analysis.needs_attention and not has_attention(checkpoint):
            raise UserError(
                f"{checkpoint.path} has no attention ('{checkpoint.job['variant']}'): choose an -att variant."
            )
        self.analysis, self.device, self.batch_size = analysis, device, batch_size
        self.model = checkpoint.model(device)
        self.split = dataset.split(split).first(limit)
        self.settings = settings.resolved(checkpoint.job)
        default = type(settings)().resolved(checkpoint.job)
        other = dataset.name if dataset.name != checkpoint.job["dataset"] else ""
        self.path = folder / file_name(analysis, checkpoint.path.stem, split, self.settings, default, limit, other)
        channels, height, width = _local_shape(self.model, dataset, device)
        self.sizes = {"class": len(dataset.class_names), "channel": channels, "position": height * width}
        self.config = {
            "analysis": analysis.schema.label,
            "checkpoint": {"name": checkpoint.path.stem, "sha256": checkpoint.sha256, "job": checkpoint.job},
            "data": {
                "dataset": dataset.name,
                "split": split,
                "images": len(self.split),
                "sha256": self.split.sha256,
            },
            "settings": asdict(self.settings),
            "local_grid": [height, width],
            "batch_size": batch_size,
            "device": device.type,
        }

    def is_done(self, *, overwrite: bool) -> bool:
        """Whether its file is there. Raises UserError where another configuration's has its name."""
        return results.is_finished(self.path, self.analysis.schema, self.config, overwrite=overwrite)

    def run(self, *, overwrite: bool = False, position: int | None = None) -> Path:
        """Write the file, going on after the last whole batch of a stopped run.

        Raises Stopped on SIGINT or SIGTERM, with all whole batches kept.
        """
        environment = provenance.environment(devices.describe(self.device), torch.get_num_threads())
        schema, began = self.analysis.schema, time.monotonic()
        with results.open_rows(
            self.path, schema, len(self.split), self.sizes, self.config, environment, overwrite=overwrite
        ) as rows:
            self._stream(rows, position)
            summary = self.analysis.summarise(rows.arrays(), self.split)
            rows.finish(summary, provenance.code_version() | {"seconds": round(time.monotonic() - began, 1)})
        return self.path

    def _stream(self, rows: results.Rows, position: int | None) -> None:
        name, total = self.path.stem, len(self.split)
        bar = progress.bar(name, total, "images", initial=rows.done, position=position)
        with stop_requests() as stop, bar:
            while rows.done < total:
                if stop.is_set():
                    raise Stopped(f"{name} stopped after {rows.done} of {total} images")
                indices = range(rows.done, min(rows.done + self.batch_size, total))
                batch = make_batch(self.split, indices, self.device)
                rows.append(self.analysis.rows(self.model, batch, self.settings))
                bar.update(len(indices))


def has_attention(checkpoint: Checkpoint) -> bool:
    """Whether a checkpoint's head has attention weights."""
    return any(name.startswith("head.score") for name in checkpoint.tensors)


def _local_shape(model: Classifier, dataset: Dataset, device: torch.device) -> tuple[int, int, int]:
    """Channels, height and width of a model's local features."""
    with torch.no_grad():
        local = model.features(torch.zeros(1, *dataset.image_shape, device=device)).local
    channels, height, width = local.shape[1:]
    return channels, height, width


def make_batch(split: Split, indices: range, device: torch.device) -> Batch:
    """The images of a split at `indices`, on `device`."""
    part = slice(indices.start, indices.stop)
    masks = None if split.masks is None else split.masks[part]
    images, labels = to_device(Split(split.images[part], split.labels[part]), device)
    return Batch(to_pixels(images), labels, indices, masks)


def to_numpy(tensor: Tensor) -> AnyArray:
    """A tensor's values on the host."""
    values: AnyArray = np.asarray(tensor.detach().cpu())
    return values


def _check_fit(checkpoint: Checkpoint, dataset: Dataset) -> None:
    job = checkpoint.job
    if tuple(job["image_shape"]) != dataset.image_shape or len(job["class_names"]) != len(dataset.class_names):
        raise UserError(
            f"{checkpoint.path} was trained on {job['dataset']} (images {job['image_shape']}, "
            f"{len(job['class_names'])} classes), which does not fit {dataset.name} "
            f"(images {list(dataset.image_shape)}, {len(dataset.class_names)} classes)."
        )
