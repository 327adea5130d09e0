"""Pictures that are decoded when they are asked for, as an array of which only parts are in memory."""

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np
from PIL import Image

from interpret_robust.core.arrays import AnyArray
from interpret_robust.core.errors import UserError
from interpret_robust.core.process_pool import count_cores
from interpret_robust.datasets.base import Labels
from interpret_robust.datasets.decoding import (
    ask_each,
    is_wide_gray,
    open_picture,
    read_size,
    reduce_depth,
    turn_upright,
)
from interpret_robust.datasets.framing import Framing, find_common_size
from interpret_robust.datasets.picture_files import Pictures

Places = Labels
"""Numbers of pictures in a listing."""


@dataclass(frozen=True, eq=False)
class PictureArray:
    """Pictures as an array (N, H, W, 3) of uint8: `array[places]` decodes those pictures alone, in a thread a core.

    They are turned upright by EXIF, which torchvision's `ImageFolder` does not do, converted to RGB as it does, framed.

    Attributes:
        pictures: where they lie.
        places: which of these they are.
        name: what a sentence calls them.
        framing: how each is resized and cropped; None for pictures that are all of one size.
        damage: what was wrong with pictures that were left out, a text each.
    """

    pictures: Pictures
    places: Places
    name: str
    framing: Framing | None = None
    damage: tuple[str, ...] = ()

    dtype: ClassVar[np.dtype[Any]] = np.dtype(np.uint8)
    channels: ClassVar[tuple[int, ...]] = (3,)
    remedy: ClassVar[str] = (
        "a picture cannot be read, {}: mend it, or leave damaged ones out, counted, with --skip-damaged"
    )

    def __len__(self) -> int:
        return len(self.places)

    @cached_property
    def size(self) -> tuple[int, int]:
        """Return height and width. Raises UserError for pictures of several sizes without a framing."""
        if self.framing is not None:
            return self.framing.crop
        return find_common_size(
            [*ask_each(lambda place: read_size(self.pictures, place), self.places.tolist())], self.name
        )

    @property
    def own_size(self) -> tuple[int, int]:
        """Return the height and width that the first picture has before it is framed."""
        return read_size(self.pictures, int(self.places[0]))

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape that the whole array would have."""
        return (len(self), *self.size, *self.channels)

    def __getitem__(self, places: Any) -> AnyArray:
        """Return pictures by their number, a slice or numbers, as NumPy would. Raises UserError for a damaged one."""
        chosen_places = self.places[places]
        if np.ndim(chosen_places) == 0:
            return self._decode(int(chosen_places))
        images = np.empty((len(chosen_places), *self.size, *self.channels), self.dtype)
        with ThreadPoolExecutor(count_cores()) as pool:
            list(self.take(places).decode(pool, images.__setitem__))
        return images

    def decode(self, pool: Executor, use: Callable[[int, AnyArray], None]) -> Iterator[None]:
        """Begin to give `use` the number of each picture and the picture, in threads; what is returned waits for each.

        Raises UserError for a damaged one, then.
        """
        return pool.map(lambda row: use(row, self._decode(int(self.places[row]))), range(len(self)))

    def _decode(self, place: int) -> AnyArray:
        try:
            with open_picture(self.pictures, place) as image:
                return self._pixels(turn_upright(image))
        except UserError as error:
            raise UserError(f"{self.name}: {self.remedy.format(error)}.") from error

    def _pixels(self, image: Image.Image) -> AnyArray:
        color = reduce_depth(image)
        if color.mode != "RGB":  # else PIL would copy it
            color = color.convert("RGB")
        return np.asarray(color if self.framing is None else self.framing(color))

    def take(self, places: Any) -> Self:
        """Return some of the pictures, of which none is decoded; a size that was measured is not measured again."""
        part = replace(self, places=self.places[places])
        if "size" in vars(self):
            vars(part)["size"] = self.size
        return part

    def frame(self, framing: Framing) -> Self:
        """Return the pictures with a framing, unless they have one."""
        return self if self.framing is not None else replace(self, framing=framing)

    def digest(self) -> bytes:
        """Return the SHA-256 over the pictures' names and lengths in bytes and their framing, not over pixels."""
        digest = hashlib.sha256()
        for place in self.places.tolist():
            line = f"{self.pictures.name(place)}\0{self.pictures.length(place)}\n"
            digest.update(line.encode(errors="surrogateescape"))  # a name of a file need not be UTF-8
        digest.update(("" if self.framing is None else self.framing.text).encode())
        return digest.digest()

    def description(self) -> dict[str, Any]:
        """Return what a file tells of how these pictures were read."""
        return {
            "framing": None if self.framing is None else self.framing.entries(),
            "damaged": len(self.damage),
            "sha256_of": "names, lengths in bytes and labels of the pictures, and the framing",
        }


class MaskArray(PictureArray):
    """Masks beside pictures as an array (N, H, W) of bool, framed alike; what is not 0 is the object."""

    dtype = np.dtype(np.bool_)
    channels = ()
    remedy = "a mask cannot be read, {}: write it as a gray PNG, 0 beside the object"

    def _pixels(self, image: Image.Image) -> AnyArray:
        place = Image.fromarray(_object_of(image))
        mask: AnyArray = np.asarray(place if self.framing is None else self.framing(place, is_mask=True)) != 0
        return mask


def _object_of(image: Image.Image) -> AnyArray:
    """Return where a mask is not 0 (H, W).

    Raises ValueError where its colors say something else than the numbers of its palette, or than its alpha.
    """
    is_gray = image.mode in ("1", "L") or is_wide_gray(image)
    colors: AnyArray = np.asarray(image if is_gray else image.convert("RGB")) != 0
    if colors.ndim == 3:
        colors = colors.max(2)  # the gray value of dark blue would be 0
    if image.mode == "P" and ((np.asarray(image) != 0) != colors).any():
        raise ValueError("another number than 0 is black in its palette, or 0 is not")
    if image.has_transparency_data:
        alpha = np.asarray(image.convert("RGBA"))[..., 3]
        if alpha.min() < 255 and ((alpha != 0) != colors).any():
            raise ValueError("its colors and its transparency show two different objects")
    return colors
