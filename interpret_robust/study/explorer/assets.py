"""The page's own files."""

import base64
import hashlib
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from interpret_robust.study.base_style import read_base_style

_FOLDER = Path(__file__).parent

ASSETS: Mapping[str, str] = {"": "page.html", "page.css": "page.css", "page.js": "page.js"}
"""What a server gives, by its address below the token."""

FIRST_LINE = "<!doctype html><!-- irt explore -->"
"""By which such a page is known."""

USUAL_NAME = "explore.html"
"""Where a report looks for it, in its own folder."""


@cache
def read_asset(name: str) -> str:
    """Return the text of one of ASSETS."""
    text = (_FOLDER / ASSETS[name]).read_text(encoding="utf-8")
    return read_base_style() + text if name == "page.css" else text


def embed_all(content: dict[str, Any]) -> str:
    """Return the page as one text that asks nothing of anybody, with `content` in it.

    Its content security policy allows its own script and style by their hashes, and pictures that it holds.
    """
    script, style = read_asset("page.js"), read_asset("page.css")
    data = json.dumps(content, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    policy = (
        f"default-src 'none'; img-src data:; script-src '{_hash(script)}'; style-src '{_hash(style)}'; base-uri 'none'"
    )
    replacements = {
        '<link rel="stylesheet" href="page.css">': (
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n<style>{style}</style>'
        ),
        '<script src="page.js" defer></script>': "",
        "</body>": f'<script id="baked" type="application/json">{data}</script>\n<script>{script}</script>\n</body>',
    }
    text = read_asset("")
    for place, replacement in replacements.items():
        assert text.count(place) == 1
        text = text.replace(place, replacement)
    return text


def is_page(path: Path) -> bool:
    """Return whether there is such a page at `path`."""
    if not path.is_file():
        return False
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.readline(200).strip() == FIRST_LINE


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
