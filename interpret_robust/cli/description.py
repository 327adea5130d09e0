"""What a file of ours holds, as text, without torch: `irt show`."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from interpret_robust.core.configs import lines
from interpret_robust.core.errors import UserError
from interpret_robust.models import checkpoint_file
from interpret_robust.results import hdf5
from interpret_robust.results.tables import render


def describe(path: Path) -> str:
    """Return contents and origin of a checkpoint (.safetensors) or an analysis (.h5), after checking its checksum.

    Raises UserError for a file that is missing, damaged or of another kind.
    """
    if path.suffix == ".safetensors":
        return _describe_checkpoint(path)
    if path.suffix == ".h5":
        return _describe_analysis(path)
    raise UserError(f"{path} is neither a checkpoint (.safetensors) nor an analysis (.h5).")


def _describe_checkpoint(path: Path) -> str:
    content = checkpoint_file.read(path)
    metadata = dict(content.about)
    history = metadata.pop("history")
    numbers = sum(math.prod(tensor.shape) for tensor in content.tensors.values())
    rows = [{key: _short(value) for key, value in epoch.items()} for epoch in history]
    return "\n\n".join(
        [
            f"{path}: {len(content.tensors)} tensors, {numbers} numbers, checksum good",
            lines(metadata),
            render(rows) if rows else "no epoch is finished yet",
        ]
    )


def _describe_analysis(path: Path) -> str:
    result = hdf5.read(path)
    rows = [{"dataset": name, "type": kind, "meaning": meaning} for name, kind, meaning in hdf5.tree(path)]
    numbers = [{"statistic": name, "value": _short(result[name])} for name in _statistics(path)]
    return "\n\n".join(
        [
            f"{path}: {result.schema}, {result.count} images, checksum good",
            lines(hdf5.provenance(path)),
            render(rows),
            render(numbers),
        ]
    )


def _statistics(path: Path) -> list[str]:
    """Return the paths of a file's statistics that fit on a line: one number, or a number and its interval."""
    return [
        name
        for name, kind, _ in hdf5.tree(path)
        if kind.endswith((" scalar", " 3")) and not kind.startswith("text") and "/" in name
    ]


def _short(value: Any) -> str:
    return " ".join(f"{number:.4g}" for number in np.atleast_1d(value))
