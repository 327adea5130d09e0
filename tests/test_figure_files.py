"""`irt figure -o`: one picture, in a format and a width of the user's choice."""

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import make_golden
import matplotlib as mpl
import numpy as np
import pytest
from click import ClickException
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from PIL import Image

from interpret_robust import analyses, cli, figures
from interpret_robust.core.errors import UserError
from interpret_robust.core.files import replace_file
from interpret_robust.figures import drawing, saving, style
from interpret_robust.results import hdf5

RANK = make_golden.file_of(analyses.get("attention-rank").schema)
ROBUSTNESS = make_golden.file_of(analyses.get("robustness").schema)


def figure(*words: object) -> None:
    cli.irt.main(["figure", *map(str, words)], standalone_mode=False)


def check_enlarged(plot: Figure, plain: Figure, factor: float) -> None:
    """Text, lines, marks and bars of one figure are `factor` times those of another."""
    for kind, size in (
        (Text, "fontsize"),
        (Line2D, "linewidth"),
        (Line2D, "markersize"),
        (LineCollection, "linewidth"),
    ):
        pairs = zip(plot.findobj(kind), plain.findobj(kind), strict=True)
        for large, small in pairs:
            np.testing.assert_allclose(
                getattr(large, f"get_{size}")(), factor * np.array(getattr(small, f"get_{size}")())
            )


def test_bars_grow_with_the_figure() -> None:
    def compose() -> Figure:
        return drawing.compose("robustness", [hdf5.read(ROBUSTNESS)]).figure

    plot = compose()
    saving.enlarge(plot, 1.7)
    assert compose().findobj(LineCollection)
    check_enlarged(plot, compose(), 1.7)


@pytest.mark.usefixtures("users_pictures")
@pytest.mark.parametrize("inches", [3.3, 6.75, 10])
def test_a_picture_is_as_wide_as_asked_and_its_text_stays_readable(tmp_path: Path, inches: float) -> None:
    path = tmp_path / "rank.png"
    figure("attention-rank", RANK, "-o", path, "--width", inches)
    with Image.open(path) as picture:
        assert picture.width == pytest.approx(200 * inches, abs=1)
    with style.use_width(inches):
        plot = drawing.compose("attention-rank", [hdf5.read(RANK)]).figure
    if inches > style.WIDTH:
        saving.enlarge(plot, inches / style.WIDTH)
        check_enlarged(plot, drawing.compose("attention-rank", [hdf5.read(RANK)]).figure, inches / style.WIDTH)
        plot.draw_without_rendering()
        ticks = {
            float(text.get_fontsize()) for axes in plot.axes for text in axes.get_xticklabels() + axes.get_yticklabels()
        }
        size = float(style.RC["font.size"]) * inches / style.WIDTH
        np.testing.assert_allclose([*ticks], size)
    sizes = [text.get_fontsize() for axes in plot.axes for text in axes.get_xticklabels()]
    assert min(sizes) >= mpl.rcParamsDefault["font.size"] * 0.6
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["rank.json", "rank.png"]


PANELS = [(name, panel) for name in figures.list_names() for panel in figures.list_plots(name)]


@pytest.mark.long
@pytest.mark.parametrize("inches", [3.3, 6.75])
@pytest.mark.parametrize(("name", "panel"), PANELS)
def test_text_is_neither_cut_nor_over_other_text(name: str, panel: str, inches: float) -> None:
    """All text of a figure of one column and of two lies in the figure, and apart; numbers of one axis too."""
    results = [analyses.read(make_golden.file_of(analyses.get(name).schema))]
    with style.use_width(inches):
        plot = drawing.compose(name, results, panel).figure
    plot.draw_without_rendering()
    unseen = unseen_texts(plot)
    texts = [text for text in plot.findobj(Text) if text.get_visible() and text.get_text().strip()]
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts if text not in unseen]
    assert len(boxes) > 3
    page = plot.bbox
    cut = [text for text, box in boxes if min(box.x0, box.y0, page.x1 - box.x1, page.y1 - box.y1) < -1]
    assert cut == []
    overlap = [
        (first, second)
        for (first, box), (second, other) in combinations(boxes, 2)
        if min(box.x1, other.x1) - max(box.x0, other.x0) > 1 and min(box.y1, other.y1) - max(box.y0, other.y0) > 1
    ]
    assert overlap == []


def test_the_caption_says_where_the_panels_of_a_narrow_picture_stand(tmp_path: Path) -> None:
    captions = []
    for inches in (3.3, 6.75):
        figure("attention-rank", RANK, "--panel", "correlations", "-o", tmp_path / "a.png", "--width", inches)
        captions.append(json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))["caption"])
        with style.use_width(inches):
            first, second = drawing.compose("attention-rank", [hdf5.read(RANK)], "correlations").figure.axes
        assert (first.get_position().y0 > second.get_position().y1) == (inches < 4)
    assert captions[1].replace("Left", "Above").replace("Right", "Below") == captions[0] != captions[1]


def unseen_texts(plot: Figure) -> set[Any]:
    """Texts that are never drawn: of hidden panels, and the numbers of an axis that lie beyond its ends."""
    unseen: set[Any] = set()
    for axes in plot.axes:
        if not axes.get_visible():
            unseen |= set(axes.findobj(Text))
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
            invisible = [tick for tick in ticks if not low <= tick.get_loc() <= high or not axes.axison]
            unseen |= {label for tick in invisible for label in (tick.label1, tick.label2)}
    return unseen


def test_a_panel_is_drawn_alone_in_the_format_of_its_ending(tmp_path: Path) -> None:
    figure("attention-rank", RANK, "--panel", "correlations", "-o", tmp_path / "a.svg")
    assert (tmp_path / "a.svg").read_text(encoding="utf-8").count("<svg") == 1
    numbers = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))["numbers"]
    for model in numbers.values():
        np.testing.assert_allclose(model["test/spearman"], hdf5.read(RANK)["test/spearman"])
    figure("attention-rank", RANK, "--panel", "correlations", "-o", tmp_path / "b.svg")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["attention-rank", RANK, "--panel", "curv"], "did you mean 'curve'"),
        (["robustness", ROBUSTNESS, "--panel", "curve"], "the figure robustness has one panel: leave --panel out"),
        (["robustness", ROBUSTNESS, "-o", "x.gif"], "x.gif ends in no format of a picture: it must end in .png"),
        (["robustness", ROBUSTNESS, "--width", "4"], "--width needs -o, the file of the picture"),
        (["all", "-o", "x.png"], "-o needs one figure: name it instead of 'all'"),
        *(
            (
                ["robustness", ROBUSTNESS, "-o", "x.png", f"--width={text}"],
                f"'{text}' is no width from 3 to 40 inches: give one such as 3.3, 6.75 or 10.",
            )
            for text in ("1", "2.99", "40.01", "0", "-5", "nan", "inf", "-inf", "1e999", "1/0", "wide", "")
        ),
    ],
)
def test_what_cannot_be_drawn_is_said(
    words: list[object], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises((UserError, ClickException)) as error:
        figure(*words)
    assert sentence in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_picture_of_ones_own_is_not_replaced(tmp_path: Path) -> None:
    own_picture = tmp_path / "own.png"
    own_picture.write_bytes(b"mine")
    with pytest.raises(UserError, match=r"own\.png"):
        figure("attention-rank", RANK, "-o", own_picture)
    assert own_picture.read_bytes() == b"mine"


def test_seeds_of_one_variant_share_a_color_and_differ_in_dash_and_mark() -> None:
    class Seed:
        def __init__(self, seed: int) -> None:
            self.job, self.distinction = {"variant": "at", "seed": seed}, ""

    strokes = [style.choose_stroke(Seed(seed)) for seed in range(3)]  # type: ignore[arg-type]
    assert {stroke["color"] for stroke in strokes} == {style.COLORS["at"]}
    assert len({str(stroke["linestyle"]) for stroke in strokes}) == 3
    assert len({style.choose_marker(Seed(seed)) for seed in range(3)}) == 3  # type: ignore[arg-type]


def test_every_panel_is_a_picture_of_its_own(tmp_path: Path) -> None:
    paths = drawing.draw("attention-rank", [RANK], tmp_path, lambda _: None, with_pdf=False)
    stem = paths[0].stem
    assert [path.stem.removeprefix(stem) for path in paths] == ["", "-correlations", "-outcomes", "-maps"]
    assert list(figures.list_plots("attention-rank")) == ["curve", "correlations", "outcomes", "maps"]
    assert all(path.exists() for path in paths)


@pytest.mark.parametrize("step", range(4))
@pytest.mark.parametrize("is_there", [False, True])
def test_a_figure_that_was_cut_off_is_drawn_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, *, is_there: bool
) -> None:
    """Cut off before each of its four files is put in place, where there is none and where there is another's."""
    whole, folder = tmp_path / "whole", tmp_path / "folder"
    drawing = style.Drawing(mpl.figure.Figure((1, 1)), "caption", {"a": {"b": 1.0}})
    for place in (whole, folder):
        place.mkdir()
    saving.save(drawing, whole, "a", {"x.h5": "new"}, "1")
    if is_there:
        other = style.Drawing(mpl.figure.Figure((2, 1)), "other", {})
        saving.save(other, folder, "a", {"x.h5": "old"}, "1")
    count = 0

    def cut(path: Path) -> Any:
        nonlocal count
        count += 1
        if count > step:
            raise KeyboardInterrupt
        return replace_file(path)

    with monkeypatch.context() as patch:
        patch.setattr(saving, "replace_file", cut)
        with pytest.raises(KeyboardInterrupt):
            saving.save(drawing, folder, "a", {"x.h5": "new"}, "1")
    assert not saving.is_drawn(folder, "a", {"x.h5": "new"}, "1")
    assert saving.is_drawn(folder, "a", {"x.h5": "old"}, "1") == (is_there and step == 0)
    saving.save(drawing, folder, "a", {"x.h5": "new"}, "1")
    assert saving.is_drawn(folder, "a", {"x.h5": "new"}, "1")
    for path in whole.iterdir():
        assert (folder / path.name).read_bytes() == path.read_bytes()


def test_a_matplotlibrc_of_ones_own_changes_no_picture(tmp_path: Path) -> None:
    def draw(name: str) -> bytes:
        plot = style.make_figure(1.5)
        plot.add_subplot(xlabel="distance", ylabel="attention")
        return saving.save(style.Drawing(plot, "", {}), tmp_path, name, {}, "1").read_bytes()

    expected = draw("a")
    with mpl.rc_context({"figure.autolayout": True, "figure.constrained_layout.use": True}):
        assert draw("b") == expected


def test_text_without_a_place_to_break_stays_whole_in_a_narrow_figure() -> None:
    with style.use_width(3.3):
        assert style.break_label("accuracy") == "accuracy"
        plot = style.make_figure(1)
        style.set_title(plot, "a" * 200)
    assert plot.get_suptitle() == "a" * 200
