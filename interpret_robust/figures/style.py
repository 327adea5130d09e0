"""What all pictures share: their sizes, the color and mark of each model, and how numbers with intervals are drawn."""

import math
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullFormatter

from interpret_robust.core.arrays import AnyArray
from interpret_robust.results.hdf5 import Result
from interpret_robust.results.names import label, name_variant

WIDTH = 6.75
"""Inches: the text width of a conference paper."""

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
TINTS = {"narrow": 0.45, "wide3": 0.55, "small-wide3": 0.3, "cnn": 0.66}
"""How much white is in the color of each network other than `small` where several are in one picture."""

MARKERS = ("o", "s", "^", "D", "v")
"""The mark of each seed."""

DASHES = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)))
"""The line of each seed; of a model without a seed it is the first."""


@dataclass(frozen=True)
class Drawing:
    """A figure, the sentence under it, and every number it shows."""

    figure: Figure
    caption: str
    numbers: dict[str, Any] = field(default_factory=dict)


@contextmanager
def use_width(inches: float) -> Iterator[None]:
    """Make figures of another width than that of a conference paper.

    Narrower ones have fewer panels abreast and text of the same size; wider ones are to be enlarged, see `enlarge`.
    """
    token = _width.set(inches)
    try:
        yield
    finally:
        _width.reset(token)


def get_width() -> float:
    """Return the width in inches for which panels are laid out: that of a conference paper, or less."""
    return min(WIDTH, _width.get())


NARROW = 4.5
"""Inches: below this width panels stand one below the other."""

TITLE = 42
"""Characters of a title that fit over a narrow figure."""


def count_abreast(panels: int) -> int:
    """Return how many of some panels that share a row of a wide figure stand abreast: one where it is narrow."""
    return panels if get_width() >= NARROW else 1


def name_sides() -> tuple[str, str]:
    """Return where two panels stand, as a caption calls them."""
    return ("Left", "Right") if get_width() >= NARROW else ("Above", "Below")


def count_legend_columns(names: Sequence[str], inches: float) -> int:
    """Return how many entries of a legend fit abreast into a width."""
    return max(1, min(len(names), int(inches / (0.42 + 0.057 * max(map(len, names))))))


def measure_legend(names: Sequence[str], columns: int) -> float:
    """Return the inches that a legend of so many columns needs beyond its first line.

    Where the figure is wide it has all its entries abreast.
    """
    return 0.17 * (-(-len(names) // columns) - 1)


def break_label(text: str) -> str:
    """Return the label of an axis in two lines where the figure is narrow: broken at a bracket, colon or comma."""
    if get_width() >= NARROW:
        return text
    gap = next((gap for gap in (" (", ": ", ", ") if gap in text), "")
    return text.replace(gap, gap.replace(" ", "\n"), 1)


def set_title(figure: Figure, text: str) -> None:
    """Write a title over a figure; over a narrow one its last part stands in a line of its own."""
    head, _, tail = text.rpartition(", ")
    figure.suptitle(text if not head or get_width() >= NARROW or len(text) < TITLE else f"{head},\n{tail}")


def make_figure(height: float) -> Figure:
    """Return an empty figure of full width. Nothing global is touched and no window can open."""
    with mpl.rc_context(RC):
        figure = Figure(figsize=(get_width(), height), layout="constrained")
        FigureCanvasAgg(figure)
    return figure


STRIP = 0.15
"""Inches of a line of text under a figure."""


def write_below(figure: Figure, lines: Mapping[str, str]) -> None:
    """Write lines, each with its color, in a strip that is added under a figure."""
    figure.set_figheight(figure.get_figheight() + STRIP * len(lines))
    line_height = STRIP / figure.get_figheight()
    bottom = line_height * len(lines)
    for place, (text, color) in enumerate(lines.items()):
        y = bottom - (place + 0.75) * line_height
        figure.text(0.99, y, text, fontsize=6, color=color, horizontalalignment="right")
    if label := figure.get_supxlabel():  # which the layout would put at the edge
        figure.supxlabel(label, y=bottom, fontsize=RC["font.size"])
        bottom += 0.2 / figure.get_figheight()
    layout: Any = figure.get_layout_engine()
    layout.set(rect=(0, bottom, 1, 1 - bottom))


def scale_log(axes: Axes, name: Literal["x", "y"]) -> None:
    """Make an axis logarithmic, with few labels that are plain numbers. Call it when everything is drawn.

    Matplotlib's own labels, such as 3 x 10^-2, lie over each other in small panels.
    """
    axes.set(**{f"{name}scale": "log"})
    axis = getattr(axes, f"{name}axis")
    axis.set_major_locator(FixedLocator(choose_log_ticks(*getattr(axes, f"get_{name}lim")())))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


LABEL_GAP = 0.2
"""Share of a logarithmic axis between one label and the next, at least: beside the smallest panel they do not touch."""


def choose_log_ticks(low: float, high: float) -> list[float]:
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


CHANCE: Mapping[str, Any] = {"color": "0.5", "linestyle": "--", "linewidth": 0.8}
"""How the line of guessing is drawn."""


def find_chance(result: Result) -> tuple[float, str]:
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
    columns = count_abreast(len(panels))
    grid = figure.subplots(len(panels) // columns, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for axes, (title, values_by_model) in zip(grid, panels.items(), strict=True):
        for number, (result, values) in enumerate(zip(results, values_by_model, strict=True)):
            value, low, high = (100 * values).T
            axes.errorbar(
                value,
                np.arange(len(groups)) + (number - (len(results) - 1) / 2) * 0.7 / len(results),
                xerr=[value - low, high - value],
                color=choose_color(name_variant(result)),
                marker=choose_marker(result),
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
    columns = count_legend_columns(names, get_width())
    figure.legend(handles, names, loc="outside lower center", ncols=columns, columnspacing=1.2, handletextpad=0.3)


def choose_stroke(result: Result) -> dict[str, Any]:
    """Return how a model's line is drawn: in the color of its variant, with the dash of its seed."""
    return {"color": choose_color(name_variant(result)), "linestyle": DASHES[(result.job["seed"] or 0) % len(DASHES)]}


def choose_marker(result: Result) -> str:
    """Return the mark of a model's seed."""
    return MARKERS[(result.job["seed"] or 0) % len(MARKERS)]


def choose_color(name: str) -> str:
    """Return a variant's color, lighter where its name says that its network is another than `small`.

    That of another model follows from its name, and two may share one.
    """
    variant, _, architecture = name.partition(", ")
    if variant in COLORS:
        return blend_with_white(COLORS[variant], TINTS.get(architecture, 0))
    return OTHER_COLORS[zlib.crc32(name.encode()) % len(OTHER_COLORS)]


def blend_with_white(color: str, share: float) -> str:
    """Return a color, `#RRGGBB`, of which a share from 0 to 1 is white.

    Example:
        >>> blend_with_white("#000000", 0.5)
        '#808080'
    """
    red, green, blue = ((1 - share) * part + share for part in to_rgb(color))
    return to_hex((red, green, blue)).upper()


def name_rows(axes: Axes, results: Sequence[Result]) -> None:
    """Draw a row a model, the first on top, with its name at the left."""
    axes.set_yticks(range(len(results)), [label(result) for result in results])
    axes.set_ylim(len(results) - 0.5, -0.5)


def draw_interval(axes: Axes, row: float, interval: Iterable[float], **look: Any) -> None:
    """Draw a statistic (value, low, high) in a row: a mark with a bar, which look as `Axes.errorbar` is told."""
    value, low, high = (float(number) for number in interval)
    axes.errorbar(value, row, xerr=[[value - low], [high - value]], **look)


def is_shared(levels: Sequence[float]) -> bool:
    """Return whether models have one level to be compared with, up to rounding; it may be unknown to all."""
    return bool(np.allclose(levels, levels[0], rtol=0, atol=1e-6, equal_nan=True))


def collect_numbers(results: Sequence[Result], datasets: Sequence[str]) -> dict[str, Any]:
    """Return for each model what its file holds in some datasets, as a caption keeps it."""
    return {label(result): {name: result[name].tolist() for name in datasets} for result in results}


def draw_dot(axes: Axes, row: float, result: Result, interval: AnyArray, *, hollow: bool = False) -> None:
    """Draw a statistic (value, low, high) of a model in its row, in its color and with the mark of its seed."""
    shade = choose_color(name_variant(result))
    face = "white" if hollow else shade
    look = {"marker": choose_marker(result), "markerfacecolor": face, "markersize": 4.5, "linestyle": "none"}
    draw_interval(axes, row, interval, color=shade, elinewidth=1, **look)
