"""Accuracy against the number of local features removed, in each order, and the areas between the orders."""

import math
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import SubFigure

from interpret_robust.figures.style import (
    CHANCE,
    NARROW,
    RC,
    Drawing,
    count_legend_columns,
    draw_differences,
    find_chance,
    get_width,
    make_figure,
)
from interpret_robust.results.hdf5 import Result
from interpret_robust.results.names import format_ball, format_images, label, list_places

READS = "feature-deletion/1"

PANEL, PANEL_HEIGHT, LEGEND_HEIGHT = 1.3, 1.25, 0.35
"""Inches: the width that a panel needs, its height, and that of the legend."""

# Paul Tol's bright colors, since Okabe and Ito's stand for the variants; an order and its reverse share one.
ORDER_STYLES: dict[str, dict[str, str]] = {
    "attended": {"color": "#4477AA", "linestyle": "-", "marker": "o"},
    "unattended": {"color": "#4477AA", "linestyle": ":", "marker": "o"},
    "robust": {"color": "#228833", "linestyle": "-", "marker": "^"},
    "fragile": {"color": "#228833", "linestyle": ":", "marker": "^"},
    "prior": {"color": "#AA3377", "linestyle": "--", "marker": "s"},
    "random": {"color": "#777777", "linestyle": "-", "marker": "x"},
}


def draw(results: Sequence[Result]) -> Drawing:
    """Return the curves of each model, clean above adversarial.

    Below, what removal in one order costs beyond another.
    """
    abreast = int(get_width() / PANEL)
    bands = math.ceil(len(results) / abreast)
    upper_height = LEGEND_HEIGHT + 2 * PANEL_HEIGHT * bands
    if get_width() < NARROW:
        upper_height += 0.5  # for a legend of more lines
    of_contrasts = max(0.2, 0.07 * len(results)) * len(list_places(results[0], "contrast"))
    lower_height = 1.1 + of_contrasts if get_width() >= NARROW else 2 * (0.7 + of_contrasts) + 0.3
    figure = make_figure(upper_height + lower_height)
    with mpl.rc_context(RC):
        parts: Any = figure.subfigures(2, 1, height_ratios=[upper_height, lower_height])
        upper, lower = parts
        _draw_curves(upper, results, bands, min(abreast, len(results)))
        _draw_costs(lower, results)
    numbers = {label(result): _numbers(result) for result in results}
    return Drawing(figure, _caption(results), numbers)


def _draw_curves(figure: SubFigure, results: Sequence[Result], bands: int, columns: int) -> None:
    grid = figure.subplots(2 * bands, columns, squeeze=False, sharex=True, sharey=True)
    for number, result in enumerate(results):
        band, column = divmod(number, columns)
        for row, condition in enumerate(list_places(result, "condition")):
            axes = grid[2 * band + row, column]
            _draw_orders(axes, result, row)
            if row == 0:
                axes.set_title(label(result).replace(", ", "\n"))
            if column == 0:
                axes.set_ylabel(f"{condition}, %")
    for number, axes in enumerate(grid.flat):
        axes.set_visible(bool(axes.lines))
        lower_panels = grid.flat[number + columns :: columns]
        axes.tick_params(labelbottom=not any(panel.lines for panel in lower_panels))
    counts = results[0]["removed"]
    grid[0, 0].set(ylim=(0, 102), xlim=(counts[0], counts[-1]), xticks=np.linspace(0, counts[-1], 5).round())
    figure.supxlabel("local features removed", fontsize=8)
    handles, names = grid[0, 0].get_legend_handles_labels()
    columns = count_legend_columns(names, get_width())
    figure.legend(handles, names, loc="outside upper center", ncols=columns, title="removed first")


def _draw_orders(axes: Axes, result: Result, condition: int) -> None:
    accuracy, low, high = (100 * result[f"curve/{name}"][condition] for name in ("accuracy", "low", "high"))
    counts = result["removed"]
    for number, name in enumerate(list_places(result, "order")):
        style: dict[str, Any] = ORDER_STYLES[name]
        axes.plot(counts, accuracy[number], markersize=2, linewidth=0.9, markevery=2, label=name, **style)
        axes.fill_between(counts, low[number], high[number], color=style["color"], alpha=0.15, lw=0)
    level, text = find_chance(result)
    axes.axhline(level, label=text, **CHANCE)


def _draw_costs(figure: SubFigure, results: Sequence[Result]) -> None:
    """Draw areas between curves: a group of rows a contrast, a row a model."""
    contrasts = list_places(results[0], "contrast")
    panels = {
        title: [result["area/between"][condition] for result in results]
        for condition, title in enumerate(list_places(results[0], "condition"))
    }
    draw_differences(figure, results, contrasts, panels, "area between, %")


def _numbers(result: Result) -> dict[str, Any]:
    names = ("curve/accuracy", "area/under", "area/between")
    axes = ("condition", "order", "contrast")
    return {axis: list_places(result, axis) for axis in axes} | {
        "removed": result["removed"].tolist(),
        **{name: result[name].tolist() for name in names},
    }


def _caption(results: Sequence[Result]) -> str:
    config = results[0].config
    data, settings = config["data"], config["settings"]
    fill = "the mean local feature of training images" if settings["fill"] == "mean" else "zero"
    return (
        f"Accuracy on {format_images(data)} of {data['dataset']} when so many of the "
        f"{int(results[0]['removed'][-1])} local features become {fill}, of clean and of adversarial images "
        f"(PGD-{settings['steps']}, {format_ball(settings)}, seed {settings['seed']}). Attended: by attention on "
        "the clean image, largest first; robust: smallest L2 distance of "
        "clean and adversarial local feature first; prior: by the mean attention of training images. Bands are Wilson "
        f"95 % intervals; gray dashes: {find_chance(results[0])[1]}. "
        "Below: area under the second order's curve minus area under the first's, over the share "
        "removed, above 0 where the first costs more; bars are 95 % intervals of the paired bootstrap over images."
    )
