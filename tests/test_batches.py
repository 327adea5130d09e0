"""Training batches: what each epoch sees, what may be asked in any order, and the augmentation image by image."""

import itertools
import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from interpret_robust.datasets import Split
from interpret_robust.datasets.batches import (
    ATTACK,
    AUGMENT,
    SHUFFLE,
    TrainingBatches,
    choose_batch_size,
    crop,
    draw_mirroring,
    draw_shifts,
    make_generator,
    mirror,
    to_device,
    to_pixels,
)

CPU = torch.device("cpu")


def split(count: int, channels: int = 3) -> Split:
    """Random images 6 high and 5 wide, labeled with their own index."""
    images = np.random.default_rng(0).integers(0, 256, (count, 6, 5, channels), dtype=np.uint8)
    return Split(images, np.arange(count))


def batches(count: int, batch_size: int, seed: int = 0, *, pad: int = 0, flip: bool = False) -> TrainingBatches:
    return TrainingBatches(split(count), batch_size, seed, CPU, pad=pad, flip=flip)


def labels_of(source: TrainingBatches, epoch: int) -> list[int]:
    steps = range(epoch * source.steps_per_epoch, (epoch + 1) * source.steps_per_epoch)
    return [int(label) for step in steps for label in source.batch(step)[1]]


@pytest.mark.parametrize(("count", "batch_size", "steps"), [(23, 5, 4), (20, 5, 4), (7, 7, 1), (9, 1, 9), (13, 7, 1)])
def test_an_epoch_sees_each_image_at_most_once_and_drops_the_tail(count: int, batch_size: int, steps: int) -> None:
    source = batches(count, batch_size)
    assert source.steps_per_epoch == steps
    epochs = [labels_of(source, epoch) for epoch in range(30)]
    for order in epochs:
        assert len(order) == steps * batch_size == len(set(order))
    assert set().union(*epochs) == set(range(count))  # the tail is another one each time
    assert len({tuple(order) for order in epochs}) > 20


def test_a_batch_is_a_function_of_seed_and_step_in_whatever_order_asked() -> None:
    steps = [11, 0, 5, 4, 11, 3, 0]  # four steps an epoch
    forth, source = batches(23, 5, 1, pad=2, flip=True), batches(23, 5, 1, pad=2, flip=True)
    expected = {step: forth.batch(step) for step in sorted(set(steps))}
    state = torch.get_rng_state()
    for step in steps:
        images, labels = source.batch(step)
        assert torch.equal(images, expected[step][0]) and torch.equal(labels, expected[step][1])
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(batches(23, 5, 2, pad=2, flip=True).batch(0)[1], expected[0][1])


def test_each_step_augments_anew() -> None:
    data = split(28)
    data.images[:] = data.images[0]  # so that only the augmentation tells one batch from another
    source = TrainingBatches(data, 7, 0, CPU, pad=2, flip=True)
    assert len({source.batch(step)[0].numpy().tobytes() for step in range(8)}) == 8  # two epochs of four


@pytest.mark.parametrize("channels", [1, 3])
def test_without_augmentation_pixels_are_bytes_by_255_of_the_labeled_image(channels: int) -> None:
    data = split(23, channels)
    images, labels = TrainingBatches(data, 8, 0, CPU, pad=0, flip=False).batch(1)
    assert images.dtype == torch.float32
    expected = data.images[labels.numpy()].transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)
    np.testing.assert_array_equal(images.numpy(), expected)


def test_batches_leave_the_stored_images_alone() -> None:
    data = split(8)
    originals, source = data.images.copy(), TrainingBatches(data, 8, 0, CPU, pad=1, flip=True)
    source.batch(0)[0].zero_()
    np.testing.assert_array_equal(data.images, originals)
    np.testing.assert_array_equal(source.images.permute(0, 2, 3, 1).numpy(), originals)


def test_every_byte_becomes_its_255th() -> None:
    values = to_pixels(torch.arange(256, dtype=torch.uint8))
    np.testing.assert_array_equal(values.numpy(), np.arange(256, dtype=np.float32) / np.float32(255))
    assert values[0] == 0 and values[255] == 1


def test_to_device_moves_the_channels_first() -> None:
    data = split(7)
    images, labels = to_device(data, CPU)
    assert images.dtype == torch.uint8 and images.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_array_equal(images.numpy(), data.images.transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(labels.numpy(), data.labels)


def windows(image: npt.NDArray[np.uint8], pad: int) -> dict[bytes, tuple[int, int]]:
    """Every window (C, H, W) of the zero-padded image, by its bytes."""
    _, height, width = image.shape
    frame = np.pad(image, ((0, 0), (pad, pad), (pad, pad)))
    return {
        frame[:, top : top + height, left : left + width].tobytes(): (top, left)
        for top, left in itertools.product(range(2 * pad + 1), repeat=2)
    }


@pytest.mark.parametrize("pad", [1, 2])
def test_each_crop_is_a_window_of_its_own_padded_image_and_all_windows_are_as_frequent(pad: int) -> None:
    count = 1000
    images = to_device(split(count), CPU)[0]
    crops = crop(images, pad, draw_shifts(count, pad, torch.Generator().manual_seed(0)))
    places = [windows(image.numpy(), pad)[crop.numpy().tobytes()] for image, crop in zip(images, crops, strict=True)]
    places_a_side = 2 * pad + 1
    frequency = np.zeros((places_a_side, places_a_side))
    np.add.at(frequency, tuple(np.array(places).T), 1 / count)
    expected = 1 / places_a_side**2
    np.testing.assert_allclose(frequency, expected, atol=5 * math.sqrt(expected / count))


def test_a_crop_without_padding_changes_nothing() -> None:
    images = to_device(split(9), CPU)[0]
    assert torch.equal(crop(images, 0, draw_shifts(9, 0, torch.Generator().manual_seed(0))), images)


def test_a_flip_mirrors_whole_images_half_of_them() -> None:
    count = 1000
    images = to_device(split(count), CPU)[0]
    images_after = mirror(images, draw_mirroring(count, torch.Generator().manual_seed(4)))
    is_mirror = np.zeros(count, bool)
    for row, (image, image_after) in enumerate(zip(images.numpy(), images_after.numpy(), strict=True)):
        is_mirror[row] = np.array_equal(image_after, image[:, :, ::-1])
        assert is_mirror[row] or np.array_equal(image_after, image)
    assert abs(is_mirror.mean() - 0.5) < 5 * math.sqrt(0.25 / count)
    draws = torch.rand(count, generator=torch.Generator().manual_seed(4)) < 0.5
    np.testing.assert_array_equal(is_mirror, draws.numpy())


def test_generators_differ_in_each_of_their_numbers_and_in_their_order() -> None:
    def draw(seed: int, stream: int, count: int) -> Tensor:
        return torch.rand(50, generator=make_generator(CPU, seed, stream, count))

    keys = list(itertools.product((0, 1, 2, 1000), (SHUFFLE, AUGMENT, ATTACK), (0, 1, 2, 1000)))
    draws = torch.stack([draw(*key) for key in keys])
    assert len(np.unique(draws.numpy(), axis=0)) == len(keys) == 48
    assert torch.equal(draw(*keys[17]), draws[17])
    # Numbers of different streams are unrelated: no pair correlates beyond five deviations.
    correlation = np.corrcoef(draws.numpy()) - np.eye(len(keys))
    assert np.abs(correlation).max() < 5 / math.sqrt(50)


@pytest.mark.parametrize("bounds", [(0, 3, 8), (0, 1, 2, 8), (0, 8)])
def test_parts_of_a_batch_are_the_batch_whatever_their_number(bounds: tuple[int, ...]) -> None:
    whole = batches(23, 8, 4, pad=2, flip=True)
    parts = [
        TrainingBatches(split(23), 8, 4, CPU, pad=2, flip=True, part=slice(start, stop))
        for start, stop in itertools.pairwise(bounds)
    ]
    for step in (0, 1, 5):
        images, labels = whole.batch(step)
        assert torch.equal(torch.cat([part.batch(step)[0] for part in parts]), images)
        assert torch.equal(torch.cat([part.batch(step)[1] for part in parts]), labels)
        assert torch.equal(torch.cat([part.noise(step) for part in parts]), whole.noise(step))


def test_noise_is_uniform_and_another_at_each_step() -> None:
    source = batches(2000, 1000)
    first, second = source.noise(0), source.noise(1)
    assert first.shape == (1000, 3, 6, 5) and not torch.equal(first, second)
    assert first.min() >= -1 and first.max() < 1
    assert abs(float(first.mean())) < 0.01 and abs(float(first.var()) - 1 / 3) < 0.01
    assert torch.equal(first, batches(2000, 1000).noise(0))


@pytest.mark.parametrize(
    ("height", "width", "size"),
    [(28, 28, 250), (64, 64, 250), (64, 65, 250), (65, 65, 248), (224, 160, 29), (2000, 999, 1)],
)
def test_as_many_images_are_computed_at_once_as_hold_a_million_pixels_and_250_at_most(
    height: int, width: int, size: int
) -> None:
    assert choose_batch_size(height, width) == size
