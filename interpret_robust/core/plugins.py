"""What users bring without touching this tree: objects by `package.module:name`, and entry points of their packages.

[project.entry-points."interpret_robust.analyses"]
my-question = "my_package.my_question"              a module with ANALYSIS

[project.entry-points."interpret_robust.figures"]
my-question = "my_package.my_figure"                a module with READS and draw

[project.entry-points."interpret_robust.variants"]
my-variant = "my_package.variants:MY_VARIANT"       a `Variant` of this name

[project.entry-points."interpret_robust.architectures"]
my-network = "my_package.networks:backbone"         see `models.architectures`

[project.entry-points."interpret_robust.datasets"]
my-data = "my_package.data:arrays"                  a function that gives the arrays of a .npz, see `datasets.npz`
"""

import importlib
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interpret_robust.core.errors import UserError, find_nearest, take_first_line

if TYPE_CHECKING:  # slow to import, and most commands ask for no entry point
    from importlib.metadata import EntryPoint


@cache
def list_entry_points(group: str) -> dict[str, "EntryPoint"]:
    """Return the entry points of `interpret_robust.<group>` by name, without importing what they point at."""
    from importlib.metadata import entry_points

    return {point.name: point for point in entry_points(group=f"interpret_robust.{group}")}


def load_entry_point(group: str, name: str) -> Any:
    """Return what the entry point called `name` points at. Raises UserError where that cannot be imported."""
    try:
        return list_entry_points(group)[name].load()
    except Exception as error:
        raise UserError(
            f"the entry point '{name}' of interpret_robust.{group} cannot be loaded ({quote_error(error)})."
        ) from error


def quote_error(error: BaseException) -> str:
    """Return what a library says of an error, on one line."""
    return take_first_line(error) or type(error).__name__


def is_reference(text: str) -> bool:
    """Return whether a text has the form `package.module:name`."""
    module, colon, name = text.partition(":")
    return bool(colon) and all(part.isidentifier() for part in (*module.split("."), *name.split(".")))


def import_object(reference: str) -> Any:
    """Return the object called `package.module:name`; modules in the folder where one is need not be installed.

    Raises UserError where the text has another form, where the module cannot be imported, or lacks the name.
    """
    if not is_reference(reference):
        raise UserError(f"'{reference}' names nothing that can be imported: give package.module:name.")
    module, _, name = reference.partition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        target: Any = importlib.import_module(module)
    except (Exception, SystemExit) as error:
        hint = f": give {module.removesuffix('.py')}:{name}, without .py" if module.endswith(".py") else ""
        raise UserError(f"{reference}: module '{module}' cannot be imported ({quote_error(error)}){hint}.") from error
    for part in name.split("."):
        if not hasattr(target, part):
            nearest = find_nearest(part, [other for other in dir(target) if not other.startswith("_")])
            hint = f", but '{nearest}'" if nearest else ""
            raise UserError(f"{reference}: {module} has no '{part}'{hint}.")
        target = getattr(target, part)
    return target
