"""Other forms of images, in which those of a network's training may have been: colors, brightness, places of pixels."""

from collections.abc import Iterator
from itertools import permutations

from torch import Tensor

GAMMA = 2.2
"""The power that makes pixels of sRGB nearly proportional to light."""

LEAST_DEVIATION = 1e-3
"""By which images without contrast are divided at least, in [0, 1]."""

Form = tuple[Tensor, str]
"""Images (N, C, H, W), and what they are, as the end of a sentence."""


def list_colors(images: Tensor) -> Iterator[Form]:
    """Yield images (N, C, H, W) with their colors in other orders, the reverse one first; none of one channel.

    Example:
        >>> [images[0, :, 0, 0].tolist() for images, _ in list_colors(torch.arange(3.0).view(1, 3, 1, 1))]
        [[2.0, 1.0, 0.0], [0.0, 2.0, 1.0], [1.0, 0.0, 2.0], [1.0, 2.0, 0.0], [2.0, 0.0, 1.0]]
    """
    if images.shape[1] == 1:
        return
    yield (
        images.flip(1),
        "with the colors in reverse order: was it trained on BGR? Let its forward flip the channels.",
    )
    for order in permutations(range(3)) if images.shape[1] == 3 else ():
        if order not in ((0, 1, 2), (2, 1, 0)):
            name = "".join("RGB"[channel] for channel in order)
            yield (
                images[:, order],
                f"with the colors in the order {name}: were the images of its training, or are these, in another "
                f"order than RGB? Let its forward take pixels[:, {list(order)}].",
            )


def list_forms(images: Tensor) -> Iterator[Form]:
    """Yield images (N, C, H, W) in [0, 1] with other brightness or other places of pixels, in [0, 1] too.

    Example:
        >>> [condition.split(":")[0] for _, condition in list_forms(torch.rand(5, 1, 4, 3))][0]
        'with bright and dark exchanged'
    """
    yield from _change_brightness(images)
    yield from _move_pixels(images)


def list_standardized(images: Tensor) -> Iterator[Form]:
    """Yield images (N, C, H, W) of which each has mean 0 and deviation 1, in all of its channels together and in each.

    They stand in place of a normalization. What they are is named to be read behind "with".

    Example:
        >>> standardized, name = next(list_standardized(torch.rand(5, 3, 8, 8)))
        >>> [round(float(numbers), 3) for numbers in (standardized[0].mean().abs(), standardized[0].std(correction=0))]
        [0.0, 1.0]
        >>> name
        'each image standardized by its own mean and deviation'
    """
    for axes, unit in (((1, 2, 3), "each image"), ((2, 3), "each channel of an image")):
        deviation = images.std(axes, correction=0, keepdim=True).clamp_min(LEAST_DEVIATION)
        yield (
            (images - images.mean(axes, keepdim=True)) / deviation,
            f"{unit} standardized by its own mean and deviation",
        )


def _change_brightness(images: Tensor) -> Iterator[Form]:
    yield 1 - images, "with bright and dark exchanged: was it trained on such images? Let its forward take 1 - pixels."
    for power, look in ((GAMMA, "darker, as linear light is"), (1 / GAMMA, "brighter, as if these were linear light")):
        yield (
            images.pow(power),
            f"with pixels to the power of {power:.2g}: were the images of its training {look}? Let its forward take "
            f"pixels ** {power:.2g}.",
        )


def _move_pixels(images: Tensor) -> Iterator[Form]:
    yield (
        images.flip(2),
        "upside down, as formats have them whose first row is the lowest: were the images of its training, or are "
        "these? Turn them in the data, or in its forward.",
    )
    if images.shape[2] == images.shape[3]:
        yield (
            images.transpose(2, 3),
            "with rows and columns exchanged, as files of MATLAB have them: were the images of its training, or are "
            "these? Exchange them in the data, or in its forward.",
        )
    count, channels, height, width = images.shape
    if channels > 1:
        for other_images in (
            images.permute(0, 2, 3, 1).reshape(images.shape),
            images.reshape(count, height, width, channels).permute(0, 3, 1, 2),
        ):
            yield (
                other_images,
                "with the numbers of an image read in another order of its axes: were the images of its training, or "
                "these, reshaped from channels first to channels last, or back? Move the axes, as numpy.moveaxis does.",
            )
