"""A file of every schema in each reader that is installed: every dataset has the values that were written."""

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from make_golden import file_of

from interpret_robust import analyses
from interpret_robust.analyses.engine.validation import list_problems
from interpret_robust.core.arrays import AnyArray
from interpret_robust.results import hdf5, writer
from interpret_robust.results.schema import Schema

Arrays = dict[str, AnyArray]


def as_written_today(schema: Schema, folder: Path) -> Path:
    """The golden file of a schema, which may be of an older format, written anew."""
    old, path = hdf5.read(file_of(schema)), folder / f"{schema.name}.h5"
    axes: dict[str, Any] = {}
    for column in schema.per_image:
        for axis in column.axes:
            axes[axis] = tuple(old[axis].tolist())
    with writer.open_rows(path, schema, old.count, axes, old.config, {"python": "3"}) as rows:
        rows.append({column.path: old[column.path] for column in schema.per_image})
        rows.finish({column.path: old[column.path] for column in schema.summary}, {"seconds": 1})
    return path


@pytest.fixture(scope="module", params=analyses.list_names())
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return as_written_today(analyses.get(request.param).schema, tmp_path_factory.mktemp("readers"))


@pytest.fixture(scope="module")
def contents(path: Path) -> Arrays:
    """What h5py finds: every dataset by its path."""
    arrays: Arrays = {}
    with h5py.File(path) as file:

        def visit(name: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset):
                arrays[name] = item[()]

        file.visititems(visit)
    return arrays


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Without what libraries of others warn of."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def with_netcdf4(path: Path) -> Arrays:
    netcdf4 = pytest.importorskip("netCDF4")

    def visit(group: Any, prefix: str) -> Iterator[tuple[str, AnyArray]]:
        for name, variable in group.variables.items():
            variable.set_auto_mask(False)
            yield prefix + name, np.asarray(variable[...])
        for name, inner in group.groups.items():
            yield from visit(inner, f"{prefix}{name}/")

    with netcdf4.Dataset(path) as file:
        assert file.getncattr("complete") == 1
        assert not [name for name in file.dimensions if name.startswith("phony")]
        return dict(visit(file, ""))


def with_xarray(path: Path, engine: str) -> Arrays:
    xarray = pytest.importorskip("xarray")
    pytest.importorskip({"netcdf4": "netCDF4"}.get(engine, engine))
    with xarray.open_datatree(path, engine=engine) as tree:
        assert tree.attrs["complete"] == 1
        return of_tree(tree)


def of_tree(tree: Any) -> Arrays:
    """All variables of a tree; a group has those scales too that it shares with groups above it."""
    arrays: Arrays = {}
    for node in tree.subtree:
        for name, variable in node.to_dataset().variables.items():
            arrays[f"{node.path}/{name}".lstrip("/")] = variable.values
    return arrays


def with_h5netcdf(path: Path) -> Arrays:
    h5netcdf = pytest.importorskip("h5netcdf")

    def visit(group: Any, prefix: str) -> Iterator[tuple[str, AnyArray]]:
        for name, variable in group.variables.items():
            yield prefix + name, np.asarray(variable[...])
        for name, inner in group.groups.items():
            yield from visit(inner, f"{prefix}{name}/")

    with h5netcdf.File(path) as file:
        return dict(visit(file, ""))


def with_pyfive(path: Path) -> Arrays:
    pyfive = pytest.importorskip("pyfive")
    arrays: Arrays = {}
    with pyfive.File(str(path)) as file:

        def visit(name: str, item: Any) -> None:
            if isinstance(item, pyfive.Dataset):
                arrays[name] = item[()]

        file.visititems(visit)
    return arrays


def with_kerchunk(path: Path) -> Arrays:
    hdf = pytest.importorskip("kerchunk.hdf")
    zarr, fsspec = pytest.importorskip("zarr"), pytest.importorskip("fsspec")
    references = hdf.SingleHdf5ToZarr(str(path), inline_threshold=0).translate()
    remote: dict[str, Any] = {"remote_protocol": "file", "remote_options": {"asynchronous": True}}
    files = fsspec.filesystem("reference", fo=references, asynchronous=True, **remote)
    group = zarr.open_group(zarr.storage.FsspecStore(files, read_only=True), mode="r", zarr_format=2)
    names = [name.removesuffix("/.zarray") for name in references["refs"] if name.endswith("/.zarray")]
    return {name: np.asarray(group[name][()]) for name in names}


def with_virtualizarr(path: Path) -> Arrays:
    xarray, virtualizarr = pytest.importorskip("xarray"), pytest.importorskip("virtualizarr")
    parser = pytest.importorskip("virtualizarr.parsers").HDFParser()
    registry, store = pytest.importorskip("obspec_utils.registry"), pytest.importorskip("obstore.store")
    stores = registry.ObjectStoreRegistry({"file://": store.LocalStore()})
    with virtualizarr.open_virtual_datatree(f"file://{path}", registry=stores, parser=parser) as tree:
        virtual = {f"{node.path}/{name}" for node in tree.subtree for name in node.to_dataset().variables}
    with xarray.open_datatree(parser(f"file://{path}", stores), engine="zarr", consolidated=False) as tree:
        arrays = of_tree(tree)
    assert {name.lstrip("/") for name in virtual} == arrays.keys()
    return arrays


def with_tables(path: Path) -> Arrays:
    tables = pytest.importorskip("tables")
    with h5py.File(path) as file:
        names: list[str] = []
        file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        scales = {name for name in names if file[name].is_scale}
    with tables.open_file(str(path)) as file:
        return {name: file.get_node(f"/{name}").read() for name in names if name not in scales}


READERS: dict[str, Callable[[Path], Arrays]] = {
    "netCDF4": with_netcdf4,
    "xarray with h5netcdf": lambda path: with_xarray(path, "h5netcdf"),
    "xarray with netCDF4": lambda path: with_xarray(path, "netcdf4"),
    "h5netcdf": with_h5netcdf,
    "pyfive": with_pyfive,
    "kerchunk": with_kerchunk,
    "VirtualiZarr": with_virtualizarr,
    "PyTables": with_tables,
}


@pytest.mark.long
@pytest.mark.parametrize("reader", READERS)
def test_every_dataset_is_read_to_the_values_that_were_written(path: Path, contents: Arrays, reader: str) -> None:
    arrays = READERS[reader](path)
    absent = {name for name in contents if name not in arrays}
    if reader == "PyTables":
        with h5py.File(path) as file:
            absent = {name for name in absent if not file[name].is_scale}  # it cannot read their attributes
    assert absent == set()
    for name in contents.keys() & arrays.keys():
        values, expected = np.asarray(arrays[name]), np.asarray(contents[name])
        if expected.dtype.kind == "S":
            assert values.astype(str).tolist() == expected.astype(str).tolist(), name
        else:
            np.testing.assert_array_equal(values, expected, err_msg=name)
            assert values.dtype == expected.dtype, name


@pytest.mark.long
def test_it_is_the_file_of_the_schema_and_has_nothing_that_netcdf4_lacks(path: Path, contents: Arrays) -> None:
    assert list_problems(path) == []
    assert {values.dtype.kind for values in map(np.asarray, contents.values())} <= set("iufS")
    assert np.dtype("f2") not in {np.asarray(values).dtype for values in contents.values()}
    old = hdf5.read(file_of(analyses.get(path.stem).schema))
    new = hdf5.read(path)
    for column, axes in analyses.get(path.stem).schema.columns():
        np.testing.assert_array_equal(new[column.path], old[column.path])
        assert new.axes(column.path) == old.axes(column.path) == axes
        for axis in axes:
            assert new[axis].tolist() == old[axis].tolist()


def test_maps_of_half_precision_take_hardly_more_room_than_before(tmp_path: Path) -> None:
    """Rounded float32 compresses to about what float16 took."""
    maps = np.random.default_rng(0).standard_normal((300, 3, 16, 20)).astype(np.float16)
    storage = {"chunks": (40, 3, 16, 20), "compression": "gzip", "compression_opts": 4, "shuffle": True}
    with h5py.File(tmp_path / "x.h5", "w") as file:
        sizes = [
            file.create_dataset(kind, data=maps.astype(kind), **storage).id.get_storage_size() for kind in ("f2", "f4")
        ]
    assert sizes[1] < 1.15 * sizes[0]
