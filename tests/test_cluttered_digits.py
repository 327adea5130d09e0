"""The embedded data: bytes from a seed, no digit on both sides, masks on bright ink, the planted pattern."""

import hashlib
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

from interpret_robust.core.errors import UserError
from interpret_robust.datasets import Dataset, Split, catalogue
from interpret_robust.datasets.cluttered_digits import CLASS_NAMES, _split_sources, make_cluttered_digits
from interpret_robust.datasets.npz import write_npz


@lru_cache
def digits(*, with_patterns: bool = False, seed: int = 0) -> Dataset:
    return make_cluttered_digits(303, 101, seed=seed, with_patterns=with_patterns)


def masks(split: Split) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    assert split.masks is not None
    return split.masks


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others() -> None:
    repetition, other = make_cluttered_digits(303, 101, seed=0), digits(seed=1)
    for name in ("train", "test"):
        first = digits().split(name)
        assert first.sha256 == repetition.split(name).sha256 != other.split(name).sha256
        np.testing.assert_array_equal(masks(first), masks(repetition.split(name)))
        assert (first.images != other.split(name).images).mean() > 0.9


def test_these_are_the_bytes_of_version_1() -> None:
    # Where this fails, the same seed gives other images than before: raise VERSION with it.
    small = make_cluttered_digits(12, 5, seed=0)
    assert small.train.sha256[:16] == "ba68896ff5a65532"
    assert small.test.sha256[:16] == "0e51ca8cbc5af460"
    assert hashlib.sha256(masks(small.train).tobytes()).hexdigest()[:16] == "b1faeed71050bb37"


@pytest.mark.parametrize("seed", [0, 1])
def test_train_and_test_share_no_source_digit(seed: int) -> None:
    (train, train_labels), (test, test_labels) = _split_sources(np.random.default_rng([seed, 0]))
    train_bytes, test_bytes = ({image.tobytes() for image in part} for part in (train, test))
    assert len(train_bytes) == 1348 and len(test_bytes) == 449  # all 1,797, and a quarter of them
    assert not train_bytes & test_bytes
    assert set(train_labels) == set(test_labels) == set(range(10))
    assert train.min() == 0 and train.max() == 1


def test_labels_are_balanced_and_shuffled() -> None:
    data = digits()
    assert sorted(np.bincount(data.train.labels)) == [30] * 7 + [31] * 3
    assert sorted(np.bincount(data.test.labels)) == [10] * 9 + [11]
    assert not np.array_equal(data.train.labels, np.sort(data.train.labels))
    assert not np.array_equal(data.train.labels, np.arange(303) % 10)
    assert len(data.class_names) == 10 and data.class_names == CLASS_NAMES


@pytest.mark.parametrize("name", ["train", "test"])
def test_masks_lie_on_bright_ink_and_are_neither_empty_nor_large(name: str) -> None:
    split = digits().split(name)
    brightest, mask = split.images.max(3), masks(split)
    # The ink of a mask covers 0.4 or more, in a color whose brightest channel is 1, at contrast 0.87.
    assert brightest[mask].min() >= np.floor(255 * (0.065 + 0.87 * 0.4))
    area = mask.sum((1, 2))
    assert area.min() >= 60 and area.max() <= 300
    for image, ink in zip(brightest, mask, strict=True):
        assert image[ink].mean() > image[~ink].mean() + 50


def test_pixels_leave_room_for_the_planted_pattern() -> None:
    images = digits().train.images
    assert images.min() >= 16 and images.max() <= 239


def test_planted_images_are_the_plain_ones_plus_their_class_pattern_below_eps() -> None:
    plain, with_patterns = digits(), digits(with_patterns=True)
    assert (plain.name, with_patterns.name) == ("cluttered-digits", "cluttered-digits-planted")
    patterns: dict[int, np.ndarray[tuple[int, ...], np.dtype[np.int64]]] = {}
    for name in ("train", "test"):  # the same pattern in both
        plain_split, pattern_split = plain.split(name), with_patterns.split(name)
        np.testing.assert_array_equal(pattern_split.labels, plain_split.labels)
        np.testing.assert_array_equal(masks(pattern_split), masks(plain_split))
        difference = pattern_split.images.astype(np.int64) - plain_split.images
        for label, change in zip(plain_split.labels, difference, strict=True):
            np.testing.assert_array_equal(change, patterns.setdefault(label, change))
    assert len(patterns) == 10
    for label, pattern in patterns.items():
        assert set(np.unique(pattern)) == {-6, 6}  # never clipped, and below eps 8/255
        blocks = pattern.reshape(8, 4, 8, 4, 3)
        assert (blocks == blocks[:, :1, :, :1]).all()
        for other in range(label):
            assert 0.3 < (pattern != patterns[other]).mean() < 0.7
    assert plain.patterns is None
    assert with_patterns.patterns is not None and with_patterns.patterns.dtype == np.float32
    np.testing.assert_array_equal(np.rint(255 * with_patterns.patterns), [patterns[label] for label in range(10)])


def test_patterns_come_with_the_planted_data_by_name_and_with_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IRT_DATA", str(tmp_path))
    catalogue._load.cache_clear()
    names = ("cluttered-digits", "cluttered-digits-planted", str(tmp_path / "own-planted.npz"))
    for name in names:
        dataset = digits(with_patterns="planted" in name)
        arrays = {"x_train": dataset.train.images, "x_test": dataset.test.images}
        write_npz(catalogue.find_file(name), arrays | {"y_train": dataset.train.labels, "y_test": dataset.test.labels})
    plain, with_patterns, of_file = map(catalogue.load, names)
    catalogue._load.cache_clear()
    assert plain.patterns is None and of_file.patterns is None
    change = (with_patterns.test.images.astype(np.int64) - plain.test.images) / 255
    assert with_patterns.patterns is not None
    np.testing.assert_allclose(with_patterns.patterns[with_patterns.test.labels], change, rtol=1e-6)


# --- what a split and a dataset say of themselves


def split() -> Split:
    return Split(
        np.arange(5 * 4 * 3 * 3, dtype=np.uint8).reshape(5, 4, 3, 3),
        np.arange(5),
        np.eye(5, 12, dtype=bool).reshape(5, 4, 3),
    )


@pytest.mark.parametrize(("limit", "count"), [(None, 5), (2, 2), (5, 5), (99, 5), (0, 0)])
def test_first_takes_that_many_images_labels_and_masks(limit: int | None, count: int) -> None:
    whole, part = split(), split().first(limit)
    assert len(part) == count
    np.testing.assert_array_equal(part.images, whole.images[:count])
    np.testing.assert_array_equal(part.labels, whole.labels[:count])
    np.testing.assert_array_equal(masks(part), masks(whole)[:count])
    assert replace(whole, masks=None).first(limit).masks is None


def test_sha256_is_over_the_bytes_of_images_and_labels() -> None:
    whole = split()
    assert whole.sha256 == hashlib.sha256(whole.images.tobytes() + whole.labels.tobytes()).hexdigest()
    assert replace(whole, masks=None).sha256 == whole.sha256
    view = np.repeat(whole.images, 2, axis=0)[::2]
    assert not view.flags.c_contiguous
    assert replace(whole, images=view).sha256 == whole.sha256
    images, labels = whole.images.copy(), whole.labels.copy()
    images[4, 3, 2, 2] ^= 1
    labels[0] = 1
    assert len({whole.sha256, replace(whole, images=images).sha256, replace(whole, labels=labels).sha256}) == 3


def test_a_dataset_gives_its_shape_and_its_splits_by_name() -> None:
    train, test = split(), split().first(2)
    data = Dataset("five", train, test, tuple("abcde"))
    assert data.image_shape == (3, 4, 3)  # channels, height, width
    assert data.split("train") is train and data.split("test") is test
    with pytest.raises(UserError) as error:
        data.split("validation")
    assert str(error.value) == "five has no split 'validation', but train and test."
