"""From analysis files to a picture on disk, without a model and without torch."""

from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path

from interpret_robust import figures, results
from interpret_robust.figures import style


def draw(figure: str, files: Sequence[Path], folder: Path, say: Callable[[str], None]) -> Path:
    """Draw a figure from analysis files, unless it is there already; returns the picture's path.

    Raises UserError for a file that is missing, damaged, unfinished or of another analysis.
    """
    opened = sorted((results.read(path, figure) for path in files), key=style.order)
    name, sources, version = style.stem(figure, opened), style.inputs(opened), metadata.version("interpret-robust")
    picture = folder / f"{name}.png"
    if style.is_drawn(folder, name, sources, version):
        say(f"{picture.name} is there already")
        return picture
    verb = "redrew" if picture.exists() else "drew"
    style.save(figures.get(figure).draw(opened), folder, name, sources, version)
    say(f"{verb} {picture.name}")
    return picture
