"""One module a figure, named as the analysis it draws. They read HDF5 only and never import torch.

A module holds READS, the schemas it draws, and `draw`, which returns the picture of some results. One with several
pictures holds PLOTS too: what draws each, by the name of its panel, the one that matters most first.
"""

import importlib
import importlib.util
import pkgutil
from collections.abc import Callable
from typing import Any

from interpret_robust.core.errors import UserError, unknown
from interpret_robust.core.plugins import list_entry_points, load_entry_point
from interpret_robust.core.spelling import translate_name

Plot = Callable[..., Any]
"""What returns a `style.Drawing` of some results."""

HELPERS = ("style", "overlays", "saving", "contact_sheet", "drawing", "explanation")


def list_names() -> list[str]:
    """Return the figures there are, ours and those of installed packages, by their command's name."""
    modules = (module.name for module in pkgutil.iter_modules(__path__))
    module_name = [name.replace("_", "-") for name in modules if name not in HELPERS]
    return [*module_name, *(name for name in list_entry_points("figures") if name not in module_name)]


def get(name: str) -> Any:
    """Return the module that draws the figure called `name`.

    Raises UserError for a broken one of an installed package.
    """
    module_name = f"{__name__}.{translate_name(name).replace('-', '_')}"
    if importlib.util.find_spec(module_name) is not None:
        return importlib.import_module(module_name)
    module = load_entry_point("figures", name)
    if not (hasattr(module, "READS") and hasattr(module, "draw")):
        raise UserError(f"the entry point '{name}' of interpret_robust.figures names no module with READS and draw.")
    return module


def list_plots(name: str, panel: str | None = None) -> dict[str, Plot]:
    """Return what draws each picture of a figure, by its panel's name, the one that matters most first.

    A figure of one picture has one panel, without a name. With `panel`, that alone is returned; raises UserError where
    there is none of that name.

    Example:
        >>> list(list_plots("attention-rank"))
        ['curve', 'correlations', 'outcomes', 'maps']
    """
    module = get(name)
    panels: dict[str, Plot] = getattr(module, "PLOTS", {"": module.draw})
    if panel is None:
        return panels
    if list(panels) == [""]:
        raise UserError(f"the figure {name} has one panel: leave --panel out.")
    if panel not in panels:
        raise unknown(f"panel of {name}", panel, list(panels))
    return {panel: panels[panel]}
