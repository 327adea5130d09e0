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
from interpret_robust.core.statistics import Interval
from interpret_robust.datasets import Dataset
from interpret_robust.models import checkpoint
from interpret_robust.results import hdf5

Make = Callable[..., Path]


@pytest.fixture
def folders(tmp_path: Path, make_checkpoint: Make) -> Folders:
    new_folders = Folders(tmp_path)
    new_folders.checkpoints.mkdir()
    make_checkpoint(new_folders.checkpoints, "at", 0)
    make_checkpoint(new_folders.checkpoints, "natural", 1)
    (new_folders.checkpoints / "cut-off.state.safetensors").write_bytes(b"an unfinished run")
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
    robust, natural = listing.list_rows(folders)
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
    assert "natural" not in listing.list_rows(folders)[0]


def test_an_empty_folder_and_a_damaged_checkpoint_are_told(folders: Folders, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there are no checkpoints in"):
        listing.list_rows(Folders(tmp_path / "nowhere"))
    (path,) = folders.checkpoints.glob("*-natural-seed1.safetensors")
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match=r"natural-seed1\.safetensors is damaged"):
        listing.list_rows(folders)
