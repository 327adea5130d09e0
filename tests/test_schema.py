"""Schemas as data: what they may say, and that the page of them is the one in the documentation."""

import re
from pathlib import Path

import numpy as np
import pytest

from interpret_robust import analyses
from interpret_robust.analyses.engine import schema_page
from interpret_robust.results.schema import Column, Schema, interval

PAGE = Path(__file__).parents[1] / "docs" / "schemas.md"
SCHEMAS: list[Schema] = [analyses.get(name).schema for name in analyses.list_names()]
for_each_schema = pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: schema.name)


def test_the_page_in_the_documentation_is_that_of_the_schemas() -> None:
    hint = "run: python -m interpret_robust.analyses.engine.schema_page > docs/schemas.md"
    assert PAGE.read_text(encoding="utf-8") == schema_page.render_page(), hint


@for_each_schema
def test_the_page_has_every_dataset_with_its_axes_and_meaning(schema: Schema) -> None:
    section = schema_page.render_page().split(f"## {schema.label}\n")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| `")]
    assert len(rows) == len(schema.per_image) + len(schema.summary)
    for line, (column, axes) in zip(rows, schema.columns(), strict=True):
        _, path, kind, axis_names, *meaning = line.replace(r"\|", "¦").split("|")
        assert (path.strip(), kind.strip(), axis_names.strip()) == (
            f"`{column.path}`",
            column.file_type,
            ", ".join(axes),
        )
        assert meaning[0].strip().replace("¦", "|").replace("&lt;", "<") == column.doc
        assert [part.strip() for part in meaning[1:]] == [""]
    for axis, places in schema.labels.items():
        assert f"- axis `{axis}`: {', '.join(places)}" in section
    assert analyses.about(schema.name) in section


@for_each_schema
def test_a_meaning_is_understood_alone_as_the_label_of_a_plot(schema: Schema) -> None:
    """xarray writes the meaning beside an axis, where no other column stands above it."""
    meanings = [column.doc for column, _ in schema.columns()]
    assert not [text for text in meanings if text.startswith(("the same", "their ", "its ", "that of ", "own "))]
    assert not [text for text in meanings if re.search(r"\bend of its\b|how many these", text)]


@for_each_schema
def test_a_schema_is_one_that_can_be_written(schema: Schema) -> None:
    paths = [column.path for column, _ in schema.columns()]
    assert len(set(paths)) == len(paths)
    for column, axes in schema.columns():
        assert str(np.dtype(column.dtype)) != "bool" and column.doc
        assert column.path.count("/") == 1 and column.path == column.path.lower()
        assert (column.path.startswith("per_image/")) == (column in schema.per_image) == (axes[:1] == ("sample",))
    for group, attributes in schema.groups.items():
        if "signal" in attributes:
            signal = {column.path: axes for column, axes in schema.columns()}[f"{group}/{attributes['signal']}"]
            assert attributes["NX_class"] == "NXdata"
            assert tuple(attributes["axes"].split(":")) == signal


@for_each_schema
def test_no_dataset_has_the_name_of_an_axis(schema: Schema) -> None:
    """In xarray the axis, which every group inherits, would be found in its place."""
    axes = {axis for _, names in schema.columns() for axis in names}
    assert not [column.path for column, _ in schema.columns() if column.path.rpartition("/")[2] in axes]


@for_each_schema
def test_the_file_opens_with_a_plot(schema: Schema) -> None:
    assert next(iter(schema.groups.values()), {}).get("signal"), f"{schema.label} names no default plot"


SECTION = r"""## toy/2

Why?

| dataset | type | axes | meaning |
| --- | --- | --- | --- |
| `per_image/x` | f4 | sample, side | &lt;a, b> / \|b\| |
| `test/y` | f8 | side, of | mean |
| `test/z` | i8 |  | count |

- axis `side`: left, right
- `test` opens as a plot of `y`: Sides"""


def test_a_section_by_hand() -> None:
    schema = Schema(
        "toy",
        2,
        (Column("per_image/x", "f4", "<a, b> / |b|", ("side",)),),
        (interval("test/y", "mean", "side"), Column("test/z", "i8", "count")),
        groups={"test": {"NX_class": "NXdata", "signal": "y", "axes": "side:of", "title": "Sides"}},
        labels={"side": ("left", "right")},
    )
    assert schema_page.render_section(schema, "Why?") == SECTION
