"""What all pictures share: sizes, the color of each variant, and how they are saved.

A picture is saved as PNG and, where asked for, as PDF, with a JSON caption beside it: the files it was drawn from, the
numbers it shows, and the rule by which images were chosen. Equal inputs give equal bytes.
"""

import json
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullFormatter

from interpret_robust.core.arrays import AnyArray
from interpret_robust.core.cells import cell_means
from interpret_robust.core.errors import UserError
from interpret_robust.core.file_names import file_part
from interpret_robust.core.files import remove_leftovers, replacing
from interpret_robust.core.spelling import spellings
from interpret_robust.results.hdf5 import Result
from interpret_robust.results.names import job, label

WIDTH = 6.75
"""Inches: the text width of a conference paper."""

RC: dict[Any, Any] = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "0.92",
    "legend.frameon": False,
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
}

# Okabe and Ito's colors, one for each variant everywhere.
COLORS = {
    "natural": "#000000",
    "natural-att": "#999999",
    "natural-linear-att": "#F0E442",
    "at": "#E69F00",
    "at-reg": "#56B4E9",
    "at-att": "#009E73",
    "at-att-reg": "#D55E00",
}
# Tol's muted colors that are not like these.
OTHER_COLORS = ("#CC79A7", "#332288", "#882255", "#999933", "#661100", "#6699CC", "#AA4466", "#117733")
MARKERS = {
    "natural": "o",
    "natural-att": "s",
    "natural-linear-att": "^",
    "at": "D",
    "at-reg": "v",
    "at-att": "P",
    "at-att-reg": "X",
}

LINES = {"natural-linear-att": ":", "natural-att": "-.", "at-att": "--", "at-att-reg": "-"}

LABEL_GAP = 0.2
"""Share of a logarithmic axis between one label and the next, at least: beside the smallest panel they do not touch."""


@dataclass(frozen=True)
class Drawing:
    """A figure, the sentence under it, and every number it shows."""

    figure: Figure
    caption: str
    numbers: dict[str, Any] = field(default_factory=dict)


def new_figure(height: float) -> Figure:
    """Return an empty figure of full width. Nothing global is touched and no window can open."""
    with mpl.rc_context(RC):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        FigureCanvasAgg(figure)
    return figure


def mark_doubtful(figure: Figure) -> None:
    """Write under a figure that its numbers are in doubt; the caption says why."""
    strip_height = 0.15 / figure.get_figheight()
    layout: Any = figure.get_layout_engine()
    layout.set(rect=(0, strip_height, 1, 1 - strip_height))
    figure.text(0.01, strip_height / 4, "In doubt: the caption says why.", fontsize=6, color="firebrick")


def bare(axes: Axes) -> None:
    """Leave nothing of the axes but the picture in them."""
    axes.set(xticks=[], yticks=[])
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)


def scale_log(axes: Axes, name: Literal["x", "y"]) -> None:
    """Make an axis logarithmic, with few labels that are plain numbers. Call it when everything is drawn.

    Matplotlib's own labels, such as 3 x 10^-2, lie over each other in small panels.
    """
    axes.set(**{f"{name}scale": "log"})
    axis = getattr(axes, f"{name}axis")
    axis.set_major_locator(FixedLocator(log_ticks(*getattr(axes, f"get_{name}lim")())))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def log_ticks(low: float, high: float) -> list[float]:
    """Return round numbers from `low` to `high` that are labels of a logarithmic axis, LABEL_GAP or more apart.

    They are 1, 2 and 5 of each decade, or 1 and 3, or the 1 of each decade, or of every second decade, and so on. Where
    fewer than two of these lie between the limits, the numbers are evenly spaced.
    """
    gap = LABEL_GAP * math.log10(high / low)
    digits = (1, 2, 5) if gap <= math.log10(2) else (1, 3) if gap <= math.log10(3) else (1,)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1, math.ceil(gap))
    ticks = [float(f"{digit}e{decade}") for decade in decades for digit in digits]
    ticks = [tick for tick in ticks if low <= tick <= high]
    if len(ticks) < 2:
        ticks = [float(tick) for tick in MaxNLocator(4).tick_values(low, high) if low <= tick <= high]
    return ticks


def strip(pictures: AnyArray, size: tuple[int, int]) -> AnyArray:
    """Return pictures of `size` (M, height, width, ...), or maps (M, y, x), in a row, each map drawn to that size.

    A pixel shows the place that it lies in, or several by area. One image is laid out and drawn many times faster
    than M axes. The gaps between are NaN, or white where pictures are bytes.
    """
    width = size[1]
    large = pictures if pictures.shape[1:3] == size else cell_means(pictures, size).astype(pictures.dtype)
    gaps = [(0, 0)] * large.ndim
    gaps[2] = (0, pitch(width) - width)
    empty = 255 if pictures.dtype == np.uint8 else np.nan
    return np.concatenate(list(np.pad(large, gaps, constant_values=empty)), axis=1)


def pitch(width: int) -> int:
    """Return the distance from one picture of a strip to the next."""
    return width + width // 2


def attention_bar(figure: Figure | SubFigure, maps: ScalarMappable, axes: Axes, name: str, uniform: float) -> None:
    """Draw the color bar, lying in `axes`, of maps of weights, with a line at the weight that all positions would
    share.
    """
    figure.colorbar(maps, cax=axes, orientation="horizontal", label=f"{name}\n(line: uniform, {uniform:.2g})")
    axes.axvline(uniform, color="white", linewidth=1)


def line(variant: str) -> str:
    """Return a variant's line style, for those who cannot go by color."""
    return LINES.get(variant, "-")


def color(variant: str) -> str:
    """Return a variant's color; that of another model follows from its name, and two may share one."""
    return COLORS.get(variant) or OTHER_COLORS[zlib.crc32(variant.encode()) % len(OTHER_COLORS)]


def name_rows(axes: Axes, results: Sequence[Result]) -> None:
    """Draw a row a model, the first on top, with its name at the left."""
    axes.set_yticks(range(len(results)), [label(result) for result in results])
    axes.set_ylim(len(results) - 0.5, -0.5)


def dot(axes: Axes, row: float, result: Result, interval: AnyArray, *, hollow: bool = False) -> None:
    """Draw a statistic (value, low, high) of a model in its row, in its color and with its marker."""
    value, low, high = (float(number) for number in interval)
    variant = job(result)["variant"]
    face = "white" if hollow else color(variant)
    axes.errorbar(
        value,
        row,
        xerr=[[value - low], [high - value]],
        color=color(variant),
        marker=MARKERS.get(variant, "o"),
        markerfacecolor=face,
        markersize=4.5,
        linestyle="none",
        elinewidth=1,
    )


def stem(name: str, results: Sequence[Result]) -> str:
    """Return a figure's file name: its own, then dataset and architecture, then what the files' names end in."""
    first = results[0]
    conditions = first.path.stem
    for start in spellings(name):
        conditions = conditions.removeprefix(f"{start}-{first.config['checkpoint']['name']}-")
    return file_part("-".join([name, job(first)["dataset"], job(first)["architecture"], conditions]))


def inputs(results: Sequence[Result]) -> dict[str, str]:
    """Return the content hash of each file, by its name."""
    return {result.path.name: str(result.attributes["content_sha256"]) for result in results}


def _is_png(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(8) == b"\x89PNG\r\n\x1a\n"


def is_drawn(folder: Path, name: str, sources: dict[str, str], version: str, *, with_pdf: bool = True) -> bool:
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
    drawing: Drawing, folder: Path, name: str, sources: dict[str, str], version: str, *, with_pdf: bool = True
) -> Path:
    """Write `name`.png, .pdf and .json into `folder`, each in one step; returns the path of the first.

    Without PDF one that is there is still drawn anew, so that it never shows other files than the PNG does. The caller
    holds the lock of the picture, see `core.locks`. Raises UserError for a picture that is not irt's.
    """
    caption = {"caption": drawing.caption, "inputs": sources, "numbers": drawing.numbers, "version": version}
    paths = [folder / f"{name}.{kind}" for kind in ("png", "pdf", "json")]
    png, pdf, text = paths
    if png.exists() and not text.exists():
        raise UserError(f"{png} is there and is no picture of irt's: move it, or give another --root.")
    remove_leftovers(*paths)
    with mpl.rc_context(RC):
        with replacing(png) as partial:
            drawing.figure.savefig(partial, format="png", dpi=200)
        if with_pdf or pdf.exists():
            drawing.figure.set_layout_engine("none")  # all is in its place now, and would be placed anew
            with replacing(pdf) as partial:
                drawing.figure.savefig(partial, format="pdf", metadata={"CreationDate": None})
    with replacing(text) as partial:
        partial.write_text(json.dumps(_plain(caption), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return png


def _plain(value: Any) -> Any:
    """Return a value as JSON can hold it: what is not a number is null."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
