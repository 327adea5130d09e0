"""Maps that no trained model made: against SciPy, and what a scramble keeps and what it does not."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import torch
from networks import array, pixels
from scipy import ndimage
from torch import Tensor

from interpret_robust.attribution.controls import Streams, magnitude, randomize_phases, shuffle_pixels, sobel

Array = npt.NDArray[np.float64]


def streams(*indices: int) -> list[np.random.Generator]:
    return [np.random.default_rng([7, index]) for index in indices]


def maps(count: int, height: int, width: int, colors: int = 3) -> Tensor:
    """Random maps with a mean that is not zero."""
    return pixels(count, colors, height, width, seed=3, low=-0.7, high=1.0)


def spectrum(images: Tensor) -> npt.NDArray[np.complex128]:
    return np.fft.fft2(array(images))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_edges_are_those_of_scipy(layout: torch.memory_format) -> None:
    images = pixels(4, 3, 9, 6, seed=1)
    slopes = array(sobel(images.contiguous(memory_format=layout)))
    for image, edges in zip(array(images), slopes, strict=True):
        for plane, slope in zip(image, edges, strict=True):
            horizontal, vertical = (ndimage.sobel(plane, axis, mode="nearest") for axis in (1, 0))
            np.testing.assert_allclose(slope, np.hypot(horizontal, vertical), atol=1e-5)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_a_magnitude_is_the_nearest_root_of_the_sum_of_squares(channels: int, layout: torch.memory_format) -> None:
    vectors = pixels(5, channels, 9, 7, seed=2, low=-2.0).contiguous(memory_format=layout)
    squares = array(vectors).astype(np.float32) ** 2
    total = squares[:, 0]
    for channel in range(1, channels):
        total = total + squares[:, channel]
    lengths = magnitude(vectors)
    assert lengths.dtype == torch.float32 and total.dtype == np.float32
    np.testing.assert_array_equal(lengths.numpy(), np.sqrt(total))


def test_edges_of_a_ramp_and_of_a_plain_image() -> None:
    ramp = torch.arange(7.0).expand(1, 1, 5, 7)
    np.testing.assert_allclose(array(sobel(ramp))[0, 0, :, 1:-1], 8)
    assert not sobel(torch.full((1, 3, 5, 7), 0.3)).any()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_shuffled_pixels_are_the_same_pixels_elsewhere(layout: torch.memory_format) -> None:
    whole = maps(5, 7, 4).contiguous(memory_format=layout)
    permutation = shuffle_pixels(whole, streams(*range(5)))
    assert permutation.shape == whole.shape
    orders = []
    for image, shuffle in zip(array(whole), array(permutation), strict=True):
        pixel, target = image.reshape(3, -1).T, shuffle.reshape(3, -1).T
        orders.append([int(np.flatnonzero((pixel == color).all(1))[0]) for color in target])
    assert all(sorted(order) == list(range(28)) for order in orders)
    assert len(set(map(tuple, orders))) == 5
    assert all(sum(origin == place for place, origin in enumerate(order)) < 6 for order in orders)


@pytest.mark.parametrize(("height", "width"), [(6, 8), (7, 8), (6, 9), (7, 9), (1, 4)])
def test_random_phases_keep_power_mean_and_the_relation_of_colors(height: int, width: int) -> None:
    whole = maps(4, height, width)
    scramble = randomize_phases(whole, streams(*range(4)))
    assert scramble.shape == whole.shape
    assert scramble.dtype == torch.float32
    spectrum_before, spectrum_after = spectrum(whole), spectrum(scramble)
    np.testing.assert_allclose(np.abs(spectrum_after), np.abs(spectrum_before), atol=1e-4)
    np.testing.assert_allclose(array(scramble.mean((2, 3))), array(whole.mean((2, 3))), atol=1e-6)
    cross, found_cross = (
        spectra[:, [0, 0, 1]] * spectra[:, [1, 2, 2]].conj() for spectra in (spectrum_before, spectrum_after)
    )
    np.testing.assert_allclose(found_cross, cross, atol=3e-3)


@pytest.mark.parametrize(("height", "width"), [(6, 8), (7, 9)])
def test_random_phases_are_spread_evenly(height: int, width: int) -> None:
    whole = maps(1, height, width).expand(600, -1, -1, -1)
    phases = spectrum(randomize_phases(whole, streams(*range(600))))[:, 0] / spectrum(whole)[:, 0]
    # A frequency that is its own negative has a real coefficient: only its sign is free.
    real = np.logical_and.outer(2 * np.arange(height) % height == 0, 2 * np.arange(width) % width == 0)
    for moment in (1, 2):
        assert np.abs((phases[:, ~real] ** moment).mean(0)).max() < 5 / np.sqrt(600)
    np.testing.assert_allclose(phases[:, 0, 0], 1, atol=1e-4)
    signs = phases[:, real][:, 1:]
    np.testing.assert_allclose(signs**2, 1, atol=1e-3)
    assert np.abs(signs.mean(0)).max(initial=0) < 5 / np.sqrt(600)


@pytest.mark.parametrize("scramble", [shuffle_pixels, randomize_phases])
def test_a_scramble_depends_on_its_stream_alone(scramble: Callable[[Tensor, Streams], Tensor]) -> None:
    whole, state = maps(5, 6, 8), torch.get_rng_state()
    together = scramble(whole, streams(0, 1, 2, 3, 4))
    parts = torch.cat([scramble(whole[:2], streams(0, 1)), scramble(whole[2:], streams(2, 3, 4))])
    np.testing.assert_allclose(together, parts, atol=1e-6)
    twins = scramble(whole[:1].expand(2, -1, -1, -1), streams(0, 1))
    assert (twins[0] - twins[1]).abs().max() > 0.1
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("scramble", [shuffle_pixels, randomize_phases])
def test_a_zero_map_stays_zero(scramble: Callable[[Tensor, Streams], Tensor]) -> None:
    assert not scramble(torch.zeros(2, 3, 6, 8), streams(0, 1)).any()
