"""The page on what each analysis file holds, from the objects that write it.

python -m interpret_robust.analyses.engine.schema_page > docs/schemas.md
"""

from collections.abc import Iterator
from typing import Any

from interpret_robust import analyses
from interpret_robust.results.schema import Schema

INTRODUCTION = """# What each analysis file holds

Written by `python -m interpret_robust.analyses.engine.schema_page` from the schemas in `analyses/`, which also decide
what is written and what `irt validate` accepts. What all files share (attributes, provenance, checksums) stands in
[files.md](files.md).

Each axis has a scale of its name at the root of the file, so that xarray and NeXus viewers name it too. The axis
`sample` is an image's index in the split; `of` is a number with the ends of its 95 % interval: value, low, high;
`class` has the names of the data's classes, `evaluator` those of checkpoints; `position` counts the places of the local
features row by row, `channel` their channels; `y`, `x` and `color` count an image's rows, columns and colors."""


def render_page() -> str:
    """Return the whole page, as Markdown."""
    sections = (render_section(analyses.get(name).schema, analyses.about(name)) for name in analyses.list_names())
    return "\n\n".join([INTRODUCTION, *sections]) + "\n"


def render_section(schema: Schema, question: str) -> str:
    """Return what the page says of one analysis."""
    rows = [_row("dataset", "type", "axes", "meaning"), _row(*["---"] * 4)]
    rows += [
        _row(f"`{column.path}`", column.file_type, ", ".join(axes), column.doc.replace("|", r"\|").replace("<", "&lt;"))
        for column, axes in schema.columns()
    ]
    parts = [f"## {schema.label}", question, "\n".join(rows), "\n".join(_notes(schema))]
    return "\n\n".join(filter(None, parts))


def _notes(schema: Schema) -> Iterator[str]:
    """Yield the places of axes that have names, and what opens as a plot."""
    for axis, places in schema.labels.items():
        yield f"- axis `{axis}`: {', '.join(places)}"
    for group, attributes in schema.groups.items():
        if "signal" in attributes:
            yield f"- `{group}` opens as a plot of `{attributes['signal']}`: {attributes['title']}"


def _row(*cells: Any) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    print(render_page(), end="")
