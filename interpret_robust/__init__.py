"""Train adversarially robust image classifiers and ask what they look at, and whether that is why they are robust."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from interpret_robust.api import Answer, analyze, load
    from interpret_robust.attacks.pgd import PGD, generator_noise, per_image_noise
    from interpret_robust.core.errors import UserError
    from interpret_robust.datasets.in_memory import of_arrays
    from interpret_robust.models.variants import Variant
    from interpret_robust.training.objective import FeatureRegularization

__all__ = [
    "PGD",
    "Answer",
    "FeatureRegularization",
    "UserError",
    "Variant",
    "analyze",
    "generator_noise",
    "load",
    "of_arrays",
    "per_image_noise",
]

_HOMES = {
    "api": ("Answer", "analyze", "load"),
    "attacks.pgd": ("PGD", "generator_noise", "per_image_noise"),
    "datasets.in_memory": ("of_arrays",),
    "core.errors": ("UserError",),
    "training.objective": ("FeatureRegularization",),
    "models.variants": ("Variant",),
}


def __getattr__(name: str) -> Any:
    """A public name, imported when it is first asked for: the command must not wait for torch."""
    for module, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
