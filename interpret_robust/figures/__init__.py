"""One module a picture, named as the analysis it draws. They read HDF5 only and never import torch."""

import importlib
import importlib.util
import pkgutil
from typing import Any

from interpret_robust.core.errors import UserError
from interpret_robust.core.plugins import load_entry_point, registered
from interpret_robust.core.spelling import current

HELPERS = ("style", "contact_sheet", "drawing")


def names() -> list[str]:
    """Return the figures there are, ours and those of installed packages, by their command's name."""
    modules = (module.name for module in pkgutil.iter_modules(__path__))
    module_name = [name.replace("_", "-") for name in modules if name not in HELPERS]
    return [*module_name, *(name for name in registered("figures") if name not in module_name)]


def get(name: str) -> Any:
    """Return the module that draws the figure called `name`.

    Raises UserError for a broken one of an installed package.
    """
    module_name = f"{__name__}.{current(name).replace('-', '_')}"
    if importlib.util.find_spec(module_name) is not None:
        return importlib.import_module(module_name)
    module = load_entry_point("figures", name)
    if not (hasattr(module, "READS") and hasattr(module, "draw")):
        raise UserError(f"the entry point '{name}' of interpret_robust.figures names no module with READS and draw.")
    return module
