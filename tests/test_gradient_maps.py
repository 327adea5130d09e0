"""Gradient maps: closed forms, slow loops over what is stored, and the picture drawn from it."""

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from networks import Linear
from torch import Tensor, nn

from interpret_robust.analyses import gradient_maps
from interpret_robust.analyses.engine.work import Work
from interpret_robust.analyses.gradient_maps import (
    ANALYSIS,
    QUANTILES,
    SCHEMA,
    Context,
    MapSettings,
    Target,
    compute_signed_maps,
    examples,
    rows,
    summarize,
    table_row,
)
from interpret_robust.attribution.gradients import SOURCES, compute_map, draw_targets
from interpret_robust.attribution.scale_rules import RULES
from interpret_robust.cli.analysis import analysis_command
from interpret_robust.core.arrays import AnyArray
from interpret_robust.core.errors import UserError
from interpret_robust.datasets import Dataset, Split
from interpret_robust.datasets.batches import Batch, make_batch
from interpret_robust.figures import gradient_maps as figure
from interpret_robust.models import Classifier, checkpoint
from interpret_robust.results import hdf5, writer
from interpret_robust.results.columns import Columns
from interpret_robust.results.hdf5 import Result

N, C, H, W, K = 23, 3, 4, 6, 7
CPU = torch.device("cpu")
NAMES = tuple(f"kind {number}" for number in range(K))


def split(count: int = N, colors: int = C) -> Split:
    rng = np.random.default_rng(0)
    return Split(rng.integers(0, 256, (count, H, W, colors), np.uint8), rng.integers(0, K, count))


def linear(colors: int = C, seed: int = 0) -> Any:
    """A linear network with a pixel that matters so much more than others that its gradient is clipped."""
    model = Linear(colors * H * W, K, seed=seed).eval()
    with torch.no_grad():
        model.layer.weight[:, 5] *= 12
    return model


def batch(data: Split, *span: int) -> Batch:
    return make_batch(data, range(*(span or (len(data),))), CPU)


def closed_form(model: Linear, inputs: Tensor, targets: Tensor) -> AnyArray:
    """W^T (p - e_t) of each image, in float64."""
    with torch.no_grad():
        p = model(inputs).double().softmax(1) - F.one_hot(targets, K)
        flat = p @ model.layer.weight.double()
    return np.asarray(flat.reshape(inputs.shape))


def write_result(path: Path, model: nn.Module, data: Split, settings: MapSettings, *, variant: str = "at") -> Result:
    """The finished file of a model on a split, its rows in two batches."""
    context = Context(settings, set_deviation(model, data, settings))
    parts = [rows(model, batch(data, *span), context) for span in ((0, 9), (9, len(data)))]  # type: ignore[arg-type]
    config = {
        "checkpoint": {"name": path.stem, "job": {"variant": variant, "seed": 0, "class_names": list(NAMES)}},
        "settings": asdict(settings),
        "data": {"dataset": "made up", "split": "test", "images": len(data)},
    }
    axes = dict(zip(("y", "x", "color"), data.images.shape[1:], strict=True))
    with writer.open_rows(path, SCHEMA, len(data), axes, config, {}) as file:
        for part in parts:
            file.append(part)
        columns = file.columns()
        file.finish(summarize(columns, data) | examples(columns, data, settings), {})
    return hdf5.read(path, SCHEMA.label)


def set_deviation(model: nn.Module, data: Split, settings: MapSettings) -> float:
    return float(compute_signed_maps(model, batch(data), settings).maps.double().numpy().std())  # type: ignore[arg-type]


def slow_view(gradient: AnyArray, rule: str, common: float) -> AnyArray:
    """A map as an image, by the definition of each rule."""
    if rule == "min-max":
        return np.asarray((gradient - gradient.min()) / (gradient.max() - gradient.min()))
    bound = {"clip": 3 * gradient.std(), "clip-set": 3 * common, "max": np.abs(gradient).max()}[rule]
    return np.asarray(0.5 + 0.5 * np.clip(gradient / bound, -1, 1))


def test_rows_are_those_of_the_closed_form() -> None:
    model, data = linear(), split()
    columns = rows(model, batch(data), Context(MapSettings(), set_deviation(model, data, MapSettings())))
    maps = closed_form(model, batch(data).images, batch(data).labels)
    largest = np.abs(maps).max((1, 2, 3))
    by_name = {name.removeprefix("per_image/"): values for name, values in columns.items()}
    np.testing.assert_array_equal(by_name["label"], data.labels)
    np.testing.assert_array_equal(by_name["target"], data.labels)
    np.testing.assert_array_equal(by_name["image"], data.images)
    np.testing.assert_array_equal(by_name["degenerate"], 0)
    with torch.no_grad():
        logits = model(batch(data).images)
    np.testing.assert_array_equal(by_name["prediction"], logits.argmax(1))
    np.testing.assert_allclose(
        by_name["loss"], F.cross_entropy(logits, batch(data).labels, reduction="none"), rtol=1e-6
    )
    np.testing.assert_allclose(by_name["scale"], largest, rtol=1e-5)
    np.testing.assert_allclose(by_name["mean"], maps.mean((1, 2, 3)), rtol=1e-4, atol=1e-8)
    np.testing.assert_allclose(by_name["deviation"], maps.std((1, 2, 3)), rtol=1e-5)
    views = [[slow_view(gradient, rule, maps.std()) for rule in RULES] for gradient in maps]
    contrast = [[np.abs(view - 0.5).mean() for view in row] for row in views]
    shares = [[(np.minimum(view, 1 - view) < 1e-9).mean() for view in row] for row in views]
    np.testing.assert_allclose(by_name["contrast"], contrast, rtol=1e-4)
    np.testing.assert_allclose(by_name["saturated"], shares, atol=1e-6)
    assert ((by_name["saturated"] > 0).mean(0) > 0.3).all()
    assert {name: values.dtype for name, values in columns.items() if name == "per_image/map"} == {
        "per_image/map": np.float16
    }


def test_a_map_times_its_scale_is_the_gradient_to_the_precision_that_is_stated() -> None:
    model, data = linear(), split(200)
    columns = rows(model, batch(data), Context(MapSettings(), 1.0))
    maps = closed_form(model, batch(data).images, batch(data).labels)
    scale = columns["per_image/scale"].astype(np.float64)
    error = columns["per_image/map"].astype(np.float64) * scale[:, None, None, None] - maps
    relative = np.abs(error).max((1, 2, 3)) / np.abs(maps).max((1, 2, 3))
    assert 2**-14 < relative.max() <= 2**-11
    np.testing.assert_array_equal(np.abs(columns["per_image/map"]).max((1, 2, 3)), 1)


@pytest.mark.parametrize("target", get_args(Target))
def test_the_target_is_the_class_that_was_asked_for(target: Target) -> None:
    model, data = linear(), split()
    settings = MapSettings(target=target, seed=5)
    gradients = compute_signed_maps(model, batch(data, 4, 20), settings)
    with torch.no_grad():
        predicted = model(batch(data, 4, 20).images).argmax(1)
    labels = torch.from_numpy(data.labels[4:20])
    expected = {"true": labels, "predicted": predicted, "random": draw_targets(labels, range(4, 20), K, 5)}[target]
    assert torch.equal(gradients.targets, expected)
    assert not torch.equal(predicted, labels)
    np.testing.assert_allclose(
        gradients.maps, closed_form(model, batch(data, 4, 20).images, expected), rtol=1e-4, atol=1e-7
    )


@pytest.mark.parametrize("source", SOURCES)
def test_maps_are_of_the_source_that_was_asked_for(source: str) -> None:
    model, part = linear(), batch(split(), 4, 20)
    maps = compute_signed_maps(model, part, MapSettings(source=source, seed=5)).maps
    assert torch.equal(maps, compute_map(source, model, part.images, part.labels, part.indices, 5))


class Blind(nn.Module):
    """Sees only images whose first pixel is dark: the gradient of the others is zero everywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = linear()

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.linear(images) * (images[:, :1, 0, 0] < 0.5)
        return logits


@pytest.fixture
def half_blind(tmp_path: Path) -> Result:
    return write_result(tmp_path / "blind.h5", Blind(), split(), MapSettings())


def test_zero_maps_are_counted_and_gray_and_never_nan(half_blind: Result) -> None:
    zero = split().images[:, 0, 0, 0] >= 128
    assert 3 < zero.sum() < N - 3
    np.testing.assert_array_equal(half_blind["per_image/degenerate"], zero)
    assert half_blind["set/degenerate"] == zero.sum()
    assert set(half_blind["per_image/scale"][zero]) == {0}
    for name in ("map", "mean", "deviation", "saturated", "contrast"):
        assert not half_blind[f"per_image/{name}"][zero].any()
    for column, _ in SCHEMA.columns():
        assert np.isfinite(half_blind[column.path]).all(), column.path
    is_zero = zero[half_blind["examples/index"]]
    assert (half_blind["examples/view"][is_zero] == 128).all() and is_zero.any()
    assert table_row(half_blind)["zero maps"] == str(zero.sum())
    assert "constant maps" not in table_row(half_blind)


def test_maps_of_one_value_are_counted(tmp_path: Path) -> None:
    """A network that sees the sum of all pixels, and nothing of some images."""
    model = Blind()
    with torch.no_grad():
        model.linear.layer.weight.copy_(model.linear.layer.weight[:, :1].expand_as(model.linear.layer.weight))
    result = write_result(tmp_path / "flat.h5", model, split(), MapSettings())
    zero = int((split().images[:, 0, 0, 0] >= 128).sum())
    row = table_row(result)
    assert (row["zero maps"], row["constant maps"]) == (str(zero), str(N - zero))


def test_statistics_follow_from_the_stored_rows(half_blind: Result) -> None:
    columns = {column.path: half_blind[column.path] for column in SCHEMA.per_image}
    maps = columns["per_image/map"].astype(np.float64) * columns["per_image/scale"][:, None, None, None]
    assert half_blind["set/deviation"] == pytest.approx(maps.std(), rel=1e-3)
    scales = sorted(columns["per_image/scale"].tolist())
    assert half_blind["scale/quantile"][[0, 4]].tolist() == [scales[0], scales[-1]]
    assert half_blind["scale/quantile"][2] == pytest.approx(np.median(scales))
    for name in ("saturated", "contrast"):
        value, low, high = half_blind[f"view/{name}"].T
        np.testing.assert_allclose(value, columns[f"per_image/{name}"].mean(0), rtol=1e-6)
        assert (low <= value).all() and (value <= high).all() and (low[[1, 2]] < high[[1, 2]]).all()
    statistics = summarize(Columns(columns), split()) | examples(Columns(columns), split(), MapSettings())
    for name, values in statistics.items():
        np.testing.assert_array_equal(half_blind[name], values, err_msg=name)


def test_the_deviation_of_the_set_is_that_of_the_first_pass(half_blind: Result) -> None:
    expected = set_deviation(Blind(), split(), MapSettings())
    assert half_blind["set/deviation"] == pytest.approx(expected, rel=1e-6)


def test_examples_are_the_chosen_rows(tmp_path: Path) -> None:
    model, data, settings = linear(), split(), MapSettings(select="indices:20,3")
    result = write_result(tmp_path / "x.h5", model, data, settings)
    assert result["examples/index"].tolist() == [20, 3]
    for name in ("label", "prediction", "target", "scale"):
        np.testing.assert_array_equal(result[f"examples/{name}"], result[f"per_image/{name}"][[20, 3]])
    np.testing.assert_array_equal(result["examples/image"], data.images[[20, 3]])
    maps = closed_form(model, batch(data).images, batch(data).labels)
    for place, index in enumerate((20, 3)):
        largest = np.abs(maps[index]).max()
        np.testing.assert_allclose(result["examples/map"][place], maps[index], atol=largest * 2**-11)
        for number, rule in enumerate(RULES):
            view = 255 * slow_view(maps[index], rule, maps.std())
            picture = result["examples/view"][place, number].astype(float)
            np.testing.assert_allclose(picture.transpose(2, 0, 1), view, atol=0.51 + 255 * 2**-10)


def test_extremes_go_by_the_loss_the_lowest_first(tmp_path: Path) -> None:
    result = write_result(tmp_path / "x.h5", linear(), split(), MapSettings(select="extremes"))
    loss = result["per_image/loss"]
    order = np.argsort(loss)
    np.testing.assert_array_equal(result["examples/index"], [*order[:3], *order[10:13], *order[-3:]])


class Guard(Columns):
    """Columns of which maps and images cannot be read whole."""

    def __getitem__(self, path: str) -> AnyArray:
        assert path not in ("per_image/map", "per_image/image"), f"all of {path} was read"
        return super().__getitem__(path)

    def rows_at(self, path: str, indices: AnyArray) -> AnyArray:
        assert len(indices) <= 10
        return super().rows_at(path, indices)


def test_no_column_of_maps_is_read_whole(half_blind: Result) -> None:
    columns = Guard({column.path: half_blind[column.path] for column in SCHEMA.per_image})
    for select in ("first-per-class", "extremes", "random:1"):
        summarize(columns, split())
        examples(columns, split(), MapSettings(select=select))


def test_the_table_shows_the_views_that_were_asked_for(half_blind: Result) -> None:
    clip = {"clip: clipped", "clip: contrast", "clip-set: clipped", "clip-set: contrast"}
    raw = {"max: contrast", "min-max: contrast"}
    common = {"max|g|, median [10 %, 90 %]", "zero maps", "images"}
    assert table_row(half_blind).keys() == table_row(half_blind, "clip", "raw").keys() == clip | raw | common
    assert table_row(half_blind, "clip").keys() == clip | common
    assert table_row(half_blind, "raw").keys() == raw | common
    low, middle, high = np.quantile(half_blind["per_image/scale"], QUANTILES[1:4])
    assert table_row(half_blind)["max|g|, median [10 %, 90 %]"] == f"{middle:.2g} [{low:.2g}, {high:.2g}]"
    for place, rule in enumerate(RULES):
        share = 100 * half_blind["per_image/contrast"][:, place].mean()
        assert table_row(half_blind)[f"{rule}: contrast"].startswith(f"{share:.1f} % [")
    options = {name for option in analysis_command("gradient-maps", "irt").params for name in option.opts}
    assert options >= {"--clip", "--raw", "--source", "--target", "--select", "--seed"}


# A trained network, through the whole machinery.


@pytest.fixture(scope="module")
def checkpoint_path(make_checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("trained"), "at")


def work(path: Path, dataset: Dataset, folder: Path, settings: MapSettings, batch_size: int = 16) -> Work:
    return Work(
        ANALYSIS,
        checkpoint.read(path),
        dataset,
        folder,
        settings=settings,
        split="test",
        limit=None,
        batch_size=batch_size,
        device=CPU,
    )


def test_rows_do_not_depend_on_the_batch_size(checkpoint_path: Path, digits: Dataset, tmp_path: Path) -> None:
    settings = MapSettings(target="random", seed=3)
    expected, other = (
        hdf5.read(work(checkpoint_path, digits, tmp_path / str(size), settings, size).run()) for size in (40, 7)
    )
    for column, _ in SCHEMA.columns():
        size = np.abs(expected[column.path].astype(float)).max()
        tolerance = 0 if column.dtype[0] in "iu" and column.path != "examples/view" else 2e-3 * size
        np.testing.assert_allclose(
            other[column.path].astype(float), expected[column.path].astype(float), atol=tolerance, err_msg=column.path
        )


def test_a_stopped_run_goes_on_to_the_same_file(checkpoint_path: Path, digits: Dataset, tmp_path: Path) -> None:
    whole = work(checkpoint_path, digits, tmp_path / "whole", MapSettings()).run()
    first_run, starts = work(checkpoint_path, digits, tmp_path / "stopped", MapSettings()), []

    def fail_second(model: Classifier, part: Batch, context: Context) -> dict[str, AnyArray]:
        starts.append(part.indices.start)
        if len(starts) == 2:
            raise RuntimeError("as a crash would")
        return rows(model, part, context)

    first_run.analysis = replace(ANALYSIS, rows=fail_second)
    with pytest.raises(RuntimeError, match="crash"):
        first_run.run()
    assert starts == [0, 16]
    resumed_path = work(checkpoint_path, digits, tmp_path / "stopped", MapSettings()).run()
    first, second = (hdf5.attributes(path)["content_sha256"] for path in (whole, resumed_path))
    assert first == second


def test_the_stored_maps_are_those_of_autograd(checkpoint_path: Path, digits: Dataset, tmp_path: Path) -> None:
    result = hdf5.read(work(checkpoint_path, digits, tmp_path, MapSettings()).run())
    model = checkpoint.read(checkpoint_path).model(CPU)
    inputs = torch.tensor(digits.test.images / 255, dtype=torch.float32).permute(0, 3, 1, 2).requires_grad_()
    loss = F.cross_entropy(model(inputs), torch.tensor(digits.test.labels), reduction="none")
    (maps,) = torch.autograd.grad(loss.sum(), inputs)
    largest = maps.abs().amax((1, 2, 3))
    products = result["per_image/map"].astype(np.float32) * result["per_image/scale"][:, None, None, None]
    assert (np.abs(products - maps.numpy()).max((1, 2, 3)) <= 2**-11 * largest.numpy() + 1e-6).all()
    np.testing.assert_array_equal(result["per_image/image"], digits.test.images)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (MapSettings(select="best"), "--select best selects nothing"),
        (MapSettings(select="indices:3,40"), "there are images 0 to 39, not 40"),
        (MapSettings(seed=-1), "seed is -1"),
    ],
)
def test_a_wrong_setting_is_refused_before_the_first_batch(
    checkpoint_path: Path,
    digits: Dataset,
    tmp_path: Path,
    settings: MapSettings,
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gradient_maps, "compute_signed_maps", None)
    with pytest.raises(UserError, match=sentence):
        work(checkpoint_path, digits, tmp_path, settings).run()


def test_a_diverged_model_is_the_users_error(checkpoint_path: Path, digits: Dataset, tmp_path: Path) -> None:
    job = work(checkpoint_path, digits, tmp_path, MapSettings())
    with torch.no_grad():
        job.model.classifier.weight.fill_(torch.nan)
    with pytest.raises(UserError, match="not finite numbers"):
        job.run()


# The picture.


def compose(*results: Result) -> tuple[Any, list[list[Axes]]]:
    drawing = figure.draw(results)
    axes = drawing.figure.axes
    return drawing, [axes[start : start + figure.COLUMNS] for start in range(0, len(axes), figure.COLUMNS)]


def images_of(row: list[Axes]) -> list[AnyArray]:
    return [np.asarray(axes.images[0].get_array()) for axes in row if axes.images]


def corners(row: list[Axes]) -> list[str]:
    return [text.get_text() for axes in row for text in axes.texts]


def test_the_picture_shows_the_stored_images_and_maps(tmp_path: Path) -> None:
    results = [
        write_result(tmp_path / f"{variant}.h5", linear(seed=seed), split(), MapSettings(), variant=variant)
        for seed, variant in enumerate(("at", "at-att"))
    ]
    drawing, grid = compose(*results)
    assert [row[0].get_ylabel() for row in grid] == [
        "image",
        *(f"{variant}\nseed 0, {rule}" for variant in ("at", "at-att") for rule in ("clip", "raw")),
    ]
    np.testing.assert_array_equal(images_of(grid[0]), results[0]["examples/image"])
    assert [axes.get_title() for axes in grid[0]] == [*NAMES, "", "", ""]
    for place, result in enumerate(results):
        clip, raw = grid[1 + 2 * place], grid[2 + 2 * place]
        np.testing.assert_array_equal(images_of(clip), 255 - result["examples/view"][:, RULES.index("clip")])
        np.testing.assert_array_equal(images_of(raw), 255 - result["examples/view"][:, RULES.index("max")])
        label, predicted = result["examples/label"], result["examples/prediction"]
        assert corners(clip) == [NAMES[wrong] for wrong in predicted[predicted != label]]
        unit_maps = result["per_image/map"][result["examples/index"]]
        assert corners(clip) and corners(raw) == [f"max {1 / unit_map.std():.0f} sd" for unit_map in unit_maps]
        for axes in clip[:K]:
            assert axes.images[0].get_interpolation() == "none"
        numbers = drawing.numbers[f"{('at', 'at-att')[place]} seed 0"]
        assert numbers["examples/scale"] == result["examples/scale"].tolist()
        assert numbers["view/contrast"] == result["view/contrast"].tolist()
        assert numbers["examples/index"] == result["examples/index"].tolist()
    for part in (
        "Minus the gradient",
        "Zero is mid-gray",
        "3 standard deviations",
        "first-per-class among 23 test images of made up",
    ):
        assert part in drawing.caption
    assert "seed 0;" in drawing.caption and "0 maps of all models are zero" in drawing.caption


def test_images_that_differ_between_models_are_drawn_for_each(tmp_path: Path) -> None:
    settings = MapSettings(select="extremes", target="random")
    results = [
        write_result(tmp_path / f"{variant}.h5", linear(seed=seed), split(), settings, variant=variant)
        for seed, variant in enumerate(("at", "at-att"))
    ]
    drawing, grid = compose(*results)
    names = [row[0].get_ylabel() for row in grid]
    assert [name == "image" for name in names] == [True, False, False, True, False, False]
    for row, result in zip(grid[::3], results, strict=True):
        np.testing.assert_array_equal(images_of(row), result["examples/image"])
        pairs = zip(result["examples/label"], result["examples/target"], strict=True)
        assert [axes.get_title() for axes in row[:9]] == [f"{NAMES[a]}\nloss of {NAMES[b]}" for a, b in pairs]
    assert "a random wrong class" in drawing.caption and "of the highest loss" in drawing.caption


def test_gray_images_are_drawn_in_gray(tmp_path: Path) -> None:
    result = write_result(tmp_path / "x.h5", linear(1), split(colors=1), MapSettings(source="integrated-gradients"))
    drawing, grid = compose(result)
    np.testing.assert_array_equal(images_of(grid[0]), result["examples/image"][..., 0])
    np.testing.assert_array_equal(images_of(grid[1]), 255 - result["examples/view"][:, 0, :, :, 0])
    for row in grid:
        for axes in row:
            if axes.images:
                assert axes.images[0].get_clim() == (0, 255)
                assert axes.images[0].get_cmap().name == "gray"
    assert drawing.caption.startswith("Minus the integrated gradients of the cross-entropy of the true class")
