"""Figure 2: attention weight against robustness rank; what lies behind the mean, and what else could make it, each as a
picture of its own.
"""

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import SubFigure
from matplotlib.lines import Line2D

from interpret_robust.core.arrays import AnyArray
from interpret_robust.core.intervals import Interval
from interpret_robust.figures.overlays import (
    CEILING,
    draw_attention_bar,
    end_caption,
    make_strip,
    make_weight_scale,
    overlay,
    show,
    strip_axes,
)
from interpret_robust.figures.style import (
    RC,
    Drawing,
    break_label,
    choose_color,
    choose_stroke,
    collect_numbers,
    count_legend_columns,
    draw_interval,
    get_width,
    make_figure,
    measure_legend,
    name_rows,
    name_sides,
    scale_log,
)
from interpret_robust.results.hdf5 import Result
from interpret_robust.results.names import (
    find_weights,
    format_ball,
    format_images,
    group_by_weights,
    label,
    name_variant,
)

READS = "attention-rank/3"

CONTROL_ROW, OUTCOME_ROW, EXAMPLE_ROW, BARS = 0.25, 1.4, 0.42, 0.8
"""Inches."""

PANEL_OF_CURVES = 2.5
"""Inches of the width that a panel needs beside another."""

PANEL = 0.95
"""Inches of the width that a panel of the curves by outcome needs."""

NAMES, EXAMPLE = 1.1, 0.5
"""Inches of the width that models' names need beside the maps, and each map."""

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
CURVE_DATASETS = tuple(f"curve/{name}" for name in ("attention_mean", "attention_low", "attention_high"))
NULL_DATASETS = ("curve/shuffled_null", "curve/uniform")
TESTS = (*(f"test/{name}" for name in CONTROLS), "test/undefined")
OUTCOME_DATASETS = (*(f"curve/{outcome}{part}" for outcome in OUTCOMES for part in ("", "_images")), "curve/images")


def draw(results: Sequence[Result]) -> Drawing:
    """Return the paper's Figure 2: one panel for attention, one for Grad-CAM, on one scale."""
    kinds = group_by_weights(results)
    abreast = len(kinds) if get_width() > PANEL_OF_CURVES * len(kinds) else 1
    rows, inches = -(-len(kinds) // abreast), get_width() / abreast - 0.5
    names = {kind: [*map(label, models), "shuffled weights", "uniform"] for kind, models in kinds.items()}
    columns = {kind: count_legend_columns(names[kind], inches) for kind in kinds}
    entries = max(-(-len(names[kind]) // columns[kind]) for kind in kinds)
    figure = make_figure(rows * (1.9 + 0.14 * entries))
    with mpl.rc_context(RC):
        panels = figure.subplots(rows, abreast, sharey=True, squeeze=False)
        for axes, (kind, models) in zip(panels.flat, kinds.items(), strict=True):
            for result in models:
                _draw_band(axes, _papers_curve(result), label=label(result), **choose_stroke(result))
            _draw_nulls(axes, models)
            axes.set_xlabel("robustness rank (0 = most robust)")
            place: dict[str, Any] = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0)}
            axes.legend(title=kind, ncols=columns[kind], fontsize=7, **place)
        scale_log(panels.flat[0], "y")
        for axes in panels[:, 0]:
            axes.set_ylabel("weight")
    return Drawing(
        figure, f"{_subject(results)} {CURVE_CAPTION}", collect_numbers(results, CURVE_DATASETS + NULL_DATASETS)
    )


def draw_correlations(results: Sequence[Result]) -> Drawing:
    """Return the Spearman of weight and robustness of each image, and its mean beside the controls."""
    abreast = 2 if get_width() > PANEL_OF_CURVES * 2 else 1
    texts = [text for text, _ in CONTROLS.values()]
    columns = count_legend_columns(texts, get_width() + 0.9)
    figure = make_figure(0.14 * -(-len(texts) // columns) + (2 // abreast) * (0.55 + CONTROL_ROW * len(results)))
    with mpl.rc_context(RC):
        spread, controls = figure.subplots(2 // abreast, abreast, sharey=True)
        _draw_spread(spread, results)
        _draw_controls(controls, results)
        for axes in (spread, controls):
            axes.axvline(0, color="0.5", linestyle="--", linewidth=0.8)
            anchor: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
            axes.annotate("no correlation", (0, 1), (0, 2), fontsize=6, color="0.4", ha="center", **anchor)
            axes.grid(visible=False, axis="y")
            axes.set_xlim(-1.02, 1.02)
        name_rows(spread, results)
        spread.set_xlabel(break_label("Spearman of weight and robustness, per image"))
        controls.set_xlabel("its mean, and that of the controls")
        handles = [
            Line2D([], [], color="0.3", marker=shape, markersize=3.5, linestyle="none", label=text)
            for text, shape in CONTROLS.values()
        ]
        place: dict[str, Any] = {"loc": "outside upper center", "handletextpad": 0.1, "columnspacing": 1}
        figure.legend(handles=handles, ncols=columns, fontsize=7, **place)
    return Drawing(
        figure, f"{_subject(results)} {CORRELATIONS_CAPTION.format(*name_sides())}", collect_numbers(results, TESTS)
    )


def _papers_curve(result: Result) -> AnyArray:
    return np.stack([result[f"curve/attention_{part}"] for part in ("mean", "low", "high")], axis=1)


def _draw_band(axes: Axes, curve: AnyArray, *, color: str, **style: Any) -> None:
    """Draw a curve over ranks (P, 3): value, low and high."""
    value, low, high = curve.T
    axes.plot(np.arange(len(curve)), value, color=color, **style)
    axes.locator_params("x", integer=True)
    axes.fill_between(np.arange(len(curve)), low, high, color=color, alpha=0.25, lw=0)


def _draw_nulls(axes: Axes, results: Sequence[Result]) -> None:
    """Draw uniform weights, and what shuffled weights give: the widest interval of all models at each rank."""
    nulls = np.stack([result["curve/shuffled_null"] for result in results])
    low, high = nulls[:, :, 1].min(0), nulls[:, :, 2].max(0)
    hatch: dict[str, Any] = {"facecolor": "none", "edgecolor": "0.6", "hatch": "/////", "linewidth": 0}
    axes.fill_between(np.arange(len(low)), low, high, label="shuffled weights", **hatch)
    axes.axhline(float(results[0]["curve/uniform"]), color="0.3", linestyle="--", linewidth=0.8, label="uniform")


def _draw_spread(axes: Axes, results: Sequence[Result]) -> None:
    """Draw the per-image Spearman of each model, with its mean."""
    for row, result in enumerate(results):
        values = result["per_image/spearman"]
        values = values[np.isfinite(values)]
        shade = choose_color(name_variant(result))
        if len(values):
            parts: Any = axes.violinplot(values, [row], orientation="horizontal", showextrema=False, widths=0.8)
            parts["bodies"][0].set(facecolor=shade, alpha=0.4)
        _draw_mark(axes, row, Interval(*result["test/spearman"]), shade, "o")


def _draw_controls(axes: Axes, results: Sequence[Result]) -> None:
    """Draw a mark for each way to measure robustness, one below the other in the model's row."""
    places = np.linspace(-0.32, 0.32, len(CONTROLS))
    for row, result in enumerate(results):
        for place, (name, (_, shape)) in zip(places, CONTROLS.items(), strict=True):
            _draw_mark(axes, row + place, Interval(*result[f"test/{name}"]), choose_color(name_variant(result)), shape)
        if row:
            axes.axhline(row - 0.5, color="0.92", linewidth=0.8)


def _draw_mark(axes: Axes, row: float, interval: Interval, shade: str, shape: str) -> None:
    style: dict[str, Any] = {"markersize": 3.5, "markeredgecolor": "0.2", "markeredgewidth": 0.4, "linewidth": 0.8}
    draw_interval(axes, row, interval, color=shade, marker=shape, **style)


def draw_outcomes(results: Sequence[Result]) -> Drawing:
    """Return a small panel a model: its curve where the attack failed and where it succeeded."""
    columns = min(int(get_width() / PANEL), len(results))
    rows = -(-len(results) // columns)
    names = [*(text for text, _ in OUTCOMES.values()), "uniform"]
    entries = count_legend_columns(names, get_width() + 0.6)
    figure = make_figure(0.4 + OUTCOME_ROW * rows + measure_legend(names, entries))
    with mpl.rc_context(RC):
        grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
        for axes, result in zip(grid.flat, results, strict=False):
            _draw_outcome(axes, result)
        scale_log(grid[0, 0], "y")
        for axes in grid.flat[len(results) :]:
            axes.set_visible(False)
        handles = [Line2D([], [], color="0.3", linestyle=dash, label=text) for text, dash in OUTCOMES.values()]
        handles.append(Line2D([], [], color="0.5", linestyle="--", linewidth=0.8, label=names[-1]))
        figure.legend(handles=handles, loc="outside upper center", ncols=entries, fontsize=7)
        figure.supxlabel("robustness rank (0 = most robust)", fontsize=8)
        figure.supylabel("weight", fontsize=8)
    return Drawing(figure, f"{_subject(results)} {OUTCOMES_CAPTION}", collect_numbers(results, OUTCOME_DATASETS))


def _draw_outcome(axes: Axes, result: Result) -> None:
    counts = [int(result[f"curve/{outcome}_images"]) for outcome in OUTCOMES]
    for count, (outcome, (_, dash)) in zip(counts, OUTCOMES.items(), strict=True):
        if count >= FEWEST:
            _draw_band(axes, result[f"curve/{outcome}"], color=choose_color(name_variant(result)), linestyle=dash)
    if max(counts) < FEWEST:
        text = f"fewer than {FEWEST}\nimages of each"
        axes.text(0.5, 0.75, text, transform=axes.transAxes, ha="center", va="center", color="0.4", fontsize=6.5)
    axes.axhline(float(result["curve/uniform"]), color="0.5", linestyle="--", linewidth=0.8)
    name = label(result).replace(" seed", "\nseed")
    axes.set_title("{}\n{} / {} images".format(name, *counts), fontsize=6.5)


def draw_maps(results: Sequence[Result]) -> Drawing:
    """Return example images, and below them each model's weights laid over them."""
    models = [result for kind in group_by_weights(results).values() for result in kind]
    count = min(len(results[0]["examples/index"]), int((get_width() - NAMES) / EXAMPLE))
    images, scales = results[0]["examples/image"][:count], _scales(results)
    heights = [EXAMPLE_ROW * (1 + len(results)), BARS]
    figure = make_figure(sum(heights))
    with mpl.rc_context(RC):
        parts: Any = figure.subfigures(2, 1, height_ratios=heights)
        first, *rest = parts[0].subplots(1 + len(results), 1)
        show(first, make_strip(images, images.shape[1:3]))
        for axes, result in zip(rest, models, strict=True):
            maps = result["examples/attention"][:count].reshape(count, *result.config["local_grid"])
            overlay(axes, images, maps, scales[find_weights(result)])
        for axes, name in zip((first, *rest), ["image", *map(label, models)], strict=True):
            strip_axes(axes)
            axes.set_ylabel(name.replace(", ", "\n"), rotation=0, ha="right", va="center", fontsize=7)
        _draw_bars(parts[1], scales, float(results[0]["curve/uniform"]))
    caption = f"{_subject(results)} {MAPS_CAPTION}{end_caption(scales.values())}"
    return Drawing(figure, caption, collect_numbers(results, ("examples/index",)))


def _scales(results: Sequence[Result]) -> dict[str, ScalarMappable]:
    """Return what colors stand for: one scale for all maps of attention, one for all of Grad-CAM."""
    return {
        kind: make_weight_scale([result["examples/attention"] for result in models])
        for kind, models in group_by_weights(results).items()
    }


def _draw_bars(figure: SubFigure, scales: dict[str, ScalarMappable], uniform: float) -> None:
    for axes, (kind, scale) in zip(figure.subplots(1, len(scales), squeeze=False)[0], scales.items(), strict=True):
        draw_attention_bar(figure, scale, axes, kind, uniform)


def _subject(results: Sequence[Result]) -> str:
    """Return the sentences that each caption begins with."""
    config = results[0].config
    settings, data = config["settings"], config["data"]
    return (
        f"Attention against robustness rank on {format_images(data)} of {data['dataset']}; rank 0 "
        f"is the position whose local feature moves least (L2) under PGD-{settings['steps']} at "
        f"{format_ball(settings)}, seed {settings['seed']}."
    )


CURVE_CAPTION = (
    "Mean weight at each rank, as in Figure 2 of the paper. Bands are 95 % bootstrap intervals over images; the dashed "
    "line is uniform weight, the hatched band the same weights on positions in random order."
)
CORRELATIONS_CAPTION = (
    "{}: Spearman of weight and robustness over an image's positions. {}: its mean by distance, by distance over "
    "the feature's norm, with the norm taken out of both, under noise that is uniform in the attack's ball, and with "
    "the mean map of all other images in the place of each image's own. Bars are 95 % bootstrap intervals over images; "
    "at the dashed line there is no correlation."
)
OUTCOMES_CAPTION = (
    "The curve of images that were right without the attack, by what it did to them, with their number; not drawn for "
    f"fewer than {FEWEST}. Bands are 95 % bootstrap intervals over images."
)
MAPS_CAPTION = (
    "The first image of each of the first classes, and weights laid over it in gray. Each kind of weights has "
    f"one color scale; {CEILING}"
)
PLOTS = {"curve": draw, "correlations": draw_correlations, "outcomes": draw_outcomes, "maps": draw_maps}
"""The picture of each panel, by its name: the paper's Figure 2 alone and first."""
