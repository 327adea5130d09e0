"""One module a picture, named as the analysis it draws. They read HDF5 only and never import torch."""

import importlib
import pkgutil
from typing import Any

SHARED = ("style", "contact_sheet")


def names() -> list[str]:
    """The figures there are, by their command's name."""
    modules = (module.name for module in pkgutil.iter_modules(__path__))
    return [name.replace("_", "-") for name in modules if name not in SHARED]


def get(name: str) -> Any:
    """The module that draws the figure called `name`."""
    return importlib.import_module(f"{__name__}.{name.replace('-', '_')}")
