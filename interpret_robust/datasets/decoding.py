"""Open pictures and decode them: upright, with eight bits a channel, in threads where there are many."""

import re
import struct
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from interpret_robust.core.arrays import AnyArray
from interpret_robust.core.errors import UserError, take_first_line
from interpret_robust.core.process_pool import count_cores
from interpret_robust.datasets.framing import Framing
from interpret_robust.datasets.picture_files import Pictures

UNREADABLE = (OSError, ValueError, SyntaxError, KeyError, IndexError, EOFError, Image.DecompressionBombError)
"""What PIL raises for bytes that are no picture, or half of one."""

NARROW_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "LAB"})
"""Modes of PIL with at most eight bits a channel: of more, its conversion to RGB would cut off most of the range."""


@contextmanager
def open_picture(pictures: Pictures, place: int) -> Iterator[Image.Image]:
    """Yield a picture of which only the header is read. Raises UserError where it is none, or has 16 bits a channel."""
    name = pictures.name(place)
    try:
        _hush_pil()
        with pictures.open(place) as file, _image(file) as image:
            if is_too_deep(image):
                raise ValueError(f"mode {image.mode}, more than eight bits a channel")
            yield image
    except UNREADABLE as error:
        reason = "no picture" if isinstance(error, UnidentifiedImageError) else take_first_line(error)
        raise UserError(f"{name} ({reason})") from error


def _hush_pil() -> None:
    """Ignore what PIL warns of from now on: sizes, palettes, EXIF that is cut off.

    The filter stays. `warnings.catch_warnings` in threads would restore the filters of other threads, and ignore all
    warnings in the end.
    """
    warnings.filterwarnings("ignore", module="PIL")


def is_too_deep(image: Image.Image) -> bool:
    """Return whether a picture has more bits a channel than can be read, see NARROW_MODES."""
    is_narrow = image.mode in NARROW_MODES and (image.format == "PNG" or not is_wide_color(image))
    return not is_narrow and not is_wide_gray(image)


def is_wide_gray(image: Image.Image) -> bool:
    """Return whether this is a gray PNG of 16 bits, whose range the format fixes: 0 to 65535, black to white."""
    return image.format == "PNG" and image.mode in ("I;16", "I")


def is_wide_color(image: Image.Image) -> bool:
    """Return whether a file has 16 bits a channel, of which PIL keeps the upper eight; not known once it is decoded."""
    raw_modes = (str(tile[3]) for tile in getattr(image, "tile", ()))
    return image.mode in NARROW_MODES and any(re.search("(?<!BGR);16", raw_mode) for raw_mode in raw_modes)


def _image(file: Any) -> Image.Image:
    return file if isinstance(file, Image.Image) else Image.open(file)


def read_size(pictures: Pictures, place: int) -> tuple[int, int]:
    """Return height and width of a picture when upright, from its header. Raises UserError as `open_picture` does."""
    with open_picture(pictures, place) as image:
        return find_size(image)


def find_size(image: Image.Image) -> tuple[int, int]:
    """Return height and width of an open picture when upright."""
    tags = getattr(image, "tag_v2", None)  # of a TIFF, whose size newer versions of PIL turn before they decode it
    width, height = image.size if tags is None else (tags[ExifTags.Base.ImageWidth], tags[ExifTags.Base.ImageLength])
    return (width, height) if _orientation(image) in SIDEWAYS else (height, width)


SIDEWAYS = (5, 6, 7, 8)
"""Orientations of EXIF that change height and width."""


def _orientation(image: Image.Image) -> int:
    """Return the orientation that EXIF notes before the pixels, 1 where it notes none or cannot be read."""
    try:
        exif = Image.Image.getexif(image)  # that of PNG would decode the picture, to look behind its pixels
        return int(exif.get(ExifTags.Base.Orientation, 1))
    except (SyntaxError, ValueError, TypeError, struct.error):
        return 1


def turn_upright(image: Image.Image) -> Image.Image:
    """Return a picture turned and mirrored as EXIF says that people see it."""
    if _orientation(image) == 1:
        return image
    turned = ImageOps.exif_transpose(image)
    turned.format = image.format  # by which `is_wide_gray` goes
    return turned


def reduce_depth(image: Image.Image) -> Image.Image:
    """Return a picture with eight bits a channel: a gray PNG of 16 bits is rounded, others are as they are."""
    return Image.fromarray(np.round(np.asarray(image) / 257).astype(np.uint8)) if is_wide_gray(image) else image


def read_pixels(
    image: Image.Image, shape: tuple[int, int, int], framing: Framing | None = None
) -> tuple[AnyArray, Framing]:
    """Return a picture as uint8 (H, W, C) of `shape` (C, H, W), upright, and how it was framed.

    That is `framing`, or, without one, a resize and a crop that cover the shape.
    """
    channels, height, width = shape
    color = reduce_depth(turn_upright(image)).convert("L" if channels == 1 else "RGB")
    framing = framing or Framing.cover((color.height, color.width), (height, width))
    return np.array(framing(color)).reshape(height, width, channels), framing


BLOCK = 16
"""Pictures that a thread is asked about at once: a request for each would take more memory than its name."""

T = TypeVar("T")


def ask_each(ask: Callable[[int], T], places: Sequence[int]) -> Iterator[T]:
    """Yield what `ask` answers about each of some places, in their order, by a thread a core."""
    blocks = (places[first : first + BLOCK] for first in range(0, len(places), BLOCK))
    with ThreadPoolExecutor(count_cores()) as pool:
        for answers in pool.map(lambda block: [ask(place) for place in block], blocks):
            yield from answers
