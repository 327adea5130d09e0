"""Figure 2: attention weight against robustness rank, with what lies behind the mean and what else could make it."""

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import SubFigure
from matplotlib.lines import Line2D

from interpret_robust.core.arrays import AnyArray
from interpret_robust.core.statistics import Interval
from interpret_robust.figures.style import (
    RC,
    Drawing,
    attention_bar,
    bare,
    color,
    line,
    name_rows,
    new_figure,
    scale_log,
    strip,
)
from interpret_robust.results.hdf5 import Result
from interpret_robust.results.names import ball, by_weights, job, label, weights_of

READS = "attention-rank/3"

CURVES, CONTROL_ROW, OUTCOME_ROW, EXAMPLE_ROW, BARS = 2.2, 0.25, 1.4, 0.38, 0.8
"""Inches."""

OUTCOMES_ABREAST = 7

FEWEST = 10
"""Images of a curve by outcome that is drawn: one of fewer shows these images."""

CONTROLS = {
    "spearman": ("by distance", "o"),
    "spearman_relative": ("by distance / norm", "s"),
    "spearman_partial": ("given the norm", "D"),
    "spearman_noise": ("under noise", "^"),
    "spearman_position": ("of the mean map", "X"),
}
OUTCOMES: dict[str, tuple[str, Any]] = {
    "attack_failed": ("attack failed (first number)", "-"),
    "attack_succeeded": ("succeeded (second)", ":"),
}
DATASETS = (
    *("curve/attention_mean", "curve/attention_low", "curve/attention_high", "curve/shuffled_null", "curve/uniform"),
    *(f"test/{name}" for name in CONTROLS),
    *(f"curve/{outcome}{part}" for outcome in OUTCOMES for part in ("", "_images")),
    *("curve/images", "test/undefined", "examples/index"),
)


def draw(results: Sequence[Result]) -> Drawing:
    """Return the paper's curve of each model, its correlation beside the controls, the curve by outcome, example
    maps.
    """
    outcome_rows = -(-len(results) // OUTCOMES_ABREAST)
    heights = [
        CURVES,
        0.65 + CONTROL_ROW * len(results),
        0.4 + OUTCOME_ROW * outcome_rows,
        EXAMPLE_ROW * (1 + len(results)),
        BARS,
    ]
    figure = new_figure(sum(heights))
    with mpl.rc_context(RC):
        parts: Any = figure.subfigures(len(heights), 1, height_ratios=heights)
        _draw_curves(parts[0], results)
        _draw_correlations(parts[1], results)
        _draw_outcomes(parts[2], results)
        scales = _scales(results)
        _draw_examples(parts[3], results, scales)
        _draw_bars(parts[4], scales, float(results[0]["curve/uniform"]))
    numbers = {label(result): {name: result[name].tolist() for name in DATASETS} for result in results}
    return Drawing(figure, _caption(results), numbers)


def _draw_curves(figure: SubFigure, results: Sequence[Result]) -> None:
    """Draw one panel for attention, one for Grad-CAM, on one scale."""
    kinds = by_weights(results)
    panels = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
    for axes, (kind, models) in zip(panels, kinds.items(), strict=True):
        for result in models:
            style = {"color": color(job(result)["variant"]), "linestyle": line(job(result)["variant"])}
            _draw_band(axes, _papers_curve(result), label=label(result), **style)
        _draw_nulls(axes, models)
        axes.set_xlabel("robustness rank (0 = most robust)")
        axes.legend(title=kind, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, fontsize=7)
    scale_log(panels[0], "y")
    panels[0].set_ylabel("weight")


def _papers_curve(result: Result) -> AnyArray:
    return np.stack([result[f"curve/attention_{part}"] for part in ("mean", "low", "high")], axis=1)


def _draw_band(axes: Axes, curve: AnyArray, *, color: str, **style: Any) -> None:
    """Draw a curve over ranks (P, 3): value, low and high."""
    value, low, high = curve.T
    axes.plot(np.arange(len(curve)), value, color=color, **style)
    axes.fill_between(np.arange(len(curve)), low, high, color=color, alpha=0.25, lw=0)


def _draw_nulls(axes: Axes, results: Sequence[Result]) -> None:
    """Draw uniform weights, and what shuffled weights give: the widest interval of all models at each rank."""
    nulls = np.stack([result["curve/shuffled_null"] for result in results])
    low, high = nulls[:, :, 1].min(0), nulls[:, :, 2].max(0)
    hatch: dict[str, Any] = {"facecolor": "none", "edgecolor": "0.6", "hatch": "/////", "linewidth": 0}
    axes.fill_between(np.arange(len(low)), low, high, label="shuffled weights", **hatch)
    axes.axhline(float(results[0]["curve/uniform"]), color="0.3", linestyle="--", linewidth=0.8, label="uniform")


def _draw_correlations(figure: SubFigure, results: Sequence[Result]) -> None:
    spread, controls = figure.subplots(1, 2, sharey=True)
    _draw_spread(spread, results)
    _draw_controls(controls, results)
    for axes in (spread, controls):
        axes.axvline(0, color="0.5", linestyle="--", linewidth=0.8)
        axes.grid(visible=False, axis="y")
    name_rows(spread, results)
    spread.set(xlim=(-1.02, 1.02), xlabel="Spearman of weight and robustness, per image")
    controls.set(xlim=(-1.02, 1.02), xlabel="its mean, and that of the controls")
    handles = [
        Line2D([], [], color="0.3", marker=shape, markersize=3.5, linestyle="none", label=text)
        for text, shape in CONTROLS.values()
    ]
    figure.legend(handles=handles, loc="outside upper right", ncols=len(handles), fontsize=7, handletextpad=0.1)


def _draw_spread(axes: Axes, results: Sequence[Result]) -> None:
    """Draw the per-image Spearman of each model, with its mean."""
    for row, result in enumerate(results):
        values = result["per_image/spearman"]
        values = values[np.isfinite(values)]
        shade = color(job(result)["variant"])
        if len(values):
            parts: Any = axes.violinplot(values, [row], orientation="horizontal", showextrema=False, widths=0.8)
            parts["bodies"][0].set(facecolor=shade, alpha=0.4)
        _draw_mark(axes, row, Interval(*result["test/spearman"]), shade, "o")


def _draw_controls(axes: Axes, results: Sequence[Result]) -> None:
    """Draw a mark for each way to measure robustness, one below the other in the model's row."""
    places = np.linspace(-0.32, 0.32, len(CONTROLS))
    for row, result in enumerate(results):
        for place, (name, (_, shape)) in zip(places, CONTROLS.items(), strict=True):
            _draw_mark(axes, row + place, Interval(*result[f"test/{name}"]), color(job(result)["variant"]), shape)
        if row:
            axes.axhline(row - 0.5, color="0.92", linewidth=0.8)


def _draw_mark(axes: Axes, row: float, interval: Interval, shade: str, shape: str) -> None:
    mean, low, high = interval
    style: dict[str, Any] = {"markersize": 3.5, "markeredgecolor": "0.2", "markeredgewidth": 0.4, "linewidth": 0.8}
    axes.errorbar(mean, row, xerr=[[mean - low], [high - mean]], color=shade, marker=shape, **style)


def _draw_outcomes(figure: SubFigure, results: Sequence[Result]) -> None:
    """Draw a small panel a model: its curve where the attack failed and where it succeeded."""
    rows = -(-len(results) // OUTCOMES_ABREAST)
    columns = min(OUTCOMES_ABREAST, len(results))
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for axes, result in zip(grid.flat, results, strict=False):
        counts = [int(result[f"curve/{outcome}_images"]) for outcome in OUTCOMES]
        for count, (outcome, (_, stroke)) in zip(counts, OUTCOMES.items(), strict=True):
            if count >= FEWEST:
                _draw_band(axes, result[f"curve/{outcome}"], color=color(job(result)["variant"]), linestyle=stroke)
        name = label(result).replace(" seed", "\nseed")
        axes.set_title("{}\n{} / {} images".format(name, *counts), fontsize=6.5)
    scale_log(grid[0, 0], "y")
    for axes in grid.flat[len(results) :]:
        axes.set_visible(False)
    handles = [Line2D([], [], color="0.3", linestyle=stroke, label=text) for text, stroke in OUTCOMES.values()]
    figure.legend(handles=handles, loc="outside upper center", ncols=2, fontsize=7)
    figure.supxlabel("robustness rank", fontsize=8)
    figure.supylabel("weight", fontsize=8)


def _draw_examples(figure: SubFigure, results: Sequence[Result], scales: dict[str, ScalarMappable]) -> None:
    """Draw the example images, and below them each model's weights."""
    images = results[0]["examples/image"]
    size = images.shape[1:3]
    models_in_order = [result for models in by_weights(results).values() for result in models]
    first, *rest = figure.subplots(1 + len(results), 1)
    first.imshow(strip(images, size).squeeze(), cmap="gray", vmin=0, vmax=255, interpolation="none")
    for axes, result in zip(rest, models_in_order, strict=True):
        scale, maps = scales[weights_of(result)], result["examples/attention"]
        maps = maps.reshape(len(maps), *result.config["local_grid"])
        axes.imshow(strip(maps, size), norm=scale.norm, cmap=scale.cmap, interpolation="nearest")
    for axes, name in zip((first, *rest), ["image", *map(label, models_in_order)], strict=True):
        bare(axes)
        axes.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=7)


def _scales(results: Sequence[Result]) -> dict[str, ScalarMappable]:
    """Return what colors stand for: one scale for all maps of attention, one for all of Grad-CAM."""
    largest = {
        kind: max(float(np.nan_to_num(result["examples/attention"]).max()) for result in models)
        for kind, models in by_weights(results).items()
    }
    return {kind: ScalarMappable(Normalize(0, weight), "viridis") for kind, weight in largest.items()}


def _draw_bars(figure: SubFigure, scales: dict[str, ScalarMappable], uniform: float) -> None:
    for axes, (kind, scale) in zip(figure.subplots(1, len(scales), squeeze=False)[0], scales.items(), strict=True):
        attention_bar(figure, scale, axes, kind, uniform)


def _caption(results: Sequence[Result]) -> str:
    config = results[0].config
    settings, data = config["settings"], config["data"]
    return (
        f"Attention against robustness rank on {data['images']} {data['split']} images of {data['dataset']}; rank 0 "
        f"is the position whose local feature moves least (L2) under PGD-{settings['steps']} at "
        f"{ball(settings)}, seed {settings['seed']}. Models without attention show Grad-CAM's weights for the "
        "predicted class in its place. Bands and bars are 95 % bootstrap intervals over images; the dashed line is "
        "uniform weight, the hatched band the same weights on positions in random order. Middle: Spearman of weight "
        "and robustness over each image's positions, and its mean by distance, by distance over the feature's norm, "
        "with the norm taken out of both, under uniform noise of equal eps in the attack's place, and with the mean "
        "map of all images in the place of each image's own. Below: the curve of images that were right without the "
        f"attack, by what it did to them, with their number; not drawn for fewer than {FEWEST}. Maps: the first image "
        "of each of the first ten classes, one color scale for attention and one for Grad-CAM."
    )
