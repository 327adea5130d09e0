"""The colors and the letters that all pages of a study share."""

from pathlib import Path


def read_base_style() -> str:
    """Return the style sheet that stands before that of each page: it names the colors of light and of dark."""
    return Path(__file__).with_name("base.css").read_text(encoding="utf-8")
