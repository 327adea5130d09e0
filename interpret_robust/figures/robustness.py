"""Accuracy of each model on natural images, under attack, in the worst case and on its copies' adversarial images."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from interpret_robust.core.intervals import Interval
from interpret_robust.figures.style import (
    RC,
    Drawing,
    choose_color,
    choose_marker,
    count_legend_columns,
    draw_interval,
    get_width,
    make_figure,
    measure_legend,
    name_rows,
    set_title,
)
from interpret_robust.results.attack_outcomes import find_headline, list_readings
from interpret_robust.results.attack_tables import AttackTable, attack_tables
from interpret_robust.results.hdf5 import Result
from interpret_robust.results.names import format_ball, format_subject, label, name_variant

READS = "robustness/2"


class Mark(NamedTuple):
    """How a condition is drawn: its marker, None for that of the seed; size in points; rows below the model's."""

    marker: str | None
    size: float
    offset: float = 0.0
    hollow: bool = False


MARKS = {
    "natural": Mark(None, 5, hollow=True),
    "white-box": Mark(None, 5),
    "black-box": Mark("x", 4, offset=-0.24),
    "worst case": Mark("|", 6, offset=0.24),
}


def draw(results: Sequence[Result]) -> Drawing:
    """Return a row a model, a mark a condition: see MARKS."""
    tables = {result.path: table for table in attack_tables(results) for result in table.files}
    accuracies = [_accuracies(result, tables[result.path]) for result in results]
    reading = find_headline(results[0])
    has_apgd = any(name.startswith("APGD") for name in list_readings(results[0]))
    texts = {
        "natural": "natural images",
        "white-box": f"{reading}, white-box",
        "black-box": f"{reading}, black-box",
        "worst case": f"worst case{' with APGD' if has_apgd else ''}, white-box",
    }
    marks = [name for name in MARKS if any(name in intervals for intervals in accuracies)]
    columns = count_legend_columns([texts[name] for name in marks], get_width())
    figure = make_figure(1.1 + 0.27 * len(results) + measure_legend(marks, columns))
    with mpl.rc_context(RC):
        axes = figure.subplots()
        for row, (result, intervals) in enumerate(zip(results, accuracies, strict=True)):
            for name, interval in intervals.items():
                _draw_mark(axes, row, result, name, interval)
        name_rows(axes, results)
        axes.grid(visible=False, axis="y")
        axes.set_xlim(-2, 102)
        axes.set_xlabel("accuracy, %")
        handles = [Line2D([], [], **_style(name, "o", "0.3"), label=texts[name]) for name in marks]
        figure.legend(handles=handles, loc="outside lower center", ncols=columns)
        set_title(figure, _title(results))
    numbers = {
        label(result): {texts[name]: list(interval) for name, interval in intervals.items()}
        for result, intervals in zip(results, accuracies, strict=True)
    }
    return Drawing(figure, _caption(results, marks), numbers)


def _accuracies(result: Result, table: AttackTable) -> dict[str, Interval]:
    intervals = {"natural": Interval(*result["accuracy/natural"][0])}
    if name := find_headline(result):
        intervals["white-box"] = Interval(*result["accuracy/adversarial"][list_readings(result).index(name), 0])
        if transfers := table.transfers(result, name):
            intervals["black-box"] = transfers
        intervals["worst case"] = Interval(*result["accuracy/worst"][0])
    return intervals


def _style(name: str, shape: str, shade: str) -> dict[str, Any]:
    mark = MARKS[name]
    face = "white" if mark.hollow else shade
    return {
        "marker": mark.marker or shape,
        "markersize": mark.size,
        "markerfacecolor": face,
        "color": shade,
        "linestyle": "none",
    }


def _draw_mark(axes: Axes, row: int, result: Result, name: str, interval: Interval) -> None:
    style = _style(name, choose_marker(result), choose_color(name_variant(result)))
    draw_interval(axes, row + MARKS[name].offset, [100 * number for number in interval], elinewidth=1, **style)


def _caption(results: Sequence[Result], marks: Sequence[str]) -> str:
    transfers = " Black-box: attacked on the other seeds of the same variant, the mean over them."
    intervals = "Bars are Wilson 95 % intervals over images."
    return f"{_title(results)}. {intervals}{transfers if 'black-box' in marks else ''}"


def _title(results: Sequence[Result]) -> str:
    return f"{format_subject(*results)}, attacks at {format_ball(results[0].config['settings'])}"
