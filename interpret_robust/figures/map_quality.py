"""How far maps move with the image, and how much of the loss's change they do not predict, model by model."""

from collections.abc import Sequence

import matplotlib as mpl

from interpret_robust.figures.style import (
    RC,
    Drawing,
    break_label,
    collect_numbers,
    count_abreast,
    draw_dot,
    make_figure,
    name_rows,
    name_sides,
)
from interpret_robust.results.hdf5 import Result
from interpret_robust.results.names import format_images, format_radius

READS = ("map-quality/2", "map-quality/1")

DATASETS = ("mean/sensitivity", "mean/unforetold", "mean/unforetold_shuffled", "mean/gain", "count/degenerate")


def draw(results: Sequence[Result]) -> Drawing:
    """Return a row a model: sensitivity on the left, what is not predicted on the right, by shuffled maps hollow."""
    columns = count_abreast(2)
    figure = make_figure((1.1 + 0.3 * len(results)) * (2 // columns))
    with mpl.rc_context(RC):
        shift, unforetold = figure.subplots(2 // columns, columns, sharey=True)
        for row, result in enumerate(results):
            draw_dot(shift, row, result, result["mean/sensitivity"])
            draw_dot(unforetold, row - 0.12, result, 100 * result["mean/unforetold"])
            draw_dot(unforetold, row + 0.12, result, 100 * result["mean/unforetold_shuffled"], hollow=True)
        name_rows(shift, results)
        for axes in (shift, unforetold):
            axes.grid(visible=False, axis="y")
        shift.set_xlim(left=0)
        shift.set_xlabel(break_label("sensitivity: largest change of a map over its norm"))
        unforetold.set_xlabel("change of the loss not predicted, %\n(hollow: by maps with shuffled pixels)")
    numbers = collect_numbers(results, DATASETS)
    return Drawing(figure, _caption(results), numbers)


def _caption(results: Sequence[Result]) -> str:
    config = results[0].config
    settings, data, (left, right) = config["settings"], config["data"], name_sides()
    return (
        f"Quality of maps ({settings['source']}) on {format_images(data)} of {data['dataset']}, by "
        f"captum. {left}: the largest of {settings['samples']} changes of a map as the image moves within "
        f"{format_radius(settings['radius'])}, over the map's norm: a lower bound. {right}: normalized infidelity as "
        "squares of a quarter of the image's side get its mean color, over the mean square of the loss's change. Bars "
        f"are bootstrap 95 % intervals over images, seed {settings['seed']}."
    )
