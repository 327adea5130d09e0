"""Names in British spelling, which files of before 2026-12 hold, and the names that they have today.

Only readers of files and commands go through here: what is written, and what anyone sees, has the names of today.
"""

import re
from collections.abc import Mapping
from typing import Any

AMERICAN = {
    "centre": "center",
    "colour": "color",
    "grey": "gray",
    "initialised": "initialized",
    "linearised": "linearized",
    "localisation": "localization",
    "neighbour": "neighbor",
    "normalised": "normalized",
    "optimiser": "optimizer",
    "randomisation": "randomization",
}
"""Each word of an old name, and the one of today in its place."""

SCHEMAS = {
    "alignment/1": "alignment/2",
    "attention-maps/1": "attention-maps/2",
    "attention-rank/2": "attention-rank/3",
    "gradient-maps/1": "gradient-maps/2",
    "localisation/1": "localization/2",
    "randomisation/1": "randomization/2",
}
"""Schemas with old names, and those of today that hold the same values."""

_BRITISH = {today: old for old, today in AMERICAN.items()}


def american(text: str) -> str:
    """Return a text or a path with today's words in the place of old ones.

    Example:
        >>> american("per_image/linearised_robustness")
        'per_image/linearized_robustness'
    """
    return _replace(text, AMERICAN)


def british(name: str) -> str:
    """Return the name that old files hold, from the one of today.

    Example:
        >>> british("share/above_center")
        'share/above_centre'
    """
    return _replace(name, _BRITISH)


def _replace(text: str, words: dict[str, str]) -> str:
    return re.sub("|".join(words), lambda match: words[match.group()], text)


def translate_name(name: str) -> str:
    """Return the name of an analysis today, from that name or from its old one, which commands still take.

    Example:
        >>> translate_name("localisation")
        'localization'
    """
    return AMERICAN.get(name, name)


def list_spellings(name: str) -> tuple[str, ...]:
    """Return the names that files of an analysis and pictures of it begin with: that of today, then an old one.

    Example:
        >>> list_spellings("randomization"), list_spellings("masking")
        (('randomization', 'randomisation'), ('masking',))
    """
    return tuple(dict.fromkeys((name, _BRITISH.get(name, name))))


def translate_tensor_name(name: str) -> str:
    """Return the name of a tensor in an unfinished training today: the part of the run that it is of, then its own.

    Example:
        >>> translate_tensor_name("optimiser.0.momentum_buffer")
        'optimizer.0.momentum_buffer'
    """
    part, dot, rest = name.partition(".")
    return f"{AMERICAN.get(part, part)}{dot}{rest}"


def translate_recipes(content: Any) -> Any:
    """Return what a JSON text holds, the fields of every recipe in it by their names of today.

    Example:
        >>> translate_recipes({"seed": 0, "recipe": {"optimiser": "sgd"}})
        {'seed': 0, 'recipe': {'optimizer': 'sgd'}}
    """
    if not isinstance(content, dict):
        return content
    return {
        key: {AMERICAN.get(field, field): number for field, number in value.items()}
        if key == "recipe" and isinstance(value, dict)
        else translate_recipes(value)
        for key, value in content.items()
    }


def translate_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration of an answer with the names of today, from the one that its file holds.

    Example:
        >>> translate_config({"analysis": "localisation/1", "settings": {}})
        {'analysis': 'localization/2', 'settings': {}}
    """
    names = {"analysis": SCHEMAS.get(label, label)} if (label := config.get("analysis")) else {}
    content: dict[str, Any] = translate_recipes(config)
    return content | names
