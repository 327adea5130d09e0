"""What the file of an analysis is called."""

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from interpret_robust.analyses.engine.analysis import Analysis
from interpret_robust.core.file_names import make_file_part
from interpret_robust.core.spelling import list_spellings
from interpret_robust.datasets.base import Split


def name_file(
    folder: Path,
    analysis: Analysis,
    checkpoint: str,
    job: Mapping[str, Any],
    split: str,
    settings: Any,
    limit: int | None,
    dataset: str = "",
    readers: Sequence[str] = (),
    recalibrate: str = "none",
) -> Path:
    """Return the file in `folder` of an analysis of a checkpoint of this job, by its old name where one is there.

    What differs from the default settings is part of its name; a long list is shortened there, see `_shorten`.

    `dataset` is the dataset's name where it is not that of training, else empty; `readers` are the evaluators
    where they are not the default ones; `recalibrate` is the kind of images that batch norm was recalibrated on.
    """
    resolved_settings, default = settings.resolve(job), type(settings)().resolve(job)
    differences = {
        field.name.replace("_", ""): getattr(resolved_settings, field.name)
        for field in fields(resolved_settings)
        if getattr(resolved_settings, field.name) != getattr(default, field.name)
    }
    suffixes = [f"by{_digest(' '.join(readers))}"] if readers else []
    if recalibrate != "none":
        suffixes.append(f"recalibrated_{recalibrate}")

    def paths(in_name: Callable[[Any], str]) -> Iterator[Path]:
        conditions = (f"{name}{in_name(value)}" for name, value in differences.items())
        parts = [checkpoint, dataset and f"on-{dataset}", split, *conditions, *suffixes, limit and f"first{limit}"]
        end = "-".join(part for part in parts if part)
        return (folder / f"{make_file_part(f'{name}-{end}')}.h5" for name in list_spellings(analysis.schema.name))

    choices = [*paths(_shorten), *paths(_whole)]  # names of older files hold a setting of any length
    return next((path for path in choices if path.exists()), choices[0])


def resolve_limit(limit: int | None, split: Split) -> int | None:
    """Return a limit; none where the split does not reach it.

    The same images under another name would be asked twice.
    """
    return None if limit is None or limit >= len(split) else limit


LONGEST_TEXT, LONGEST_FIRST = 40, 24
"""Characters of a setting in a file name, and of its first item where the whole is longer."""


def _shorten(value: Any) -> str:
    """Return a setting as its file is called: a long text is its first item, the count of others and a digest.

    Example:
        >>> _shorten("fog,snow"), _shorten("gaussian_noise,shot_noise,impulse_noise,defocus_blur")
        ('fog_snow', 'gaussian_noise_and_3_more_e348cf')
    """
    text = _whole(value)
    if len(text) <= LONGEST_TEXT:
        return text
    first, *rest = str(value).split(",")
    count = f"_and_{len(rest)}_more" if rest else ""
    return f"{_whole(first)[:LONGEST_FIRST]}{count}_{_digest(str(value))}"


def _whole(value: Any) -> str:
    """Return a setting with all its characters that a file name may have."""
    if isinstance(value, int):
        return str(int(value))
    return _number(value) if isinstance(value, float) else re.sub(r"[^\w.]+", "_", str(value))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()[:6]


def _number(value: float) -> str:
    """Return a number as its file is called: no two have the same name.

    A radius of quarters of 1/255 has four digits, as in 0.03137 for 8/255; any other number has all it takes, and a
    zero at the end where that is what a radius is called.

    Example:
        >>> _number(8 / 255), _number(0.0313), _number(0.03137)
        ('0.03137', '0.0313', '0.031370')
    """
    text = repr(value).removesuffix(".0")
    if not 0 < value <= 1:
        return text
    quarters = round(value * QUARTERS) / QUARTERS
    radius = f"{quarters:.4g}"
    if value == quarters:
        return radius
    return f"{text}0" if text == radius else text


QUARTERS = 4 * 255
"""Quarters of a pixel's steps, in one."""
