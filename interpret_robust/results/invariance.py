"""Which scores of images and gradients are zero whatever a model has learned: those of a change that it ignores."""

from collections.abc import Mapping

from interpret_robust.results.hdf5 import Result
from interpret_robust.results.names import GRADIENT, find_maps

ZERO_UNDER = {"cosine": ("scale", "shift"), "alpha": ("scale",)}
"""To which changes of its input a model must be invariant for a score to be zero, by Euler's theorem."""

OF_MAPS = ("cosine",)
"""Scores of the maps, which the theorem is about where these are gradients; alpha has a gradient of its own."""


def list_zeros(source: str, invariances: Mapping[str, bool]) -> list[str]:
    """Return the scores that are zero by construction for maps by `source`.

    `invariances` says of `scale` and `shift` whether the model ignores them.
    """
    names = [name for name, changes in ZERO_UNDER.items() if all(invariances[change] for change in changes)]
    return [name for name in names if source == GRADIENT or name not in OF_MAPS]


def is_zero(result: Result, score: str) -> bool:
    """Return whether a score of a finished file of `alignment` is zero by construction."""
    invariances = {change: bool(result[f"invariant/{change}"]) for change in ("scale", "shift")}
    return score in list_zeros(find_maps(result), invariances)
