"""Accuracy against severity for each corruption, a row a group; and an image at the largest severity of each."""

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes

from interpret_robust.datasets.cifar_c import GROUPS
from interpret_robust.figures.overlays import show, strip_axes
from interpret_robust.figures.style import (
    RC,
    Drawing,
    choose_marker,
    choose_stroke,
    count_legend_columns,
    get_width,
    make_figure,
)
from interpret_robust.results.hdf5 import Result
from interpret_robust.results.names import format_images, label, list_places

READS = "corruptions/1"

ABREAST = max(map(len, GROUPS.values()))
ROW_HEIGHT, PANEL, PICTURE = 1.15, 1.45, 0.84
"""Inches: of a row of panels, and the width that a panel and an example image need."""

DATASETS = (
    "accuracy/natural",
    "accuracy/corrupted",
    "accuracy/by_corruption",
    "accuracy/by_group",
    "accuracy/loss_by_group",
    "error/mean",
)


def draw(results: Sequence[Result]) -> Drawing:
    """Return a panel a corruption, in a row with its group: accuracy against severity, a curve a model."""
    corruptions = list_places(results[0], "corruption")
    groups = {name: [member for member in group if member in corruptions] for name, group in GROUPS.items()}
    groups = {name: members for name, members in groups.items() if members}
    names = [label(result) for result in results]
    columns = count_legend_columns(names, get_width())
    abreast = min(ABREAST, int(get_width() / PANEL))
    rows = [
        (name, members[place : place + abreast])
        for name, members in groups.items()
        for place in range(0, len(members), abreast)
    ]
    figure = make_figure(0.4 + 0.14 * -(-len(names) // columns) + ROW_HEIGHT * len(rows))
    with mpl.rc_context(RC):
        grid = figure.subplots(len(rows), abreast, squeeze=False, sharex=True, sharey=True)
        for (name, members), panels in zip(rows, grid, strict=True):
            for axes, corruption in zip(panels, members, strict=False):
                axes.set_title(_title(corruption))
                for result in results:
                    _draw_curve(axes, result, corruptions.index(corruption))
            for axes in panels[len(members) :]:
                axes.set_visible(False)
            panels[0].set_ylabel(f"{name}\n% right")
        grid[0, 0].set(ylim=(0, 102), xticks=[0, *results[0]["severity"].tolist()])
        for axes in grid.flat:
            axes.tick_params(labelbottom=True)
        figure.supxlabel("severity (0: natural images)", fontsize=8)
        handles, texts = grid[0, 0].get_legend_handles_labels()
        figure.legend(handles, texts, loc="outside upper center", ncols=columns)
    numbers = {label(result): _numbers(result) for result in results}
    caption = f"{_subject(results[0])}, a row a group of corruptions. Bands are Wilson 95 % intervals over images."
    return Drawing(figure, caption, numbers)


def _draw_curve(axes: Axes, result: Result, place: int) -> None:
    severities = [0, *result["severity"].tolist()]
    accuracy, low, high = 100 * np.vstack([result["accuracy/natural"], result["accuracy/corrupted"][place]]).T
    style = choose_stroke(result)
    axes.plot(
        severities, accuracy, marker=choose_marker(result), markersize=2, linewidth=0.9, label=label(result), **style
    )
    axes.fill_between(severities, low, high, color=style["color"], alpha=0.12, lw=0)


def draw_examples(results: Sequence[Result]) -> Drawing:
    """Return the first image, and what each corruption makes of it at the largest severity."""
    result = results[0]
    pictures = {"natural": result["examples/natural"]} | dict(
        zip(list_places(result, "corruption"), result["examples/corrupted"], strict=True)
    )
    abreast = int(get_width() / PICTURE)
    rows = -(-len(pictures) // abreast)
    figure = make_figure((0.2 + get_width() / abreast) * rows)
    with mpl.rc_context(RC):
        layout: Any = figure.get_layout_engine()
        layout.set(w_pad=0.01, h_pad=0.02, wspace=0.02, hspace=0.02)
        grid = figure.subplots(rows, abreast, squeeze=False)
        for axes in grid.flat:
            strip_axes(axes)
        for axes, (name, picture) in zip(grid.flat, pictures.items(), strict=False):
            show(axes, picture)
            axes.set_title(_title(name), fontsize=6, pad=2)
    caption = f"{_subject(result)}: the first image at severity {result['severity'][-1]} of each corruption."
    return Drawing(figure, caption, {label(result): {"severity": int(result["severity"][-1])} for result in results})


def _title(corruption: str) -> str:
    return corruption.replace("_", " ")


def _subject(result: Result) -> str:
    data, settings = result.config["data"], result.config["settings"]
    return (
        f"Accuracy on {format_images(data)} of {data['dataset']} under corruptions of irt's own "
        f"making (seed {settings['seed']}), not those of CIFAR-10-C"
    )


def _numbers(result: Result) -> dict[str, Any]:
    axes = {axis: list_places(result, axis) for axis in ("corruption", "group")} | {
        "severity": result["severity"].tolist()
    }
    return axes | {name: result[name].tolist() for name in DATASETS}


PLOTS = {"curves": draw, "examples": draw_examples}
"""The picture of each panel, by its name."""
