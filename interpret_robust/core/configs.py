"""Nested configurations: made flat, and compared for people."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested mappings as one, with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return flat


def describe_differences(stored_config: Mapping[str, Any], expected: Mapping[str, Any]) -> str:
    """Return the first few keys in which two configurations differ, the least nested first, with both values."""
    flat_stored, flat_expected = flatten(stored_config), flatten(expected)
    keys = [key for key in flat_stored | flat_expected if flat_stored.get(key) != flat_expected.get(key)]
    keys.sort(key=lambda key: ("sha256" in key, key.count(".")))  # a hash tells people nothing
    phrases = [
        f"{key} is {_text(flat_stored.get(key))}, here {_text(flat_expected.get(key))}" for key in keys[:LISTING_LIMIT]
    ]
    rest = [f"{len(keys) - LISTING_LIMIT} more"] if len(keys) > LISTING_LIMIT else []
    return "; ".join(phrases + rest)


LISTING_LIMIT = 3
"""Differences that a sentence lists."""


def as_stored(settings: Any) -> dict[str, Any]:
    """Return the fields of a dataclass as a file tells them, by name.

    One that older files of the same kind lack is left out where it is what they stand for, `newer` in its field's
    metadata, so that the same choice has the same configuration as in files from before.
    """
    values = {setting: getattr(settings, setting.name) for setting in fields(settings)}
    return {
        setting.name: value
        for setting, value in values.items()
        if "newer" not in setting.metadata or value != setting.metadata["newer"]
    }


def hash_config(config: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a configuration's canonical JSON."""
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()


def replace_infinite(value: Any) -> Any:
    """Return a value as JSON can hold it: a number that is not finite is None, in dictionaries and lists too.

    Example:
        >>> replace_infinite({"mean": math.nan, "interval": [0.5, math.inf], "count": 3})
        {'mean': None, 'interval': [0.5, None], 'count': 3}
    """
    if isinstance(value, dict):
        return {key: replace_infinite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [replace_infinite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def format_lines(config: Mapping[str, Any]) -> str:
    """Return a configuration as text, a dotted key and its value a line."""
    return "\n".join(f"{key}: {_text(value)}" for key, value in flatten(config).items())


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
