"""Networks that answer two calls: `model(images)` gives logits, `model.features(images)` what they rest on."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from interpret_robust.models.architectures import build
    from interpret_robust.models.classifier import Classifier, Features

__all__ = ["Classifier", "Features", "build"]

_HOMES = {"Classifier": "classifier", "Features": "classifier", "build": "architectures"}


def __getattr__(name: str) -> Any:
    """Return a public name, imported when asked for: variants and file headers are read without torch."""
    if name in _HOMES:
        return getattr(importlib.import_module(f"interpret_robust.models.{_HOMES[name]}"), name)
    raise AttributeError(name)
