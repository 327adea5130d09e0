"""Tables of a file: every number it holds, by a name that says where, and nothing lost in the digits."""

import csv
import shutil
from itertools import product
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from make_golden import file_of

from interpret_robust import analyses, cli
from interpret_robust.analyses import gradient_maps
from interpret_robust.core.errors import UserError
from interpret_robust.results import hdf5, writer
from interpret_robust.results.columns import Columns
from interpret_robust.results.export import to_csv
from interpret_robust.results.schema import Column, Schema, interval

COUNT = 1203
SCHEMA = Schema(
    name="toy",
    version=1,
    per_image=(
        Column("per_image/label", "i2", "a class"),
        Column("per_image/share", "f4", "a share", ("map", "state")),
        Column("per_image/weight", "f4", "a weight", ("position",)),
        Column("per_image/flag", "u1", "a flag"),
        Column("per_image/picture", "f2", "a picture", ("y", "x")),
        Column("per_image/strip", "f2", "a strip", ("x",)),
    ),
    summary=(
        Column("test/total", "f8", "a number"),
        interval("test/share", "a share", "map"),
        Column("test/count", "i8", "a count", ("position",)),
        Column("test/picture", "f8", "a picture", ("y", "x")),
    ),
    labels={"map": ("attention", "gradient, signed"), "state": ("clean", "adversarial")},
)
VALUES = {
    "test/total": 1 / 3,
    "test/share": np.arange(6).reshape(2, 3) / 7,
    "test/count": [10**15 + 1, -2, 3],
    "test/picture": np.zeros((4, 5)),
}


def made_rows() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "per_image/label": rng.integers(-5, 300, COUNT),
        "per_image/share": rng.random((COUNT, 2, 2), np.float32),
        "per_image/weight": np.where(rng.random((COUNT, 3)) < 0.1, np.nan, 1e-12 * rng.random((COUNT, 3))),
        "per_image/flag": rng.integers(0, 2, COUNT),
        "per_image/picture": rng.random((COUNT, 4, 5)),
        "per_image/strip": rng.random((COUNT, 5)),
    }


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("toy") / "toy-model.h5"
    with writer.open_rows(path, SCHEMA, COUNT, {"position": 3, "y": 4, "x": 5}, {}, {}) as rows:
        rows.append(made_rows())
        rows.finish(VALUES, {})
    return path


def table(path: Path) -> tuple[list[str], list[list[str]]]:
    with open(path, encoding="utf-8", newline="") as lines:
        first, *rest = csv.reader(lines)
    return first, rest


def test_there_is_a_row_for_each_image_with_the_numbers_it_has(file: Path, tmp_path: Path) -> None:
    files = to_csv(file, tmp_path / "new")
    assert files.images == tmp_path / "new" / "toy-model-images.csv"
    names, rows = table(files.images)
    result = hdf5.read(file)
    assert names == [
        "sample",
        "flag",
        "label",
        *(f"share[{a},{b}]" for a, b in product(("attention", "gradient, signed"), ("clean", "adversarial"))),
        *(f"weight[{place}]" for place in range(3)),
    ]
    assert len(rows) == COUNT
    columns = dict(zip(names, zip(*rows, strict=True), strict=True))
    assert columns["sample"] == tuple(map(str, range(COUNT)))
    assert list(map(int, columns["label"])) == result["per_image/label"].tolist()
    for place in range(3):
        weights = np.array(columns[f"weight[{place}]"], np.float32)
        np.testing.assert_array_equal(weights, result["per_image/weight"][:, place])
        assert 50 < np.isnan(weights).sum() < 200
    share = np.array([columns["share[attention,adversarial]"], columns["share[gradient, signed,clean]"]], np.float32)
    np.testing.assert_array_equal(share, [result["per_image/share"][:, 0, 1], result["per_image/share"][:, 1, 0]])
    assert max(map(len, columns["share[attention,clean]"])) <= 14


def test_there_is_a_row_for_each_statistic_with_its_place(file: Path, tmp_path: Path) -> None:
    names, rows = table(to_csv(file, tmp_path).statistics)
    assert names == ["path", "coordinates", "value", "low", "high"]
    statistics = {(path, place): numbers for path, place, *numbers in rows}
    assert len(statistics) == len(rows) == 1 + 2 + 3
    assert float(statistics["test/total", ""][0]) == 1 / 3 and statistics["test/total", ""][1:] == ["", ""]
    assert statistics["test/count", "position=0"] == [str(10**15 + 1), "", ""]
    for row, rule in enumerate(("attention", "gradient, signed")):
        assert list(map(float, statistics["test/share", f"map={rule}"])) == [
            (3 * row + place) / 7 for place in range(3)
        ]


def test_beside_a_predicted_class_stands_whether_it_is_right_and_the_class_of_nan_logits_never_is(
    tmp_path: Path,
) -> None:
    schema = Schema(
        name="toy",
        version=1,
        per_image=(
            Column("per_image/label", "i2", "a class"),
            Column("per_image/prediction", "i2", "classes", ("attack", "state")),
            Column("per_image/prediction_clean", "i2", "a class"),
            Column("per_image/probe_prediction", "i2", "not of the label"),
        ),
        summary=(),
        labels={"attack": ("PGD", "CW", "none"), "state": ("before", "after")},
    )
    rng = np.random.default_rng(1)
    label, predicted = rng.integers(-1, 2, 700), rng.integers(-1, 2, (700, 3, 2))
    columns = {"label": label, "prediction": predicted, "prediction_clean": label, "probe_prediction": label}
    with writer.open_rows(tmp_path / "toy-model.h5", schema, 700, {}, {}, {}) as rows:
        rows.append({f"per_image/{name}": values for name, values in columns.items()})
        rows.finish({}, {})
    names, lines = table(to_csv(tmp_path / "toy-model.h5", tmp_path).images)
    places = list(product(range(3), range(2)))
    axes = ("PGD", "CW", "none"), ("before", "after")
    right_names = [*(f"right[{axes[0][attack]},{axes[1][state]}]" for attack, state in places), "right_clean"]
    assert [name for name in names if "right" in name] == right_names
    cells_of = dict(zip(names, zip(*lines, strict=True), strict=True))
    for name, (attack, state) in zip(right_names, places, strict=False):
        values = [
            int(true == other and true >= 0) for true, other in zip(label, predicted[:, attack, state], strict=True)
        ]
        assert list(map(int, cells_of[name])) == values and 0 < sum(values) < 700
    assert list(map(int, cells_of["right_clean"])) == [int(true != -1) for true in label]


def test_pictures_are_left_out_and_said_to_be(file: Path, tmp_path: Path) -> None:
    assert to_csv(file, tmp_path).left_out == ["per_image/picture", "per_image/strip", "test/picture"]


def test_tables_that_are_there_are_kept_unless_told(file: Path, tmp_path: Path) -> None:
    first = to_csv(file, tmp_path)
    content = first.images.read_bytes()
    first.statistics.write_text("mine")
    with pytest.raises(UserError, match=r"toy-model-images\.csv is there already: use --overwrite"):
        to_csv(file, tmp_path)
    first.images.unlink()
    with pytest.raises(UserError, match=r"toy-model-statistics\.csv is there already"):
        to_csv(file, tmp_path)
    assert not first.images.exists() and first.statistics.read_text() == "mine"
    to_csv(file, tmp_path, overwrite=True)
    assert first.images.read_bytes() == content and first.statistics.read_text().startswith(
        "path,coordinates,value,low,high\n"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["toy-model-images.csv", "toy-model-statistics.csv"]


def test_a_damaged_file_gives_no_tables(file: Path, tmp_path: Path) -> None:
    copy = tmp_path / "damaged.h5"
    shutil.copyfile(file, copy)
    with h5py.File(copy, "r+") as stored_file:
        stored_file["per_image/label"][0] += 1
    with pytest.raises(UserError, match="is damaged"):
        to_csv(copy, tmp_path)
    assert list(tmp_path.iterdir()) == [copy]


@pytest.mark.parametrize("name", analyses.list_names())
def test_every_number_of_an_analysis_is_in_a_table_once(name: str, tmp_path: Path) -> None:
    schema: Schema = analyses.get(name).schema
    files = to_csv(file_of(schema), tmp_path)
    names, rows = table(files.images)
    _, statistics = table(files.statistics)
    with h5py.File(file_of(schema)) as stored_file:
        columns = Columns(stored_file)
        flat = {
            column.path: columns[column.path].reshape(-1)
            for column, axes in schema.columns()
            if not {"y", "x"} & set(axes)
        }
    assert set(flat) | set(files.left_out) == {column.path for column, _ in schema.columns()}
    widths = {path.removeprefix("per_image/"): len(flat[path]) // 8 for path in flat if path.startswith("per_image/")}
    right = sum(width for head, width in widths.items() if head.startswith("prediction"))
    assert len(set(names)) == len(names) == 1 + sum(widths.values()) + right
    assert len(rows) == 8 and {len(row) for row in rows} == {len(names)}
    assert len({(path, place) for path, place, *_ in statistics}) == len(statistics)
    for path in {column.path for column in schema.summary} & set(flat):
        numbers = [number for owner, _, *numbers in statistics if owner == path for number in numbers if number]
        values = np.array(numbers, flat[path].dtype)
        np.testing.assert_array_equal(values, flat[path])


def test_the_command_says_what_it_wrote_and_left_out(tmp_path: Path) -> None:
    source = tmp_path / "maps.h5"
    shutil.copyfile(file_of(gradient_maps.SCHEMA), source)
    first = CliRunner().invoke(cli.irt, ["export", str(source), "--csv"])
    assert first.exit_code == 0
    *paths, note = first.stdout.splitlines()
    assert paths == [str(tmp_path / f"maps-{name}.csv") for name in ("images", "statistics")]
    left_out = "examples/image, examples/map, examples/view, per_image/image, per_image/map"
    assert note == f"not exported, because they are pictures: {left_out} (read them with h5py or xarray)"
    second = CliRunner().invoke(cli.irt, ["export", str(source)], standalone_mode=False)
    assert isinstance(second.exception, UserError)
    assert CliRunner().invoke(cli.irt, ["export", str(source), "--overwrite"]).exit_code == 0
    other = CliRunner().invoke(cli.irt, ["export", str(source), "--csv", "-o", str(tmp_path / "tables")])
    assert other.exit_code == 0 and len(list((tmp_path / "tables").iterdir())) == 2


def numbers_of(text: str) -> dict[str, dict[str, str]]:
    """What `irt show --image` prints of each column: by its head, the values by their places."""
    columns: dict[str, dict[str, str]] = {}
    for line in text.splitlines()[1:]:
        if line.startswith("  "):
            place, _, value = line.strip().rpartition(": ")
            columns[list(columns)[-1]][place] = value
        else:
            columns[line] = {}
    return columns


def is_at(heading: str, column: str, axes: tuple[str, ...], place: str) -> bool:
    """Whether the heading of a table is of a column at a place as `irt show --image` names it."""
    start, _, places = heading.removesuffix("]").partition("[")
    words = [
        f"{axis} {word}" if word.isdecimal() else word for axis, word in zip(axes, places.split(","), strict=False)
    ]
    return start == column and (place.startswith("by ") or ", ".join(words) == place)


def test_one_image_is_shown_with_the_numbers_that_tables_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100000")
    for name in ("robustness", "attention-rank"):
        path = file_of(analyses.get(name).schema)
        outcome = CliRunner().invoke(cli.irt, ["show", str(path), "--image", "5"], catch_exceptions=False)
        columns = numbers_of(outcome.stdout)
        result = hdf5.read(path)
        class_names = result.job["class_names"]
        meanings = {key: meaning for key, _, meaning in hdf5.list_datasets(path)}
        with open(to_csv(path, tmp_path).images, encoding="utf-8", newline="") as file:
            table = list(csv.DictReader(file))[5]
        assert next(iter(columns)) == f"label: {meanings['per_image/label']}"
        assert {f"per_image/{head.partition(':')[0]}" for head in columns} == {
            key for key in meanings if key.startswith("per_image/")
        }
        for head, by_place in columns.items():
            column, meaning = head.split(": ", 1)
            assert meaning == meanings[f"per_image/{column}"]
            axes = result.axes(f"per_image/{column}")[1:]
            for place, text in by_place.items():
                expected = [value for cell, value in table.items() if is_at(cell, column, axes, place)]
                classes = [int(value) for value in expected if "." not in value]
                names = [
                    f"{class_names[index]} ({index})" if index < len(class_names) else f"no class ({index})"
                    for index in classes
                ]
                is_class = "prediction" in column or column == "label"
                assert text == ("; ".join(names) if is_class else " ".join(expected)) and expected
    other = tmp_path / "other.safetensors"
    other.touch()
    for words, sentence in (
        ([str(path), "--image", "8"], "there is no image 8"),
        ([str(other), "--image", "0"], "other.safetensors is no analysis"),
    ):
        with pytest.raises(UserError, match=sentence):
            cli.irt.main(["show", *words], standalone_mode=False)
