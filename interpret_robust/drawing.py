"""From analysis files to a picture on disk, without a model and without torch."""

from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from interpret_robust import figures, results
from interpret_robust.configs import differences
from interpret_robust.errors import UserError
from interpret_robust.figures import style


def draw(figure: str, files: Sequence[Path], folder: Path, say: Callable[[str], None]) -> Path:
    """Draw a figure from analysis files, unless it is there already; returns the picture's path.

    Raises UserError for a file that is missing, damaged, unfinished or of another analysis.
    """
    opened = sorted((results.read(path, figure) for path in files), key=style.order)
    _check_comparable(opened)
    name, sources, version = style.stem(figure, opened), style.inputs(opened), metadata.version("interpret-robust")
    picture = folder / f"{name}.png"
    if style.is_drawn(folder, name, sources, version):
        say(f"{picture.name} is there already")
        return picture
    verb = "redrew" if picture.exists() else "drew"
    style.save(figures.get(figure).draw(opened), folder, name, sources, version)
    say(f"{verb} {picture.name}")
    return picture


def _check_comparable(opened: Sequence[results.Result]) -> None:
    """Raise UserError unless all files are of the same images under the same settings."""
    first, *others = opened
    for other in others:
        told = differences(_conditions(first), _conditions(other))
        if told:
            raise UserError(f"{first.path} and {other.path} cannot share a picture ({told}): name the files to draw.")


def _conditions(result: results.Result) -> dict[str, Any]:
    return {key: result.config[key] for key in ("data", "settings")}
