"""What is doubtful about test images: their scale, and copies among them."""

from typing import Any, cast

import numpy as np
import torch

from interpret_robust.datasets import Split
from interpret_robust.datasets.base import Labels
from interpret_robust.models.checks import images as image_check
from interpret_robust.models.checks.images import LEAST_IMAGES

N, C, H, W = 100, 3, 5, 4


def images() -> torch.Tensor:
    """Return images (N, C, H, W) of bytes, the brightest 255, in [0, 1]."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (N, C, H, W), generator=generator)
    pixels[0, 0, 0, 0] = 255
    return pixels / 255


def doubts_about_images(
    drawn_images: torch.Tensor, all_images: torch.Tensor | None = None, labels: Labels | None = None
) -> list[str]:
    """Ask about images, and the split that they were drawn from: just these, if no others are given.

    All have one label, if none are given.
    """
    pixels = drawn_images if all_images is None else all_images
    array = np.rint(255 * pixels.numpy()).astype(np.uint8).transpose(0, 2, 3, 1)
    split = Split(array, np.zeros(len(array), int) if labels is None else labels)
    return list(image_check.list_image_doubts(drawn_images, np.zeros(len(drawn_images), int), split))


def test_plain_images_are_not_doubted() -> None:
    assert (doubts_about_images(images())) == []
    assert (doubts_about_images(images() * 200 / 255)) == [], "dark ones neither"
    assert (doubts_about_images(images()[:1].expand(LEAST_IMAGES - 1, -1, -1, -1) / 16)) == [], "few tell nothing"


def test_numbers_that_were_not_scaled() -> None:
    """0 to 15, as of scikit-learn's digits: a radius of 8/255 is 53 % of their range."""
    (doubt,) = doubts_about_images((255 * images() / 17).round() / 255)
    assert doubt.startswith("the brightest pixel of 100 test images is 15 of 255")
    assert "8/255 is 53% of their range" in doubt


def test_half_of_the_scale_counts() -> None:
    """Halves of floats are stored as up to 128, which is a little more than 128/255 in float32."""
    pixels = images()
    (doubt,) = doubts_about_images((pixels * 127.5).round() / 255)
    assert doubt.startswith("the brightest pixel of 100 test images is 128 of 255")


def test_copies_are_counted_in_the_whole_split() -> None:
    (doubt,) = doubts_about_images(images(), torch.cat([images(), images()[:20]]))
    assert doubt.startswith("only 100 of 120 test images are distinct")


def test_copies() -> None:
    (doubt,) = doubts_about_images(images()[:25].repeat(4, 1, 1, 1))
    assert doubt.startswith("only 25 of 100 test images are distinct")
    assert (doubts_about_images(torch.cat([images()[:90], images()[:10]]))) == []


def test_mirror_images_are_copies() -> None:
    """Of the pixels drawn and of the bytes of a split alike; an image upside down is another one."""
    mirror_images, flips = (torch.cat([images()[:50], images()[:50].flip(axis)]) for axis in (3, 2))
    for all_images in (mirror_images, images()):
        drawn_images = images() if all_images is mirror_images else mirror_images
        doubts = doubts_about_images(drawn_images, all_images)
        assert [doubt.startswith("only 50 of 100 test images are distinct, mirror") for doubt in doubts] == [True] * (
            all_images is mirror_images
        )
    assert doubts_about_images(flips) == []
    split = Split(cast(Any, Pictures()), np.arange(N))
    pictures = list(image_check.list_image_doubts(mirror_images, np.zeros(N, int), split))
    assert [doubt.startswith("only 50 of 100") for doubt in pictures] == [True]
    sides = np.arange(N) // 50
    assert doubts_about_images(mirror_images, labels=sides) == [], "left and right are two classes"
    (doubt,) = doubts_about_images(torch.cat([images()[:50]] * 2), labels=sides)
    assert doubt.startswith("only 50 of 100"), "exact copies are copies, whatever they are called"


class Pictures:
    """Images that are opened when they are asked for, and not compared as a whole."""

    shape = (N, H, W, C)
    dtype = np.dtype(np.uint8)

    def __len__(self) -> int:
        return N
