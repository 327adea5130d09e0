"""Accuracy against the share of pixels deleted or inserted in each order, and by how much maps beat their controls."""

from collections.abc import Sequence
from textwrap import fill
from typing import Any

import matplotlib as mpl
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
from interpret_robust.results.names import format_images, label, list_places

READS = "pixel-deletion/1"

PANEL_HEIGHT, LEGEND_HEIGHT = 1.2, 0.55
"""Inches."""

# Paul Tol's bright colors, since Okabe and Ito's stand for the variants.
ORDER_STYLES: dict[str, dict[str, str]] = {
    "map": {"color": "#4477AA", "linestyle": "-", "marker": "o"},
    "edges": {"color": "#228833", "linestyle": "--", "marker": "^"},
    "random": {"color": "#777777", "linestyle": ":", "marker": "x"},
}
CONTRASTS = (0, 1)
"""The map against edges, and against the random order."""

DATASETS = ("curve/accuracy", "area/accuracy", "advantage/accuracy")


def draw(results: Sequence[Result]) -> Drawing:
    """Return the curves, a row a model and a column a rule. Below, how much better maps are than their controls."""
    upper_height = LEGEND_HEIGHT + PANEL_HEIGHT * len(results)
    of_rules = max(0.25, 0.08 * len(results)) * len(list_places(results[0], "rule"))
    lower_height = 1.0 + of_rules if get_width() >= NARROW else 2 * (0.7 + of_rules) + 0.3
    figure = make_figure(upper_height + lower_height)
    with mpl.rc_context(RC):
        parts: Any = figure.subfigures(2, 1, height_ratios=[upper_height, lower_height])
        upper, lower = parts
        _draw_curves(upper, results)
        _draw_advantages(lower, results)
    numbers = {label(result): _numbers(result) for result in results}
    return Drawing(figure, _caption(results), numbers)


def _draw_curves(figure: SubFigure, results: Sequence[Result]) -> None:
    rules = list_places(results[0], "rule")
    grid = figure.subplots(len(results), len(rules), squeeze=False, sharex=True, sharey=True)
    for result, panels in zip(results, grid, strict=True):
        for rule, axes in enumerate(panels):
            for order, name in enumerate(list_places(result, "order")):
                accuracy, low, high = (
                    100 * result[f"curve/{kind}"][order, rule] for kind in ("accuracy", "low", "high")
                )
                style: dict[str, Any] = ORDER_STYLES[name]
                axes.plot(result["percent"], accuracy, markersize=2, linewidth=0.9, label=name, **style)
                axes.fill_between(result["percent"], low, high, color=style["color"], alpha=0.15, lw=0)
            level, text = find_chance(result)
            axes.axhline(level, label=text, **CHANCE)
        panels[0].set_ylabel(label(result).replace(", ", "\n") + "\n% right")
    for axes, name in zip(grid[0], rules, strict=True):
        axes.set_title(name if get_width() >= NARROW else fill(name, 10))
    grid[0, 0].set(ylim=(0, 102), xlim=(0, 100), xticks=(0, 50, 100))
    figure.supxlabel("% of pixels deleted (in insertion: inserted)", fontsize=8)
    handles, names = grid[0, 0].get_legend_handles_labels()
    columns = count_legend_columns(names, get_width())
    figure.legend(handles, names, loc="outside upper center", ncols=columns, title="order of pixels")


def _draw_advantages(figure: SubFigure, results: Sequence[Result]) -> None:
    """Draw differences of areas: a panel a control, a group of rows a rule, a row a model."""
    rules, contrasts = list_places(results[0], "rule"), list_places(results[0], "contrast")
    panels = {
        contrasts[contrast]: [result["advantage/accuracy"][:, contrast] for result in results] for contrast in CONTRASTS
    }
    draw_differences(figure, results, rules, panels, "difference of areas, % (right of 0: better)")


def _numbers(result: Result) -> dict[str, Any]:
    axes = ("order", "rule", "contrast")
    return {axis: list_places(result, axis) for axis in axes} | {
        "percent": result["percent"].tolist(),
        **{name: result[name].tolist() for name in DATASETS},
    }


def _caption(results: Sequence[Result]) -> str:
    config = results[0].config
    data, settings = config["data"], config["settings"]
    fill = "the mean color of training images" if settings["fill"] == "mean" else "the blurred image"
    return (
        f"Accuracy on {format_images(data)} of {data['dataset']} as pixels are replaced in the order "
        f"of the magnitude of maps ({settings['source']}), of edges (Sobel), and at random (seed {settings['seed']}). "
        f"Deletion: the largest magnitude first becomes {fill}. Insertion: it is the first to come back. ROAD: pixels "
        "are imputed from their neighbors, the largest or the smallest magnitude first. Bands are Wilson 95 % "
        f"intervals; gray dashes: {find_chance(results[0])[1]}. "
        "Below: by how much the area under the map's curve is better than its control's, right of 0 where "
        "the map is better; bars are 95 % intervals of the paired bootstrap over images."
    )
