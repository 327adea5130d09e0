"""Each corruption against a slow second implementation or a closed form, and what all of them have in common."""

import colorsys
import io
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from interpret_robust.core.arrays import AnyArray
from interpret_robust.core.errors import UserError
from interpret_robust.core.random_numbers import make_streams, read_generator_states
from interpret_robust.datasets import Dataset, cifar_c
from interpret_robust.datasets.corruptions import CORRUPTIONS, PURPOSE, blur, corrupt, corrupt_images, digital, weather

N, H, W, C = 4, 9, 14, 3
SEVERITIES = range(1, 6)
CPU = torch.device("cpu")


def picture(*shape: int, seed: int = 0) -> AnyArray:
    return np.random.default_rng(seed).random(shape)


def scene(side: int) -> AnyArray:
    """A smooth image in color, the same at any size: `side` is that of the square."""
    y, x = (np.mgrid[:side, :side] + 0.5) / side
    waves = [
        np.sin(2 * np.pi * (a * x + b * y)) * np.cos(2 * np.pi * c * y) for a, b, c in ((1, 0, 1), (2, 1, 0), (0, 2, 1))
    ]
    return 0.5 + 0.3 * np.stack(waves, axis=2)


def random(seed: int = 5) -> np.random.Generator:
    return np.random.default_rng(seed)


def mirror(place: int, count: int) -> int:
    """The pixel that lies there where the image goes on as in a mirror: d c b a | a b c d | d c b a."""
    place %= 2 * count
    return place if place < count else 2 * count - 1 - place


def interpolate(image: AnyArray, y: float, x: float) -> AnyArray:
    """The colors at a point between pixels, linear in each direction."""
    top, left = math.floor(y), math.floor(x)
    total = np.zeros(image.shape[2])
    for row in (top, top + 1):
        for column in (left, left + 1):
            weight = (1 - abs(y - row)) * (1 - abs(x - column))
            total += weight * image[mirror(row, image.shape[0]), mirror(column, image.shape[1])]
    return total


def paint(image: AnyArray, color: Callable[[int, int], AnyArray]) -> AnyArray:
    return np.array([[color(y, x) for x in range(image.shape[1])] for y in range(image.shape[0])])


def mean_over(image: AnyArray, points: Sequence[Any]) -> AnyArray:
    """Each pixel as the mean over points about it."""
    return paint(image, lambda y, x: np.mean([interpolate(image, y + dy, x + dx) for dy, dx in points], axis=0))


# Noise


@pytest.mark.parametrize("severity", [1, 4])
def test_gaussian_noise_has_one_deviation_everywhere(severity: int) -> None:
    images = np.broadcast_to(np.array([0.4, 0.5, 0.6]), (90, 110, 3))
    noise = corrupt(images, "gaussian_noise", severity, random()) - images
    expected = 0.03 * severity
    assert noise.std((0, 1)) == pytest.approx(np.full(3, expected), rel=0.03)
    assert np.abs(noise.mean((0, 1))).max() < 4 * expected / np.sqrt(90 * 110)
    assert abs(np.corrcoef(noise[:, :-1].ravel(), noise[:, 1:].ravel())[0, 1]) < 0.02


def test_gaussian_noise_at_another_severity_is_the_same_noise_and_larger() -> None:
    image = np.full((H, W, C), 0.5)
    first, last = (corrupt(image, "gaussian_noise", severity, random()) - image for severity in (1, 3))
    is_inside = np.abs(last) < 0.5
    assert is_inside.mean() > 0.95
    np.testing.assert_allclose(last[is_inside], 3 * first[is_inside], atol=1e-6)


@pytest.mark.parametrize("severity", [2, 5])
def test_shot_noise_counts_photons(severity: int) -> None:
    photons = 0.5 / (0.03 * severity) ** 2
    for level in (0.0, 0.1, 0.5):
        noisy = corrupt(np.full((90, 110, 2), level), "shot_noise", severity, random()).astype(np.float64)
        assert noisy.mean() == pytest.approx(level, abs=4 * np.sqrt(level / photons / noisy.size))
        counts = noisy[noisy < 1] * photons
        np.testing.assert_allclose(counts, np.round(counts), atol=1e-4)
        if level <= 0.1 or severity < 5:  # else some would be brighter than white
            assert noisy.var() == pytest.approx(level / photons, rel=0.05)


@pytest.mark.parametrize("severity", [1, 5])
def test_impulse_noise_replaces_a_share_of_values_by_black_and_white(severity: int) -> None:
    image = 0.2 + 0.5 * picture(80, 100, 3)
    noisy = corrupt(image, "impulse_noise", severity, random())
    is_new = noisy != image.astype(np.float32)
    share, count = 0.03 * severity, image.size
    assert is_new.mean() == pytest.approx(share, abs=4 * np.sqrt(share * (1 - share) / count))
    assert set(np.unique(noisy[is_new])) == {0, 1}
    assert noisy[is_new].mean() == pytest.approx(0.5, abs=2 / np.sqrt(is_new.sum()))


# Blur


def test_points_of_a_disk_are_spread_evenly() -> None:
    points = blur.disk(2.5)
    distance = np.linalg.norm(points, axis=1)
    assert distance.max() <= 2.5 and distance.mean() == pytest.approx(2.5 * 2 / 3, rel=1e-3)
    np.testing.assert_allclose(points.T @ points / len(points), 2.5**2 / 4 * np.eye(2), atol=0.01)
    np.testing.assert_allclose(points.mean(0), 0, atol=0.01)
    rings, sectors = np.meshgrid(np.sqrt((np.arange(20) + 0.5) / 20), np.arange(40) * 2 * np.pi / 40)
    even = 2.5 * np.stack([rings * np.sin(sectors), rings * np.cos(sectors)], 2).reshape(-1, 2)
    image = picture(5, 7, 2)
    np.testing.assert_allclose(blur.average(image, points), mean_over(image, even.tolist()), atol=5e-3)


@pytest.mark.parametrize("shape", [(5, 7, 2), (3, 2, 1)])
def test_an_average_is_that_over_each_shift_alone(shape: tuple[int, ...]) -> None:
    image, shifts = picture(*shape), np.array([(0.3, -0.7), (0.0, 2.6), (-3.2, 1.0)])
    np.testing.assert_allclose(blur.average(image, shifts), mean_over(image, shifts.tolist()), atol=1e-12)


@pytest.mark.parametrize("severity", [1, 5])
def test_defocus_is_the_mean_over_a_disk(severity: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blur, "RADIUS", 0.06)
    monkeypatch.setattr(blur, "POINTS", 40)
    image = picture(6, 8, 2)
    expected = mean_over(image, blur.disk(0.06 * severity * 6).tolist())
    np.testing.assert_allclose(corrupt(image, "defocus_blur", severity, random()), expected, atol=1e-6)


@pytest.mark.parametrize("severity", [1, 5])
def test_motion_is_the_mean_over_a_line_in_a_random_direction(severity: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blur, "STREAK", 0.1)
    image, length, angle = picture(7, 10, 2), 0.1 * severity * 7, np.pi * random().random()
    count = 2 * math.ceil(length) + 1
    steps = [length * (step / (count - 1) - 0.5) for step in range(count)]
    expected = mean_over(image, [(step * math.sin(angle), step * math.cos(angle)) for step in steps])
    np.testing.assert_allclose(corrupt(image, "motion_blur", severity, random()), expected, atol=1e-6)
    angles = [np.pi * stream.random() for stream in make_streams(0, range(200), PURPOSE + 5)]
    assert min(angles) < 0.1 and max(angles) > 3.04


def test_glass_shows_a_random_point_near_each_pixel_and_is_smoothed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blur, "SCATTER", 0.1)
    image, severity = picture(7, 10, 2), 4
    reach, stream = 0.1 * severity * 7, random()
    distance, turn = reach * np.sqrt(stream.random((7, 10))), 2 * np.pi * stream.random((7, 10))
    shifts = np.stack([distance * np.sin(turn), distance * np.cos(turn)])
    assert np.hypot(*shifts).max() <= reach
    expected = paint(image, lambda y, x: interpolate(image, y + shifts[0, y, x], x + shifts[1, y, x]))
    np.testing.assert_allclose(blur.shift_pixels(image, shifts), expected, atol=1e-12)
    deviation = reach / 4
    places = range(-int(4 * deviation + 0.5), int(4 * deviation + 0.5) + 1)
    weights = {(dy, dx): math.exp(-(dy * dy + dx * dx) / (2 * deviation**2)) for dy in places for dx in places}

    def smooth(y: int, x: int) -> AnyArray:
        colors = [expected[mirror(y + dy, 7), mirror(x + dx, 10)] for dy, dx in weights]
        return np.average(np.array(colors), axis=0, weights=[*weights.values()])

    np.testing.assert_allclose(corrupt(image, "glass_blur", severity, random()), paint(image, smooth), atol=1e-6)


@pytest.mark.parametrize("severity", [1, 5])
def test_zoom_is_the_mean_over_enlargements(severity: int) -> None:
    image, largest = picture(12, 17, 2), 1 + 0.06 * severity
    steps = math.ceil(17 / 2 * (1 - 1 / largest))
    factors = [1 + (largest - 1) * step / steps for step in range(steps + 1)]

    def color(y: int, x: int) -> AnyArray:
        points = [(5.5 + (y - 5.5) / factor, 8 + (x - 8) / factor) for factor in factors]
        mean: AnyArray = np.mean([interpolate(image, *point) for point in points], axis=0)
        return mean

    np.testing.assert_allclose(corrupt(image, "zoom_blur", severity, random()), paint(image, color), atol=1e-6)


def test_blur_keeps_an_image_of_one_color() -> None:
    image = np.broadcast_to(np.array([0.2, 0.7]), (H, W, 2))
    for name in cifar_c.GROUPS["blur"]:
        np.testing.assert_allclose(corrupt(image, name, 5, random()), image, atol=1e-6)


# Weather


def slow_clouds(levels: int, stream: np.random.Generator) -> AnyArray:
    """Diamond-square point by point, on a torus, with displacements drawn a level at a time as ours are."""
    field = {(0, 0): 0.0}
    amplitude, size = 1.0, 1
    for _ in range(levels):
        diamonds, rights, lowers = (amplitude * stream.uniform(-1, 1, (size, size)) for _ in range(3))
        fine = {(2 * y, 2 * x): height for (y, x), height in field.items()}
        size *= 2
        for y in range(1, size, 2):
            for x in range(1, size, 2):
                corners = [fine[(y + dy) % size, (x + dx) % size] for dy in (-1, 1) for dx in (-1, 1)]
                fine[y, x] = sum(corners) / 4 + diamonds[y // 2, x // 2]
        square = dict(fine)
        for y in range(size):
            for x in range(size):
                if (y + x) % 2:
                    steps = ((-1, 0), (1, 0), (0, -1), (0, 1))
                    neighbors = [fine[(y + dy) % size, (x + dx) % size] for dy, dx in steps]
                    square[y, x] = sum(neighbors) / 4 + (rights if x % 2 else lowers)[y // 2, x // 2]
        field, amplitude = square, 0.4 * amplitude
    return np.array([[field[y, x] for x in range(size)] for y in range(size)])


def test_clouds_are_those_of_diamond_square() -> None:
    heights = slow_clouds(4, random())
    expected = (heights - heights.min()) / np.ptp(heights)
    np.testing.assert_allclose(weather.clouds((16, 16), random()), expected, atol=1e-12)
    part = heights[:5]
    expected = (part - part.min()) / np.ptp(part)
    np.testing.assert_allclose(weather.clouds((5, 16), random()), expected, atol=1e-12)
    points = [[(4 * y / 3, 4 * x / 3) for x in range(12)] for y in range(10)]
    enlargement = np.array([[interpolate(heights[..., None], *point)[0] for point in row] for row in points])
    expected = (enlargement - enlargement.min()) / np.ptp(enlargement)
    np.testing.assert_allclose(weather.clouds((10, 12), random()), expected, atol=1e-12)


def test_fog_lets_less_light_through_where_clouds_are() -> None:
    image, severity = picture(H, W, C), 3
    clouds = weather.clouds((H, W), random())
    assert clouds.min() == 0 and clouds.max() == 1
    expected = paint(image, lambda y, x: 1 - math.exp(-0.9 * (0.5 + clouds[y, x])) * (1 - image[y, x]))
    np.testing.assert_allclose(corrupt(image, "fog", severity, random()), expected, atol=1e-6)


def test_frost_is_gray_ice_where_sheets_of_clouds_cross_their_middle() -> None:
    image, severity, stream = picture(H, W, C), 4, random()
    sheets = [weather.clouds((H, W), stream) for _ in range(2)]

    def color(y: int, x: int) -> AnyArray:
        cover = 0.17 * severity * max(float(1 - abs(2 * sheet[y, x] - 1)) ** 3 for sheet in sheets)
        return np.array([(1 - cover) * value + cover * 0.9 for value in image[y, x]])

    np.testing.assert_allclose(corrupt(image, "frost", severity, random()), paint(image, color), atol=1e-6)


@pytest.mark.parametrize("severity", [1, 5])
def test_snow_whitens_and_flakes_cover_a_share(severity: int) -> None:
    side = 40
    image, stream = picture(side, side + 3, C), random()
    field = stream.standard_normal((side, side + 3))[..., None]
    deviation = 0.01 * side
    places = range(-int(4 * deviation + 0.5), int(4 * deviation + 0.5) + 1)
    steps = [(dy, dx) for dy in places for dx in places]
    weights = [math.exp(-(dy * dy + dx * dx) / (2 * deviation**2)) for dy, dx in steps]
    field = np.average([np.roll(field, step, (0, 1)) for step in steps], axis=0, weights=weights)
    flakes = (field >= np.quantile(field, 1 - 0.02 * severity)).astype(float)
    assert flakes.mean() == pytest.approx(0.02 * severity, abs=1 / flakes.size)
    angle, length = np.pi * (0.25 + 0.5 * stream.random()), 0.06 * side
    way = np.linspace(-length / 2, length / 2, 2 * math.ceil(length) + 1)
    snow = mean_over(flakes, [(step * math.sin(angle), step * math.cos(angle)) for step in way])
    cover = np.minimum(1.5 * snow, 1)
    gray = image.mean(2, keepdims=True)
    haze = (1 - 0.06 * severity) * image + 0.06 * severity * (0.5 + 0.5 * gray)
    expected = (1 - cover) * haze + cover
    np.testing.assert_allclose(corrupt(image, "snow", severity, random()), expected, atol=1e-6)


def test_a_brighter_day_adds_to_the_value_of_hsv() -> None:
    image, severity = picture(H, W, C), 4
    image[0, 0] = 0

    def color(y: int, x: int) -> AnyArray:
        hue, saturation, value = colorsys.rgb_to_hsv(*image[y, x])
        return np.array(colorsys.hsv_to_rgb(hue, saturation, min(1, value + 0.1 * severity)))

    np.testing.assert_allclose(corrupt(image, "brightness", severity, random()), paint(image, color), atol=1e-6)
    gray = picture(H, W, 1)
    np.testing.assert_allclose(corrupt(gray, "brightness", 4, random()), np.minimum(gray + 0.4, 1), atol=1e-6)


# Digital


def test_contrast_is_left_to_a_power_about_the_mean_of_each_channel() -> None:
    image = 0.3 + 0.4 * picture(H, W, C) ** [1, 2, 3]
    flat = corrupt(image, "contrast", 3, random())
    np.testing.assert_allclose(flat.mean((0, 1)), image.mean((0, 1)), atol=1e-6)
    np.testing.assert_allclose(flat.std((0, 1)), 0.343 * image.std((0, 1)), rtol=1e-5)
    for channel in range(C):
        correlation = np.corrcoef(flat[..., channel].ravel(), image[..., channel].ravel())[0, 1]
        assert correlation == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("severity", [1, 5])
def test_an_elastic_transform_of_a_ramp_shows_its_displacements(severity: int) -> None:
    """A ramp is linear: what a pixel gains is the ramp's slope times its displacement, off the mirrored edges."""
    height, width = 60, 50
    y, x = np.mgrid[:height, :width] / 100
    ramps = np.stack([0.1 + y, 0.1 + x], axis=2)
    shifts = 100 * (corrupt(ramps, "elastic_transform", severity, random()) - ramps)
    uniform = random().uniform(-1, 1, (2, height, width))
    deviation = 50 / 16
    places = range(-int(4 * deviation + 0.5), int(4 * deviation + 0.5) + 1)
    weights = np.exp(-(np.array(places) ** 2) / (2 * deviation**2))
    weights /= weights.sum()
    for axis, count in ((1, height), (2, width)):
        index = [[mirror(place + step, count) for step in places] for place in range(count)]
        uniform = np.moveaxis(np.moveaxis(uniform, axis, -1)[..., index] @ weights, -1, axis)
    expected = 0.006 * severity * 50 * uniform / np.sqrt((uniform**2).mean())
    middle = (slice(8, -8), slice(8, -8))
    np.testing.assert_allclose(np.moveaxis(shifts, 2, 0)[:, *middle], expected[:, *middle], atol=2e-4)


def test_an_elastic_transform_without_displacement_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digital, "DISPLACEMENT", 0.0)
    image = picture(H, W, C)
    np.testing.assert_array_equal(corrupt(image, "elastic_transform", 5, random()), image.astype(np.float32))


@pytest.mark.parametrize("severity", [2, 5])
def test_pixelation_shows_means_over_areas(severity: int) -> None:
    image = picture(H, W, C)
    height, width = (round(side * (1 - 0.13 * severity)) for side in (H, W))

    def cell(row: int, column: int) -> AnyArray:
        total, area = np.zeros(C), 0.0
        for y in range(H):
            for x in range(W):
                height_of_part = min(y + 1, (row + 1) * H / height) - max(y, row * H / height)
                right = min(x + 1, (column + 1) * W / width) - max(x, column * W / width)
                if height_of_part > 0 and right > 0:
                    total, area = total + height_of_part * right * image[y, x], area + height_of_part * right
        return total / area

    cells = [[cell(row, column) for column in range(width)] for row in range(height)]
    expected = paint(image, lambda y, x: cells[int((y + 0.5) * height / H)][int((x + 0.5) * width / W)])
    np.testing.assert_allclose(corrupt(image, "pixelate", severity, random()), expected, atol=1e-6)


@pytest.mark.parametrize(("severity", "quality"), [(1, 75), (2, 38), (3, 25), (4, 19), (5, 15)])
def test_jpeg_is_that_of_pil(severity: int, quality: int) -> None:
    def through_pil(pixels: AnyArray, mode: str) -> AnyArray:
        file = io.BytesIO()
        Image.frombytes(mode, (W, H), pixels.tobytes()).save(file, "JPEG", quality=quality)
        return np.asarray(Image.open(file)) / 255

    pixels = np.random.default_rng(0).integers(0, 256, (H, W, 4), np.uint8)
    image = pixels / 255
    images = {
        channels: corrupt(image[..., :channels], "jpeg_compression", severity, random()) for channels in (1, 3, 4)
    }
    np.testing.assert_allclose(images[3], through_pil(pixels[..., :3], "RGB"), atol=1e-6)
    grays = np.stack([through_pil(pixels[..., channel], "L") for channel in range(4)], axis=2)
    np.testing.assert_allclose(images[4], grays, atol=1e-6)
    np.testing.assert_array_equal(images[1], images[4][..., :1])
    assert np.abs(images[3] - images[4][..., :3]).max() > 0.05


# All


def test_they_are_those_that_were_published() -> None:
    assert list(CORRUPTIONS) == [name for group in cifar_c.GROUPS.values() for name in group]
    assert len(CORRUPTIONS) == 15


@pytest.mark.parametrize("shape", [(H, W, C), (5, 4, 1), (3, 8, 2), (1, 1, 3), (2, 33, 4)])
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_any_size_and_number_of_channels_stays_in_range_and_is_left_as_it_was(
    name: str, shape: tuple[int, ...]
) -> None:
    image, original = (picture(*shape).astype(np.float32) for _ in range(2))
    for severity in SEVERITIES:
        result = corrupt(image, name, severity, random())
        assert result.shape == shape and result.dtype == np.float32
        assert result.min() >= 0 and result.max() <= 1
    np.testing.assert_array_equal(image, original)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_an_image_depends_on_its_index_and_the_seed_and_on_nothing_beside_it(name: str) -> None:
    images = picture(N, H, W, C)
    states = read_generator_states(CPU)
    whole = corrupt_images(images, name, 3, 7, range(20, 20 + N))
    assert read_generator_states(CPU) == states
    parts = [corrupt_images(images[part], name, 3, 7, range(20, 20 + N)[part]) for part in (slice(0, 1), slice(1, N))]
    np.testing.assert_array_equal(whole, np.concatenate(parts))
    twins = corrupt_images(images[[0, 0]], name, 3, 7, [20, 21])
    np.testing.assert_array_equal(twins[0], whole[0])
    is_random = name not in ("defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate", "jpeg_compression")
    assert (twins[0] != twins[1]).any() == is_random
    assert (corrupt_images(images[:1], name, 3, 8, [20])[0] != whole[0]).any() == is_random


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_larger_severity_changes_images_more(name: str, digits: Dataset) -> None:
    images = digits.test.images[:N] / np.float32(255)
    distances = [
        np.sqrt(((corrupt_images(images, name, severity, 0, range(N)) - images) ** 2).mean((1, 2, 3)))
        for severity in SEVERITIES
    ]
    mean = np.mean(distances, axis=1)
    assert mean[0] > 0.005 and (np.diff(mean) > 0).all() and mean[-1] < 0.6


@pytest.mark.parametrize("name", ["defocus_blur", "zoom_blur", "brightness", "contrast"])
def test_lengths_grow_with_the_image(name: str) -> None:
    """A scene of 32 pixels and one of 96 look alike when both are corrupted: each pixel is the mean of nine.

    Interpolation between pixels blurs the small one a little more: by 1/6 of a pixel squared, the disk by 0.64.
    """
    small, large = (corrupt(scene(side), name, 5, random()) for side in (32, 96))
    reduction = large.reshape(32, 3, 32, 3, 3).mean((1, 3))
    change = np.abs(small - scene(32)).max()
    assert np.abs(small - reduction).max() < 0.2 * change


def test_nonsense_gets_a_sentence() -> None:
    image = picture(H, W, C)
    with pytest.raises(UserError, match="unknown corruption 'fogg': did you mean 'fog'"):
        corrupt(image, "fogg", 1, random())
    with pytest.raises(UserError, match="unknown corruption 'haze'"):
        corrupt_images(image[None], "haze", 1, 0, [0])
    for severity in (0, 6):
        with pytest.raises(UserError, match=f"the severity is {severity}, and must be 1 to 5"):
            corrupt(image, "fog", severity, random())
    with pytest.raises(UserError, match=r"shape \(9, 14\), and must have height, width and channels"):
        corrupt(image[..., 0], "fog", 1, random())
