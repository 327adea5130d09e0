"""Deletion, insertion and ROAD against slow second implementations, and a network whose answers are known."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from anyone import C, Convolutions, H, N, W, assert_unchanged, noise, seed_network
from make_golden import file_of
from networks import Array, array, pixels, settle
from torch import Tensor, nn

from interpret_robust.analyses.pixel_deletion import (
    ANALYSIS,
    CHANCE,
    NOISE,
    ORDERS,
    PERCENTS,
    RULES,
    TIES,
    PixelSettings,
    Reference,
    compare_orders,
    prepare,
    rank_pixels,
    replace_pixels,
    rows,
    summarize,
)
from interpret_robust.attribution.controls import sobel
from interpret_robust.attribution.imputation import impute_pixels, weigh_neighbors
from interpret_robust.core.arrays import AnyArray
from interpret_robust.core.bootstrap import bootstrap_mean
from interpret_robust.core.errors import UserError
from interpret_robust.core.intervals import Interval, rate
from interpret_robust.core.random_numbers import make_streams
from interpret_robust.datasets.batches import Batch
from interpret_robust.models.preprocess import Preprocess
from interpret_robust.models.wrapper import WrappedModel
from interpret_robust.results import hdf5
from interpret_robust.results.columns import Columns

LABELS = torch.tensor([0, 6, 3, 3, 1])
START = 40
COLOR = np.array([0.2, 0.6, 0.4], np.float32)


def batch(part: slice = slice(0, N)) -> Batch:
    images = pixels(N, C, H, W, seed=2)
    return Batch(images[part], LABELS[part], range(START + part.start, START + part.stop), None)


def model() -> WrappedModel:
    network: Convolutions = seed_network(Convolutions)
    settle(network)
    with torch.no_grad():
        network.answer.weight.mul_(4)
    return WrappedModel(network, Preprocess((0.0,), (1.0,)), "body")


def measure(network: Any, settings: PixelSettings, samples: Batch, color: Any = COLOR) -> dict[str, Array]:
    columns = rows(network, samples, Reference(settings, color))
    return {name.removeprefix("per_image/"): values for name, values in columns.items()}


def slow_imputation(image: Array, holes: set[tuple[int, int]]) -> Array:
    """A dense system, assembled pixel by pixel."""
    height, width = image.shape[1:]
    places = sorted(holes)
    system, constants = np.eye(len(places)), np.zeros((len(places), len(image)))
    for row, (y, x) in enumerate(places):
        neighbors = {
            (y + dy, x + dx): 1 / 12 if dy and dx else 1 / 6
            for dy in (-1, 0, 1)
            for dx in (-1, 0, 1)
            if (dy or dx) and 0 <= y + dy < height and 0 <= x + dx < width
        }
        for place, weight in neighbors.items():
            share = weight / sum(neighbors.values())
            if place in holes:
                system[row, places.index(place)] -= share
            else:
                constants[row] += share * image[:, place[0], place[1]]
    whole = image.copy()
    for (y, x), colors in zip(places, np.linalg.solve(system, constants), strict=True):
        whole[:, y, x] = colors
    return whole


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.97])
def test_imputed_pixels_solve_a_dense_system_also_at_the_border(share: float) -> None:
    image = array(pixels(2, 5, 7, seed=3))
    order = np.random.default_rng(1).permutation(35)
    mask = np.isin(np.arange(35), order[: int(share * 35)])
    mask[0] = True  # a corner
    holes = {divmod(int(place), 7) for place in np.flatnonzero(mask)}
    quiet = impute_pixels(image, mask, COLOR[:2], np.zeros(image.shape))
    np.testing.assert_allclose(quiet, slow_imputation(image, holes), atol=1e-12)
    noise = np.random.default_rng(2).standard_normal(image.shape)
    noisy_image = np.where(mask.reshape(5, 7), np.clip(quiet + 0.01 * noise, 0, 1), image)
    np.testing.assert_allclose(impute_pixels(image, mask, COLOR[:2], noise), noisy_image, atol=1e-12)


def test_a_linear_image_is_imputed_as_it_was_inside_and_nothing_is_left_of_a_lost_one() -> None:
    """Means over symmetric neighbors leave a plane as it is; without any pixel there is the mean color."""
    y, x = np.mgrid[:6, :9]
    plane = (0.1 + 0.05 * y + 0.04 * x)[None]
    mask = np.zeros((6, 9), bool)
    mask[2:5, 3:7] = True
    np.testing.assert_allclose(impute_pixels(plane, mask.ravel(), COLOR[:1], np.zeros(plane.shape)), plane, atol=1e-12)
    blank = impute_pixels(plane, np.ones(54, bool), COLOR[:1], np.zeros(plane.shape))
    np.testing.assert_allclose(blank, np.full(plane.shape, COLOR[0]))
    weights = weigh_neighbors(6, 9).toarray()
    np.testing.assert_array_equal(weights, weights.T)
    np.testing.assert_allclose(weights.sum(1).reshape(6, 9)[[0, 0, 3], [0, 4, 4]], [5 / 12, 2 / 3, 1])


def slow_blur(image: Array) -> Array:
    """A Gaussian of an eighth of the shorter side, cut off at four deviations, the border continued."""
    deviation = min(H, W) / 8
    reach = int(4 * deviation + 0.5)
    steps = np.arange(-reach, reach + 1)
    kernel = np.exp(-(steps**2) / (2 * deviation**2))
    kernel /= kernel.sum()
    for side in (H, W):  # each time the rows become columns
        lines = [image[:, np.clip(place + steps, 0, side - 1)].transpose(0, 2, 1) @ kernel for place in range(side)]
        image = np.stack(lines, axis=2)
    return image


def slow_image(image: Array, order: list[int], rule: str, percent: int, fill: Array, noise: Array) -> Array:
    """The image after so many percent of pixels have been moved, one after the other."""
    count = round(percent / 100 * H * W)
    if rule == "ROAD least first":
        order = order[::-1]
    holes = {divmod(place, W) for place in (order[count:] if rule == "insertion" else order[:count])}
    if rule in ("deletion", "insertion") or len(holes) == H * W:
        whole = image.copy()
        for y, x in holes:
            whole[:, y, x] = fill[:, y, x] if rule in ("deletion", "insertion") else COLOR
    else:
        whole = slow_imputation(image, holes)
    if rule.startswith("ROAD"):
        for y, x in holes:
            whole[:, y, x] = np.clip(whole[:, y, x] + 0.01 * noise[:, y, x], 0, 1)
    return whole


@pytest.mark.parametrize("fill", ["mean", "blur"])
def test_curves_are_those_of_a_slow_loop_over_pixels(fill: Any) -> None:
    part = slice(1, 3)
    samples, network = batch(part), model()
    columns = measure(network, PixelSettings(fill=fill, seed=3), samples)
    for place, (image, label) in enumerate(zip(samples.images, samples.labels, strict=True)):
        index = [START + part.start + place]
        ties, chance, noise = (make_streams(3, index, purpose)[0] for purpose in (TIES, CHANCE, NOISE))
        leaf = image[None].clone().requires_grad_()
        F.cross_entropy(network(leaf), label[None]).backward()  # type: ignore[no-untyped-call]
        by_order = {
            "map": np.sqrt((array(leaf.grad)[0] ** 2).sum(0)).ravel(),
            "edges": np.sqrt((array(sobel(image[None]))[0] ** 2).sum(0)).ravel(),
            "random": chance.random(H * W),
        }
        tie, field = ties.random(H * W), noise.standard_normal((C, H, W), np.float32).astype(np.float64)
        plain = array(image)
        ground = (
            slow_blur(plain)
            if fill == "blur"
            else np.broadcast_to(COLOR[:, None, None], plain.shape).astype(np.float64)
        )
        for order, name in enumerate(ORDERS):
            ranking = sorted(range(H * W), key=lambda pixel: (-by_order[name][pixel], tie[pixel]))
            for number, rule in enumerate(RULES):
                if fill == "blur" and rule.startswith("ROAD"):
                    continue
                slow = np.stack([slow_image(plain, ranking, rule, step, ground, field) for step in PERCENTS])
                with torch.no_grad():
                    logits = network(torch.from_numpy(slow.astype(np.float32)))
                likely = array(logits.softmax(1))[:, int(columns["prediction"][place])]
                np.testing.assert_allclose(columns["probability"][place, order, number], likely, atol=2e-4)
                right = array(logits.argmax(1) == label)
                np.testing.assert_array_equal(columns["correct"][place, order, number], right)
                for kind, curve in (("accuracy", right), ("probability", likely)):
                    area = (curve[1:] + curve[:-1]).mean() / 2
                    np.testing.assert_allclose(columns[f"area_{kind}"][place, order, number], area, atol=2e-4)


class OnePixel(nn.Module):
    """Class 0 where the first color of one pixel is above a half, else class 1."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))
        self.view = nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        bright = self.view(images)[:, 0, 4, 7]
        return self.scale * torch.stack([bright, torch.full_like(bright, 0.5)], 1)


@pytest.mark.parametrize("scale", [10.0, 1e-30])
def test_the_map_of_a_network_that_sees_one_pixel_decides_with_it(scale: float) -> None:
    """Also where the square of a gradient is none in float32."""
    images = pixels(N, C, H, W, seed=5, high=0.3)
    images[:, :, 4, 7] = 1
    samples = Batch(images, torch.zeros(N, dtype=torch.int64), range(START, START + N), None)
    network = WrappedModel(OnePixel(scale), Preprocess((0.0,), (1.0,)), "view")
    columns = measure(network, PixelSettings(), samples)
    first, last = [1] + 10 * [0], 10 * [1] + [0]
    expected = {"deletion": first, "insertion": [1 - right for right in first]}
    expected |= {"ROAD most first": first, "ROAD least first": last}
    areas = {"deletion": 0.05, "insertion": 0.95, "ROAD most first": 0.05, "ROAD least first": 0.95}
    for number, rule in enumerate(RULES):
        assert columns["correct"][:, 0, number].tolist() == N * [expected[rule]], rule
        np.testing.assert_allclose(columns["area_accuracy"][:, 0, number], areas[rule], rtol=1e-6)
    for place, stream in enumerate(make_streams(0, samples.indices, CHANCE)):
        rank = int((-stream.random(H * W)).argsort().argsort()[4 * W + 7])
        flips = np.array([rank < round(percent / 100 * H * W) for percent in PERCENTS])
        assert columns["correct"][place, 2, 0].tolist() == (~flips).tolist()
        assert columns["correct"][place, 2, 1].tolist() == flips.tolist()
    better = compare_orders(columns["area_accuracy"])
    assert (better[:, :, 1] >= 0).all() and better[:, :, 1].mean() > 0.2
    assert not columns["constant"].any()


def test_what_is_measured_of_an_image_does_not_depend_on_its_batch() -> None:
    whole = measure(model(), PixelSettings(seed=1), batch())
    for place in (0, 3):
        alone = measure(model(), PixelSettings(seed=1), batch(slice(place, place + 1)))
        for name, values in alone.items():
            np.testing.assert_allclose(values, whole[name][place : place + 1], atol=1e-5, err_msg=name)


def test_nothing_moved_is_the_image_and_all_moved_is_the_same_for_every_order() -> None:
    part = slice(2, 4)
    columns = measure(model(), PixelSettings(), batch(part))
    with torch.no_grad():
        logits = model()(batch(part).images)
    likely = array(logits.softmax(1).amax(1))
    for start in (columns["probability"][:, :, [0, 2, 3], 0], columns["probability"][:, :, 1:2, -1]):
        np.testing.assert_allclose(start, np.broadcast_to(likely[:, None, None], start.shape), atol=1e-6)
    end = np.concatenate([columns["probability"][:, :, [0, 2, 3], -1], columns["probability"][:, :, 1:2, 0]], axis=2)
    np.testing.assert_allclose(end, np.broadcast_to(end[:, :1], end.shape), atol=1e-6)


def test_pixels_of_equal_magnitude_go_in_random_order() -> None:
    count = 2000
    scores = np.tile([3.0, 1, 1, 1, 1, 1, 1, 0, 0, 0], (count, 1))
    chance = np.stack([stream.random(10) for stream in make_streams(0, range(count), TIES)])

    def find_changes(rule: str, percent: int) -> AnyArray:
        return replace_pixels(rank_pixels(scores, chance, rule), rule, percent)

    at_forty = find_changes("deletion", 40)
    np.testing.assert_allclose(at_forty.mean(0), [1, *6 * [0.5], 0, 0, 0], atol=0.04)
    np.testing.assert_array_equal(find_changes("insertion", 40), ~at_forty)
    np.testing.assert_array_equal(find_changes("ROAD most first", 40), at_forty)
    from_the_end = find_changes("ROAD least first", 50).mean(0)
    np.testing.assert_allclose(from_the_end, [0, *6 * [1 / 3], 1, 1, 1], atol=0.04)


def test_a_map_of_zeros_is_counted_and_the_model_and_random_state_are_left_as_found() -> None:
    network, samples = model(), batch(slice(0, 2))
    with torch.no_grad():
        network.backbone.get_parameter("answer.weight").zero_()
    with assert_unchanged(network, samples.images, samples.labels):
        columns = measure(network, PixelSettings("captum:InputXGradient"), samples)
    assert columns["constant"].tolist() == 2 * [True]
    assert columns["label"].tolist() == LABELS[:2].tolist()
    with torch.no_grad():
        assert columns["prediction"].tolist() == network(samples.images).argmax(1).tolist()


def test_advantages_are_paired_and_above_zero_where_the_order_is_better() -> None:
    random = np.random.default_rng(0)
    areas = random.random((9, 3, 4)).astype(np.float32)
    correct = random.integers(0, 2, (9, 3, 4, 11))
    probability = random.random((9, 3, 4, 11))
    probability[2, 1] = np.nan
    columns: dict[str, Any] = {
        "correct": correct,
        "probability": probability,
        "area_accuracy": areas,
        "area_probability": areas / 2,
        "constant": np.array([1, 0, 0, 1, 0, 0, 0, 0, 0]),
    }
    summary = summarize(Columns({f"per_image/{name}": values for name, values in columns.items()}), noise().test)
    assert summary["count/constant"] == 2
    of_map, edges, chance = areas.astype(np.float64).transpose(1, 2, 0)
    for rule, (sign, name) in enumerate(zip((-1, 1, -1, 1), RULES, strict=True)):
        pairs = ((of_map, edges), (of_map, chance), (edges, chance))
        for contrast, (first, second) in enumerate(pairs):
            difference = sign * (first[rule] - second[rule])
            for kind, size in (("accuracy", 1), ("probability", 0.5)):
                interval = summary[f"advantage/{kind}"][rule, contrast]
                np.testing.assert_allclose(interval, bootstrap_mean(size * difference), rtol=1e-6, err_msg=name)
    curve = [summary[f"curve/{name}"][1, 2, 3] for name in ("accuracy", "low", "high")]
    np.testing.assert_allclose(curve, rate(correct[:, 1, 2, 3]))
    np.testing.assert_allclose(summary["probability/mean"][1, 0, 5, 0], float(np.nanmean(probability[:, 1, 0, 5])))


def test_the_replacement_is_the_mean_color_of_training_images() -> None:
    settings, data = PixelSettings(fill="blur"), noise()
    work: Any = SimpleNamespace(dataset=data, settings=settings)
    reference = prepare(work)
    assert reference.settings == settings
    mean = data.train.images[:].astype(np.float64).reshape(-1, 3).mean(0) / 255
    np.testing.assert_allclose(reference.color, mean, rtol=1e-6)


def test_tables_say_areas_and_advantages() -> None:
    result = hdf5.read(file_of(ANALYSIS.schema), ANALYSIS.schema.label)
    row, areas = ANALYSIS.table_row(result), result["area/accuracy"]
    controls = f"({100 * areas[1, 3, 0]:.1f} %, {100 * areas[2, 3, 0]:.1f} %)"
    assert row["ROAD least first (edges, random)"] == f"{Interval(*areas[0, 3]).percent()} {controls}"
    assert ANALYSIS.compare is not None
    (table,) = ANALYSIS.compare([result])
    assert [line["better in"] for line in table] == list(RULES)
    assert table[1]["map against random"] == Interval(*result["advantage/accuracy"][1, 1]).points()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"fill": "blurr"}, "unknown fill 'blurr': did you mean 'blur'"),
        ({"seed": -1}, "seed is -1"),
        ({"source": "captum:Nothing"}, "unknown attribution of captum 'Nothing'"),
    ],
)
def test_settings_out_of_range_are_the_users_error(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        PixelSettings(**changes).resolve({})
    assert PixelSettings().resolve({}) == PixelSettings()
