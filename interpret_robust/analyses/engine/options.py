"""What each analysis may be asked with, known without torch: for `irt analyze NAME --help` and `help(ir.analyze)`.

`options.json` repeats it for the analyses of this package, since importing one of them to print its help would take
seconds. `python tests/make_options.py` writes the file anew, and a test compares it with the settings themselves.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any, get_args

from interpret_robust import analyses

FILE = Path(__file__).with_name("options.json")

_KINDS: Mapping[Any, str] = {
    int: "int",
    float: "number",
    float | None: "number",
    str: "text",
    str | None: "text",
    bool: "flag",
}


@dataclass(frozen=True)
class Setting:
    """One option of an analysis: a field of its settings.

    Attributes:
        kind: `int`, `number`, `text`, `flag` or `choice`.
        choices: what a `choice` is made of.
    """

    name: str
    kind: str
    default: Any
    help: str
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class AnalysisOptions:
    """What a command needs to know of an analysis, see `analyses.engine.analysis.Analysis`."""

    settings: tuple[Setting, ...]
    views: tuple[str, ...]
    readers: str


def describe(analysis: Any) -> AnalysisOptions:
    """Return what the command of an `Analysis` takes.

    Example:
        >>> describe(analyses.get("robustness")).readers
        'copies'
    """
    settings = tuple(
        Setting(
            field.name,
            kind := _KINDS.get(field.type, "choice"),
            field.default,
            field.metadata["help"],
            get_args(field.type) if kind == "choice" else (),
        )
        for field in fields(analysis.settings)
    )
    return AnalysisOptions(settings, tuple(analysis.views), analysis.readers)


@cache
def _read_file() -> dict[str, AnalysisOptions]:
    """Return the content of `options.json`."""
    content = json.loads(FILE.read_text(encoding="utf-8"))
    return {
        name: AnalysisOptions(
            tuple(Setting(**{**setting, "choices": tuple(setting["choices"])}) for setting in entry["settings"]),
            tuple(entry["views"]),
            entry["readers"],
        )
        for name, entry in content.items()
    }


def read_options(name: str) -> AnalysisOptions:
    """Return what the command of the analysis `name` takes; one of an installed package is imported.

    Raises UserError for an analysis that cannot be loaded.
    """
    return _read_file().get(name) or describe(analyses.get(name))
