"""The HDF5 file: round trips, resuming after any stop, and one sentence for each kind of bad file."""

import fcntl
import hashlib
import io
import random
import re
import shutil
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from interpret_robust.core.arrays import AnyArray
from interpret_robust.core.errors import UserError
from interpret_robust.results import checksums, hdf5, seal, writer
from interpret_robust.results.columns import Axes, Columns
from interpret_robust.results.row_batches import CHECKSUMS, ENDS
from interpret_robust.results.schema import Column, Schema, interval
from interpret_robust.results.writer import Rows

# No two axes have the same length, and `map` is large enough to be compressed. The places of `side` are named by
# the schema, those of `class` at run time.
COUNT = 13
SIDES = ("left", "right", "top", "bottom")
CLASSES = ("plane", "car", "bird", "cat", "deer", "dog", "frog")
AXES: Axes = {"position": 5, "channel": 3, "class": CLASSES}
SCHEMA = Schema(
    name="toy",
    version=3,
    per_image=(
        Column("per_image/label", "i2", "a class"),
        Column("per_image/share", "f4", "a share", ("position",)),
        Column("per_image/map", "f4", "a map", ("channel", "position", "class")),
        Column("per_image/pixel", "u1", "a pixel", ("channel", "side")),
        Column("per_image/hit", "bool", "a hit"),
    ),
    summary=(
        Column("curve/mean", "f8", "a mean", ("rank",)),
        Column("test/total", "f8", "a number"),
        interval("test/share", "a share of each side", "side"),
    ),
    groups={"curve": {"NX_class": "NXdata", "signal": "mean", "axes": "rank", "title": "A curve"}},
    labels={"side": SIDES},
)
CONFIG: dict[str, Any] = {"analysis": "toy/3", "settings": {"steps": 20, "eps": 8 / 255}, "data": "digits"}
ENVIRONMENT = {"python": "3", "threads": 1}


def made_rows(start: int = 0, stop: int = COUNT) -> dict[str, AnyArray]:
    rng = np.random.default_rng(0)
    rows: dict[str, AnyArray] = {
        "per_image/label": np.arange(COUNT, dtype=np.int16) - 3,
        "per_image/share": rng.random((COUNT, 5), np.float32),
        "per_image/map": rng.random((COUNT, 3, 5, 7), np.float32),
        "per_image/pixel": rng.integers(0, 256, (COUNT, 3, 4), np.uint8),
        "per_image/hit": rng.random(COUNT) < 0.5,
    }
    return {name: values[start:stop] for name, values in rows.items()}


def summary(rows: Rows) -> dict[str, Any]:
    share = rows.columns()["per_image/share"].astype(np.float64)
    return {"curve/mean": share.mean(0), "test/total": share.sum(), "test/share": np.arange(12.0).reshape(4, 3)}


def start(path: Path, schema: Schema = SCHEMA, config: dict[str, Any] = CONFIG, *, overwrite: bool = False) -> Rows:
    return writer.open_rows(path, schema, COUNT, AXES, config, ENVIRONMENT, overwrite=overwrite)


def write(path: Path, *stops: int, run: dict[str, Any] | None = None) -> Path:
    """A finished file, its rows written up to each stop, and the file reopened between them."""
    for stop in (*stops, COUNT):
        with start(path) as rows:
            rows.append(made_rows(rows.row_count, stop))
            if stop == COUNT:
                rows.finish(summary(rows), run or {"seconds": 1.0})
    return path


def partial_of(path: Path) -> Path:
    return path.with_name(path.name + ".partial")


def content(path: Path) -> str:
    return str(hdf5.attributes(path)["content_sha256"])


def assert_sentence(error: pytest.ExceptionInfo[UserError], path: Path, *parts: str) -> None:
    """One sentence, which names the file and says the rest."""
    text = str(error.value)
    assert str(path) in text
    rest = text.replace(str(path), "FILE")
    assert "\n" not in rest
    assert re.search(r"[a-z)]\.$", rest)
    assert ". " not in rest
    for part in parts:
        assert part in rest


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    result = hdf5.read(write(tmp_path / "a" / "x.h5"), SCHEMA.label)
    for name, values in made_rows().items():
        assert result[name].dtype == values.dtype
        np.testing.assert_array_equal(result[name], values)
    np.testing.assert_allclose(result["curve/mean"], made_rows()["per_image/share"].mean(0), rtol=1e-6)
    assert result["test/total"] == pytest.approx(made_rows()["per_image/share"].sum(), rel=1e-6)
    assert (result.count, result.schema, result.config) == (COUNT, "toy/3", CONFIG)
    assert "test/total" in result
    assert "test/other" not in result
    with pytest.raises(UserError, match="holds no 'test/other'"):
        result["test/other"]


def test_a_small_dataset_is_read_once_and_nobody_changes_it_for_the_next_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result, paths, view = hdf5.read(write(tmp_path / "x.h5")), list[Path](), hdf5._view

    def note_path(path: Path) -> Any:
        paths.append(path)
        return view(path)

    monkeypatch.setattr(hdf5, "_view", note_path)
    monkeypatch.setattr(hdf5, "_SMALL_BYTES", 13 * 2)
    for name, times in (("per_image/label", 1), ("per_image/pixel", 2)):
        paths.clear()
        result[name][:] = 1
        np.testing.assert_array_equal(result[name], made_rows()[name])
        assert len(paths) == times


def test_a_file_says_what_it_holds_and_where_it_comes_from(tmp_path: Path) -> None:
    path = write(tmp_path / "x.h5", run={"seconds": 2.5})
    assert hdf5.read_provenance(path) == {"config": CONFIG, "environment": ENVIRONMENT, "run": {"seconds": 2.5}}
    assert ("per_image/map", "float32 13x3x5x7", "a map") in hdf5.list_datasets(path)
    assert ("test/total", "float64 scalar", "a number") in hdf5.list_datasets(path)
    assert ("class", "text 7", "names along this axis") in hdf5.list_datasets(path)
    scales = ("sample", "position", "channel", "class", "side", "rank", "of")
    assert len(hdf5.list_datasets(path)) == len(SCHEMA.per_image) + len(SCHEMA.summary) + len([*scales, "curve/rank"])


SCALES: dict[str, tuple[Any, ...]] = {
    "sample": tuple(range(COUNT)),
    "position": (0, 1, 2, 3, 4),
    "channel": (0, 1, 2),
    "class": tuple(name.encode() for name in CLASSES),
    "side": tuple(name.encode() for name in SIDES),
    "rank": (0, 1, 2, 3, 4),
    "of": (b"value", b"low", b"high"),
}


def test_every_axis_has_its_name_and_the_names_of_its_places(tmp_path: Path) -> None:
    with h5py.File(write(tmp_path / "x.h5", 4)) as file:
        for name, places in SCALES.items():
            assert file[name].is_scale and tuple(file[name][...]) == places
        names = set()
        for column, axes in SCHEMA.columns():
            dims = file[column.path].dims
            assert [dimension.label for dimension in dims] == list(axes)
            for dimension, axis in zip(dims, axes, strict=True):
                assert list(dimension) == [axis] and dimension[axis] == file[axis]
            names |= set(axes)
        assert names == set(SCALES)


def test_half_precision_and_truth_are_stored_as_types_of_netcdf4_and_read_as_what_they_are(tmp_path: Path) -> None:
    columns = (Column("per_image/x", "f2", "half"), Column("per_image/y", "bool", "truth"))
    schema = Schema("toy", 1, columns, (Column("test/all", "bool", "truth"),))
    values = np.array([0, 1 / 3, -1e-7, 70000, np.nan])
    with writer.open_rows(tmp_path / "x.h5", schema, 5, {}, CONFIG, ENVIRONMENT) as rows, np.errstate(over="ignore"):
        rows.append({"per_image/x": values, "per_image/y": values > 0.2})
        assert rows.columns()["per_image/y"].dtype == np.bool_
        rows.finish({"test/all": True}, {})
        half = values.astype(np.float16)
    result = hdf5.read(tmp_path / "x.h5")
    assert result["per_image/x"].dtype == np.float32
    np.testing.assert_array_equal(result["per_image/x"], half)
    for got in (result["per_image/y"], result.first("per_image/y", 5)):
        assert got.dtype == np.bool_ and got.tolist() == [False, True, False, True, False]
    assert result["test/all"].dtype == np.bool_ and result["test/all"]
    with h5py.File(tmp_path / "x.h5") as file:
        assert (file["per_image/y"].dtype, file.attrs["complete"].dtype) == (np.uint8, np.uint8)


def test_an_unfinished_file_of_an_older_format_starts_over(tmp_path: Path) -> None:
    with start(tmp_path / "x.h5") as rows:
        rows.append(made_rows(0, 4))
    partial = partial_of(tmp_path / "x.h5")
    with h5py.File(partial, "r+") as file:
        file.attrs["format_version"] = 1
        datasets = [file[name].id for name in (ENDS, CHECKSUMS, *(c.path for c in SCHEMA.per_image))]
        stretches = [(dataset.get_offset(), dataset.get_storage_size()) for dataset in datasets]
    seal.write_block(partial, stretches)
    with start(tmp_path / "x.h5") as rows:
        assert rows.row_count == 0


def test_names_of_places_are_read_as_text_of_any_script(tmp_path: Path) -> None:
    names = ("zéro", "один", "二")
    schema = replace(KILL_SCHEMA, summary=(Column("test/total", "f8", "a number of each class", ("class",)),))
    with writer.open_rows(tmp_path / "x.h5", schema, 1, {"class": names}, CONFIG, ENVIRONMENT) as rows:
        rows.append({"per_image/x": np.ones(1), "per_image/y": np.ones(1)})
        rows.finish({"test/total": np.arange(3)}, {})
    with h5py.File(tmp_path / "x.h5") as file:
        assert tuple(file["class"].asstr()[...]) == names
    hdf5.read(tmp_path / "x.h5")


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"curve/mean": np.arange(5), "curve/other": np.arange(6)}, "curve/other has 6 places along rank.*have 5"),
        ({"curve/mean": np.arange(5), "curve/other": np.zeros((5, 2))}, "longer|shorter"),
        ({"curve/mean": np.float64(1), "curve/other": np.arange(5)}, "longer|shorter"),
    ],
)
def test_an_axis_has_one_length(tmp_path: Path, values: dict[str, AnyArray], sentence: str) -> None:
    curves = tuple(Column(path, "f8", "a mean", ("rank",)) for path in values)
    path = tmp_path / "x.h5"
    with writer.open_rows(path, replace(KILL_SCHEMA, summary=curves), 2, {}, CONFIG, ENVIRONMENT) as rows:
        rows.append({"per_image/x": np.ones(2), "per_image/y": np.ones(2)})
        with pytest.raises(ValueError, match=sentence):
            rows.finish(values, {})
    assert [file.name for file in tmp_path.iterdir()] == [partial_of(path).name]


def test_a_statistic_of_the_wrong_number_of_named_places_is_refused(tmp_path: Path) -> None:
    for axis, length in (("class", 6), ("side", 5), ("of", 2), ("position", 4), ("sample", COUNT + 1)):
        schema = replace(SCHEMA, summary=(Column("test/total", "f8", "a number", (axis,)),), groups={})
        path = tmp_path / f"{axis}.h5"
        with start(path, schema) as rows:
            rows.append(made_rows())
            with pytest.raises(ValueError, match=rf"test/total has {length} places along {axis}"):
                rows.finish({"test/total": np.zeros(length)}, {})
        assert not path.exists()


def test_the_curve_is_what_a_viewer_plots_first(tmp_path: Path) -> None:
    with h5py.File(write(tmp_path / "x.h5")) as file:
        assert (file.attrs["NX_class"], file.attrs["default"]) == ("NXroot", "curve")
        assert dict(file["curve"].attrs) == SCHEMA.groups["curve"]
        signal, axis = (file["curve"][file["curve"].attrs[key]] for key in ("signal", "axes"))
        assert signal == file["curve/mean"] and axis.dims[0][0] == file["rank"]
        np.testing.assert_array_equal(axis, [0, 1, 2, 3, 4])
        assert isinstance(file.get("curve/rank", getlink=True), h5py.HardLink) and axis != file["rank"]


def test_rows_never_written_are_marked(tmp_path: Path) -> None:
    with start(tmp_path / "x.h5") as rows:
        rows.append(made_rows(0, 5))
        columns = {column.path: rows.columns()[column.path] for column in SCHEMA.per_image}
    for name, values in made_rows(0, 5).items():
        np.testing.assert_array_equal(columns[name][:5], values)
    for name, fill in (("label", -1), ("share", np.nan), ("map", np.nan), ("pixel", 255), ("hit", False)):
        rest = columns[f"per_image/{name}"][5:]
        np.testing.assert_array_equal(rest, np.full_like(rest, fill))


@pytest.mark.parametrize("stops", [(4,), (1, 2, 12), tuple(range(1, COUNT))])
def test_a_resumed_file_has_the_content_of_an_uninterrupted_one(tmp_path: Path, stops: tuple[int, ...]) -> None:
    whole, parts = write(tmp_path / "whole.h5"), write(tmp_path / "resumed.h5", *stops)
    assert content(parts) == content(whole)
    assert not partial_of(parts).exists()


def test_a_file_appears_under_its_name_only_when_complete(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    with start(path) as rows:
        assert rows.row_count == 0
        rows.append(made_rows(0, 6))
        assert rows.row_count == 6
    assert partial_of(path).exists() and not path.exists()
    with h5py.File(partial_of(path)) as file:
        assert (bool(file.attrs["complete"]), file[ENDS][...].max()) == (False, 6)
    write(path)
    assert path.exists() and not partial_of(path).exists()
    assert (bool(hdf5.attributes(path)["complete"]), hdf5.attributes(path)["n_done"]) == (True, COUNT)


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"data": "photos"}, ("data", "digits", "photos")),
        ({"settings": {"steps": 50, "eps": 8 / 255}}, ("steps", "20", "50")),
        ({"analysis": "other/1"}, ("analysis", "toy/3", "other/1")),
    ],
)
def test_another_configuration_is_refused_unless_it_may_be_overwritten(
    tmp_path: Path, change: dict[str, Any], parts: tuple[str, ...]
) -> None:
    path, config = tmp_path / "x.h5", CONFIG | change
    schema = replace(SCHEMA, name="other", version=1) if "analysis" in change else SCHEMA
    with start(path) as rows:
        rows.append(made_rows(0, 6))
    with pytest.raises(UserError) as error:
        start(path, schema, config)
    assert_sentence(error, partial_of(path), "unfinished", "--overwrite", *parts)
    with start(path, schema, config, overwrite=True) as rows:
        assert rows.row_count == 0
    write(tmp_path / "done.h5")
    if schema is SCHEMA:
        with pytest.raises(UserError) as second_error:
            writer.is_finished(tmp_path / "done.h5", schema, config)
        assert_sentence(second_error, tmp_path / "done.h5", "--overwrite", *parts)


def test_a_finished_file_is_recognized(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    assert not writer.is_finished(path, SCHEMA, CONFIG)
    write(path)
    assert writer.is_finished(path, SCHEMA, CONFIG)
    assert not writer.is_finished(path, SCHEMA, CONFIG, overwrite=True)


def test_a_finished_file_stays_one_where_a_file_of_weights_moved(tmp_path: Path) -> None:
    """Of the model and of an evaluator; other numbers in it have another checksum, and weights of a library no path."""

    def config(weights: str, sha256: str = "ab") -> dict[str, Any]:
        job = {"card": {"model": "mine:net", "weights": weights}}
        return CONFIG | {"checkpoint": {"sha256": sha256, "job": job}, "evaluators": {"jobs": {"reader": job}}}

    path = tmp_path / "x.h5"
    with start(path, config=config("net.pt")) as rows:
        rows.append(made_rows())
        rows.finish(summary(rows), {"seconds": 1.0})
    assert writer.is_finished(path, SCHEMA, config("models/net.pt"))
    for other_config, sentence in (
        (config("net.pt", "cd"), "the answer of another model than the one that has its name now"),
        (config("pretrained"), "holds another configuration"),
    ):
        with pytest.raises(UserError, match=sentence):
            writer.is_finished(path, SCHEMA, other_config)


def test_what_a_kill_left_beside_the_finished_file_is_removed_if_it_is_of_the_same_run(tmp_path: Path) -> None:
    path, other_path = write(tmp_path / "x.h5"), tmp_path / "y.h5"
    for config, is_removed in ((CONFIG, True), (CONFIG | {"data": "photos"}, False)):
        with start(other_path, config=config) as rows:
            rows.append(made_rows(0, 6))
        left = partial_of(other_path).replace(partial_of(path)).read_bytes()
        assert writer.is_finished(path, SCHEMA, CONFIG)
        assert partial_of(path).exists() != is_removed
    # Another run's goes on from where it was, and what nobody can read is left for whoever put it there.
    assert partial_of(path).read_bytes() == left
    for foreign in (b"nonsense", b"", left[:2000]):
        partial_of(path).write_bytes(foreign)
        assert writer.is_finished(path, SCHEMA, CONFIG)
        assert partial_of(path).read_bytes() == foreign
    with h5py.File(partial_of(path), "w") as file:
        file["data"] = [1, 2]
    assert writer.is_finished(path, SCHEMA, CONFIG) and partial_of(path).exists()


@pytest.mark.parametrize(
    "damage",
    [lambda good: b"", lambda good: b"nonsense" * 999, lambda good: bytes(len(good)), lambda good: good[:3000]],
)
def test_an_unreadable_partial_is_begun_again(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "x.h5"
    with start(path) as rows:
        rows.append(made_rows(0, 6))
    partial_of(path).write_bytes(damage(partial_of(path).read_bytes()))
    with start(path) as rows:
        assert rows.row_count == 0
    assert content(write(path)) == content(write(tmp_path / "whole.h5"))


def write_unfinished(path: Path) -> None:
    with start(path) as rows:
        rows.append(made_rows(0, 6))
    partial_of(path).rename(path)


def foreign(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["data"] = [1, 2]


def write_truncated(path: Path) -> None:
    write(path)
    path.write_bytes(path.read_bytes()[:3000])


def newer(path: Path) -> None:
    with h5py.File(write(path), "r+") as file:
        file.attrs["format_version"] = hdf5.FORMAT_VERSION + 1


def unnumbered(path: Path) -> None:
    with h5py.File(write(path), "r+") as file:
        file.attrs["format_version"] = "two"


def newer_schema(path: Path) -> None:
    with h5py.File(write(path), "r+") as file:
        file.attrs["schema"] = "toy/4"


def other_schema(path: Path) -> None:
    with h5py.File(write(path), "r+") as file:
        file.attrs["schema"] = "robustness/3"


@pytest.mark.parametrize(
    ("make", "parts"),
    [
        (lambda path: None, ("there is no analysis file FILE",)),
        (lambda path: path.mkdir(), ("FILE is a folder",)),
        (lambda path: path.touch(), ("damaged or no HDF5 file",)),
        (lambda path: path.write_text("label,prediction\n"), ("damaged or no HDF5 file",)),
        (write_truncated, ("damaged or no HDF5 file", "truncated file")),
        (foreign, ("not one that `irt analyze` wrote",)),
        (write_unfinished, ("unfinished", "run its analysis again")),
        (unnumbered, ("is damaged or no HDF5 file (invalid literal for int() with base 10: 'two'): run its",)),
        (newer, ("format 3", "up to 2")),
        (newer_schema, ("toy/4", "toy/3")),
        (other_schema, ("robustness/3", "toy is needed")),
    ],
)
def test_each_kind_of_bad_file_gets_its_sentence(
    tmp_path: Path, make: Callable[[Path], object], parts: tuple[str, ...]
) -> None:
    path = tmp_path / "x.h5"
    make(path)
    with pytest.raises(UserError) as error:
        hdf5.read(path, SCHEMA.label)
    assert_sentence(error, path, *parts)


@pytest.mark.parametrize("name", [column.path for column in (*SCHEMA.per_image, *SCHEMA.summary)])
def test_one_changed_bit_is_found(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "x.h5")
    hdf5.read(path)
    with h5py.File(path, "r+") as file:
        values = np.atleast_1d(file[name][()])
        values.reshape(-1)[-1:].view(np.uint8)[0] ^= 1
        file[name][...] = values.reshape(file[name].shape)
    with pytest.raises(UserError) as error:
        hdf5.read(path)
    assert_sentence(error, path, "damaged")


def test_one_bit_changed_on_the_disk_is_found(tmp_path: Path) -> None:
    good = write(tmp_path / "good.h5").read_bytes()
    with h5py.File(tmp_path / "good.h5") as file:
        offset = file["per_image/map"].id.get_chunk_info(0).byte_offset
    for place in (good.index(made_rows()["per_image/share"].tobytes()) + 17, offset + 40):
        data = bytearray(good)
        data[place] ^= 0x10
        path = tmp_path / "x.h5"
        path.write_bytes(data)
        with pytest.raises(UserError) as error:
            hdf5.read(path)
        assert_sentence(error, path, "damaged")


@pytest.mark.parametrize("scale", list(SCALES))
def test_a_changed_name_or_number_of_a_place_is_found(tmp_path: Path, scale: str) -> None:
    path = write(tmp_path / "x.h5")
    with h5py.File(path, "r+") as file:
        text = file[scale].dtype.kind == "S"
        file[scale][-1] = file[scale].asstr()[-1].upper() if text else file[scale][-1] + 1
    with pytest.raises(UserError) as error:
        hdf5.read(path)
    assert_sentence(error, path, "damaged")


def test_names_that_are_cut_elsewhere_are_other_names(tmp_path: Path) -> None:
    sums = set()
    for names in (("ab", "c", "d"), ("a", "bc", "d"), ("", "abc", "d"), ("abc", "", "d"), ("abcd", "", "")):
        with h5py.File(tmp_path / "x.h5", "w") as file:
            file.attrs.update({"config_sha256": "", "schema": "", "n_done": 0})
            file.create_dataset("class", data=list(names), dtype=h5py.string_dtype())
            sums.add(checksums.hash_content(file))
    assert len(sums) == 5


@pytest.mark.parametrize("size", [1, 17, 100, 1000, 2**40])
def test_content_does_not_depend_on_the_size_of_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    plain = write(tmp_path / "plain.h5")
    in_bytes, sizes = checksums._bytes, list[int]()

    def note_size(values: AnyArray) -> bytes:
        sizes.append(values.nbytes)
        return in_bytes(values)

    monkeypatch.setattr(checksums, "_PART_BYTES", size)
    monkeypatch.setattr(checksums, "_bytes", note_size)
    path = write(tmp_path / "parted.h5")
    assert content(path) == content(plain)
    result, row = hdf5.read(path), 3 * 5 * 7 * 4  # bytes of one image's map, the largest of the rows
    assert max(sizes) == row * min(max(1, size // row), COUNT)
    for name, values in made_rows().items():
        np.testing.assert_array_equal(result[name], values)


def test_an_edited_configuration_is_found(tmp_path: Path) -> None:
    path = write(tmp_path / "x.h5")
    path.write_bytes(path.read_bytes().replace(b'"steps": 20', b'"steps": 99'))
    with pytest.raises(UserError) as error:
        hdf5.read(path)
    assert_sentence(error, path, "damaged")


def test_content_does_not_depend_on_clock_run_or_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Millennium(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> "Millennium":
            return cls(2001, 2, 3, tzinfo=UTC)

    today = write(tmp_path / "today.h5")
    monkeypatch.setattr(writer, "datetime", Millennium)
    monkeypatch.setitem(ENVIRONMENT, "threads", 16)
    old_file = write(tmp_path / "then.h5", run={"seconds": 99.0})
    assert hdf5.attributes(old_file)["created_utc"] == "2001-02-03T00:00:00+00:00"
    assert hdf5.attributes(today)["created_utc"] > "2020"
    assert content(today) == content(old_file)


@pytest.mark.parametrize(
    ("change", "column"),
    [
        (lambda rows: rows.pop("per_image/hit"), "per_image/hit"),
        (lambda rows: rows.update({"per_image/hits": rows["per_image/hit"]}), "per_image/hits"),
        (lambda rows: rows.update({"per_image/hit": rows["per_image/hit"][:1]}), "different numbers of rows"),
        (lambda rows: rows.update({"per_image/share": rows["per_image/share"][:, :1]}), r"share has rows of \(5,\)"),
        (lambda rows: rows.update({"per_image/hit": rows["per_image/share"]}), r"hit has rows of \(\), not \(5,\)"),
    ],
)
def test_columns_must_be_those_of_the_schema(tmp_path: Path, change: Callable[[Any], Any], column: str) -> None:
    with start(tmp_path / "x.h5") as rows:
        batch = made_rows(0, 4)
        change(batch)
        with pytest.raises(ValueError, match=column):
            rows.append(batch)
        assert rows.row_count == 0
        with pytest.raises(ValueError, match="curve/mean"):
            rows.finish({"test/share": np.zeros((4, 3)), "test/total": 1.0}, {})
    assert content(write(tmp_path / "x.h5")) == content(write(tmp_path / "whole.h5"))


class Spy:
    """A column that notes which of its rows were read."""

    def __init__(self, values: AnyArray) -> None:
        self.values, self.read = values, list[AnyArray]()

    def __getitem__(self, rows: AnyArray) -> AnyArray:
        self.read.append(rows)
        result: AnyArray = self.values[rows]
        return result


@pytest.mark.parametrize("indices", [[3, 1, 4, 1, 12, 0, 4], [0], [12, 11], [5, 5, 5], list(range(COUNT)), []])
def test_rows_at_indices_are_read_alone_and_in_their_order(tmp_path: Path, indices: list[int]) -> None:
    places = np.array(indices, int)
    with start(tmp_path / "x.h5") as rows:
        rows.append(made_rows())
        for name, values in made_rows().items():
            result = rows.columns().rows_at(name, places)
            assert result.dtype == values.dtype
            np.testing.assert_array_equal(result, values[places])
            np.testing.assert_array_equal(Columns(made_rows()).rows_at(name, places), values[places])
            np.testing.assert_array_equal(rows.columns()[name], values)
    spy = Spy(made_rows()["per_image/map"])
    Columns({"per_image/map": spy}).rows_at("per_image/map", places)
    assert [sorted(set(indices))] == [rows.tolist() for rows in spy.read]


# What the process that is killed writes: a row at a time, in columns small enough to be stored as they are.
KILLED_ROWS, KILLS = 500, 10
KILL_SCHEMA = Schema(
    "killed",
    1,
    (Column("per_image/x", "f4", "a number"), Column("per_image/y", "i2", "another")),
    (Column("test/total", "f8", "their sum"),),
)


def grow(path: Path, *, ready: Callable[[], object] = lambda: None) -> None:
    """Write the file of KILL_SCHEMA to its end, from wherever it was left."""
    x = np.random.default_rng(0).random(KILLED_ROWS, np.float32)
    with writer.open_rows(path, KILL_SCHEMA, KILLED_ROWS, {}, CONFIG, ENVIRONMENT) as rows:
        while rows.row_count < KILLED_ROWS:
            place = slice(rows.row_count, rows.row_count + 1)
            rows.append({"per_image/x": x[place], "per_image/y": np.arange(KILLED_ROWS)[place]})
            ready()
        columns = rows.columns()
        np.testing.assert_array_equal(columns["per_image/x"], x)
        np.testing.assert_array_equal(columns["per_image/y"], np.arange(KILLED_ROWS))
        rows.finish({"test/total": x.sum(dtype=np.float64)}, {})


GROW = "import sys, test_hdf5 as t; t.grow(t.Path(sys.argv[1]), ready=lambda: print('row', flush=True))"


@pytest.mark.long
def test_rows_survive_a_kill_at_any_moment(tmp_path: Path) -> None:
    whole, path = tmp_path / "whole.h5", tmp_path / "x.h5"
    grow(whole)
    began = [0]
    for kill in range(KILLS):
        command = [sys.executable, "-c", GROW, str(path)]
        with subprocess.Popen(command, cwd=Path(__file__).parent, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"row\n"
            time.sleep(random.Random(kill).uniform(0, 0.03))
            process.kill()
        shutil.copy(partial_of(path), tmp_path / "copy.h5.partial")
        with writer.open_rows(tmp_path / "copy.h5", KILL_SCHEMA, KILLED_ROWS, {}, CONFIG, ENVIRONMENT) as rows:
            began.append(rows.row_count)
            assert not np.isnan(rows.columns()["per_image/x"][: rows.row_count]).any()
            np.testing.assert_array_equal(rows.columns()["per_image/y"][: rows.row_count], np.arange(rows.row_count))
    assert all(earlier < later < KILLED_ROWS for earlier, later in pairwise(began))
    grow(path)
    assert content(path) == content(whole)


class Recorder(io.FileIO):
    """A file of which `moments` keeps a copy after every write."""

    def __init__(self, path: Path, mode: str, moments: list[bytes]) -> None:
        super().__init__(path, "w+" if mode == "w" else "r+")
        self.path, self.moments = path, moments

    def write(self, data: Any) -> int:
        count = super().write(data)
        self.moments.append(self.path.read_bytes())
        return count


def test_a_kill_between_any_two_writes_loses_no_row_that_was_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = content(write(tmp_path / "whole.h5"))
    moments: list[bytes] = []
    real, recorders = h5py.File, list[Recorder]()

    def open_recorder(path: Path, mode: str, **options: Any) -> h5py.File:
        recorders.append(Recorder(path, mode, moments))
        return real(recorders[-1], mode, **options)

    with monkeypatch.context() as patch:
        patch.setattr(h5py, "File", open_recorder)
        rows = start(tmp_path / "recorded.h5")
        first = len(moments)
        for stop in (4, 8, 12, COUNT):
            rows.append(made_rows(rows.row_count, stop))
        contents = moments[first:]
        rows._file.close()
    for recorder in recorders:
        recorder.close()
    assert len(contents) >= 20
    counts = set()
    for moment, bytes_then in enumerate(contents):
        path = tmp_path / f"{moment}.h5"
        partial_of(path).write_bytes(bytes_then)
        with start(path) as rows:
            counts.add(rows.row_count)
            for name, values in made_rows(0, rows.row_count).items():
                np.testing.assert_array_equal(rows.columns()[name][: rows.row_count], values)
            if rows.row_count < COUNT:
                rows.append(made_rows(rows.row_count, COUNT))
            rows.finish(summary(rows), {})
        assert content(path) == whole
        assert not partial_of(path).exists()
    assert counts == {0, 4, 8, 12, COUNT}


def part_of(path: Path, places: list[int], count: int, config: dict[str, Any] = CONFIG) -> Path:
    """A part of the rows at these places, so many of them written."""
    with writer.open_part(path, SCHEMA, np.array(places), AXES, config) as part:
        for place in places[:count]:
            part.append(made_rows(place, place + 1))
    return path.with_name(f"{path.name}.partial.{places[0]}")


def test_parts_are_joined_to_the_content_of_one_process(tmp_path: Path) -> None:
    path = tmp_path / "[x].h5"  # as a pattern it would not find itself
    with start(path) as rows:
        rows.append(made_rows(0, 2))
        assert rows.missing_images().tolist() == list(range(2, COUNT))
        left = [part_of(path, [2, 3, 7, 8, 4], 4), part_of(path, [5, 6, 9], 1)]
        assert rows.missing_images().tolist() == [4, 6, 9, 10, 11, 12]
        with pytest.raises(ValueError, match="lacks the rows of 6 images"):
            rows.join()
        left.append(part_of(path, [4, 6, 9, 10, 11, 12], 6))
        assert rows.missing_images().tolist() == []
        assert rows.row_count == 2
        rows.join()
        assert rows.row_count == COUNT and not any(file.exists() for file in left)
        rows.finish(summary(rows), {})
    assert content(path) == content(write(tmp_path / "whole.h5"))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["[x].h5", "whole.h5"]


def test_rows_of_one_process_stay_in_their_batches_where_there_are_no_parts(tmp_path: Path) -> None:
    with start(tmp_path / "x.h5") as rows:
        for first in range(0, COUNT, 4):
            rows.append(made_rows(first, min(first + 4, COUNT)))
        with h5py.File(rows.partial, "r") as file:
            ends = file[ENDS][...]
        rows.join()
        with h5py.File(rows.partial, "r") as file:
            np.testing.assert_array_equal(file[ENDS][...], ends)


def test_parts_count_only_for_their_own_configuration(tmp_path: Path) -> None:
    path, other = tmp_path / "x.h5", tmp_path / "xx.h5"
    other_part = part_of(other, [0, 1], 2)
    with start(path) as rows:
        foreign = part_of(path, [3, 4], 2, CONFIG | {"data": "photos"})
        (nonsense := path.with_name("x.h5.partial.7")).write_bytes(b"nonsense")
        assert rows.missing_images().tolist() == list(range(COUNT))
        assert not foreign.exists() and not nonsense.exists() and other_part.exists()
        own_part = part_of(path, [3, 4], 2)
    with start(path) as rows:
        assert len(rows.missing_images()) == COUNT - 2
    with start(path, config=CONFIG | {"data": "photos"}, overwrite=True) as rows:
        assert len(rows.missing_images()) == COUNT and not own_part.exists()


def test_a_part_that_grows_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    with start(path) as rows:
        part = part_of(path, [3, 4], 2)
        with part.open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)  # as another process does that has it open
            with pytest.raises(UserError) as error:
                rows.missing_images()
        assert_sentence(error, part, "being written by another process")
    assert part.exists()


def test_what_is_left_of_parts_goes_with_the_finished_file_of_their_configuration(tmp_path: Path) -> None:
    path = write(tmp_path / "x.h5")
    own_part, foreign = part_of(path, [3, 4], 2), part_of(path, [5, 6], 2, CONFIG | {"data": "photos"})
    assert writer.is_finished(path, SCHEMA, CONFIG)
    assert not own_part.exists() and foreign.exists()


@pytest.mark.parametrize("seed", range(40))
def test_a_damaged_partial_never_resumes_into_other_numbers(tmp_path: Path, seed: int) -> None:
    """Bytes flipped, zeroed, cut off or added: the damaged rows are computed again, or all of them."""
    path, random = tmp_path / "x.h5", np.random.default_rng(seed)
    with start(path) as rows:
        rows.append(made_rows(0, 4))
        rows.append(made_rows(4, 8))
    data = bytearray(partial_of(path).read_bytes())
    place, length = int(random.integers(len(data))), int(random.integers(1, 400))
    match seed % 4:
        case 0:
            data[place] ^= 1 << int(random.integers(8))
        case 1:
            data[place : place + length] = bytes(len(data[place : place + length]))
        case 2:
            del data[place:]
        case 3:
            data[place : place + length] = random.bytes(len(data[place : place + length]))
    partial_of(path).write_bytes(data)
    with start(path) as rows:
        assert rows.row_count in (0, 4, 8)
        rows.append(made_rows(rows.row_count, COUNT))
        rows.finish(summary(rows), {"seconds": 1.0})
    assert content(path) == content(write(tmp_path / "whole.h5"))


def test_rows_after_a_damaged_batch_are_computed_again(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    with start(path) as rows:
        rows.append(made_rows(0, 4))
        rows.append(made_rows(4, 8))
    with h5py.File(partial_of(path), "r+") as file:
        column = file[SCHEMA.per_image[0].path]
        column[5] = column[5] + 1
    with start(path) as rows:
        assert rows.row_count == 4


@pytest.mark.parametrize("seed", range(20))
def test_a_finished_file_is_known_to_be_damaged_before_hdf5_reads_it(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, random = write(tmp_path / "x.h5"), np.random.default_rng(seed)
    data = bytearray(path.read_bytes())
    data[int(random.integers(len(data) - 100))] ^= 1 << int(random.integers(8))  # the seal itself is shorter
    path.write_bytes(data)
    monkeypatch.setattr(h5py, "File", lambda *_: pytest.fail("HDF5 read a damaged file"))
    for reads in (hdf5.read, hdf5.list_datasets, hdf5.attributes, hdf5.read_provenance):
        with pytest.raises(UserError) as error:
            reads(path)
        assert_sentence(error, path, "its content differs from its checksum")


def test_a_file_without_a_seal_is_read_and_its_origin_checked(tmp_path: Path) -> None:
    path = write(tmp_path / "x.h5")
    origin = hdf5.read_provenance(path), content(path)
    with h5py.File(path, "r+") as file:  # HDF5 cuts off what follows its own end
        file.attrs["note"] = "mine"
    assert (hdf5.read_provenance(path), content(path)) == origin
    assert np.array_equal(hdf5.read(path)["per_image/label"], made_rows()["per_image/label"])
    with h5py.File(path, "r+") as file:
        text = file["provenance/run_json"].asstr()[()].replace("seconds", "minutes")
        file["provenance/run_json"][()] = text
    with pytest.raises(UserError) as error:
        hdf5.read(path)
    assert_sentence(error, path, "damaged")
    with h5py.File(path, "r+") as file:
        del file.attrs["provenance_sha256"]
    with pytest.raises(UserError) as error:
        hdf5.read(path)
    assert_sentence(error, path, "damaged")
    with h5py.File(path, "r+") as file:
        file.attrs["format_version"] = 1  # which had no checksum of its origin
    assert np.array_equal(hdf5.read(path)["per_image/label"], made_rows()["per_image/label"])


@pytest.mark.parametrize("text", ["[]", "{}", "null", "not JSON", None])
def test_a_file_whose_configuration_is_none_is_damaged(text: str | None, tmp_path: Path) -> None:
    path = write(tmp_path / "x.h5")
    with h5py.File(path, "r+") as file:
        del file["provenance/config_json"]
        if text is not None:
            file["provenance/config_json"] = text
    with pytest.raises(UserError) as error:
        hdf5.read_provenance(path)
    assert_sentence(error, path, "damaged")


def test_an_analysis_that_ends_before_its_first_row_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError), start(tmp_path / "x.h5"):
        raise UserError("this data has one class.")
    assert not list(tmp_path.iterdir())
    with start(tmp_path / "x.h5"):
        part = part_of(tmp_path / "x.h5", [3, 4], 2)
    assert partial_of(tmp_path / "x.h5").exists() and part.exists()


@pytest.mark.parametrize("spoil", [lambda data: data + b"x", lambda data: data[:-1], lambda data: data[:-70]])
def test_a_seal_that_is_cut_or_followed_by_something_does_not_hold(
    tmp_path: Path, spoil: Callable[[bytes], bytes]
) -> None:
    path = write(tmp_path / "x.h5")
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(UserError) as error:
        hdf5.read(path)
    assert_sentence(error, path, "its content differs from its checksum")


@pytest.mark.parametrize("piece", [1, 7, 10**9])
def test_a_seal_does_not_depend_on_how_much_is_read_at_a_time(
    tmp_path: Path, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = write(tmp_path / "x.h5")
    with start(tmp_path / "y.h5") as rows:
        rows.append(made_rows(0, 4))
    monkeypatch.setattr(seal, "_PIECE", piece)
    assert seal.holds(whole) and seal.block_holds(partial_of(tmp_path / "y.h5"))
    length = len(b"\ninterpret-robust sha256 ") + 64
    content = whole.read_bytes()
    assert content[-64:].decode() == hashlib.sha256(content[:-length]).hexdigest()


def test_sealing_a_large_file_takes_no_memory_of_its_size(tmp_path: Path) -> None:
    path, rows = tmp_path / "large", 64 * 1024 * 1024
    with open(path, "wb") as file:
        file.truncate(seal.BLOCK + rows + 100)
    tracemalloc.start()
    seal.write_block(path, [(seal.BLOCK + 24, rows)])
    assert seal.block_holds(path)
    seal.append(path)
    assert seal.holds(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 1024 * 1024
