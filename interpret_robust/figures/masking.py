"""Accuracy of each model under PGD in growing balls, and in the smallest beside attacks that need no gradient."""

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from interpret_robust.figures.style import (
    RC,
    Drawing,
    choose_color,
    choose_marker,
    choose_stroke,
    count_abreast,
    count_legend_columns,
    draw_interval,
    get_width,
    make_figure,
    measure_legend,
    name_rows,
    name_sides,
    set_title,
)
from interpret_robust.results.hdf5 import Result
from interpret_robust.results.names import (
    NORMS,
    find_norm,
    format_ball,
    format_images,
    format_radii,
    format_subject,
    label,
    name_variant,
)

READS = "masking/1"

MARKS: dict[str, tuple[str, dict[str, Any]]] = {
    "natural": ("natural images", {"marker": "o", "markerfacecolor": "white"}),
    "noise_worst": ("random noise", {"marker": "^", "markerfacecolor": "white"}),
    "search": ("random search", {"marker": "s"}),
    "one_step": ("one step", {"marker": "D"}),
    "pgd": ("PGD-20", {"marker": "x"}),
}
"""By statistic what each mark stands for, from the top of a model's row to its bottom."""

CURVES = 2.0
"""Inches of the panel of curves where it stands above the other."""

OFFSETS = np.linspace(-0.3, 0.3, len(MARKS))
"""Of the marks, in rows."""

STYLE: dict[str, Any] = {"markersize": 3.5, "linestyle": "none", "elinewidth": 0.9}


def draw(results: Sequence[Result]) -> Drawing:
    """Return two panels: left, a line of accuracy against radius for each model; right, a row for each with a mark
    for each attack at eps.
    """
    columns = count_abreast(2)
    names = [name for name, _ in MARKS.values()]
    entries = len(names) if columns == 2 else count_legend_columns(names, get_width())
    height = max(2.4, 1.0 + 0.42 * len(results))
    figure = make_figure(height + (2 - columns) * CURVES + measure_legend(names, entries))
    with mpl.rc_context(RC):
        heights = [1] if columns == 2 else [CURVES, height]
        left, right = figure.subplots(2 // columns, columns, height_ratios=heights)
        _draw_radii(left, results)
        for row, result in enumerate(results):
            _draw_row(right, row, result)
        name_rows(right, results)
        right.grid(visible=False, axis="y")
        right.set(xlim=(-3, 103), xlabel=f"accuracy at {format_radii(results[0])[0]}, %")
        handles = [Line2D([], [], color="0.3", linestyle="none", label=name, **mark) for name, mark in MARKS.values()]
        figure.legend(handles=handles, loc="outside lower right", ncols=entries, handletextpad=0, columnspacing=1)
        set_title(figure, _title(results))
    numbers = {label(result): _accuracies(result) | {"radii": format_radii(result)} for result in results}
    return Drawing(figure, _caption(results), numbers)


def _draw_radii(axes: Axes, results: Sequence[Result]) -> None:
    """Draw PGD's accuracies, with that on natural images at radius 0."""
    for result in results:
        accuracies = _accuracies(result)
        value, low, high = 100 * np.array([accuracies["natural"], *accuracies["pgd"]]).T
        axes.plot(value, marker=choose_marker(result), markersize=3, linewidth=1.1, **choose_stroke(result))
        axes.fill_between(range(len(value)), low, high, color=choose_color(name_variant(result)), alpha=0.15, lw=0)
    prefix = NORMS[find_norm(results[0].config["settings"])]
    ticks = ["0", *(text.removeprefix(prefix) for text in format_radii(results[0]))]
    axes.set_xticks(range(len(ticks)), ticks)
    axes.set(ylim=(-3, 103), xlabel=f"{prefix}radius of PGD-20", ylabel="accuracy, %")


def _draw_row(axes: Axes, row: int, result: Result) -> None:
    accuracies = _accuracies(result) | {"pgd": _accuracies(result)["pgd"][0]}
    for offset, (name, (_, mark)) in zip(OFFSETS, MARKS.items(), strict=True):
        interval = [100 * number for number in accuracies[name]]
        draw_interval(axes, row + offset, interval, color=choose_color(name_variant(result)), **STYLE, **mark)


def _accuracies(result: Result) -> dict[str, Any]:
    """Return each of MARKS as (value, low, high); of PGD there is one for each radius."""
    return {name: result[f"accuracy/{name}"].tolist() for name in MARKS}


def _title(results: Sequence[Result]) -> str:
    return format_subject(*results)


def _caption(results: Sequence[Result]) -> str:
    settings, (left, right) = results[0].config["settings"], name_sides()
    return (
        f"Accuracy on {format_images(results[0].data)} of {results[0].data['dataset']}. {left}: under PGD-20 on the "
        "cross-entropy, against its radius; an image that is broken in one ball counts as broken in every larger one. "
        f"{right}, at {format_ball(settings)}: natural images, the worst of several draws of uniform noise, random "
        f"search of {settings['queries']} queries, one step of length eps, and PGD-20. Where gradients show the way, "
        "PGD lies furthest left. Bands and bars are Wilson 95 % intervals over images."
    )
