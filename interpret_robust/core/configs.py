"""Nested configurations: made flat, and compared for people."""

import json
from collections.abc import Mapping
from typing import Any


def flatten(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return flat


def differences(found: Mapping[str, Any], wanted: Mapping[str, Any], most: int = 3) -> str:
    """The first keys in which two configurations differ, the least nested first, with both values."""
    flat_found, flat_wanted = flatten(found), flatten(wanted)
    keys = [key for key in flat_found | flat_wanted if flat_found.get(key) != flat_wanted.get(key)]
    keys.sort(key=lambda key: key.count("."))
    told = [f"{key} is {_text(flat_found.get(key))}, here {_text(flat_wanted.get(key))}" for key in keys[:most]]
    more = [f"{len(keys) - most} more"] if len(keys) > most else []
    return "; ".join(told + more)


def lines(nested: Mapping[str, Any]) -> str:
    """A configuration as text, a dotted key and its value a line."""
    return "\n".join(f"{key}: {_text(value)}" for key, value in flatten(nested).items())


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
