"""`irt figure -o`: one picture, in a format and a width of the user's choice."""

import json
from pathlib import Path

import make_golden
import matplotlib as mpl
import numpy as np
import pytest
from click import ClickException
from PIL import Image

from interpret_robust import analyses, cli, figures
from interpret_robust.core.errors import UserError
from interpret_robust.figures import drawing, style
from interpret_robust.results import hdf5

RANK = make_golden.file_of(analyses.get("attention-rank").schema)
ROBUSTNESS = make_golden.file_of(analyses.get("robustness").schema)


def figure(*words: object) -> None:
    cli.irt.main(["figure", *map(str, words)], standalone_mode=False)


@pytest.mark.parametrize("inches", [3.3, 6.75, 10])
def test_a_picture_is_as_wide_as_asked_and_its_text_stays_readable(tmp_path: Path, inches: float) -> None:
    path = tmp_path / "rank.png"
    figure("attention-rank", RANK, "-o", path, "--width", inches)
    with Image.open(path) as picture:
        assert picture.width == pytest.approx(200 * inches, abs=1)
    with style.wide(inches):
        drawn = drawing.compose("attention-rank", [hdf5.read(RANK)]).figure
    if inches > style.WIDTH:
        style.enlarge(drawn, inches / style.WIDTH)
    sizes = [text.get_fontsize() for axes in drawn.axes for text in axes.get_xticklabels()]
    assert min(sizes) >= mpl.rcParamsDefault["font.size"] * 0.6
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["rank.json", "rank.png"]


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
        (["robustness", ROBUSTNESS, "-o", "x.png", "--width", "1"], "1"),
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
    own = tmp_path / "own.png"
    own.write_bytes(b"mine")
    with pytest.raises(UserError, match=r"own\.png"):
        figure("attention-rank", RANK, "-o", own)
    assert own.read_bytes() == b"mine"


def test_seeds_of_one_variant_share_a_color_and_differ_in_dash_and_mark() -> None:
    class Seed:
        def __init__(self, seed: int) -> None:
            self.job = {"variant": "at", "seed": seed}

    strokes = [style.stroke(Seed(seed)) for seed in range(3)]  # type: ignore[arg-type]
    assert {stroke["color"] for stroke in strokes} == {style.COLORS["at"]}
    assert len({str(stroke["linestyle"]) for stroke in strokes}) == 3
    assert len({style.marker(Seed(seed)) for seed in range(3)}) == 3  # type: ignore[arg-type]


def test_every_panel_is_a_picture_of_its_own(tmp_path: Path) -> None:
    paths = drawing.draw("attention-rank", [RANK], tmp_path, lambda _: None, with_pdf=False)
    stem = paths[0].stem
    assert [path.stem.removeprefix(stem) for path in paths] == ["", "-correlations", "-outcomes", "-maps"]
    assert list(figures.plots("attention-rank")) == ["curve", "correlations", "outcomes", "maps"]
    assert all(path.exists() for path in paths)
