"""What the file of an analysis is called."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from interpret_robust.analyses.engine.analysis import Analysis
from interpret_robust.datasets.base import Split


def file_name(
    analysis: Analysis,
    checkpoint: str,
    job: Mapping[str, Any],
    split: str,
    settings: Any,
    limit: int | None,
    other: str = "",
    readers: Sequence[str] = (),
    recalibrate: str = "none",
) -> str:
    """The file of an analysis of a checkpoint of this job; what differs from the default settings is part of its name.

    `other` is the dataset's name where it is not that of training, else empty; `readers` are the evaluators
    where they are not the default ones; `recalibrate` is the kind of images that batch norm was recalibrated on.
    """
    given, default = settings.resolved(job), type(settings)().resolved(job)
    changed = [
        f"{field.name.replace('_', '')}{_in_name(getattr(given, field.name))}"
        for field in fields(given)
        if getattr(given, field.name) != getattr(default, field.name)
    ]
    if readers:
        changed.append(f"by{hashlib.sha256(' '.join(readers).encode()).hexdigest()[:6]}")
    if recalibrate != "none":
        changed.append(f"recalibrated_{recalibrate}")
    parts = [analysis.schema.name, checkpoint, other and f"on-{other}", split, *changed, limit and f"first{limit}"]
    name = "-".join(part for part in parts if part)
    if len(name) > LONGEST_NAME:
        name = f"{name[: LONGEST_NAME - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return f"{name}.h5"


def reached(limit: int | None, split: Split) -> int | None:
    """A limit; none where the split does not reach it: the same images under another name would be asked twice."""
    return None if limit is None or limit >= len(split) else limit


def _in_name(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else re.sub(r"[^\w.]+", "_", str(value))


LONGEST_NAME = 200
"""Of a file, without its endings: systems allow 255 bytes. What is longer ends in a digest of all of it."""
