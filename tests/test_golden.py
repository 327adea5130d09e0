"""Golden files: one of each schema is still read, checked, drawn, recomputed, and opened by others."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr
from make_golden import DATA, FOLDER, file_of

from interpret_robust import analyses, figures
from interpret_robust.analyses.engine.validation import list_problems
from interpret_robust.datasets import Split, load
from interpret_robust.results import hdf5
from interpret_robust.results.columns import Columns
from interpret_robust.results.hdf5 import Result
from interpret_robust.results.schema import Schema

NAMES = analyses.list_names()
LARGEST = 200_000


def schema_of(name: str) -> Schema:
    schema: Schema = analyses.get(name).schema
    return schema


def golden(name: str) -> Result:
    return hdf5.read(file_of(schema_of(name)), schema_of(name).label)


@pytest.fixture(scope="module")
def images() -> Split:
    return load(str(DATA)).test


@pytest.mark.parametrize("name", NAMES)
def test_there_is_one_of_each_schema_and_it_is_good(name: str) -> None:
    assert file_of(schema_of(name)).exists(), "run: python tests/make_golden.py"
    assert list_problems(file_of(schema_of(name))) == []
    assert golden(name).count == 8
    assert file_of(schema_of(name)).stat().st_size < LARGEST


def test_the_images_are_those_that_were_analyzed(images: Split) -> None:
    assert {golden(name).config["data"]["sha256"] for name in NAMES} == {images.sha256}


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.h5")), ids=lambda path: path.stem)
def test_files_of_every_version_are_good(path: Path) -> None:
    assert list_problems(path) == []


NO_ENDS = "pointing/class_averaged"
"""An interval that has no ends now where a class has one image, as here; when the file was made its width was zero."""


WITH_OWN_MAP = ("curve/position_null", "test/spearman_position")
"""Statistics of the mean map, of which an image's own map was a part when the file was made; others test them."""


@pytest.mark.parametrize("name", NAMES)
def test_its_statistics_follow_from_its_rows(name: str, images: Split) -> None:
    analysis, result = analyses.get(name), golden(name)
    settings = analysis.settings(**result.config["settings"])
    with h5py.File(result.path) as file:
        statistics = analysis.compute_summary(Columns(file), images, settings)
    assert statistics.keys() == {column.path for column in analysis.schema.summary}
    for column in analysis.schema.summary:
        if column.path in WITH_OWN_MAP:
            continue
        exact = 1e-12 if column.dtype == "f8" else 0.0
        expected, values = result[column.path], np.asarray(statistics[column.path], column.dtype)
        if column.path == NO_ENDS:
            assert np.isnan(values[:, 1:]).all()
            expected, values = expected[:, 0], values[:, 0]
        np.testing.assert_allclose(values, expected, rtol=exact, atol=exact, err_msg=column.path)


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_its_figure_draws(name: str, tmp_path: Path) -> None:
    drawing = figures.get(name).draw([golden(name)])
    drawing.figure.savefig(tmp_path / "x.png", dpi=40)
    assert "8 test" in drawing.caption
    assert drawing.numbers


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_it_opens_in_xarray_with_named_axes(name: str) -> None:
    with xr.open_datatree(file_of(schema_of(name)), engine="h5netcdf") as tree:
        for column, axes in schema_of(name).columns():
            assert tree[column.path].dims == axes
        assert not [name for node in tree.subtree for name in node.sizes if str(name).startswith("phony")]
        np.testing.assert_array_equal(tree["per_image/label"], golden(name)["per_image/label"])
        np.testing.assert_array_equal(tree["sample"], range(8))


@pytest.mark.parametrize("name", NAMES)
def test_a_viewer_finds_what_to_plot(name: str) -> None:
    """The chain of NeXus: the root's default group, its signal, and an axis for each of its dimensions."""
    with h5py.File(file_of(schema_of(name))) as file:
        assert file.attrs["NX_class"] == "NXroot"
        group = file[file.attrs["default"]]
        assert group.attrs["NX_class"] == "NXdata"
        assert group.attrs["title"]
        signal = group[group.attrs["signal"]]
        axes = list(np.atleast_1d(group.attrs["axes"]))
        assert [len(group[axis]) for axis in axes] == list(signal.shape)
        for axis in axes:
            np.testing.assert_array_equal(group[axis][()], file[axis][()])


def test_a_file_of_a_version_that_is_still_read_is_printed_and_drawn() -> None:
    """A file of map-quality/1 has no sign and no completeness, and all else as it was."""
    old = analyses.read(FOLDER / "map-quality-1.h5")
    assert old.schema == "map-quality/1" and "count/negative" not in old
    rows = [analyses.get("map-quality").table_row(result) for result in (old, golden("map-quality"))]
    assert set(rows[1]) - set(rows[0]) == {"constant maps", "wrong sign"}
    assert {name: rows[1][name] for name in rows[0]} == rows[0]
    assert figures.get("map-quality").draw([hdf5.read(old.path, figures.get("map-quality").READS)]).numbers
