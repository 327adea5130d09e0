"""Pictures inside the page."""

import base64
import io
import json
from pathlib import Path
from typing import Any, Literal

from PIL import Image

PictureData = dict[str, Any]
"""A picture as it stands in the page: itself, its size in pixels, caption and name."""


def make_data_url(picture: Image.Image, kind: Literal["PNG", "JPEG", "WEBP"], **options: Any) -> str:
    """Return a picture as a data URI; `options` are Pillow's for this kind of file."""
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def embed_file(path: Path) -> PictureData:
    """Return a picture that was drawn."""
    with Image.open(path) as picture:
        return embed(path, picture)


def embed(path: Path, picture: Image.Image) -> PictureData:
    """Return pixels under the name and the caption of a picture that was drawn."""
    caption = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["caption"]
    return {
        "name": path.stem,
        "source": make_data_url(picture.convert("RGB"), "WEBP", lossless=True, quality=40, method=2),
        "width": picture.width,
        "height": picture.height,
        "caption": caption,
        "alternative": caption.partition(". ")[0].replace("`", ""),
    }
