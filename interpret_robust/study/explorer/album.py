"""The images that can be looked at: those of a split, and those that were brought."""

import io
from dataclasses import dataclass

import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from interpret_robust.core.arrays import AnyArray
from interpret_robust.core.errors import UserError
from interpret_robust.datasets import Dataset
from interpret_robust.datasets.batches import make_batch, to_pixels
from interpret_robust.datasets.decoding import UNREADABLE, is_too_deep, read_pixels
from interpret_robust.datasets.framing import Framing

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
"""Kinds of files that are decoded."""

MOST_PIXELS = 50_000_000
"""Of a picture that is decoded."""

MOST_UPLOADS = 64
"""Pictures that are kept; one more takes the place of the oldest."""


@dataclass(frozen=True, eq=False)
class Entry:
    """An image as a batch of one: pixels (1, C, H, W) in [0, 1], and the index that its random numbers go by."""

    pixels: Tensor
    index: int


class Album:
    """The images of a split by their index, such as `12`, and those that were brought, such as `mine-0`.

    Attributes:
        dataset, split_name, split: where images and classes come from.
    """

    def __init__(self, dataset: Dataset, split_name: str, device: torch.device) -> None:
        self.dataset, self.split_name = dataset, split_name
        self.split = dataset.split(split_name)
        self._device = device
        self._uploads: dict[str, Tensor] = {}
        self._count = 0

    def entry(self, key: str) -> Entry:
        """Return the image called `key`. Raises UserError where there is none."""
        if key in self._uploads:
            return Entry(self._uploads[key], 0)
        if not (key.isascii() and key.isdigit() and len(key) < 10 and int(key) < len(self.split)):
            raise UserError(f"there is no image '{key[:40]}': give a number from 0 to {len(self.split) - 1}.")
        batch = make_batch(self.split, range(int(key), int(key) + 1), self._device)
        return Entry(batch.images, int(key))

    def label(self, key: str) -> int | None:
        """Return the class of an image of the split; None for one that was brought."""
        return None if key in self._uploads else int(self.split.labels[self.entry(key).index])

    def add(self, content: bytes) -> str:
        """Keep a picture, upright, resized and cropped as images of the dataset are; returns what it is called.

        Raises UserError for what is no picture, and for one of more than MOST_PIXELS.
        """
        framing = getattr(self.split.images, "framing", None)
        pixels = to_pixels(torch.from_numpy(_decode(content, self.dataset.image_shape, framing)))
        key = f"mine-{self._count}"
        self._count += 1
        self._uploads[key] = pixels.permute(2, 0, 1)[None].contiguous().to(self._device)
        if len(self._uploads) > MOST_UPLOADS:
            del self._uploads[next(iter(self._uploads))]
        return key


def _decode(content: bytes, shape: tuple[int, int, int], framing: Framing | None) -> AnyArray:
    """Return a picture as uint8 (H, W, C) of `shape` (C, H, W)."""
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as picture:
            if picture.width * picture.height > MOST_PIXELS:
                raise UserError(f"the picture has more than {MOST_PIXELS:,} pixels: give a smaller one.")
            if is_too_deep(picture):
                raise UserError("the picture has more than eight bits a channel: save it with eight.")
            pixels, _ = read_pixels(picture, shape, framing)
            return pixels
    except UserError:
        raise
    except UnidentifiedImageError:
        raise UserError(f"this is no picture that can be read: give one of {', '.join(FORMATS)}.") from None
    except UNREADABLE as error:
        raise UserError(f"the picture cannot be read ({type(error).__name__}): it may be damaged.") from None
