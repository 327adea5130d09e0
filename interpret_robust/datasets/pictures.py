"""Pictures that are decoded when they are asked for, as an array of which only parts are in memory."""

import hashlib
import io
import re
import struct
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import IO, Any, ClassVar, Protocol, Self, TypeVar

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from interpret_robust.core.arrays import AnyArray
from interpret_robust.core.errors import UserError, take_first_line
from interpret_robust.core.process_pool import count_cores
from interpret_robust.datasets.base import Labels
from interpret_robust.datasets.framing import Framing, find_common_size

Places = Labels
"""Numbers of pictures in a listing."""


class Pictures(Protocol):
    """Where pictures lie: how many there are, what each is called, its bytes."""

    def __len__(self) -> int:
        """Return how many there are."""

    def name(self, place: int) -> str:
        """Return what a sentence calls a picture, without the folder that all are in."""

    def length(self, place: int) -> int:
        """Return how many bytes a picture has."""

    def open(self, place: int) -> IO[bytes] | Image.Image:
        """Return a picture's bytes, or the picture where a library has decoded it.

        Raises an error of UNREADABLE where it is not there.
        """


@dataclass(frozen=True)
class Files:
    """Pictures that are files: their paths below a folder, and how many bytes each has."""

    folder: Path
    names: Sequence[str]
    lengths: Labels

    @classmethod
    def list(cls, folder: Path, names: Sequence[str]) -> Self:
        """Return files by their paths below `folder`; one that is not there has no bytes."""
        lengths = np.fromiter((_length(folder / name) for name in names), np.int64, len(names))
        return cls(folder, names, lengths)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def absent_names(self) -> Sequence[str]:
        """Return the paths at which there is no file."""
        return [name for name in self.names if not (self.folder / name).is_file()]

    def name(self, place: int) -> str:
        """Return the path of a picture below the folder."""
        return self.names[place]

    def length(self, place: int) -> int:
        """Return how many bytes a file has."""
        return int(self.lengths[place])

    def open(self, place: int) -> IO[bytes]:
        """Return an open file. Raises OSError."""
        return open(self.folder / self.names[place], "rb")


def _length(path: Path) -> int:
    try:
        return path.stat().st_size
    except (OSError, ValueError):  # the latter for a name that no file can have
        return 0


@dataclass(frozen=True)
class Boxes:
    """Masks that are boxes in pictures: `corners` (N, 4) are x0, y0, x1, y1, pixels from x0 to x1 without x1."""

    pictures: Pictures
    corners: Labels

    def __len__(self) -> int:
        return len(self.corners)

    def name(self, place: int) -> str:
        """Return what a sentence calls a box."""
        return f"the box of {self.pictures.name(place)}"

    def length(self, place: int) -> int:  # noqa: ARG002
        """Return 0: a box is no file."""
        return 0

    def open(self, place: int) -> Image.Image:
        """Return a picture that is white in the box and black outside. Raises UserError for a damaged picture."""
        height, width = read_size(self.pictures, place)
        mask = Image.new("L", (width, height))
        x0, y0, x1, y1 = self.corners[place].tolist()
        mask.paste(255, (x0, y0, x1, y1))
        return mask


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
    is_narrow = image.mode in NARROW_MODES and (image.format == "PNG" or not _is_wide_color(image))
    return not is_narrow and not _is_wide_gray(image)


def _is_wide_gray(image: Image.Image) -> bool:
    """Return whether this is a gray PNG of 16 bits, whose range the format fixes: 0 to 65535, black to white."""
    return image.format == "PNG" and image.mode in ("I;16", "I")


def _is_wide_color(image: Image.Image) -> bool:
    """Return whether a file has 16 bits a channel, of which PIL keeps the upper eight; not known once it is decoded."""
    raw_modes = (str(tile[3]) for tile in getattr(image, "tile", ()))
    return image.mode in NARROW_MODES and any(re.search("(?<!BGR);16", raw_mode) for raw_mode in raw_modes)


def _image(file: Any) -> Image.Image:
    return file if isinstance(file, Image.Image) else Image.open(file)


def read_size(pictures: Pictures, place: int) -> tuple[int, int]:
    """Return height and width of a picture when upright, from its header. Raises UserError as `open_picture` does."""
    with open_picture(pictures, place) as image:
        return _size(image)


def _size(image: Image.Image) -> tuple[int, int]:
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
    turned.format = image.format  # by which `_is_wide_gray` goes
    return turned


def _eight_bits(image: Image.Image) -> Image.Image:
    return Image.fromarray(np.round(np.asarray(image) / 257).astype(np.uint8)) if _is_wide_gray(image) else image


def read_pixels(
    image: Image.Image, shape: tuple[int, int, int], framing: Framing | None = None
) -> tuple[AnyArray, Framing]:
    """Return a picture as uint8 (H, W, C) of `shape` (C, H, W), upright, and how it was framed.

    That is `framing`, or, without one, a resize and a crop that cover the shape.
    """
    channels, height, width = shape
    color = _eight_bits(turn_upright(image)).convert("L" if channels == 1 else "RGB")
    framing = framing or Framing.cover((color.height, color.width), (height, width))
    return np.array(framing(color)).reshape(height, width, channels), framing


LOSSY = ("JPEG", "MPO")
"""Formats in which black pixels beside an object do not stay black."""


def check_sizes(pictures: Pictures, masks: Pictures, beginning: str) -> None:
    """Raise UserError where a mask is damaged, a JPEG, of 16 bits a color, or not of its picture's size.

    `beginning` stands before its name in the sentence.
    """
    for place in range(len(masks)):
        try:
            with open_picture(masks, place) as mask:
                (height, width), is_lossy, is_wide = _size(mask), mask.format in LOSSY, _is_wide_color(mask)
        except UserError as error:
            raise UserError(f"a mask cannot be read, {beginning}{error}: write it anew as a PNG.") from error
        if is_lossy:
            raise UserError(
                f"the mask {beginning}{masks.name(place)} is a JPEG, whose compression leaves pixels that are not 0 "
                "around an object: write it as a PNG from the mask that it was made of."
            )
        if is_wide:
            raise UserError(
                f"the mask {beginning}{masks.name(place)} has colors of 16 bits, whose lower eight would be lost: "
                "write it as a gray PNG, 0 beside the object."
            )
        try:
            size = read_size(pictures, place)
        except UserError:
            continue  # a damaged picture is reported with all others
        if size != (height, width):
            raise UserError(
                f"the mask {beginning}{masks.name(place)} is {width}x{height}, and its picture {size[1]}x{size[0]}: a "
                "mask has the size of its picture."
            )


ENDINGS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".avif", ".heic", ".heif"),
)
"""What names of pictures end with, in either case; one that this PIL cannot read counts as damaged."""

ENDS = {"JPEG": (2, b"\xff\xd9"), "PNG": (12, b"\0\0\0\0IEND\xaeB`\x82")}
"""How many bytes the end of a whole file has, by format, and which."""


def find_damage(pictures: Pictures, place: int, *, decodes: bool) -> str | None:
    """Return what is wrong with a picture, by its name, or None.

    With `decodes` it is decoded. Else its header is read and its last bytes are compared with what a whole JPEG or PNG
    ends with; only where these differ it is decoded.
    """
    try:
        with open_picture(pictures, place) as image:
            if decodes or not _ends_well(image):
                image.load()
    except UserError as error:
        return str(error)
    return None


def _ends_well(image: Image.Image) -> bool:
    file: Any = getattr(image, "fp", None)
    if image.format not in ENDS or file is None:
        return True
    length, end = ENDS[image.format]
    position = file.tell()
    file.seek(-length, io.SEEK_END)
    is_whole = file.read(length) == end
    file.seek(position)
    return bool(is_whole)


def list_damages(pictures: Pictures, *, decodes: bool) -> dict[int, str]:
    """Return what is wrong with each damaged picture, by its place; see `find_damage`."""
    answers = _ask_each(lambda place: find_damage(pictures, place, decodes=decodes), range(len(pictures)))
    return {place: answer for place, answer in enumerate(answers) if answer is not None}


BLOCK = 16
"""Pictures that a thread is asked about at once: a request for each would take more memory than its name."""

T = TypeVar("T")


def _ask_each(ask: Callable[[int], T], places: Sequence[int]) -> Iterator[T]:
    """Yield what `ask` answers about each of some places, in their order, by a thread a core."""
    blocks = (places[first : first + BLOCK] for first in range(0, len(places), BLOCK))
    with ThreadPoolExecutor(count_cores()) as pool:
        for answers in pool.map(lambda block: [ask(place) for place in block], blocks):
            yield from answers


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
            [*_ask_each(lambda place: read_size(self.pictures, place), self.places.tolist())], self.name
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
        color = _eight_bits(image)
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
    is_gray = image.mode in ("1", "L") or _is_wide_gray(image)
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
