"""Find pictures that are damaged, and masks that do not fit their pictures."""

import io
from typing import Any

from PIL import Image

from interpret_robust.core.errors import UserError
from interpret_robust.datasets.decoding import ask_each, find_size, is_wide_color, open_picture, read_size
from interpret_robust.datasets.picture_files import Pictures

LOSSY = ("JPEG", "MPO")
"""Formats in which black pixels beside an object do not stay black."""


def check_sizes(pictures: Pictures, masks: Pictures, beginning: str) -> None:
    """Raise UserError where a mask is damaged, a JPEG, of 16 bits a color, or not of its picture's size.

    `beginning` stands before its name in the sentence.
    """
    for place in range(len(masks)):
        try:
            with open_picture(masks, place) as mask:
                (height, width), is_lossy, is_wide = find_size(mask), mask.format in LOSSY, is_wide_color(mask)
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
    answers = ask_each(lambda place: find_damage(pictures, place, decodes=decodes), range(len(pictures)))
    return {place: answer for place, answer in enumerate(answers) if answer is not None}
