"""Pictures inside the page."""

import base64
import io
from typing import Any, Literal

from PIL import Image


def data_url(picture: Image.Image, kind: Literal["PNG", "JPEG", "WEBP"], **options: Any) -> str:
    """Return a picture as a data URI; `options` are Pillow's for this kind of file."""
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"
