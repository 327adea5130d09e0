"""Share of images that a targeted attack makes each model take for their target, and of those that stay right."""

from collections.abc import Sequence

import matplotlib as mpl

from interpret_robust.figures.style import RC, Drawing, break_label, draw_dot, make_figure, name_rows, set_title
from interpret_robust.results.hdf5 import Result
from interpret_robust.results.names import attack, format_subject, label

READS = "targeted/1"


def draw(results: Sequence[Result]) -> Drawing:
    """Return a row a model: accuracy under the attack (hollow) and the share taken for the target (filled)."""
    figure, numbers = make_figure(0.9 + 0.27 * len(results)), {}
    with mpl.rc_context(RC):
        axes = figure.subplots()
        for row, result in enumerate(results):
            accuracy, success = 100 * result["share/right"][1], 100 * result["share/aimed"][1]
            draw_dot(axes, row - 0.12, result, accuracy, hollow=True)
            draw_dot(axes, row + 0.12, result, success)
            numbers[label(result)] = {"still right": accuracy.tolist(), "taken for the target": success.tolist()}
        name_rows(axes, results)
        axes.grid(visible=False, axis="y")
        axes.set_xlim(-2, 102)
        axes.set_xlabel(break_label("% of images (hollow: still right; filled: taken for the target)"))
        set_title(figure, _title(results))
    caption = (
        f"{_title(results)}: {attack(results[0])}. Images of the target class itself are left out. Bars are Wilson "
        "95 % intervals over images."
    )
    return Drawing(figure, caption, numbers)


def _title(results: Sequence[Result]) -> str:
    targets = results[0].config["settings"]["targets"]
    aim = f"class {targets}" if targets.isdecimal() else targets
    return f"{format_subject(*results)}, target: {aim}"
