"""Old files, whose names are in British spelling: read with the same values under the names of today."""

import csv
import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from make_golden import FOLDER
from safetensors.torch import load_file, save_file
from trainer import train
from words import BRITISH

import interpret_robust as ir
from interpret_robust import analyses
from interpret_robust.analyses.engine.validation import list_problems
from interpret_robust.analyses.engine.work import Work
from interpret_robust.cli.description import describe
from interpret_robust.core.arrays import AnyArray
from interpret_robust.core.errors import UserError
from interpret_robust.core.folders import Folders
from interpret_robust.core.interruption import Stopped
from interpret_robust.core.spelling import (
    AMERICAN,
    SCHEMAS,
    american,
    british,
    list_spellings,
    translate_name,
    translate_recipes,
)
from interpret_robust.datasets import Dataset
from interpret_robust.figures.drawing import draw_folder
from interpret_robust.models import checkpoint, checkpoint_file
from interpret_robust.models.training_state import name_state
from interpret_robust.models.variants import find_variant
from interpret_robust.results import hdf5
from interpret_robust.results.export import to_csv
from interpret_robust.results.hdf5 import Result
from interpret_robust.training.job import Job
from interpret_robust.training.recipe import Recipe

CPU = torch.device("cpu")
NEW_NAMES = {
    "alignment/1": {
        "per_image/linearised_robustness": "per_image/linearized_robustness",
        "robustness/linearised": "robustness/linearized",
        "curve/linearised_robustness": "curve/linearized_robustness",
    },
    "attention-maps/1": {"colour": "color"},
    "attention-rank/2": {"colour": "color"},
    "gradient-maps/1": {"colour": "color", "examples/colour": "examples/color"},
    "localisation/1": {
        "per_image/centre": "per_image/center",
        "per_image/centre_hit": "per_image/center_hit",
        "share/centre": "share/center",
        "share/above_centre": "share/above_center",
        "pointing/centre": "pointing/center",
        "pointing/above_centre": "pointing/above_center",
    },
    "randomisation/1": {},
}
"""Every dataset and axis of an old schema whose name has changed, and its name of today."""

OLD = sorted(SCHEMAS)


def file_of(label: str) -> Path:
    return FOLDER / f"{label.replace('/', '-')}.h5"


def read_arrays(path: Path) -> dict[str, AnyArray]:
    """All datasets as the file holds them, by every name that leads to them."""
    arrays: dict[str, AnyArray] = {}
    with h5py.File(path) as file:

        def visit(name: str, item: h5py.Group | h5py.Dataset) -> None:
            if isinstance(item, h5py.Dataset) and not name.startswith("provenance/"):
                arrays[name] = (item.asstr() if item.dtype == object else item)[()]

        file.visititems_links(lambda name, _: visit(name, file[name]))
    return arrays


def contents(result: Result) -> dict[str, AnyArray]:
    return {name: result[name] for name, _, _ in hdf5.list_datasets(result.path)}


def test_the_table_holds_each_word_once_and_goes_both_ways() -> None:
    assert len({*AMERICAN.values()}) == len(AMERICAN)
    assert all(BRITISH.fullmatch(word) and not BRITISH.search(today) for word, today in AMERICAN.items())
    assert american("share/above_centre, in colour") == "share/above_center, in color"
    assert british("share/above_center") == "share/above_centre"
    assert (translate_name("localisation"), translate_name("localization"), translate_name("masking")) == (
        *["localization"] * 2,
        "masking",
    )
    assert (list_spellings("randomization"), list_spellings("masking")) == (
        ("randomization", "randomisation"),
        ("masking",),
    )


def test_only_recipes_are_renamed_and_their_values_are_not() -> None:
    settings = {"recipe": "optimiser", "settings": {"optimiser": "centre"}}
    content = settings | {"jobs": {"a": {"recipe": {"optimiser": "colour"}}}}
    assert translate_recipes(content) == settings | {"jobs": {"a": {"recipe": {"optimizer": "colour"}}}}
    assert content == settings | {"jobs": {"a": {"recipe": {"optimiser": "colour"}}}}


@pytest.mark.parametrize("label", OLD)
def test_an_old_file_gives_what_it_holds_under_the_names_of_today(label: str) -> None:
    path, new_names = file_of(label), NEW_NAMES[label]
    result, arrays = hdf5.read(path, SCHEMAS[label]), read_arrays(path)
    assert new_names.keys() <= arrays.keys()
    for name, values in arrays.items():
        today = new_names.get(name, name)
        assert not BRITISH.search(today)
        np.testing.assert_array_equal(result[today], values, err_msg=today)
        if values.ndim and values.dtype != object:
            np.testing.assert_array_equal(result.first(today, 2), values[:2])
        assert british(today) == name
    for name, today in new_names.items():
        assert today in result and name not in result
        with pytest.raises(UserError, match=f"holds no '{name}'"):
            result[name]
    assert {name for name, _, _ in hdf5.list_datasets(path)} <= {new_names.get(name, name) for name in arrays}


@pytest.mark.parametrize("label", OLD)
def test_an_old_file_and_a_new_one_give_the_same(label: str) -> None:
    old, new = (hdf5.read(file_of(file_label), SCHEMAS[label]) for file_label in (label, SCHEMAS[label]))
    assert (old.schema, old.analysis, old.count) == (new.schema, new.analysis, new.count)
    old_names, new_names = (list(contents(result)) for result in (old, new))
    assert set(old_names) <= set(new_names)
    # An old file links to each scale, of which a new one has a copy beside what is plotted along it.
    scales = {axis for name in old_names for axis in old.axes(name)}
    assert {name.rpartition("/")[2] for name in set(new_names) - set(old_names)} <= scales
    columns = [name for name in old_names if name.rpartition("/")[2] not in scales]
    assert [old.axes(name) for name in columns] == [new.axes(name) for name in columns]
    if label == "gradient-maps/1":  # of another network, which is no more
        assert old.config["checkpoint"].pop("sha256") != new.config["checkpoint"].pop("sha256")
    else:
        for name, values in contents(old).items():
            np.testing.assert_array_equal(values, new[name], err_msg=name)
    assert old.config == new.config


@pytest.mark.long
@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.h5")), ids=lambda path: path.stem)
def test_what_is_shown_exported_and_opened_elsewhere_has_the_names_of_today(path: Path, tmp_path: Path) -> None:
    text = describe(path).replace(str(path), "")
    assert not BRITISH.findall(text)
    tables = to_csv(path, tmp_path)
    for table in (tables.images, tables.statistics):
        assert not BRITISH.findall(table.read_text(encoding="utf-8"))
    assert not BRITISH.findall(" ".join(tables.left_out))
    tree = ir.open(path).to_xarray()
    names = [str(name) for node in tree.subtree for name in (*node.variables, *node.dims)]
    assert len(names) > 20 and not BRITISH.findall(" ".join(names))
    assert not BRITISH.findall(str([node.attrs.get(key) for node in tree.subtree for key in ("axes", "title")]))
    assert list_problems(path) == []


def test_tables_of_an_old_file_hold_its_numbers(tmp_path: Path) -> None:
    path = file_of("localisation/1")
    with open(to_csv(path, tmp_path).images, encoding="utf-8", newline="") as file:
        columns = dict(zip(*[(rows := list(csv.reader(file)))[0], zip(*rows[1:], strict=True)], strict=True))
    centers = np.array([columns[f"center[{place}]"] for place in ("weights", "gradient")], "f4").T
    np.testing.assert_array_equal(centers, read_arrays(path)["per_image/centre"])


def test_xarray_holds_the_numbers_of_an_old_file() -> None:
    path = file_of("gradient-maps/1")
    tree = ir.open(path).to_xarray()
    assert tree["examples/map"].dims == ("example", "color", "y", "x")
    np.testing.assert_array_equal(tree["examples/map"], read_arrays(path)["examples/map"])
    np.testing.assert_array_equal(tree["color"], range(3))


def test_an_answer_points_from_an_old_name_to_the_one_of_today() -> None:
    for label, name, today in (
        ("alignment/1", "robustness/linearised", "robustness/linearized"),
        ("alignment/2", "robustness/linearised", "robustness/linearized"),
        ("localisation/1", "share/above_centre", "share/above_center"),
    ):
        answer = ir.open(file_of(label))
        with pytest.raises(ir.UserError, match=f"nothing called '{name}': did you mean '{today}'"):
            answer[name]
        assert today in answer.statistics


@pytest.mark.long
def test_a_picture_is_named_as_of_today_and_shows_the_same(tmp_path: Path) -> None:
    numbers = []
    for label in ("randomisation/1", "randomization/2"):
        folders = Folders(tmp_path / label)
        folders.analyses.mkdir(parents=True)
        name = f"{label.partition('/')[0]}-tiny-digits-small-at-att-seed0-test.h5"
        shutil.copy(file_of(label), folders.analyses / name)
        (picture,) = draw_folder(["randomization"], folders, lambda _: None)
        assert picture.name == "randomization-tiny-digits-small-test.png"
        numbers.append(json.loads(picture.with_suffix(".json").read_text(encoding="utf-8"))["numbers"])
    assert numbers[0] == numbers[1]


def with_old_names(path: Path) -> None:
    """Write a checkpoint or the state of a training again as it was written before names changed."""
    tensors, content = load_file(path), checkpoint_file.read(path)
    header = json.loads(json.dumps(content.about).replace('"optimizer"', '"optimiser"'))
    tensors = {name.replace("optimizer.", "optimiser."): tensor for name, tensor in tensors.items()}
    text = json.dumps(header)
    metadata = {
        "format": checkpoint_file.FORMAT,
        "format_version": "1",
        "about": text,
        "about_sha256": checkpoint_file.hash_text(text),
        "tensors_sha256": checkpoint.hash_tensors(tensors),
    }
    save_file(tensors, path, metadata)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_training_goes_on_from_an_old_state_to_the_same_weights(
    digits: Dataset, tmp_path: Path, optimizer: Any
) -> None:
    recipe = Recipe("test", epochs=1, batch_size=16, learning_rate=0.01, attack_steps=1, optimizer=optimizer)
    job = Job(digits, "small", find_variant("at"), 3, recipe)
    whole = train(job, tmp_path / "whole", source="x", device=CPU)
    with pytest.raises(Stopped, match="after step 1 of 3"):
        train(job, tmp_path / "old", source="x", device=CPU, deadline=-math.inf)
    state = name_state(tmp_path / "old" / whole.name)
    with_old_names(state)
    assert any(name.startswith("optimiser.") for name in load_file(state))
    repeat = train(job, tmp_path / "old", source="x", device=CPU)
    header = checkpoint.read(repeat).about
    assert [part["step"] for part in header["earlier"]] == [1]
    assert checkpoint.read(repeat).sha256 == checkpoint.read(whole).sha256
    assert b"optimiser" not in repeat.read_bytes() and b"optimizer" in repeat.read_bytes()

    with_old_names(repeat)
    stamp = repeat.stat().st_mtime_ns
    assert train(job, tmp_path / "old", source="x", device=CPU) == repeat  # the same job: nothing to do
    assert repeat.stat().st_mtime_ns == stamp
    other: Any = {"sgd": "adam", "adam": "sgd"}[optimizer]
    job = replace(job, recipe=replace(recipe, optimizer=other))
    with pytest.raises(UserError, match=rf"recipe.optimizer is {optimizer}, here {other}"):
        train(job, tmp_path / "old", source="x", device=CPU)


@pytest.fixture(scope="module")
def model(make_checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> checkpoint.Checkpoint:
    return checkpoint.read(make_checkpoint(tmp_path_factory.mktemp("model"), "at-att"))


def work(model: checkpoint.Checkpoint, digits: Dataset, folder: Path, name: str, **changes: Any) -> Work:
    analysis = analyses.get(name)
    plain: dict[str, Any] = {"settings": analysis.settings(), "split": "test", "limit": None, "batch_size": 5}
    return Work(analysis, model, digits, folder, device=CPU, **(plain | changes))


def test_an_answer_that_is_there_by_an_old_name_is_not_asked_for_again(
    model: checkpoint.Checkpoint, digits: Dataset, tmp_path: Path
) -> None:
    path = work(model, digits, tmp_path, "localization").run()
    assert path.name.startswith("localization-")
    old = path.rename(path.with_name(path.name.replace("localization", "localisation")))
    repeat = work(model, digits, tmp_path, "localization")
    assert repeat.path == old and repeat.is_done(overwrite=False)
    assert repeat.run() == old and not repeat.is_new
    assert [file.name for file in tmp_path.glob("*.h5")] == [old.name]


@pytest.mark.long
def test_an_unfinished_answer_with_old_names_is_begun_anew(
    model: checkpoint.Checkpoint, digits: Dataset, tmp_path: Path
) -> None:
    job = work(model, digits, tmp_path, "attention-rank", deadline=-math.inf)
    config = job.config
    old: dict[str, Any] = json.loads(json.dumps(config).replace('"optimizer"', '"optimiser"'))
    assert old != config
    job.config = old | {"analysis": "attention-rank/2"}
    partial = tmp_path / f"{job.path.name}.partial"
    with job._open(overwrite=False) as rows:
        rows.append({column.path: rows._file[column.path][:5] for column in job.analysis.schema.per_image})
    assert partial.exists()
    path = work(model, digits, tmp_path, "attention-rank").run()
    assert hdf5.read_provenance(path)["config"] == config and not partial.exists()
    assert np.isfinite(hdf5.read(path)["per_image/attention"]).all()
