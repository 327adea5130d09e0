"""What tells two models of the same weights apart: how a card has these built, fed and read."""

import json
from collections.abc import Mapping
from typing import Any

from interpret_robust.models.normalization import name_statistics
from interpret_robust.models.variants import is_external

OF_OTHERS_THAN_LOGITS = ("label", "local layer", "attention layer", "first token", "channels")
"""Traits in which two models may differ that answer every image alike."""


def list_traits(job: Mapping[str, Any]) -> dict[str, str]:
    """Return what a model from elsewhere computes with its weights, from its job, by the names of options.

    Nothing for a checkpoint of ours, of which the weights tell all. Two models that agree in weights and in these are
    one. The label is among them: networks whose code differs where no card tells it are kept apart by their labels. The
    file in which the weights lie is not.

    Example:
        >>> names = list_traits({"card": {"model": "torchvision:resnet18"}, "layers": {"local": "layer4"}})
        >>> names["normalize"], names["local layer"], names["resize"]
        ('none', 'layer4', 'none')
    """
    if not is_external(job):
        return {}
    card, layers = job["card"], job.get("layers", {})
    values = {
        "label": card.get("label"),
        "model": card.get("model"),
        **{f"argument {name}": value for name, value in card.get("arguments", ())},
        "normalize": name_statistics(card.get("normalize") or "none"),
        "resize": card.get("resize"),
        "logits": card.get("logits"),
        "draws": card.get("draws"),
        "local layer": layers.get("local"),
        "attention layer": layers.get("attention"),
        "first token": layers.get("first_token"),
        "channels": layers.get("channels"),
    }
    return {name: _text(value) for name, value in values.items()}


def _text(value: Any) -> str:
    if value is None:
        return "none"
    return value if isinstance(value, str) else json.dumps(value)
