"""Pictures: from HDF5 alone, the same bytes each time, and showing the numbers of their files."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import h5py
import matplotlib as mpl
import numpy as np
import pytest
import torch
from attack_files import random, write_robustness
from make_golden import FOLDER as GOLDEN
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.text import Text

import interpret_robust as ir
from interpret_robust import analyses, figures
from interpret_robust.analyses.engine import printing
from interpret_robust.analyses.engine.work import Work
from interpret_robust.api.answers import Answers
from interpret_robust.core.arrays import AnyArray
from interpret_robust.core.errors import UserError
from interpret_robust.core.folders import Folders
from interpret_robust.datasets import Dataset, Split
from interpret_robust.figures import attention_rank, contact_sheet, drawing, overlays, style
from interpret_robust.models import checkpoint
from interpret_robust.results import hdf5
from interpret_robust.results import names as labels
from interpret_robust.results.attack_outcomes import choose_most_read
from interpret_robust.results.hdf5 import Result

NAMES = ("robustness", "attention-rank")
VARIANTS = ("at-att", "at-att-reg")


@pytest.fixture(scope="module")
def analyses_folder(
    digits: Dataset, make_checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder with both analyses of two models."""
    folder = tmp_path_factory.mktemp("analyzed")
    for path in [make_checkpoint(folder, variant) for variant in VARIANTS]:
        for name in NAMES:
            analyze(path, digits, folder, name)
    return folder


def analyze(path: Path, dataset: Dataset, folder: Path, name: str, limit: int | None = None) -> Path:
    steps: dict[str, Any] = {"pgd": "2", "cw": "1"} if name == "robustness" else {"steps": 2}
    settings = analyses.get(name).settings(eps=2 / 255, **steps)
    plain: dict[str, Any] = {"settings": settings, "split": "train", "limit": limit, "batch_size": 60}
    return Work(analyses.get(name), checkpoint.read(path), dataset, folder, device=torch.device("cpu"), **plain).run()


def files(folder: Path, name: str) -> list[Path]:
    """The files of an analysis in the paper's order."""
    return sorted(folder.glob(f"{name}-*.h5"), key=lambda path: labels.order(hdf5.read(path)))


@pytest.fixture(scope="module")
def pictures(
    analyses_folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
    quick_pictures: Callable[[pytest.MonkeyPatch], None],
) -> Path:
    """A folder with both pictures, drawn in this process as users do and with nothing global changed."""
    folder = tmp_path_factory.mktemp("drawn")
    settings = mpl.rcParams.copy()
    with pytest.MonkeyPatch.context() as patch:
        quick_pictures(patch)
        for name in NAMES:
            lines: list[str] = []
            paths = drawing.draw(name, files(analyses_folder, name), folder, lines.append)
            assert lines == [f"drew {path.name}" for path in paths]
    assert mpl.rcParams.copy() == settings
    return folder


def picture(array: Any) -> AnyArray:
    return np.asarray(array.get_array())


def plain(values: AnyArray) -> Any:
    """As JSON holds them: what is not a number is null."""
    return json.loads(json.dumps(values.tolist()).replace("NaN", "null"))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


DRAW = """
import sys
import matplotlib
before = matplotlib.rcParams.copy()
from pathlib import Path
from interpret_robust.figures import drawing
for name in ("robustness", "attention-rank"):
    drawing.draw(name, list(Path(sys.argv[1]).glob(f"{name}-*.h5")), Path(sys.argv[2]), lambda _: None)
changed = [key for key in before if before[key] != matplotlib.rcParams[key]]
absent = ("torch", "matplotlib.pyplot", "interpret_robust.models.classifier")
print(changed, [name for name in absent if name in sys.modules])
"""


def luminance(color: str) -> float:
    """The relative luminance of WCAG 2."""
    channels = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in to_rgb(color)]
    return float(np.dot(channels, (0.2126, 0.7152, 0.0722)))


def test_no_variant_is_drawn_in_a_color_that_is_faint_on_white() -> None:
    assert 1.05 / (luminance("#F0E442") + 0.05) == pytest.approx(1.32, abs=0.01)  # as yellow is
    assert min(1.05 / (luminance(color) + 0.05) for color in (*style.COLORS.values(), *style.OTHER_COLORS)) > 2
    assert len(set(style.COLORS.values())) == len(style.COLORS)


@pytest.mark.long
def test_pictures_need_no_torch_and_come_out_the_same_in_every_byte(
    analyses_folder: Path, pictures: Path, tmp_path: Path
) -> None:
    environment = os.environ | {"MPLBACKEND": "agg", "TZ": "Pacific/Auckland", "PYTHONHASHSEED": "7"}
    command = [sys.executable, "-W", "error", "-c", DRAW, str(analyses_folder), str(tmp_path)]
    process = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    assert process.stdout == "[] []\n"
    assert contents(pictures) == contents(tmp_path)
    assert sorted(path.suffix for path in pictures.iterdir()) == [".json"] * 5 + [".pdf"] * 5 + [".png"] * 5
    for path in pictures.iterdir():
        assert path.read_bytes().startswith({".png": b"\x89PNG", ".pdf": b"%PDF", ".json": b"{"}[path.suffix])
        assert (b"/FontFile2" in path.read_bytes()) == (path.suffix == ".pdf"), "text in a PDF is TrueType"


def test_a_picture_is_drawn_again_only_from_other_files(analyses_folder: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    paths = files(analyses_folder, "robustness")
    (image,) = drawing.draw("robustness", paths, tmp_path, lines.append)
    first = contents(tmp_path)
    drawing.draw("robustness", paths[::-1], tmp_path, lines.append)
    assert contents(tmp_path) == first
    image.with_suffix(".pdf").unlink()
    drawing.draw("robustness", paths, tmp_path, lines.append)
    assert contents(tmp_path) == first
    drawing.draw("robustness", paths[:1], tmp_path, lines.append)
    assert contents(tmp_path).keys() == first.keys() and contents(tmp_path) != first
    name = image.name
    assert lines == [f"drew {name}", f"{name} is there already", f"redrew {name}", f"redrew {name}"]


def test_a_pdf_is_drawn_only_where_it_is_asked_for_or_there(
    analyses_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    lines: list[str] = []
    paths, tmp_path, reference = files(analyses_folder, "robustness"), *map(tmp_path_factory.mktemp, ("some", "all"))
    drawing.draw("robustness", paths, reference, lambda _: None)
    (picture,) = drawing.draw("robustness", paths, tmp_path, lines.append, with_pdf=False)
    whole = contents(reference)
    assert contents(tmp_path) == {name: content for name, content in whole.items() if not name.endswith(".pdf")}
    drawing.draw("robustness", paths, tmp_path, lines.append, with_pdf=False)
    drawing.draw("robustness", paths, tmp_path, lines.append)
    assert contents(tmp_path) == whole
    drawing.draw("robustness", paths, tmp_path, lines.append, with_pdf=False)
    assert contents(tmp_path) == whole
    drawing.draw("robustness", paths[:1], tmp_path, lines.append, with_pdf=False)
    assert contents(tmp_path)[f"{picture.stem}.pdf"] != whole[f"{picture.stem}.pdf"], "it shows what the PNG shows"
    note = f"{picture.name} is there already"
    assert lines == [f"drew {picture.name}", note, f"redrew {picture.name}", note, f"redrew {picture.name}"]


@pytest.mark.parametrize("name", NAMES)
def test_the_caption_holds_the_numbers_of_the_files(analyses_folder: Path, pictures: Path, name: str) -> None:
    paths = files(analyses_folder, name)
    captions = [json.loads(text.read_text()) for text in sorted(pictures.glob(f"{name}-*.json"))]
    assert len(captions) == len(figures.list_plots(name))
    for caption in captions:
        assert caption["inputs"] == {path.name: hdf5.attributes(path)["content_sha256"] for path in paths}
        assert caption["numbers"].keys() == {f"{variant} seed 0" for variant in VARIANTS}
        for variant, path in zip(VARIANTS, paths, strict=True):
            result, numbers = hdf5.read(path), caption["numbers"][f"{variant} seed 0"]
            expected = accuracies(result) if name == "robustness" else {key: result[key] for key in numbers}
            assert numbers == {key: plain(values) for key, values in expected.items()} != {}
        assert "60 train images" in caption["caption"]
        assert "at eps 2/255" in caption["caption"]


def test_captions_and_tables_name_the_weights_that_stand_in_place_of_attention(
    digits: Dataset, make_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    name = "attention-rank"
    settings = analyses.get(name).settings(steps=1, spatial_weight="feature-norm")
    subject = checkpoint.read(make_checkpoint(tmp_path, "at-att"))
    plain: dict[str, Any] = {"settings": settings, "split": "test", "limit": 8, "device": torch.device("cpu")}
    file = Work(analyses.get(name), subject, digits, tmp_path, **plain).run()
    caption = drawing.compose(name, [hdf5.read(file)]).caption
    assert f"In place of attention, feature norm is used for {subject.name}." in caption and "Grad-CAM" not in caption
    plain["settings"] = replace(settings, spatial_weight="attention")
    other = Work(analyses.get(name), subject, digits, tmp_path, **plain).run()
    pair = [hdf5.read(path) for path in (file, other)]
    sentence = "In place of attention, feature norm is used for at-att seed 0, feature norm."
    assert sentence in drawing.compose(name, pair).caption
    (table,) = printing.make_tables(pair)
    assert [row["weights"] for row in table] == ["feature norm", "attention"] and sentence in table.note
    assert "weights" not in printing.make_tables(pair[:1])[0][0]


def accuracies(result: Result) -> dict[str, AnyArray]:
    """What a picture shows of a model that has no copies: its first reading stands for its attacks."""
    return {
        "natural images": result["accuracy/natural"][0],
        "PGD-2, white-box": result["accuracy/adversarial"][0, 0],
        "worst case, white-box": result["accuracy/worst"][0],
    }


def test_the_curve_drawn_is_the_curve_stored(analyses_folder: Path) -> None:
    results = [hdf5.read(path) for path in files(analyses_folder, "attention-rank")]
    curve = figures.get("attention-rank").draw(results).figure.axes[0]
    lines = {line.get_label(): line for line in curve.lines}
    *bands, null = curve.collections
    for variant, result, band in zip(VARIANTS, results, bands, strict=True):
        line = lines[f"{variant} seed 0"]
        np.testing.assert_array_equal(line.get_xdata(), np.arange(64))
        np.testing.assert_array_equal(line.get_ydata(), result["curve/attention_mean"])
        assert to_hex(line.get_color()).upper() == style.COLORS[variant]
        assert edges(band) == {*result["curve/attention_low"], *result["curve/attention_high"]}
    assert set(lines["uniform"].get_ydata()) == {1 / 64}
    control = np.stack([result["curve/shuffled_null"] for result in results])
    assert edges(null) == {*control[:, :, 1].min(0), *control[:, :, 2].max(0)}


def edges(band: Any) -> set[float]:
    """The heights of a band's corners."""
    return set(band.get_paths()[0].vertices[:, 1])


def test_correlations_drawn_are_those_stored(analyses_folder: Path) -> None:
    results = [hdf5.read(path) for path in files(analyses_folder, "attention-rank")]
    spread, controls = figures.list_plots("attention-rank")["correlations"](results).figure.axes
    assert marks(spread) == [(row, *result["test/spearman"]) for row, result in enumerate(results)]
    assert [text.get_text() for text in spread.get_yticklabels()] == [f"{variant} seed 0" for variant in VARIANTS]
    names = [f"test/spearman{end}" for end in ("", "_relative", "_partial", "_noise", "_position")]
    points = marks(controls)
    assert [(round(mark[0]), *mark[1:]) for mark in points] == [
        (row, *result[name]) for row, result in enumerate(results) for name in names
    ]
    rows = [mark[0] for mark in points]
    assert rows == sorted(rows) and len(set(rows)) == len(rows)


def marks(axes: Axes) -> list[tuple[Any, ...]]:
    """Row, value, low and high of each mark with its bar."""
    points = []
    for mark, _, (bar,) in axes.containers:
        (low, _), (high, _) = bar.get_segments()[0]
        value = mark.get_xdata()[0]
        # The bar is drawn from its two lengths, which rounds its ends.
        points.append((float(mark.get_ydata()[0]), value, pytest.approx(low), pytest.approx(high)))
    return points


def test_curves_by_outcome_are_drawn_where_there_are_enough_images(analyses_folder: Path) -> None:
    results = [hdf5.read(path) for path in files(analyses_folder, "attention-rank")]
    panels = figures.list_plots("attention-rank")["outcomes"](results).figure.axes
    count = 0
    for axes, result in zip(panels, results, strict=True):
        outcomes = ("attack_failed", "attack_succeeded")
        counts = [int(result[f"curve/{outcome}_images"]) for outcome in outcomes]
        assert axes.get_title().endswith("{} / {} images".format(*counts))
        enough = [outcome for outcome, count in zip(outcomes, counts, strict=True) if count >= 10]
        for line, outcome in zip(axes.lines[:-1], enough, strict=True):
            np.testing.assert_array_equal(line.get_ydata(), result[f"curve/{outcome}"][:, 0])
            assert line.get_linestyle() == {"attack_failed": "-", "attack_succeeded": ":"}[outcome]
            count += 1
        assert [text.get_text() for text in axes.texts] == ([] if enough else ["fewer than 10\nimages of each"])
    assert count > 0


def test_a_panel_without_enough_images_of_any_outcome_says_so(
    analyses_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = [hdf5.read(path) for path in files(analyses_folder, "attention-rank")]
    monkeypatch.setattr(attention_rank, "FEWEST", 1000)
    for axes in figures.list_plots("attention-rank")["outcomes"](results).figure.axes:
        assert [text.get_text() for text in axes.texts] == ["fewer than 1000\nimages of each"]
        assert len(axes.lines) == 1


def test_example_maps_are_those_stored_on_one_color_scale(analyses_folder: Path, digits: Dataset) -> None:
    results = [hdf5.read(path) for path in files(analyses_folder, "attention-rank")]
    plot = figures.list_plots("attention-rank")["maps"](results).figure
    images = [axes.images[-1] for axes in plot.axes if axes.images]
    assert len(images) == 1 + 2
    index = [digits.train.labels.tolist().index(label) for label in range(10)]
    np.testing.assert_array_equal(picture(images[0]), overlays.make_strip(digits.train.images[index], (32, 32)))
    bright = np.percentile(np.stack([result["examples/attention"] for result in results]), 99)
    for image, result in zip(images[1:], results, strict=True):
        maps = result["per_image/attention"][index].reshape(10, 8, 8)
        np.testing.assert_array_equal(picture(image), overlays.make_strip(maps, (32, 32)))
        assert image.get_clim() == (0, pytest.approx(bright))


def test_a_strip_holds_each_picture_with_gaps_between() -> None:
    maps = np.arange(1.0, 13).reshape(2, 2, 3)
    strip = overlays.make_strip(maps, (4, 6))
    gap = np.full((4, 3), np.nan)
    large = [np.kron(small, np.ones((2, 2))) for small in maps]
    np.testing.assert_array_equal(strip, np.hstack([large[0], gap, large[1], gap]))
    images = np.arange(2 * 2 * 4 * 3, dtype=np.uint8).reshape(2, 2, 4, 3)
    strip = overlays.make_strip(images, (2, 4))
    assert strip.shape == (2, 12, 3) and strip.dtype == np.uint8
    np.testing.assert_array_equal(strip[:, 6:10], images[1])
    assert np.all(strip[:, 4:6] == 255)


def test_a_strip_draws_maps_to_the_size_of_the_pictures_where_their_grid_does_not_divide_it() -> None:
    maps = np.array([[[1.0, 4.0, 7.0]], [[2.0, 2.0, 8.0]]], np.float32)
    strip = overlays.make_strip(maps, (2, 4))
    assert strip.shape == (2, 12) and strip.dtype == np.float32
    np.testing.assert_allclose(strip[:, :4], [[1, 3, 5, 7]] * 2, rtol=1e-6)  # 4 pixels, each 3/4 of a place wide
    np.testing.assert_allclose(strip[:, 6:10], [[2, 2, 4, 8]] * 2, rtol=1e-6)


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (0.0045, 0.08, "0.005 0.01 0.02 0.05"),
        (0.7, 16, "1 2 5 10"),
        (0.7, 29, "1 3 10"),
        (0.04, 3.2, "0.1 0.3 1 3"),
        (4e-5, 0.7, "0.0001 0.001 0.01 0.1"),
        (0.9, 2e8, "10 1000 100000 1e+07"),
        (3.1, 4.6, "3.2 3.6 4 4.4"),
    ],
)
def test_a_logarithmic_axis_has_few_plain_labels(low: float, high: float, labels: str) -> None:
    figure = style.make_figure(0.9)
    with mpl.rc_context(style.RC):
        axes = figure.subplots()
        axes.set_ylim(low, high)
        style.scale_log(axes, "y")
    figure.draw_without_rendering()
    texts = [label for label in axes.yaxis.get_ticklabels(which="both") if label.get_text()]
    assert [label.get_text() for label in texts] == labels.split()
    boxes = [label.get_window_extent() for label in texts]
    assert all(lower.y1 <= upper.y0 for lower, upper in pairwise(boxes))


def test_accuracies_drawn_are_those_stored(tmp_path: Path) -> None:
    results = [random(tmp_path, models, seed) for seed, models in enumerate(([("at", 0), ("at", 1)], [("at-reg", 0)]))]
    results.insert(1, random(tmp_path, [("at", 1), ("at", 0)], 2))
    plot = figures.get("robustness").draw(results)
    transfers = [results[1]["accuracy/adversarial"][1, 1], results[0]["accuracy/adversarial"][1, 1], None]
    expected = []
    for row, (result, other) in enumerate(zip(results, transfers, strict=True)):
        color = style.COLORS[result.job["variant"]]
        shape = style.choose_marker(result)
        rows = {
            (row, shape, "white"): result["accuracy/natural"][0],
            (row, shape, color): result["accuracy/adversarial"][1, 0],
            (row - 0.24, "x", color): other,
            (row + 0.24, "|", color): result["accuracy/worst"][0],
        }
        expected += [(*key, *(100 * values)) for key, values in rows.items() if values is not None]
    (axes,) = plot.figure.axes
    points = []
    for mark, _, (bar,) in axes.containers:
        (low, _), (high, _) = bar.get_segments()[0]
        point = (mark.get_ydata()[0], mark.get_marker(), mark.get_markerfacecolor(), mark.get_xdata()[0], low, high)
        points.append(tuple(pytest.approx(value) if isinstance(value, float) else value for value in point))
    assert points == expected
    assert [text.get_text() for text in plot.figure.legends[0].get_texts()] == [
        *("natural images", "PGD-20, white-box", "PGD-20, black-box", "worst case, white-box")
    ]
    assert list(plot.numbers["at seed 1"]["PGD-20, black-box"]) == results[0]["accuracy/adversarial"][1, 1].tolist()
    assert "PGD-20, black-box" not in plot.numbers["at-reg seed 0"]
    assert "Black-box: attacked on the other seeds" in plot.caption
    assert "Black-box" not in figures.get("robustness").draw(results[2:]).caption


def test_files_that_cannot_be_drawn_are_refused(
    analyses_folder: Path, digits: Dataset, make_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    good = files(analyses_folder, "robustness")
    short = analyze(make_checkpoint(tmp_path), digits, tmp_path, "robustness", limit=20)
    partial = tmp_path / "unfinished.h5"
    shutil.copyfile(good[0], partial)
    with h5py.File(partial, "r+") as file:
        file.attrs["complete"] = False
    cut = tmp_path / "damaged.h5"
    cut.write_bytes(good[0].read_bytes()[:2000])
    cases: list[tuple[list[Path], str]] = [
        ([tmp_path / "none.h5"], "there is no analysis file"),
        ([*good, partial], "is unfinished"),
        ([cut], "is damaged"),
        (files(analyses_folder, "attention-rank"), "holds attention-rank/3, and robustness is needed"),
    ]
    for paths, sentence in cases:
        with pytest.raises(UserError, match=sentence) as error:
            drawing.draw("robustness", paths, tmp_path / "figures", lambda _: None)
        assert str(paths[-1]) in str(error.value) or str(paths[0]) in str(error.value)
    with pytest.raises(UserError, match=r"cannot share a picture: data\.images is 60, here 20") as error:
        drawing.draw_to(tmp_path / "one.png", "robustness", [*good, short], Folders(tmp_path))
    assert str(good[0]) in str(error.value) and str(short) in str(error.value)
    assert not (tmp_path / "figures").exists() and not (tmp_path / "one.png").exists()


def test_files_that_cannot_share_a_picture_get_one_each(
    analyses_folder: Path, digits: Dataset, make_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    good = files(analyses_folder, "robustness")
    short = analyze(make_checkpoint(tmp_path), digits, tmp_path, "robustness", limit=20)
    pictures = drawing.draw("robustness", [*good, short], tmp_path / "figures", lambda _: None)
    inputs = [json.loads(path.with_suffix(".json").read_text())["inputs"].keys() for path in pictures]
    assert inputs == [{path.name for path in good}, {short.name}]


RANKS = [
    Path(__file__).parents[1] / f"analyses/attention-rank-cifar10-{architecture}-at-att-seed0-test-first1000.h5"
    for architecture in ("small", "narrow")
]


def test_models_of_two_architectures_are_told_apart_in_one_picture(tmp_path: Path) -> None:
    pictures = drawing.draw("attention-rank", RANKS, tmp_path, lambda _: None, panel="correlations")
    assert [path.name for path in pictures] == ["attention-rank-cifar10-narrow-small-test-first1000-correlations.png"]
    numbers = json.loads(pictures[0].with_suffix(".json").read_text())["numbers"]
    for architecture, path in zip(("small", "narrow"), RANKS, strict=True):
        expected = hdf5.read(path)["test/spearman"].tolist()
        assert numbers[f"at-att, {architecture} seed 0"]["test/spearman"] == expected
    assert len(drawing.draw_all("attention-rank", RANKS, tmp_path, lambda _: None, panel="correlations")) == 2
    results = drawing.distinguish([hdf5.read(path) for path in RANKS])
    assert drawing.distinguish(results) == results
    assert [style.choose_stroke(result)["color"] for result in results] == ["#009E73", "#73CAB2"]


def test_pictures_of_two_networks_on_two_sets_of_images_have_two_names(tmp_path: Path) -> None:
    """Whichever network is named first."""
    small, narrow = (hdf5.read(path) for path in RANKS)
    others = [
        replace(result, config={**result.config, "data": {**result.data, "sha256": "0"}}) for result in (small, narrow)
    ]
    for results in ([small, narrow, *others[::-1]], [narrow, small, *others]):
        groups = drawing.group_results(results, with_architecture=False)
        folder = tmp_path / results[0].job["architecture"]
        pictures = drawing._draw_groups(
            "attention-rank", groups, folder, lambda _: None, "correlations", with_pdf=False
        )
        assert len({*pictures}) == 2
    assert len({path.name for path in tmp_path.glob("*/*.png")}) == 2


def test_models_of_two_networks_are_in_the_paper_s_order() -> None:
    folder = Path(__file__).parents[1] / "analyses"
    names = ["narrow-at-att", "narrow-natural-att", "small-at-att", "narrow-natural-linear-att", "small-at-att-reg"]
    results = [hdf5.read(folder / f"attention-rank-cifar10-{name}-seed0-test-first1000.h5") for name in names]
    assert [labels.label(result) for result in sorted(drawing.distinguish(results), key=labels.order)] == [
        "natural-linear-att, narrow seed 0",
        "natural-att, narrow seed 0",
        "at-att, narrow seed 0",
        "at-att, small seed 0",
        "at-att-reg, small seed 0",
    ]


def test_colors_of_variants_and_networks_are_different() -> None:
    variants, networks = style.COLORS, ("small", *style.TINTS)
    colors = [style.choose_color(f"{variant}, {network}") for variant in variants for network in networks]
    distances = [np.abs(np.subtract(to_rgb(a), to_rgb(b))).max() for a, b in combinations(colors, 2)]
    assert min(distances) > 0.03


def test_a_program_draws_no_picture_of_models_on_other_images() -> None:
    answers = [ir.open(path) for path in RANKS]
    answers[1].result.config["data"]["images"] = 5
    with pytest.raises(
        UserError, match=r"narrow-at-att-seed0 in .*\.h5 cannot share a picture: data\.images is 1000, here 5"
    ):
        Answers(answers).figure()
    assert Answers(answers)._repr_html_().count("<img") == 2 * len(figures.list_plots("attention-rank"))


def sheet(split: Split) -> list[Axes]:
    """The axes of a contact sheet of three classes, one a class."""
    dataset = Dataset("made", split, split, ("nought", "one", "two"))
    plot = contact_sheet.draw(dataset, "test")
    assert f"({len(split)} images)" in plot.caption
    return plot.figure.axes


def pictures_in(axes: Axes, count: int) -> list[AnyArray]:
    """So many pictures of a row of a sheet, which has room for twelve and nothing but white beside them."""
    (image,) = axes.images
    strip = picture(image)
    step = strip.shape[1] // count
    gap = -(-len(strip) // 16)
    assert (step, axes.get_xlim()) == (len(strip) + gap, (-0.5, 12 * step - 0.5))
    pictures = np.split(strip, count, axis=1)
    assert all((each[:, -gap:] == 255).all() for each in pictures)
    return [each[:, :-gap] for each in pictures]


def test_a_contact_sheet_shows_the_first_images_of_each_class(digits: Dataset) -> None:
    keep = digits.train.labels < 3
    labels = digits.train.labels[keep]
    masks = digits.train.masks
    assert masks is not None
    split = Split(digits.train.images[keep], labels, masks[keep])
    for row, axes in enumerate(sheet(replace(split, masks=None))):
        images = split.images[labels == row][:12]
        np.testing.assert_array_equal(pictures_in(axes, len(images)), images)
        assert axes.get_ylabel() == f"{('nought', 'one', 'two')[row]} ({(labels == row).sum()})"
    for row, axes in enumerate(sheet(split)):
        images, regions = split.images[labels == row][:6], masks[keep][labels == row][:6]
        pictures = pictures_in(axes, 2 * len(images))
        np.testing.assert_array_equal(pictures[::2], images)
        for image, mask, shade in zip(images, regions, pictures[1::2], strict=True):
            assert 0 < mask.sum() < mask.size
            np.testing.assert_array_equal(shade[mask], image[mask])
            np.testing.assert_array_equal(shade[~mask], image[~mask] // 5)


def test_a_contact_sheet_of_gray_images_is_gray() -> None:
    images = np.random.default_rng(0).integers(0, 256, (9, 8, 8, 1), np.uint8)
    for row, axes in enumerate(sheet(Split(images, np.arange(9) % 3))):
        np.testing.assert_array_equal(pictures_in(axes, 3), images[row::3, :, :, 0])
        assert axes.images[0].get_clim() == (0, 255) and axes.images[0].get_cmap().name == "gray"


def test_of_two_files_of_one_attack_the_one_that_more_models_read_is_drawn(tmp_path: Path) -> None:
    alone = write_robustness(tmp_path, [("at", 0)], np.ones((5, 1), bool), np.ones((5, 1, 3, 1), bool))
    by_all = write_robustness(
        tmp_path,
        [("at", 0), ("at", 1), ("at-att", 0)],
        np.ones((5, 3), bool),
        np.ones((5, 1, 3, 3), bool),
        by_matrix=True,
    )
    other = write_robustness(tmp_path, [("at-att", 0)], np.ones((5, 1), bool), np.ones((5, 1, 3, 1), bool))
    files = [by_all, alone, other]
    assert choose_most_read(files) == [by_all, other] and choose_most_read(files[1:]) == [alone, other]
    (picture,) = drawing.draw_all("robustness", [file.path for file in files], tmp_path / "figures", lambda _: None)
    assert set(json.loads(picture.with_suffix(".json").read_text())["numbers"]) == {"at seed 0", "at-att seed 0"}


def test_a_picture_of_some_answers_is_that_of_their_folder(tmp_path: Path) -> None:
    """With the others that belong there, without pictures of other answers, and whatever damaged file lies beside."""
    folders = Folders(tmp_path)
    folders.analyses.mkdir()
    whole = np.ones((5, 1), bool), np.ones((5, 1, 3, 1), bool)
    first, second, wide = (
        write_robustness(folders.analyses, [("at", seed)], *whole, architecture=architecture)
        for seed, architecture in ((0, "small"), (1, "small"), (0, "narrow"))
    )
    (picture,) = drawing.draw_answers("robustness", [first.path], folders, lambda _: None, with_pdf=False)
    numbers = json.loads(picture.with_suffix(".json").read_text())["numbers"]
    assert list(numbers) == ["at seed 0", "at seed 1"] and second.path != wide.path
    messages: list[str] = []
    pictures = drawing.draw_folder(["robustness"], folders, messages.append, with_pdf=False)
    assert len(pictures) == 2 and f"{picture.name} is there already" in messages
    wide.path.write_bytes(wide.path.read_bytes()[:1000])
    assert drawing.draw_answers("robustness", [second.path], folders, messages.append, with_pdf=False) == [picture]
    with pytest.raises(UserError, match="damaged"):
        drawing.draw_answers("robustness", [wide.path], folders, messages.append, with_pdf=False)


def test_one_file_of_weights_behind_two_normalizations_is_drawn_as_two_models(tmp_path: Path) -> None:
    files = [
        random(tmp_path, [("mine", None)], place, architecture="any", normalize=name)
        for place, name in enumerate(("imagenet", "none"))
    ]
    (picture,) = drawing.draw_all("robustness", [file.path for file in files], tmp_path / "figures", lambda _: None)
    numbers = json.loads(picture.with_suffix(".json").read_text())["numbers"]
    assert list(numbers) == ["mine, normalize imagenet", "mine, normalize none"]
    plot = drawing.compose("robustness", files)
    for result, by_model in zip(files, (numbers, plot.numbers), strict=True):
        name = labels.label(labels.tell_apart(files)[files.index(result)])
        assert by_model[name]["natural images"] == pytest.approx(result["accuracy/natural"][0])
        assert by_model[name]["PGD-20, white-box"] == pytest.approx(result["accuracy/adversarial"][1, 0])
        assert by_model[name]["worst case, white-box"] == pytest.approx(result["accuracy/worst"][0])
    assert [text.get_text() for text in plot.figure.axes[0].get_yticklabels()] == list(numbers)


def test_lines_under_a_figure_lie_below_a_label_of_all_panels() -> None:
    with style.use_width(3.3):
        figure = style.make_figure(2)
        axes = figure.subplots(1, 2)
        figure.supxlabel("read as the true class, %", fontsize=8)
        style.write_below(figure, {"cifar10, small, 1000 test images": "gray", drawing.DOUBT: "red"})
        figure.canvas.draw()
    label, subject, mark = (
        next(text for text in figure.findobj(Text) if text.get_text().startswith(start)).get_window_extent()
        for start in ("read as", "cifar10", "In doubt")
    )
    assert figure.get_figheight() == pytest.approx(2 + 2 * style.STRIP)
    assert mark.y0 >= 0 and mark.y1 <= subject.y0 and subject.y1 <= label.y0 and min(mark.x0, subject.x0) >= 0
    assert label.y1 <= min(panel.get_tightbbox().y0 for panel in axes)


@pytest.mark.parametrize("name", figures.list_names())
def test_every_picture_says_whose_images_it_is_of_and_how_many(name: str) -> None:
    result = hdf5.read(max(GOLDEN.glob(f"{name}-*.h5")))
    for panel in figures.list_plots(name):
        figure = drawing.compose(name, [result], panel or None).figure
        texts = [figure.get_suptitle(), *(text.get_text() for text in figure.texts)]
        subject = f"{result.data['dataset']}, small, {result.count} test images"
        assert any(text.startswith(subject) for text in texts)


@pytest.mark.parametrize(("classes", "rest"), [(23, " 3 classes more are not drawn."), (20, "")])
def test_a_contact_sheet_of_many_classes_says_how_many_are_not_drawn(classes: int, rest: str) -> None:
    split = Split(np.zeros((46, 5, 4, 3), np.uint8), np.arange(46) % classes)
    sheet = contact_sheet.draw(Dataset("many", split, split, tuple(f"c{label}" for label in range(classes))), "test")
    assert len(sheet.figure.axes) == 20 and sheet.caption.endswith(f"a class has.{rest}")


def test_models_from_elsewhere_have_colors_that_follow_from_their_names() -> None:
    names = [f"net{number}" for number in range(40)]
    assert [style.choose_color(name) for name in names] == [style.choose_color(name) for name in names]
    assert {style.choose_color(name) for name in names} == set(style.OTHER_COLORS)
    assert style.choose_color("at") == style.COLORS["at"] not in style.OTHER_COLORS
