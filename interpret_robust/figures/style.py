"""What all pictures share: sizes, the color of each variant, and how they are saved.

A picture is saved as PNG and, where asked for, as PDF, with a JSON caption beside it: the files it was drawn from, the
numbers it shows, and the rule by which images were chosen. Equal inputs give equal bytes.
"""

import io
import json
import math
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colorbar import Colorbar
from matplotlib.colors import Normalize
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.ticker import FixedLocator, MaxNLocator, NullFormatter
from PIL import Image

from interpret_robust.core.arrays import AnyArray
from interpret_robust.core.cells import cell_means
from interpret_robust.core.configs import finite
from interpret_robust.core.errors import UserError
from interpret_robust.core.file_names import file_part
from interpret_robust.core.files import remove_leftovers, replace_file
from interpret_robust.core.spelling import spellings
from interpret_robust.results.hdf5 import Result
from interpret_robust.results.names import label, variant

WIDTH = 6.75
"""Inches: the text width of a conference paper."""

FORMATS: dict[str, dict[str, Any]] = {
    ".png": {"dpi": 200},
    ".pdf": {"metadata": {"CreationDate": None}},
    ".svg": {"metadata": {"Date": None}},
}
"""The endings of pictures, and how each is saved: without a date, so that equal inputs give equal bytes."""

_width: ContextVar[float] = ContextVar("width", default=WIDTH)

RC: dict[Any, Any] = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "0.92",
    "legend.frameon": False,
    "figure.autolayout": False,
    "figure.constrained_layout.use": False,
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "irt",
}

# Okabe and Ito's colors, one for each variant everywhere.
COLORS = {
    "natural": "#000000",
    "natural-att": "#999999",
    "natural-linear-att": "#0072B2",
    "at": "#E69F00",
    "at-reg": "#56B4E9",
    "at-att": "#009E73",
    "at-att-reg": "#D55E00",
}
# Tol's muted colors that are not like these.
OTHER_COLORS = ("#CC79A7", "#332288", "#882255", "#999933", "#6699CC", "#117733")
MARKERS = ("o", "s", "^", "D", "v")
"""The mark of each seed."""

DASHES = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)))
"""The line of each seed; of a model without a seed it is the first."""

PERCENTILE = 99
CEILING = f"it ends at the {PERCENTILE}th percentile of what is shown, so that larger values look like this one."
"""Where the color scale of maps ends, and how captions say so."""

NEARLY_UNIFORM = " Weights are nearly uniform: their scale begins at the smallest, not at zero."
"""What captions say beside `CEILING` where a color scale begins above zero."""

TINY = 0.005
"""Below this the numbers of a color bar are written as powers of ten."""

FAINTEST = 0.25
"""How opaque a map laid over an image is where it is zero."""

LABEL_GAP = 0.2
"""Share of a logarithmic axis between one label and the next, at least: beside the smallest panel they do not touch."""


@dataclass(frozen=True)
class Drawing:
    """A figure, the sentence under it, and every number it shows."""

    figure: Figure
    caption: str
    numbers: dict[str, Any] = field(default_factory=dict)


@contextmanager
def wide(inches: float) -> Iterator[None]:
    """Make figures of another width than that of a conference paper.

    Narrower ones have fewer panels abreast and text of the same size; wider ones are to be enlarged, see `enlarge`.
    """
    token = _width.set(inches)
    try:
        yield
    finally:
        _width.reset(token)


def width() -> float:
    """Return the width in inches for which panels are laid out: that of a conference paper, or less."""
    return min(WIDTH, _width.get())


NARROW = 4.5
"""Inches: below this width panels stand one below the other."""

TITLE = 42
"""Characters of a title that fit over a narrow figure."""


def abreast(panels: int) -> int:
    """Return how many of some panels that share a row of a wide figure stand abreast: one where it is narrow."""
    return panels if width() >= NARROW else 1


def sides() -> tuple[str, str]:
    """Return where two panels stand, as a caption calls them."""
    return ("Left", "Right") if width() >= NARROW else ("Above", "Below")


def legend_columns(names: Sequence[str], inches: float) -> int:
    """Return how many entries of a legend fit abreast into a width."""
    return max(1, min(len(names), int(inches / (0.42 + 0.057 * max(map(len, names))))))


def legend_lines(names: Sequence[str], columns: int) -> float:
    """Return the inches that a legend of so many columns needs beyond its first line.

    Where the figure is wide it has all its entries abreast.
    """
    return 0.17 * (-(-len(names) // columns) - 1)


def break_label(text: str) -> str:
    """Return the label of an axis in two lines where the figure is narrow: broken at a bracket, colon or comma."""
    if width() >= NARROW:
        return text
    gap = next((gap for gap in (" (", ": ", ", ") if gap in text), "")
    return text.replace(gap, gap.replace(" ", "\n"), 1)


def set_title(figure: Figure, text: str) -> None:
    """Write a title over a figure; over a narrow one its last part stands in a line of its own."""
    head, _, tail = text.rpartition(", ")
    figure.suptitle(text if not head or width() >= NARROW or len(text) < TITLE else f"{head},\n{tail}")


def new_figure(height: float) -> Figure:
    """Return an empty figure of full width. Nothing global is touched and no window can open."""
    with mpl.rc_context(RC):
        figure = Figure(figsize=(width(), height), layout="constrained")
        FigureCanvasAgg(figure)
    return figure


def mark_doubtful(figure: Figure) -> None:
    """Write under a figure that its numbers are in doubt; the caption, in the file beside it, says why."""
    strip_height = 0.15 / figure.get_figheight()
    bottom = strip_height
    if label := figure.get_supxlabel():  # which the layout would put at the edge
        figure.supxlabel(label, y=strip_height, fontsize=RC["font.size"])
        bottom += 0.2 / figure.get_figheight()
    layout: Any = figure.get_layout_engine()
    layout.set(rect=(0, bottom, 1, 1 - bottom))
    figure.text(
        0.01,
        strip_height / 4,
        "In doubt: the caption, in the .json beside this, says why.",
        fontsize=6,
        color="firebrick",
    )


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


def strip(pictures: AnyArray, size: tuple[int, int], gap: int | None = None) -> AnyArray:
    """Return pictures of `size` (M, height, width, ...), or maps (M, y, x), in a row, each map drawn to that size.

    A pixel shows the place that it lies in, or several by area. One image is laid out and drawn many times faster
    than M axes. The gaps between, of so many pixels or see `pitch`, are NaN, or white where pictures are bytes.
    """
    width = size[1]
    large = pictures if pictures.shape[1:3] == size else cell_means(pictures, size).astype(pictures.dtype)
    gaps = [(0, 0)] * large.ndim
    gaps[2] = (0, pitch(width) - width if gap is None else gap)
    empty = 255 if pictures.dtype == np.uint8 else np.nan
    return np.concatenate(list(np.pad(large, gaps, constant_values=empty)), axis=1)


def pitch(width: int) -> int:
    """Return the distance from one picture of a strip to the next."""
    return width + width // 2


def attention_bar(figure: Figure | SubFigure, maps: ScalarMappable, axes: Axes, name: str, uniform: float) -> None:
    """Draw the color bar, lying in `axes`, of maps of weights, with a line at the weight that all positions would
    share.
    """
    text = f"{name}\n(line: uniform, {uniform:.2g})"
    few_ticks(figure.colorbar(maps, cax=axes, orientation="horizontal", label=text, extend="max"))
    axes.axvline(uniform, color="white", linewidth=1)


CHANCE: Mapping[str, Any] = {"color": "0.5", "linestyle": "--", "linewidth": 0.8}
"""How the line of guessing is drawn."""


def chance(result: Result) -> tuple[float, str]:
    """Return the accuracy of guessing among a model's classes, in %, and what it is called."""
    classes = len(result.job["class_names"])
    return 100 / classes, f"chance, one in {classes}"


def draw_differences(
    figure: SubFigure,
    results: Sequence[Result],
    groups: Sequence[str],
    panels: Mapping[str, Sequence[AnyArray]],
    unit: str,
) -> None:
    """Draw panels of shares with their intervals: a group of rows for each of `groups`, in it a row a model.

    Args:
        panels: by title, of each model its value, low and high for each group (groups, 3), as shares.
        unit: what stands under each panel.
    """
    columns = abreast(len(panels))
    grid = figure.subplots(len(panels) // columns, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for axes, (title, values_by_model) in zip(grid, panels.items(), strict=True):
        for number, (result, values) in enumerate(zip(results, values_by_model, strict=True)):
            value, low, high = (100 * values).T
            axes.errorbar(
                value,
                np.arange(len(groups)) + (number - (len(results) - 1) / 2) * 0.7 / len(results),
                xerr=[value - low, high - value],
                color=color(variant(result)),
                marker=marker(result),
                markersize=3,
                linestyle="none",
                linewidth=0.8,
                label=label(result),
            )
        axes.axvline(0, color="0.5", linestyle="--", linewidth=0.8)
        axes.set(title=title, xlabel=break_label(unit))
        axes.grid(visible=False, axis="y")
    grid[0].set_yticks(range(len(groups)), groups)
    grid[0].set_ylim(len(groups) - 0.4, -0.6)
    handles, names = grid[0].get_legend_handles_labels()
    columns = legend_columns(names, width())
    figure.legend(handles, names, loc="outside lower center", ncols=columns, columnspacing=1.2, handletextpad=0.3)


def overlay(axes: Axes, images: AnyArray, maps: AnyArray, scale: ScalarMappable) -> None:
    """Draw maps (M, y, x) over their images (M, height, width, C) in a row: an image gray, and a map's colors the more
    opaque the further they are from zero, or from where a scale begins that lies above zero.
    """
    size = images.shape[1:3]
    gray = images.mean(3).astype(np.uint8)
    values = strip(maps, size)
    low, high = (float(limit or 0) for limit in scale.get_clim())
    strength = np.nan_to_num(np.abs(values - max(0, low)) / max(-low, high - max(0, low)))
    opacity = np.where(np.isfinite(values), FAINTEST + (1 - FAINTEST) * np.minimum(1, strength), 0)
    axes.imshow(strip(gray, size), cmap="gray", vmin=0, vmax=255, interpolation="none")
    axes.imshow(values, cmap=scale.cmap, vmin=low, vmax=high, alpha=opacity, interpolation="nearest")


def weight_scale(maps: Sequence[AnyArray]) -> ScalarMappable:
    """Return the colors of weights, from zero; of weights that are nearly uniform from the smallest, so that they
    differ.
    """
    low, high = min(float(np.nanmin(array, initial=np.inf)) for array in maps), ceiling(maps)
    return ScalarMappable(Normalize(low if high / 2 < low < high else 0, high), "viridis")


def caption_end(scales: Iterable[ScalarMappable]) -> str:
    """Return what a caption ends with if one of its scales of weights begins above zero."""
    return NEARLY_UNIFORM if any((scale.get_clim()[0] or 0) > 0 for scale in scales) else ""


def few_ticks(bar: Colorbar) -> None:
    """Write few numbers under a color bar, as powers of ten where they are tiny or long, so that they do not touch."""
    bar.ax.xaxis.set_major_locator(MaxNLocator(3))
    low, high = bar.mappable.get_clim()
    if low > 0 or high < TINY:
        bar.ax.ticklabel_format(axis="x", style="sci", scilimits=(-2, 4), useOffset=False)


def ceiling(maps: Sequence[AnyArray]) -> float:
    """Return where a color scale ends: at a percentile of magnitudes, so that one large weight darkens no other.

    Example:
        >>> round(ceiling([np.r_[np.linspace(0, 0.1, 999), 0.33]]), 3)
        0.099
    """
    values = np.abs(np.concatenate([np.ravel(array) for array in maps]))
    values = values[np.isfinite(values)]
    if not values.any():  # where nothing moved, nothing has a color
        return 1.0
    return float(np.percentile(values, PERCENTILE)) or float(values.max())


def stroke(result: Result) -> dict[str, Any]:
    """Return how a model's line is drawn: in the color of its variant, with the dash of its seed."""
    return {"color": color(variant(result)), "linestyle": DASHES[(result.job["seed"] or 0) % len(DASHES)]}


def marker(result: Result) -> str:
    """Return the mark of a model's seed."""
    return MARKERS[(result.job["seed"] or 0) % len(MARKERS)]


def color(name: str) -> str:
    """Return a variant's color; that of another model follows from its name, and two may share one."""
    return COLORS.get(name) or OTHER_COLORS[zlib.crc32(name.encode()) % len(OTHER_COLORS)]


def name_rows(axes: Axes, results: Sequence[Result]) -> None:
    """Draw a row a model, the first on top, with its name at the left."""
    axes.set_yticks(range(len(results)), [label(result) for result in results])
    axes.set_ylim(len(results) - 0.5, -0.5)


def dot(axes: Axes, row: float, result: Result, interval: AnyArray, *, hollow: bool = False) -> None:
    """Draw a statistic (value, low, high) of a model in its row, in its color and with the mark of its seed."""
    value, low, high = (float(number) for number in interval)
    shade = color(variant(result))
    face = "white" if hollow else shade
    axes.errorbar(
        value,
        row,
        xerr=[[value - low], [high - value]],
        color=shade,
        marker=marker(result),
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
    return file_part("-".join([name, first.job["dataset"], first.job["architecture"], conditions]))


def inputs(results: Sequence[Result]) -> dict[str, str]:
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
        partial.write_text(json.dumps(finite(caption), indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _lay_out(figure: Figure) -> None:
    """Put everything in its place as saving a PNG does. A figure that has a layout engine is drawn twice when saved."""
    dpi, engine = figure.dpi, figure.get_layout_engine()
    if engine is not None:
        figure.dpi = FORMATS[".png"]["dpi"]
        engine.execute(figure)
        figure.dpi = dpi
        figure.set_layout_engine(None)


def pixels(drawing: Drawing) -> Image.Image:
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
