"""What `irt validate` finds in a file: each fault alone, and nothing in a good one."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from make_golden import file_of

import interpret_robust as ir
from interpret_robust import analyses, cli
from interpret_robust.analyses import attention_rank, gradient_maps
from interpret_robust.analyses.engine.validation import list_problems
from interpret_robust.core.errors import UserError
from interpret_robust.results.checksums import hash_content
from interpret_robust.results.view import View

GOOD = file_of(gradient_maps.SCHEMA)
LABEL = gradient_maps.SCHEMA.label
Change = Callable[[h5py.File], object]


def change_copy(folder: Path, change: Change, source: Path = GOOD) -> Path:
    """A copy of a good file with one change, and a checksum that fits it."""
    path = folder / "changed.h5"
    shutil.copyfile(source, path)
    with h5py.File(path, "r+") as file:
        change(file)
        file.attrs["content_sha256"] = hash_content(file)
    return path


def replace_dataset(file: h5py.File, name: str, values: Any, axes: tuple[str, ...]) -> None:
    """Another dataset under the name of one, with the meaning and the axes it should have."""
    meaning = file[name].attrs["long_name"]
    del file[name]
    dataset = file.create_dataset(name, data=values)
    dataset.attrs["long_name"] = meaning
    for dimension, axis in zip(dataset.dims, axes, strict=True):
        dimension.label = axis
        dimension.attach_scale(file[axis])


def test_a_good_file_has_no_problems() -> None:
    assert list_problems(GOOD) == []


def test_what_is_beyond_the_schema_is_ignored(tmp_path: Path) -> None:
    def add(file: h5py.File) -> None:
        file["per_image/note"] = np.arange(8)
        file["more/number"] = 3.5
        file["examples"].attrs["comment"] = "mine"

    assert list_problems(change_copy(tmp_path, add)) == []


def float_label(file: h5py.File) -> None:
    replace_dataset(file, "per_image/label", np.zeros(8), ("sample",))


def short_scale(file: h5py.File) -> None:
    replace_dataset(file, "per_image/scale", np.zeros(7, np.float32), ("sample",))


def turn_axes(file: h5py.File) -> None:
    replace_dataset(file, "view/contrast", np.zeros((3, 4)), ("of", "rule"))


def no_scale(file: h5py.File) -> None:
    file["per_image/loss"].dims[0].detach_scale(file["sample"])


def no_names(file: h5py.File) -> None:
    del file["view/contrast"].attrs["DIMENSION_LABELS"]


def other_scale(file: h5py.File) -> None:
    no_scale(file)
    file["elsewhere"] = np.arange(8)
    file["elsewhere"].make_scale("sample")
    file["per_image/loss"].dims[0].attach_scale(file["elsewhere"])


def renamed_rule(file: h5py.File) -> None:
    names = [*file["rule"].asstr()[()]]
    file["rule"][...] = ["sharp", *names[1:]]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda file: file.pop("set/deviation"), "set/deviation is missing"),
        (float_label, "per_image/label is of type float64, not int16"),
        (turn_axes, "view/contrast has the axes ('of', 'rule'), not ('rule', 'of')"),
        (no_scale, "per_image/loss has no scale for its axis sample"),
        (no_names, "view/contrast has the axes ('', ''), not ('rule', 'of')"),
        (other_scale, "per_image/loss has no scale for its axis sample"),
        (short_scale, "per_image/scale has 7 places along sample, and its scale 8"),
        (renamed_rule, "the places of rule are not clip, clip-set, max, min-max"),
        (lambda file: file["examples"].attrs.update(signal="view"), "examples has signal 'view', not 'map'"),
        (lambda file: file["examples"].pop("color"), "examples has no color, which its plot needs"),
        (lambda file: file.attrs.update(default="view"), "its default plot is 'view', not 'examples'"),
    ],
)
def test_each_fault_is_found_alone(tmp_path: Path, change: Change, sentence: str) -> None:
    path = change_copy(tmp_path, change)
    assert list_problems(path) == [f"{path}: {sentence}."]


class NameList(NamedTuple):
    """A dataset as far as the names of its axes go."""

    name: str
    ndim: int
    attrs: dict[str, Any]


@pytest.mark.parametrize("names", [["rule"], ["rule", 3], "rule"])
def test_names_that_do_not_fit_the_axes_are_one_sentence(names: Any) -> None:
    with h5py.File(GOOD) as file, pytest.raises(UserError) as error:
        View(file).axes(NameList("/view/contrast", 2, {"DIMENSION_LABELS": np.array(names, dtype=object)}))
    sentence = "is damaged (the names of the axes of /view/contrast are not there): run its analysis again with"
    assert sentence in str(error.value)


def test_what_xarray_cannot_read_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    xarray = pytest.importorskip("xarray")
    pytest.importorskip("h5netcdf")

    def open_datatree(*_: object, **__: object) -> None:
        raise OSError("no dimension")

    monkeypatch.setattr(xarray, "open_datatree", open_datatree)
    with pytest.raises(UserError, match=r"cannot be read by xarray \(.*no dimension\): `irt validate` tells what"):
        ir.open(GOOD).to_xarray()


def test_all_faults_are_found_together(tmp_path: Path) -> None:
    def change(file: h5py.File) -> None:
        del file["set"], file["examples"]
        float_label(file)

    path = change_copy(tmp_path, change)
    absent = [column.path for column in gradient_maps.SCHEMA.summary if column.path.startswith(("set/", "examples/"))]
    assert len(absent) == 10
    expected = ["per_image/label is of type float64, not int16", *(f"{name} is missing" for name in absent)]
    assert list_problems(path) == [f"{path}: {sentence}." for sentence in expected]


def test_what_cannot_be_read_is_one_problem(tmp_path: Path) -> None:
    bad_file, text, foreign = (tmp_path / f"{name}.h5" for name in ("damaged", "text", "foreign"))
    shutil.copyfile(GOOD, bad_file)
    with h5py.File(bad_file, "r+") as file:
        file["per_image/loss"][3] += 1
    text.write_text("not HDF5")
    with h5py.File(foreign, "w") as file:
        file["x"] = 1
    partial_file = change_copy(tmp_path, lambda file: file.attrs.update(complete=False))
    for path, sentence in (
        (tmp_path / "none.h5", "there is no analysis file"),
        (bad_file, "is damaged (its content differs from its checksum)"),
        (text, "is damaged or no HDF5 file"),
        (foreign, "not one that `irt analyze` wrote"),
        (partial_file, "is unfinished"),
    ):
        (problem,) = list_problems(path)
        assert str(path) in problem and sentence in problem


def test_a_file_of_another_schema_is_told_apart(tmp_path: Path) -> None:
    name, version = LABEL.split("/")
    for label, sentence in (
        (f"{name}/{int(version) + 1}", "update interpret-robust"),
        (f"{name}/0", "run its analysis again"),
        ("astrology/1", "holds astrology/1, which no analysis of this irt writes"),
    ):
        path = change_copy(tmp_path, lambda file, label=label: file.attrs.update(schema=label))  # type: ignore[misc]
        (problem,) = list_problems(path)
        assert str(path) in problem and sentence in problem
    path = change_copy(tmp_path, lambda file: file.attrs.update(schema=attention_rank.SCHEMA.label))
    assert f"{path}: per_image/spearman is missing." in list_problems(path)


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(cli.irt, ["validate", *map(str, arguments)])
    return result.exit_code, result.stdout, result.stderr


def test_the_command_says_one_line_a_file_and_fails_for_any_fault(tmp_path: Path) -> None:
    assert run(GOOD) == (0, f"{GOOD}: {LABEL}, 8 images, good\n", "")
    bad = change_copy(tmp_path, lambda file: file.pop("set/deviation"))
    absent = tmp_path / "none.h5"
    code, out, err = run(bad, GOOD, absent)
    assert (code, out) == (2, f"{GOOD}: {LABEL}, 8 images, good\n")
    assert err.splitlines() == [
        f"irt: {bad}: set/deviation is missing.",
        f"irt: there is no analysis file {absent}: `irt analyze` makes them.",
    ]


@pytest.mark.parametrize("name", analyses.list_names())
def test_every_analysis_can_be_validated(name: str) -> None:
    assert list_problems(file_of(analyses.get(name).schema)) == []
