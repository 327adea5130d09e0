"""The list of checkpoints: what is there, and the accuracies that files of attacks hold."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from interpret_robust import analyses
from interpret_robust.analyses.engine.work import Work
from interpret_robust.cli import listing
from interpret_robust.core.errors import UserError
from interpret_robust.core.folders import Folders
from interpret_robust.core.intervals import Interval
from interpret_robust.datasets import Dataset
from interpret_robust.models import checkpoint, training_state
from interpret_robust.results import hdf5

Make = Callable[..., Path]


@pytest.fixture
def folders(tmp_path: Path, make_checkpoint: Make) -> Folders:
    new_folders = Folders(tmp_path)
    new_folders.checkpoints.mkdir()
    make_checkpoint(new_folders.checkpoints, "at", 0)
    make_checkpoint(new_folders.checkpoints, "natural", 1)
    return new_folders


def attack(folders: Folders, digits: Dataset, **changes: object) -> hdf5.Result:
    """A file of attacks on `at`."""
    analysis = analyses.get("robustness")
    (path,) = folders.checkpoints.glob("*-at-seed0.safetensors")
    work = Work(
        analysis,
        checkpoint.read(path),
        digits,
        folders.analyses,
        settings=analysis.settings(pgd="2", cw="none"),
        batch_size=20,
        device=torch.device("cpu"),
        **{"split": "test", "limit": 20} | changes,  # type: ignore[arg-type]
    )
    return hdf5.read(work.run())


def test_models_are_listed_with_the_accuracies_of_their_largest_file_of_test_images(
    folders: Folders, digits: Dataset
) -> None:
    attack(folders, digits)
    largest = attack(folders, digits, limit=30)
    attack(folders, digits, split="train", limit=40)
    robust, natural = listing.list_models(folders)
    assert [row["checkpoint"] for row in (robust, natural)] == [
        "cluttered-digits-small-at-seed0",
        "cluttered-digits-small-natural-seed1",
    ]
    assert robust["natural"] == Interval(*largest["accuracy/natural"][0]).percent()
    assert robust["PGD-2"] == Interval(*largest["accuracy/adversarial"][0, 0]).percent()
    assert robust["images"] == "30 test of cluttered-digits"
    assert robust["trained on"] == "60 images" and robust["recipe"] == "test"
    assert natural.keys() == {"checkpoint", "recipe", "epochs", "trained on", "MB"}


def test_a_retrained_model_has_not_the_accuracies_of_the_old_one(
    folders: Folders, digits: Dataset, make_checkpoint: Make, tmp_path: Path
) -> None:
    attack(folders, digits)
    (tmp_path / "other").mkdir()
    other = make_checkpoint(tmp_path / "other", "at", 7)
    other.replace(folders.checkpoints / "cluttered-digits-small-at-seed0.safetensors")
    assert "natural" not in listing.list_models(folders)[0]


def stop_early(path: Path) -> Path:
    """Write the state of a training that was stopped, beside the checkpoint at `path`."""
    whole = checkpoint.read(path)
    metadata = whole.about | {"step": 3, "job": whole.job | {"recipe": whole.job["recipe"] | {"batch_size": 20}}}
    state = training_state.name_state(path)
    checkpoint.write(state, metadata, {f"model.{name}": tensor for name, tensor in whole.tensors.items()})
    return state


def test_unfinished_trainings_are_listed_with_their_step_and_how_to_go_on(folders: Folders) -> None:
    paths = folders.list_models()
    assert listing.list_models(folders).note == ""
    state = stop_early(paths[0])
    table = listing.list_models(folders)
    assert [row["checkpoint"] for row in table] == [*(path.stem for path in paths), state.stem]
    assert [row.get("unfinished") for row in table] == [None, None, "3 of 30 steps"]
    assert table.note == "An unfinished training goes on where it was when the same `irt train` is given again."
    for path in paths:
        path.unlink()
    assert [row["unfinished"] for row in listing.list_models(folders)] == ["3 of 30 steps"]
    with pytest.raises(UserError, match=f"there are no finished .*: {state.name} is unfinished, and the same `irt tra"):
        folders.all_models()


def test_files_under_the_name_of_the_other_kind_are_marked(folders: Folders) -> None:
    robust, natural = folders.list_models()
    stop_early(robust).replace(robust)
    natural.rename(training_state.name_state(natural))
    table = listing.list_models(folders)
    assert [row.get("unfinished") for row in table] == ["3 of 30 steps", None]
    assert f"{robust} is an unfinished training under the name of a finished one: rename it to {robust.stem}.s" in (
        table.note
    )
    assert f"is a finished checkpoint under the name of an unfinished training: rename it to {natural.name}." in (
        table.note
    )


def test_an_empty_folder_and_a_damaged_checkpoint_are_told(folders: Folders, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there are no checkpoints in"):
        listing.list_models(Folders(tmp_path / "nowhere"))
    (path,) = folders.checkpoints.glob("*-natural-seed1.safetensors")
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match=r"natural-seed1\.safetensors is damaged"):
        listing.list_models(folders)
