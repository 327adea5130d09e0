"""Attention under attack: distances in closed form, slow loops, the choice of images, and the picture."""

import itertools
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from torch import Tensor, nn

from interpret_robust import figures
from interpret_robust.analyses import attention_maps
from interpret_robust.analyses.attention_maps import MapsSettings, rows, summarize, total_variation_distance
from interpret_robust.analyses.engine.work import Work
from interpret_robust.core.arrays import AnyArray
from interpret_robust.core.errors import UserError
from interpret_robust.datasets import Dataset, Split
from interpret_robust.datasets.batches import Batch
from interpret_robust.figures import drawing, overlays, style
from interpret_robust.figures.attention_maps import WRONG
from interpret_robust.models import Classifier, checkpoint
from interpret_robust.models.attention import AveragePool, LinearAttention
from interpret_robust.results import hdf5
from interpret_robust.results import names as labels
from interpret_robust.results.columns import Columns

N, C, H, W = 30, 3, 4, 5
PER_IMAGE = {column.path for column in attention_maps.SCHEMA.per_image}
CPU = torch.device("cpu")
Make = Callable[..., Path]


@dataclass(frozen=True)
class Darker(MapsSettings):
    """An attack that halves the first channel."""

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, indices: Sequence[int]) -> Tensor:
        darker = images.clone()
        darker[:, 0] /= 2
        return darker


def known_model(head: nn.Module) -> Classifier:
    """A model whose local features are its images."""
    torch.manual_seed(0)
    return Classifier(nn.Identity(), head, nn.Linear(C, 4)).eval()


def linear_attention() -> Classifier:
    head = LinearAttention(C)
    with torch.no_grad():
        head.score.weight.copy_(torch.tensor([3.0, -2.0, 1.0]).reshape(1, C, 1, 1))
    return known_model(head)


def batch(count: int = N) -> Batch:
    images = torch.rand((count, C, H, W), generator=torch.Generator().manual_seed(1))
    return Batch(images, torch.arange(count) % 4, range(count), None)


def split(count: int = N) -> Split:
    return Split(np.random.default_rng(0).integers(0, 256, (count, H, W, C), np.uint8), np.arange(count) % 4)


def known_rows() -> dict[str, AnyArray]:
    return rows(linear_attention(), batch(), Darker(spatial_weight="attention"))


def summary(arrays: dict[str, AnyArray]) -> dict[str, Any]:
    return summarize(Columns(arrays), split(len(arrays["per_image/label"])))


def softmax(scores: Sequence[float]) -> list[float]:
    total = sum(math.exp(score) for score in scores)
    return [math.exp(score) / total for score in scores]


def distance(first: Any, second: Any) -> float:
    return float(sum(abs(a - b) for a, b in zip(first, second, strict=True))) / 2


def test_the_distance_of_maps_in_closed_form() -> None:
    first = np.array([[0.5, 0.5, 0, 0], [0.5, 0.5, 0, 0], [1, 0, 0, 0], [np.nan] * 4])
    second = np.array([[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5], [0.7, 0.2, 0.1, 0], [0.25] * 4])
    np.testing.assert_allclose(total_variation_distance(first, second), [0, 1, 0.3, np.nan], atol=1e-15)
    np.testing.assert_allclose(total_variation_distance(second, first), [0, 1, 0.3, np.nan], atol=1e-15)


def test_the_distance_is_the_largest_difference_of_any_set_of_positions() -> None:
    first, second = np.random.default_rng(0).dirichlet(np.ones(6), (2, 5))
    for row, value in enumerate(total_variation_distance(first, second)):
        sets = itertools.chain.from_iterable(itertools.combinations(range(6), size) for size in range(7))
        largest = max(abs(first[row, list(subset)].sum() - second[row, list(subset)].sum()) for subset in sets)
        assert value == pytest.approx(largest, abs=1e-12)


def test_rows_are_those_of_a_slow_loop() -> None:
    model, images, columns = linear_attention(), batch().images, known_rows()
    darker = Darker()(model, images, torch.zeros(N), range(N))
    with torch.no_grad():
        np.testing.assert_array_equal(columns["per_image/prediction_clean"], model(images).argmax(1))
        np.testing.assert_array_equal(columns["per_image/prediction_adversarial"], model(darker).argmax(1))
    for n in range(N):
        clean, adversarial = (
            softmax([3 * float(r) - 2 * float(g) + float(b) for r, g, b in x[n].flatten(1).T]) for x in (images, darker)
        )
        pixels = [
            [[math.floor(255 * float(darker[n, c, h, w]) + 0.5) for c in range(C)] for w in range(W)] for h in range(H)
        ]
        expected: dict[str, Any] = {
            "label": n % 4,
            "attention": clean,
            "attention_adversarial": adversarial,
            "adversarial": pixels,
            "distance": distance(clean, adversarial),
            "entropy": -sum(a * math.log(a) for a in clean),
            "entropy_adversarial": -sum(a * math.log(a) for a in adversarial),
        }
        for name, values in expected.items():
            np.testing.assert_allclose(columns[f"per_image/{name}"][n], values, rtol=3e-6, atol=1e-6, err_msg=name)
    assert columns.keys() == PER_IMAGE
    assert len(PER_IMAGE) == len(expected) + 2


def test_without_attention_each_image_has_the_map_of_the_class_predicted_of_it() -> None:
    """After average pooling Grad-CAM is relu(sum over channels of w_kc F_cp), k the predicted class."""
    model = known_model(AveragePool())
    columns = rows(model, batch(), Darker(spatial_weight="grad-cam"))
    weight = model.classifier.weight.detach().double().numpy()
    images = batch().images
    for name, inputs in (("attention", images), ("attention_adversarial", Darker()(model, images, images, range(N)))):
        for n, winner in enumerate(model(inputs).argmax(1).tolist()):
            cam = np.clip(np.einsum("c,chw->hw", weight[winner], inputs[n].double().numpy()), 0, None).ravel()
            expected = cam / cam.sum() if cam.sum() else np.full(H * W, np.nan)
            np.testing.assert_allclose(columns[f"per_image/{name}"][n], expected, atol=1e-6)
    assert len(set(columns["per_image/prediction_clean"].tolist())) > 1


def test_statistics_are_those_of_slow_loops_without_the_images_that_lack_a_map() -> None:
    arrays = {name: values.copy() for name, values in known_rows().items()}
    label = arrays["per_image/label"]
    clean, adversarial = label.copy(), label.copy()
    clean[:5] += 1  # wrong from the start
    adversarial[3:12] += 1
    arrays |= {"per_image/prediction_clean": clean, "per_image/prediction_adversarial": adversarial}
    without_clean, without_adversarial = [7, 20], [20, 25]
    for end, holes in (("", without_clean), ("_adversarial", without_adversarial)):
        arrays[f"per_image/attention{end}"][holes] = np.nan
        arrays[f"per_image/entropy{end}"][holes] = np.nan
    arrays["per_image/distance"][[7, 20, 25]] = np.nan
    statistics = summary(arrays)

    complete = [n for n in range(N) if n not in (7, 20, 25)]
    distances = {
        n: distance(arrays["per_image/attention"][n], arrays["per_image/attention_adversarial"][n]) for n in complete
    }
    groups = {
        "all": complete,
        "attack_succeeded": [n for n in complete if 5 <= n < 12],
        "attack_failed": [n for n in complete if n >= 12],
    }
    for name, group in groups.items():
        value, low, high = statistics[f"distance/{name}"]
        assert value == pytest.approx(np.mean([distances[n] for n in group]), rel=1e-6)
        assert low < value < high
    assert statistics["count/attack_succeeded"] == len(groups["attack_succeeded"]) == 6
    assert (statistics["count/attack_failed"], statistics["count/undefined"]) == (len(groups["attack_failed"]), 3)
    with_clean = [n for n in range(N) if n not in without_clean]
    neighbors = [(n, (n + 1) % N) for n in with_clean if (n + 1) % N in with_clean]
    other = [distance(*(arrays["per_image/attention"][n] for n in pair)) for pair in neighbors]
    assert statistics["distance/other_image"].value == pytest.approx(np.mean(other), rel=1e-6)
    for name, end, holes in (("clean", "", without_clean), ("adversarial", "_adversarial", without_adversarial)):
        rest = [n for n in range(N) if n not in holes]
        mean = [sum(arrays[f"per_image/attention{end}"][n, p] for n in rest) / len(rest) for p in range(H * W)]
        np.testing.assert_allclose(statistics[f"mean_map/{name}"], mean, rtol=1e-6)
        entropy = np.mean([arrays[f"per_image/entropy{end}"][n] for n in rest])
        assert statistics[f"entropy/{name}"].value == pytest.approx(entropy, rel=1e-6)


def test_in_the_order_of_classes_the_other_image_is_of_another_class() -> None:
    """As in a folder of pictures: maps of one class are alike here, and those of different classes do not meet."""
    arrays = known_rows()
    labels = np.arange(N) * 2 // N
    arrays["per_image/attention"] = np.eye(2, H * W, dtype=np.float32)[labels]
    images = replace(split(N), labels=labels)
    other = summarize(Columns(arrays), images)["distance/other_image"].value
    assert other == pytest.approx(1 - (N % 2) / N, abs=1.5 / N)
    assert summary(arrays)["distance/other_image"].value == pytest.approx(2 / N)


def test_a_single_image_is_not_compared_with_itself() -> None:
    arrays = {name: values[:1] for name, values in known_rows().items()}
    assert np.isnan(summary(arrays)["distance/other_image"]).all()


def test_a_model_without_any_map_has_no_statistics() -> None:
    arrays = known_rows()
    holes = {name: np.full_like(arrays[name], np.nan) for name in PER_IMAGE if arrays[name].dtype.kind == "f"}
    statistics = summary(arrays | holes)
    assert (statistics["count/undefined"], statistics["count/attack_failed"], statistics["count/attack_succeeded"]) == (
        N,
        0,
        0,
    )
    for name in statistics.keys() - {path for path in statistics if path.startswith("count/")}:
        assert np.isnan(statistics[name]).all(), name


@pytest.mark.parametrize("rule", ["first-per-class", "random:3", "indices:4,0,29", "extremes"])
def test_examples_are_the_images_that_the_rule_names(rule: str) -> None:
    arrays, settings = known_rows(), Darker(select=rule, spatial_weight="attention")
    distances = arrays["per_image/distance"]
    columns = attention_maps.examples(Columns(arrays), split(), settings)
    index = columns["examples/index"].tolist()
    order = sorted(range(N), key=distances.__getitem__)
    expected = {
        "first-per-class": [0, 1, 2, 3],
        "random:3": sorted(np.random.default_rng(3).permutation(N)[:10].tolist()),
        "indices:4,0,29": [4, 0, 29],
        "extremes": [*order[:3], *order[14:17], *order[-3:]],
    }
    assert index == expected[rule]
    np.testing.assert_array_equal(columns["examples/image"], split().images[index])
    for name in ("label", "prediction_clean", "prediction_adversarial", "adversarial", "distance"):
        np.testing.assert_array_equal(columns[f"examples/{name}"], arrays[f"per_image/{name}"][index])
    for name in ("attention", "attention_adversarial"):
        np.testing.assert_array_equal(columns[f"examples/{name}"], arrays[f"per_image/{name}"][index])


def test_settings_are_resolved_for_attack_rule_and_weights() -> None:
    job: dict[str, Any] = {"variant": "at-att", "recipe": {"eps": 0.1}}
    assert MapsSettings().resolve(job) == MapsSettings(
        eps=0.1, step_size=0.025, norm="linf", spatial_weight="attention"
    )
    assert MapsSettings().resolve(job | {"variant": "at"}).spatial_weight == "grad-cam"
    for wrong, sentence in (
        (MapsSettings(select="best"), "--select best selects nothing"),
        (MapsSettings(seed=-1), "seed is -1"),
        (MapsSettings(eps=8), "eps is 8"),
    ):
        with pytest.raises(UserError, match=sentence):
            wrong.resolve(job)
    with pytest.raises(UserError, match="'at' has no attention"):
        MapsSettings(spatial_weight="attention").resolve(job | {"variant": "at"})


@pytest.fixture(scope="module")
def models(make_checkpoint: Make, tmp_path_factory: pytest.TempPathFactory) -> dict[str, checkpoint.Checkpoint]:
    folder = tmp_path_factory.mktemp("models")
    return {name: checkpoint.read(make_checkpoint(folder, name)) for name in ("at-att", "at")}


def work(model: checkpoint.Checkpoint, digits: Dataset, folder: Path, batch_size: int = 16, **settings: Any) -> Work:
    plain: dict[str, Any] = {"split": "test", "limit": None, "device": CPU, "batch_size": batch_size}
    maps_settings = MapsSettings(eps=8 / 255, steps=2, **settings)
    return Work(attention_maps.ANALYSIS, model, digits, folder, settings=maps_settings, **plain)


@pytest.fixture(scope="module")
def result_paths(
    digits: Dataset, models: dict[str, checkpoint.Checkpoint], tmp_path_factory: pytest.TempPathFactory
) -> list[Path]:
    folder = tmp_path_factory.mktemp("finished")
    return [work(models[name], digits, folder).run() for name in ("at", "at-att")]


def test_an_image_that_is_not_there_is_told_before_the_work(
    models: dict[str, checkpoint.Checkpoint], digits: Dataset, tmp_path: Path
) -> None:
    absent = work(models["at"], digits, tmp_path, select="indices:3,40")
    absent.analysis = replace(absent.analysis, rows=lambda *_: pytest.fail("work was begun"))
    with pytest.raises(UserError, match="there are images 0 to 39, not 40"):
        absent.run()


def test_the_statistics_follow_from_the_stored_rows(result_paths: list[Path], digits: Dataset) -> None:
    for path in result_paths:
        result = hdf5.read(path, attention_maps.SCHEMA.label)
        columns = Columns({name: result[name] for name in PER_IMAGE})
        statistics = summarize(columns, digits.test) | attention_maps.examples(columns, digits.test, MapsSettings())
        assert statistics.keys() == {column.path for column in attention_maps.SCHEMA.summary}
        for name, values in statistics.items():
            np.testing.assert_array_equal(result[name], values, err_msg=name)
        images = result["per_image/adversarial"].astype(int)
        assert images.shape == digits.test.images.shape
        assert 0 < np.abs(images - digits.test.images).max() <= 8


def test_the_table_gives_the_share_that_moved(result_paths: list[Path]) -> None:
    for path in result_paths:
        result = hdf5.read(path)
        row = attention_maps.table_row(result)
        for heading, name in (("attention moved", "all"), ("between images", "other_image")):
            percents = "{:.1f} % [{:.1f}, {:.1f}]".format(*(100 * result[f"distance/{name}"]))
            assert row[heading] == percents
        assert row["images"] == "40"


def test_rows_do_not_depend_on_the_batch_size(
    result_paths: list[Path], models: dict[str, checkpoint.Checkpoint], digits: Dataset, tmp_path: Path
) -> None:
    for path in result_paths:
        expected = hdf5.read(path)
        model = models[expected.config["checkpoint"]["job"]["variant"]]
        other = hdf5.read(work(model, digits, tmp_path, batch_size=7).run())
        for name in PER_IMAGE:
            if name == "per_image/adversarial":
                # A gradient near zero may round to the other sign, and its pixel with it.
                assert (other[name] == expected[name]).mean() > 0.999
            else:
                tolerance = 0 if expected[name].dtype.kind == "i" else 1e-3
                np.testing.assert_allclose(other[name], expected[name], rtol=0, atol=tolerance, err_msg=name)


def test_a_stopped_run_goes_on_to_the_same_file(
    result_paths: list[Path], models: dict[str, checkpoint.Checkpoint], digits: Dataset, tmp_path: Path
) -> None:
    starts = []

    def fail_second(model: Classifier, batch: Batch, settings: MapsSettings) -> dict[str, AnyArray]:
        starts.append(batch.indices.start)
        if len(starts) == 2:
            raise RuntimeError("as a crash would")
        return rows(model, batch, settings)

    for _ in range(2):
        attempt = work(models["at"], digits, tmp_path)
        attempt.analysis = replace(attempt.analysis, rows=fail_second)
        if not starts:
            with pytest.raises(RuntimeError, match="crash"):
                attempt.run()
    attempt.run()
    assert starts == [0, 16, 16, 32]
    assert hdf5.attributes(attempt.path)["content_sha256"] == hdf5.attributes(result_paths[0])["content_sha256"]


def map_axes(figure: Any) -> list[Any]:
    """The axes of the rows, without those of names and color bars."""
    return [axes for axes in figure.axes if axes.images]


def pictures(axes: Any, count: int) -> list[AnyArray]:
    """The pictures of a row of 32x32 pixels, and nothing in the gaps between them."""
    row = np.ma.filled(axes.images[-1].get_array(), np.nan)  # a map lies over its image
    assert row.shape[:2] == (32, count * 48)
    gaps = np.concatenate([row[:, 48 * place + 32 : 48 * place + 48] for place in range(count)])
    assert np.all((gaps == 255) if row.dtype == np.uint8 else np.isnan(gaps))
    return [row[:, 48 * place : 48 * place + 32] for place in range(count)]


def assert_maps(axes: Any, maps: AnyArray, limits: tuple[float, float], colors: str) -> None:
    for picture, values in zip(pictures(axes, len(maps)), maps, strict=True):
        np.testing.assert_array_equal(picture, np.kron(values, np.ones((4, 4), values.dtype)))
    assert axes.images[-1].get_clim() == pytest.approx(limits)
    assert axes.images[-1].get_cmap().name == colors


def headings(axes: Any) -> list[str]:
    """What stands above each picture of a row, in the middle of it."""
    assert [text.get_position()[0] for text in axes.texts] == [48 * place + 15.5 for place in range(len(axes.texts))]
    return [text.get_text() for text in axes.texts]


def test_the_picture_shows_images_once_and_three_rows_a_model(result_paths: list[Path], digits: Dataset) -> None:
    results = [hdf5.read(path) for path in result_paths]
    axes = map_axes(figures.get("attention-maps").draw(results).figure)
    assert [row.get_ylabel() for row in axes] == ["image", *["clean", "adversarial", "difference"] * 2]
    index = results[0]["examples/index"]
    for picture, image in zip(pictures(axes[0], 10), index, strict=True):
        np.testing.assert_array_equal(picture, digits.test.images[image])
    true = digits.test.labels[index]
    assert headings(axes[0]) == [digits.class_names[label] for label in true]
    # Attention stands above Grad-CAM, each with scales of its own.
    for (clean, adversarial, difference), result in ((axes[1:4], results[1]), (axes[4:7], results[0])):
        clean_maps, adversarial_maps = (
            result[f"per_image/{name}"][index].reshape(10, 8, 8) for name in ("attention", "attention_adversarial")
        )
        largest, reach = (
            np.percentile([clean_maps, adversarial_maps], 99),
            np.percentile(np.abs(adversarial_maps - clean_maps), 99),
        )
        assert_maps(clean, clean_maps, (0, largest), "viridis")
        assert_maps(adversarial, adversarial_maps, (0, largest), "viridis")
        assert_maps(difference, adversarial_maps - clean_maps, (-reach, reach), "RdBu_r")
        for row, kind in ((clean, "clean"), (adversarial, "adversarial")):
            predicted = result[f"per_image/prediction_{kind}"][index]
            assert headings(row) == [digits.class_names[answer] for answer in predicted]
            assert [text.get_color() == WRONG for text in row.texts] == (predicted != true).tolist()
        assert headings(difference) == [f"{distance:.2f}" for distance in result["per_image/distance"][index]]


def test_images_stand_above_each_model_that_shows_others(
    models: dict[str, checkpoint.Checkpoint], digits: Dataset, tmp_path: Path
) -> None:
    extremes = [hdf5.read(work(models[name], digits, tmp_path, select="extremes").run()) for name in models]
    assert extremes[0]["examples/index"].tolist() != extremes[1]["examples/index"].tolist()
    axes = map_axes(figures.get("attention-maps").draw(extremes).figure)
    assert [row.get_ylabel() for row in axes] == ["image", "clean", "adversarial", "difference"] * 2
    for row, result in zip(axes[::4], extremes, strict=True):
        np.testing.assert_array_equal(pictures(row, 9), result["examples/image"])


def test_where_nothing_moved_no_difference_has_a_color(
    models: dict[str, checkpoint.Checkpoint], digits: Dataset, tmp_path: Path
) -> None:
    settings = replace(work(models["at"], digits, tmp_path).settings, eps=0.0, step_size=0.0)
    path = Work(
        attention_maps.ANALYSIS,
        models["at"],
        digits,
        tmp_path,
        settings=settings,
        split="test",
        limit=20,
        batch_size=20,
        device=CPU,
    ).run()
    result = hdf5.read(path)
    assert tuple(result["distance/all"]) == (0, 0, 0)
    assert map_axes(figures.get("attention-maps").draw([result]).figure)[3].images[-1].get_clim() == (-1, 1)


def test_nearly_uniform_weights_have_a_scale_of_their_own_and_their_numbers_do_not_touch() -> None:
    even, peaks = 1 / 16 + np.linspace(-1e-3, 1e-3, 32).reshape(2, 4, 4), np.linspace(0.01, 0.3, 32).reshape(2, 4, 4)
    assert overlays.make_weight_scale([peaks]).get_clim() == pytest.approx((0, np.percentile(peaks, 99)))
    scale = overlays.make_weight_scale([even, np.full((1, 4, 4), np.nan)])
    assert scale.get_clim() == pytest.approx((1 / 16 - 1e-3, np.percentile(even, 99)))
    assert overlays.end_caption([scale]) == overlays.NEARLY_UNIFORM and not overlays.end_caption(
        [overlays.make_weight_scale([peaks])]
    )
    figure = Figure((3.2, 2), dpi=200)
    FigureCanvasAgg(figure)
    maps, *bars = figure.subplots(3, 1)
    overlays.overlay(maps, np.zeros((2, 16, 16, 3)), even, scale)
    opacity = maps.images[-1].get_alpha()[0, [0, 4, 8, 12]]
    shares = (even[0, 0] - even.min()) / (np.percentile(even, 99) - even.min())
    assert opacity == pytest.approx(overlays.FAINTEST + (1 - overlays.FAINTEST) * shares)
    change = ScalarMappable(Normalize(-1.7e-4, 1.7e-4), "RdBu_r")
    for axes, colors in zip(bars, (scale, change), strict=True):
        overlays.thin_ticks(figure.colorbar(colors, cax=axes, orientation="horizontal"))
    figure.canvas.draw()
    for axes in bars:
        edges = [text.get_window_extent() for text in axes.get_xticklabels() if text.get_text()]
        assert len(edges) >= 3 and all(left.x1 < other.x0 for left, other in itertools.pairwise(edges))


@pytest.mark.parametrize("limits", [(0, 0.078), (-0.0145, 0.0145), (-0.36, 0.36), (0, 0.97)])
def test_numbers_under_four_bars_abreast_leave_room_between_them(limits: tuple[float, float]) -> None:
    figure = Figure((1.3, 0.6), dpi=200)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.05, 0.6, 0.9, 0.2))
    with rc_context(style.RC):
        bar = figure.colorbar(ScalarMappable(Normalize(*limits), "RdBu_r"), cax=axes, orientation="horizontal")
        overlays.thin_ticks(bar)
        figure.canvas.draw()
    low, high = limits
    texts = [text for text in axes.get_xticklabels() if low <= text.get_position()[0] <= high]
    edges = [text.get_window_extent() for text in texts]
    letter = edges[0].width / len(texts[0].get_text())
    assert len(edges) >= 3 and all(other.x0 - left.x1 > letter / 3 for left, other in itertools.pairwise(edges))


def test_the_picture_is_saved_with_its_numbers_and_one_bar_a_scale(result_paths: list[Path], tmp_path: Path) -> None:
    (path,) = drawing.draw("attention-maps", result_paths, tmp_path, lambda _: None)
    caption = json.loads(path.with_suffix(".json").read_text())
    assert "first-per-class" in caption["caption"] and "PGD-2 at eps 8/255, seed 0" in caption["caption"]
    results = [hdf5.read(file) for file in result_paths]
    assert caption["numbers"].keys() == {"at seed 0, Grad-CAM", "at-att seed 0"}
    assert (
        "In place of attention, Grad-CAM of the predicted class is used for cluttered-digits-small-at-seed0."
        in (caption["caption"])
    )
    for result in results:
        for name, values in caption["numbers"][labels.label(result)].items():
            expected = [None if np.isnan(value) else value for value in result[name].tolist()]
            assert values == expected, name
    figure = figures.get("attention-maps").draw(results).figure
    bars = {axes.get_xlabel().split("\n")[0]: axes for axes in figure.axes if axes.get_xlabel()}
    assert list(bars) == ["attention", "attention,", "Grad-CAM", "Grad-CAM,"]
    for kind in ("attention", "Grad-CAM"):
        assert [line.get_xdata()[0] for line in bars[kind].lines] == [1 / 64]
