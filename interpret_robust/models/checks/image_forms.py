"""Other forms of images, in which those of a network's training may have been: colors, brightness, places of pixels."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import permutations

from torch import Tensor

GAMMA = 2.2
"""The power that makes pixels of sRGB nearly proportional to light."""

LEAST_DEVIATION = 1e-3
"""By which images without contrast are divided at least, in [0, 1]."""

Change = Callable[[Tensor], Tensor]
"""Gives images (N, C, H, W) in another form, from such in [0, 1]."""

Form = tuple[Change, str]
"""What changes images, and what they are then, as the end of a sentence."""


def list_colors(channels: int) -> Iterator[Form]:
    """Yield what gives images their colors in other orders, the reverse one first; nothing for one channel.

    Example:
        >>> pixels = torch.arange(3.0).view(1, 3, 1, 1)
        >>> [change(pixels).flatten().tolist() for change, _ in list_colors(3)]
        [[2.0, 1.0, 0.0], [0.0, 2.0, 1.0], [1.0, 0.0, 2.0], [1.0, 2.0, 0.0], [2.0, 0.0, 1.0]]
    """
    if channels == 1:
        return
    yield (
        lambda images: images.flip(1),
        "with the colors in reverse order: was it trained on BGR, or are these in another color space than RGB? If on "
        "BGR, let its forward flip the channels.",
    )
    for order in permutations(range(3)) if channels == 3 else ():
        if order not in ((0, 1, 2), (2, 1, 0)):
            name = "".join("RGB"[channel] for channel in order)
            yield (
                partial(_take_channels, order),
                f"with the colors in the order {name}: were the images of its training, or are these, in another "
                f"order or color space than RGB? If in this order, let its forward take pixels[:, {list(order)}].",
            )


def list_forms(shape: Sequence[int]) -> Iterator[Form]:
    """Yield what gives images of a shape (C, H, W) other brightness or other places of pixels, in [0, 1] too.

    Example:
        >>> [condition.split(":")[0] for _, condition in list_forms((1, 4, 3))][0]
        'with bright and dark exchanged'
    """
    yield (
        lambda images: 1 - images,
        "with bright and dark exchanged: was it trained on such images? Let its forward take 1 - pixels.",
    )
    for power, look in ((GAMMA, "darker, as linear light is"), (1 / GAMMA, "brighter, as if these were linear light")):
        yield (
            partial(_raise_to, power),
            f"with pixels to the power of {power:.2g}: were the images of its training {look}? Let its forward take "
            f"pixels ** {power:.2g}.",
        )
    yield (
        lambda images: images.flip(2),
        "upside down, as formats have them whose first row is the lowest: were the images of its training, or are "
        "these? Turn them in the data, or in its forward.",
    )
    channels, height, width = shape
    if height == width:
        yield (
            lambda images: images.transpose(2, 3),
            "with rows and columns exchanged, as files of MATLAB have them: were the images of its training, or are "
            "these? Exchange them in the data, or in its forward.",
        )
    if channels > 1:
        for change in (_read_as_last, _read_as_first):
            yield (
                change,
                "with the numbers of an image read in another order of its axes: were the images of its training, or "
                "these, reshaped from channels first to channels last, or back? Move the axes, as numpy.moveaxis does.",
            )


def list_standardized() -> Iterator[Form]:
    """Yield what gives each image mean 0 and deviation 1, in all of its channels together and in each.

    They stand in place of a normalization. What they are is named to be read behind "with".

    Example:
        >>> change, name = next(list_standardized())
        >>> image = change(torch.rand(1, 3, 8, 8))
        >>> [round(float(number), 3) for number in (image.mean().abs(), image.std(correction=0))]
        [0.0, 1.0]
        >>> name
        'each image standardized by its own mean and deviation'
    """
    for axes, unit in (((1, 2, 3), "each image"), ((2, 3), "each channel of an image")):
        yield partial(_standardize, axes), f"{unit} standardized by its own mean and deviation"


def _take_channels(order: tuple[int, ...], images: Tensor) -> Tensor:
    return images[:, order]


def _raise_to(power: float, images: Tensor) -> Tensor:
    return images.pow(power)


def _standardize(axes: tuple[int, ...], images: Tensor) -> Tensor:
    deviation = images.std(axes, correction=0, keepdim=True).clamp_min(LEAST_DEVIATION)
    return (images - images.mean(axes, keepdim=True)) / deviation


def _read_as_last(images: Tensor) -> Tensor:
    """Return images (N, C, H, W) with the numbers that they have as (N, H, W, C)."""
    return images.permute(0, 2, 3, 1).reshape(images.shape)


def _read_as_first(images: Tensor) -> Tensor:
    """Return images (N, C, H, W) whose numbers are those of (N, H, W, C)."""
    count, channels, height, width = images.shape
    return images.reshape(count, height, width, channels).permute(0, 3, 1, 2)
