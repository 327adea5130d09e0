"""Accuracy of each model on natural images and under AutoAttack, with Wilson intervals."""

from collections.abc import Sequence

import matplotlib as mpl

from interpret_robust.figures.style import RC, Drawing, break_label, draw_dot, make_figure, name_rows, set_title
from interpret_robust.results.hdf5 import Result
from interpret_robust.results.names import format_ball, format_subject, label, list_places

READS = "autoattack/1"


def draw(results: Sequence[Result]) -> Drawing:
    """Return a row a model: accuracy on natural images (hollow) and after all attacks (filled)."""
    figure, numbers = make_figure(0.9 + 0.27 * len(results)), {}
    with mpl.rc_context(RC):
        axes = figure.subplots()
        for row, result in enumerate(results):
            natural, accuracies = 100 * result["accuracy/natural"], 100 * result["accuracy/after"]
            draw_dot(axes, row - 0.12, result, natural, hollow=True)
            draw_dot(axes, row + 0.12, result, accuracies[-1])
            steps = dict(zip(list_places(result, "attack"), accuracies.tolist(), strict=True))
            numbers[label(result)] = {"natural": natural.tolist(), "after": steps}
        name_rows(axes, results)
        axes.grid(visible=False, axis="y")
        axes.set_xlim(-2, 102)
        axes.set_xlabel(break_label("accuracy, % (hollow: natural images; filled: AutoAttack)"))
        set_title(figure, _title(results))
    attacks = ", ".join(list_places(results[0], "attack"))
    caption = f"{_title(results)} ({attacks}). Bars are Wilson 95 % intervals over images."
    return Drawing(figure, caption, numbers)


def _title(results: Sequence[Result]) -> str:
    return f"{format_subject(*results)}, AutoAttack at {format_ball(results[0].config['settings'])}"
