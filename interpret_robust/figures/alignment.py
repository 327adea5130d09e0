"""Alignment of image and gradient beside shuffled pairs, the gradient's smoothness, and both against robustness."""

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import SubFigure
from matplotlib.lines import Line2D

from interpret_robust.figures.style import (
    NARROW,
    RC,
    Drawing,
    choose_color,
    choose_marker,
    choose_stroke,
    collect_numbers,
    count_abreast,
    draw_dot,
    get_width,
    make_figure,
    name_rows,
    scale_log,
)
from interpret_robust.results.hdf5 import Result
from interpret_robust.results.invariance import is_zero
from interpret_robust.results.names import GRADIENT, find_maps, format_images, name_variant

READS = "alignment/2"

ALIGNMENTS = {
    "cosine": "cosine of image and -gradient",
    "alpha": "Etmann's alpha, pixels",
    "edge_cosine": "cosine of edges and |gradient|",
}
"""What each score is called."""

SMOOTHNESS = {
    "total_variation": "total variation / L1 norm",
    "gini": "Gini index of |entries|",
    "high_frequency": "energy above half Nyquist",
}
SPEARMAN = {"spearman_edge_cosine": "edge cosine", "spearman_alpha": "alpha"}
IN_PLACE: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 7, "color": "0.35"}
CURVE = ("linearized_robustness", "edge_cosine_mean", "edge_cosine_low", "edge_cosine_high")
DATASETS = (
    *(f"{name}/{part}" for name in ALIGNMENTS for part in ("own", "shuffled")),
    *(f"{part}/{name}" for name in SMOOTHNESS for part in ("smoothness", "white_noise")),
    *(f"robustness/{name}" for name in SPEARMAN),
    *(f"curve/{name}" for name in CURVE),
    *(f"invariant/{part}" for part in ("scale", "shift")),
    "count/degenerate",
)


def draw(results: Sequence[Result]) -> Drawing:
    """Return three rows of panels: alignment, smoothness, and the link to robustness."""
    of_models = 0.75 + 0.2 * len(results)
    heights = [of_models, of_models, max(2.2, of_models)]
    if get_width() < NARROW:
        panels = (len(_scores(results)), len(SMOOTHNESS), 2)
        heights = [0.3 + height * count for height, count in zip(heights, panels, strict=True)]
    figure = make_figure(sum(heights))
    with mpl.rc_context(RC):
        parts: Any = figure.subfigures(3, 1, height_ratios=heights)
        _draw_alignment(parts[0], results)
        _draw_smoothness(parts[1], results)
        _draw_robustness(parts[2], results)
    numbers = collect_numbers(results, DATASETS)
    return Drawing(figure, _caption(results), numbers)


def _draw_alignment(figure: SubFigure, results: Sequence[Result]) -> None:
    """Draw each score of the image itself (filled) and of another image (hollow), but where it is zero by
    construction; a score that is so for all models has no panel.
    """
    names = _scores(results)
    columns = count_abreast(len(names))
    panels = figure.subplots(len(names) // columns, columns, sharey=True, squeeze=False).ravel()
    for axes, name in zip(panels, names, strict=True):
        for row, result in enumerate(results):
            if is_zero(result, name):
                axes.text(0.5, row, "zero by construction", transform=axes.get_yaxis_transform(), **IN_PLACE)
            else:
                draw_dot(axes, row, result, result[f"{name}/shuffled"], hollow=True)
                draw_dot(axes, row, result, result[f"{name}/own"])
        axes.set_xlabel(ALIGNMENTS[name])
    name_rows(panels[0], results)
    _explain(figure, {"own image": {"markerfacecolor": "0.3"}, "another image": {"markerfacecolor": "white"}})


def _scores(results: Sequence[Result]) -> list[str]:
    """Return the scores that are not zero by construction for all models."""
    return [name for name in ALIGNMENTS if not all(is_zero(result, name) for result in results)]


def _draw_smoothness(figure: SubFigure, results: Sequence[Result]) -> None:
    """Draw the confounds of every alignment score, with what white noise would have."""
    columns = count_abreast(len(SMOOTHNESS))
    panels = figure.subplots(len(SMOOTHNESS) // columns, columns, sharey=True).ravel()
    for axes, (name, title) in zip(panels, SMOOTHNESS.items(), strict=True):
        for row, result in enumerate(results):
            draw_dot(axes, row, result, result[f"smoothness/{name}"])
        axes.axvline(float(results[0][f"white_noise/{name}"]), color="0.4", linestyle="--", linewidth=0.8)
        axes.set_xlabel(title)
    name_rows(panels[0], results)
    _explain(figure, {"white noise": {"marker": "", "linestyle": "--", "linewidth": 0.8}})


def _draw_robustness(figure: SubFigure, results: Sequence[Result]) -> None:
    """Draw the edge cosine of each tenth of the images by linearized robustness, and the rank correlations."""
    if get_width() >= NARROW:
        curve, spearman = figure.subplots(1, 2, width_ratios=[3, 2])
    else:
        curve, spearman = figure.subplots(2, 1)
    for row, result in enumerate(results):
        x, mean, low, high = (result[f"curve/{name}"] for name in CURVE)
        curve.plot(x, mean, marker=choose_marker(result), markersize=3, linewidth=1, **choose_stroke(result))
        curve.fill_between(x, low, high, color=choose_color(name_variant(result)), alpha=0.25, lw=0)
        draw_dot(spearman, row, result, result["robustness/spearman_edge_cosine"])
        if np.isfinite(result["robustness/spearman_alpha"][0]):
            draw_dot(spearman, row, result, result["robustness/spearman_alpha"], hollow=True)
    if any((result["curve/linearized_robustness"] > 0).any() for result in results):  # all gradients may be zero
        scale_log(curve, "x")
    curve.set(xlabel="linearized robustness, L2 over pixels", ylabel="cosine of edges and |gradient|")
    spearman.axvline(0, color="0.5", linestyle="--", linewidth=0.8)
    spearman.set_xlabel("Spearman with robustness")
    name_rows(spearman, results)
    alphas = np.isfinite([result["robustness/spearman_alpha"][0] for result in results]).any()
    hollow = {"alpha": {"markerfacecolor": "white"}} if alphas else {}
    _explain(figure, {"edge cosine": {"markerfacecolor": "0.3"}} | hollow)


def _explain(figure: SubFigure, marks: dict[str, dict[str, Any]]) -> None:
    """Draw a legend in gray above the panels: what the marks mean, whatever the model."""
    plain: dict[str, Any] = {"color": "0.3", "marker": "o", "markersize": 5, "linestyle": "none"}
    handles = [Line2D([], [], label=text, **(plain | style)) for text, style in marks.items()]
    figure.legend(handles=handles, loc="outside upper right", ncols=len(handles))


def _caption(results: Sequence[Result]) -> str:
    config = results[0].config
    data = config["data"]
    zero = [title for name, title in ALIGNMENTS.items() if all(is_zero(result, name) for result in results)]
    of_cosine = ", and one that also ignores a shift has a cosine of zero" if find_maps(results[0]) == GRADIENT else ""
    left_out = f" Not drawn, since zero by construction for all models: {', '.join(zero)}." if zero else ""
    return (
        f"Alignment of images and gradients on {format_images(data)} of {data['dataset']}. Top: "
        "cosine of the image (its mean removed) and minus the gradient of the true label's cross-entropy; Etmann's "
        "alpha of the winning logit; cosine of the image's Sobel edges and the gradient's magnitude; filled for the "
        "image itself, hollow for another image (a random pairing without fixed points, seed "
        f"{config['settings']['seed']}). A model that ignores the scale of its input has <x, gradient> = 0 whatever it "
        f"learned{of_cosine}.{left_out} Middle: total "
        "variation, sparsity and high frequencies of the gradient. Below: edge cosine of each tenth of the images by "
        "linearized robustness (Etmann et al. 2019), and their Spearman correlation. Bars and bands are "
        "bootstrap 95 % intervals over images."
    )
