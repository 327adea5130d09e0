"""From analysis files to a picture on disk, without a model and without torch."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from importlib import metadata
from itertools import pairwise
from pathlib import Path

from interpret_robust import figures
from interpret_robust.core.configs import differences
from interpret_robust.core.errors import Say, UserError
from interpret_robust.core.folders import Folders
from interpret_robust.core.locks import Lock
from interpret_robust.core.spelling import spellings
from interpret_robust.figures import style
from interpret_robust.results import hdf5
from interpret_robust.results import names as labels
from interpret_robust.results.attack_outcomes import most_read
from interpret_robust.results.conditions import conditions


def draw(figure: str, files: Sequence[Path], folder: Path, say: Say, *, with_pdf: bool = True) -> Path:
    """Draw a figure from analysis files as PNG and PDF, unless it is there already; returns the PNG's path.

    Raises UserError for a file that is missing, damaged, unfinished or of another analysis, and for files that
    are not of the same images under the same settings.
    """
    results = [hdf5.read(path, figures.get(figure).READS) for path in files]
    for result in results[1:]:
        difference = differences(conditions(results[0]), conditions(result))
        if difference:
            raise UserError(f"{files[0]} and {result.path} cannot share a picture: {difference}.")
    return _draw(figure, results, folder, say, with_pdf=with_pdf)


def draw_all(figure: str, files: Sequence[Path], folder: Path, say: Say, *, with_pdf: bool = True) -> list[Path]:
    """Draw a figure for each set of files that are of the same images under the same settings."""
    groups: dict[str, list[hdf5.Result]] = {}
    for result in most_read([hdf5.read(path, figures.get(figure).READS) for path in files]):
        groups.setdefault(json.dumps(conditions(result)), []).append(result)
    stems = [style.stem(figure, group) for group in groups.values()]
    pictures = []
    for group, stem in zip(groups.values(), stems, strict=True):
        # Models that were trained, and so attacked, under different settings may share every part of a name.
        suffix = f"-{hdf5.config_sha256(conditions(group[0]))[:6]}" if stems.count(stem) > 1 else ""
        pictures.append(_draw(figure, group, folder, say, suffix, with_pdf=with_pdf))
    return pictures


def draw_folder(names: Sequence[str], folders: Folders, say: Say, *, with_pdf: bool = True) -> list[Path]:
    """Draw these figures from all files of their analyses. Raises UserError where there are none."""
    pictures = []
    for name in names:
        if paths := sorted(path for start in spellings(name) for path in folders.analyses.glob(f"{start}-*.h5")):
            pictures += draw_all(name, paths, folders.figures, say, with_pdf=with_pdf)
    if not pictures:
        kind = "analysis" if len(names) > 1 else names[0]
        command = "irt analyze" if len(names) > 1 else f"irt analyze {names[0]}"
        raise UserError(f"there are no {kind} files in {folders.analyses}: `{command}` makes them.")
    return pictures


def _draw(
    figure: str, results: Sequence[hdf5.Result], folder: Path, say: Say, suffix: str = "", *, with_pdf: bool
) -> Path:
    in_paper_order = sorted(results, key=labels.order)
    for first, second in pairwise(in_paper_order):
        if labels.label(first) == labels.label(second):
            raise UserError(f"{first.path} and {second.path} both show {labels.label(first)}: name one of them.")
    name = style.stem(figure, in_paper_order) + suffix
    return keep(
        partial(compose, figure, in_paper_order), folder, name, style.inputs(in_paper_order), say, with_pdf=with_pdf
    )


def keep(
    make: Callable[[], style.Drawing],
    folder: Path,
    name: str,
    sources: dict[str, str],
    say: Say,
    *,
    with_pdf: bool = False,
) -> Path:
    """Save a drawing, unless it is there already, drawn from just these sources; returns the picture's path."""
    picture, version = folder / f"{name}.png", metadata.version("interpret-robust")
    if not style.is_drawn(folder, name, sources, version, with_pdf=with_pdf):
        with Lock(picture):
            if not style.is_drawn(folder, name, sources, version, with_pdf=with_pdf):
                verb = "redrew" if picture.exists() else "drew"
                style.save(make(), folder, name, sources, version, with_pdf=with_pdf)
                say(f"{verb} {picture.name}")
                return picture
    say(f"{picture.name} is there already")
    return picture


def compose(figure: str, results: Sequence[hdf5.Result]) -> style.Drawing:
    """Return the figure of files that can share a picture; its caption says what stands in the place of gradients."""
    drawing: style.Drawing = figures.get(figure).draw(results)
    source = labels.maps_of(results[0])
    sentence = "" if source == labels.GRADIENT else f"Maps are {source}, in the place of gradients."
    if any(result.doubts for result in results):
        style.mark_doubtful(drawing.figure)
    return replace(drawing, caption=" ".join(filter(None, [drawing.caption, sentence, labels.remarks(results)])))
