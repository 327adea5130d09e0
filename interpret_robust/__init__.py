"""Train adversarially robust image classifiers and ask what they look at, and whether that is why they are robust."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from interpret_robust.analyses.engine.analysis import Analysis
    from interpret_robust.analyses.engine.settings import Settings
    from interpret_robust.api import Answer, analyze, load, open, questions, samples
    from interpret_robust.attacks.pgd import PGD, generator_noise, per_image_noise
    from interpret_robust.core.errors import UserError
    from interpret_robust.core.statistics import interval
    from interpret_robust.datasets.in_memory import of_arrays
    from interpret_robust.models.variants import Variant
    from interpret_robust.results.schema import Column, Schema
    from interpret_robust.training.objective import FeatureRegularization

__version__: str

__all__ = [
    "PGD",
    "Analysis",
    "Answer",
    "Column",
    "FeatureRegularization",
    "Schema",
    "Settings",
    "UserError",
    "Variant",
    "__version__",
    "analyze",
    "generator_noise",
    "interval",
    "load",
    "of_arrays",
    "open",
    "per_image_noise",
    "questions",
    "samples",
]

_HOMES = {
    "analyses.engine.analysis": ("Analysis",),
    "analyses.engine.settings": ("Settings",),
    "api": ("Answer", "analyze", "load", "open", "questions", "samples"),
    "attacks.pgd": ("PGD", "generator_noise", "per_image_noise"),
    "datasets.in_memory": ("of_arrays",),
    "core.errors": ("UserError",),
    "core.statistics": ("interval",),
    "results.schema": ("Column", "Schema"),
    "training.objective": ("FeatureRegularization",),
    "models.variants": ("Variant",),
}


def __getattr__(name: str) -> Any:
    """A public name, imported when it is first asked for: the command must not wait for torch."""
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("interpret-robust")
    for module, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


def __dir__() -> list[str]:
    """Return the public names, for tab completion."""
    return sorted(__all__)
