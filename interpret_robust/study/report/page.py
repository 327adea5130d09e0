"""What the page shows, found in the files, and put into the template."""

import json
import math
import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from interpret_robust import analyses
from interpret_robust.analyses.engine import printing
from interpret_robust.core import configs
from interpret_robust.core.parsing import format_count
from interpret_robust.figures import drawing
from interpret_robust.models.variants import explain_variant, is_external
from interpret_robust.results import hdf5
from interpret_robust.results.conditions import FREE, list_conditions
from interpret_robust.results.hdf5 import Result
from interpret_robust.results.names import format_images, name_variant, order, tell_apart
from interpret_robust.results.tables import Table, drop_prefix, fold
from interpret_robust.study import paper
from interpret_robust.study.audit import audit_results
from interpret_robust.study.base_style import read_base_style
from interpret_robust.study.report import commands
from interpret_robust.study.report.embedding import PictureData, embed
from interpret_robust.study.report.gallery import make_gallery
from interpret_robust.study.report.overview import choose_pictures, list_remarks, make_pills
from interpret_robust.study.verdicts import EXPLANATION, Measure

_FOLDER = Path(__file__).parent

MOST_CHARACTERS = 120
"""Of a row of a table: what fits beside the contents in a window of 1280 pixels."""

LONGEST_NAME = 24
"""Characters of a name that fits beside others in the narrowest column."""

THUMBNAIL = 3.3
"""Inches for which a picture of the first screen is laid out: its letters are read at the width of a phone."""

_Item = TypeVar("_Item")


def render(
    results: Sequence[Result], pictures: Mapping[str, Mapping[Path, PictureData]], explorer: str | None = None
) -> str:
    """Return the page but for its first line, from all files of a study and the pictures of each analysis.

    `explorer` is the page of `irt explore` beside it, where there is one.
    Models stand in the order of `results`.
    """
    results = tell_apart(results)
    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"code": _mark_code, "whole": _keep_whole}
    return environment.get_template("page.html").render(
        version=metadata.version("interpret-robust"),
        style=Markup(read_base_style()) + _read_asset("page.css"),
        page_script=_read_asset("page.js"),
        gallery_script=_read_asset("gallery.js"),
        title=f"What models of {' and '.join(_group(results, lambda result: result.job['dataset']))} look at",
        paper=paper,
        extent=_extent(results),
        explanation=EXPLANATION,
        facts=_facts(results),
        meanings=_meanings(results),
        remarks=list_remarks(results),
        thumbnails=[_thumbnail(path, pictures, results) for path in choose_pictures(pictures, results)],
        audits=[audit for audit in audit_results(results) if audit.bears_on_claims],
        pills=make_pills,
        reach_of=_reach,
        analyses=_analyses(results, pictures),
        gallery=make_gallery(results),
        files=[_origin(result) for result in sorted(results, key=lambda entry: entry.path.name)],
        commands=commands.list_commands(results),
        explorer=explorer,
    )


def _mark_code(text: str) -> Markup:
    """Return a text as markup, with what stands in backticks as code."""
    return Markup(re.sub(r"`([^`]*)`", r"<code>\1</code>", str(escape(text))))


def _keep_whole(text: str) -> Markup:
    """Return a text as markup in which no name such as `at-att` is broken at its hyphens, unless it is long."""
    names = rf"(?<![\w-])(?=[\w-]{{1,{LONGEST_NAME}}}(?![\w-]))\w+(?:-\w+)+"
    return Markup(re.sub(names, r'<span class="name">\g<0></span>', str(escape(text))))


def _reach(measures: Sequence[Measure]) -> float:
    """Return the largest distance from zero among estimates and their ends; 1 where all are zero."""
    numbers = [abs(number) for measure in measures for number in measure.estimate if math.isfinite(number)]
    return max(numbers, default=0) or 1


def _read_asset(name: str) -> Markup:
    """Return a file of this package, to stand in the page as it is."""
    return Markup((_FOLDER / name).read_text(encoding="utf-8"))


def _extent(results: Sequence[Result]) -> str:
    """Return how much was studied, such as `2 models, 100 to 1,000 images, 6 files of 2026-11-28`."""
    models, files = {result.model_id for result in results}, format_count(len(results), "file")
    counts = sorted({result.data["images"] for result in results})
    images = f"{' to '.join(_ends([f'{count:,}' for count in counts]))} image{'s' if counts != [1] else ''}"
    return f"{format_count(len(models), 'model')}, {images}, {files} of {' to '.join(_ends(_dates(results)))}"


def _ends(texts: Sequence[str]) -> list[str]:
    """Return the first and the last of some texts, once where they are the same."""
    return list(dict.fromkeys((texts[0], texts[-1])))


def _dates(results: Sequence[Result]) -> list[str]:
    return sorted(str(result.attributes["created_utc"])[:10] for result in results)


def _facts(results: Sequence[Result]) -> dict[str, list[str]]:
    """Return what was studied: images, models with their seeds, and when."""
    splits = _group([result.data for result in results], lambda data: f"{data['dataset']}, {data['split']} split")
    models = _group(results, lambda result: _kind(result.job))
    return {
        "Images": [
            f"{name}: {' or '.join(f'{count:,}' for count in sorted({data['images'] for data in group}))}"
            for name, group in sorted(splits.items())
        ],
        "Models": [f"{name}: {', '.join(_name_variants(group))}" for name, group in models.items()],
        "Files": [f"{len(results)}, written {' to '.join(_ends(_dates(results)))}"],
    }


def _meanings(results: Sequence[Result]) -> list[str]:
    """Return what the variants of the paper are, for a reader who sees their names for the first time."""
    variants = dict.fromkeys(result.job["variant"] for result in sorted(results, key=order))
    return [f"{name}: {explain_variant(name)}" for name in variants if explain_variant(name)]


def _kind(model_job: Mapping[str, Any]) -> str:
    """Return text such as `cifar10, small`, or `cifar10, from elsewhere`."""
    return f"{model_job['dataset']}, {'from elsewhere' if is_external(model_job) else model_job['architecture']}"


def _name_variants(results: Sequence[Result]) -> list[str]:
    """Return text such as `at-att (seed 0)` or `at (seeds 0, 1)`."""
    phrases = []
    for name, group in _group(results, name_variant).items():
        seeds = [str(seed) for seed in sorted({result.job["seed"] for result in group} - {None})]
        text = f" ({'seeds' if len(seeds) > 1 else 'seed'} {', '.join(seeds)})" if seeds else ""
        phrases.append(f"{name}{text}")
    return phrases


def _analyses(results: Sequence[Result], pictures: Mapping[str, Mapping[Path, PictureData]]) -> list[dict[str, Any]]:
    """Return each analysis with its question, its tables and its pictures, in their order."""
    groups = _group(results, lambda result: result.analysis)
    return [
        {
            "name": name,
            "question": analyses.about(name),
            "tables": _tables(groups[name]),
            "pictures": [*pictures.get(name, {}).values()],
        }
        for name in analyses.list_names()
        if name in groups
    ]


def _tables(results: Sequence[Result]) -> list[dict[str, Any]]:
    """Return the printed tables of one analysis, for each set of files of the same images under the same settings.

    Of each dataset, those with the fewest settings changed come first.
    """
    groups = _group(results, lambda result: json.dumps({**list_conditions(result), "trained": None}))
    datasets = list(_group(results, _dataset))

    def place(group: list[Result]) -> tuple[int, int]:
        return datasets.index(_dataset(group[0])), len(commands.list_changes(group[0]))

    return [
        {"of": _conditions(group[0]), "tables": [_foldable(table) for table in printing.make_tables(group)]}
        for group in sorted(groups.values(), key=place)
    ]


def _dataset(result: Result) -> str:
    name: str = result.data["dataset"]
    return name


def _foldable(table: Table) -> dict[str, Any]:
    """Return a table as it stands in the page: in as many parts as its width needs, names without their prefix."""
    short = drop_prefix(table)
    columns = list(dict.fromkeys(key for row in short for key in row))
    parts = fold([columns, *([row.get(column, "") for column in columns] for row in short)], MOST_CHARACTERS)
    return {"title": short.title, "note": short.note, "parts": parts}


def _conditions(result: Result) -> str:
    """Return text such as `1000 test images of cluttered-digits, steps 100`."""
    data, options = result.config["data"], commands.list_changes(result)
    settings = [f"{name} {value}" for name, value in options.items() if name not in FREE]
    if result.recalibration != "none":
        settings.append(f"batch norm recalibrated on {result.recalibration} images")
    return ", ".join([f"{format_images(data)} of {data['dataset']}", *settings])


def _thumbnail(
    path: Path, pictures: Mapping[str, Mapping[Path, PictureData]], results: Sequence[Result]
) -> PictureData:
    """Return a picture as the first screen shows it: drawn anew from the same files, for a narrow column."""
    (figure,) = (name for name, paths in pictures.items() if path in paths)
    inputs = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["inputs"]
    return embed(
        path, drawing.draw_narrow(figure, [entry for entry in results if entry.path.name in inputs], THUMBNAIL)
    )


def _origin(result: Result) -> dict[str, Any]:
    """Return where a file comes from: what identifies it, the command, and all that is stored of it."""
    attributes, content = result.attributes, hdf5.read_provenance(result.path)
    return {
        "name": result.path.name,
        "schema": result.schema,
        "images": result.count,
        "content SHA-256": attributes["content_sha256"],
        "configuration SHA-256": attributes["config_sha256"],
        "created": attributes["created_utc"],
        "version": content["run"]["version"],
        "commit": content["run"].get("commit", "unknown"),
        "seed": result.config["settings"].get("seed", "none"),
        "command": commands.compose_command(result),
        "stored": configs.format_lines(content),
    }


def _group(items: Iterable[_Item], key: Callable[[_Item], Any]) -> dict[Any, list[_Item]]:
    """Return items by their key, in the order in which keys first appear."""
    groups: dict[Hashable, list[_Item]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups
