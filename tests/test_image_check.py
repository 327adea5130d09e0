"""What is doubtful about test images: their scale, and copies among them."""

import torch

from interpret_robust.models.image_check import LEAST_IMAGES, doubts_about_images

N, C, H, W = 100, 3, 5, 4


def images() -> torch.Tensor:
    """Return images (N, C, H, W) of bytes, the brightest 255, in [0, 1]."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (N, C, H, W), generator=generator)
    pixels[0, 0, 0, 0] = 255
    return pixels / 255


def test_plain_images_are_not_doubted() -> None:
    assert list(doubts_about_images(images())) == []
    assert list(doubts_about_images(images() * 200 / 255)) == [], "dark ones neither"
    assert list(doubts_about_images(images()[:1].expand(LEAST_IMAGES - 1, -1, -1, -1) / 16)) == [], "few tell nothing"


def test_numbers_that_were_not_scaled() -> None:
    """0 to 15, as of scikit-learn's digits: a radius of 8/255 is 53 % of their range."""
    (doubt,) = doubts_about_images((255 * images() / 17).round() / 255)
    assert doubt.startswith("the brightest pixel of 100 test images is 15 of 255")
    assert "8/255 is 53% of their range" in doubt


def test_copies() -> None:
    (doubt,) = doubts_about_images(images()[:25].repeat(4, 1, 1, 1))
    assert doubt.startswith("only 25 of 100 test images are distinct")
    assert list(doubts_about_images(torch.cat([images()[:90], images()[:10]]))) == []
