"""Table 4 as a picture: how often evaluators read the class from gradient maps, beside controls that hold none."""

from collections.abc import Callable, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from interpret_robust.core.arrays import AnyArray
from interpret_robust.figures.style import (
    CHANCE,
    NARROW,
    RC,
    Drawing,
    choose_color,
    choose_marker,
    count_legend_columns,
    draw_interval,
    find_chance,
    get_width,
    make_figure,
    measure_legend,
)
from interpret_robust.results.hdf5 import Result
from interpret_robust.results.names import label, name_variant, shorten_name

READS = "gradmap-score/1"

PANELS = {"clip": "clipped to 3 standard deviations", "max": "raw"}
CONTROLS = {
    "random-network": "random network",
    "sobel": "edges of the image",
    "pixel-shuffle": "pixels shuffled",
    "phase-random": "phases random",
    "absolute": "absolute value",
}
LINE_HEIGHT = 0.085
"""Inches from one model's mark to the next."""

GAP = 1.5
"""Lines between two groups of marks."""


Group = tuple[str, Callable[[Result, str], AnyArray | None]]
"""A name, and the scores (sign, of) of a model by a rule."""


def draw(results: Sequence[Result]) -> Drawing:
    """Return a panel a rule; a group of marks for each evaluator, then for each control as the first evaluator
    reads it.
    """
    evaluators = [_evaluator_group(name, results[0]) for name in _anchors(results)]
    groups = [*evaluators, *(_control_group(name) for name in CONTROLS)]
    step = len(results) + GAP
    handles = _legend(results)
    names = [str(handle.get_label()) for handle in handles]
    columns = 4 if get_width() >= NARROW else count_legend_columns(names, get_width())
    lines = 0.0 if get_width() >= NARROW else 0.2 + measure_legend(names, columns)
    figure = make_figure(1.1 + LINE_HEIGHT * step * len(groups) + lines)
    with mpl.rc_context(RC):
        panels = figure.subplots(1, len(PANELS), sharey=True, sharex=True)
        for axes, (rule, title) in zip(panels, PANELS.items(), strict=True):
            for number, (_, scores) in enumerate(groups):
                for row, result in enumerate(results):
                    _mark(axes, number * step + row, result, scores(result, rule))
            axes.axvline(find_chance(results[0])[0], **CHANCE)
            axes.axhline(len(evaluators) * step - GAP / 2 - 0.5, color="0.6", linewidth=0.8)
            axes.grid(visible=False, axis="y")
            if get_width() >= NARROW:
                axes.set(title=title, xlabel="read as the true class, %")
            else:
                axes.set_title(title.replace("to 3 ", "to 3\n"))
        middle = (len(results) - 1) / 2
        panels[0].set_yticks([number * step + middle for number in range(len(groups))], [name for name, _ in groups])
        panels[0].set_ylim(len(groups) * step - GAP / 2 - 0.5, -GAP / 2 - 0.5)
        if get_width() < NARROW:
            figure.supxlabel("read as the true class, %", fontsize=RC["font.size"])
        figure.legend(handles=handles, loc="outside upper center", ncols=columns)
    return Drawing(figure, _caption(results), {label(result): _numbers(result) for result in results})


def _mark(axes: Axes, row: float, result: Result, scores: AnyArray | None) -> None:
    """Draw minus the gradient filled and the gradient hollow, each with its interval."""
    if scores is None:
        return
    shade, shape = _look(result)
    for interval, face in zip(100 * scores[::-1], ("white", shade), strict=True):
        bar: Any = {"color": shade, "marker": shape, "markersize": 3, "markeredgewidth": 0.7, "markerfacecolor": face}
        draw_interval(axes, row, interval, elinewidth=0.8, **bar)


def _evaluator_group(name: str, first: Result) -> Group:
    def scores(result: Result, rule: str) -> AnyArray | None:
        names = result["evaluator"].tolist()
        if name not in names:
            return None
        place = result["rule"].tolist().index(rule)
        accuracies: AnyArray = result["score/accuracy"][names.index(name), 0, place, :, 0]
        return accuracies

    return shorten_name(first, name), scores


def _control_group(name: str) -> Group:
    def scores(result: Result, rule: str) -> AnyArray:
        place = result["control"].tolist().index(name), result["control_rule"].tolist().index(rule)
        accuracies: AnyArray = result["controls/accuracy"][0][place]
        return accuracies

    return CONTROLS[name], scores


def _anchors(results: Sequence[Result]) -> dict[str, float]:
    """Return the accuracy of every evaluator on the images themselves, by its name."""
    return {
        name: float(accuracy)
        for result in results
        for name, accuracy in zip(result["evaluator"].tolist(), result["anchor/image"][:, 0], strict=True)
    }


def _look(result: Result) -> tuple[str, str]:
    return choose_color(name_variant(result)), choose_marker(result)


def _legend(results: Sequence[Result]) -> list[Line2D]:
    models = [
        Line2D([], [], linestyle="none", color=shade, marker=shape, markersize=4, label=label(result))
        for result in results
        for shade, shape in [_look(result)]
    ]
    hollow = Line2D([], [], linestyle="none", color="0.3", marker="o", markerfacecolor="white", markersize=4)
    hollow.set_label("hollow: the other sign, +g")
    guess = Line2D([], [], label=find_chance(results[0])[1], **CHANCE)
    return [*models, hollow, guess]


def _numbers(result: Result) -> dict[str, Any]:
    rates = ("headline/accuracy", "headline/mean", "headline/deviation", "score/accuracy", "controls/accuracy")
    axes = ("evaluator", "target", "rule", "sign", "reference", "control", "control_rule")
    return {name: result[name].tolist() for name in (*rates, *axes, "anchor/image")}


def _caption(results: Sequence[Result]) -> str:
    data = results[0].config["data"]
    anchors = ", ".join(
        f"{shorten_name(results[0], name)} {100 * accuracy:.0f} %" for name, accuracy in _anchors(results).items()
    )
    readers = ", ".join(dict.fromkeys(shorten_name(result, result["evaluator"].tolist()[0]) for result in results))
    return (
        f"Share of {data['images']} {data['split']} gradient maps of {data['dataset']} that a frozen classifier reads "
        "as the true class. Filled: minus the gradient of the true class's cross-entropy; hollow: the gradient itself; "
        "both with Wilson 95 % intervals over images. Clipped: to 3 standard deviations of each map; raw: divided by "
        "each map's largest entry; zero is gray. Above the line: each evaluator; below it controls in the map's place, "
        f"read by each model's first evaluator ({readers}); edges and absolute values are filled where they are "
        f"brighter than gray. Dashed: {find_chance(results[0])[1]}. Accuracy of the evaluators on the images: "
        f"{anchors}."
    )
