"""Every score of a map as the network is re-initialized from the head down, beside that of random networks."""

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes

from interpret_robust.figures.style import (
    RC,
    Drawing,
    choose_color,
    choose_marker,
    choose_stroke,
    get_width,
    is_shared,
    make_figure,
)
from interpret_robust.results.hdf5 import Result
from interpret_robust.results.names import format_images, label, list_places, name_variant

READS = "randomization/2"

PANEL, PANEL_HEIGHT = 1.6, 2.0
"""Inches: the width that a panel needs, and its height."""

MOST_NAMES = 12
"""Stages that can be named under a panel."""

TITLES = {
    "gradient magnitude": "|g|: Spearman\nwith trained",
    "signed gradient": "g: Spearman\nwith trained",
    "structural similarity": "|g|: structural similarity\nto trained",
    "gradient-map score": "gradient-map score",
    "gradient on object": "share of |g|\non object",
    "weights": "weights: Spearman\nwith trained",
    "weights on object": "share of weights\non object",
}


def draw(results: Sequence[Result]) -> Drawing:
    """Return a panel a score that the data allow: each model's means by stage, and the range of random networks."""
    finite = np.isfinite(results[0]["cascade/mean"][:, 0, 0])
    scores = {score: number for number, score in enumerate(list_places(results[0], "score")) if finite[number]}
    columns = int(get_width() / PANEL)
    bands = -(-(len(scores) + 1) // columns)
    figure = make_figure(PANEL_HEIGHT * bands)
    with mpl.rc_context(RC):
        *panels, legend = figure.subplots(bands, columns, squeeze=False).flat[: len(scores) + 1]
        for axes, (score, number) in zip(panels, scores.items(), strict=True):
            axes.set_title(TITLES[score])
            _draw_panel(axes, results, number)
        for axes in figure.axes[len(scores) :]:
            axes.set_axis_off()
        handles, names = panels[0].get_legend_handles_labels()
        legend.legend(handles, names, loc="center")
    return Drawing(figure, _caption(results), {label(result): _numbers(result) for result in results})


def _draw_panel(axes: Axes, results: Sequence[Result], score: int) -> None:
    stages = max((_cascade(result) for result in results), key=len)
    for row, result in enumerate(results):
        _draw_model(axes, result, score, stages, (row - (len(results) - 1) / 2) / len(results))
    _draw_levels(axes, results, score)
    axes.axvspan(len(stages) - 0.5, len(stages) + 0.5, color="0.93", lw=0)
    ticks = range(0, len(stages), 1 + len(stages) // MOST_NAMES)
    axes.set_xticks([*ticks, len(stages)], [*(stages[place] for place in ticks), "random"], rotation=90)
    axes.set_xlim(-0.5, len(stages) + 0.5)


def _draw_levels(axes: Axes, results: Sequence[Result], score: int) -> None:
    """Draw what a map without information gives: one gray line, or one in the color of each model where they differ."""
    levels = [_find_level(result, score) for result in results]
    colors = ["0.5"] if is_shared(levels) else [choose_color(name_variant(result)) for result in results]
    for level, color in zip(levels, colors, strict=False):
        if np.isfinite(level):
            axes.axhline(level, color=color, linestyle=":", linewidth=0.8)


def _find_level(result: Result, score: int) -> float:
    """Return what a map without information gives: NaN where unknown. Of weights, that depends on the positions."""
    if result["score"][score] == "gradient-map score":
        return 1 / len(result.job["class_names"])
    return float(result["random/uninformed"][score])


def _draw_model(axes: Axes, result: Result, score: int, places: Sequence[str], aside: float) -> None:
    stages = _cascade(result)
    shade, shape = choose_color(name_variant(result)), choose_marker(result)
    value, low, high = result["cascade/mean"][score, : len(stages)].T
    x = [places.index(name) for name in stages]
    axes.plot(x, value, marker=shape, markersize=2.5, linewidth=0.9, label=label(result), **choose_stroke(result))
    axes.fill_between(x, low, high, color=shade, alpha=0.2, lw=0)
    mean, lowest, highest = result["random/mean"][score]
    axes.errorbar(
        len(places) + 0.8 * aside,
        mean,
        yerr=[[mean - lowest], [highest - mean]],
        color=shade,
        marker=shape,
        markersize=2,
        linewidth=0.8,
    )


def _cascade(result: Result) -> list[str]:
    """Return the trained network and its stages, without the independent random networks."""
    return [name for name in list_places(result, "stage") if not name.startswith("random ")]


def _numbers(result: Result) -> dict[str, Any]:
    names = ("cascade/mean", "random/mean", "random/uninformed", "gate/needed", "gate/passed", "gate/from_stage")
    return {axis: list_places(result, axis) for axis in ("score", "stage")} | {
        name: result[name].tolist() for name in names
    }


def _caption(results: Sequence[Result]) -> str:
    config = results[0].config
    data, seed = config["data"], config["settings"]["seed"]
    readers = sorted({result.config["evaluators"]["names"][0] for result in results})
    return (
        f"Scores of maps on {format_images(data)} of {data['dataset']}, as weights are drawn again "
        f"from the classifier down (seed {seed}); a stage is named by the part that went last. g is the gradient of "
        "the cross-entropy with respect to pixels, |g| its L2 norm over colors; weights are attention. "
        "Likeness to the trained network's map is 1 at first by construction. Gradient-map "
        f"score: share of maps -g by the clip rule that {' and '.join(readers)} reads as the true class. Bands are "
        "95 % bootstrap intervals over images; on gray, mean and 95 % prediction interval of a random network; dotted, "
        "what a map without information gives."
    )
