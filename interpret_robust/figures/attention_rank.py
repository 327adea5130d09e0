"""Figure 2: attention weight against robustness rank, with what lies behind the mean."""

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import SubFigure

from interpret_robust.figures.style import RC, Drawing, bare, colour, job, label, line, new_figure, radius
from interpret_robust.results import Result
from interpret_robust.statistics import Interval

READS = "attention-rank/1"

CURVES_HEIGHT, ROW_HEIGHT = 2.3, 0.58
"""Inches."""


def draw(results: Sequence[Result]) -> Drawing:
    """The paper's curve for each model, the spread of per-image correlations, and example attention maps."""
    figure = new_figure(CURVES_HEIGHT + ROW_HEIGHT * (1 + len(results)))
    with mpl.rc_context(RC):
        parts: Any = figure.subfigures(2, 1, height_ratios=[CURVES_HEIGHT, ROW_HEIGHT * (1 + len(results))])
        upper, lower = parts
        curve, spread = upper.subplots(1, 2, width_ratios=[3, 2])
        for result in results:
            _draw_curve(curve, result)
        _draw_spread(spread, results)
        uniform = float(results[0]["curve/uniform"])
        curve.axhline(uniform, color="0.5", linestyle="--", linewidth=0.8, label="uniform")
        curve.set(xlabel="robustness rank (0 = most robust)", ylabel="attention weight", yscale="log")
        curve.legend(loc="upper left", frameon=True, framealpha=1.0, edgecolor="none")
        _draw_examples(lower, results)
    numbers = {label(result): _numbers(result) for result in results}
    return Drawing(figure, _caption(results), numbers)


def _draw_curve(axes: Axes, result: Result) -> None:
    shade = colour(job(result)["variant"])
    rank = result["curve/rank"]
    axes.plot(rank, result["curve/attention_mean"], line(job(result)["variant"]), color=shade, label=label(result))
    axes.fill_between(
        rank, result["curve/attention_low"], result["curve/attention_high"], color=shade, alpha=0.25, lw=0
    )


def _draw_spread(axes: Axes, results: Sequence[Result]) -> None:
    """Per-image Spearman of each model, with its mean."""
    for row, result in enumerate(results):
        values = result["per_image/spearman"]
        values = values[np.isfinite(values)]
        mean, low, high = Interval(*result["test/spearman"])
        shade = colour(job(result)["variant"])
        parts: Any = axes.violinplot(values, [row], orientation="horizontal", showextrema=False, widths=0.8)
        for body in parts["bodies"]:
            body.set(facecolor=shade, alpha=0.35)
        axes.errorbar(mean, row, xerr=[[mean - low], [high - mean]], color=shade, marker="o", markersize=3, capsize=2)
    axes.axvline(0, color="0.5", linestyle="--", linewidth=0.8)
    axes.set_yticks(range(len(results)), [label(result) for result in results])
    axes.grid(visible=False, axis="y")
    axes.set(xlim=(-1, 1), xlabel="Spearman, per image")
    axes.invert_yaxis()


def _draw_examples(figure: SubFigure, results: Sequence[Result]) -> None:
    images = results[0]["example/image"]
    grid = figure.subplots(1 + len(results), len(images), squeeze=False)
    brightest = max(float(result["example/attention"].max()) for result in results)
    for column, image in enumerate(images):
        grid[0, column].imshow(image.squeeze(), cmap="gray", vmin=0, vmax=255, interpolation="none")
        for row, result in enumerate(results, start=1):
            attention = result["example/attention"][column].reshape(result.config["local_grid"])
            picture = grid[row, column].imshow(
                attention, cmap="viridis", vmin=0, vmax=brightest, interpolation="nearest"
            )
    for axes in grid.flat:
        bare(axes)
    for row, name in enumerate(["image", *map(label, results)]):
        grid[row, 0].set_ylabel(name, rotation=0, ha="right", va="center")
    figure.colorbar(picture, ax=grid[1:, :], label="attention", fraction=0.02, pad=0.01)


def _numbers(result: Result) -> dict[str, Any]:
    return {name: result[name].tolist() for name in ("test/spearman", "test/spearman_relative", "curve/attention_mean")}


def _caption(results: Sequence[Result]) -> str:
    config = results[0].config
    eps, data = radius(config["settings"]["eps"]), config["data"]
    return (
        f"Attention against robustness rank on {data['images']} {data['split']} images of {data['dataset']}; rank 0 "
        f"is the position whose local feature moves least (L2) under PGD-{config['settings']['steps']} at eps "
        f"{eps}. "
        "Bands and bars are 95 % intervals over images; the dashed line is uniform attention. Below: the first image "
        "of each of the first ten classes with the attention of each model, on one colour scale."
    )
