"""The page as one file: what a server would compute, for some images and radii, ahead.

Pictures are compressed, numbers rounded; the server gives both as they are.
"""

from functools import partial
from pathlib import Path
from typing import Any

from interpret_robust.attacks.settings import NORM_TEXTS
from interpret_robust.attribution.scale_rules import Rule
from interpret_robust.core import progress
from interpret_robust.core.device import exact
from interpret_robust.core.errors import Say, UserError
from interpret_robust.core.files import remove_leftovers, replace_file
from interpret_robust.core.locks import Lock
from interpret_robust.core.parsing import format_count, parse_number
from interpret_robust.study.explorer import assets, measure
from interpret_robust.study.explorer.explorer import Explorer
from interpret_robust.study.explorer.view import View, list_losses
from interpret_robust.study.report.embedding import make_data_url

PLACES = (0, 1, 2, 4, 8, 12, 16)
"""Places of the slider of eps that are computed."""

RULES: tuple[Rule, ...] = ("clip",)
"""How gradient maps are shown."""

DIGITS = 3
"""Significant digits of numbers that pictures are drawn of."""

DECIMALS = 6
"""Of numbers that are read."""

MOST_ANSWERS = 3
"""Classes whose probabilities are told."""

_photo: measure.Encode = partial(make_data_url, kind="PNG", optimize=True)
_small: measure.Encode = partial(make_data_url, kind="WEBP", quality=60, method=6)


def write(explorer: Explorer, path: Path, images: int, say: Say) -> None:
    """Write the page of the first `images` images to `path`, under the attack, in the norm, that the page begins with.

    Raises UserError where there are not so many images, where that which the page begins with is not one of them, and
    where `path` is something other than such a page.
    """
    available = len(explorer.album.split)
    if not 1 <= images <= available:
        raise UserError(f"images are {images}: the {explorer.album.split_name} split has {available}.")
    _check_own(path)
    if int(explorer.first) >= images:
        raise UserError(
            f"--images {images} leaves out image {explorer.first}, which the page is to begin with: give --images "
            f"{int(explorer.first) + 1} or more, or another image."
        )
    text = assets.embed_all(_content(explorer, images))
    with Lock(path):
        _check_own(path)
        remove_leftovers(path)
        with replace_file(path) as partial_path:
            partial_path.write_text(text, encoding="utf-8")
    models, size = format_count(len(explorer.exhibits), "model"), len(text.encode()) / 1e6
    pictures = format_count(images, "image")
    say(f"{path}: {models}, {len(PLACES)} radii in {NORM_TEXTS[explorer.norm]}, {pictures}, {size:.1f} MB")


def _check_own(path: Path) -> None:
    if path.exists() and not assets.is_page(path):
        raise UserError(f"{path} was not written by irt explore and is not replaced: name another file.")


def _content(explorer: Explorer, images: int) -> dict[str, Any]:
    setup = explorer.setup()
    ball = setup["norms"][explorer.norm]
    radii = [ball["radii"][place] for place in PLACES]
    norms = {explorer.norm: ball | {"radii": radii}}
    keys = [str(image) for image in range(images)]
    with exact():
        return {
            "setup": setup | {"norms": norms, "rules": RULES, "labels": setup["labels"][:images]},
            "images": {key: _photo(measure.make_picture(explorer.album.entry(key))) for key in keys},
            "files": {eps: _files(explorer, setup, eps) for eps in radii},
            "cells": {
                key: {eps: _cells(explorer, setup, key, eps) for eps in radii}
                for key in progress.count_items(keys, "explore", "images")
            },
        }


def _files(explorer: Explorer, setup: dict[str, Any], eps: str) -> list[dict[str, str]]:
    """Return for each model the files that hold its numbers under a radius, whatever the image."""
    view = View("0", 0, parse_number(eps), setup["steps"], next(iter(list_losses())), explorer.norm)
    return [explorer.files(place, view) for place in range(len(explorer.exhibits))]


def _cells(explorer: Explorer, setup: dict[str, Any], key: str, eps: str) -> list[dict[str, Any]]:
    """Return the cells of all models, each with what becomes of its answer when a position is deleted: `without`."""
    view = View(
        key, setup["labels"][int(key)], parse_number(eps), setup["steps"], next(iter(list_losses())), explorer.norm
    )
    entry, cells = explorer.album.entry(key), []
    for place, exhibit in enumerate(explorer.exhibits):
        adversarial = explorer.adversarial(place, view)
        cell = measure.measure_cell(exhibit, entry, adversarial, view, _small, RULES)
        if exhibit.weight:
            positions = range(exhibit.positions)
            deletions = measure.measure_deletions(exhibit, adversarial, view.label, positions)
            cell["without"] = [list(column) for column in zip(*deletions, strict=True)]
        cells.append(_short(cell))
    return cells


def _short(cell: dict[str, Any]) -> dict[str, Any]:
    """Return a cell with fewer digits."""
    short = {**cell, "answers": [[place, _round(share)] for place, share in cell["answers"][:MOST_ANSWERS]]}
    for name in ("truth", "moved", "spearman", "change"):
        short[name] = _round(cell.get(name))
    short["largest"] = float(f"{cell['largest']:.{DIGITS}g}")
    if cell.get("attention"):
        short["attention"] = [float(f"{weight:.{DIGITS}g}") for weight in cell["attention"]]
    if cell.get("ranks"):
        short["ranks"] = [int(rank) if rank == int(rank) else rank for rank in cell["ranks"]]
    if "without" in cell:
        predictions, truths = cell["without"]
        short["without"] = [predictions, [None if truth is None else round(truth, 2) for truth in truths]]
    return short


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, DECIMALS)
