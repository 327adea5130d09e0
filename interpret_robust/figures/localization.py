"""How much of each map lies on the object, beside maps that know nothing, and what follows planted patterns."""

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import SubFigure
from matplotlib.lines import Line2D

from interpret_robust.figures.style import (
    NARROW,
    RC,
    Drawing,
    collect_numbers,
    count_abreast,
    draw_dot,
    get_width,
    is_shared,
    make_figure,
    name_rows,
)
from interpret_robust.results.hdf5 import Result
from interpret_robust.results.names import format_images

READS = "localization/2"

PANELS = (
    ("weights on the object, %", "share/on_object", "share/center", 0),
    ("gradient on the object, %", "share/on_object", "share/center", 1),
    ("pointing, weights: % hits", "pointing/hits", "pointing/center", 0),
    ("pointing, gradient: % hits", "pointing/hits", "pointing/center", 1),
)
"""Label, statistic, what the center prior has, and which of the file's maps: weights of positions, gradient."""

PATTERN_PANELS = (
    ("gradient's energy in their span, %", "pattern/share", "pattern/share_turned", "patterns turned"),
    ("100 x cosine with the own pattern", "pattern/cosine", "pattern/cosine_other", "other classes' patterns"),
    ("follows an exchanged pattern, %", "pattern/follows", "pattern/stays", "stays with the object"),
)
"""Label, the statistic drawn filled, the one drawn hollow, and what that is."""

OBJECT_HEIGHT, PATTERN_HEIGHT = 0.8, 1.0
"""Inches, beside those of the rows."""

DATASETS = ("share/on_object", "share/area", "share/center", "pointing/hits", "pointing/center")
DATASETS_OF_PATTERNS = (*(name for _, *pair, _ in PATTERN_PANELS for name in pair), "pattern/chance")


def draw(results: Sequence[Result]) -> Drawing:
    """Return shares and pointing game of both maps; where patterns are planted, a second row of panels on them."""
    patterns = bool(np.isfinite(results[0]["pattern/chance"]))
    rows = 0.2 * len(results)
    heights = [OBJECT_HEIGHT + rows] + patterns * [PATTERN_HEIGHT + rows]
    if get_width() < NARROW:
        counts = (len(PANELS), len(PATTERN_PANELS))
        heights = [0.2 + count * height for count, height in zip(counts, heights, strict=False)]
    figure = make_figure(sum(heights))
    with mpl.rc_context(RC):
        parts: Any = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)
        _draw_object(parts[0, 0], results)
        if patterns:
            _draw_patterns(parts[1, 0], results)
    names = DATASETS + patterns * DATASETS_OF_PATTERNS
    numbers = collect_numbers(results, names)
    return Drawing(figure, _caption(results, patterns=patterns), numbers)


def _draw_object(figure: SubFigure, results: Sequence[Result]) -> None:
    """Draw a panel for each map and statistic, with the object's area and the center prior as lines.

    These depend on a model's grid of positions, and on which images have a map.
    """
    columns = count_abreast(len(PANELS))
    panels = figure.subplots(len(PANELS) // columns, columns, sharey=True).ravel()
    for axes, (title, name, center, index) in zip(panels, PANELS, strict=True):
        for row, result in enumerate(results):
            draw_dot(axes, row, result, 100 * result[name][index])
        for baseline, stroke in (("share/area", "--"), (center, ":")):
            _draw_levels(axes, _list_levels(results, baseline, index), color="0.3", linestyle=stroke, linewidth=0.9)
        axes.set(xlim=(-3, 103), xlabel=title)
        axes.xaxis.label.set_fontsize(7)
    name_rows(panels[0], results)
    handles = [
        Line2D([], [], color="0.3", linestyle="--", linewidth=0.9, label="the object's area"),
        Line2D([], [], color="0.3", linestyle=":", linewidth=0.9, label="a map that knows only the center"),
    ]
    figure.legend(handles=handles, loc="outside upper right", ncols=count_abreast(2))


def _list_levels(results: Sequence[Result], baseline: str, index: int) -> list[float]:
    """Return what a map that knows nothing has in each model's file, for the map of this index."""
    return [float(result[baseline][index, 0]) for result in results]


def _draw_levels(axes: Axes, levels: Sequence[float], **look: Any) -> None:
    """Draw levels of models as one line where all have the same, else as a piece of it in each row."""
    if is_shared(levels):
        axes.axvline(100 * levels[0], **look)
        return
    for row, level in enumerate(levels):
        axes.plot([100 * level, 100 * level], [row - 0.5, row + 0.5], **look)


def _draw_patterns(figure: SubFigure, results: Sequence[Result]) -> None:
    """Draw what the gradient and the decision have to do with the planted patterns (filled), with controls (hollow)."""
    columns = count_abreast(len(PATTERN_PANELS))
    panels = figure.subplots(len(PATTERN_PANELS) // columns, columns, sharey=True).ravel()
    for axes, (title, name, control, text) in zip(panels, PATTERN_PANELS, strict=True):
        for row, result in enumerate(results):
            draw_dot(axes, row, result, 100 * result[control], hollow=True)
            draw_dot(axes, row, result, 100 * result[name])
        axes.set_xlabel(f"{title}\n(hollow: {text})", fontsize=7)
    panels[0].axvline(100 * float(results[0]["pattern/chance"]), color="0.3", linestyle="-.", linewidth=0.9)
    panels[1].axvline(0, color="0.5", linestyle="--", linewidth=0.8)
    panels[2].set_xlim(-3, 103)
    name_rows(panels[0], results)
    chance = Line2D([], [], color="0.3", linestyle="-.", linewidth=0.9, label="a random direction")
    figure.legend(handles=[chance], loc="outside upper right")


def _caption(results: Sequence[Result], *, patterns: bool) -> str:
    data = results[0].config["data"]
    baselines = {(name, index) for *_, center, index in PANELS for name in ("share/area", center)}
    is_one = all(is_shared(_list_levels(results, *baseline)) for baseline in baselines)
    of_row = "" if is_one else " (in pieces where models differ in their positions or in the images that have a map)"
    caption = (
        f"How maps lie on the object on {format_images(data)} of {data['dataset']}: the share of "
        "the weights of positions and of the energy of the gradient of "
        "the true label's cross-entropy, and the share of images whose map is largest on the object. "
        f"Lines{of_row}: the share of positions or pixels on the object, and what a map that falls off from the center "
        "has. Bars are 95 % intervals over images (bootstrap; Wilson for shares of images)."
    )
    if not patterns:
        return caption
    return caption + (
        " Below, on the class patterns planted in the images: the share of the gradient's energy in their span, the "
        "cosine of minus the gradient and the true class's pattern, and the share of images that are predicted as "
        "the class whose pattern has replaced their own."
    )
