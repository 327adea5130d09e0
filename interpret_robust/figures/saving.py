"""How pictures are saved: as PNG, PDF or SVG, with a JSON caption beside them, in one step each.

The caption holds the files a picture was drawn from, the numbers it shows, and the rule by which images were chosen.
Equal inputs give equal bytes.
"""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from PIL import Image

from interpret_robust.core.configs import replace_infinite
from interpret_robust.core.errors import UserError
from interpret_robust.core.file_names import make_file_part
from interpret_robust.core.files import remove_leftovers, replace_file
from interpret_robust.core.spelling import list_spellings
from interpret_robust.figures.style import RC, Drawing
from interpret_robust.results.hdf5 import Result

FORMATS: dict[str, dict[str, Any]] = {
    ".png": {"dpi": 200},
    ".pdf": {"metadata": {"CreationDate": None}},
    ".svg": {"metadata": {"Date": None}},
}
"""The endings of pictures, and how each is saved: without a date, so that equal inputs give equal bytes."""


def name_picture(name: str, results: Sequence[Result]) -> str:
    """Return a figure's file name: its own, then dataset and architectures, then what the files' names end in."""
    first = results[0]
    architectures = dict.fromkeys(result.job["architecture"] for result in results)
    conditions = first.path.stem
    for start in list_spellings(name):
        conditions = conditions.removeprefix(f"{start}-{first.config['checkpoint']['name']}-")
    return make_file_part("-".join([name, first.job["dataset"], *architectures, conditions]))


def list_inputs(results: Sequence[Result]) -> dict[str, str]:
    """Return the content hash of each file, by its name."""
    return {result.path.name: str(result.attributes["content_sha256"]) for result in results}


def _is_png(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(8) == b"\x89PNG\r\n\x1a\n"


def is_drawn(folder: Path, name: str, sources: Mapping[str, Any], version: str, *, with_pdf: bool = True) -> bool:
    """Return whether the picture is there, also as PDF if asked for, drawn from just these files by this version."""
    caption, picture = folder / f"{name}.json", folder / f"{name}.png"
    if picture.exists() and not _is_png(picture):
        return False
    if not all((folder / f"{name}.{kind}").exists() for kind in ("png", "json", *(["pdf"] if with_pdf else []))):
        return False
    try:
        content = json.loads(caption.read_text(encoding="utf-8"))
    except ValueError:
        return False
    return bool(content.get("inputs") == sources and content.get("version") == version)


def save(
    drawing: Drawing, folder: Path, name: str, sources: Mapping[str, Any], version: str, *, with_pdf: bool = True
) -> Path:
    """Write `name`.png, .pdf and .json into `folder`, each in one step; returns the path of the first.

    Without PDF one that is there is still drawn anew, so that it never shows other files than the PNG does. The caller
    holds the lock of the picture, see `core.locks`. Raises UserError for a picture that is not irt's.
    """
    png, pdf = folder / f"{name}.png", folder / f"{name}.pdf"
    write(drawing, [png, pdf] if with_pdf or pdf.exists() else [png], sources, version)
    return png


def write(drawing: Drawing, paths: Sequence[Path], sources: Mapping[str, Any], version: str) -> None:
    """Write a drawing to each path, in the format of its ending, and its caption as JSON beside the first.

    Raises UserError for a picture that is not irt's.
    """
    caption = {"caption": drawing.caption, "inputs": sources, "numbers": drawing.numbers, "version": version}
    text = paths[0].with_suffix(".json")
    if paths[0].exists() and not text.exists():
        raise UserError(f"{paths[0]} exists and was not drawn by irt: move it, or write elsewhere.")
    remove_leftovers(*paths, text)
    _write_caption(text, caption | {"inputs": {}})  # where a kill comes now, what is there is drawn anew
    try:
        with mpl.rc_context(RC):
            _lay_out(drawing.figure)
            for path in paths:
                with replace_file(path) as partial:
                    drawing.figure.savefig(partial, format=path.suffix[1:], **FORMATS[path.suffix])
    finally:
        if not paths[0].exists():
            text.unlink()
    _write_caption(text, caption)


def _write_caption(path: Path, caption: dict[str, Any]) -> None:
    with replace_file(path) as partial:
        partial.write_text(json.dumps(replace_infinite(caption), indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _lay_out(figure: Figure) -> None:
    """Put everything in its place as saving a PNG does. A figure that has a layout engine is drawn twice when saved."""
    dpi, engine = figure.dpi, figure.get_layout_engine()
    if engine is not None:
        figure.dpi = FORMATS[".png"]["dpi"]
        engine.execute(figure)
        figure.dpi = dpi
        figure.set_layout_engine(None)


def render_pixels(drawing: Drawing) -> Image.Image:
    """Return a drawing as the pixels that its PNG would have."""
    buffer = io.BytesIO()
    with mpl.rc_context(RC):
        _lay_out(drawing.figure)
        drawing.figure.savefig(buffer, format="png", **FORMATS[".png"])
    return Image.open(buffer)


def enlarge(figure: Figure, factor: float) -> None:
    """Make a figure larger with its text, lines and marks."""
    width, height = figure.get_size_inches()
    figure.set_size_inches((width * factor, height * factor))
    for text in figure.findobj(Text):  # labels of ticks that are yet to come take after those that are there
        assert isinstance(text, Text)
        text.set_fontsize(float(text.get_fontsize()) * factor)
    for stroke in figure.findobj(Line2D):
        assert isinstance(stroke, Line2D)
        stroke.set(linewidth=stroke.get_linewidth() * factor, markersize=stroke.get_markersize() * factor)
    for bars in figure.findobj(LineCollection):
        assert isinstance(bars, LineCollection)
        bars.set_linewidth((factor * np.atleast_1d(bars.get_linewidth())).tolist())
