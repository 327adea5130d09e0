"""Networks that answer two calls: `model(images)` gives logits, `model.features(images)` what they rest on."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from interpret_robust.models.classifier import ARCHITECTURES, Classifier, Features, build

__all__ = ["ARCHITECTURES", "Classifier", "Features", "build"]


def __getattr__(name: str) -> Any:
    """A name of `models.classifier`, imported when asked for: variants and file headers are read without torch."""
    if name in __all__:
        return getattr(importlib.import_module("interpret_robust.models.classifier"), name)
    raise AttributeError(name)
