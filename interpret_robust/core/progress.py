"""Progress bars with rate and ETA on stderr; quiet where stderr is not a terminal."""

from typing import Any

from tqdm import tqdm


def bar(description: str, total: int, unit: str, *, initial: int = 0, position: int | None = None) -> "tqdm[Any]":
    """Return a bar of `total` units, `initial` of them already done."""
    return tqdm(
        desc=description,
        total=total,
        initial=initial,
        unit=f" {unit}",
        unit_scale=True,
        disable=None,
        dynamic_ncols=True,
        position=position,
        leave=position is None,
        delay=1,
    )
