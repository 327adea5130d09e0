"""`benchmarks/reverify.py`: files as they were made are the same at any limit, and each edit is noticed and named."""

import importlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from interpret_robust import analyses
from interpret_robust.core.arrays import AnyArray
from interpret_robust.datasets import Dataset
from interpret_robust.datasets.base import Split
from interpret_robust.results import seal
from interpret_robust.results.checksums import hash_content
from interpret_robust.results.schema import Column, Schema
from interpret_robust.study import tasks

COUNT, LIMIT = 24, 20
SETTINGS: dict[str, dict[str, Any]] = {
    "robustness": {"pgd": "2", "cw": "none", "eps": 4 / 255},
    "attention-rank": {"steps": 2, "eps": 4 / 255},
    "feature-deletion": {"steps": 2, "eps": 4 / 255},
    "gradmap-score": {},
    "gradient-maps": {},
    "alignment": {},
}
Edit = Callable[[h5py.File], object]


@pytest.fixture(scope="module", autouse=True)
def small_data(digits: Dataset) -> Any:
    """Tasks load the digits that checkpoints of tests have learned."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tasks, "load", lambda _: digits)
        yield


@pytest.fixture(scope="module")
def folder(make_checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of checkpoints."""
    folder = tmp_path_factory.mktemp("checkpoints")
    for name, seed in (("at-att", 0), ("natural", 1)):
        make_checkpoint(folder, name, seed)
    return folder


def ask(name: str, checkpoints: Path, folder: Path, **changes: Any) -> Path:
    """The file of an analysis of the first images."""
    subject, other = sorted(checkpoints.glob("*.safetensors"))
    plain: dict[str, Any] = {"split": "test", "limit": COUNT, "batch_size": 16}
    plain |= {"evaluators": (other,)} if analyses.get(name).readers == "evaluators" else {}
    settings = analyses.get(name).settings(**SETTINGS[name])
    return tasks.AnalysisTask(name, subject, folder, settings, "cpu", **(plain | changes)).work().run()


@pytest.fixture(scope="module")
def paths(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: ask(name, folder, tmp_path_factory.mktemp("answers")) for name in SETTINGS}


@pytest.fixture
def reverify(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    return importlib.import_module("reverify")


@pytest.fixture
def columns(reverify: Any) -> Any:
    return importlib.import_module("column_differences")


def edit(source: Path, folder: Path, change: Edit) -> Path:
    """A copy of a file with one change, and checksums and a seal that fit it."""
    path = Path(shutil.copy(source, folder))
    with h5py.File(path, "r+") as file:
        change(file)
        file.attrs["content_sha256"] = hash_content(file)
    seal.append(path)
    return path


@pytest.mark.parametrize("limit", [2, 5, COUNT])
@pytest.mark.parametrize("name", list(SETTINGS))
def test_a_file_as_it_was_made_is_the_same_at_any_limit(
    reverify: Any, columns: Any, folder: Path, paths: dict[str, Path], name: str, limit: int
) -> None:
    outcome = reverify.verify(paths[name], folder, limit)
    problems = [str(entry) for entry in outcome.differences() if not entry.is_explained]
    assert (outcome.status, outcome.images, problems) == (0, limit, [])
    assert not any(entry.deviations for entry in (*outcome.rows, *outcome.statistics) if not entry.is_number)
    schema = analyses.get(name).schema
    assert len(outcome.statistics) == len(schema.summary)
    names = {column.path for column in schema.per_image}
    if limit < COUNT:
        names -= {f"per_image/{name}" for name in columns.OF_ALL}
    assert {entry.path for entry in outcome.rows} == names


def negate(file: h5py.File) -> None:
    file["per_image/spearman"][...] = -file["per_image/spearman"][...]


def negate_nine(file: h5py.File) -> None:
    file["per_image/spearman"][:9] = -file["per_image/spearman"][:9]


def shift_nine(file: h5py.File) -> None:
    file["per_image/margin"][:9] += 50


def forget(file: h5py.File) -> None:
    file["per_image/entropy"][4] = np.nan


def turn_one(file: h5py.File) -> None:
    """The answer to the image that is farthest from any boundary."""
    margins = np.abs(file["per_image/margin"][:LIMIT, 0, 0, 0])
    place = int(margins.argmax())
    file["per_image/prediction"][place, 0, 0, 0] = (file["per_image/prediction"][place, 0, 0, 0] + 1) % 10


def turn_map(file: h5py.File) -> None:
    """The evaluator's class of a map of image 7 by the rule `clip`, which does not depend on other images."""
    answer = file["per_image/evaluator_prediction"]
    answer[7, 0, 0, 0, 0] = (answer[7, 0, 0, 0, 0] + 1) % 10


def delete_right(file: h5py.File) -> None:
    file["per_image/correct"][3, 0, 0, 2] = 1 - file["per_image/correct"][3, 0, 0, 2]


@pytest.mark.parametrize(
    ("name", "change", "path", "entries"),
    [
        ("attention-rank", negate, "per_image/spearman", LIMIT),
        ("attention-rank", negate_nine, "per_image/spearman", 9),
        ("attention-rank", forget, "per_image/entropy", 1),
        ("robustness", shift_nine, "per_image/margin", 9),
        ("robustness", turn_one, "per_image/prediction", 1),
        ("gradmap-score", turn_map, "per_image/evaluator_prediction", 1),
        ("feature-deletion", delete_right, "per_image/correct", 1),
    ],
)
def test_an_edited_row_is_noticed_and_its_images_are_named(
    reverify: Any,
    folder: Path,
    paths: dict[str, Path],
    tmp_path: Path,
    name: str,
    change: Edit,
    path: str,
    entries: int,
) -> None:
    edited_path = edit(paths[name], tmp_path, change)
    outcome = reverify.verify(edited_path, folder, LIMIT)
    (comparison,) = (entry for entry in outcome.rows if entry.path == path)
    with h5py.File(paths[name]) as file, h5py.File(edited_path) as other:
        first, second = file[path][:LIMIT], other[path][:LIMIT]
        expected = np.flatnonzero((first != second).reshape(LIMIT, -1).any(1))
    if name == "attention-rank" and path.endswith("spearman"):  # what lies near zero stays within the tolerance
        large = np.abs(first) > np.abs(first).max() / 10
        expected = np.array([image for image in expected if large[image]])
        assert len(expected) > entries / 2
        assert set(comparison.images) >= set(expected)
    else:
        assert (comparison.images, comparison.deviations) == (tuple(expected), entries)
    assert not comparison.is_explained and outcome.status == 1
    assert outcome.row()["outcome"] == "differs"
    assert any(sentence.startswith(f"{edited_path.name}: {path} differs") for sentence in outcome.sentences())


def change_interval(file: h5py.File) -> None:
    file["accuracy/worst"][0, 1] += 1e-6


def change_curve(file: h5py.File) -> None:
    file["curve/attention_mean"][5] *= 1 + 1e-6


def change_count(file: h5py.File) -> None:
    file["test/undefined"][...] = file["test/undefined"][()] + 1


def change_example(file: h5py.File) -> None:
    file["examples/image"][0, 3, 4, 0] ^= 64


@pytest.mark.parametrize(
    ("name", "change", "path"),
    [
        ("robustness", change_interval, "accuracy/worst"),
        ("attention-rank", change_curve, "curve/attention_mean"),
        ("attention-rank", change_count, "test/undefined"),
        ("attention-rank", change_example, "examples/image"),
    ],
)
def test_an_edited_statistic_is_noticed_though_all_rows_are_right(
    reverify: Any, folder: Path, paths: dict[str, Path], tmp_path: Path, name: str, change: Edit, path: str
) -> None:
    outcome = reverify.verify(edit(paths[name], tmp_path, change), folder, 2)
    entries = [entry for entry in outcome.statistics if entry.deviations]
    assert [(entry.path, entry.deviations, entry.is_explained) for entry in entries] == [(path, 1, False)]
    assert outcome.status == 1 and all(entry.is_explained for entry in outcome.rows)


def test_an_edit_beyond_the_limit_shows_in_the_statistics(
    reverify: Any, folder: Path, paths: dict[str, Path], tmp_path: Path
) -> None:
    def turn_last(file: h5py.File) -> None:
        label, answer = file["per_image/label"][COUNT - 1], file["per_image/prediction_natural"]
        answer[COUNT - 1, 0] = label if answer[COUNT - 1, 0] != label else (label + 1) % 10

    outcome = reverify.verify(edit(paths["robustness"], tmp_path, turn_last), folder, 2)
    assert "accuracy/natural" in [entry.path for entry in outcome.differences()] and outcome.status == 1


CLEAN, ATTACK = Column("per_image/entropy", "f4", "clean"), Column("per_image/distance", "f4", "attacked")


def numbers(count: int = 16) -> AnyArray:
    return np.linspace(-1, 1, count, dtype=np.float32)


def test_nan_equals_nan_and_nothing_else(columns: Any) -> None:
    values, expected = numbers(), numbers()
    values[[2, 3]] = expected[[2, 4]] = np.nan
    comparison = columns.compare_numbers(CLEAN, values, expected)
    assert (comparison.images, comparison.largest, comparison.is_explained) == ((3, 4), np.inf, False)
    values[3], expected[4] = expected[3], values[4]
    comparison = columns.compare_numbers(CLEAN, values, expected)
    assert (comparison.deviations, comparison.largest, comparison.is_explained) == (0, 0.0, True)


@pytest.mark.parametrize(
    ("column", "images", "change", "deviations", "is_explained"),
    [
        (CLEAN, 16, 5e-5, 0, True),  # as forward passes of other processors differ
        (CLEAN, 2, 3e-3, 2, True),  # ranks of two images jump
        (CLEAN, 3, 3e-3, 3, False),  # of more than an eighth
        (CLEAN, 1, 2e-2, 1, False),
        (ATTACK, 16, 0.05, 0, True),
        (ATTACK, 2, 0.4, 2, True),  # an attack leads two images another way
        (ATTACK, 3, 0.4, 3, False),
        (ATTACK, 1, 1.5, 1, False),  # no rounding leads that far
    ],
)
def test_rounding_explains_little_of_all_images_and_more_of_a_few(
    columns: Any, column: Column, images: int, change: float, deviations: int, is_explained: bool
) -> None:
    values = numbers()
    values[:images] += change
    comparison = columns.compare_numbers(column, values, numbers())
    assert (comparison.deviations, comparison.is_explained) == (deviations, is_explained)
    assert comparison.largest == pytest.approx(change, rel=1e-2)


def test_one_edited_number_does_not_hide_others_by_a_larger_scale(columns: Any) -> None:
    values = np.concatenate([numbers(), np.full(9, 0.5, np.float32)])
    values[3] += 0.5
    values[20] = 1e9
    comparison = columns.compare_numbers(CLEAN, values, numbers())
    assert comparison.images == (3,) and comparison.largest == pytest.approx(0.5)


def test_numbers_that_are_zero_but_for_rounding_are_equal(columns: Any) -> None:
    values = 1e-7 * numbers()
    assert columns.compare_numbers(CLEAN, values, -values).deviations == 0
    values[5] = 1e-3
    assert columns.compare_numbers(CLEAN, values, 1e-7 * numbers()).images == (5,)


@dataclass(frozen=True)
class Table:
    """Per-image columns in memory, read as those of a file are."""

    values: dict[str, AnyArray]
    count: int

    def __getitem__(self, path: str) -> AnyArray:
        return self.values[path]


@pytest.mark.parametrize(
    ("stored_margin", "margin", "is_explained"),
    [(0.01, -0.01, True), (0.01, 0.011, False), (0.2, -0.01, False), (-3.0, -3.0, False)],
)
def test_rounding_turns_an_answer_only_where_its_margin_changes_its_sign_near_zero(
    columns: Any, stored_margin: float, margin: float, is_explained: bool
) -> None:
    schema = Schema(
        "mine", 1, (Column("per_image/prediction", "i2", "class"), Column("per_image/margin", "f4", "margin")), ()
    )
    tables = [
        Table({"per_image/prediction": np.array(answers), "per_image/margin": np.array(margins, np.float32)}, 3)
        for answers, margins in (([1, 2, 3], [4, stored_margin, -5]), ([1, 7, 3], [4, margin, -5]))
    ]
    answer, _ = columns.compare_rows(*tables, schema)
    assert (answer.images, answer.deviations, answer.count, answer.is_explained) == ((1,), 1, 3, is_explained)


def test_an_answer_of_a_recalibrated_model_is_verified(reverify: Any, folder: Path, tmp_path: Path) -> None:
    path = ask("robustness", folder, tmp_path, recalibrate="clean")
    outcome = reverify.verify(path, folder, 5)
    assert (outcome.status, outcome.images, outcome.differences()) == (0, 5, [])


def test_every_file_has_a_row_whatever_is_missing(
    reverify: Any, folder: Path, paths: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, absent_path = paths["gradient-maps"], tmp_path / "none.h5"
    arguments = [str(absent_path), str(good), "--checkpoints", str(folder), "--limit", "3"]
    assert reverify.main(arguments) == 2
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[-3:-1]] == [["none.h5", "not"], [good.name, "same"]]
    assert lines[-1].startswith(f"there is no analysis file {absent_path}")

    edited_path = edit(paths["robustness"], tmp_path, shift_nine)
    assert reverify.main([str(edited_path), *arguments]) == 1
    assert reverify.main([str(good), "--checkpoints", str(tmp_path)]) == 2
    assert f"there is no checkpoint {tmp_path}" in capsys.readouterr().out


def test_a_checkpoint_with_other_weights_is_refused(
    reverify: Any, make_checkpoint: Callable[..., Path], paths: dict[str, Path], tmp_path: Path
) -> None:
    shutil.copy(make_checkpoint(tmp_path / "others", "at-att", 2), tmp_path / f"{first_checkpoint(paths)}.safetensors")
    (outcome,) = reverify.verify_all([paths["gradient-maps"]], tmp_path, 3)
    assert "is about something else" in outcome.obstacle and outcome.status == 2


def first_checkpoint(paths: dict[str, Path]) -> str:
    name: str = analyses.read(paths["gradient-maps"]).config["checkpoint"]["name"]
    return name


def test_the_beginning_of_a_whole_split_in_class_order_is_not_its_first_images(
    reverify: Any, digits: Dataset, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = np.argsort(digits.test.labels, kind="stable")
    split = Split(digits.test.images[order], digits.test.labels[order], digits.test.masks[order])  # type: ignore[index]
    dataset = Dataset(digits.name, digits.train, split, digits.class_names)
    monkeypatch.setattr(tasks, "load", lambda _: dataset)
    path = ask("gradient-maps", folder, tmp_path, limit=None)
    first, whole = (next(iter(reverify.verify_all([path], folder, limit))) for limit in (5, len(split)))
    assert first.obstacle.endswith(f"--limit {len(split)} asks all.") and whole.status == 0


@pytest.mark.parametrize("limit", ["0", "-3"])
def test_a_limit_below_one_is_refused(reverify: Any, capsys: pytest.CaptureFixture[str], limit: str) -> None:
    assert reverify.main(["some.h5", "--limit", limit]) == 2
    assert capsys.readouterr().err == f"--limit is {limit}: give a number of images from 1 on.\n"
