"""One module a question: its schema, its computation, its statistics. `irt analyze NAME` runs each."""

import ast
import importlib
import pkgutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interpret_robust.errors import UserError

if TYPE_CHECKING:
    from interpret_robust.results import Result

ORDER = (
    "robustness",
    "masking",
    "attention-rank",
    "attention-maps",
    "gradient-maps",
    "gradmap-score",
    "alignment",
    "localisation",
    "feature-deletion",
    "randomisation",
    "autoattack",
)
"""As they are listed and printed; others follow."""


def names() -> list[str]:
    """The analyses there are, by their command's name, without importing them."""
    found = [module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__)]
    return sorted(found, key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name))


def about(name: str) -> str:
    """The first line of an analysis's docstring, without importing it."""
    source = (Path(__path__[0]) / f"{name.replace('-', '_')}.py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(source)) or "").split("\n")[0]


def get(name: str) -> Any:
    """The `Analysis` called `name`."""
    return importlib.import_module(f"{__name__}.{name.replace('-', '_')}").ANALYSIS


def read(path: Path) -> "Result":
    """Open a file of an analysis and of a version that are known here. Raises UserError for any other."""
    from interpret_robust import results  # here, so that `irt --help` lists the analyses without numpy and HDF5

    found = results.read(path)
    name = found.schema.partition("/")[0]
    if name not in names():
        raise UserError(f"{path} holds {found.schema}, which this irt does not know: update interpret-robust.")
    known = get(name).schema.label
    return found if found.schema == known else results.read(path, known)
