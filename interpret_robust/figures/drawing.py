"""From analysis files to a picture on disk, without a model and without torch."""

import json
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from PIL import Image

from interpret_robust import figures
from interpret_robust.core.configs import describe_differences, hash_config
from interpret_robust.core.errors import Say, UserError
from interpret_robust.core.folders import Folders
from interpret_robust.core.locks import Lock
from interpret_robust.core.provenance import read_package_version
from interpret_robust.core.spelling import list_spellings
from interpret_robust.figures import saving, style
from interpret_robust.results import hdf5, remarks
from interpret_robust.results import names as labels
from interpret_robust.results.attack_outcomes import choose_most_read
from interpret_robust.results.conditions import list_conditions


def draw(
    figure: str, files: Sequence[Path], folder: Path, say: Say, *, panel: str | None = None, with_pdf: bool = True
) -> list[Path]:
    """Draw a figure from analysis files as PNG and PDF, unless it is there already; returns the PNGs' paths.

    There is a picture for each set of files of the same images under the same settings, whatever the architectures of
    their models, and for each panel of the figure; `panel` names one of them. Raises UserError for a file that is
    missing, damaged, unfinished or of another analysis.
    """
    groups = group_results(_read(figure, files), with_architecture=False)
    return _draw_groups(figure, groups, folder, say, panel, with_pdf=with_pdf)


def _read(figure: str, files: Sequence[Path]) -> list[hdf5.Result]:
    return [hdf5.read(path, figures.get(figure).READS) for path in files]


def check_shared(results: Sequence[hdf5.Result], names: Sequence[str]) -> None:
    """Raise UserError, with these names of the files, where they cannot share a picture."""
    first = list_conditions(results[0], with_architecture=False)
    for result, name in zip(results, names, strict=True):
        if difference := describe_differences(first, list_conditions(result, with_architecture=False)):
            raise UserError(f"{names[0]} and {name} cannot share a picture: {difference}.")


def draw_all(
    figure: str, files: Sequence[Path], folder: Path, say: Say, *, panel: str | None = None, with_pdf: bool = True
) -> list[Path]:
    """Draw a figure as `draw` does, but models of each architecture apart, and each attack once."""
    groups = group_results(choose_most_read(_read(figure, files)))
    return _draw_groups(figure, groups, folder, say, panel, with_pdf=with_pdf)


def draw_answers(figure: str, files: Sequence[Path], folders: Folders, say: Say, *, with_pdf: bool) -> list[Path]:
    """Draw those of the pictures of `draw_folder` that show these files, each with all others that belong there.

    So a picture is the same whichever command draws it. Other files of the folder are left out if they are damaged.
    """
    others = (path for path in _files_of(figure, folders) if path not in files)
    results = choose_most_read([*_read(figure, files), *_read_whole(figure, others)])
    return _draw_groups(figure, group_results(results), folders.figures, say, None, with_pdf=with_pdf, shown=files)


def _read_whole(figure: str, files: Iterable[Path]) -> Iterator[hdf5.Result]:
    """Yield those files that can be read."""
    for path in files:
        with suppress(UserError):
            yield from _read(figure, [path])


def _draw_groups(
    figure: str,
    groups: Sequence[Sequence[hdf5.Result]],
    folder: Path,
    say: Say,
    panel: str | None,
    *,
    with_pdf: bool,
    shown: Container[Path] | None = None,
) -> list[Path]:
    """Draw each group, or only those with one of the files that are to be `shown`."""
    groups = [_sort(group) for group in groups]
    stems = [saving.name_picture(figure, group) for group in groups]
    pictures = []
    for group, stem in zip(groups, stems, strict=True):
        if shown is not None and not any(result.path in shown for result in group):
            continue
        # Models that were trained, and so attacked, under different settings may share every part of a name.
        suffix = f"-{hash_config(list_conditions(group[0]))[:6]}" if stems.count(stem) > 1 else ""
        pictures += _draw(figure, group, folder, say, suffix, panel=panel, with_pdf=with_pdf)
    return pictures


def group_results(results: Sequence[hdf5.Result], *, with_architecture: bool = True) -> list[list[hdf5.Result]]:
    """Return sets of files, each of the same images under the same settings, and of the same architecture if wanted."""
    groups: dict[str, list[hdf5.Result]] = {}
    for result in results:
        conditions = list_conditions(result, with_architecture=with_architecture)
        groups.setdefault(json.dumps(conditions), []).append(result)
    return list(groups.values())


def draw_folder(
    names: Sequence[str], folders: Folders, say: Say, *, panel: str | None = None, with_pdf: bool = True
) -> list[Path]:
    """Draw these figures from all files of their analyses. Raises UserError where there are none."""
    pictures = []
    for name in names:
        if paths := _files_of(name, folders):
            pictures += draw_all(name, paths, folders.figures, say, panel=panel, with_pdf=with_pdf)
    if not pictures:
        raise _no_files(names, folders)
    return pictures


def _files_of(figure: str, folders: Folders) -> list[Path]:
    return sorted(path for start in list_spellings(figure) for path in folders.list_analyses(start))


def _no_files(names: Sequence[str], folders: Folders) -> UserError:
    kind = "analysis" if len(names) > 1 else names[0]
    command = "irt analyze" if len(names) > 1 else f"irt analyze {names[0]}"
    return UserError(f"there are no {kind} files in {folders.analyses}: `{command}` makes them.")


def draw_to(
    path: Path,
    figure: str,
    files: Sequence[Path],
    folders: Folders,
    *,
    panel: str | None = None,
    width: float = style.WIDTH,
) -> None:
    """Draw one picture of a figure to a path, in the format of its ending, with its caption as JSON beside it.

    It is that of `panel`, or the first. Without files, those in the folder of analyses are drawn. The picture is
    `width` inches wide, and its text stays readable at that width. Raises UserError as `draw` does, for an ending that
    is no format, for files of several pictures, and for a file at `path` that is not irt's.
    """
    if path.suffix not in saving.FORMATS:
        raise UserError(f"{path} ends in no format of a picture: it must end in {', '.join(saving.FORMATS)}.")
    if files:
        results = _read(figure, files)
        check_shared(results, list(map(str, files)))
    elif paths := _files_of(figure, folders):
        results, *more_groups = group_results(choose_most_read(_read(figure, paths)))
        if more_groups:
            raise UserError(
                f"the {figure} files in {folders.analyses} make {1 + len(more_groups)} pictures, and -o takes one: "
                "name the files of one set of images and settings."
            )
    else:
        raise _no_files([figure], folders)
    results = _sort(results)
    with style.use_width(width):
        drawing = compose(figure, results, panel)
    if width > style.WIDTH:
        saving.enlarge(drawing.figure, width / style.WIDTH)
    with Lock(path):
        saving.write(drawing, [path], saving.list_inputs(results), read_package_version())


def draw_narrow(figure: str, results: Sequence[hdf5.Result], width: float) -> Image.Image:
    """Return the first panel of a figure as pixels, laid out for a width in inches, from files that can share it."""
    with style.use_width(width):
        return saving.render_pixels(compose(figure, _sort(results)))


def _sort(results: Sequence[hdf5.Result]) -> list[hdf5.Result]:
    """Return results in the paper's order, models of one name told apart. Raises UserError where two show one model."""
    in_paper_order = sorted(distinguish(results), key=labels.order)
    for first, second in pairwise(in_paper_order):
        if labels.label(first) == labels.label(second):
            raise UserError(f"{first.path} and {second.path} both show {labels.label(first)}: name one of them.")
    return in_paper_order


def distinguish(results: Sequence[hdf5.Result]) -> list[hdf5.Result]:
    """Return results whose labels tell them apart, as `names.tell_apart` does, by architecture too where there are two.

    Example:
        >>> names = [f"attention-rank-cifar10-{name}-at-att-seed0-test-first1000.h5" for name in ("small", "narrow")]
        >>> [labels.label(result) for result in distinguish([hdf5.read(Path("analyses") / name) for name in names])]
        ['at-att, small seed 0', 'at-att, narrow seed 0']
    """
    results, architectures = labels.tell_apart(results), labels.list_architectures(results)
    if len(architectures) < 2:
        return results
    return [
        replace(result, distinction=result.distinction or result.job["architecture"])
        if labels.list_architectures([result])
        else result
        for result in results
    ]


def _draw(
    figure: str,
    results: Sequence[hdf5.Result],
    folder: Path,
    say: Say,
    suffix: str = "",
    *,
    panel: str | None,
    with_pdf: bool,
) -> list[Path]:
    """Draw each panel of sorted results: the first is named as the figure, and the others end in their own name."""
    stem, sources = saving.name_picture(figure, results) + suffix, saving.list_inputs(results)
    first = next(iter(figures.list_plots(figure)))
    return [
        keep(
            partial(compose, figure, results, name),
            folder,
            stem if name == first else f"{stem}-{name}",
            sources,
            say,
            with_pdf=with_pdf,
        )
        for name in figures.list_plots(figure, panel)
    ]


def keep(
    make: Callable[[], style.Drawing],
    folder: Path,
    name: str,
    sources: Mapping[str, Any],
    say: Say,
    *,
    with_pdf: bool = False,
) -> Path:
    """Save a drawing, unless it is there already, drawn from just these sources; returns the picture's path."""
    picture, version = folder / f"{name}.png", read_package_version()
    if not saving.is_drawn(folder, name, sources, version, with_pdf=with_pdf):
        with Lock(picture):
            if not saving.is_drawn(folder, name, sources, version, with_pdf=with_pdf):
                verb = "redrew" if picture.exists() else "drew"
                saving.save(make(), folder, name, sources, version, with_pdf=with_pdf)
                say(f"{verb} {picture.name}")
                return picture
    say(f"{picture.name} is there already")
    return picture


def compose(figure: str, results: Sequence[hdf5.Result], panel: str | None = None) -> style.Drawing:
    """Return a picture of files that can share one, that of a panel or the first.

    Its caption says what stands in the place of gradients and of attention. Whose images and which networks it is of
    stands in its title, or below it.
    """
    plot, *_ = figures.list_plots(figure, panel or None).values()
    results = distinguish(results)
    drawing: style.Drawing = plot(results)
    source = labels.find_maps(results[0])
    sentence = "" if source == labels.GRADIENT else f"Maps are {source}, in the place of gradients."
    lines = {} if drawing.figure.get_suptitle() else {labels.format_subject(*results): "dimgray"}
    if any(result.doubts for result in results):
        lines[DOUBT] = "firebrick"
    style.write_below(drawing.figure, lines)
    sentences = (
        describe(results)
        for describe in (remarks.describe_stand_ins, remarks.describe_remarks, remarks.describe_doubts)
    )
    parts = [drawing.caption, sentence, *sentences]
    return replace(drawing, caption=" ".join(filter(None, parts)))


DOUBT = "In doubt: the caption, in the .json beside this, says why."
"""What is written under a picture whose numbers are in doubt."""
