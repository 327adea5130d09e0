"""Figure 3: attention on clean and on adversarial images, and what the attack changes of it."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import SubFigure

from interpret_robust.core.arrays import AnyArray
from interpret_robust.figures.overlays import (
    CEILING,
    draw_attention_bar,
    end_caption,
    find_ceiling,
    make_strip,
    make_weight_scale,
    measure_pitch,
    overlay,
    show,
    strip_axes,
    thin_ticks,
)
from interpret_robust.figures.style import RC, Drawing, collect_numbers, get_width, make_figure
from interpret_robust.results.hdf5 import Result
from interpret_robust.results.names import find_weights, format_ball, format_images, group_by_weights, label

READS = "attention-maps/2"

Kind = Literal["image", "clean", "adversarial", "difference"]
ROW, TALL_ROW, BARS, PAD = 0.45, 0.57, 0.7, 0.01
"""Inches: of a row with what is written above it, of a row that fills the width where models are few, of the color
bars, and what is left free around each.
"""
MOST_TALL = 2
"""Up to so many models have tall rows."""

COLUMNS, COLUMN, NAMES, KINDS = 10, 0.52, 0.65, 0.55
"""Pictures of a row, as many as a rule chooses at most; inches that each needs, and those of the names of models and of
rows beside them.
"""

WRONG = "#D55E00"
LETTER, SIZE = 0.0088, 6
"""Inches of a letter a point of its size, and the size of a class's name unless it is too long for its place."""

DATASETS = (
    *(f"distance/{name}" for name in ("all", "attack_failed", "attack_succeeded", "other_image")),
    *(f"examples/{name}" for name in ("index", "label", "prediction_clean", "prediction_adversarial", "distance")),
)


class Scales(NamedTuple):
    """What colors stand for, in all maps of attention or in all of Grad-CAM: weights, and their differences."""

    weight: ScalarMappable
    difference: ScalarMappable


def draw(results: Sequence[Result]) -> Drawing:
    """Return the images, and below them each model's clean and adversarial attention and the difference."""
    kinds = group_by_weights(results)
    rows = _rows([result for models in kinds.values() for result in models])
    scales = {kind: _scales(models) for kind, models in kinds.items()}
    heights = [(ROW if len(results) > MOST_TALL else TALL_ROW) * len(rows), BARS]
    figure = make_figure(sum(heights))
    figure.set_layout_engine("constrained", h_pad=PAD, w_pad=PAD, hspace=0, wspace=0)
    with mpl.rc_context(RC):
        parts: Any = figure.subfigures(2, 1, height_ratios=heights)
        _draw_maps(parts[0], rows, scales)
        _draw_bars(parts[1], scales, uniform=1 / results[0]["mean_map/clean"].size)
    numbers = collect_numbers(results, DATASETS)
    caption = _caption(results) + end_caption(scale.weight for scale in scales.values())
    return Drawing(figure, caption, numbers)


def _rows(results: Sequence[Result]) -> list[tuple[Kind, Result]]:
    """Return what each row shows, and of which model: images stand above the first of the models that show them."""
    rows: list[tuple[Kind, Result]] = []
    previous: list[int] = []
    for result in results:
        index = result["examples/index"].tolist()
        if index != previous:
            rows.append(("image", result))
        rows += [("clean", result), ("adversarial", result), ("difference", result)]
        previous = index
    return rows


def _scales(results: Sequence[Result]) -> Scales:
    """Return scales to large weights, and to both sides to large changes; see `make_weight_scale`."""
    weight = make_weight_scale([_maps(result, kind) for result in results for kind in ("clean", "adversarial")])
    change = find_ceiling([_maps(result, "difference") for result in results])
    return Scales(weight, ScalarMappable(Normalize(-change, change), "RdBu_r"))


def _columns() -> int:
    """Return how many pictures fit into a row."""
    return min(COLUMNS, int((get_width() - NAMES - KINDS) / COLUMN))


def _maps(result: Result, kind: str) -> AnyArray:
    """Return the maps of a row, (M, height, width)."""
    clean, adversarial = result["examples/attention"], result["examples/attention_adversarial"]
    maps: AnyArray = {"clean": clean, "adversarial": adversarial, "difference": adversarial - clean}[kind]
    return maps.reshape(len(maps), *result.config["local_grid"])


def _draw_maps(figure: SubFigure, rows: Sequence[tuple[Kind, Result]], scales: dict[str, Scales]) -> None:
    """Draw the rows, with the names of models before them."""
    grid = figure.add_gridspec(len(rows), 2, width_ratios=[NAMES, get_width() - NAMES])
    for place, (kind, result) in enumerate(rows):
        axes = figure.add_subplot(grid[place, 1])
        strip_axes(axes)
        axes.set_ylabel(kind, rotation=0, ha="right", va="center", fontsize=6.5)
        _draw_row(axes, kind, result, scales[find_weights(result)])
        if kind == "clean":
            image_row = place - (place > 0 and rows[place - 1][0] == "image")
            _write_name(figure.add_subplot(grid[image_row : place + 3, 0]), result)


def _draw_row(axes: Axes, kind: Kind, result: Result, scales: Scales) -> None:
    columns = _columns()
    images = result["examples/image"][:columns]
    size = images.shape[1:3]
    if kind == "image":
        show(axes, make_strip(images, size))
        _write_classes(axes, result, "label")
    elif kind == "difference":
        overlay(axes, images, _maps(result, kind)[:columns], scales.difference)
        for place, distance in enumerate(result["examples/distance"][:columns]):
            _write(axes, result, place, f"{distance:.2f}", color="0.4")
    else:
        overlay(axes, images, _maps(result, kind)[:columns], scales.weight)
        _write_classes(axes, result, f"prediction_{kind}")
    axes.set_xlim(-0.5, columns * measure_pitch(size[1]) - 0.5)


def _write_classes(axes: Axes, result: Result, prediction: str) -> None:
    """Draw the class's name above each picture, marked where it is not the true one."""
    names = result.job["class_names"]
    for place, (predicted, true) in enumerate(
        zip(result[f"examples/{prediction}"][: _columns()], result["examples/label"][: _columns()], strict=True)
    ):
        emphasis: dict[str, Any] = {} if predicted == true else {"color": WRONG, "fontweight": "bold"}
        name = names[predicted] if predicted >= 0 else "no number"
        _write(axes, result, place, name, **emphasis)


def _write(axes: Axes, result: Result, place: int, text: str, **style: Any) -> None:
    """Draw words above a picture of a row, smaller where they would reach into the next."""
    height, columns = result["examples/image"].shape[1:3]
    middle = place * measure_pitch(columns) + columns / 2 - 0.5
    size = min(SIZE, COLUMN / (LETTER * len(text)))
    axes.text(middle, -0.5 - height / 16, text, ha="center", va="bottom", fontsize=size, **style)


def _write_name(axes: Axes, result: Result) -> None:
    strip_axes(axes)
    axes.spines["top"].set(visible=True, color="0.7")
    name = label(result).replace(" seed", "\nseed").replace(", ", "\n")
    axes.text(0, 0.5, name, fontsize=7, va="center", transform=axes.transAxes)


def _draw_bars(figure: SubFigure, scales: dict[str, Scales], uniform: float) -> None:
    """Draw two color bars for attention, two for Grad-CAM."""
    bars = iter(figure.subplots(1, 2 * len(scales), gridspec_kw={"wspace": 0.12}))
    for kind, (weight, difference) in scales.items():
        draw_attention_bar(figure, weight, next(bars), kind, uniform)
        text = f"{kind},\nadversarial - clean"
        bar = figure.colorbar(difference, cax=next(bars), orientation="horizontal", label=text, extend="both")
        thin_ticks(bar)


def _caption(results: Sequence[Result]) -> str:
    config = results[0].config
    settings, data = config["settings"], config["data"]
    return (
        f"Attention on clean and adversarial images of {data['dataset']} ({format_images(data)}, "
        f"PGD-{settings['steps']} at {format_ball(settings)}, seed {settings['seed']}), and the difference, "
        f"adversarial minus clean. Images are chosen by the rule {settings['select']}; for extremes the steadiest "
        "attention comes first. Above the images stands the true class; above the maps the class predicted of the "
        "clean and of the adversarial image, bold and orange where it is wrong; above the differences the total "
        "variation distance of the two maps. "
        "Maps are laid over their images in gray. All maps of attention share one color scale, all their differences "
        f"another; those of Grad-CAM have their own two. Of each, {CEILING}"
    )
