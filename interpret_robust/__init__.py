"""Train adversarially robust image classifiers and ask what they look at, and whether that is why they are robust."""

from __future__ import annotations

import importlib

TYPE_CHECKING = False  # type checkers take it for true; importing `typing` would take longer than all the rest
if TYPE_CHECKING:
    from typing import Any

    from interpret_robust.analyses.engine.analysis import Analysis
    from interpret_robust.analyses.engine.settings import Settings
    from interpret_robust.api.analysis import analyze, open, questions
    from interpret_robust.api.answers import Answer, Answers
    from interpret_robust.api.data import samples
    from interpret_robust.api.model import Model, load, train
    from interpret_robust.api.statistics import interval
    from interpret_robust.attacks.noise import generator_noise, per_image_noise
    from interpret_robust.attacks.pgd import PGD
    from interpret_robust.core.errors import UserError
    from interpret_robust.datasets.in_memory import make_dataset
    from interpret_robust.models.variants import Variant
    from interpret_robust.results.schema import Column, Schema
    from interpret_robust.training.objective import FeatureRegularization

__version__: str

if TYPE_CHECKING:

    def datasets() -> dict[str, str]:
        """Return the datasets by name, each with one sentence about it."""


__all__ = [
    "PGD",
    "Analysis",
    "Answer",
    "Answers",
    "Column",
    "DoubtWarning",
    "FeatureRegularization",
    "Model",
    "Schema",
    "Settings",
    "UserError",
    "Variant",
    "__version__",
    "analyze",
    "datasets",
    "generator_noise",
    "interval",
    "load",
    "make_dataset",
    "open",
    "per_image_noise",
    "questions",
    "samples",
    "train",
]

_HOMES = {
    "analyses.engine.analysis": ("Analysis",),
    "analyses.engine.settings": ("Settings",),
    "api.answers": ("Answer", "Answers"),
    "api.data": ("samples",),
    "api.model": ("Model", "load", "train"),
    "api.statistics": ("interval",),
    "api.analysis": ("analyze", "open", "questions"),
    "attacks.noise": ("generator_noise", "per_image_noise"),
    "attacks.pgd": ("PGD",),
    "datasets.in_memory": ("make_dataset",),
    "core.errors": ("DoubtWarning", "UserError"),
    "results.schema": ("Column", "Schema"),
    "training.objective": ("FeatureRegularization",),
    "models.variants": ("Variant",),
}


def __getattr__(name: str) -> Any:
    """Return a public name, imported when it is first asked for: the command must not wait for torch."""
    if name == "__version__":
        return importlib.import_module(f"{__name__}.core.provenance").read_package_version()
    if name == "datasets":
        return importlib.import_module(f"{__name__}.datasets")
    for module, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


def __dir__() -> list[str]:
    """Return the public names, for tab completion."""
    return sorted(__all__)
