"""Natural and adversarial accuracy of each model, with Wilson intervals."""

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np

from interpret_robust.figures.style import MARKERS, RC, Drawing, colour, new_figure
from interpret_robust.labels import job, label, radius
from interpret_robust.results import Result
from interpret_robust.statistics import Interval

READS = "robustness/1"


def draw(results: Sequence[Result]) -> Drawing:
    """A row a model: its natural accuracy (hollow) and its adversarial accuracy (filled)."""
    figure = new_figure(0.9 + 0.27 * len(results))
    numbers = {}
    with mpl.rc_context(RC):
        axes = figure.subplots()
        for row, result in enumerate(results):
            variant = job(result)["variant"]
            shape = MARKERS.get(variant, "o")
            style: dict[str, Any] = {"color": colour(variant), "marker": shape, "linestyle": "none", "capsize": 2}
            accuracies = {name: Interval(*result[f"accuracy/{name}"]) for name in ("natural", "adversarial")}
            for name, (value, low, high) in accuracies.items():
                fill = "white" if name == "natural" else colour(variant)
                error = 100 * np.array([[value - low], [high - value]])
                axes.errorbar(100 * value, row, xerr=error, markerfacecolor=fill, **style)
            numbers[label(result)] = {name: list(interval) for name, interval in accuracies.items()}
        axes.set_yticks(range(len(results)), [label(result) for result in results])
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.set_xlim(-2, 102)
        axes.set_xlabel("accuracy, % (hollow: natural images; filled: adversarial images)")
        figure.suptitle(_title(results))
    return Drawing(figure, f"{_title(results)}. Bars are Wilson 95 % intervals over images.", numbers)


def _title(results: Sequence[Result]) -> str:
    first = results[0].config
    eps, steps = radius(first["settings"]["eps"]), first["settings"]["steps"]
    data = first["data"]
    return f"{data['dataset']}, {data['images']} {data['split']} images, PGD-{steps} at eps {eps}"
