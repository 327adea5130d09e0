"""Figure 4: gradient maps of the same images for each model, clipped and raw, with the sign of gradmap-score."""

from collections.abc import Sequence
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from interpret_robust.figures.overlays import show, strip_axes
from interpret_robust.figures.style import RC, Drawing, get_width, make_figure
from interpret_robust.results.hdf5 import Result
from interpret_robust.results.names import PAPER_RULES, format_images, label

READS = "gradient-maps/2"

COLUMNS = 10
ROW_HEIGHT, NAMES, COLUMN = 0.6, 0.75, 0.58
"""Inches: of a row, of the models' names, and what an image needs beside the others."""


def draw(results: Sequence[Result]) -> Drawing:
    """Return the images, then two rows a model: its maps clipped and raw.

    Images that differ between models come again.
    """
    heads = [place for place, result in enumerate(results) if place == 0 or not _is_equal(results[place - 1], result)]
    figure = make_figure(ROW_HEIGHT * (len(heads) + len(PAPER_RULES) * len(results)) + 0.2)
    with mpl.rc_context(RC):
        layout: Any = figure.get_layout_engine()
        layout.set(w_pad=0.01, h_pad=0.01, wspace=0.01, hspace=0.01)
        rows = iter(_grid(figure, len(heads) + len(PAPER_RULES) * len(results)))
        for place, result in enumerate(results):
            if place in heads:
                _draw_images(next(rows), result)
            for name, rule in PAPER_RULES.items():
                _draw_maps(next(rows), result, name, rule)
    return Drawing(figure, _caption(results), {label(result): _numbers(result) for result in results})


def _grid(figure: Figure, rows: int) -> list[list[Axes]]:
    grid = figure.subplots(rows, min(COLUMNS, int((get_width() - NAMES) / COLUMN)), squeeze=False)
    for axes in grid.flat:
        strip_axes(axes)
    panels: list[list[Axes]] = grid.tolist()
    return panels


def _draw_images(row: Sequence[Axes], result: Result) -> None:
    names = _names(result)
    random = result.config["settings"]["target"] == "random"
    for axes, image, true, target in zip(
        row, result["examples/image"], result["examples/label"], result["examples/target"], strict=False
    ):
        show(axes, image)
        axes.set_title(f"{names[true]}\nloss of {names[target]}" if random else names[true], fontsize=7, pad=2)
    _name(row[0], "image")


def _draw_maps(row: Sequence[Axes], result: Result, name: str, rule: str) -> None:
    """Draw minus the stored maps: each scale rule sends -g to the negative of the image of g."""
    names, place = _names(result), list(result["rule"].astype(str)).index(rule)
    for axes, views, true, predicted in zip(
        row, result["examples/view"], result["examples/label"], result["examples/prediction"], strict=False
    ):
        show(axes, 255 - views[place])
        if name == "clip" and predicted != true:
            _write(axes, 0.97, "top", names[predicted])
        if name == "raw" and (spread := views[place].std()) > 0:
            _write(axes, 0.03, "bottom", f"max {127.5 / spread:.0f} sd")
    _name(row[0], label(result).replace(" seed", "\nseed") + f", {name}")


def _write(axes: Axes, height: float, anchor: Literal["top", "bottom"], text: str) -> None:
    style: dict[str, Any] = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}
    axes.text(0.03, height, text, transform=axes.transAxes, fontsize=6, ha="left", va=anchor, bbox=style)


def _name(axes: Axes, name: str) -> None:
    axes.set_ylabel(name, rotation=0, ha="right", va="center")


def _is_equal(first: Result, second: Result) -> bool:
    return np.array_equal(first["examples/index"], second["examples/index"])


def _names(result: Result) -> list[str]:
    names: list[str] = result.job["class_names"]
    return names


def _numbers(result: Result) -> dict[str, Any]:
    paths = ("examples/index", "examples/label", "examples/prediction", "examples/target", "examples/scale")
    return {path: result[path].tolist() for path in (*paths, "view/saturated", "view/contrast", "set/degenerate")}


OF_ATTENTION = "brighter where the answer attends more, whatever the class."
CAPTION = {
    "gradient": "Minus the gradient of the cross-entropy of {}: brighter where a larger pixel value lowers the loss.",
    "smooth-gradient": "Minus the smoothed gradient (the mean over noisy copies) of the cross-entropy of {}: brighter "
    "where a larger pixel value lowers the loss.",
    "integrated-gradients": "Minus the integrated gradients of the cross-entropy of {}: brighter where the change of "
    "this pixel from noise to the image lowered the loss.",
    "rollout": f"Attention rollout: {OF_ATTENTION}",
    "relevance": "Relevance of tokens (Chefer et al. 2021) for the logit of {}: brighter where more of it rests.",
}
TARGET = {
    "true": "the true class",
    "predicted": "the predicted class",
    "random": "a random wrong class (second line of a title)",
}
RULE = {"extremes": "extremes (three of the lowest, of middling and of the highest loss)"}


def _caption(results: Sequence[Result]) -> str:
    settings, data = results[0].config["settings"], results[0].config["data"]
    zero = sum(int(result["set/degenerate"]) for result in results)
    rule = RULE.get(settings["select"], settings["select"])
    source = settings["source"]
    other = f"Minus the maps by {source} of the cross-entropy of {{}}."
    sentence = CAPTION.get(source, f"Attention {source}: {OF_ATTENTION}" if source.startswith("head:") else other)
    return (
        f"{sentence.format(TARGET[settings['target']])} Zero is mid-gray. Each map has a scale of its "
        "own: clip ends at 3 standard deviations of the map's entries on both sides of zero, raw at their largest "
        f"magnitude, which the number in its corner gives in standard deviations (sd). Images by the rule {rule} "
        f"among {format_images(data)} of {data['dataset']}, seed {settings['seed']}; a class in "
        f"a map's corner is the prediction where it is wrong. {zero} maps of all models are zero everywhere."
    )
