"""One module a question: its schema, its computation, its statistics. `irt analyze NAME` runs each."""

import ast
import importlib
import importlib.util
import pkgutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interpret_robust.core.errors import UserError
from interpret_robust.core.plugins import list_entry_points, load_entry_point
from interpret_robust.core.spelling import translate_name

if TYPE_CHECKING:
    from interpret_robust.results.hdf5 import Result

ORDER = (
    "robustness",
    "masking",
    "targeted",
    "corruptions",
    "attention-rank",
    "attention-maps",
    "gradient-maps",
    "gradmap-score",
    "alignment",
    "localization",
    "feature-deletion",
    "pixel-deletion",
    "randomization",
    "map-quality",
    "autoattack",
)
"""As they are listed and printed; others follow."""


def own_names() -> list[str]:
    """Return the analyses of this package, by their command's name, in the order in which they are listed."""
    return _sort_names(module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__) if not module.ispkg)


def list_names() -> list[str]:
    """Return the analyses there are, ours and those of installed packages, without importing them."""
    return _sort_names({*own_names(), *list_entry_points("analyses")})


def _sort_names(choices: Iterable[str]) -> list[str]:
    return sorted(choices, key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name))


def about(name: str) -> str:
    """Return the first line of an analysis's docstring, without importing it."""
    file = _file(translate_name(name))
    if file is None:
        return f"an entry point that names {list_entry_points('analyses')[name].module}, which is not there"
    return (ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").split("\n")[0]


def _file(name: str) -> Path | None:
    """Return where an analysis is written, None where an entry point names a module that is not there."""
    path = Path(__path__[0]) / f"{name.replace('-', '_')}.py"
    if path.exists():
        return path
    try:
        spec = importlib.util.find_spec(list_entry_points("analyses")[name].module)
    except ImportError:
        return None
    return Path(spec.origin) if spec is not None and spec.origin else None


def get(name: str) -> Any:
    """Return the `Analysis` called `name`: one of ours, or else of an installed package.

    Raises UserError for a broken one.
    """
    module_name = f"{__name__}.{translate_name(name).replace('-', '_')}"
    if importlib.util.find_spec(module_name) is not None:
        return importlib.import_module(module_name).ANALYSIS
    module = load_entry_point("analyses", name)
    if not hasattr(module, "ANALYSIS"):
        raise UserError(f"the entry point '{name}' of interpret_robust.analyses names no module with an ANALYSIS.")
    return module.ANALYSIS


def read(path: Path) -> "Result":
    """Open a file of an analysis and of a version that are known here. Raises UserError for any other."""
    from interpret_robust.results import hdf5  # here, so that `irt --help` lists the analyses without numpy and HDF5

    result = hdf5.read(path)
    check(result)
    return result


def check(result: "Result") -> None:
    """Raise UserError for a file of an analysis or of a version that are not known here."""
    from interpret_robust.results import hdf5

    name = result.analysis
    if name not in list_names():
        raise UserError(f"{result.path} holds {result.schema}, which this irt does not know: update interpret-robust.")
    labels = get(name).schema.readable
    if result.schema not in labels:
        hdf5.read(result.path, labels)
